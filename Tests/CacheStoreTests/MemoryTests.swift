import ClusterCore
import Glibc
import Testing

@testable import CacheStore

@Suite struct MemoryTests {
    @Test func `a block is charged what the allocator takes`() throws {
        // Declared in malloc.h, which the Glibc module lacks.
        let symbol = try #require(dlsym(nil, "malloc_usable_size"))
        typealias UsableSize = @convention(c) (UnsafeMutableRawPointer?) -> Int
        let usableSize = unsafeBitCast(symbol, to: UsableSize.self)
        for bytes in Array(1...5000) + [100_000, 131_030, 131_040, 131_048, 131_049, 200_000, 1_048_576] {
            let charge = Block.charge(bytes)
            let capacity = Block.capacity(charge: charge)
            #expect(capacity >= bytes)
            guard let block = malloc(capacity) else { continue }
            // The chunk's own words: one, or two where it has pages of its own.
            let isPaged = charge >= 131_072
            let taken = usableSize(block) + (isPaged ? 16 : 8)
            // Where a chunk is cut from a free one, a rest too small to stand alone is left to it.
            let least = isPaged ? charge - 4096 : charge
            #expect(taken >= least && taken <= charge + 16, "\(bytes) bytes are charged \(charge), took \(taken)")
            free(block)
        }
    }

    @Test func `hot items survive a scan of cold ones`() {
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 1 << 20))
        let value = String(repeating: "v", count: 100)
        for index in 0..<200 { _ = bench.run(Request(.set, "hot \(index)", value)) }
        for index in 0..<200 { #expect(bench.value("hot \(index)") != nil) }
        for index in 0..<50_000 { _ = bench.run(Request(.set, "cold \(index)", value)) }
        let survivors = (0..<200).count { bench.value("hot \($0)") != nil }
        #expect(survivors == 200)
        let statistics = bench.shard.statistics
        #expect(statistics.evictions > 40_000 && statistics.evictedUnfetched == statistics.evictions)
        #expect(statistics.memoryUsedBytes > 15 << 16, "the memory is used")
    }

    @Test func `an evicted key that comes back enters the main queue`() {
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 256 << 10))
        for index in 0..<3000 { _ = bench.run(Request(.set, "k\(index)", "value")) }
        let evictions = bench.shard.statistics.evictions
        #expect(evictions > 300)
        // The youngest of those that are gone.
        let gone = (0..<3000).filter { bench.peeked("k\($0)") == nil }.suffix(100)
        for index in gone { _ = bench.run(Request(.set, "k\(index)", "value")) }
        #expect(bench.shard.statistics.ghostHits > 90)
        #expect(bench.shard.main.count > 90)
        for index in 3000..<6000 { _ = bench.run(Request(.set, "k\(index)", "value")) }
        #expect(gone.allSatisfy { bench.peeked("k\($0)") != nil })
    }

    @Test func `a ghost table remembers the latest and forgets what it was asked for`() {
        var ghosts = GhostTable(memoryBytes: 1 << 20)
        for index in 0..<1000 as Range<UInt64> { ghosts.insert(KeyHash.mix(index)) }
        var remembered = 0
        for index in 0..<1000 as Range<UInt64> where ghosts.remove(KeyHash.mix(index)) { remembered += 1 }
        #expect(remembered > 980)
        var left = 0
        for index in 0..<100_000 as Range<UInt64> where ghosts.remove(KeyHash.mix(index)) { left += 1 }
        #expect(left < 20)
    }

    @Test func `a table spreads, grows in steps, and shrinks when it is nearly empty`() {
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 64 << 20))
        for index in 0..<10_000 {
            _ = bench.run(Request(.set, "k\(index)"))
            let state = bench.shard.states[0]
            #expect(Int(state.nodes) <= (2 << Int(state.bits)) + 2, "growth keeps up")
        }
        let state = bench.shard.states[0]
        #expect(state.bits >= 12)
        var longest = 0
        var place: UInt64 = 0
        repeat {
            var length = 0
            var node = state.bucket(at: place)?.pointee
            while let item = node {
                length += 1
                node = item.pointee.next
            }
            longest = max(longest, length)
            place = state.nextPlace(after: place)
        } while place != 0
        #expect(longest <= 12)
        for index in 100..<10_000 {
            let key = Array("k\(index)".utf8)
            key.withUnsafeBytes { bench.shard.remove(hash: bench.hasher(key), key: $0) }
        }
        let before = bench.shard.statistics.memoryUsedBytes
        for _ in 0..<1000 { bench.shard.advance(now: at(1_000_000), budget: 100) }
        #expect(bench.shard.states[0].bits <= 8)
        #expect(bench.shard.statistics.memoryUsedBytes < before - 30_000)
        for index in 0..<100 { #expect(bench.value("k\(index)") == "") }
        let hashes = scanAll(bench.shard, slice: 5, now: at(1_000_000)).map { bench.hasher($0.key) }
        #expect(hashes.count == 100 && hashes == hashes.sorted())
    }

    @Test func `a flush in the middle of a sweep leaves nothing behind`() {
        var bench = Bench(slices: 5..<7)
        for index in 0..<1000 { _ = bench.run(Request(.set, "k\(index)", "v")) }
        while bench.shard.sweepPlace == 0 { bench.shard.advance(now: at(1_000_000), budget: 100) }
        for slice in 5..<7 { bench.shard.flush(slice: slice, version: bench.version) }
        var steps = 0
        while bench.shard.sweepsPending > 0 {
            bench.shard.advance(now: at(1_000_000), budget: 50)
            steps += 1
        }
        #expect(steps > 10, "each step is bounded")
        #expect(bench.shard.statistics.items == 0 && bench.shard.statistics.flushed == 1000)
    }

    @Test func `figures of shards add up`() {
        var bench = Bench()
        for key in ["a", "b"] { _ = bench.run(Request(.set, key, "v")) }
        _ = bench.run(Request(.delete, "a"))
        var sum = bench.shard.statistics
        sum.add(bench.shard.statistics)
        #expect(sum.items == 2 && sum.tombstones == 2 && sum.totalItems == 4)
        #expect(sum.memoryLimitBytes == 2 << 20)
        #expect(sum.bytes == 2 * Item.charge(keyBytes: 1, valueBytes: 1))
        #expect(sum.memoryUsedBytes == 2 * bench.shard.usedBytes)
    }

    @Test func `numbers are written as they are read`() {
        var number: UInt64 = 1
        for _ in 0..<200 {
            for candidate in [number, number &- 1, UInt64.max - number] {
                withUnsafeTemporaryAllocation(byteCount: 20, alignment: 1) { buffer in
                    let count = DecimalNumber.write(candidate, to: buffer)
                    let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
                    #expect(String(decoding: bytes, as: UTF8.self) == String(candidate))
                    #expect(DecimalNumber.parse(bytes) == candidate)
                }
            }
            number = number &* 10 &+ (number == 0 ? 1 : 0)
        }
    }

    @Test func `a configuration names what contradicts`() {
        var configuration = StoreConfiguration(memoryBytes: 1 << 20)
        #expect(configuration.itemBytesMax == 1_048_576 && configuration.tombstoneBytesMax == 20_971)
        #expect(throws: Never.self) { try configuration.validate(sliceCount: 100) }
        #expect(throws: StoreConfigurationError.self) { try configuration.validate(sliceCount: Slice.count) }
        configuration.tombstoneSecondsMax = 59
        #expect(throws: StoreConfigurationError.self) { try configuration.validate(sliceCount: 100) }
    }

    @Test func `a stamp that is not above the newest is a fault of the caller`() async {
        await #expect(processExitsWith: .failure) {
            var shard = Shard(slices: 0..<1, configuration: StoreConfiguration(memoryBytes: 1 << 20))
            for _ in 0..<2 { _ = apply(Request(.set, "a", "v"), to: &shard, hash: 5, version: 7, now: at(0)) }
        }
    }
}
