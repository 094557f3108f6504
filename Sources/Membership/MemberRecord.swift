package import ClusterCore

/// What the owner of a record says about itself; nobody else writes it.
package enum Lifecycle: UInt8, Hashable, Sendable, CaseIterable {
    /// Learns and serves nothing as an owner; goes to `up` when it has taken its slices.
    case joining = 0
    /// A settled member; goes to `draining`, or to `left` by force.
    case up = 1
    /// Gives its slices away; goes back to `up`, or to `left`.
    case draining = 2
    /// Gone on purpose: a tombstone. Only a higher generation comes back.
    case left = 3
}

/// What the others say about a member, in ascending rank; refuted by the owner with a higher incarnation.
package enum Liveness: UInt8, Hashable, Sendable, CaseIterable {
    case alive = 0
    /// Failed a probe; reroutes requests, changes no ring.
    case suspect = 1
    /// Given up by the others; remains a member, and is probed slowly for ever.
    case down = 2
    /// Removed by an operator or by a new id under its name: a tombstone. Only a higher generation comes back.
    case forgotten = 3
}

/// What the cluster knows about one member: its own statement, and what the others say about its liveness.
///
/// Records of one id form a semilattice under `merged(with:)`: whoever has heard the same set of records, in any order
/// and any number of times, holds the same one.
package struct MemberRecord: Hashable, Sendable {
    /// The longest name, in bytes of UTF-8.
    package static let nameBytesMax = 64
    /// The longest zone, in bytes of UTF-8.
    package static let zoneBytesMax = 32

    package var id: NodeID
    /// Raised at every start, on disk before the first packet. The highest replaces the others whole.
    package var generation: UInt64
    /// Raised by the owner to refute.
    package var incarnation: UInt32
    /// Raised by the owner with each change of its statement; never falls within a generation.
    package var sequence: UInt32
    package var lifecycle: Lifecycle
    package var liveness: Liveness
    package var name: String
    package var zone: String
    /// Share of the ring, in thousandths of a plain node.
    package var weight: UInt32
    /// Where memcache clients connect.
    package var client: Endpoint
    /// UDP for gossip and TCP for links, on one port.
    package var cluster: Endpoint
    /// Where operators connect; may be loopback.
    package var admin: Endpoint
    /// Hash of the settings that must be equal on all nodes.
    package var configurationHash: UInt64
    package var protocolVersion: UInt16
    /// Memory that the node gives to items.
    package var memoryBytes: UInt64
    /// The owner has seen three members up. Never taken back, also not by a higher generation.
    package var sawThree: Bool
    /// The owner came back after the others had given it up, and stays out of the ring for a while.
    package var isDamped: Bool

    package init(
        id: NodeID,
        generation: UInt64,
        incarnation: UInt32 = 0,
        sequence: UInt32 = 0,
        lifecycle: Lifecycle = .joining,
        liveness: Liveness = .alive,
        name: String,
        zone: String = "",
        weight: UInt32 = 1000,
        client: Endpoint,
        cluster: Endpoint,
        admin: Endpoint,
        configurationHash: UInt64 = 0,
        protocolVersion: UInt16 = 1,
        memoryBytes: UInt64 = 0,
        sawThree: Bool = false,
        isDamped: Bool = false
    ) {
        self.id = id
        self.generation = generation
        self.incarnation = incarnation
        self.sequence = sequence
        self.lifecycle = lifecycle
        self.liveness = liveness
        self.name = name
        self.zone = zone
        self.weight = weight
        self.client = client
        self.cluster = cluster
        self.admin = admin
        self.configurationHash = configurationHash
        self.protocolVersion = protocolVersion
        self.memoryBytes = memoryBytes
        self.sawThree = sawThree
        self.isDamped = isDamped
    }

    /// Gone for good in this generation: left by its own word or forgotten by another's.
    package var isTombstone: Bool { lifecycle == .left || liveness == .forgotten }

    /// A member that is not given up: `alive` or `suspect`, and no tombstone.
    package var isLiving: Bool { liveness <= .suspect && lifecycle != .left }
}

extension Liveness: Comparable {
    package static func < (left: Liveness, right: Liveness) -> Bool { left.rawValue < right.rawValue }
}

extension MemberRecord {
    /// The least record that is no older than either; commutes, associates, is idempotent. Both must be of one id.
    ///
    /// Within a generation the two halves merge apart: the statement by (incarnation, sequence), liveness by
    /// (incarnation, rank). One tuple for both would hide what an owner says while it is suspected: a leave would
    /// become a crash. `forgotten` outranks every incarnation, since a tombstone is not to be refuted.
    package func merged(with other: MemberRecord) -> MemberRecord {
        precondition(id == other.id, "records of \(id) and \(other.id) do not merge")
        // Most news is none.
        if self == other { return self }
        var result = self
        if generation != other.generation {
            if generation < other.generation { result = other }
        } else {
            if isStatedBefore(other) { result = other }
            let verdict: Liveness
            if liveness == .forgotten || other.liveness == .forgotten {
                verdict = .forgotten
            } else if incarnation == other.incarnation {
                verdict = max(liveness, other.liveness)
            } else {
                verdict = incarnation > other.incarnation ? liveness : other.liveness
            }
            result.liveness = verdict
        }
        result.sawThree = sawThree || other.sawThree
        return result
    }

    /// As `merged(with:)`, without the rules that are switched off.
    func merged(with other: MemberRecord, ablations: MembershipAblations) -> MemberRecord {
        guard ablations.contains(.mergeByHalves) else { return merged(with: other) }
        func order(_ record: MemberRecord) -> (UInt64, UInt32, UInt8, UInt32) {
            (record.generation, record.incarnation, record.liveness.rawValue, record.sequence)
        }
        return order(self) < order(other) ? other : self
    }

    /// Whether the other statement of the same generation is newer. An owner never states two things under one
    /// (incarnation, sequence); where a broken one does, the bytes decide, so that all nodes still agree.
    private func isStatedBefore(_ other: MemberRecord) -> Bool {
        if incarnation != other.incarnation { return incarnation < other.incarnation }
        if sequence != other.sequence { return sequence < other.sequence }
        return statementBytes.lexicographicallyPrecedes(other.statementBytes)
    }

    private var statementBytes: [UInt8] {
        var bare = self
        bare.liveness = .alive
        bare.sawThree = false
        return bare.encoded
    }

    /// Mixed from every field; the same on every node and platform.
    package var hash: UInt64 {
        var buffer = ByteBuffer(capacity: 160)
        encode(into: &buffer)
        return Self.hash(ofEncoded: buffer.bytes)
    }
}
