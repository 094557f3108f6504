import Testing

@testable import Simulation

/// The short stories; `ops/test` runs all of them, and the seeds of cluster/regressions, with the release build of
/// `henge-sim`, which is many times faster than a debug build.
@Suite struct ScenarioTests {
    @Test(arguments: ["formation of three", "crash"])
    func `a story ends well, and nothing that was promised breaks on the way`(_ name: String) throws {
        let scenario = try #require(Scenario.all.first { $0.name == name })
        let failures = scenario.run(seed: 1).failures
        #expect(failures.isEmpty, "henge-sim --scenario '\(name)' --seed 1 --log")
    }

    @Test func `the same seed has the same trace`() {
        let scenario = Scenario("steady", nodes: 3, [.run(1000)])
        let first = scenario.run(seed: 4)
        let second = scenario.run(seed: 4)
        #expect(first.trace == second.trace)
        #expect(first.events == second.events)
    }

    @Test func `another seed has another trace`() {
        let scenario = Scenario("steady", nodes: 3, [.run(500)])
        #expect(scenario.run(seed: 1).trace != scenario.run(seed: 2).trace)
    }
}
