import ClusterCore

/// What a shard knows of one slice as a whole: fencing and counts. The caller may read and write it, except `count`,
/// `tombstones`, `bytes` and `isSweepPending`, which the shard keeps.
public struct SliceRow {
    /// The highest version ever seen here, flushes included.
    public var newest: UInt64 = 0
    /// Versions up to here may have been deleted without a trace: what returns from elsewhere must be above it.
    public var floor: UInt64 = 0
    /// Items of this version or below are dead.
    public var flushVersion: UInt64 = 0
    /// When a delayed flush is due, in Unix milliseconds; 0 is none.
    public var flushAt: UInt64 = 0
    /// Bytes that live items take in the segments.
    public internal(set) var bytes: UInt64 = 0
    /// Live items; expired and flushed ones count until they are swept.
    public internal(set) var count: UInt32 = 0
    /// Tombstones.
    public internal(set) var tombstones: UInt32 = 0
    /// While true, age alone does not drop the slice's tombstones, only the caps do.
    public var tombstonesHeld = false
    /// A flush has killed items that are not yet swept.
    var isSweepPending = false

    public init() {}

    /// `flushVersion`, with a delayed flush that is due counted in.
    @inline(__always)
    func flushVersion(now: Now) -> UInt64 {
        guard flushAt != 0, now.unixMilliseconds >= flushAt else { return flushVersion }
        return max(flushVersion, flushAt << 16)
    }
}
