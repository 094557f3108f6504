import ClusterCore

/// A suspicion that runs: when it started here, and who accused by its own probes.
///
/// An accusation that nobody confirms takes long to convict, for the accuser may be the sick one; each independent
/// confirmation shortens it logarithmically (Dadgar, Phillips, Currey: "Lifeguard", 2017).
struct Suspicion: Hashable, Sendable {
    /// How many accusers are kept: the first, and three that confirm.
    static let accusersMax = 4

    var since: Instant
    /// In the order in which they were heard of.
    private(set) var accusers: [NodeID] = []

    /// Whether three have confirmed the first accuser.
    var isFull: Bool { accusers.count == Self.accusersMax }

    init(since: Instant) {
        self.since = since
    }

    /// Returns whether the accuser is new, and counts.
    mutating func add(_ accuser: NodeID) -> Bool {
        guard accusers.count < Self.accusersMax, !accusers.contains(accuser) else { return false }
        accusers.append(accuser)
        return true
    }

    /// When the suspect is given up. `members` is the cluster's size, `opinions` how many members could confirm.
    func deadline(members: Int, opinions: Int, configuration: MembershipConfiguration) -> Instant {
        let least = Self.leastMilliseconds(members: members, configuration: configuration)
        let most = least * configuration.suspicionMostFactor
        let wanted = min(configuration.suspicionConfirmations, max(0, opinions))
        let confirmations = min(max(0, accusers.count - 1), wanted)
        return since.advanced(
            byMilliseconds: most - (most - least) * Self.shrinkThousandths[wanted][confirmations] / 1000
        )
    }

    /// 4·max(1, log10 N) probe intervals, with the defaults.
    static func leastMilliseconds(members: Int, configuration: MembershipConfiguration) -> UInt64 {
        configuration.suspicionIntervals * configuration.probeIntervalMilliseconds
            * max(1000, log10Thousandths(members)) / 1000
    }

    /// log(confirmations + 1) / log(wanted + 1), in thousandths: integers, for all nodes and builds to agree.
    private static let shrinkThousandths: [[UInt64]] = [
        [1000], [0, 1000], [0, 631, 1000], [0, 500, 792, 1000],
    ]
}

/// The decimal logarithm in thousandths, rounded down, within 2 thousandths; 0 for numbers below 2.
func log10Thousandths(_ number: Int) -> UInt64 {
    guard number >= 2 else { return 0 }
    // The binary logarithm bit by bit: a mantissa in [1, 2), with 30 bits of fraction, is squared for each bit.
    let value = UInt64(number)
    let whole = UInt64(63 - value.leadingZeroBitCount)
    var mantissa = whole <= 30 ? value << (30 - whole) : value >> (whole - 30)
    var log2 = whole
    for _ in 0..<16 {
        mantissa = (mantissa &* mantissa) >> 30
        log2 <<= 1
        if mantissa >= 1 << 31 {
            mantissa >>= 1
            log2 |= 1
        }
    }
    return ((log2 * 30_103) / 100) >> 16
}
