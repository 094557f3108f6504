import ArgumentParser
import ClusterCore
import Glibc
import LoadGenerator

/// What all loads have in common.
struct LoadOptions: ParsableArguments {
    @Option(name: .customLong("server"), help: "Address of a server, HOST:PORT; once for each. Connections are spread.")
    var servers: [String] = ["127.0.0.1:11211"]

    @Option(help: "Connections of all threads together.")
    var connections = 50

    @Option(help: "Commands in flight on a connection: sent together, and the next when all are answered.")
    var depth = 1

    @Option(help: "Threads of the generator.")
    var threads = 1

    @Option(help: "text (get, set) or meta (mg, ms).")
    var wire = "text"

    @Option(help: "Number of keys.")
    var keys: UInt64 = 100_000

    @Option(help: "Length of a key in bytes.")
    var keySize = 20

    @Option(help: "Length of a value: 100, 10..100 (evenly), lognormal:MEDIAN:SIGMA[:CAP].")
    var valueSize = "100"

    @Option(help: "Chooses the size of each key; another seed gives keys other sizes of the same distribution.")
    var sizeSeed: UInt64 = 1

    @Option(help: "Seed of everything else that is drawn.")
    var seed: UInt64 = 1

    @Option(name: .customLong("pid"), help: "A process of the server, whose processor time is told; once for each.")
    var processes: [Int32] = []

    @Flag(help: "Count refusals of the server (out of memory, too large) instead of ending with them.")
    var tolerateRefusals = false

    @Flag(help: "Print one JSON object instead of text.")
    var json = false

    /// The plan so far; a phase changes what is its own.
    func plan() throws -> LoadPlan {
        guard let sizes = ValueSizes(valueSize) else {
            throw ValidationError("--value-size \(valueSize) is no size and no distribution")
        }
        guard keys >= 1, keys <= KeyText.numbersMax else {
            throw ValidationError("--keys is \(keys), which is not in 1...\(KeyText.numbersMax)")
        }
        var plan = LoadPlan(sizes: SizeTable(sizes, seed: sizeSeed))
        for text in servers {
            guard let endpoint = Endpoint(text) else {
                throw ValidationError("--server \(text) is no address like 127.0.0.1:11211")
            }
            plan.servers.append(endpoint)
        }
        guard let wire = Wire(rawValue: wire) else { throw ValidationError("--wire is \(wire); it is text or meta") }
        plan.wire = wire
        plan.connections = connections
        plan.depth = depth
        plan.threads = threads
        plan.keyBytes = keySize
        plan.keys = .even(count: keys)
        plan.seed = seed
        plan.toleratesRefusals = tolerateRefusals
        return plan
    }

    /// Ends with 3 where the plan is for meta commands and a server does not speak them.
    func requireWire(_ plan: LoadPlan) throws {
        guard plan.wire == .meta else { return }
        for endpoint in plan.servers where try !MetaProbe.speaksMeta(endpoint) {
            report("\(endpoint) does not speak the meta commands")
            throw ExitCode(3)
        }
    }

    func show(_ result: LoadResult) {
        if json {
            print(result.json.text)
        } else {
            for line in result.lines { print(line) }
        }
    }
}

/// Says something on the standard error.
func report(_ text: String) {
    let line = Array("henge-load: \(text)\n".utf8)
    // Where not even that can be written there is nobody to tell.
    _ = write(STDERR_FILENO, line, line.count)
}

/// How a choice of keys is given.
struct ChoiceOptions: ParsableArguments {
    @Option(help: "Draw keys by Zipf's law with this exponent instead of evenly.")
    var zipf: Double?

    func choice(keys: UInt64) throws -> KeyChoice {
        guard let zipf else { return .even(count: keys) }
        guard zipf >= 0, zipf <= 10 else { throw ValidationError("--zipf is \(zipf), which is not in 0...10") }
        return .weighted(.zipf(count: Int(keys), exponent: zipf))
    }
}

/// Seconds as they are given, in nanoseconds.
func nanoseconds(_ seconds: Double, _ name: String) throws -> UInt64 {
    guard seconds >= 0, seconds <= 1e6 else {
        throw ValidationError("\(name) is \(seconds) s, which is not in 0...1000000")
    }
    return UInt64(seconds * 1e9)
}

/// Parses a time to live as it is given.
func timeToLive(_ text: String?) throws -> TimeToLive? {
    guard let text else { return nil }
    guard let parsed = TimeToLive(text) else {
        throw ValidationError("--ttl \(text) is not like 30, 10..60, or 5=0.5,60=0.5 (seconds, weights)")
    }
    return parsed
}
