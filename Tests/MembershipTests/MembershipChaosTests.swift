import ClusterCore
import Testing

@testable import Membership

@Suite struct `Random faults` {
    /// Crashes, restarts, pauses, splits and a bad network in random order; then all is healed.
    private func run(seed: UInt64, count: Int) -> GossipSimulator {
        var random = Xoshiro256(seed: seed &* 977)
        var simulator = GossipSimulator.cluster(count, seedCount: min(count, 3), seed: seed)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: count) } != nil, "seed \(seed)")
        func others(_ index: Int) -> [Endpoint] {
            (0..<count).filter { $0 != index }.map(GossipSimulator.endpoint)
        }
        var known: [[NodeID: MemberRecord]] = Array(repeating: [:], count: count)
        for _ in 0..<40 {
            let index = Int.random(in: 0..<count, using: &random)
            switch Int.random(in: 0..<8, using: &random) {
            case 0, 1:
                simulator.crash(index)
                known[index] = [:]
            case 2, 3:
                if simulator.nodes[index].membership == nil { simulator.start(index, remembered: others(index)) }
            case 4:
                if simulator.nodes[index].isRunning, simulator.nodes[index].pausedUntil == nil {
                    simulator.pause(index, milliseconds: UInt64.random(in: 10...6000, using: &random))
                }
            case 5: simulator.edit(index) { $0.side = Int.random(in: 0...1, using: &random) }
            case 6:
                simulator.network.lossPercent = [0, 0, 5, 20, 40].randomElement(using: &random) ?? 0
                simulator.network.detourPercent = [0, 10, 50].randomElement(using: &random) ?? 0
            default:
                simulator.call(index) { membership, now, effects in
                    let id = membership.members.randomElement(using: &random)?.id
                    if let id { membership.reportUnreachable(id, now: now, effects: &effects) }
                }
            }
            simulator.run(milliseconds: UInt64.random(in: 50...4000, using: &random))
            // What a node knows never falls, for as long as it runs.
            for (index, node) in simulator.nodes.enumerated() where node.isRunning {
                for record in node.membership?.members ?? [] {
                    if let before = known[index][record.id] {
                        #expect(
                            before.merged(with: record) == record,
                            "seed \(seed): \(index) forgot of \(record.name)"
                        )
                    }
                    known[index][record.id] = record
                }
            }
        }
        simulator.network = GossipSimulator.Network()
        for index in 0..<count {
            simulator.edit(index) { $0.side = 0 }
            if simulator.nodes[index].membership == nil { simulator.start(index, remembered: others(index)) }
        }
        return simulator
    }

    @Test(arguments: [2, 3, 5, 8])
    func `after any faults the members agree without an operator`(count: Int) {
        var times: [Double] = []
        for seed in 0..<8 as Range<UInt64> {
            var simulator = run(seed: seed, count: count)
            let time = simulator.run(limitMilliseconds: 60_000) { $0.agrees(up: count) }
            #expect(time != nil, "seed \(seed), \(count) nodes")
            #expect(simulator.nodes.allSatisfy { $0.stopReason == nil }, "seed \(seed), \(count) nodes")
            #expect(simulator.longestDatagram <= 1200)
            times.append(time ?? .infinity)
        }
        print("\(count) nodes agree after faults, ms:", times.sorted())
    }
}
