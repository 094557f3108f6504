package import CacheStore
import ClusterCore
package import Replication

/// The seam to the shell's locks, one for each shard; each is a leaf. A node on one thread has none.
package protocol ShardLocks: AnyObject, Sendable {
    func lock(_ shard: Int)
    func unlock(_ shard: Int)
}

/// All shards of a node, at stable addresses.
///
/// Sendable although its shards are mutable: whoever touches shard `i` holds lock `i` (`withShard` and `lock` are the
/// only ways to one), or is alone in the process because `locks` is nil.
package final class ShardTable: @unchecked Sendable {
    package let count: Int
    /// A slice's number shifted by this is its shard's.
    private let sliceShift: Int
    private let memory: UnsafeMutableRawPointer
    private let locks: (any ShardLocks)?

    /// `count` is a power of two; `memoryBytes` is shared evenly.
    package init(
        count: Int,
        store: StoreConfiguration,
        configuration: ReplicationConfiguration,
        locks: (any ShardLocks)?
    ) {
        precondition(count > 0 && count & (count - 1) == 0 && count <= Slice.count, "\(count) shards")
        self.count = count
        sliceShift = (Slice.count / count).trailingZeroBitCount
        self.locks = locks
        memory = .allocate(byteCount: count * Self.strideBytes, alignment: Self.lineBytes)
        let size = Slice.count / count
        var each = store
        each.memoryBytes = store.memoryBytes / count
        each.tombstoneBytesMax = store.tombstoneBytesMax / count
        for index in 0..<count {
            (memory + index * Self.strideBytes).bindMemory(to: ShardPlane.self, capacity: 1).initialize(
                to: ShardPlane(
                    index: index,
                    slices: (index * size)..<((index + 1) * size),
                    store: each,
                    configuration: configuration
                )
            )
        }
    }

    deinit {
        for index in 0..<count { shard(index).deinitialize(count: 1) }
        memory.deallocate()
    }

    /// Two lines, since the processor fetches them in pairs.
    private static let lineBytes = 128
    /// Each shard begins on lines of its own, or workers in neighbouring shards would wait for each other's.
    private static var strideBytes: Int {
        (MemoryLayout<ShardPlane>.stride + lineBytes - 1) / lineBytes * lineBytes
    }

    @inline(__always)
    private func shard(_ index: Int) -> UnsafeMutablePointer<ShardPlane> {
        (memory + index &* Self.strideBytes).assumingMemoryBound(to: ShardPlane.self)
    }

    /// The shard that a slice is in.
    package func index(of slice: Int) -> Int { slice &>> sliceShift }

    /// Locks a shard; `unlock` must follow in the same call.
    package func lock(_ index: Int) -> UnsafeMutablePointer<ShardPlane> {
        locks?.lock(index)
        return shard(index)
    }

    package func unlock(_ index: Int) {
        locks?.unlock(index)
    }

    /// Runs `body` on a shard under its lock.
    package func withShard<Result>(_ index: Int, _ body: (inout ShardPlane) -> Result) -> Result {
        let shard = lock(index)
        defer { unlock(index) }
        return body(&shard.pointee)
    }

    /// Runs `body` on every shard, one lock at a time.
    package func withEach(_ body: (inout ShardPlane) -> Void) {
        for index in 0..<count { withShard(index, body) }
    }
}
