import ClusterCore

// Where UDP does not pass.
//
// Firewalls open TCP for one port and forget UDP. A member behind one is alive, and whoever calls it dead is wrong, so
// a probe that is not answered in time goes over TCP as well, while others are asked. Where that happens again and
// again, all that is to be said goes over TCP; pings go both ways, and the first answer by UDP ends it.

/// Endpoints for which datagrams are sent over TCP, with how often they were heard over TCP alone.
struct StreamedEndpoints: Sendable {
    /// Endpoints that are counted, at most; further ones are talked to by UDP.
    static let endpointsMax = 4096
    /// So many words over TCP without one by UDP between them show that UDP does not pass.
    static let proofs = 3
    /// Words that come closer together count as one: what waited for a process that was about to start, or stood still,
    /// comes all at once, and by TCP first.
    static let proofSpacingMilliseconds: UInt64 = 200

    private var counts: [Endpoint: Int] = [:]
    /// When the last word of an endpoint counted.
    private var countedAt: [Endpoint: Instant] = [:]

    func contains(_ endpoint: Endpoint) -> Bool {
        // Nobody, at most times.
        !counts.isEmpty && (counts[endpoint] ?? 0) >= Self.proofs
    }

    /// How many there are.
    var count: Int { counts.values.count { $0 >= Self.proofs } }

    /// A word came over TCP. Returns whether UDP is known to be blocked from now on.
    mutating func noteStreamed(_ endpoint: Endpoint, now: Instant) -> Bool {
        let known = counts[endpoint] ?? 0
        guard known > 0 || counts.count < Self.endpointsMax, known < Self.proofs else { return false }
        if let last = countedAt[endpoint], now.milliseconds(since: last) < Self.proofSpacingMilliseconds {
            return false
        }
        counts[endpoint] = known + 1
        countedAt[endpoint] = known + 1 < Self.proofs ? now : nil
        return known + 1 == Self.proofs
    }

    /// An answer came by UDP. Returns whether that is news.
    mutating func notePassed(_ endpoint: Endpoint) -> Bool {
        if counts.isEmpty { return false }
        countedAt[endpoint] = nil
        return (counts.removeValue(forKey: endpoint) ?? 0) >= Self.proofs
    }
}
