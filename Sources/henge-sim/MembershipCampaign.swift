import ArgumentParser
import Glibc
import MembershipSimulation

/// Members under random faults, for a range of seeds.
struct MembershipCampaign: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "membership",
        abstract: "Runs members under random faults and looks whether they agree."
    )

    /// As the seeds go on, so do the sizes.
    private static let sizes = [1, 2, 3, 5, 9, 16, 33, 64]

    @OptionGroup var course: CourseOptions

    @Option(help: "Number of members (1, 2, 3, 5, 9, 16, 33 and 64 in turn).")
    var nodes: Int?

    @Option(help: "Number of faults.")
    var steps = 40

    func validate() throws {
        if let nodes, !(1...1000).contains(nodes) { throw ValidationError("--nodes takes 1 to 1000") }
        guard (0...10_000).contains(steps) else { throw ValidationError("--steps takes 0 to 10000") }
    }

    func run() throws {
        let clock = ContinuousClock()
        let began = clock.now
        var failed = 0
        var virtualMilliseconds: UInt64 = 0
        var times: [Double] = []
        let range = course.range ?? 1...200
        for seed in range {
            let count = nodes ?? Self.sizes[Int(seed % UInt64(Self.sizes.count))]
            let outcome = GossipCampaign(seed: seed, count: count, steps: steps, isLogging: course.log).run()
            for line in outcome.lines { print(line) }
            var problems = outcome.breaches.map { "\($0.invariant.rawValue): \($0.text)" }
            if course.twice, GossipCampaign(seed: seed, count: count, steps: steps).run().trace != outcome.trace {
                problems.append("A15: the second run had another trace")
            }
            virtualMilliseconds += outcome.virtualMilliseconds
            if let time = outcome.agreedAfter { times.append(time) }
            guard !problems.isEmpty || course.log else { continue }
            print(
                "\(problems.isEmpty ? "ok  " : "FAIL") seed \(seed), \(count) nodes:"
                    + " \(outcome.virtualMilliseconds) ms virtual, \(outcome.calls) calls,"
                    + " trace \(String(outcome.trace, radix: 16))"
            )
            for problem in problems { print("     \(problem)") }
            if !problems.isEmpty {
                print("     henge-sim membership --seed \(seed) --nodes \(count) --steps \(steps) --log")
                failed += 1
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
        print("\(range.count - failed) passed, \(failed) failed")
        if failed > 0 { throw ExitCode.failure }
    }
}
