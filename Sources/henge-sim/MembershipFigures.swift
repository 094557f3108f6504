import ArgumentParser
import Glibc
import MembershipSimulation

extension GossipFigures.Figure: ExpressibleByArgument {}
extension GossipRules: ExpressibleByArgument {}

/// What members need to agree, in virtual time.
struct MembershipFigures: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "membership-figures",
        abstract: "Measures how long members take to agree after a change."
    )

    @Option(help: "Number of members; once for each (3, 16, 128).")
    var nodes: [Int] = []

    @Option(help: "What to measure; once for each (all).")
    var figure: [GossipFigures.Figure] = []

    @Option(help: "Whose rules; once for each (henge).")
    var rules: [GossipRules] = []

    @Option(help: "Percent of datagrams that are lost.")
    var loss = 0

    @Option(help: "Samples of each.")
    var samples: UInt64 = 100

    @Option(help: "Seed of what is drawn.")
    var seed: UInt64 = 1

    func validate() throws {
        guard nodes.allSatisfy({ (2...1000).contains($0) }) else { throw ValidationError("--nodes takes 2 to 1000") }
        guard (0...80).contains(loss) else { throw ValidationError("--loss takes 0 to 80") }
        guard samples > 0 else { throw ValidationError("--samples takes 1 or more") }
    }

    func run() throws {
        print("seed \(seed), loss \(loss) %, \(samples) samples each: median, 99th percentile, greatest")
        var isComplete = true
        for count in nodes.isEmpty ? [3, 16, 128] : nodes {
            for rules in rules.isEmpty ? [.henge] : rules {
                let clock = ContinuousClock()
                var began = clock.now
                let measure = GossipFigures(count: count, rules: rules, lossPercent: loss, seed: seed)
                guard let measure else {
                    print("\(count) \(rules.rawValue): no cluster in two minutes")
                    isComplete = false
                    continue
                }
                print(
                    "\(count) \(rules.rawValue) formed: \(Int(measure.formationMilliseconds)) ms;"
                        + " took \(began.duration(to: clock.now))"
                )
                for figure in figure.isEmpty ? GossipFigures.Figure.allCases : figure {
                    began = clock.now
                    let all = (0..<samples).map { measure.sample(figure, number: $0) }
                    let found = all.compactMap { $0 }.sorted()
                    if found.count < all.count { isComplete = false }
                    func at(_ percent: Int) -> String {
                        guard !found.isEmpty else { return "-" }
                        let value = found[min(found.count - 1, found.count * percent / 100)]
                        return String(Double(Int(value * 10)) / 10)
                    }
                    print(
                        "\(count) \(rules.rawValue) \(figure.rawValue): \(at(50)) / \(at(99)) / \(at(100))"
                            + " \(figure.unit)\(found.count < all.count ? ", \(all.count - found.count) never" : "");"
                            + " took \(began.duration(to: clock.now))"
                    )
                    fflush(nil)
                }
            }
        }
        if !isComplete { throw ExitCode.failure }
    }
}
