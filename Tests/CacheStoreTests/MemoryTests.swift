import ClusterCore
import Glibc
import Testing

@testable import CacheStore

@Suite struct MemoryTests {
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
        #expect(bench.shard.faults().isEmpty)
    }

    @Test func `an evicted key that comes back enters the main queue`() {
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 256 << 10))
        for index in 0..<8000 { _ = bench.run(Request(.set, "k\(index)", "value")) }
        let evictions = bench.shard.statistics.evictions
        #expect(evictions > 300)
        // The youngest of those that are gone.
        let gone = (0..<8000).filter { bench.peeked("k\($0)") == nil }.suffix(100)
        for index in gone { _ = bench.run(Request(.set, "k\(index)", "value")) }
        #expect(bench.shard.statistics.ghostHits > 90)
        #expect(bench.shard.segments.main.count > 0)
        for index in 8000..<12_000 { _ = bench.run(Request(.set, "k\(index)", "value")) }
        #expect(gone.allSatisfy { bench.peeked("k\($0)") != nil })
    }

    @Test func `a ghost table remembers the latest and forgets what it was asked for`() {
        let sets = 500
        let memory = UnsafeMutableRawPointer.allocate(byteCount: sets * GhostTable.setBytes, alignment: 64)
        memset(memory, 0, sets * GhostTable.setBytes)
        defer { memory.deallocate() }
        let ghosts = GhostTable(memory: memory, setCount: sets)
        for index in 0..<1000 as Range<UInt64> { ghosts.insert(KeyHash.mix(index)) }
        var remembered = 0
        for index in 0..<1000 as Range<UInt64> where ghosts.remove(KeyHash.mix(index)) { remembered += 1 }
        #expect(remembered > 980)
        var left = 0
        for index in 0..<100_000 as Range<UInt64> where ghosts.remove(KeyHash.mix(index)) { left += 1 }
        #expect(left < 20)
    }

    @Test func `the index spreads, grows by extents, and shrinks when it is nearly empty`() {
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 64 << 20))
        var fullest = 0
        for index in 0..<60_000 {
            _ = bench.run(Request(.set, "k\(index)"))
            guard index % 1000 == 999, index > 10_000 else { continue }
            let slots = bench.shard.index.usedExtents * 128
            fullest = max(fullest, slots * 100 / (index + 1))
        }
        #expect(fullest < 160, "at most 1.6 slots an item, whatever their number")
        #expect(bench.shard.index.pageCount > 64 && bench.shard.faults().isEmpty)
        var spilled = 0
        var buckets = 0
        for number in 0..<bench.shard.index.pageCount {
            let page = bench.shard.index.page(UInt32(number))
            buckets += page.pointee.bucketCount
            spilled += page.pointee.spilledLow.nonzeroBitCount + page.pointee.spilledHigh.nonzeroBitCount
        }
        #expect(spilled * 3 < buckets, "\(spilled) of \(buckets) buckets have spilled")
        for index in 100..<60_000 {
            let key = Array("k\(index)".utf8)
            key.withUnsafeBytes { bench.shard.remove(hash: bench.hasher(key), key: $0) }
        }
        let before = bench.shard.statistics
        for _ in 0..<1000 { bench.shard.advance(now: at(1_000_000), budget: 100) }
        let after = bench.shard.statistics
        #expect(after.indexBytes * 3 < before.indexBytes)
        #expect(after.memoryUsedBytes < before.memoryUsedBytes)
        for index in 0..<100 { #expect(bench.value("k\(index)") == "") }
        let hashes = scanAll(bench.shard, slice: 5, now: at(1_000_000)).map { bench.hasher($0.key) }
        #expect(hashes.count == 100 && hashes == hashes.sorted())
        #expect(bench.shard.faults().isEmpty)
    }

    @Test func `the slot that is asked for ahead is the one that is found, in the bucket or behind it`() {
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 16 << 20))
        let count = 30_000
        var found = 0
        for number in 0..<count { _ = bench.run(Request(.set, "k\(number)")) }
        for number in 0..<2 * count {
            let key = Array("k\(number)".utf8)
            let hash = bench.hasher(key)
            let slot = key.withUnsafeBytes { bench.shard.locate(hash, $0)?.pointee }
            let likely = bench.shard.index.likelySlot(hash)
            if number >= count { #expect(slot == nil) } else if likely == slot { found += 1 }
            // Asking changes nothing, also for what is not there.
            bench.shard.prefetchPage(hash: hash)
            bench.shard.prefetchIndex(hash: hash)
            bench.shard.prefetchItem(hash: hash)
        }
        #expect(found * 100 >= count * 97, "\(found) of \(count)")
        #expect(bench.shard.faults().isEmpty)
    }

    @Test func `a page of a hash that many keys share gives up an item rather than a store`() {
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 4 << 20))
        let hash = UInt64(5) << 50 | 77
        var shard = Shard(slices: 5..<6, configuration: StoreConfiguration(memoryBytes: 4 << 20)) { _ in hash }
        for index in 0..<2000 {
            let result = apply(
                Request(.set, "k\(index)", "v"),
                to: &shard,
                hash: hash,
                version: UInt64(index + 1),
                now: at(1_000_000)
            )
            #expect(result.answer == .stored(UInt64(index + 1)))
        }
        #expect(shard.statistics.items <= 896 && shard.statistics.evictions >= 2000 - 896)
        #expect(peek(Array("k1999".utf8), in: shard, hash: hash, now: at(1_000_000)) != nil)
        #expect(bench.answer(Request(.get, "none")) == .miss)
    }

    @Test func `segments of items that expire go as a whole when their time has come`() {
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 4 << 20))
        let value = String(repeating: "v", count: 100)
        for index in 0..<4000 {
            _ = bench.run(Request(.set, "k\(index)", value, expiry: index % 2 == 0 ? 1060 : 2000))
        }
        // One is touched and outlives its segment.
        _ = bench.run(Request(.touch, "k0", expiry: 3000))
        _ = bench.run(Request(.touch, "k0", expiry: 4000))
        var before = bench.shard.statistics
        #expect(before.items == 4000)
        for _ in 0..<100 { bench.shard.advance(now: at(1_060_000), budget: 256) }
        var after = bench.shard.statistics
        #expect(after.items == 2001 && after.reclaimed == 1999 && after.expiredUnfetched == 1999)
        #expect(after.memoryUsedBytes * 10 < before.memoryUsedBytes * 7)
        #expect(bench.value("k0", at: 1_060_000) == value && bench.value("k1", at: 1_060_000) == value)
        before = after
        for _ in 0..<100 { bench.shard.advance(now: at(2_000_000), budget: 256) }
        after = bench.shard.statistics
        #expect(after.items == 1 && bench.value("k0", at: 2_000_000) == value)
        for _ in 0..<100 { bench.shard.advance(now: at(4_000_000), budget: 256) }
        #expect(bench.shard.statistics.items == 0 && bench.shard.faults().isEmpty)
    }

    @Test func `overwrites with new sizes are compacted, and nothing that lives is lost`() {
        var random = Xoshiro256(seed: 7)
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 16 << 20))
        func value(_ index: Int, _ length: Int) -> String { String(repeating: "\(index % 10)", count: length) }
        var lengths: [Int: Int] = [:]
        // Live bytes and overhead take 80 % of the memory.
        var bytes = 0
        var count = 0
        while bytes < 12_000_000 {
            let length = Int.random(in: 50...400, using: &random)
            lengths[count] = length
            bytes += length + 40
            _ = bench.run(Request(.set, "k\(count)", value(count, length)))
            count += 1
        }
        for _ in 0..<(3 * count) {
            let index = Int.random(in: 0..<count, using: &random)
            let length = Int.random(in: 50...400, using: &random)
            lengths[index] = length
            _ = bench.run(Request(.set, "k\(index)", value(index, length)))
        }
        let statistics = bench.shard.statistics
        #expect(statistics.evictions == 0 && statistics.items == count)
        #expect(statistics.movedBytes > 0)
        for (index, length) in lengths { #expect(bench.value("k\(index)") == value(index, length)) }
        #expect(bench.shard.faults().isEmpty)
    }

    @Test func `large values lie in chunks, are moved with them, and leave as a whole`() {
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 8 << 20, itemBytesMax: 4 << 20))
        func value(_ seed: Int, _ length: Int) -> [UInt8] {
            (0..<length).map { UInt8(truncatingIfNeeded: ($0 &* 131) ^ ($0 >> 8) &+ seed) }
        }
        var request = Request(.set, "large")
        request.value = value(1, 1_000_003)
        #expect(bench.answer(request) == .stored(bench.version))
        #expect(bench.peeked("large")?.value == request.value)
        var other = Request(.append, "large")
        other.value = value(2, 70_000)
        _ = bench.run(other)
        #expect(bench.peeked("large")?.value == request.value + other.value)
        _ = bench.run(Request(.touch, "large", expiry: 5000))
        #expect(bench.peeked("large")?.value == request.value + other.value)
        #expect(bench.answer(Request(.increment, "large", delta: 1)) == .nonNumeric)
        guard case .touched(let entry) = bench.answer(Request(.getAndTouch, "large", isExpired: true)) else {
            Issue.record("a get and touch of a large value failed")
            return
        }
        #expect(entry?.value == request.value + other.value)
        #expect(bench.value("large") == nil && bench.shard.statistics.items == 0)
        // A large one that is read stays while small ones pass, and its chunks move with it.
        _ = bench.run(request)
        _ = bench.value("large")
        let small = String(repeating: "small", count: 60)
        for index in 0..<40_000 {
            _ = bench.run(Request(.set, "small \(index)", small))
            if index % 5000 == 0 { #expect(bench.peeked("large")?.value == request.value) }
        }
        #expect(bench.shard.statistics.movedBytes > 1_000_000)
        #expect(bench.shard.faults().isEmpty)
        // Others like it push it out, whole.
        for index in 0..<40 {
            var next = Request(.set, "large \(index)")
            next.value = value(index, 700_000)
            #expect(bench.answer(next) == .stored(bench.version))
            #expect(bench.peeked("large \(index)")?.value == next.value)
        }
        #expect(bench.shard.faults().isEmpty)
        request.value = value(3, 5 << 20)
        #expect(bench.answer(request) == .tooLarge)
    }

    @Test func `a copy that hears of the holder's reads keeps what is hot`() {
        let configuration = StoreConfiguration(memoryBytes: 1 << 20)
        var holder = Bench(configuration: configuration)
        var copy = Bench(configuration: configuration)
        holder.shard.recordsAccesses = true
        let value = String(repeating: "v", count: 100)
        for index in 0..<30_000 {
            let request = Request(.set, "k\(index)", value)
            _ = holder.run(request)
            _ = copy.run(request)
            // A few are read all the time.
            for hot in 0..<3 { _ = holder.value("k\((index &* 7 &+ hot) % 200)") }
            guard index % 50 == 0 else { continue }
            var hashes: [UInt64] = []
            holder.shard.takeAccesses { hashes = Array($0) }
            for hash in hashes { copy.shard.noteAccess(hash: hash) }
        }
        let held = (0..<200).filter { holder.peeked("k\($0)") != nil }
        let both = held.filter { copy.peeked("k\($0)") != nil }
        #expect(held.count > 150)
        #expect(both.count * 100 >= held.count * 95)
        #expect(holder.shard.statistics.accessesDropped == 0)
    }

    @Test func `a flush in the middle of a sweep leaves nothing behind`() {
        var bench = Bench(slices: 5..<7)
        for index in 0..<1000 { _ = bench.run(Request(.set, "k\(index)", "v")) }
        bench.shard.flush(slice: 5, version: bench.version - 500)
        while bench.shard.sweepCursor == 0 { bench.shard.advance(now: at(1_000_000), budget: 50) }
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
        // A header of 20 bytes, key and value, rounded to four.
        #expect(sum.bytes == 2 * 24)
        #expect(sum.tombstoneBytes == 2 * 24)
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
        let half = StoreConfiguration(memoryBytes: 1 << 19)
        #expect(throws: StoreConfigurationError.self) { try half.validate(sliceCount: Slice.count) }
        #expect(StoreConfiguration(memoryBytes: 1 << 20).fixedBytes(sliceCount: 100) < 1 << 16)
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
