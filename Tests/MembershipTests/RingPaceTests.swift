import ClusterCore
import Testing

@testable import Membership

@Suite struct RingPaceTests {
    private let start = Instant(nanoseconds: 1 << 40)

    private func at(_ milliseconds: UInt64) -> Instant { start.advanced(byMilliseconds: milliseconds) }

    /// When a view that becomes one member greater at each of these times is shown, looked at every millisecond.
    private func shown(_ arrivals: [UInt64], for milliseconds: UInt64 = 20_000) -> [(at: UInt64, size: Int)] {
        var pace = RingPace<Int>(now: start)
        var size = 0
        var shown: [(UInt64, Int)] = []
        for time in 0...milliseconds {
            let wanted = arrivals.count { $0 <= time }
            if wanted == size {
                pace.settle()
            } else if pace.isDue(wanted, differences: wanted - size, now: at(time)) {
                size = wanted
                shown.append((time, size))
            }
        }
        return shown
    }

    @Test func `a lone change shows at once`() {
        let times = shown([0, 1000, 5000])
        #expect(times.map(\.at) == [0, 1000, 5000])
        #expect(times.map(\.size) == [1, 2, 3])
    }

    @Test func `what follows within the interval waits for its end`() {
        #expect(shown([0, 50]).map(\.at) == [0, 200])
        let three = shown([0, 50, 60, 70])
        #expect(three.map(\.at) == [0, 200], "three members have stood still for 60 ms by then")
        #expect(three.map(\.size) == [1, 4])
    }

    @Test func `the more change, the longer they must have stood still`() {
        #expect(shown([0, 100, 190]).map(\.at) == [0, 230], "two, still for 40 ms")
        let ten = shown([0] + (0..<10).map { 100 + $0 * 20 })
        #expect(ten.map(\.at) == [0, 280 + 200])
        #expect(ten.map(\.size) == [1, 11])
    }

    @Test func `a thousand that come one by one show as few rings`() {
        let rings = shown((0..<1000).map { $0 * 2 })
        #expect(rings.map(\.size) == [1, 1000])
        #expect(rings.last?.at == 999 * 2 + 2000)
    }

    @Test func `without an end to changes, patience ends`() {
        let rings = shown((0..<2000).map { $0 * 10 })
        #expect(rings.map(\.at) == [0, 5010, 10_020, 15_030])
    }

    @Test func `what changes back is never shown`() {
        var pace = RingPace<Int>(now: start)
        #expect(pace.isDue(1, differences: 1, now: at(0)) == true)
        #expect(pace.isDue(2, differences: 1, now: at(100)) == false)
        pace.settle()
        #expect(pace.coalesced == 1)
        pace.settle()
        #expect(pace.coalesced == 1)
        #expect(pace.isDue(3, differences: 1, now: at(300)) == true)
        // A view that others replace counts once.
        #expect(pace.isDue(4, differences: 1, now: at(310)) == false)
        #expect(pace.isDue(4, differences: 1, now: at(320)) == false)
        #expect(pace.isDue(5, differences: 2, now: at(330)) == false)
        #expect(pace.coalesced == 2)
    }
}
