import CacheStore
import ClusterCore
import Testing

/// Memcached's rules, one at a time.
@Suite struct OperationTests {
    @Test func `touch keeps the CAS unique and takes a new version`() {
        var bench = Bench()
        guard case .stored(let unique) = bench.answer(Request(.set, "a", "1")) else {
            Issue.record("set must store")
            return
        }
        #expect(bench.run(Request(.touch, "a", expiry: 5000)) == (.touched(nil), .stored))
        let touched = bench.peeked("a")
        #expect(touched?.unique == unique)
        #expect(touched?.version == bench.version && bench.version > unique)
        #expect(touched?.expiry == 5000)
        // So the unique read before the touch still matches.
        #expect(bench.answer(Request(.compareAndSet, "a", "2", unique: unique)) == .stored(bench.version))
        #expect(bench.answer(Request(.compareAndSet, "a", "3", unique: unique)) == .exists)
        #expect(bench.answer(Request(.compareAndSet, "a", "3", unique: 0)) == .exists)
        #expect(bench.answer(Request(.compareAndSet, "b", "3", unique: 0)) == .notFound)
    }

    @Test func `a get with a past expiry gives the value once more`() {
        var bench = Bench()
        _ = bench.run(Request(.set, "a", "value"))
        let stored = bench.peeked("a")
        let result = bench.run(Request(.getAndTouch, "a", isExpired: true))
        #expect(result == (.touched(stored), .removed))
        #expect(bench.value("a") == nil)
        #expect(bench.peeked("a")?.isTombstone == true)
        #expect(bench.peeked("a")?.version == bench.version)
        #expect(bench.answer(Request(.getAndTouch, "a", isExpired: true)) == .miss)
        // The killed item's memory comes back with the next mutation.
        _ = bench.run(Request(.delete, "a"))
        #expect(bench.shard.statistics.items == 0)
    }

    @Test func `a touch with a past expiry kills`() {
        var bench = Bench()
        _ = bench.run(Request(.set, "a", "value"))
        #expect(bench.run(Request(.touch, "a", isExpired: true)) == (.touched(nil), .removed))
        #expect(bench.value("a") == nil)
        #expect(bench.run(Request(.touch, "a")) == (.notFound, .none))
    }

    @Test(arguments: [Operation.Kind.set, .add, .replace])
    func `a store with a past expiry answers stored and leaves nothing`(kind: Operation.Kind) {
        var bench = Bench()
        if kind == .replace { _ = bench.run(Request(.set, "a", "old")) }
        var request = Request(kind, "a", "new")
        request.isExpired = true
        #expect(bench.run(request) == (.stored(bench.version), .removed))
        #expect(bench.value("a") == nil)
        #expect(bench.peeked("a")?.isTombstone == true)
    }

    @Test func `an item is dead in its very second of expiry`() {
        var bench = Bench()
        _ = bench.run(Request(.set, "a", "1", expiry: 1010))
        #expect(bench.value("a", at: 1_009_999) == "1")
        #expect(bench.value("a", at: 1_010_000) == nil)
        #expect(bench.peeked("a", at: 1_010_000) == nil)
        // Reads free nothing; the sweep does, and counts.
        #expect(bench.shard.statistics.items == 1)
        bench.shard.advance(now: at(1_010_000), budget: 100)
        let statistics = bench.shard.statistics
        #expect(statistics.items == 0 && statistics.reclaimed == 1 && statistics.expiredUnfetched == 0)
        #expect(bench.row.count == 0 && bench.row.bytes == 0)
    }

    @Test func `an expired item takes an add, and no append`() {
        var bench = Bench()
        _ = bench.run(Request(.set, "a", "1", expiry: 1010))
        _ = bench.run(Request(.set, "b", "1", expiry: 1010))
        #expect(bench.answer(Request(.append, "a", "2"), at: 1_010_000) == .notStored)
        #expect(bench.answer(Request(.add, "b", "2"), at: 1_010_000) == .stored(bench.version))
        #expect(bench.answer(Request(.delete, "a"), at: 1_010_000) == .notFound)
        #expect(bench.shard.statistics.expiredUnfetched == 2)
    }

    @Test(
        arguments: [
            ("10", Operation.Kind.decrement, 1, 9, "9 "),
            ("9", .increment, 1, 10, "10"),
            ("18446744073709551615", .increment, 1, 0, "0                   "),
            ("18446744073709551615", .increment, UInt64.max, UInt64.max - 1, "18446744073709551614"),
            ("5", .decrement, 6, 0, "0"),
            ("100", .decrement, UInt64.max, 0, "0  "),
            (" 7 ", .increment, 1, 8, "8  "),
            ("0007", .increment, 3, 10, "10  "),
        ] as [(String, Operation.Kind, UInt64, UInt64, String)]
    )
    func `increment wraps, decrement stops at zero, shorter results are padded`(
        old: String,
        kind: Operation.Kind,
        delta: UInt64,
        number: UInt64,
        new: String
    ) {
        var bench = Bench()
        var request = Request(.set, "n", old, expiry: 4000)
        request.flags = 77
        _ = bench.run(request)
        let result = bench.run(Request(kind, "n", delta: delta))
        #expect(result == (.number(number, bench.version), .stored))
        #expect(bench.value("n") == new)
        #expect(bench.peeked("n")?.flags == 77)
        #expect(bench.peeked("n")?.expiry == 4000)
        #expect(bench.peeked("n")?.unique == bench.version)
    }

    @Test(arguments: ["", " ", "x", "-1", "1 2", "18446744073709551616", "1.0", "+1", "99999999999999999999999"])
    func `what is no number cannot be counted`(old: String) {
        var bench = Bench()
        _ = bench.run(Request(.set, "n", old))
        let before = bench.peeked("n")
        #expect(bench.run(Request(.increment, "n", delta: 1)) == (.nonNumeric, .none))
        #expect(bench.run(Request(.decrement, "missing", delta: 1)) == (.notFound, .none))
        #expect(bench.peeked("n") == before)
    }

    @Test func `a refused set removes the old value, other refused stores leave it`() {
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 1 << 20, itemBytesMax: 10))
        for key in ["a", "b"] { _ = bench.run(Request(.set, key, "0123456789")) }
        for kind in [Operation.Kind.add, .replace, .append, .prepend, .compareAndSet] {
            #expect(bench.run(Request(kind, "a", "0123456789x")) == (.tooLarge, .none))
        }
        #expect(bench.run(Request(.append, "a", "x")) == (.notStored, .none))
        #expect(bench.value("a") == "0123456789")
        #expect(bench.run(Request(.set, "a", "0123456789x")) == (.tooLarge, .removed))
        #expect(bench.peeked("a")?.isTombstone == true)
        #expect(bench.run(Request(.set, "absent", "0123456789x")) == (.tooLarge, .removed))
        #expect(bench.value("b") == "0123456789")
    }

    @Test func `an item larger than the shard is out of memory and evicts nobody`() {
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 64 << 10))
        for key in ["a", "b"] { _ = bench.run(Request(.set, key, "old")) }
        let large = String(repeating: "x", count: 64 << 10)
        #expect(bench.run(Request(.add, "c", large)) == (.outOfMemory, .none))
        #expect(bench.run(Request(.replace, "a", large)) == (.outOfMemory, .none))
        #expect(bench.value("a") == "old")
        #expect(bench.run(Request(.set, "a", large)) == (.outOfMemory, .removed))
        #expect(bench.value("a") == nil)
        #expect(bench.value("b") == "old")
        #expect(bench.shard.statistics.evictions == 0)
        let entry = Entry(key: Array("b".utf8), value: Array(large.utf8), version: bench.version + 1)
        let isStored = put(entry, into: &bench.shard, hash: bench.hasher(entry.key), now: at(1_000_000))
        #expect(!isStored)
        #expect(bench.value("b") == nil)
    }

    @Test func `a delete of an absent key is told to successors`() {
        var bench = Bench()
        #expect(bench.run(Request(.delete, "a")) == (.notFound, .removed))
        #expect(bench.peeked("a")?.isTombstone == true)
        #expect(bench.row.newest == bench.version)
        #expect(bench.run(Request(.add, "a", "1")) == (.stored(bench.version), .stored))
        #expect(bench.run(Request(.delete, "a")) == (.deleted, .removed))
        #expect(bench.shard.statistics.tombstones == 1)
    }

    @Test func `joined values keep flags and expiry, in one block and in a new one`() {
        var bench = Bench()
        var request = Request(.set, "a", "-", expiry: 9000)
        request.flags = 3
        _ = bench.run(request)
        var expected = "-"
        for index in 0..<100 {
            let text = String(index)
            let isAppend = index % 3 > 0
            _ = bench.run(Request(isAppend ? .append : .prepend, "a", text, expiry: 1))
            expected = isAppend ? expected + text : text + expected
            #expect(bench.value("a") == expected)
        }
        #expect(bench.peeked("a")?.flags == 3)
        #expect(bench.peeked("a")?.expiry == 9000)
    }

    @Test func `a key over the limit is refused and never found`() {
        var bench = Bench()
        let longest = [UInt8](repeating: 107, count: 250)
        let tooLong = [UInt8](repeating: 107, count: 251)
        #expect(bench.answer(Request(.set, longest)) == .stored(bench.version))
        #expect(bench.run(Request(.set, tooLong)) == (.tooLarge, .none))
        let now = at(1_000_000)
        let hash = bench.hasher(tooLong)
        let isStored = put(Entry(key: tooLong, version: 9), into: &bench.shard, hash: hash, now: now)
        #expect(!isStored)
        bury(tooLong, in: &bench.shard, hash: hash, version: 10, now: now)
        #expect(peek(tooLong, in: bench.shard, hash: hash, now: now) == nil)
        #expect(bench.shard.statistics.tombstones == 0)
    }
}
