import CacheStore
import ClusterCore
import Glibc

/// One shard over all slices, and what can be timed on it. Values are of 100 bytes, or up to that where they change.
///
/// Nanoseconds are of the thread's processor time: others on the machine cost the wall clock, not this one.
struct OneShard: ~Copyable {
    static let valueBytes = 100
    /// The largest value that is set.
    static let valueBytesMax = 64 << 10
    private static let batch = 16

    private var shard: Shard
    private var version: UInt64 = 1
    private var draws: Draws
    private let keys = KeyRoom(count: OneShard.batch)
    private let hashes = UnsafeMutablePointer<UInt64>.allocate(capacity: OneShard.batch)
    private let value = UnsafeMutableRawPointer.allocate(byteCount: OneShard.valueBytesMax, alignment: 64)
    private let reply = UnsafeMutableRawPointer.allocate(byteCount: 256, alignment: 64)
    private(set) var now = Now(instant: Instant(nanoseconds: 1_000_000_000), unixMilliseconds: 1_700_000_000_000)

    init(memoryBytes: Int, seed: UInt64) {
        shard = Shard(slices: 0..<Slice.count, configuration: StoreConfiguration(memoryBytes: memoryBytes))
        draws = Draws(seed: seed)
        value.initializeMemory(as: UInt8.self, repeating: 0x76, count: Self.valueBytesMax)
        hashes.initialize(repeating: 0, count: Self.batch)
    }

    deinit {
        keys.deallocate()
        hashes.deallocate()
        value.deallocate()
        reply.deallocate()
    }

    var statistics: StoreStatistics { shard.statistics }

    static func processorTime() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }

    @inline(__always)
    private mutating func set(_ number: UInt64, bytes: Int, expiry: UInt32) {
        let key = keys.write(number, at: 0)
        version &+= 1
        let operation = Operation(
            .set,
            hash: KeyHash.hash(key),
            key: key,
            value: UnsafeRawBufferPointer(start: value, count: bytes),
            expiry: expiry
        )
        _ = shard.apply(operation, version: version, now: now)
    }

    /// Sets keys in order, each once; nanoseconds a set. A life in seconds, or 0 for ever.
    mutating func insert(_ range: Range<UInt64>, lifeSeconds: UInt32 = 0) -> Double {
        let expiry = lifeSeconds == 0 ? 0 : now.unixSeconds + lifeSeconds
        let start = Self.processorTime()
        var number = range.lowerBound
        while number < range.upperBound {
            set(number, bytes: Self.valueBytes, expiry: expiry)
            number &+= 1
        }
        return Double(Self.processorTime() - start) / Double(range.count)
    }

    /// Sets keys that are there, at random; nanoseconds a set. The value keeps its size or changes it.
    mutating func overwrite(items: UInt64, operations: Int, isResized: Bool) -> Double {
        let start = Self.processorTime()
        for _ in 0..<operations {
            let number = draws.below(items)
            let bytes = isResized ? 10 &+ Int(truncatingIfNeeded: draws.below(91)) : Self.valueBytes
            set(number, bytes: bytes, expiry: 0)
        }
        return Double(Self.processorTime() - start) / Double(operations)
    }

    /// The longest of so many sets, in nanoseconds: for information, since interrupts are part of it. Keys are drawn from
    /// a range, sizes from 1 to a bound, at most `valueBytesMax`.
    mutating func longestSet(of range: Range<UInt64>, operations: Int, bytesMax: Int) -> Double {
        var longest: UInt64 = 0
        for _ in 0..<operations {
            let number = range.lowerBound + draws.below(UInt64(range.count))
            let bytes = 1 + Int(truncatingIfNeeded: draws.below(UInt64(bytesMax)))
            let start = Self.processorTime()
            set(number, bytes: bytes, expiry: 0)
            longest = max(longest, Self.processorTime() - start)
        }
        return Double(longest)
    }

    /// Reads keys that are there, at random, one after the other, and copies their values; nanoseconds a get.
    mutating func get(items: UInt64, operations: Int) -> Double {
        var found = 0
        let start = Self.processorTime()
        for _ in 0..<operations {
            let key = keys.write(draws.below(items), at: 0)
            if let item = shard.find(hash: KeyHash.hash(key), key: key, now: now) {
                item.value.copy(to: reply)
                found &+= 1
            }
        }
        let elapsed = Self.processorTime() - start
        precondition(found == operations, "\(operations - found) of \(operations) keys were missed")
        return Double(elapsed) / Double(operations)
    }

    /// The same in batches: all keys hashed, then their lines asked for, pages, buckets, items, then read.
    mutating func getBatched(items: UInt64, operations: Int) -> Double {
        let batches = max(1, operations / Self.batch)
        var found = 0
        let start = Self.processorTime()
        for _ in 0..<batches {
            for index in 0..<Self.batch {
                hashes[index] = KeyHash.hash(keys.write(draws.below(items), at: index))
                shard.prefetchPage(hash: hashes[index])
            }
            for index in 0..<Self.batch { shard.prefetchIndex(hash: hashes[index]) }
            for index in 0..<Self.batch { shard.prefetchItem(hash: hashes[index]) }
            for index in 0..<Self.batch {
                if let item = shard.find(hash: hashes[index], key: keys[index], now: now) {
                    item.value.copy(to: reply)
                    found &+= 1
                }
            }
        }
        let elapsed = Self.processorTime() - start
        precondition(found == batches * Self.batch, "\(batches * Self.batch - found) keys were missed")
        return Double(elapsed) / Double(found)
    }

    /// Visits every item of every slice, 64 at a time; nanoseconds an item.
    mutating func scan(items: UInt64) -> Double {
        var seen: UInt64 = 0
        var bytes = 0
        let start = Self.processorTime()
        for slice in 0..<Slice.count {
            var cursor: UInt64? = 0
            while let place = cursor {
                var left = 64
                cursor = shard.scan(slice: slice, from: place, now: now) { item in
                    seen &+= 1
                    bytes &+= item.value.count
                    left &-= 1
                    return left > 0
                }
            }
        }
        let elapsed = Self.processorTime() - start
        precondition(seen == items && bytes > 0, "the scan saw \(seen) of \(items) items")
        return Double(elapsed) / Double(seen)
    }

    /// Lets time pass until all items are dead, and has the shard take their memory back; nanoseconds an item.
    mutating func expire(items: UInt64, lifeSeconds: UInt32) -> Double {
        let start = Self.processorTime()
        var turns = 0
        now.unixMilliseconds += UInt64(lifeSeconds + 1) * 1000
        while shard.statistics.items > 0, turns < 10_000_000 {
            // A turn of the control thread, every 10 ms.
            now.instant = now.instant.advanced(byMilliseconds: 10)
            now.unixMilliseconds += 10
            shard.advance(now: now, budget: 4096)
            turns += 1
        }
        let elapsed = Self.processorTime() - start
        precondition(shard.statistics.items == 0, "\(shard.statistics.items) expired items are still held")
        return Double(elapsed) / Double(items)
    }
}
