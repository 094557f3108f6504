import ClusterCore
import Testing

@testable import CacheStore

/// Random streams of operations, on a shard and on the model.
@Suite struct ShardModelTests {
    static let slices = 100..<108

    /// Draws operations on a few hundred keys, some of which share a hash.
    struct Stream {
        var random: Xoshiro256
        let keys: [[UInt8]]
        let hasher: Hasher
        let valueBytesMax: Int

        init(seed: UInt64, keyCount: Int, valueBytesMax: Int) {
            random = Xoshiro256(seed: seed)
            var keys: [[UInt8]] = [[]]
            for index in 1..<keyCount {
                let length = Int.random(in: 0...(index % 40 == 0 ? 240 : 20), using: &random)
                keys.append(Array("k\(index)".utf8) + [UInt8](repeating: 120, count: length))
            }
            self.keys = keys
            hasher = Hasher(slices: ShardModelTests.slices, colliding: Set(keys.prefix(5)))
            self.valueBytesMax = valueBytesMax
        }

        mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

        mutating func bytes() -> [UInt8] {
            if chance(30) {
                let numbers = ["0", "9", "10", "99", " 7 ", "18446744073709551615", "x", "", "1000", "1 2", "-1"]
                return Array(numbers[Int.random(in: 0..<numbers.count, using: &random)].utf8)
            }
            let bound = chance(10) ? valueBytesMax : min(60, valueBytesMax)
            let count = Int.random(in: 0...bound, using: &random)
            return (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ count) }
        }

        mutating func request(uniques: [UInt64], now: Now) -> Request {
            let kinds: [Operation.Kind] = [
                .get, .get, .get, .getAndTouch, .set, .set, .set, .add, .replace, .append, .prepend, .compareAndSet,
                .increment, .decrement, .touch, .delete,
            ]
            let key = keys[Int.random(in: 0..<keys.count, using: &random)]
            var request = Request(kinds[Int.random(in: 0..<kinds.count, using: &random)], key)
            request.value = bytes()
            request.flags = UInt32.random(in: .min ... .max, using: &random)
            if chance(30) { request.expiry = now.unixSeconds + UInt32.random(in: 0...30, using: &random) }
            request.isExpired = chance(4)
            request.delta = chance(20) ? UInt64.max - 3 : UInt64.random(in: 0...12, using: &random)
            if request.kind == .compareAndSet, chance(70) {
                request.unique = uniques[Int.random(in: 0..<uniques.count, using: &random)]
            }
            return request
        }
    }

    /// Runs a stream on both. With little memory the model learns of evictions by looking, and each must be covered by
    /// the shard's counter.
    func run(seed: UInt64, configuration: StoreConfiguration, keyCount: Int, valueBytesMax: Int, steps: Int) {
        var stream = Stream(seed: seed, keyCount: keyCount, valueBytesMax: valueBytesMax)
        let hasher = stream.hasher
        var shard = makeShard(hasher, configuration)
        var model = StoreModel(hasher: hasher, itemBytesMax: configuration.itemBytesMax)
        var time: UInt64 = 1_000_000_000
        var lost: UInt64 = 0
        for step in 0..<steps {
            if stream.chance(20) { time += UInt64.random(in: 0...2000, using: &stream.random) }
            let now = at(time)
            model.settle(now)
            let label = Comment(rawValue: "seed \(seed), step \(step)")

            // What a key's absence costs shows before the operation on it.
            func notice(_ key: [UInt8]) {
                let here = peek(key, in: shard, hash: hasher(key), now: now)
                if let wanted = model.items[key] {
                    if let here, !here.isTombstone {
                        #expect(here == wanted, label)
                    } else {
                        #expect(here == nil, label)
                        lost += 1
                        model.items[key] = nil
                    }
                } else {
                    #expect(here?.isTombstone ?? true, label)
                }
            }

            let key = stream.keys[Int.random(in: 0..<stream.keys.count, using: &stream.random)]
            let slice = Slice.index(of: hasher(key))
            shard.settle(slice: slice, now: now)
            let row = shard.row(slice).pointee
            let version = max(time << 16, row.newest + 1, row.floor + 1)
            switch Int.random(in: 0..<1000, using: &stream.random) {
            case 0:
                shard.flush(slice: slice, version: row.newest)
                model.flush(slice: slice, version: row.newest)
            case 1:
                let due = stream.chance(20) ? 0 : time + UInt64.random(in: 1...5000, using: &stream.random)
                shard.scheduleFlush(slice: slice, atUnixMilliseconds: due)
                model.rows[slice, default: .init()].flushAt = due
            case 2..<20:
                shard.advance(now: now, budget: Int.random(in: 1...500, using: &stream.random))
            case 20..<60:
                notice(key)
                let entry = Entry(
                    key: key,
                    value: stream.bytes(),
                    flags: 7,
                    expiry: stream.chance(30) ? now.unixSeconds + 5 : 0,
                    version: version,
                    unique: version - 1
                )
                let isOversize = entry.value.count > configuration.itemBytesMax
                let isStored = put(entry, into: &shard, hash: hasher(key), now: now)
                if isOversize { #expect(!isStored, label) }
                model.set(key, isStored ? entry : nil)
                model.saw(version, key)
            case 60..<80:
                bury(key, in: &shard, hash: hasher(key), version: version, now: now)
                model.items[key] = nil
                model.saw(version, key)
            case 80..<90:
                key.withUnsafeBytes { shard.remove(hash: hasher(key), key: $0) }
                model.items[key] = nil
            default:
                let uniques = stream.keys.prefix(8).compactMap { model.items[$0]?.unique } + [1]
                var request = stream.request(uniques: uniques, now: now)
                if request.kind == .compareAndSet { request.key = stream.keys[Int(request.unique % 8)] }
                notice(request.key)
                let requestSlice = Slice.index(of: hasher(request.key))
                shard.settle(slice: requestSlice, now: now)
                let requestRow = shard.row(requestSlice).pointee
                let stamp = max(time << 16, requestRow.newest + 1, requestRow.floor + 1)
                let result = apply(request, to: &shard, hash: hasher(request.key), version: stamp, now: now)
                if result.answer == .outOfMemory {
                    #expect(request.value.count > configuration.memoryBytes / 4, label)
                    if request.kind == .set { model.items[request.key] = nil }
                    #expect(result.change == (request.kind == .set ? .removed : .none), label)
                } else {
                    let expected = model.apply(request, version: stamp, now: now)
                    #expect(result.answer == expected.answer, label)
                    #expect(result.change == expected.change, label)
                }
                if result.change == .stored {
                    // What successors are told; an item may be dead on arrival.
                    let here = peek(request.key, in: shard, hash: hasher(request.key), now: now)
                    model.settle(now)
                    #expect(here == model.items[request.key], label)
                }
            }
            let statistics = shard.statistics
            #expect(statistics.memoryUsedBytes <= configuration.memoryBytes, label)
            #expect(lost <= statistics.evictions, label)
            if step % 1000 == 999 || step == steps - 1 {
                for key in stream.keys { notice(key) }
                var scanned = 0
                for slice in Self.slices {
                    let entries = scanAll(shard, slice: slice, now: now).filter { !$0.isTombstone }
                    for entry in entries { #expect(model.items[entry.key] == entry, label) }
                    scanned += entries.count
                    let newest = shard.row(slice).pointee.newest
                    let wanted = model.rows[slice, default: .init()].newest
                    if configuration.memoryBytes > 1 << 24 { #expect(newest == wanted, label) }
                }
                #expect(scanned == model.items.count, label)
                #expect(lost <= shard.statistics.evictions, label)
                // Expired items count until their segment goes.
                for _ in 0..<3 { shard.advance(now: now, budget: 1_000_000) }
                #expect(shard.statistics.items >= model.items.count, label)
                for fault in shard.faults() { Issue.record("seed \(seed), step \(step): \(fault)") }
            }
        }
        let evictions = shard.statistics.evictions
        if configuration.memoryBytes > 1 << 24 {
            #expect(lost == 0 && evictions == 0, "seed \(seed)")
        } else {
            #expect(lost > 0 && evictions > 0, "seed \(seed): the memory was too ample to test anything")
        }
        for slice in Self.slices {
            while !shard.drop(slice: slice, limit: 50) {}
        }
        let end = shard.statistics
        let fixed = configuration.fixedBytes(sliceCount: Self.slices.count)
        #expect(end.items == 0 && end.bytes == 0 && end.tombstones == 0, "seed \(seed)")
        // Tables that were just growing stay for the sweep.
        for _ in 0..<2000 { shard.advance(now: at(time), budget: 1000) }
        let used = shard.statistics.memoryUsedBytes
        #expect(used == fixed, "seed \(seed): all memory comes back")
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func `with ample memory a shard does exactly what the model does`(seed: UInt64) {
        run(
            seed: seed,
            configuration: StoreConfiguration(memoryBytes: 64 << 20, itemBytesMax: 3000),
            keyCount: 300,
            valueBytesMax: 3100,
            steps: 8000
        )
    }

    @Test(arguments: [(11, 64), (12, 64), (13, 100), (14, 256), (15, 1024)] as [(UInt64, Int)])
    func `with little memory a hit is right and a miss is a counted eviction`(seed: UInt64, kibibytes: Int) {
        run(
            seed: seed,
            configuration: StoreConfiguration(memoryBytes: kibibytes << 10, itemBytesMax: 90_000),
            keyCount: kibibytes * 10,
            valueBytesMax: max(40_000, kibibytes * 80),
            steps: 5000
        )
    }

    @Test(arguments: [21, 22] as [UInt64])
    func `a copy that is told every change equals the holder`(seed: UInt64) {
        var stream = Stream(seed: seed, keyCount: 200, valueBytesMax: 500)
        let hasher = stream.hasher
        let configuration = StoreConfiguration(memoryBytes: 32 << 20, itemBytesMax: 400)
        var holder = makeShard(hasher, configuration)
        var copy = makeShard(hasher, configuration)
        var time: UInt64 = 5_000_000
        for _ in 0..<6000 {
            time += UInt64.random(in: 0...100, using: &stream.random)
            let request = stream.request(uniques: [1], now: at(time))
            let hash = hasher(request.key)
            let version = max(time << 16, holder.row(Slice.index(of: hash)).pointee.newest + 1)
            let (_, change) = apply(request, to: &holder, hash: hash, version: version, now: at(time))
            switch change {
            case .none: break
            case .stored:
                // Dead on arrival: the expiry is this very second.
                if let entry = peek(request.key, in: holder, hash: hash, now: at(time)) {
                    let isStored = put(entry, into: &copy, hash: hash, now: at(time))
                    #expect(isStored)
                } else {
                    request.key.withUnsafeBytes { copy.remove(hash: hash, key: $0) }
                }
            case .removed: bury(request.key, in: &copy, hash: hash, version: version, now: at(time))
            }
        }
        for slice in Self.slices {
            let left = scanAll(holder, slice: slice, now: at(time))
            let right = scanAll(copy, slice: slice, now: at(time))
            // The order of items of one hash is not promised.
            #expect(Set(left) == Set(right) && left.count == right.count, "seed \(seed), slice \(slice)")
            #expect(left.count > 3)
        }
    }
}
