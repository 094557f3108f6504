import MembershipSimulation
import Testing

@testable import Membership

@Suite struct `Random faults` {
    /// `ops/test` runs many more seeds and sizes, in release.
    @Test(arguments: [2, 5, 8])
    func `after any faults the members agree without an operator`(count: Int) {
        var times: [Double] = []
        for seed in [1, 5] as [UInt64] {
            let outcome = GossipCampaign(seed: seed, count: count, steps: 20).run()
            #expect(outcome.breaches.isEmpty, "seed \(seed), \(count) nodes: \(outcome.breaches.map(\.text))")
            if let time = outcome.agreedAfter { times.append(time) }
        }
        #expect(times.count == 2)
        print("\(count) nodes agree after faults, ms:", times.sorted())
    }

    @Test func `one seed is one course of events`() {
        let first = GossipCampaign(seed: 5, count: 5).run()
        let second = GossipCampaign(seed: 5, count: 5).run()
        #expect(first.trace == second.trace && first.calls == second.calls)
        #expect(first.trace != GossipCampaign(seed: 6, count: 5).run().trace)
    }

    @Test func `a fault that is left out changes nothing in the others`() {
        let plan = GossipPlan(seed: 9, count: 5, steps: 40)
        #expect(plan.steps.map(\.fault) == GossipPlan(seed: 9, count: 5, steps: 40).steps.map(\.fault))
        let outcome = GossipCampaign(seed: 9, count: 5, only: [], isLogging: true).run()
        #expect(outcome.breaches.isEmpty && outcome.faults.isEmpty)
        // The others keep their time.
        let waits = plan.steps.reduce(0) { $0 + $1.waitMilliseconds }
        #expect(outcome.virtualMilliseconds >= waits)
        #expect(!outcome.lines.contains { $0.contains("fault") })
    }

    @Test func `a range of plans has every kind of fault`() {
        var kinds: Set<GossipFault.Kind> = []
        for seed in 1...20 as ClosedRange<UInt64> {
            for step in GossipPlan(seed: seed, count: 9, steps: 40).steps { kinds.insert(step.fault.kind) }
        }
        #expect(kinds == Set(GossipFault.Kind.allCases))
    }

    /// `ops/test` runs all controls, in release; these are caught within a few seeds.
    @Test(arguments: [GossipControl.noRefutation, .noRepair, .lostGeneration, .deadEvidenceDropped, .anyCluster])
    func `without a rule its invariant breaks`(control: GossipControl) {
        for invariant in control.invariants {
            let isCaught = (1...20 as ClosedRange<UInt64>).contains { seed in
                control.campaign(seed: seed).run().breaches.contains { $0.invariant == invariant }
            }
            #expect(isCaught, "\(control.rawValue): \(invariant.rawValue)")
        }
    }

    @Test func `figures of one seed are the same each time`() throws {
        let measure = try #require(GossipFigures(count: 5, rules: .henge, lossPercent: 20, seed: 3))
        for figure in [GossipFigures.Figure.join, .leave, .crash, .restart, .idle] {
            let first = try #require(measure.sample(figure, number: 7), "\(figure)")
            #expect(first == measure.sample(figure, number: 7), "\(figure)")
        }
    }
}

@Suite struct `Shrinking` {
    @Test func `what is enough is found among what is not`() {
        for wanted in [[], [0], [39], [3, 30], [0, 17, 18], Array(0..<40)] {
            var shrinker = GossipShrinker(runsMax: 2000)
            let result = shrinker.shrink(40) { steps in wanted.allSatisfy { steps.contains($0) } }
            #expect(result.steps == wanted)
        }
    }

    @Test func `there is an end to it`() {
        var shrinker = GossipShrinker(runsMax: 7)
        var runs = 0
        let result = shrinker.shrink(40) { steps in
            runs += 1
            return steps.contains(1) && steps.contains(38)
        }
        #expect(runs == 7 && result.runs == 7)
        #expect(result.steps.contains(1) && result.steps.contains(38) && result.steps.count < 40)
    }

    @Test func `a rule that is missing is shown by three faults at most`() throws {
        let control = GossipControl.anyCluster
        let invariant = try #require(control.invariants.first)
        func isBroken(_ seed: UInt64, _ steps: [Int]?) -> Bool {
            control.campaign(seed: seed, only: steps.map { Set($0) }).run().breaches.contains {
                $0.invariant == invariant
            }
        }
        let seed = try #require((1...20 as ClosedRange<UInt64>).first { isBroken($0, nil) })
        let plan = GossipPlan(seed: seed, count: control.count(seed), steps: 40)
        var shrinker = GossipShrinker()
        let result = shrinker.shrink(plan.steps.count) { isBroken(seed, $0) }
        #expect(result.steps.count <= 3, "seed \(seed): \(result.steps.map { plan.steps[$0].fault.description })")
        // The list that is printed is the fault: it breaks the same when it is run again.
        #expect(isBroken(seed, result.steps))
        print("seed \(seed) in \(result.runs) runs:", result.steps.map { plan.steps[$0].fault.description })
    }
}
