import ClusterCore
import MembershipSimulation
import Testing

@testable import Membership

@Suite struct Damping {
    /// A cluster that has settled, of members that drop who is down from the ring after `absence` milliseconds.
    private func settled(_ count: Int, seed: UInt64, absence: UInt64 = 30_000) -> GossipSimulator {
        var configuration = MembershipConfiguration()
        configuration.ringAbsenceMilliseconds = absence
        var simulator = GossipSimulator.cluster(count, seed: seed, configuration: configuration)
        #expect(simulator.run(limitMilliseconds: 20_000) { $0.agrees(up: count) } != nil, "seed \(seed)")
        simulator.run(milliseconds: 5000)
        return simulator
    }

    private func ring(_ simulator: borrowing GossipSimulator, _ observer: Int) -> [Int] {
        let ids = simulator.nodes[observer].membership?.ringMembers(now: simulator.now).map(\.id) ?? []
        return ids.compactMap { id in simulator.nodes.firstIndex { $0.record.id == id } }.sorted()
    }

    private func isDamped(_ simulator: borrowing GossipSimulator, _ index: Int) -> Bool {
        simulator.nodes[index].membership?.ownRecord.isDamped == true
    }

    private func dampings(_ simulator: borrowing GossipSimulator, _ index: Int) -> UInt64 {
        simulator.nodes[index].membership?.statistics.dampings ?? 0
    }

    @Test func `the wait doubles with each return up to a minute, and halves for each calm minute`() {
        let configuration = MembershipConfiguration()
        var damping = FlapDamping()
        var now = Instant(nanoseconds: 1 << 40)
        var waits: [UInt64] = []
        for _ in 0..<9 {
            now = now.advanced(byMilliseconds: 59_999)
            waits.append(damping.convicted(now, configuration))
        }
        #expect(waits == [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000])
        now = now.advanced(byMilliseconds: 3 * 60_000)
        #expect(damping.convicted(now, configuration) == 8000)
        now = now.advanced(byMilliseconds: 60 * 60_000)
        #expect(damping.convicted(now, configuration) == 1000)
    }

    @Test(arguments: 1...6 as ClosedRange<UInt64>)
    func `who was down for long is up at once and in the ring a second later`(seed: UInt64) throws {
        var simulator = settled(5, seed: seed)
        simulator.pause(4, milliseconds: 45_000)
        simulator.run(milliseconds: 44_900)
        for observer in 0..<4 { #expect(ring(simulator, observer) == [0, 1, 2, 3], "seed \(seed)") }
        let isUp = simulator.run(limitMilliseconds: 5100) { $0.agrees(up: 5) }
        #expect(isUp != nil, "seed \(seed)")
        let damped = isDamped(simulator, 4)
        #expect(damped, "seed \(seed)")
        for observer in 0..<5 { #expect(ring(simulator, observer) == [0, 1, 2, 3], "seed \(seed), \(observer)") }
        simulator.run(milliseconds: 1500)
        for observer in 0..<5 { #expect(ring(simulator, observer) == [0, 1, 2, 3, 4], "seed \(seed), \(observer)") }
        let kinds = simulator.nodes[0].events.map(\.event.kind)
        #expect(kinds.contains(.damped) && kinds.last == .undamped, "seed \(seed): \(kinds)")
        #expect((1..<4).allSatisfy { dampings(simulator, $0) == 0 })
    }

    @Test(arguments: 1...6 as ClosedRange<UInt64>)
    func `who was down for a moment never left the ring, and is not damped`(seed: UInt64) {
        var simulator = settled(5, seed: seed)
        simulator.pause(2, milliseconds: 15_000)
        simulator.run(milliseconds: 14_900)
        #expect(simulator.view(of: 2, by: 0)?.liveness == .down, "seed \(seed)")
        for _ in 0..<600 {
            simulator.run(milliseconds: 10)
            #expect(ring(simulator, 0) == [0, 1, 2, 3, 4], "seed \(seed)")
        }
        #expect((0..<5).allSatisfy { dampings(simulator, $0) == 0 }, "seed \(seed)")
    }

    /// Both sides gave each other up; were both damped, the ring would be made of whoever is told last.
    @Test(arguments: 1...6 as ClosedRange<UInt64>)
    func `after a split only the smaller side waits`(seed: UInt64) {
        var simulator = settled(5, seed: seed)
        for index in 3..<5 { simulator.edit(index) { $0.side = 1 } }
        simulator.run(milliseconds: 90_000)
        #expect(ring(simulator, 0) == [0, 1, 2], "seed \(seed)")
        #expect(ring(simulator, 4) == [3, 4], "seed \(seed)")
        for index in 3..<5 { simulator.edit(index) { $0.side = 0 } }
        let isWhole = simulator.run(limitMilliseconds: 60_000) { $0.agrees(up: 5) }
        #expect(isWhole != nil, "seed \(seed)")
        for _ in 0..<500 {
            simulator.run(milliseconds: 10)
            #expect(Set(ring(simulator, 0)).isSuperset(of: [0, 1, 2]), "seed \(seed)")
        }
        #expect((0..<5).map { ring(simulator, $0) }.allSatisfy { $0 == [0, 1, 2, 3, 4] }, "seed \(seed)")
        #expect((0..<3).allSatisfy { dampings(simulator, $0) == 0 }, "seed \(seed)")
    }

    @Test(arguments: 1...6 as ClosedRange<UInt64>)
    func `after a split into halves one of them does not wait`(seed: UInt64) throws {
        var simulator = settled(4, seed: seed)
        for index in 2..<4 { simulator.edit(index) { $0.side = 1 } }
        simulator.run(milliseconds: 90_000)
        for index in 2..<4 { simulator.edit(index) { $0.side = 0 } }
        let isWhole = simulator.run(limitMilliseconds: 60_000) { $0.agrees(up: 4) }
        #expect(isWhole != nil, "seed \(seed)")
        let first = try #require((0..<4).min { simulator.nodes[$0].record.id < simulator.nodes[$1].record.id })
        #expect(dampings(simulator, first) == 0 && dampings(simulator, first ^ 1) == 0, "seed \(seed)")
        simulator.run(milliseconds: 5000)
        #expect((0..<4).map { ring(simulator, $0) }.allSatisfy { $0 == [0, 1, 2, 3] }, "seed \(seed)")
    }

    @Test func `damping counts only while most are not damped`() throws {
        var simulator = settled(5, seed: 9)
        func damp(_ indices: [Int]) {
            for index in indices {
                simulator.call(index) { membership, _, _ in
                    membership.own.isDamped = true
                    membership.own.sequence += 1
                }
            }
            let isKnown = simulator.run(limitMilliseconds: 60_000) { $0.agrees { _ in true } }
            #expect(isKnown != nil)
        }
        damp([1, 3])
        for observer in 0..<5 { #expect(ring(simulator, observer) == [0, 2, 4]) }
        damp([0])
        for observer in 0..<5 { #expect(ring(simulator, observer) == [0, 1, 2, 3, 4]) }
    }

    @Test func `a joiner drops who is down when the others do`() throws {
        var simulator = settled(4, seed: 5)
        simulator.crash(3)
        #expect(simulator.run(limitMilliseconds: 20_000) { $0.view(of: 3, by: 0)?.liveness == .down } != nil)
        simulator.run(milliseconds: 20_000)
        let joiner = simulator.add(
            seeds: [GossipSimulator.seed(0)],
            configuration: simulator.nodes[0].configuration
        )
        simulator.start(joiner)
        #expect(simulator.run(limitMilliseconds: 5000) { $0.nodes[joiner].joinedCount == 1 } != nil)
        #expect(ring(simulator, joiner).contains(3))
        #expect(simulator.run(limitMilliseconds: 20_000) { !ring($0, 0).contains(3) } != nil)
        #expect(simulator.run(limitMilliseconds: 1500) { !ring($0, joiner).contains(3) } != nil)
    }

    /// It stalls for so long that it is given up each time.
    @Test(arguments: 1...4 as ClosedRange<UInt64>)
    func `a member that goes and comes for ever stays out after a few times`(seed: UInt64) {
        var simulator = settled(5, seed: seed, absence: 0)
        var before: [Int] = []
        var changes: [Int] = []
        for round in 0..<45 {
            simulator.pause(4, milliseconds: 6000)
            for _ in 0..<800 {
                simulator.run(milliseconds: 10)
                let now = ring(simulator, 0)
                #expect(Set(now).isSuperset(of: [0, 1, 2, 3]), "seed \(seed)")
                if now != before, !before.isEmpty { changes.append(round) }
                before = now
            }
        }
        #expect(changes.contains { $0 < 3 }, "seed \(seed): it was never given up")
        // Two minutes later.
        #expect(changes.filter { $0 >= 15 } == [], "seed \(seed)")
        simulator.run(milliseconds: 70_000)
        #expect(ring(simulator, 0) == [0, 1, 2, 3, 4], "seed \(seed)")
    }
}
