import ArgumentParser
import Glibc
import Simulation

/// Runs simulated clusters. Ends with 0 if nothing failed, with 1 if something did.
@main
struct HengeSim: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "henge-sim",
        abstract: "Runs simulated clusters in virtual time, from seeds.",
        subcommands: [
            Cluster.self, MembershipCampaign.self, MembershipControls.self, MembershipFigures.self, Fuzz.self,
        ],
        defaultSubcommand: Cluster.self
    )
}

/// A range of seeds as `A...B`.
struct Seeds: ExpressibleByArgument {
    let range: ClosedRange<UInt64>

    init?(argument: String) {
        let parts = argument.split(separator: ".").compactMap { UInt64($0) }
        guard parts.count == 2, parts[0] <= parts[1] else { return nil }
        range = parts[0]...parts[1]
    }
}

/// Which seeds, and how they are run.
struct CourseOptions: ParsableArguments {
    @Option(help: "One seed.")
    var seed: UInt64?

    @Option(help: "Many seeds, A...B.")
    var seeds: Seeds?

    @Flag(help: "Tell what happens.")
    var log = false

    @Flag(help: "Run each twice: the second run must have the same trace.")
    var twice = false

    func validate() throws {
        if seed != nil, seeds != nil { throw ValidationError("--seed and --seeds exclude each other") }
    }

    /// The seeds that were named, if any.
    var range: ClosedRange<UInt64>? { seed.map { $0...$0 } ?? seeds?.range }
}

/// Whole nodes with clients, faults and a judge.
struct Cluster: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Runs whole nodes with clients and faults.",
        discussion: "The stories: " + Scenario.all.map(\.name).joined(separator: ", ") + "."
    )

    @OptionGroup var course: CourseOptions

    @Option(help: "A story by name instead of a random schedule of faults.")
    var scenario: String?

    @Flag(help: "All stories.")
    var scenarios = false

    @Flag(help: "Random schedules of faults with losses and delays on connections too.")
    var links = false

    func validate() throws {
        if let scenario, !Scenario.all.contains(where: { $0.name == scenario }) {
            throw ValidationError("no story is called '\(scenario)'; --help lists them")
        }
        if links, scenario != nil || scenarios { throw ValidationError("--links draws schedules, and tells no story") }
    }

    func run() throws {
        var passed = 0
        var failed = 0
        for seed in course.range ?? 1...20 {
            let chosen: [Scenario]
            if scenarios {
                chosen = Scenario.all
            } else if let scenario {
                chosen = Scenario.all.filter { $0.name == scenario }
            } else {
                chosen = [Scenario.random(seed: seed, links: links)]
            }
            for scenario in chosen {
                if run(scenario, seed) { passed += 1 } else { failed += 1 }
            }
        }
        print("\(passed) passed, \(failed) failed")
        if failed > 0 { throw ExitCode.failure }
    }

    private func run(_ scenario: Scenario, _ seed: UInt64) -> Bool {
        if course.log { for step in scenario.steps { print("  \(step)") } }
        let clock = ContinuousClock()
        let began = clock.now
        var outcome = scenario.run(seed: seed, isLogging: course.log, onLine: { print($0) })
        if course.twice, scenario.run(seed: seed).trace != outcome.trace {
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
        // Who reads through a pipe sees each run as it ends.
        fflush(nil)
        return isGood
    }
}
