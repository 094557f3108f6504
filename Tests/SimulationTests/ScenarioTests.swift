import Testing

@testable import Simulation

@Suite struct ScenarioTests {
    @Test(arguments: Scenario.all.map(\.name))
    func `a scenario holds what is promised`(_ name: String) throws {
        let scenario = try #require(Scenario.all.first { $0.name == name })
        let outcome = scenario.run(seed: 1)
        #expect(outcome.failures.isEmpty, "scenario \(name), seed 1")
    }
}
