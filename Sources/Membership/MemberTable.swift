import ClusterCore

/// What a node keeps about one other member: its record, which all share, and what is only known here.
struct Peer: Sendable {
    fileprivate(set) var record: MemberRecord
    /// Exists exactly while the record says `suspect`.
    var suspicion: Suspicion?
    /// Others have given up a member that is alive by this node's record; it is asked before that counts.
    var verdict: Verdict?
    /// When a tombstone is dropped; exists exactly while the record is one.
    var expires: Instant?
    /// When it went down, by this node's clock and the age that others told.
    var lost: Instant?
    /// When a down member was last tried, or told that it is down.
    var tried: Instant?
    /// News on its way to it.
    var outbox: Outbox?
    /// The last pull from it, and both hashes at that time, mixed.
    var pulled: (at: Instant, difference: UInt64)?

    init(record: MemberRecord) {
        self.record = record
    }
}

/// A `down` that waits for the subject's own answer.
struct Verdict: Sendable {
    var record: MemberRecord
    /// How long the others have held it for down.
    var ageSeconds: UInt32
    var deadline: Instant
}

/// Records that one peer has to hear of directly, sent until it acknowledges; at most one entry per member.
struct Outbox: Sendable {
    /// The first `inFlight` of them went out under `sequence`.
    var ids: [NodeID] = []
    var inFlight = 0
    var sequence: UInt32 = 0
    var tries = 0
    var next: Instant

    init(next: Instant) {
        self.next = next
    }

    /// Adds a member whose record changed; what is in flight about it counts no more.
    mutating func add(_ id: NodeID, now: Instant) {
        if let index = ids.firstIndex(of: id) {
            ids.remove(at: index)
            if index < inFlight {
                inFlight = 0
                sequence = 0
            }
        }
        ids.append(id)
        next = now
        tries = 0
    }
}

/// The other members, sorted by id, and the sum of their hashes.
struct MemberTable: Sendable {
    /// Records change through `replaceRecord`, what is only known here in place.
    var peers: [Peer] = []
    /// Over all records that are no tombstones.
    private(set) var hashSum: UInt64 = 0
    private(set) var tombstoneCount = 0
    /// How many are alive by their records.
    private(set) var aliveCount = 0

    /// Members that count: no tombstones.
    var memberCount: Int { peers.count - tombstoneCount }

    func index(of id: NodeID) -> Int? {
        let index = insertionIndex(of: id)
        return index < peers.count && peers[index].record.id == id ? index : nil
    }

    subscript(id: NodeID) -> Peer? { index(of: id).map { peers[$0] } }

    mutating func insert(_ record: MemberRecord) -> Int {
        let index = insertionIndex(of: record.id)
        precondition(index == peers.count || peers[index].record.id != record.id, "\(record.id) is here already")
        peers.insert(Peer(record: record), at: index)
        count(record, adding: true)
        return index
    }

    mutating func replaceRecord(at index: Int, with record: MemberRecord) {
        precondition(peers[index].record.id == record.id, "a record belongs to one id")
        count(peers[index].record, adding: false)
        peers[index].record = record
        count(record, adding: true)
    }

    mutating func remove(at index: Int) {
        count(peers[index].record, adding: false)
        peers.remove(at: index)
    }

    private mutating func count(_ record: MemberRecord, adding: Bool) {
        if record.isTombstone {
            tombstoneCount += adding ? 1 : -1
        } else {
            if record.liveness == .alive { aliveCount += adding ? 1 : -1 }
            hashSum = adding ? hashSum &+ record.hash : hashSum &- record.hash
        }
    }

    /// The places of those that match. Peers are large: they are looked at where they are, and not copied.
    func indices(where condition: (borrowing Peer) -> Bool) -> [Int] {
        var found: [Int] = []
        for index in peers.indices where condition(peers[index]) { found.append(index) }
        return found
    }

    private func insertionIndex(of id: NodeID) -> Int {
        var low = 0
        var high = peers.count
        while low < high {
            let middle = (low + high) / 2
            if peers[middle].record.id < id { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

/// So many a second, with a burst; counts in thousandths.
struct RateLimit: Sendable {
    private let perSecond: UInt64
    private let burst: UInt64
    private var thousandths: UInt64
    private var filled: Instant

    init(perSecond: UInt64, burst: UInt64, now: Instant) {
        self.perSecond = perSecond
        self.burst = burst
        self.thousandths = burst * 1000
        self.filled = now
    }

    /// Takes one, if there is one.
    mutating func take(_ now: Instant) -> Bool {
        let milliseconds = min(now.milliseconds(since: filled), 1_000_000)
        if milliseconds > 0 {
            thousandths = min(burst * 1000, thousandths + milliseconds * perSecond)
            filled = now
        }
        guard thousandths >= 1000 else { return false }
        thousandths -= 1000
        return true
    }
}
