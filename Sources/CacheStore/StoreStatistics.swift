/// What a shard holds now and what has happened in it since it was made. Shards add up.
public struct StoreStatistics: Sendable, Hashable {
    /// Live items, those that expired or were flushed but are not yet swept included.
    public var items = 0
    /// Bytes that these items take in the segments.
    public var bytes = 0
    /// Bytes of everything that is in use: segments, index, rows, ghosts.
    public var memoryUsedBytes = 0
    /// The most that `memoryUsedBytes` may be.
    public var memoryLimitBytes = 0
    /// Bytes of the index that pages have.
    public var indexBytes = 0
    /// Bytes of segments in use that hold neither items nor tombstones: what died and is not cleaned yet, and the ends
    /// of open segments.
    public var deadBytes = 0
    /// Tombstones held.
    public var tombstones = 0
    /// Bytes that these tombstones take in the segments.
    public var tombstoneBytes = 0
    /// Stores since the start, overwrites included.
    public var totalItems: UInt64 = 0
    /// Live items dropped for want of memory.
    public var evictions: UInt64 = 0
    /// Those of them that nobody had read.
    public var evictedUnfetched: UInt64 = 0
    /// Expired items whose memory was taken back.
    public var reclaimed: UInt64 = 0
    /// Those of them that nobody had read.
    public var expiredUnfetched: UInt64 = 0
    /// Flushed items whose memory was taken back.
    public var flushed: UInt64 = 0
    /// Stores of keys that had been evicted shortly before.
    public var ghostHits: UInt64 = 0
    /// Tombstones that a cap dropped early, each raising the floor of its slice.
    public var floorRaises: UInt64 = 0

    /// Bytes of items that cleaning has moved.
    public var movedBytes: UInt64 = 0
    /// Reads that copies were not told of, since too many waited to be told.
    public var accessesDropped: UInt64 = 0

    public init() {}

    /// Adds another shard's figures.
    public mutating func add(_ other: StoreStatistics) {
        items += other.items
        bytes += other.bytes
        memoryUsedBytes += other.memoryUsedBytes
        memoryLimitBytes += other.memoryLimitBytes
        indexBytes += other.indexBytes
        deadBytes += other.deadBytes
        tombstones += other.tombstones
        tombstoneBytes += other.tombstoneBytes
        totalItems += other.totalItems
        evictions += other.evictions
        evictedUnfetched += other.evictedUnfetched
        reclaimed += other.reclaimed
        expiredUnfetched += other.expiredUnfetched
        flushed += other.flushed
        ghostHits += other.ghostHits
        floorRaises += other.floorRaises
        movedBytes += other.movedBytes
        accessesDropped += other.accessesDropped
    }
}
