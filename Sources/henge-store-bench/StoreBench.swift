import ArgumentParser
import CacheStore
import ClusterCore
import LoadGenerator

// The store by itself: no sockets, no protocol. What an operation costs here is what is left to win or to lose once the
// kernel has had its part; and what a copy has of its holder's items is what a takeover serves at once.

@main
struct StoreBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "henge-store-bench",
        abstract: "Measures the store in-process.",
        subcommands: [Times.self, Promoted.self],
        defaultSubcommand: Times.self
    )
}

/// Memory that holds so many items of 20-byte keys and 100-byte values without eviction, in any layout.
func roomBytes(items: UInt64) -> Int {
    Int(items) * 320 + (64 << 20)
}

/// Times the operations of a shard, and sets by two workers over one.
struct Times: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Times the operations of the store: nanoseconds of processor time an operation."
    )

    @Option(name: .customLong("items"), help: "Number of items; once for each (100000, 1000000, 10000000).")
    var counts: [UInt64] = []

    @Option(help: "How often each operation is timed; the median is told.")
    var rounds = 5

    @Option(help: "Operations each time, where their number is not that of the items.")
    var operations = 2_000_000

    @Option(help: "Seed of what is drawn.")
    var seed: UInt64 = 1

    @Flag(help: "Print one JSON object instead of text.")
    var json = false

    func validate() throws {
        guard rounds >= 1, operations >= 16, counts.allSatisfy({ (100...50_000_000).contains($0) }) else {
            throw ValidationError("--rounds from 1, --operations from 16, --items from 100 to 50000000")
        }
    }

    func run() throws {
        var rows: [JSONObject] = []
        for items in counts.isEmpty ? [100_000, 1_000_000, 10_000_000] : counts {
            for (operation, samples) in time(items: items) {
                var row = Self.summary(samples, suffix: "_ns")
                row.put("items", items)
                row.put("operation", operation)
                rows.append(row)
                if !json { print(Self.line("\(items) \(operation)", samples)) }
            }
        }
        let ratios = try scaling()
        let controls = try Control.Kind.allCases.map { kind in try (kind, control(kind)) }
        if json {
            var object = JSONObject()
            object.put("rows", rows)
            object.put("sets_two_workers_over_one", Self.summary(ratios, suffix: ""))
            for (kind, ratios) in controls {
                object.put("\(kind.rawValue)_two_threads_over_one", Self.summary(ratios, suffix: ""))
            }
            print(object.text)
        } else {
            print(Self.line("sets, two workers over one", ratios))
            for (kind, ratios) in controls {
                print(Self.line("\(kind.rawValue), two over one", ratios))
            }
        }
    }

    /// The samples of each operation, in the order of first use.
    private func time(items: UInt64) -> [(String, [Double])] {
        var samples: [(String, [Double])] = []
        func note(_ operation: String, _ value: Double) {
            if let index = samples.firstIndex(where: { $0.0 == operation }) {
                samples[index].1.append(value)
            } else {
                samples.append((operation, [value]))
            }
        }
        var usedBytes = 0
        for round in 0..<rounds {
            var store = OneShard(memoryBytes: roomBytes(items: items), seed: seed &+ UInt64(round))
            note("set", store.insert(0..<items))
            note("get", store.get(items: items, operations: operations))
            note("get-batch-16", store.getBatched(items: items, operations: operations))
            note("scan", store.scan(items: items))
            usedBytes = store.statistics.memoryUsedBytes
            note("overwrite", store.overwrite(items: items, operations: operations, isResized: false))
            note("overwrite-resized", store.overwrite(items: items, operations: operations, isResized: true))
        }
        let tight = max(usedBytes * 9 / 10, 8 << 20)
        for round in 0..<rounds {
            var store = OneShard(memoryBytes: tight, seed: seed &+ UInt64(round))
            // More than fits, until every further set evicts.
            var next: UInt64 = 0
            while store.statistics.evictions < max(1000, items / 10), next < 4 * items + 1_000_000 {
                _ = store.insert(next..<next + 10_000)
                next += 10_000
            }
            if store.statistics.evictions > 0 {
                note("set-evicting", store.insert(next..<next + UInt64(operations)))
                let seen = 0..<next
                note("longest-set", store.longestSet(of: seen, operations: operations / 4, bytesMax: 200))
                let few = min(operations / 4, 20_000)
                let large = OneShard.valueBytesMax
                note("longest-set-to-64k", store.longestSet(of: seen, operations: few, bytesMax: large))
            }
        }
        for round in 0..<rounds {
            var store = OneShard(memoryBytes: roomBytes(items: items), seed: seed &+ UInt64(round))
            _ = store.insert(0..<items, lifeSeconds: 60)
            note("expire", store.expire(items: items, lifeSeconds: 60))
        }
        return samples
    }

    /// Sets a second of two workers over those of one, in turn; each has its own store of four shards a worker.
    private func scaling() throws -> [Double] {
        let items = min(counts.max() ?? 1_000_000, 1_000_000)
        let one = ManyShards(threads: 1, items: items)
        let two = ManyShards(threads: 2, items: items)
        var ratios: [Double] = []
        for round in 0..<rounds {
            let seed = seed &+ UInt64(round) &* 16
            let single = try one.setsPerSecond(threads: 1, operations: operations, seed: seed)
            let double = try two.setsPerSecond(threads: 2, operations: operations, seed: seed)
            ratios.append(double / single)
        }
        return ratios
    }

    /// What two threads that share nothing win over one: the most that the machine had to give.
    private func control(_ kind: Control.Kind) throws -> [Double] {
        let control = Control(bytes: 256 << 20)
        var ratios: [Double] = []
        for _ in 0..<rounds {
            let single = try control.perSecond(kind, threads: 1, operations: operations)
            let double = try control.perSecond(kind, threads: 2, operations: operations)
            ratios.append(double / single)
        }
        return ratios
    }

    private static func sorted(_ samples: [Double]) -> (median: Double, least: Double, greatest: Double) {
        let ordered = samples.sorted()
        let middle = ordered.count / 2
        let median = ordered.count % 2 == 1 ? ordered[middle] : (ordered[middle - 1] + ordered[middle]) / 2
        return (median, ordered[0], ordered[ordered.count - 1])
    }

    private static func summary(_ samples: [Double], suffix: String) -> JSONObject {
        let (median, least, greatest) = sorted(samples)
        var object = JSONObject()
        object.put("median\(suffix)", median)
        object.put("least\(suffix)", least)
        object.put("greatest\(suffix)", greatest)
        return object
    }

    private static func line(_ name: String, _ samples: [Double]) -> String {
        let (median, least, greatest) = sorted(samples)
        let padding = String(repeating: " ", count: max(1, 32 - name.count))
        return name + padding + LoadResult.short(median)
            + "  (\(LoadResult.short(least))..\(LoadResult.short(greatest)))"
    }
}
