/// What a shard holds now and what has happened in it since it was made. Shards add up.
public struct StoreStatistics: Sendable, Hashable {
    /// Live items, those that expired or were flushed but are not yet swept included.
    public var items = 0
    /// Bytes of these items, as the allocator rounds them.
    public var bytes = 0
    /// Bytes of everything: items, tombstones, index, slice rows, ghosts.
    public var memoryUsedBytes = 0
    /// The most that `memoryUsedBytes` may be.
    public var memoryLimitBytes = 0
    /// Tombstones held.
    public var tombstones = 0
    /// Bytes of these tombstones, as the allocator rounds them.
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

    public init() {}

    /// Adds another shard's figures.
    public mutating func add(_ other: StoreStatistics) {
        items += other.items
        bytes += other.bytes
        memoryUsedBytes += other.memoryUsedBytes
        memoryLimitBytes += other.memoryLimitBytes
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
    }
}
