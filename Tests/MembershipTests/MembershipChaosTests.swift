import MembershipSimulation
import Testing

@testable import Membership

@Suite struct `Random faults` {
    @Test(arguments: [2, 3, 5, 8])
    func `after any faults the members agree without an operator`(count: Int) {
        var times: [Double] = []
        for seed in 0..<8 as Range<UInt64> {
            let outcome = GossipCampaign(seed: seed, count: count).run()
            #expect(outcome.breaches.isEmpty, "seed \(seed), \(count) nodes: \(outcome.breaches.map(\.text))")
            if let time = outcome.agreedAfter { times.append(time) }
        }
        #expect(times.count == 8)
        print("\(count) nodes agree after faults, ms:", times.sorted())
    }

    @Test func `one seed is one course of events`() {
        let first = GossipCampaign(seed: 5, count: 5).run()
        let second = GossipCampaign(seed: 5, count: 5).run()
        #expect(first.trace == second.trace && first.calls == second.calls)
        #expect(first.trace != GossipCampaign(seed: 6, count: 5).run().trace)
    }

    /// Without what repairs, lost news stays lost: the judge must see that.
    @Test func `news that is told once and never repaired is missed`() {
        var configuration = MembershipConfiguration()
        configuration.updateTriesMax = 1
        configuration.pullsPerSecond = 0
        configuration.pullsBurst = 0
        configuration.fullExchangeIntervalMilliseconds = 1 << 40
        let breaches = (0..<20 as Range<UInt64>).flatMap { seed in
            GossipCampaign(seed: seed, count: 5, configuration: configuration).run().breaches
        }
        #expect(breaches.contains { $0.invariant == .noAgreement })
    }

    @Test func `a generation that did not reach the disk keeps its node out`() {
        let breaches = (0..<20 as Range<UInt64>).flatMap { seed in
            GossipCampaign(seed: seed, count: 5, losesGenerations: true).run().breaches
        }
        #expect(breaches.contains { $0.invariant == .wronglyStopped || $0.invariant == .noAgreement })
    }

    @Test func `figures of one seed are the same each time`() throws {
        let measure = try #require(GossipFigures(count: 5, rules: .henge, lossPercent: 20, seed: 3))
        for figure in [GossipFigures.Figure.join, .leave, .crash, .restart, .idle] {
            let first = try #require(measure.sample(figure, number: 7), "\(figure)")
            #expect(first == measure.sample(figure, number: 7), "\(figure)")
        }
    }
}
