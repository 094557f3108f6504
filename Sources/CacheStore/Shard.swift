public import ClusterCore
import Glibc

// The store of a node: what a cache holds, in bounded memory.
//
// Problem. Items must be found by key in a memory access or two, listed by slice without a scan of the rest, evicted so
// that what is read again stays, and told apart by version from what was deleted. All that within a limit that the
// operator sets and that is the whole truth, with few bytes an item beyond its own, and no operation may take long.
//
// The simple idea, a dictionary of blocks from the allocator with a linked list for recency, fails: each item pays 90
// bytes, the allocator keeps what does not fit again, a growing dictionary rehashes all at once, a slice cannot be
// listed, one pass over cold keys pushes out everything, and expired items lie about until somebody finds them.
//
// The idea used. A `Shard` is a value over a contiguous range of slices; the runtime puts a lock around it. Its memory
// is one region (`StoreLayout`), most of it *segments*. Items are appended to open segments as in a log (Segcache, Yang
// and others, NSDI 2021): items that die at about the same time share a segment, which goes as a whole when its time
// has come. Space comes back by cleaning one segment after the other, item by item, by S3-FIFO (Yang and others, "FIFO
// queues are all you need for cache eviction", SOSP 2023): new items are in the small pool, a tenth of the memory; its
// oldest segment is cleaned by moving what was read to the main pool and dropping the rest, whose hashes are remembered
// as ghosts; main's oldest is cleaned by moving what was read since, with one read less on its account. A read sets two
// bits in the index and moves nothing. Segments that overwrites have made thin are compacted first.
//
//     set ─▶ open segment of (pool, time class) ─▶ closed ─▶ cleaned ─▶ free
//                                      index (`HashIndex`) ─▶ location of each item
//
// Death has four forms. Evicted, expired and flushed items leave no trace; deleted ones leave a tombstone, in segments
// of their own, that carries the version, so that a copy elsewhere can be told. Expired and flushed items are dead at
// once for every reader; their memory comes back when a writer, a cleaning or the sweep of `advance` meets them.
//
// Work is in steps: while little is free, each write cleans a few records. A store waits for a whole segment's cleaning
// only where writes are so large that the steps fall behind. A large value may push out as many small items as it needs
// room for.

/// A part of the store: all items of a contiguous range of slices.
///
/// Not thread-safe; whoever shares it locks around it. Slices outside its range are a fault of the caller.
public struct Shard: ~Copyable {
    /// The slices that the shard holds.
    public let slices: Range<Int>
    public let configuration: StoreConfiguration

    let layout: StoreLayout
    /// What gives the hash of a key again, when a record is all that is known.
    let hash: @Sendable (UnsafeRawBufferPointer) -> UInt64
    private let arena: Arena
    let rows: UnsafeMutablePointer<SliceRow>
    let ghosts: GhostTable
    var index: HashIndex
    var segments: SegmentTable
    /// The open segments of the two pools.
    let open: UnsafeMutablePointer<OpenSegments>
    /// How many of them are for items that expire.
    var openCount = 0
    /// Segments that were opened for items that expire.
    var expiringCount = 0
    /// The tombstones' open segment.
    var openTombstones = SegmentTable.none
    /// The cleaning that is under way.
    var cleaning: Cleaning?
    /// Records that cleaning has looked at since the start, fillers included: the measure of a call's work, beside
    /// `StoreStatistics.movedBytes`.
    var visitedRecords: UInt64 = 0
    /// Where the next tombstone whose age is to be looked at lies; nil begins at the oldest.
    var tombstoneCursor: (segment: UInt32, offset: Int)?
    /// No segment can have expired before this second.
    var earliestExpiry = UInt32.max
    /// No delayed flush is due before this millisecond; later ones may have been cancelled.
    var earliestFlush = UInt64.max
    /// The highest version that any slice was flushed to.
    var highestFlush: UInt64 = 0
    /// Bytes that the last operation took out and that live on in its outcome.
    var limbo: UnsafeMutableRawBufferPointer?
    /// Where the sweep goes on: a slice by its index, and a cursor in it.
    var sweepIndex = 0
    var sweepCursor: UInt64 = 0
    /// How many slices a flush has marked for the sweep.
    var sweepsPending = 0
    /// The page that is looked at next for extents to give back.
    var shrinkCursor = 0
    /// An index segment that is being emptied.
    var sparseSegment = SegmentTable.none
    /// Hashes of items whose frequency has changed since they were last taken.
    let accesses: UnsafeMutablePointer<UInt64>
    var accessCount = 0
    /// Whether changes of frequency are recorded, for copies that see no reads.
    public var recordsAccesses = false
    var itemCount = 0
    var itemBytes = 0
    var tombstoneCount = 0
    var tombstoneBytes = 0
    /// The counters among them are kept, the rest is filled in when asked for.
    var counters = StoreStatistics()

    /// How many accesses are kept until somebody takes them; beyond it they are dropped and counted.
    static let accessesMax = 4096

    /// Makes an empty shard. A configuration that `validate` refuses is a fault of the caller. `hash` must give the
    /// hash by which operations name a key.
    public init(
        slices: Range<Int>,
        configuration: StoreConfiguration,
        hash: @escaping @Sendable (UnsafeRawBufferPointer) -> UInt64 = { KeyHash.hash($0) }
    ) {
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
        self.hash = hash
        layout = StoreLayout(memoryBytes: configuration.memoryBytes, sliceCount: slices.count)
        arena = Arena(byteCount: layout.totalBytes)
        let base = arena.base
        ghosts = GhostTable(memory: base, setCount: layout.ghostSets)
        rows = (base + layout.rowsOffset).bindMemory(to: SliceRow.self, capacity: slices.count)
        rows.initialize(repeating: SliceRow(), count: slices.count)
        segments = SegmentTable(
            rows: (base + layout.segmentRowsOffset).bindMemory(to: SegmentRow.self, capacity: layout.segmentCount),
            base: base + layout.segmentsOffset,
            count: layout.segmentCount,
            segmentBytes: layout.segmentBytes
        )
        index = HashIndex(layout: layout, region: base, slices: slices)
        open = UnsafeMutablePointer<OpenSegments>.allocate(capacity: 2)
        let windowsMax = Self.openLimit(segmentCount: layout.segmentCount)
        for pool in 0..<2 { (open + pool).initialize(to: OpenSegments(windows: OpenWindows(capacity: windowsMax))) }
        accesses = UnsafeMutablePointer<UInt64>.allocate(capacity: Self.accessesMax)
    }

    deinit {
        for pool in 0..<2 { open[pool].windows.deallocate() }
        open.deallocate()
        accesses.deallocate()
        limbo?.deallocate()
    }

    /// The row of a slice; valid as long as the shard.
    public func row(_ slice: Int) -> UnsafeMutablePointer<SliceRow> {
        precondition(slices.contains(slice), "slice \(slice) is not in \(slices)")
        return rows + (slice &- slices.lowerBound)
    }

    /// What the shard holds and has done.
    public var statistics: StoreStatistics {
        var statistics = counters
        statistics.items = itemCount
        statistics.bytes = itemBytes
        let used = segments.count - segments.freeCount
        statistics.memoryUsedBytes = layout.segmentsOffset + used * layout.segmentBytes
        statistics.memoryLimitBytes = configuration.memoryBytes
        statistics.indexBytes = index.usedExtents * HashIndex.extentBytes + index.pageCount * HashIndex.pageStride
        statistics.deadBytes =
            (used - segments.index.count) * layout.segmentBytes - itemBytes - tombstoneBytes
        statistics.tombstones = tombstoneCount
        statistics.tombstoneBytes = tombstoneBytes
        return statistics
    }

    // MARK: Reading

    /// A plain read: expired, flushed and deleted items are misses. Counts as an access, frees nothing.
    public mutating func find(hash: UInt64, key: UnsafeRawBufferPointer, now: Now) -> ItemView? {
        guard let slot = locate(hash, key) else { return nil }
        let record = segments.record(Slot.location(slot.pointee))
        guard !Slot.isTombstone(slot.pointee), !isDead(record, hash, now) else { return nil }
        noteRead(slot, record, hash, now)
        return view(record, slot.pointee, hash)
    }

    /// The item or the tombstone of a key, without counting as an access; expired and flushed ones are nil.
    public func peek(hash: UInt64, key: UnsafeRawBufferPointer, now: Now) -> ItemView? {
        guard let slot = locate(hash, key) else { return nil }
        let record = segments.record(Slot.location(slot.pointee))
        return isDead(record, hash, now) ? nil : view(record, slot.pointee, hash)
    }

    // MARK: Helpers

    @inline(__always)
    func row(of hash: UInt64) -> UnsafeMutablePointer<SliceRow> {
        let slice = Slice.index(of: hash)
        precondition(slices.contains(slice), "slice \(slice) is not in \(slices)")
        return rows + (slice &- slices.lowerBound)
    }

    /// The slot of a key's item or tombstone.
    @inline(__always)
    func locate(_ hash: UInt64, _ key: UnsafeRawBufferPointer) -> SlotPointer? {
        precondition(slices.contains(Slice.index(of: hash)), "slice \(Slice.index(of: hash)) is not in \(slices)")
        return index.first(hash) { segments.record(Slot.location($0)).hasKey(key) }
    }

    /// Whether an item is expired, or an item or tombstone flushed.
    @inline(__always)
    func isDead(_ record: Record, _ hash: UInt64, _ now: Now) -> Bool {
        // The slice's row is looked at only where a flush may have killed the item.
        let version = record.version
        if version <= highestFlush || now.unixMilliseconds >= earliestFlush,
            version <= row(of: hash).pointee.flushVersion(now: now)
        {
            return true
        }
        let expiry = record.expiry
        return expiry != 0 && now.unixSeconds >= expiry && record.kind == .item
    }

    /// Counts a read; writes only what changes.
    @inline(__always)
    mutating func noteRead(_ slot: SlotPointer, _ record: Record, _ hash: UInt64, _ now: Now) {
        if Slot.frequency(slot.pointee) < Slot.frequencyMax {
            slot.pointee &+= 1 &<< Slot.frequencyShift
            if recordsAccesses { recordAccess(hash) }
        }
        record.noteAccess(now.unixSeconds)
    }

    @inline(__always)
    func view(_ record: Record, _ slot: UInt64, _ hash: UInt64) -> ItemView {
        let isTombstone = record.kind == .tombstone
        let frequency = Slot.frequency(slot)
        return ItemView(
            key: record.key,
            value: record.isChunked
                ? ItemValue(chunked: record, segments: segments.base, chunkBytes: layout.chunkBytes)
                : ItemValue(record.body),
            flags: record.flags,
            expiry: isTombstone ? 0 : record.expiry,
            version: record.version,
            unique: isTombstone ? 0 : record.unique,
            hash: hash,
            frequency: Slot.isMain(slot) ? max(1, frequency) : frequency,
            isTombstone: isTombstone
        )
    }

    /// What an item takes in the segments, its chunks included.
    func bytes(of record: Record) -> Int {
        var bytes = record.byteCount
        if record.isChunked {
            for index in 0..<record.chunkCount { bytes &+= segments.record(record.chunkLocation(index)).byteCount }
        }
        return bytes
    }

    /// Takes an item or tombstone out of the index and of all sums, and gives its bytes back.
    mutating func unlink(_ slot: SlotPointer, _ hash: UInt64) {
        let record = segments.record(Slot.location(slot.pointee))
        let row = row(of: hash)
        let bytes = bytes(of: record)
        if Slot.isTombstone(slot.pointee) {
            tombstoneCount &-= 1
            tombstoneBytes &-= bytes
            row.pointee.tombstones &-= 1
        } else {
            itemCount &-= 1
            itemBytes &-= bytes
            row.pointee.count &-= 1
            row.pointee.bytes &-= UInt64(bytes)
        }
        let location = Slot.location(slot.pointee)
        index.remove(slot, hash)
        release(location, withChunks: true)
    }

    /// Turns a record, and its chunks, into fillers. A closed segment without a live record becomes free at once.
    mutating func release(_ location: UInt64, withChunks: Bool) {
        let record = segments.record(location)
        if withChunks, record.isChunked {
            for index in 0..<record.chunkCount { release(record.chunkLocation(index), withChunks: false) }
        }
        let bytes = record.byteCount
        record.fill(byteCount: bytes)
        let segment = segments.segment(of: location)
        let row = segments.rows + Int(segment)
        row.pointee.live &-= UInt32(truncatingIfNeeded: bytes)
        if row.pointee.live == 0, !row.pointee.isOpen, cleaning?.segment != segment { free(segment) }
    }

    /// Gives a segment without live records back.
    mutating func free(_ segment: UInt32) {
        let row = segments.rows + Int(segment)
        precondition(row.pointee.live == 0, "segment \(segment) still holds \(row.pointee.live) bytes")
        if row.pointee.isOpen { close(segment) }
        if row.pointee.isExpiring { expiringCount &-= 1 }
        if tombstoneCursor?.segment == segment { tombstoneCursor = nil }
        segments.release(segment)
    }

    /// Discards an expired or flushed item, and counts it.
    mutating func reap(_ slot: SlotPointer, _ hash: UInt64, _ now: Now) {
        let record = segments.record(Slot.location(slot.pointee))
        if record.kind == .item {
            if record.version <= row(of: hash).pointee.flushVersion(now: now) {
                counters.flushed &+= 1
            } else {
                counters.reclaimed &+= 1
                if !record.isFetched { counters.expiredUnfetched &+= 1 }
            }
        }
        unlink(slot, hash)
    }

    /// Ends the life of views from the operation before.
    @inline(__always)
    mutating func releaseLimbo() {
        if let bytes = limbo {
            limbo = nil
            bytes.deallocate()
        }
    }
}
