import ClusterCore

/// The network's faults at the moment.
struct Network {
    /// Datagrams lost, in thousandths.
    var lossThousandths: UInt64 = 5
    var duplicateThousandths: UInt64 = 5
    /// The usual delay in microseconds.
    var delayMicroseconds: ClosedRange<UInt64> = 50...300
    /// One in so many messages is slow.
    var slowOneIn: UInt64 = 200
    var slowMicroseconds: ClosedRange<UInt64> = 500...8000
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

    func delay(using random: inout Xoshiro256) -> UInt64 {
        let range =
            UInt64.random(in: 0..<slowOneIn, using: &random) == 0 ? slowMicroseconds : delayMicroseconds
        return UInt64.random(in: range, using: &random) * 1000
    }
}
