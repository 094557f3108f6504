import ArgumentParser
import Glibc
import MembershipSimulation

/// The numbers of a plan's faults: `3,7,12`, or `none`.
struct FaultNumbers: ExpressibleByArgument {
    let numbers: Set<Int>

    init?(argument: String) {
        if argument == "none" {
            numbers = []
            return
        }
        let parts = argument.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
        guard !parts.isEmpty, parts.allSatisfy({ $0.map { $0 >= 0 } ?? false }) else { return nil }
        numbers = Set(parts.compactMap { $0 })
    }
}

/// Members under random faults, for a range of seeds.
struct MembershipCampaign: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "membership",
        abstract: "Runs members under random faults and looks whether they agree."
    )

    /// As the seeds go on, so do the sizes.
    private static let sizes = [1, 2, 3, 5, 9, 16, 33, 64]
    /// A range of so many seeds, with the sizes in turn and all faults, has to reach whatever there is to reach.
    private static let seedsThatReachAll = 200
    /// What one in some hundred reaches.
    private static let seedsThatReachRare = 1000

    @OptionGroup var course: CourseOptions

    @Option(help: "Number of members (1, 2, 3, 5, 9, 16, 33 and 64 in turn).")
    var nodes: Int?

    @Option(help: "Number of faults.")
    var steps = 40

    @Option(help: "Only the faults with these numbers, 3,7,12 or none; the others keep their time.")
    var only: FaultNumbers?

    func validate() throws {
        if let nodes, !(1...1000).contains(nodes) { throw ValidationError("--nodes takes 1 to 1000") }
        guard (0...10_000).contains(steps) else { throw ValidationError("--steps takes 0 to 10000") }
        if only != nil, course.seed == nil { throw ValidationError("--only goes with --seed") }
    }

    private func campaign(_ seed: UInt64, only: Set<Int>?, isLogging: Bool = false) -> GossipCampaign {
        let count = nodes ?? Self.sizes[Int(seed % UInt64(Self.sizes.count))]
        return GossipCampaign(seed: seed, count: count, steps: steps, only: only, isLogging: isLogging)
    }

    func run() throws {
        let clock = ContinuousClock()
        let began = clock.now
        var failed = 0
        var virtualMilliseconds: UInt64 = 0
        var times: [Double] = []
        var reached: [GossipCampaign.Sometimes: Int] = [:]
        var faults: [GossipFault.Kind: Int] = [:]
        let range = course.range ?? 1...200
        for seed in range {
            let run = campaign(seed, only: only?.numbers, isLogging: course.log)
            let count = run.nodesAtStart
            var outcome = run.run()
            for line in outcome.lines { print(line) }
            if course.twice, campaign(seed, only: only?.numbers).run().trace != outcome.trace {
                outcome.add(.anotherCourse, "the second run had another trace")
            }
            virtualMilliseconds += outcome.virtualMilliseconds
            if let time = outcome.agreedAfter { times.append(time) }
            for sometimes in outcome.reached { reached[sometimes, default: 0] += 1 }
            for fault in outcome.faults { faults[fault, default: 0] += 1 }
            guard !outcome.breaches.isEmpty || course.log else { continue }
            print(
                "\(outcome.breaches.isEmpty ? "ok  " : "FAIL") seed \(seed), \(count) nodes:"
                    + " \(outcome.virtualMilliseconds) ms virtual, \(outcome.calls) calls,"
                    + " trace \(String(outcome.trace, radix: 16))"
            )
            for breach in outcome.breaches { print("     \(breach.invariant.rawValue): \(breach.text)") }
            if let first = outcome.breaches.first {
                failed += 1
                if only == nil { shrink(seed, count, first.invariant) }
            }
            fflush(nil)
        }
        times.sort()
        let seconds = Double(began.duration(to: clock.now) / .milliseconds(1)) / 1000
        let speed = Int(Double(virtualMilliseconds) / 1000 / max(seconds, 0.001))
        if !times.isEmpty {
            let median = Int(times[times.count / 2])
            print(
                "agreed after \(median) ms (median), \(Int(times[times.count - 1])) ms at most; \(speed) times real time"
            )
        }
        let isWhole = range.count >= Self.seedsThatReachAll && nodes == nil && steps >= 40 && only == nil
        let missed =
            report("faults", GossipFault.Kind.allCases.map { ($0.rawValue, faults[$0] ?? 0) })
            + report("reached", GossipCampaign.Sometimes.allCases.map { ($0.rawValue, reached[$0] ?? 0) })
        let rare = range.count >= Self.seedsThatReachRare ? [] : [GossipCampaign.Sometimes.groupsMeet.rawValue]
        let isShort = isWhole && missed.contains { !rare.contains($0) }
        if isShort { print("FAIL never reached: " + missed.joined(separator: ", ")) }
        print("\(range.count - failed) passed, \(failed) failed")
        if failed > 0 || isShort { throw ExitCode.failure }
    }

    /// In how many seeds each was there; returns those that never were.
    private func report(_ title: String, _ counts: [(name: String, count: Int)]) -> [String] {
        print("\(title), in so many seeds: " + counts.map { "\($0.name) \($0.count)" }.joined(separator: ", "))
        return counts.filter { $0.count == 0 }.map(\.name)
    }

    /// Prints the shortest list of faults that was found to break the invariant, and how to see it.
    private func shrink(_ seed: UInt64, _ count: Int, _ invariant: GossipCampaign.Invariant) {
        let command = "henge-sim membership --seed \(seed) --nodes \(count) --steps \(steps)"
        if invariant == .anotherCourse {
            print("     \(command) --twice")
            return
        }
        let plan = GossipPlan(seed: seed, count: count, steps: steps)
        var shrinker = GossipShrinker()
        let result = shrinker.shrink(plan.steps.count) { steps in
            campaign(seed, only: Set(steps)).run().breaches.contains { $0.invariant == invariant }
        }
        print(
            "     shrunk from \(plan.steps.count) faults to \(result.steps.count) in \(result.runs) runs,"
                + " \(invariant.rawValue) still broken:"
        )
        for number in result.steps { print("       \(number): \(plan.steps[number].fault)") }
        let list = result.steps.isEmpty ? "none" : result.steps.map(String.init).joined(separator: ",")
        print("     \(command) --only \(list) --log")
    }
}
