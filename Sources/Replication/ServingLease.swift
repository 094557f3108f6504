package import ClusterCore

/// Which members have a vote, and how many are needed.
///
/// Members that are down count: or both halves of a split would have a majority.
package struct Quorum: Hashable, Sendable {
    package var voters: [PeerNumber]
    package var needed: Int

    package init(voters: [PeerNumber], needed: Int) {
        self.voters = voters
        self.needed = needed
    }

    /// Whether those who agreed are enough.
    package func isMet(by agreed: (PeerNumber) -> Bool) -> Bool {
        var count = 0
        for voter in voters where agreed(voter) { count += 1 }
        return count >= needed
    }
}

/// The right to answer from own copies: a majority answered a ping that was sent less than S ago.
///
/// The lease counts from the *sending* of the ping, so that no assumption about the network's delay is made.
package struct ServingLease: Sendable {
    private let own: PeerNumber
    private let lengthMilliseconds: UInt64
    private var number: UInt64 = 0
    /// When the pings that may still be answered were sent, oldest first.
    private var sent: [(number: UInt64, at: Instant)] = []
    private static let sentMax = 16
    /// For each peer the sending time of the newest ping that it answered.
    private var answered: [PeerNumber: Instant] = [:]

    package init(own: PeerNumber, lengthMilliseconds: UInt64) {
        self.own = own
        self.lengthMilliseconds = lengthMilliseconds
    }

    /// Numbers the next ping.
    package mutating func ping(now: Instant) -> UInt64 {
        number += 1
        if sent.count == Self.sentMax { sent.removeFirst() }
        sent.append((number, now))
        return number
    }

    /// A witness answered. Returns when the answered ping was sent; nil for one that is too old to know.
    package mutating func pong(from peer: PeerNumber, number: UInt64) -> Instant? {
        guard let at = sent.first(where: { $0.number == number })?.at else { return nil }
        answered[peer] = max(answered[peer] ?? at, at)
        return at
    }

    /// A witness's earlier answers count no longer.
    package mutating func forget(_ peer: PeerNumber) {
        answered[peer] = nil
    }

    /// Until when the node may serve; in the past where it may not. A node that is alone may serve for ever.
    package func validUntil(quorum: Quorum) -> Instant {
        var times: [Instant] = []
        for voter in quorum.voters {
            if voter == own {
                times.append(.distantFuture)
            } else if let at = answered[voter] {
                times.append(at)
            }
        }
        guard quorum.needed > 0, times.count >= quorum.needed else { return Instant(nanoseconds: 0) }
        times.sort(by: >)
        let weakest = times[quorum.needed - 1]
        return weakest.advanced(byMilliseconds: lengthMilliseconds)
    }
}

/// What a member remembers of others' pings: how long they have been silent, and whom it helped to replace.
package struct Witness: Sendable {
    private var heard: [PeerNumber: Instant] = [:]
    private var fences: [PeerNumber: UInt64] = [:]
    private var fenceCounter: UInt64 = 0
    /// Silence counts from here at the earliest: the start of the process, or the end of a pause in which nothing
    /// could be heard.
    private var deafUntil: Instant

    package init(now: Instant) {
        deafUntil = now
    }

    package mutating func hear(_ peer: PeerNumber, now: Instant) {
        heard[peer] = now
    }

    /// The node was paused: what others sent meanwhile may still be unread.
    package mutating func wokeUp(now: Instant) {
        deafUntil = now
    }

    package mutating func forget(_ peer: PeerNumber) {
        heard[peer] = nil
        fences[peer] = nil
    }

    /// How long the peer has been silent, in milliseconds; never more than is certain.
    package func silenceMilliseconds(of peer: PeerNumber, now: Instant) -> UInt64 {
        now.milliseconds(since: max(heard[peer] ?? deafUntil, deafUntil))
    }

    /// This member agreed to replace the peer, which must hear of it before an answer counts.
    package mutating func fence(_ peer: PeerNumber) {
        fenceCounter += 1
        fences[peer] = fenceCounter
    }

    /// The peer was told.
    package mutating func unfence(_ peer: PeerNumber) {
        fences[peer] = nil
    }

    /// Not 0 where the peer must read this member's table first.
    package func fence(of peer: PeerNumber) -> UInt64 { fences[peer] ?? 0 }
}
