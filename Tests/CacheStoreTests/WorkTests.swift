import ClusterCore
import Testing

@testable import CacheStore

/// What a single call costs, in records looked at and bytes moved, and what memory a long life leaves in use. Counted,
/// not timed: the same everywhere.
@Suite struct WorkTests {
    /// What a store of one record may make cleaning look at while it keeps ahead of the stores.
    private func step(_ bytes: Int) -> Int {
        // The last batch of sixteen may go beyond.
        Shard.cleaningStep + Shard.passedPerByte * bytes / Record.headerBytes + 16
    }

    @Test(arguments: [1, 8] as [Int])
    func `a store cleans a few records, whatever the sizes, and a segment at most`(megabytes: Int) {
        var random = Xoshiro256(seed: UInt64(megabytes))
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: megabytes << 20))
        let layout = bench.shard.layout
        // The smallest records come first: as many as can be in a segment.
        let count = (megabytes << 20) / 50
        for number in 0..<count { _ = bench.run(Request(.set, "k\(number)", "v")) }
        let recordsInSegment = layout.segmentBytes / Record.headerBytes
        let stores = 3000
        for bytesMax in [20, 200, 2000, layout.recordBytesMax - 100] {
            var over = 0
            for _ in 0..<stores {
                var request = Request(.set, "k\(Int.random(in: 0..<2 * count, using: &random))")
                request.value = [UInt8](repeating: 1, count: Int.random(in: 0..<bytesMax, using: &random))
                let visited = bench.shard.visitedRecords
                let moved = bench.shard.statistics.movedBytes
                _ = bench.run(request)
                _ = bench.value("k\(Int.random(in: 0..<count, using: &random))")
                let records = Int(bench.shard.visitedRecords - visited)
                let step = step(request.value.count + 40)
                #expect(records <= step + recordsInSegment, "\(request.value.count) bytes of at most \(bytesMax)")
                #expect(Int(bench.shard.statistics.movedBytes - moved) <= 3 * layout.segmentBytes)
                if records > step { over += 1 }
            }
            // Where several open segments are full at once, one of the stores waits for a segment.
            #expect(over * 50 <= stores, "\(over) stores of at most \(bytesMax) bytes cleaned more than their step")
        }
        #expect(bench.shard.statistics.evictions > 0 && bench.shard.faults().isEmpty)
    }

    @Test func `where all items were read a store still ends after a bounded number of them`() {
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 2 << 20))
        let value = String(repeating: "v", count: 60)
        var most = 0
        for number in 0..<40_000 {
            let visited = bench.shard.visitedRecords
            _ = bench.run(Request(.set, "k\(number)", value))
            for _ in 0..<4 { _ = bench.value("k\(number)") }
            most = max(most, Int(bench.shard.visitedRecords - visited))
        }
        #expect(bench.shard.statistics.evictions > 0)
        let segment = bench.shard.layout.segmentBytes / Record.headerBytes
        #expect(most <= Shard.cleanedInVainMax + 2 * segment, "\(most) records for one store")
    }

    @Test func `housekeeping looks at no more than its budget`() {
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 8 << 20))
        for number in 0..<30_000 { _ = bench.run(Request(.set, "k\(number)", "value", expiry: 1060)) }
        var turns = 0
        while bench.shard.statistics.items > 0, turns < 10_000 {
            let visited = bench.shard.visitedRecords
            bench.shard.advance(now: at(1_060_000), budget: 100)
            #expect(bench.shard.visitedRecords - visited <= 100)
            turns += 1
        }
        #expect(bench.shard.statistics.items == 0 && turns >= 300)
    }

    /// Sizes as a generation of overwrites has them.
    private static let generations: [@Sendable (inout Xoshiro256) -> Int] = [
        { Int.random(in: 50...100, using: &$0) },
        { Int.random(in: 1...400, using: &$0) },
        { _ in 150 },
        { Bool.random(using: &$0) ? 20 : 300 },
        { 10 << Int.random(in: 0...5, using: &$0) },
        { Int.random(in: 0..<100, using: &$0) == 0 ? 3000 : 90 },
    ]

    @Test(arguments: [1, 2] as [UInt64])
    func `memory does not creep over many generations of overwrites with new sizes`(seed: UInt64) {
        var random = Xoshiro256(seed: seed)
        let configuration = StoreConfiguration(memoryBytes: 1 << 20)
        var bench = Bench(configuration: configuration)
        // More than there is room for, whatever the sizes.
        let count = 15_000
        var leastShare = 100
        var full = 0
        for generation in 0..<24 {
            let size = Self.generations[Int.random(in: 0..<Self.generations.count, using: &random)]
            // In the order of the keys, or at random; a part is left as it was.
            let isInOrder = Bool.random(using: &random)
            let evictions = bench.shard.statistics.evictions
            for turn in 0..<count / 2 {
                let number =
                    isInOrder ? (turn + generation * count / 2) % count : Int.random(in: 0..<count, using: &random)
                let value = String(repeating: "v", count: size(&random))
                _ = bench.run(Request(.set, "k\(number)", value))
                if turn % 3 == 0 { _ = bench.value("k\(Int.random(in: 0..<count, using: &random))") }
            }
            let statistics = bench.shard.statistics
            let label = Comment(rawValue: "seed \(seed), generation \(generation)")
            #expect(statistics.memoryUsedBytes <= configuration.memoryBytes, label)
            // Only where items have to leave does it matter what else takes room.
            guard statistics.evictions > evictions else { continue }
            let held = statistics.bytes + statistics.indexBytes + configuration.fixedBytes(sliceCount: 1)
            leastShare = min(leastShare, held * 100 / configuration.memoryBytes)
            full += 1
        }
        #expect(full > 12 && leastShare >= Self.liveShareMin, "seed \(seed): \(leastShare) %")
        #expect(bench.shard.statistics.movedBytes > 0 && bench.shard.faults().isEmpty)
    }

    /// The part of the memory that items and what finds them take at least, in hundredths, when there is no room left.
    private static let liveShareMin = 70
}
