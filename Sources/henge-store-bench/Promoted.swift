import ArgumentParser
import LoadGenerator

/// What a copy could serve of its holder's hits, were it promoted.
struct Promoted: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Replays a recorded sequence on a holder and its copy: which of the holder's hits the copy has too.",
        discussion: """
            Get, and on a miss set, by the code of a node with all frames between the two, from the holder's first
            eviction on. Once as it is, once with the access hints lost on their way.
            """
    )

    @Option(help: "File of 4-byte little-endian key numbers in the order of their requests.")
    var trace: String

    @Option(help: "File of 4-byte little-endian value sizes: the i-th is that of the i-th smallest key number.")
    var sizes: String

    @Option(help: "Memory of each of the two, in MiB.")
    var memoryMib = 32

    @Option(help: "Shards of each of the two, a power of two; a node with one worker has four from 64 MiB on.")
    var shards = 2

    @Option(help: "Requests in a second of the nodes' clock, which turns every 10 ms: hints lag by that much.")
    var rate = 100_000

    @Option(help: "The most of the sequence that is replayed.")
    var requests: Int?

    @Flag(help: "Print one JSON object instead of text.")
    var json = false

    func validate() throws {
        guard (1...16_384).contains(memoryMib), (1...256).contains(shards), shards & (shards - 1) == 0,
            memoryMib / shards >= 1, (100...100_000_000).contains(rate), (requests ?? 1) >= 1
        else {
            throw ValidationError("--memory-mib from 1 and at least --shards, a power of two; --rate from 100")
        }
    }

    func run() throws {
        let workload = try Workload(
            trace: trace,
            sizes: sizes,
            otherwise: SizeTable(.fixed(100), seed: 1)
        )
        var object = JSONObject()
        object.put("memory_mib", UInt64(memoryMib))
        object.put("rate", UInt64(rate))
        for (name, hasHints) in [("hints", true), ("no_hints", false)] {
            var pair = HolderAndCopy(
                memoryBytes: memoryMib << 20,
                shards: shards,
                requestsPerTurn: rate / 100,
                hasHints: hasHints
            )
            let result = pair.replay(workload, most: requests ?? workload.trace.count)
            var row = JSONObject()
            row.put("requests", result.requests)
            row.put("hits", result.hits)
            row.put("both", result.both)
            row.put("share", result.share)
            row.put("least_share", result.leastShare)
            row.put("accesses_sent", result.accessesSent)
            row.put("accesses_dropped", result.accessesDropped)
            object.put(name, row)
            guard !json else { continue }
            let title = hasHints ? "with hints" : "without hints"
            let told = Double(result.accessesSent) / Double(max(1, result.requests))
            print(
                "\(title): of \(result.hits) hits of the holder the copy has \(LoadResult.short(result.share)),"
                    + " \(LoadResult.short(result.leastShare)) in the worst tenth;"
                    + " \(LoadResult.short(told)) hashes told a request"
            )
        }
        if json { print(object.text) }
    }
}
