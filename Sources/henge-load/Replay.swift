import ArgumentParser
import LoadGenerator

/// A recorded or generated sequence: get, and on a miss set.
struct Replay: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Replays a sequence of keys over one connection: get, and on a miss set. Tells the miss ratio.",
        discussion: """
            A batch of DEPTH gets ends before a key that is in it already, so that the order of the sequence holds.
            """
    )

    @OptionGroup var options: LoadOptions

    @Option(help: "File of 4-byte little-endian key numbers in the order of their requests.")
    var trace: String?

    @Option(help: "File of 4-byte little-endian value sizes: the i-th is that of the i-th smallest key number.")
    var sizes: String?

    @Option(help: "Draw a sequence from this table of key counts and requests (tab-separated, most popular first).")
    var popularity: String?

    @Option(help: "Table of lower bounds of value sizes and weights, for drawn sequences.")
    var sizeTable: String?

    @Option(help: "Values are cut to this length, in bytes.")
    var sizeCap = 200_000

    @Option(help: "Divides the key counts of the popularity table.")
    var divisor = 12

    @Option(help: "Draw a sequence over KEYS keys by Zipf's law with this exponent.")
    var zipf: Double?

    @Option(help: "Share of drawn requests that go to keys that never come again, with --zipf.")
    var onceShare = 0.0

    @Option(help: "Length of a drawn sequence, and the most of a recorded one that is replayed.")
    var requests: Int?

    func validate() throws {
        let sources = [trace != nil, popularity != nil, zipf != nil].filter { $0 }
        guard sources.count == 1 else { throw ValidationError("give one of --trace, --popularity and --zipf") }
        guard divisor >= 1, sizeCap >= 1, (requests ?? 1) >= 1, (0...1).contains(onceShare) else {
            throw ValidationError("--divisor, --size-cap and --requests are at least 1, --once-share is in 0...1")
        }
    }

    func run() throws {
        var plan = try options.plan()
        try options.requireWire(plan)
        let workload = try workload(plan.sizes)
        plan.connections = 1
        plan.threads = 1
        plan.keys = .trace(workload.trace)
        plan.sizes = workload.sizes
        plan.isLookAside = true
        // A recorded sequence is cut here, a drawn one has that length.
        plan.commandsMax = requests.map { UInt64($0) }
        options.show(try LoadRun(for: [plan]).run(plan, watching: options.processes))
    }

    private func workload(_ fallback: SizeTable) throws -> Workload {
        if let trace { return try Workload(trace: trace, sizes: sizes, otherwise: fallback) }
        let table = try sizeTable.map {
            SizeTable(ValueSizes(table: try Workload.table($0), cap: sizeCap), seed: options.sizeSeed)
        }
        let drawn = requests ?? 4_000_000
        if let popularity {
            let buckets = try Workload.table(popularity).map { (keys: $0.0, requests: $0.1) }
            return Workload(
                popularity: buckets,
                divisor: divisor,
                requests: drawn,
                sizes: table ?? fallback,
                seed: options.seed
            )
        }
        return Workload(
            zipf: Int(options.keys),
            exponent: zipf ?? 1,
            onceShare: onceShare,
            requests: drawn,
            sizes: table ?? fallback,
            seed: options.seed
        )
    }
}
