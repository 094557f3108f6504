import Glibc
import Simulation

/// Runs simulated clusters: `henge-sim --seeds 1...100`, `henge-sim --seed 7 --log`, `henge-sim --scenario crash`,
/// `henge-sim --scenarios`. Ends with 0 if nothing failed, with 1 if something did, with 2 for
/// arguments that it does not know.
@main
struct HengeSim {
    static func main() {
        var seeds: ClosedRange<UInt64> = 1...20
        var isLogging = false
        var name: String?
        var isAllScenarios = false
        var isTwice = false
        var arguments = Array(CommandLine.arguments.dropFirst())[...]
        while let argument = arguments.popFirst() {
            switch argument {
            case "--seed":
                guard let seed = arguments.popFirst().flatMap({ UInt64($0) }) else { return usage() }
                seeds = seed...seed
            case "--seeds":
                let parts = (arguments.popFirst() ?? "").split(separator: ".").compactMap { UInt64($0) }
                guard parts.count == 2, parts[0] <= parts[1] else { return usage() }
                seeds = parts[0]...parts[1]
            case "--log": isLogging = true
            case "--twice": isTwice = true
            case "--scenario": name = arguments.popFirst()
            case "--scenarios": isAllScenarios = true
            default: return usage()
            }
        }
        var passed = 0
        var failed = 0
        for seed in seeds {
            let scenarios: [Scenario]
            if isAllScenarios {
                scenarios = Scenario.all
            } else if let name {
                scenarios = Scenario.all.filter { $0.name == name }
                if scenarios.isEmpty { return usage() }
            } else {
                scenarios = [Scenario.random(seed: seed)]
            }
            for scenario in scenarios {
                if run(scenario, seed, isLogging, isTwice) { passed += 1 } else { failed += 1 }
            }
        }
        print("\(passed) passed, \(failed) failed")
        exit(failed == 0 ? 0 : 1)
    }

    private static func run(_ scenario: Scenario, _ seed: UInt64, _ isLogging: Bool, _ isTwice: Bool) -> Bool {
        if isLogging { for step in scenario.steps { print("  \(step)") } }
        let clock = ContinuousClock()
        let began = clock.now
        var outcome = scenario.run(seed: seed, isLogging: isLogging, onLine: { print($0) })
        if isTwice, scenario.run(seed: seed).trace != outcome.trace {
            outcome.failures.append("the second run had another trace")
        }
        let took = began.duration(to: clock.now)
        let isGood = outcome.failures.isEmpty
        print(
            "\(isGood ? "ok  " : "FAIL") seed \(seed) \(scenario.name): \(outcome.virtualMilliseconds) ms virtual,"
                + " \(outcome.events) events, \(outcome.answers) answers, \(outcome.errors) errors,"
                + " \(outcome.misses) misses, trace \(String(outcome.trace, radix: 16)), took \(took)"
        )
        for failure in outcome.failures { print("     \(failure)") }
        return isGood
    }

    private static func usage() {
        print("henge-sim [--seed N | --seeds A...B] [--scenario NAME | --scenarios] [--log] [--twice]")
        for scenario in Scenario.all { print("  \(scenario.name)") }
        exit(2)
    }
}
