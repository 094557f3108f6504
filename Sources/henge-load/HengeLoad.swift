import ArgumentParser
import LoadGenerator

/// The load generator. Ends with 0 if every reply was right, 1 if something was wrong, 3 if a server does not speak what
/// was asked for, 64 for arguments that it does not know.
@main
struct HengeLoad: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "henge-load",
        abstract: "Drives memcache servers and prints what that cost both sides.",
        subcommands: [Closed.self, Open.self, Fill.self, Replay.self]
    )

    static func main() {
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch let error as LoadError {
            report(error.message)
            exit(withError: ExitCode.failure)
        } catch {
            exit(withError: error)
        }
    }
}

/// A closed loop: each connection waits for its answers before it goes on.
struct Closed: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Closed loop: every connection sends DEPTH commands, waits for all answers, and sends the next."
    )

    @OptionGroup var options: LoadOptions
    @OptionGroup var choice: ChoiceOptions

    @Option(help: "Share of gets among the commands; the others are sets.")
    var getShare = 1.0

    @Option(help: "Keys of a get.")
    var keysPerGet = 1

    @Flag(help: "Set what was missed.")
    var lookAside = false

    @Flag(help: "Set all keys once before.")
    var prefill = false

    @Option(help: "Life of what is set, in seconds: 30, 10..60 (evenly), 5=0.5,60=0.5 (by weight).")
    var ttl: String?

    @Option(help: "Seconds to run before it counts.")
    var warmUp = 0.0

    @Option(help: "Seconds to run.")
    var seconds: Double?

    @Option(help: "Commands to run.")
    var commands: UInt64?

    func run() throws {
        var plan = try options.plan()
        try options.requireWire(plan)
        plan.keys = try choice.choice(keys: options.keys)
        plan.getShare = getShare
        plan.keysPerGet = keysPerGet
        plan.isLookAside = lookAside
        plan.timeToLive = try timeToLive(ttl)
        plan.commandsMax = commands
        plan.durationNanoseconds = try (seconds ?? (commands == nil ? 5 : nil)).map { try nanoseconds($0, "--seconds") }
        var warming = plan
        warming.commandsMax = nil
        warming.durationNanoseconds = try nanoseconds(warmUp, "--warm-up")
        warming.seed = plan.seed &+ 1_000_003
        let filling = Fill.plan(plan, keys: 0..<options.keys)
        let run = try LoadRun(for: [plan, filling])
        if prefill { _ = try run.run(filling) }
        if warmUp > 0 { _ = try run.run(warming) }
        options.show(try run.run(plan, watching: options.processes))
    }
}

/// An open loop: requests are due when the schedule says so.
struct Open: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Open loop: requests at a fixed rate with exponential gaps; latency counts from when each was due."
    )

    @OptionGroup var options: LoadOptions
    @OptionGroup var choice: ChoiceOptions

    @Option(help: "Requests a second.")
    var rate: Double

    @Option(help: "Share of gets among the requests; the others are sets.")
    var getShare = 1.0

    @Option(help: "Keys of a get.")
    var keysPerGet = 1

    @Flag(help: "Set all keys once before.")
    var prefill = false

    @Option(help: "Life of what is set, in seconds: 30, 10..60 (evenly), 5=0.5,60=0.5 (by weight).")
    var ttl: String?

    @Option(help: "Seconds to run before it counts.")
    var warmUp = 0.0

    @Option(help: "Seconds to run.")
    var seconds = 5.0

    func run() throws {
        var plan = try options.plan()
        try options.requireWire(plan)
        plan.keys = try choice.choice(keys: options.keys)
        plan.getShare = getShare
        plan.keysPerGet = keysPerGet
        plan.timeToLive = try timeToLive(ttl)
        plan.ratePerSecond = rate
        plan.durationNanoseconds = try nanoseconds(seconds, "--seconds")
        var warming = plan
        warming.durationNanoseconds = try nanoseconds(warmUp, "--warm-up")
        warming.seed = plan.seed &+ 1_000_003
        let filling = Fill.plan(plan, keys: 0..<options.keys)
        let run = try LoadRun(for: [plan, filling])
        if prefill { _ = try run.run(filling) }
        if warmUp > 0 { _ = try run.run(warming) }
        options.show(try run.run(plan, watching: options.processes))
    }
}

/// Sets of distinct keys.
struct Fill: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Sets every key once, in order.")

    @OptionGroup var options: LoadOptions

    @Option(help: "The number of the first key.")
    var first: UInt64 = 0

    @Option(help: "Life of what is set, in seconds: 30, 10..60 (evenly), 5=0.5,60=0.5 (by weight).")
    var ttl: String?

    @Option(help: "Sets a second at most, in an open loop; without, as fast as the server answers.")
    var rate: Double?

    /// The phase that sets a range of keys.
    static func plan(_ plan: LoadPlan, keys: Range<UInt64>) -> LoadPlan {
        var filling = plan
        filling.keys = .sequence(keys)
        filling.getShare = 0
        filling.keysPerGet = 1
        filling.isLookAside = false
        filling.commandsMax = nil
        filling.durationNanoseconds = nil
        filling.ratePerSecond = nil
        return filling
    }

    func run() throws {
        var plan = Fill.plan(try options.plan(), keys: first..<(first + options.keys))
        guard first + options.keys <= KeyText.numbersMax else {
            throw ValidationError("key numbers end at \(KeyText.numbersMax)")
        }
        try options.requireWire(plan)
        plan.timeToLive = try timeToLive(ttl)
        plan.ratePerSecond = rate
        options.show(try LoadRun(for: [plan]).run(plan, watching: options.processes))
    }
}
