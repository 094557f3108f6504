import CacheStore
import ClusterCore
import Glibc
import Reactor

/// Shards behind locks, as the workers of a node share them: four for each thread.
///
/// `@unchecked Sendable`: what the pointers lead to is used under the shard's lock alone, from `init` to `deinit`.
final class ManyShards: @unchecked Sendable {
    static let shardsPerThread = 4

    private let count: Int
    private let locks: LockArray
    private let memory: UnsafeMutableRawPointer
    /// A stamp for each shard, a cache line apart.
    private let versions: UnsafeMutablePointer<UInt64>
    private let items: UInt64

    private static let versionStride = 8

    /// A store with room for all items, which are in it then.
    init(threads: Int, items: UInt64) {
        count = threads * Self.shardsPerThread
        self.items = items
        locks = LockArray(count: count)
        memory = .allocate(byteCount: count * Self.strideBytes, alignment: Self.lineBytes)
        versions = .allocate(capacity: count * Self.versionStride)
        versions.initialize(repeating: 1, count: count * Self.versionStride)
        let memoryBytes = roomBytes(items: items) / count
        for index in 0..<count {
            let slices = index * Slice.count / count..<(index + 1) * Slice.count / count
            (memory + index * Self.strideBytes).bindMemory(to: Shard.self, capacity: 1).initialize(
                to: Shard(slices: slices, configuration: StoreConfiguration(memoryBytes: memoryBytes))
            )
        }
        work(seed: 0, operations: Int(items), inOrder: true)
    }

    /// As in a node: each shard begins on lines of its own, or the threads would wait for each other's.
    private static let lineBytes = 128
    private static let strideBytes = (MemoryLayout<Shard>.stride + lineBytes - 1) / lineBytes * lineBytes

    private func shard(_ index: Int) -> UnsafeMutablePointer<Shard> {
        (memory + index * Self.strideBytes).assumingMemoryBound(to: Shard.self)
    }

    deinit {
        for index in 0..<count { shard(index).deinitialize(count: 1) }
        memory.deallocate()
        versions.deallocate()
    }

    private func work(seed: UInt64, operations: Int, inOrder: Bool) {
        var draws = Draws(seed: seed)
        let keys = KeyRoom(count: 1)
        let value = UnsafeMutableRawPointer.allocate(byteCount: OneShard.valueBytes, alignment: 64)
        value.initializeMemory(as: UInt8.self, repeating: 0x76, count: OneShard.valueBytes)
        let now = Now(instant: Instant(nanoseconds: 1_000_000_000), unixMilliseconds: 1_700_000_000_000)
        for turn in 0..<operations {
            let key = keys.write(inOrder ? UInt64(turn) : draws.below(items), at: 0)
            let hash = KeyHash.hash(key)
            let operation = Operation(
                .set,
                hash: hash,
                key: key,
                value: UnsafeRawBufferPointer(start: value, count: OneShard.valueBytes)
            )
            let index = Slice.index(of: hash) &* count / Slice.count
            locks.lock(index)
            versions[index &* Self.versionStride] &+= 1
            _ = shard(index).pointee.apply(operation, version: versions[index &* Self.versionStride], now: now)
            locks.unlock(index)
        }
        keys.deallocate()
        value.deallocate()
    }

    /// Sets a second of so many threads together, each doing `operations` over keys that are there.
    func setsPerSecond(threads: Int, operations: Int, seed: UInt64) throws(SystemError) -> Double {
        let start = SystemClock.monotonic()
        var handles: [ThreadHandle] = []
        for thread in 0..<threads {
            handles.append(
                try ThreadHandle(name: "worker-\(thread)") { [self] in
                    work(seed: seed &+ UInt64(thread), operations: operations, inOrder: false)
                }
            )
        }
        for handle in handles { handle.join() }
        let elapsed = SystemClock.monotonic().nanoseconds(since: start)
        return Double(threads * operations) * 1e9 / Double(elapsed)
    }
}
