import ClusterCore
import MembershipSimulation
import Testing

@testable import Membership

@Suite struct `Trials of UDP` {
    private func formed() throws -> GossipSimulator {
        var simulator = GossipSimulator.cluster(3, seed: 81)
        try #require(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 3) } != nil)
        return simulator
    }

    /// Both ends of the way between the first two nodes begin; what each sees half a second later.
    private func tried(_ simulator: inout GossipSimulator, _ number: UInt64) -> [DatagramTrialResult] {
        for (index, other) in [(0, 1), (1, 0)] {
            let id = simulator.nodes[other].record.id
            simulator.call(index) { $0.tryDatagrams(to: id, number: number, now: $1, effects: &$2) }
        }
        simulator.run(milliseconds: 500)
        return [(0, 1), (1, 0)].map { index, other in
            let id = simulator.nodes[other].record.id
            return simulator.nodes[index].membership?.datagramTrial(with: id, number: number) ?? DatagramTrialResult()
        }
    }

    @Test func `an answer proves both ways`() throws {
        var simulator = try formed()
        for result in tried(&simulator, 7) { #expect(result.isHeard && result.isAnswered) }
    }

    @Test func `a way that is closed is told from the way back, and nobody is accused for it`() throws {
        var simulator = try formed()
        let cut = simulator.begin(.loss(from: 0, to: 1, percent: 100))
        // What was on its way arrives.
        simulator.run(milliseconds: 100)
        let results = tried(&simulator, 8)
        #expect(results[0].isHeard && !results[0].isAnswered)
        #expect(!results[1].isHeard && !results[1].isAnswered)
        simulator.end(linkFault: cut)
        for result in tried(&simulator, 9) { #expect(result.isHeard && result.isAnswered) }
        // What the earlier trial showed is not mixed up with the later one.
        let id = simulator.nodes[0].record.id
        #expect(simulator.nodes[1].membership?.datagramTrial(with: id, number: 10).isHeard == false)
    }

    @Test func `trials end by themselves, and the pings of each are few`() throws {
        var simulator = try formed()
        let id = simulator.nodes[1].record.id
        for _ in 0..<20 { simulator.call(0) { $0.tryDatagrams(to: id, number: 3, now: $1, effects: &$2) } }
        #expect(simulator.nodes[0].membership?.trials.map(\.sequences.count) == [Membership.trialPingsMax])
        simulator.run(milliseconds: Membership.trialMilliseconds + 5000)
        #expect(simulator.nodes[0].membership?.trials.isEmpty == true)
    }

    @Test func `of more trials than there is room for the oldest gives way`() throws {
        var simulator = try formed()
        let id = simulator.nodes[1].record.id
        simulator.call(0) { membership, now, effects in
            for number in 0...UInt64(Membership.trialsMax) {
                membership.tryDatagrams(to: id, number: number, now: now, effects: &effects)
            }
        }
        #expect(simulator.nodes[0].membership?.trials.count == Membership.trialsMax)
        #expect(simulator.nodes[0].membership?.trials.first?.number == 1)
    }
}
