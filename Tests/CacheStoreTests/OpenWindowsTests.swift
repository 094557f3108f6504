import ClusterCore
import Testing

@testable import CacheStore

/// Which open segment takes an item that expires.
@Suite struct OpenWindowsTests {
    /// Takes items as a shard does, each window a segment that is never full.
    private func take(_ expiry: UInt32, _ windows: inout OpenWindows, now: UInt32, countMax: Int) -> UInt32 {
        if let index = windows.index(for: expiry, now: now, mayAdd: windows.count < countMax) {
            windows.widen(index, to: expiry)
            return windows[index].segment
        }
        windows.insert(expiry, at: expiry)
        return expiry
    }

    @Test func `windows stay in order and apart, and no wider than an eighth of the time left`() {
        var random = Xoshiro256(seed: 3)
        let countMax = 40
        var windows = OpenWindows(capacity: countMax)
        defer { windows.deallocate() }
        var now: UInt32 = 1_000_000
        var wide = 0
        for step in 0..<20_000 {
            if step % 50 == 0 { now += 1 }
            while windows.count > 0, windows[0].last <= now { windows.remove(0) }
            let expiry = now + UInt32.random(in: 1...(1 << UInt32.random(in: 1...8, using: &random)), using: &random)
            let mayAdd = windows.count < countMax
            let segment = take(expiry, &windows, now: now, countMax: countMax)
            for index in 0..<windows.count {
                let window = windows[index]
                #expect(window.first <= window.last, "step \(step)")
                if index > 0 { #expect(windows[index - 1].last < window.first, "step \(step)") }
                guard window.segment == segment else { continue }
                #expect(window.first <= expiry && expiry <= window.last, "step \(step)")
                // It grew when its end was farther.
                if mayAdd, window.last - window.first > 256 / 8 { wide += 1 }
            }
            // Segments fill, and so leave.
            if step % 7 == 0 { windows.remove(Int.random(in: 0..<windows.count, using: &random)) }
        }
        #expect(wide == 0 && windows.count > 10)
    }

    @Test func `an item goes to the window over it, then to a near one, else has its own`() {
        var windows = OpenWindows(capacity: 4)
        defer { windows.deallocate() }
        #expect(windows.index(for: 180, now: 100, mayAdd: false) == nil, "there is none")
        #expect(take(180, &windows, now: 100, countMax: 4) == 180)
        #expect(take(190, &windows, now: 100, countMax: 4) == 180, "90 seconds are left, the window may have 11")
        #expect(take(185, &windows, now: 180, countMax: 4) == 180, "the window is there, though 5 seconds are left")
        #expect(take(260, &windows, now: 100, countMax: 4) == 260)
        #expect(windows.index(for: 225, now: 100, mayAdd: true) == nil, "both would be too wide")
        #expect(take(225, &windows, now: 100, countMax: 2) == 260, "none may be added: the narrower")
        #expect(windows[1].first == 225 && windows[1].last == 260)
        windows.remove(0)
        #expect(windows.count == 1 && windows.index(of: 260) == 0 && windows.index(of: 180) == nil)
    }

    @Test func `a window that has passed takes nothing more, unless there is no other`() {
        var windows = OpenWindows(capacity: 2)
        defer { windows.deallocate() }
        _ = take(100, &windows, now: 10, countMax: 2)
        #expect(windows.index(for: 101, now: 100, mayAdd: true) == nil)
        #expect(windows.index(for: 101, now: 100, mayAdd: false) == 0)
    }

    /// The part of the items held that are expired, in per mille, and bytes of segments that hold nothing, once all
    /// lives have passed twice; four hundred new items a second.
    private func measure(seed: UInt64, seconds: Int, life: (inout Xoshiro256) -> UInt32) -> (expired: Int, dead: Int) {
        var random = Xoshiro256(seed: seed)
        var bench = Bench(configuration: StoreConfiguration(memoryBytes: 16 << 20))
        let value = String(repeating: "v", count: 100)
        var dying: [UInt32: Int] = [:]
        var alive = 0
        var expired = 0
        var dead = 0
        var number = 0
        for second in 0..<seconds {
            let time = UInt64(1000 + second)
            alive -= dying.removeValue(forKey: UInt32(time)) ?? 0
            for tick in 0..<10 as Range<UInt64> {
                let milliseconds = time * 1000 + tick * 100
                for _ in 0..<40 {
                    let expiry = UInt32(time) + life(&random)
                    number += 1
                    _ = bench.run(Request(.set, "k\(number)", value, expiry: expiry), at: milliseconds)
                    dying[expiry, default: 0] += 1
                    alive += 1
                }
                bench.shard.advance(now: at(milliseconds), budget: 4096)
            }
            let statistics = bench.shard.statistics
            guard second * 3 > seconds * 2 else { continue }
            #expect(statistics.evictions == 0 && statistics.items >= alive)
            expired += (statistics.items - alive) * 1000 / statistics.items
            dead += statistics.deadBytes * 1000 / (statistics.bytes + statistics.deadBytes)
        }
        #expect(bench.shard.faults().isEmpty)
        let samples = seconds - 1 - seconds * 2 / 3
        return (expired / samples, dead / samples)
    }

    @Test func `of lives that are spread evenly a tenth at most is held beyond its end`() {
        let (expired, dead) = measure(seed: 5, seconds: 120) { UInt32.random(in: 5...60, using: &$0) }
        #expect(expired <= 100 && dead <= 125, "\(expired) and \(dead) per mille")
    }

    @Test func `of a few lives a twentieth at most is held beyond its end`() {
        let lives: [UInt32] = [10, 10, 10, 10, 10, 25, 25, 25, 60, 60]
        let (expired, dead) = measure(seed: 6, seconds: 120) { lives[Int.random(in: 0..<10, using: &$0)] }
        #expect(expired <= 50 && dead <= 100, "\(expired) and \(dead) per mille")
    }
}
