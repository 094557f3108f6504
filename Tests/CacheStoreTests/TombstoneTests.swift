import CacheStore
import ClusterCore
import Testing

@Suite struct TombstoneTests {
    @Test func `a tombstone leaves when it is old enough, without raising the floor`() {
        var bench = Bench()
        _ = bench.run(Request(.delete, "a"), at: 1_000_000)
        bench.shard.advance(now: at(1_059_000), budget: 100)
        #expect(bench.peeked("a", at: 1_059_000)?.version == bench.version)
        bench.shard.advance(now: at(1_060_000), budget: 100)
        #expect(bench.peeked("a", at: 1_060_000) == nil)
        #expect(bench.row.floor == 0 && bench.shard.statistics.floorRaises == 0)
        #expect(bench.row.newest == bench.version)
    }

    @Test func `a held slice keeps its tombstones until the cap in age, which raises the floor`() {
        var bench = Bench(slices: 5..<7)
        bench.shard.row(5).pointee.tombstonesHeld = true
        var keys: [Int: [String]] = [5: [], 6: []]
        for index in 0..<40 {
            let key = "k\(index)"
            _ = bench.run(Request(.delete, key))
            keys[Slice.index(of: bench.hasher(Array(key.utf8)))]?.append(key)
        }
        // The held ones at the head do not hide the others behind them.
        for _ in 0..<50 { bench.shard.advance(now: at(1_100_000), budget: 8) }
        #expect(keys[5]?.isEmpty == false && keys[6]?.isEmpty == false)
        for key in keys[5] ?? [] { #expect(bench.peeked(key)?.isTombstone == true) }
        for key in keys[6] ?? [] { #expect(bench.peeked(key) == nil) }
        #expect(bench.shard.statistics.floorRaises == 0)

        for _ in 0..<50 { bench.shard.advance(now: at(1_000_000 + 3_600_000), budget: 8) }
        let statistics = bench.shard.statistics
        #expect(statistics.tombstones == 0)
        #expect(statistics.floorRaises == UInt64(keys[5]?.count ?? 0))
        #expect(bench.shard.row(5).pointee.floor == bench.shard.row(5).pointee.newest)
        #expect(bench.shard.row(6).pointee.floor == 0)
    }

    @Test func `a released hold lets go of them by age alone`() {
        var bench = Bench()
        bench.shard.row(5).pointee.tombstonesHeld = true
        _ = bench.run(Request(.delete, "a"))
        bench.shard.advance(now: at(1_100_000), budget: 100)
        #expect(bench.shard.statistics.tombstones == 1)
        bench.shard.row(5).pointee.tombstonesHeld = false
        bench.shard.advance(now: at(1_100_000), budget: 100)
        #expect(bench.shard.statistics.tombstones == 0)
        #expect(bench.row.floor == 0)
    }

    @Test func `beyond the cap in bytes the oldest go and raise the floor`() {
        var configuration = StoreConfiguration(memoryBytes: 1 << 20)
        configuration.tombstoneBytesMax = 1000
        var bench = Bench(configuration: configuration)
        var versions: [UInt64] = []
        for index in 0..<100 {
            _ = bench.run(Request(.delete, "key \(index)"))
            versions.append(bench.version)
            #expect(bench.shard.statistics.tombstoneBytes <= 1000)
        }
        let held = bench.shard.statistics.tombstones
        #expect(held > 5 && bench.shard.statistics.floorRaises == UInt64(100 - held))
        #expect(bench.row.floor == versions[99 - held])
        for index in 0..<100 {
            #expect((bench.peeked("key \(index)") != nil) == (index >= 100 - held))
        }
        // One that was old enough raises nothing.
        let floor = bench.row.floor
        for index in 0..<held { _ = bench.run(Request(.delete, "new \(index)"), at: 1_060_000) }
        #expect(bench.row.floor == floor)
    }

    @Test func `tombstones make way only when no item is left to evict`() {
        var configuration = StoreConfiguration(memoryBytes: 64 << 10)
        configuration.tombstoneBytesMax = 60_000
        var bench = Bench(configuration: configuration)
        for index in 0..<500 { _ = bench.run(Request(.delete, "key \(index)")) }
        #expect(bench.row.floor == 0)
        for index in 0..<500 { _ = bench.run(Request(.set, "item \(index)", "some value")) }
        #expect(bench.row.floor == 0 && bench.shard.statistics.tombstones == 500)
        let value = String(repeating: "v", count: 26_000)
        #expect(bench.answer(Request(.set, "large", value)) == .stored(bench.version))
        #expect(bench.value("large") == value)
        #expect(bench.row.floor > 0 && bench.shard.statistics.tombstones < 500)
    }

    @Test func `a second burial renews the tombstone`() {
        var bench = Bench()
        _ = bench.run(Request(.delete, "a"))
        bury(Array("a".utf8), in: &bench.shard, hash: bench.hasher([97]), version: 1 << 50, now: at(1_050_000))
        bench.shard.advance(now: at(1_070_000), budget: 100)
        #expect(bench.peeked("a")?.version == 1 << 50)
        #expect(bench.row.newest == 1 << 50)
        // As a copy: an item put over it takes its place.
        let entry = Entry(key: [97], value: [1], version: 1 << 51, unique: 3)
        let isStored = put(entry, into: &bench.shard, hash: bench.hasher([97]), now: at(1_070_000))
        #expect(isStored)
        #expect(bench.peeked("a") == entry)
        #expect(bench.shard.statistics.tombstones == 0)
        // And a tombstone may be put.
        let tombstone = Entry(key: [97], version: 1 << 52, isTombstone: true)
        let isBuried = put(tombstone, into: &bench.shard, hash: bench.hasher([97]), now: at(1_070_000))
        #expect(isBuried)
        #expect(bench.peeked("a") == tombstone)
    }
}
