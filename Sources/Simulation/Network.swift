import ClusterCore

/// The network's faults at the moment.
struct Network {
    /// Datagrams lost, in thousandths.
    var lossThousandths: UInt64 = 5
    var duplicateThousandths = Network.usualDuplicateThousandths
    /// Packets of connections lost, in thousandths, either way: the kernel sends again, and what comes later waits.
    var linkLossThousandths: UInt64 = 0
    /// The usual delay in microseconds.
    var delayMicroseconds = Network.usualDelayMicroseconds
    /// One in so many messages is slow.
    var slowOneIn: UInt64 = 200
    var slowMicroseconds: ClosedRange<UInt64> = 500...8000
    static let usualDuplicateThousandths: UInt64 = 5
    static let usualDelayMicroseconds: ClosedRange<UInt64> = 50...300
    private(set) var blocked: Set<Path> = []

    struct Path: Hashable {
        var from: Int
        var to: Int
    }

    func isBlocked(_ from: Int, _ to: Int) -> Bool {
        !blocked.isEmpty && blocked.contains(Path(from: from, to: to))
    }

    mutating func block(_ from: Int, _ to: Int) {
        if from != to { blocked.insert(Path(from: from, to: to)) }
    }

    mutating func unblockAll() { blocked = [] }

    /// How long the kernel takes to bring a segment through a loss, in nanoseconds: it waits 200 ms before it sends again,
    /// and twice as long each time. What is lost of the answers counts too.
    func retransmissionDelay(first: UInt64 = 200_000_000, using random: inout Xoshiro256) -> UInt64 {
        guard linkLossThousandths > 0 else { return 0 }
        var delay: UInt64 = 0
        var wait = first
        for _ in 0..<Self.retransmissionsMax {
            let isLost =
                UInt64.random(in: 0..<1000, using: &random) < linkLossThousandths
                || UInt64.random(in: 0..<1000, using: &random) < linkLossThousandths
            guard isLost else { break }
            delay += wait
            wait *= 2
        }
        return delay
    }

    /// Longer rows of losses are rare, and a call that waits a minute for its turn tells nothing more.
    private static let retransmissionsMax = 4

    func delay(using random: inout Xoshiro256) -> UInt64 {
        let range =
            UInt64.random(in: 0..<slowOneIn, using: &random) == 0 ? slowMicroseconds : delayMicroseconds
        return UInt64.random(in: range, using: &random) * 1000
    }
}
