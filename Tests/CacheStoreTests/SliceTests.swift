import CacheStore
import ClusterCore
import Testing

/// What concerns a slice as a whole: flush, delayed flush, drop, scan.
@Suite struct SliceTests {
    @Test func `a flush kills what is at or below its version and nothing above`() {
        var bench = Bench(slices: 5..<7)
        var flushed: [String] = []
        for index in 0..<100 { _ = bench.run(Request(.set, "k\(index)", "v")) }
        let version = bench.version
        bench.shard.flush(slice: 5, version: version)
        for index in 0..<100 {
            let isFlushed = Slice.index(of: bench.hasher(Array("k\(index)".utf8))) == 5
            if isFlushed { flushed.append("k\(index)") }
            #expect((bench.value("k\(index)") == nil) == isFlushed)
        }
        #expect(bench.answer(Request(.add, flushed[0], "new")) == .stored(bench.version))
        #expect(bench.answer(Request(.append, flushed[1], "new")) == .notStored)
        #expect(scanAll(bench.shard, slice: 5, now: at(1_000_000)).count == 1)
        for _ in 0..<10 { bench.shard.advance(now: at(1_000_000), budget: 20) }
        #expect(bench.shard.row(5).pointee.count == 1)
        #expect(bench.shard.statistics.flushed == UInt64(flushed.count))
        #expect(bench.shard.statistics.items == 101 - flushed.count)
    }

    @Test func `a copy does not take what a flush has killed`() {
        var bench = Bench()
        bench.shard.flush(slice: 5, version: 1000)
        #expect(bench.row.newest == 1000)
        let hash = bench.hasher([1])
        let isStored = put(Entry(key: [1], version: 1000), into: &bench.shard, hash: hash, now: at(0))
        #expect(isStored)
        #expect(bench.shard.statistics.items == 0)
        bury([1], in: &bench.shard, hash: hash, version: 999, now: at(0))
        #expect(bench.shard.statistics.tombstones == 0)
    }

    @Test func `a delayed flush kills at its time what is older, whenever it came`() {
        var bench = Bench()
        _ = bench.run(Request(.set, "before", "v"))
        bench.shard.scheduleFlush(slice: 5, atUnixMilliseconds: 1_005_000)
        _ = bench.run(Request(.set, "between", "v"), at: 1_004_000)
        #expect(bench.value("before", at: 1_004_999) == "v")
        #expect(bench.value("before", at: 1_005_000) == nil)
        #expect(bench.value("between", at: 1_005_000) == nil)
        #expect(bench.answer(Request(.append, "between", "v"), at: 1_005_001) == .notStored)
        #expect(bench.row.flushAt == 0 && bench.row.flushVersion == 1_005_000 << 16)
        _ = bench.run(Request(.set, "after", "v"), at: 1_005_001)
        #expect(bench.value("after", at: 1_009_000) == "v")
    }

    @Test func `a newer delayed flush replaces, zero cancels, advance applies`() {
        var bench = Bench()
        _ = bench.run(Request(.set, "a", "v"))
        bench.shard.scheduleFlush(slice: 5, atUnixMilliseconds: 1_005_000)
        bench.shard.scheduleFlush(slice: 5, atUnixMilliseconds: 1_009_000)
        #expect(bench.value("a", at: 1_008_999) == "v")
        bench.shard.scheduleFlush(slice: 5, atUnixMilliseconds: 0)
        #expect(bench.value("a", at: 2_000_000) == "v")
        bench.shard.scheduleFlush(slice: 5, atUnixMilliseconds: .max)
        #expect(bench.value("a", at: 2_000_000) == "v")
        bench.shard.scheduleFlush(slice: 5, atUnixMilliseconds: 2_000_000)
        for _ in 0..<4 { bench.shard.advance(now: at(2_000_000), budget: 10) }
        #expect(bench.shard.statistics.items == 0 && bench.row.flushVersion == 2_000_000 << 16)
    }

    @Test func `a slice is dropped in steps, its neighbour stays`() {
        var bench = Bench(slices: 5..<7, configuration: StoreConfiguration(memoryBytes: 4 << 20))
        for index in 0..<2000 { _ = bench.run(Request(index % 10 == 0 ? .delete : .set, "k\(index)", "v")) }
        let neighbours = scanAll(bench.shard, slice: 6, now: at(1_000_000))
        var before = scanAll(bench.shard, slice: 5, now: at(1_000_000)).count
        var steps = 0
        while !bench.shard.drop(slice: 5, limit: 30) {
            let left = scanAll(bench.shard, slice: 5, now: at(1_000_000)).count
            #expect(before - left <= 30)
            before = left
            steps += 1
            if steps > 1000 { break }
        }
        #expect(steps > 20 && steps < 200)
        #expect(scanAll(bench.shard, slice: 5, now: at(1_000_000)).isEmpty)
        #expect(scanAll(bench.shard, slice: 6, now: at(1_000_000)) == neighbours)
        #expect(bench.shard.row(5).pointee.count == 0 && bench.shard.row(5).pointee.bytes == 0)
        #expect(bench.shard.row(5).pointee.newest > 0 && bench.shard.row(5).pointee.floor == 0)
        let isEmpty = bench.shard.drop(slice: 5, limit: 1)
        #expect(isEmpty)
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func `a scan visits each lasting item once while others come and go`(seed: UInt64) {
        var random = Xoshiro256(seed: seed)
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 64 << 20))
        let lasting = Set((0..<700).map { Array("lasting \($0)".utf8) })
        for key in lasting.sorted(by: { $0.lexicographicallyPrecedes($1) }) { _ = bench.run(Request(.set, key)) }
        var visits: [[UInt8]: Int] = [:]
        var order: [UInt64] = []
        var cursor: UInt64? = 0
        var name = 0
        while let from = cursor {
            var left = Int.random(in: 1...9, using: &random)
            cursor = bench.shard.scan(slice: 5, from: from, now: at(1_000_000)) { view in
                order.append(view.hash)
                visits[Array(view.key), default: 0] += 1
                left -= 1
                return left > 0
            }
            // The table grows meanwhile, and lasting items change their values.
            for _ in 0..<40 {
                name += 1
                _ = bench.run(Request(.set, "passing \(name)", "v"))
            }
            for _ in 0..<20 { _ = bench.run(Request(.delete, "passing \(Int.random(in: 1...name, using: &random))")) }
            if let key = lasting.first { _ = bench.run(Request(.set, key)) }
            bench.shard.advance(now: at(1_000_000), budget: 50)
        }
        for key in lasting { #expect(visits[key] == 1, "seed \(seed)") }
        #expect(visits.values.allSatisfy { $0 == 1 }, "seed \(seed)")
        #expect(order == order.sorted(), "seed \(seed)")
        #expect(name > 2000)
    }

    @Test func `items of one hash are visited together and none is lost`() {
        let keys = (0..<20).map { Array("twin \($0)".utf8) }
        let hash = (UInt64(6) << 50) - 1
        var shard = Shard(slices: 5..<6, configuration: StoreConfiguration(memoryBytes: 1 << 20)) { _ in hash }
        for (index, key) in keys.enumerated() {
            let result = apply(
                Request(.set, key),
                to: &shard,
                hash: hash,
                version: UInt64(index + 1),
                now: at(0)
            )
            #expect(result.answer == .stored(UInt64(index + 1)))
        }
        let entries = scanAll(shard, slice: 5, now: at(0), page: 3)
        #expect(Set(entries.map(\.key)) == Set(keys) && entries.count == 20)
        #expect(shard.scan(slice: 5, from: 1 << 50, now: at(0)) { _ in true } == nil)
        #expect(shard.scan(slice: 5, from: .max, now: at(0)) { _ in true } == nil)
    }
}
