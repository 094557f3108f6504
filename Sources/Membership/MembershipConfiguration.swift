/// The settings of membership; all times in milliseconds.
package struct MembershipConfiguration: Hashable, Sendable {
    /// The cluster's identity, at most 64 bytes. Nodes under another name are refused, never merged.
    package var clusterName = "henge"
    /// The settings that must be equal on all nodes, as `key=value` separated by spaces, at most 200 bytes: a node that
    /// is refused for another `configurationHash` names the difference from it.
    package var settings = ""

    /// Each node probes one other per interval. Longer: less traffic, later detection.
    package var probeIntervalMilliseconds: UInt64 = 500
    /// From a ping to the call for indirect probes. Shorter: more indirect probes on a slow network.
    package var directTimeoutMilliseconds: UInt64 = 150
    /// From a ping to the suspicion.
    package var probeEndMilliseconds: UInt64 = 400
    /// How many others are asked for an indirect probe.
    package var indirectProbeCount = 3
    /// When an intermediary admits that it heard nothing, in percent of the time that the prober has left.
    package var nackPercent: UInt64 = 80
    /// Local health stretches probes up to (this + 1) times.
    package var healthMax = 7
    /// From here on a node takes what it sees for its own fault rather than the others'.
    package var unwellHealth = 4

    /// Up to so many members, an update goes to all directly and is acknowledged.
    package var directMembersMax = 32
    /// A direct update without acknowledgement is sent again after this time.
    package var updateRetryMilliseconds: UInt64 = 50
    /// After so many sendings the hash in pings has to repair it.
    package var updateTriesMax = 8
    /// Beyond `directMembersMax`: news goes out once per interval.
    package var gossipIntervalMilliseconds: UInt64 = 100
    /// To so many random members.
    package var gossipFanout = 3
    /// To each of them so many datagrams per interval at most, where there is news of hundreds.
    package var gossipDatagramsMax = 4
    /// So many times at least, 4·⌈log10(N+1)⌉ in large clusters.
    package var gossipTransmitsMin = 8
    /// Bytes of news a second, headers included, and the burst: one change goes out as fast as it can, and some at once
    /// do not flood the network.
    package var gossipBytesPerSecond: UInt64 = 4000
    package var gossipBytesBurst: UInt64 = 4000
    /// Where more pieces than these wait, or than a third of the members, as when all start, news is told without a pace
    /// until none is left.
    package var pacedGossipItemsMax = 64

    /// The least time from suspicion to `down`, in probe intervals, times max(1, log10 N).
    package var suspicionIntervals: UInt64 = 4
    /// The most, as a multiple of the least: what an accusation takes that nobody confirms.
    package var suspicionMostFactor: UInt64 = 6
    /// So many independent confirmations bring the time down to the least; 0 to 3.
    package var suspicionConfirmations = 2

    /// How long a member is down before the ring is made without it.
    package var ringAbsenceMilliseconds: UInt64 = 30_000
    /// A member that comes back into the ring waits so long, doubled each time that it was given up; 0: never.
    package var dampingMilliseconds: UInt64 = 1000
    /// Where doubling ends.
    package var dampingMostMilliseconds: UInt64 = 60_000
    /// For each interval in which it was not given up, the wait is halved.
    package var dampingCalmMilliseconds: UInt64 = 60_000

    /// One `down` member is probed per interval, for ever.
    package var downProbeIntervalMilliseconds: UInt64 = 30_000
    /// First retry of an unanswered seed; doubles, jittered.
    package var seedRetryMilliseconds: UInt64 = 250
    /// Where doubling ends; names are resolved again at this interval while the node is alone.
    package var seedRetryMostMilliseconds: UInt64 = 5000
    /// A member tries seeds that it does not count among the living.
    package var lostSeedRetryMilliseconds: UInt64 = 5000
    /// So many at a time at most, and with chance min(1, this/alive).
    package var lostSeedTriesMax = 8
    /// How long a fresh cluster waits for silent seeds once a majority sees each other; three times that for a node
    /// that remembers peers.
    package var formationPatienceMilliseconds: UInt64 = 1000
    /// A joiner reports itself joined once its hash was equal to others' and held so long (two gossip intervals).
    package var joinSettleMilliseconds: UInt64 = 200
    /// Or after this time, for in a cluster with much change hashes never hold.
    package var joinSettleMostMilliseconds: UInt64 = 5000
    /// How many members one after the other may send a joiner on before it waits for the next try.
    package var joinRedirectsMax = 8
    /// Seeds plus resolved addresses plus remembered peers that are kept.
    package var contactsMax = 64

    /// A full exchange with a random member, the backstop of all else.
    package var fullExchangeIntervalMilliseconds: UInt64 = 30_000
    /// One peer with the same difference is pulled from once per interval.
    package var pullPeerIntervalMilliseconds: UInt64 = 1000
    /// One peer with a new difference is pulled from once per interval.
    package var pullNewDifferenceMilliseconds: UInt64 = 20
    /// Pulls a second, by all peers together, and the burst that may run ahead.
    package var pullsPerSecond: UInt64 = 2
    package var pullsBurst: UInt64 = 8
    /// Answers to pulls a second, and the burst: what a stranger can make a node send. A joiner beyond that is sent on to
    /// another member.
    package var pullAnswersPerSecond: UInt64 = 40
    package var pullAnswersBurst: UInt64 = 80
    /// A state of more datagrams than this goes over TCP; at most 64.
    package var stateDatagramsMax = 8

    /// How long a `left` or `forgotten` record is kept.
    package var tombstoneMilliseconds: UInt64 = 24 * 3600 * 1000
    /// So many tombstones at most; the one that expires first goes first.
    package var tombstonesMax = 1024
    /// So many records at most, tombstones included; further ids are refused.
    package var recordsMax = 4096
    /// Payload of a datagram, 600 to 65,000 bytes.
    package var datagramBytesMax = 1200

    /// Rules that are switched off, for the simulator alone: no setting leads here.
    package var ablations: MembershipAblations = []

    package init() {}

    /// Throws what contradicts.
    package func validate() throws(InvalidMembershipConfiguration) {
        func require(_ condition: Bool, _ message: String) throws(InvalidMembershipConfiguration) {
            if !condition { throw InvalidMembershipConfiguration(message: message) }
        }
        try require(
            (1...64).contains(clusterName.utf8.count),
            "clusterName takes 1 to 64 bytes, not \(clusterName.utf8.count)"
        )
        try require(settings.utf8.count <= 200, "settings take at most 200 bytes, not \(settings.utf8.count)")
        try require(
            directTimeoutMilliseconds < probeEndMilliseconds,
            "directTimeout (\(directTimeoutMilliseconds) ms) must be shorter than probeEnd (\(probeEndMilliseconds) ms)"
        )
        try require(
            probeEndMilliseconds <= probeIntervalMilliseconds,
            "probeEnd (\(probeEndMilliseconds) ms) must not exceed probeInterval (\(probeIntervalMilliseconds) ms)"
        )
        try require(
            probeIntervalMilliseconds >= 4 && directTimeoutMilliseconds > 0 && updateRetryMilliseconds > 0
                && gossipIntervalMilliseconds > 0 && seedRetryMilliseconds > 0 && lostSeedRetryMilliseconds > 0
                && downProbeIntervalMilliseconds > 0 && fullExchangeIntervalMilliseconds > 0
                && tombstoneMilliseconds > 0 && dampingCalmMilliseconds > 0,
            "intervals must be above 0 ms, probeInterval at least 4"
        )
        try require(nackPercent > 0 && nackPercent <= 100, "nackPercent is 1 to 100, not \(nackPercent)")
        try require(
            seedRetryMilliseconds <= seedRetryMostMilliseconds,
            "seedRetry (\(seedRetryMilliseconds) ms) must not exceed seedRetryMost (\(seedRetryMostMilliseconds) ms)"
        )
        try require(
            (0...3).contains(suspicionConfirmations) && suspicionIntervals > 0 && suspicionMostFactor > 0,
            "suspicionConfirmations is 0 to 3, suspicionIntervals and suspicionMostFactor at least 1"
        )
        try require(
            dampingMilliseconds <= dampingMostMilliseconds && dampingMostMilliseconds <= 86_400_000,
            "damping (\(dampingMilliseconds) ms) must not exceed dampingMost (\(dampingMostMilliseconds) ms), "
                + "that not a day"
        )
        try require(
            (600...65_000).contains(datagramBytesMax),
            "datagramBytesMax is 600 to 65,000, not \(datagramBytesMax)"
        )
        try require(
            gossipBytesBurst >= UInt64(datagramBytesMax) + 28,
            "gossipBytesBurst (\(gossipBytesBurst)) must have room for a datagram (\(datagramBytesMax) bytes) and headers"
        )
        try require((1...64).contains(stateDatagramsMax), "stateDatagramsMax is 1 to 64, not \(stateDatagramsMax)")
        try require(
            healthMax >= 0 && healthMax <= 100 && indirectProbeCount >= 0 && gossipFanout > 0 && updateTriesMax > 0
                && gossipTransmitsMin > 0 && gossipDatagramsMax > 0 && contactsMax > 0 && tombstonesMax >= 0
                && recordsMax > tombstonesMax && joinRedirectsMax >= 0 && lostSeedTriesMax > 0 && pullsBurst > 0
                && pullAnswersBurst > 0,
            "counts must be positive, healthMax at most 100, recordsMax above tombstonesMax"
        )
    }

    /// What a reader needs of two settings strings that are not equal: the parts that only one of them has.
    package static func difference(own: String, other: String) -> String {
        let ownParts = own.split(separator: " ")
        let otherParts = other.split(separator: " ")
        let onlyOwn = ownParts.filter { !otherParts.contains($0) }.joined(separator: " ")
        let onlyOther = otherParts.filter { !ownParts.contains($0) }.joined(separator: " ")
        if onlyOwn.isEmpty && onlyOther.isEmpty { return "the settings read alike, their hashes differ" }
        return "here \(onlyOwn.isEmpty ? "nothing" : onlyOwn), there \(onlyOther.isEmpty ? "nothing" : onlyOther)"
    }
}

/// Two settings that contradict, or one out of range.
package struct InvalidMembershipConfiguration: Error, Hashable, Sendable {
    package var message: String
}
