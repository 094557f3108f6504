import ClusterCore
import LoadGenerator
import Testing

@Suite struct DistributionTests {
    @Test(arguments: [0, 7, 99, 100, 9_999, 10_000, 12_345_678, 90_807_060, 99_999_999] as [UInt64])
    func `a key ends in the digits of its number`(_ number: UInt64) {
        let digits = String(repeating: "0", count: 8 - "\(number)".count) + "\(number)"
        let word = withUnsafeBytes(of: KeyText.tail(number)) { String(decoding: $0, as: UTF8.self) }
        #expect(word == digits)
    }

    @Test func `even draws reach every key about as often`() {
        var stream = KeyStream(.even(count: 10))
        var chance = Chance(seed: 3)
        var counts = [Int](repeating: 0, count: 10)
        for _ in 0..<100_000 { counts[Int(stream.draw(&chance))] += 1 }
        #expect(counts.allSatisfy { (9_500...10_500).contains($0) }, "\(counts)")
    }

    @Test(arguments: [0.0, 0.9, 1.0, 1.4])
    func `Zipf draws follow the power of the rank`(_ exponent: Double) {
        var stream = KeyStream(.weighted(.zipf(count: 1000, exponent: exponent)))
        var chance = Chance(seed: 4)
        var counts = [Double](repeating: 0, count: 1000)
        for _ in 0..<400_000 { counts[Int(stream.draw(&chance))] += 1 }
        let total = (1...1000).reduce(0.0) { $0 + power(Double($1), exponent) }
        for rank in [1, 2, 5, 20] {
            let expected = 400_000 * power(Double(rank), exponent) / total
            let tolerance = 5 * expected.squareRoot()
            #expect(abs(counts[rank - 1] - expected) < tolerance, "rank \(rank): \(counts[rank - 1]), \(expected)")
        }
    }

    /// rank ^ -exponent for the exponents of the test above.
    private func power(_ rank: Double, _ exponent: Double) -> Double {
        var result = 1.0
        // The exponent in tenths, by the tenth root that Newton's steps find.
        var root = rank > 1 ? 1.5 : 1.0
        for _ in 0..<200 {
            var ninth = 1.0
            for _ in 0..<9 { ninth *= root }
            root = (9 * root + rank / ninth) / 10
        }
        for _ in 0..<Int((exponent * 10).rounded()) { result /= root }
        return result
    }

    @Test func `a sequence gives each key once, also in parts`() {
        var chance = Chance(seed: 1)
        var seen: [UInt64] = []
        for part in 0..<3 {
            var stream = KeyStream(LoadRun.part(part, of: 3, .sequence(5..<12)))
            while !stream.isAtEnd { seen.append(stream.draw(&chance)) }
        }
        #expect(seen == Array(5..<12))
    }

    @Test func `the same seed draws the same, another does not`() {
        func draws(_ seed: UInt64) -> [UInt64] {
            var chance = Chance(seed: seed)
            return (0..<20).map { _ in chance.next() }
        }
        #expect(draws(1) == draws(1))
        #expect(draws(1) != draws(2))
    }

    @Test func `log-normal sizes have their median and their mean`() throws {
        let table = SizeTable(try #require(ValueSizes("lognormal:230:1:1000000")), seed: 1)
        let sizes = (0..<200_000).map { Double(table.size(of: $0)) }.sorted()
        #expect((225...235).contains(sizes[100_000]))
        // exp(1/2) times the median.
        let mean = sizes.reduce(0, +) / 200_000
        #expect((370...390).contains(mean), "\(mean)")
    }

    @Test func `even sizes keep to their range and reach its ends`() throws {
        let table = SizeTable(try #require(ValueSizes("10..100")), seed: 2)
        let sizes = (0..<10_000).map { table.size(of: $0) }
        #expect(sizes.min() == 10)
        #expect(sizes.max() == 100)
        #expect(table.bytesMax == 100)
        #expect((54...56).contains(Double(sizes.reduce(0, +)) / 10_000))
    }

    @Test func `a histogram's sizes follow its weights`() {
        let sizes = ValueSizes(table: [(10, 1), (20, 3), (30, 0)], cap: 25)
        #expect(sizes.quantile(0) == 10)
        #expect(sizes.quantile(0.2499) == 19)
        #expect(sizes.quantile(0.25) == 20)
        #expect(sizes.quantile(0.99) == 25)
    }

    @Test func `another size seed gives a key another size`() {
        let distribution = ValueSizes.even(1...1000)
        let (one, two) = (SizeTable(distribution, seed: 1), SizeTable(distribution, seed: 2))
        #expect((0..<100).count { one.size(of: $0) != two.size(of: $0) } > 90)
    }

    @Test(arguments: [
        "", "x", "-1", "10..", "..10", "100..10", "lognormal:", "lognormal:0:1", "1..2..3", "999999999999",
    ])
    func `sizes that cannot be are refused`(_ text: String) {
        #expect(ValueSizes(text) == nil)
    }

    @Test func `lives follow their mix`() throws {
        let mix = try #require(TimeToLive("5=0.75,10..19=0.25"))
        var chance = Chance(seed: 9)
        let lives = (0..<40_000).map { _ in mix.draw(&chance) }
        #expect((29_500...30_500).contains(lives.count { $0 == 5 }))
        let others = lives.filter { $0 != 5 }
        #expect(Set(others) == Set(10...19))
    }

    @Test(arguments: ["", "0", "x", "5=", "5=0", "5=-1", "9..3", "5,,6", "2592001", "1..2..3", "5..", "..5"])
    func `lives that cannot be are refused`(_ text: String) {
        #expect(TimeToLive(text) == nil)
    }

    @Test func `a schedule is fixed by its seed and keeps its rate`() {
        func times(_ seed: UInt64) -> [UInt64] {
            var schedule = ArrivalSchedule(start: 1000, perSecond: 50_000, seed: seed)
            return (0..<100_000).map { _ in
                defer { schedule.advance() }
                return schedule.next
            }
        }
        let due = times(7)
        #expect(due == times(7))
        #expect(due != times(8))
        #expect(zip(due, due.dropFirst()).allSatisfy { $0 <= $1 })
        // Two seconds, to four standard deviations of the sum.
        let span = Double((due.last ?? 0) - 1000) / 1e9
        #expect((1.97...2.03).contains(span), "\(span)")
        // Of exponential gaps, a share of 1/e is longer than the mean.
        let long = zip(due, due.dropFirst()).count { $1 - $0 > 20_000 }
        #expect((36_000...37_600).contains(long), "\(long)")
    }

    @Test func `a drawn sequence is fixed by its seed, and its once-only keys come once`() {
        let sizes = SizeTable(.fixed(10), seed: 1)
        func keys(_ seed: UInt64) -> [UInt64] {
            let workload = Workload(
                zipf: 100,
                exponent: 1,
                onceShare: 0.06,
                requests: 20_000,
                sizes: sizes,
                seed: seed
            )
            var stream = KeyStream(.trace(workload.trace))
            var chance = Chance(seed: 0)
            var list: [UInt64] = []
            while !stream.isAtEnd { list.append(stream.draw(&chance)) }
            return list
        }
        let list = keys(3)
        #expect(list == keys(3))
        let once = list.filter { $0 >= 100 }
        #expect(once.count == Set(once).count)
        #expect((1050...1350).contains(once.count))
    }

    @Test func `a popularity table's buckets are divided and keep their requests`() {
        let workload = Workload(
            popularity: [(keys: 1, requests: 500), (keys: 24, requests: 500)],
            divisor: 12,
            requests: 10_000,
            sizes: SizeTable(.fixed(10), seed: 1),
            seed: 1
        )
        #expect(workload.keyCount == 3)
        var stream = KeyStream(.trace(workload.trace))
        var chance = Chance(seed: 0)
        var first = 0
        while !stream.isAtEnd { if stream.draw(&chance) == 0 { first += 1 } }
        #expect((4_800...5_200).contains(first))
    }

    @Test func `text in JSON is quoted`() {
        var object = JSONObject()
        object.put("a \"b\"", "line\nend \\ é")
        object.put("n", 1.5)
        object.put("none", .infinity)
        object.put("list", [1, 2])
        #expect(object.text == #"{"a \"b\"": "line\u000aend \\ é", "n": 1.5, "none": null, "list": [1, 2]}"#)
    }

    @Test func `a plan that contradicts itself is named`() {
        var plan = LoadPlan(sizes: SizeTable(.fixed(1), seed: 1))
        #expect(plan.fault()?.contains("no server") == true)
        plan.servers = [.init(.v4(0x7f00_0001), port: 1)]
        #expect(plan.fault() == nil)
        plan.keys = .trace(Trace([1, 2]))
        #expect(plan.fault()?.contains("trace") == true)
        plan.connections = 1
        #expect(plan.fault() == nil)
        plan.wire = .meta
        plan.keysPerGet = 2
        #expect(plan.fault()?.contains("meta") == true)
    }
}
