import Replication

/// A set of members that is asked for every request that leaves the node.
///
/// A hash table costs a dozen nanoseconds a question. Most requests go to a few members, so the answer is mostly in a
/// small table of members that are known to be in the set.
struct PeerMarks: ~Copyable {
    private static let recentCount = 64

    private var all: Set<PeerNumber> = []
    /// By the low bits of a member's number, one that is in the set; `none` where nobody is known to be.
    private let recent: UnsafeMutablePointer<PeerNumber>

    init() {
        recent = .allocate(capacity: Self.recentCount)
        recent.initialize(repeating: .none, count: Self.recentCount)
    }

    deinit {
        recent.deallocate()
    }

    private static func place(of peer: PeerNumber) -> Int { Int(peer.value) & (recentCount &- 1) }

    mutating func insert(_ peer: PeerNumber) {
        all.insert(peer)
    }

    mutating func remove(_ peer: PeerNumber) {
        all.remove(peer)
        if recent[Self.place(of: peer)] == peer { recent[Self.place(of: peer)] = .none }
    }

    /// `none` is never in the set.
    func contains(_ peer: PeerNumber) -> Bool {
        let place = Self.place(of: peer)
        if recent[place] == peer { return peer != .none }
        guard all.contains(peer) else { return false }
        recent[place] = peer
        return true
    }
}
