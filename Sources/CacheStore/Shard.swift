public import ClusterCore
import Glibc

// The store of a node: what a cache holds, in bounded memory.
//
// Problem. Items must be found by key in a memory access or two, listed by slice without a scan of the rest, evicted so
// that what is read again stays, and told apart by version from what was deleted. All that within a limit that the
// operator sets, and no operation may take long.
//
// The simple idea, a dictionary with a linked list for recency, fails four times: a growing dictionary rehashes all at
// once; a slice cannot be listed; one pass over cold keys pushes out everything; and a list of recency is written on
// each read.
//
// The idea used. A `Shard` is a plain value over a contiguous range of slices; the runtime puts a lock around it. Each
// slice has its own small table of buckets in the order of the circle (`SliceState`), which grows a few buckets at a
// time. An item is one block of raw memory: header, key, value. Eviction is S3-FIFO (Yang and others, "FIFO queues are
// all you need for cache eviction", SOSP 2023): new items enter a small queue, move to the main one if they were read,
// else leave and are remembered as ghosts; a read sets two bits and moves nothing.
//
// Death has four forms. Evicted, expired and flushed items leave no trace; deleted ones leave a tombstone that carries
// the version, so that a copy elsewhere can be told. Expired and flushed items are dead at once for every reader, and
// their memory comes back when a writer or the sweep of `advance` meets them.
//
// Bounds that are not obvious: a store of a large value may evict as many small items as it needs room for, at most
// `itemBytesMax` divided by the smallest block; and while a store replaces an item, the old and the new block exist
// together for the moment of the copy. The fragmentation of the allocator is not counted.

/// A part of the store: all items of a contiguous range of slices.
///
/// Not thread-safe; whoever shares it locks around it. Slices outside its range are a fault of the caller.
public struct Shard: ~Copyable {
    /// The slices that the shard holds.
    public let slices: Range<Int>
    public let configuration: StoreConfiguration

    let states: UnsafeMutablePointer<SliceState>
    var ghosts: GhostTable
    var small = ItemQueue()
    var main = ItemQueue()
    var tombstones = ItemQueue()
    /// The next tombstone whose age is to be looked at; nil begins at the oldest.
    var tombstoneCursor: ItemPointer?
    /// An item that was killed by the last operation and lives on in its outcome; in no chain and no queue.
    var limbo: ItemPointer?
    /// An item that eviction must leave alone, since an operation works on it.
    var pinned: ItemPointer?
    /// Bytes of everything.
    var usedBytes: Int
    /// Bytes of `usedBytes` that eviction cannot free: rows, ghosts, tables.
    var permanentBytes: Int
    /// Where the sweep goes on: an index into `states`, and a place within that slice.
    var sweepIndex = 0
    var sweepPlace: UInt64 = 0
    /// How many slices a flush has marked for the sweep.
    var sweepsPending = 0
    /// The counters among them are kept, the rest is filled in when asked for.
    var counters = StoreStatistics()

    /// Makes an empty shard. A configuration that `validate` refuses is a fault of the caller.
    public init(slices: Range<Int>, configuration: StoreConfiguration) {
        precondition(
            !slices.isEmpty && slices.lowerBound >= 0 && slices.upperBound <= Slice.count,
            "\(slices) is no range of slices"
        )
        do throws(StoreConfigurationError) {
            try configuration.validate(sliceCount: slices.count)
        } catch {
            preconditionFailure("a shard needs a valid configuration: \(error.message)")
        }
        self.slices = slices
        self.configuration = configuration
        states = UnsafeMutablePointer<SliceState>.allocate(capacity: slices.count)
        states.initialize(repeating: SliceState(), count: slices.count)
        ghosts = GhostTable(memoryBytes: configuration.memoryBytes)
        permanentBytes = configuration.fixedBytes(sliceCount: slices.count)
        usedBytes = permanentBytes
    }

    deinit {
        for queue in [small, main, tombstones] {
            var next = queue.oldest
            while let item = next {
                next = item.pointee.newer
                free(item)
            }
        }
        free(limbo)
        for index in 0..<slices.count {
            free(states[index].table)
            free(states[index].larger)
        }
        states.deallocate()
    }

    /// The row of a slice; valid as long as the shard.
    public func row(_ slice: Int) -> UnsafeMutablePointer<SliceRow> {
        // The row is the first field of the state.
        UnsafeMutableRawPointer(state(slice: slice)).assumingMemoryBound(to: SliceRow.self)
    }

    /// What the shard holds and has done.
    public var statistics: StoreStatistics {
        var statistics = counters
        statistics.items = small.count + main.count
        statistics.bytes = small.bytes + main.bytes
        statistics.memoryUsedBytes = usedBytes
        statistics.memoryLimitBytes = configuration.memoryBytes
        statistics.tombstones = tombstones.count
        statistics.tombstoneBytes = tombstones.bytes
        return statistics
    }

    // MARK: Reading

    /// A plain read: expired, flushed and deleted items are misses. Counts as an access, frees nothing.
    public mutating func find(hash: UInt64, key: UnsafeRawBufferPointer, now: Now) -> ItemView? {
        let state = state(hash: hash)
        guard let item = state.pointee.locate(hash: hash, key: key), !item.isTombstone,
            !isDead(item, in: state, now: now)
        else { return nil }
        item.countRead()
        return item.view
    }

    /// The item or the tombstone of a key, without counting as an access; expired and flushed ones are nil.
    public func peek(hash: UInt64, key: UnsafeRawBufferPointer, now: Now) -> ItemView? {
        let state = state(hash: hash)
        guard let item = state.pointee.locate(hash: hash, key: key), !isDead(item, in: state, now: now) else {
            return nil
        }
        return item.view
    }

    /// Visits the items and tombstones of a slice in the order of their hashes, from a cursor: 0, or what an earlier
    /// call returned. Skips expired and flushed ones, counts no access.
    ///
    /// Ends when the visitor returns false (that item has been visited) or the slice ends; nil is the end. An item
    /// that is present throughout is visited exactly once, whatever happens between the calls. Items of one and the
    /// same hash are visited together, even if the visitor returned false on the first of them.
    public func scan(slice: Int, from cursor: UInt64, now: Now, _ visit: (ItemView) -> Bool) -> UInt64? {
        let state = state(slice: slice)
        guard state.pointee.table != nil, cursor < 1 << 50 else { return nil }
        let start = cursor &<< 14
        var place = start
        var stoppedAt: UInt64?
        repeat {
            var node = state.pointee.bucket(at: place)?.pointee
            while let item = node {
                node = item.pointee.next
                let itemPlace = SliceState.place(item.pointee.hash)
                if itemPlace < start { continue }
                if let stoppedAt, stoppedAt != itemPlace { return stoppedAt >> 14 + 1 }
                if isDead(item, in: state, now: now) { continue }
                if !visit(item.view) { stoppedAt = itemPlace }
            }
            // All items of a hash share a bucket.
            if let stoppedAt {
                let next = stoppedAt >> 14 + 1
                return next < 1 << 50 ? next : nil
            }
            place = state.pointee.nextPlace(after: place)
        } while place != 0
        return nil
    }

    // MARK: Helpers

    @inline(__always)
    func state(slice: Int) -> UnsafeMutablePointer<SliceState> {
        precondition(slices.contains(slice), "slice \(slice) is not in \(slices)")
        return states + (slice &- slices.lowerBound)
    }

    @inline(__always)
    func state(hash: UInt64) -> UnsafeMutablePointer<SliceState> { state(slice: Slice.index(of: hash)) }

    /// Whether an item is expired, or an item or tombstone flushed.
    @inline(__always)
    func isDead(_ item: ItemPointer, in state: UnsafeMutablePointer<SliceState>, now: Now) -> Bool {
        if item.pointee.version <= state.pointee.row.flushVersion(now: now) { return true }
        return !item.isTombstone && item.pointee.expiry != 0 && now.unixSeconds >= item.pointee.expiry
    }

    /// Takes an item or tombstone out of everything, and leaves its memory.
    mutating func detach(_ item: ItemPointer, in state: UnsafeMutablePointer<SliceState>) {
        state.pointee.unlink(item)
        switch item.pointee.kind {
        case .small: small.remove(item)
        case .main: main.remove(item)
        case .tombstone:
            if tombstoneCursor == item { tombstoneCursor = item.pointee.newer }
            tombstones.remove(item)
            return
        }
        state.pointee.row.count &-= 1
        state.pointee.row.bytes &-= UInt64(item.charge)
    }

    /// Gives the memory of a detached item back.
    mutating func release(_ item: ItemPointer) {
        usedBytes &-= item.charge
        free(item)
    }

    mutating func discard(_ item: ItemPointer, in state: UnsafeMutablePointer<SliceState>) {
        detach(item, in: state)
        release(item)
    }

    /// Discards an expired or flushed item, and counts it.
    mutating func reap(_ item: ItemPointer, in state: UnsafeMutablePointer<SliceState>, now: Now) {
        if !item.isTombstone {
            if item.pointee.version <= state.pointee.row.flushVersion(now: now) {
                counters.flushed &+= 1
            } else {
                counters.reclaimed &+= 1
                if !item.pointee.isFetched { counters.expiredUnfetched &+= 1 }
            }
        }
        discard(item, in: state)
    }

    /// Ends the life of views from the operation before.
    @inline(__always)
    mutating func releaseLimbo() {
        if let item = limbo {
            limbo = nil
            release(item)
        }
    }
}
