import Testing

@testable import Simulation

@Suite struct ScenarioTests {
    @Test(arguments: Scenario.all.map(\.name))
    func `a story ends well, and nothing that was promised breaks on the way`(_ name: String) throws {
        let scenario = try #require(Scenario.all.first { $0.name == name })
        let failures = scenario.run(seed: 1).failures
        #expect(failures.isEmpty, "henge-sim --scenario '\(name)' --seed 1 --log")
    }

    /// Each of these found a fault once.
    @Test(arguments: [1, 3, 8, 12, 21, 23] as [UInt64])
    func `a schedule that found a fault stays well`(_ seed: UInt64) {
        let failures = Scenario.random(seed: seed).run(seed: seed).failures
        #expect(failures.isEmpty, "henge-sim --seed \(seed) --log")
    }

    @Test func `a network that splits and heals leaves one holder for each slice`() throws {
        let scenario = try #require(Scenario.all.first { $0.name == "minority split off" })
        let failures = scenario.run(seed: 2).failures
        #expect(failures.isEmpty, "henge-sim --scenario 'minority split off' --seed 2 --log")
    }

    @Test(arguments: [4, 5] as [UInt64])
    func `the same seed has the same trace`(_ seed: UInt64) {
        let first = Scenario.random(seed: seed).run(seed: seed)
        let second = Scenario.random(seed: seed).run(seed: seed)
        #expect(first.trace == second.trace, "seed \(seed)")
        #expect(first.events == second.events, "seed \(seed)")
    }

    @Test func `another seed has another trace`() {
        let scenario = Scenario("steady", nodes: 3, [.run(500)])
        #expect(scenario.run(seed: 1).trace != scenario.run(seed: 2).trace)
    }
}
