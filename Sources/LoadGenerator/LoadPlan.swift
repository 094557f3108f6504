package import ClusterCore

// A load generator for memcache servers that costs less than what it measures.
//
// Problem. A cache answers a request in one to ten microseconds, nearly all of them in the kernel. Most generators cost
// more than that, so that they are what is measured; they do not pipeline; and their latency comes from a closed loop,
// which waits while the server pauses and so never sees the pause.
//
// The simple idea, a task or a thread a connection and a client library, fails at the first: a request costs it
// allocations, strings and switches of threads.
//
// The idea used. One thread, one epoll, raw memory. A batch of requests is written into one buffer and leaves in one
// send; replies are read where they arrive, checked and counted, and nothing of them is kept. Keys, sizes and the
// values' heads are functions of a key's number, so that every reply can be checked without a copy of what was stored.
// The open loop has its schedule fixed in advance and counts latency from when a request was due, not from when it was
// sent (Gil Tene, "How NOT to measure latency"). What the generator itself costs is printed beside every result.

/// How a server is spoken to.
package enum Wire: String, Sendable, CaseIterable {
    /// `get`, `set`.
    case text
    /// `mg`, `ms`.
    case meta
}

/// What one phase of a load does.
package struct LoadPlan: Sendable {
    /// The servers; connections are dealt out to them in turn.
    package var servers: [Endpoint] = []
    /// Connections of all threads together.
    package var connections = 50
    /// Commands in flight on a connection: that many leave in one send, and the next when all are answered.
    package var depth = 1
    /// Threads, each with its share of the connections.
    package var threads = 1
    package var wire = Wire.text
    package var keyBytes = 20
    package var keys = KeyChoice.even(count: 100_000)
    package var sizes: SizeTable
    /// The share of gets among the commands, 0 to 1; the others are sets.
    package var getShare = 1.0
    /// Keys of a get.
    package var keysPerGet = 1
    /// Whether a missed key is set at once.
    package var isLookAside = false
    /// How long what is set lives; nil is for ever.
    package var timeToLive: TimeToLive?
    /// When to stop, in nanoseconds after the start; nil only where something else ends it.
    package var durationNanoseconds: UInt64?
    /// After how many commands to stop; nil only where something else ends it.
    package var commandsMax: UInt64?
    /// Requests a second of an open loop; nil is a closed loop.
    package var ratePerSecond: Double?
    package var seed: UInt64 = 1
    /// Whether a refusal (`SERVER_ERROR out of memory` for instance) is only counted and ends nothing.
    package var toleratesRefusals = false

    /// Commands that an open loop has in flight on a connection at most; what is due beyond waits, and its time runs.
    package static let openDepthMax = 4096
    /// How long a reply may take before the run fails.
    package static let silenceNanosecondsMax: UInt64 = 20_000_000_000
    /// What one send of a connection may hold at most, in bytes.
    package static let batchBytesMax = 512 << 20

    package init(sizes: SizeTable) {
        self.sizes = sizes
    }

    /// Names the first setting that cannot be, or the two that contradict each other; nil where all is well.
    package func fault() -> String? {
        if servers.isEmpty { return "no server to ask" }
        if connections < 1 || connections > 10_000 { return "connections is \(connections), which is not in 1...10000" }
        if threads < 1 || threads > connections { return "threads is \(threads), which is not in 1...connections" }
        if depth < 1 || depth > 1024 { return "depth is \(depth), which is not in 1...1024" }
        if keysPerGet < 1 || keysPerGet > 1000 { return "keys per get is \(keysPerGet), which is not in 1...1000" }
        if keysPerGet > 1, wire == .meta { return "a meta get has one key, and keys per get is \(keysPerGet)" }
        if keyBytes < KeyText.bytesMin || keyBytes > KeyText.bytesMax {
            return "the key size is \(keyBytes), which is not in \(KeyText.bytesMin)...\(KeyText.bytesMax)"
        }
        if !(0...1).contains(getShare) { return "the share of gets is \(getShare), which is not in 0...1" }
        if let rate = ratePerSecond, !(rate > 0) { return "the rate is \(rate), which is not above 0" }
        if case .trace = keys, connections > 1 { return "a trace is replayed in order, so over one connection" }
        return nil
    }
}

/// Why a load could not be run to its end.
package struct LoadError: Error, CustomStringConvertible {
    /// What was attempted, what went wrong, and what to do where that is known.
    package var message: String

    package init(_ message: String) {
        self.message = message
    }

    package var description: String { message }
}

/// What one phase of a load did. Threads add up.
package struct LoadCounts: Sendable, Equatable {
    /// Commands that were answered.
    package var commands: UInt64 = 0
    /// Keys that gets asked for.
    package var gets: UInt64 = 0
    package var hits: UInt64 = 0
    package var misses: UInt64 = 0
    /// Sets that were answered with `STORED`.
    package var sets: UInt64 = 0
    /// Commands that were answered with an error.
    package var refusals: UInt64 = 0
    /// Bytes of the values that were stored.
    package var storedBytes: UInt64 = 0
    /// Bytes received and sent.
    package var receivedBytes: UInt64 = 0
    package var sentBytes: UInt64 = 0

    package init() {}

    package mutating func add(_ other: LoadCounts) {
        commands += other.commands
        gets += other.gets
        hits += other.hits
        misses += other.misses
        sets += other.sets
        refusals += other.refusals
        storedBytes += other.storedBytes
        receivedBytes += other.receivedBytes
        sentBytes += other.sentBytes
    }
}
