package import ClusterCore

/// What a node keeps about one other member: its record, which all share, and what is only known here.
struct Peer: Sendable {
    fileprivate(set) var record: MemberRecord
    /// Of the record; 0 for a tombstone, which counts in no sum.
    fileprivate(set) var hash: UInt64 = 0
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
    /// It has shown that it holds the cluster's state, and can hand it on.
    var isInside = false
    /// The last pull from it, and both hashes at that time, mixed.
    var pulled: (at: Instant, difference: UInt64)?

    init(record: MemberRecord) {
        self.record = record
    }

    /// Whether something is to be done about it at some time, besides its expiry.
    fileprivate var isPending: Bool { outbox != nil || suspicion != nil || verdict != nil }
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

/// The other members, sorted by id, and what would be slow to find by looking at all of them: the sum of their hashes,
/// how many are alive, of which there is something to do.
struct MemberTable: Sendable {
    /// Records change through `replaceRecord`, what is only known here through `edit`.
    private(set) var peers: [Peer] = []
    /// The places of those with an outbox, a suspicion or a verdict, in ascending order: few, at most times.
    private(set) var pending: [Int] = []
    /// When the first tombstone is dropped.
    private(set) var firstExpiry = Instant.distantFuture
    /// Whether `pending`, what is pending, or a number that its deadlines depend on has changed since this was set back.
    var isPendingChanged = true
    /// Over all records that are no tombstones.
    private(set) var hashSum: UInt64 = 0
    /// The lower halves of the same by parts of the id space, to find out cheaply where two tables differ.
    private(set) var bucketSums = Array(repeating: UInt32(0), count: Self.bucketCount)
    private(set) var tombstoneCount = 0
    /// How many are alive by their records.
    private(set) var aliveCount = 0
    /// How many are up, and not given up.
    private(set) var upCount = 0

    static let bucketCount = 128

    /// Which of the sums has the record of that id in it.
    static func bucket(of id: NodeID) -> Int { Int(truncatingIfNeeded: id.low % UInt64(bucketCount)) }

    /// Members that count: no tombstones.
    var memberCount: Int { peers.count - tombstoneCount }

    func index(of id: NodeID) -> Int? {
        let index = insertionIndex(of: id)
        return index < peers.count && peers[index].record.id == id ? index : nil
    }

    subscript(id: NodeID) -> Peer? { index(of: id).map { peers[$0] } }

    /// Whether exactly the record with this hash is here, and is no tombstone.
    func holds(_ id: NodeID, hash: UInt64) -> Bool { index(of: id).map { peers[$0].hash == hash } ?? false }

    mutating func insert(_ record: MemberRecord) -> Int {
        let index = insertionIndex(of: record.id)
        precondition(index == peers.count || peers[index].record.id != record.id, "\(record.id) is here already")
        peers.insert(Peer(record: record), at: index)
        for position in pending.indices where pending[position] >= index { pending[position] += 1 }
        count(index)
        return index
    }

    mutating func replaceRecord(at index: Int, with record: MemberRecord) {
        precondition(peers[index].record.id == record.id, "a record belongs to one id")
        discount(index)
        peers[index].record = record
        count(index)
    }

    mutating func remove(at index: Int) {
        edit(index) {
            $0.outbox = nil
            $0.suspicion = nil
            $0.verdict = nil
            $0.expires = nil
        }
        discount(index)
        peers.remove(at: index)
        for position in pending.indices where pending[position] > index { pending[position] -= 1 }
    }

    /// Changes what is only known here of a member.
    mutating func edit<Result>(_ index: Int, _ change: (inout Peer) -> Result) -> Result {
        let wasPending = peers[index].isPending
        let expired = peers[index].expires
        let result = change(&peers[index])
        let isPending = peers[index].isPending
        if wasPending || isPending { isPendingChanged = true }
        if isPending != wasPending {
            let position = pending.firstIndex { $0 >= index } ?? pending.endIndex
            if isPending { pending.insert(index, at: position) } else { pending.remove(at: position) }
        }
        if let expires = peers[index].expires { firstExpiry = min(firstExpiry, expires) }
        if let expired, expired == firstExpiry, peers[index].expires != expired {
            firstExpiry = peers.reduce(.distantFuture) { min($0, $1.expires ?? .distantFuture) }
        }
        return result
    }

    private mutating func count(_ index: Int) {
        let record = peers[index].record
        if record.isTombstone {
            tombstoneCount += 1
            peers[index].hash = 0
        } else {
            if record.liveness == .alive { aliveCount += 1 }
            if record.lifecycle == .up, record.isLiving { upCount += 1 }
            let hash = record.hash
            peers[index].hash = hash
            hashSum &+= hash
            bucketSums[Self.bucket(of: record.id)] &+= UInt32(truncatingIfNeeded: hash)
        }
        isPendingChanged = true
    }

    private mutating func discount(_ index: Int) {
        if peers[index].record.isTombstone {
            tombstoneCount -= 1
        } else {
            if peers[index].record.liveness == .alive { aliveCount -= 1 }
            if peers[index].record.lifecycle == .up, peers[index].record.isLiving { upCount -= 1 }
            hashSum &-= peers[index].hash
            bucketSums[Self.bucket(of: peers[index].record.id)] &-= UInt32(truncatingIfNeeded: peers[index].hash)
        }
        isPendingChanged = true
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
package struct RateLimit: Sendable {
    private let perSecond: UInt64
    private let burst: UInt64
    private var thousandths: UInt64
    private var filled: Instant

    package init(perSecond: UInt64, burst: UInt64, now: Instant) {
        self.perSecond = perSecond
        self.burst = burst
        self.thousandths = burst * 1000
        self.filled = now
    }

    /// Takes one, if there is one.
    package mutating func take(_ now: Instant) -> Bool {
        guard refill(now) > 0 else { return false }
        take(1)
        return true
    }

    /// Takes so many, of which all must be there.
    package mutating func take(_ count: UInt64) {
        precondition(thousandths >= count * 1000, "more than there is")
        thousandths -= count * 1000
    }

    /// Adds what the time since the last call brings; how many there are.
    package mutating func refill(_ now: Instant) -> UInt64 {
        let milliseconds = min(now.milliseconds(since: filled), 1_000_000)
        if milliseconds > 0 {
            thousandths = min(burst * 1000, thousandths + milliseconds * perSecond)
            filled = now
        }
        return thousandths / 1000
    }
}
