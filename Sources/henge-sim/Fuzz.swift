import ArgumentParser
import ClusterCore
import Glibc
import MembershipSimulation
import PeerProtocol
import Simulation

/// Spoiled datagrams and frames for the decoders, and for members.
struct Fuzz: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Feeds decoders and members with spoiled bytes of simulated clusters: nothing may crash or grow."
    )

    @Option(help: "How long, in seconds.")
    var seconds = 10

    @Option(help: "Seed of what is drawn.")
    var seed: UInt64 = 1

    /// By how much resident memory may rise after a tenth of the time, in KiB: what the allocator keeps back.
    private static let growthMax = 32 * 1024

    func validate() throws {
        guard (1...1_000_000).contains(seconds) else { throw ValidationError("--seconds takes 1 to 1000000") }
    }

    func run() throws {
        var random = Xoshiro256(seed: seed)
        var gossip = GossipFuzzer(seed: seed)
        var samples: [[UInt8]] = []
        for name in ["crash and restart at once", "drain"] {
            guard let scenario = Scenario.all.first(where: { $0.name == name }) else {
                throw ValidationError("no story is called '\(name)'")
            }
            samples += scenario.run(seed: seed, samplesPerKind: 16).samples
        }
        var frames = FrameFuzzer(samples: samples)
        let guarded = GuardedBytes(capacity: 1 << 20)
        print("seed \(seed), \(seconds) s, from \(samples.count) frames of \(frames.kinds) kinds")
        fflush(nil)
        let clock = ContinuousClock()
        let began = clock.now
        let end = began.advanced(by: .seconds(seconds))
        let warm = began.advanced(by: .milliseconds(seconds * 100))
        var residentWhenWarm: Int?
        while clock.now < end, gossip.failure == nil {
            for _ in 0..<200 {
                guarded.with(gossip.draw()) { gossip.take($0) }
                guarded.with(frames.draw(using: &random)) { frames.take($0) }
            }
            if residentWhenWarm == nil, clock.now >= warm { residentWhenWarm = try residentKibibytes() }
        }
        let resident = try residentKibibytes()
        let growth = resident - (residentWhenWarm ?? resident)
        let counts = gossip.counts
        print(
            "gossip: \(counts.datagrams) datagrams, \(counts.decoded) of them decoded, \(counts.exchanges) exchanges,"
                + " \(counts.clusters) clusters, \(counts.stops) stops, \(counts.recordsMax) records at most"
        )
        print("frames: \(frames.byteStrings) byte strings, \(frames.found) frames, \(frames.decoded) of them decoded")
        print("resident memory: \(resident) KiB, \(growth) KiB more than after a tenth of the time")
        var failures: [String] = []
        if let failure = gossip.failure { failures.append(failure) }
        if growth > Self.growthMax {
            failures.append("memory has grown by \(growth) KiB, \(Self.growthMax) are allowed")
        }
        for failure in failures { print("FAIL \(failure)") }
        print("\(failures.isEmpty ? 1 : 0) passed, \(failures.isEmpty ? 0 : 1) failed")
        if !failures.isEmpty { throw ExitCode.failure }
    }

    /// The process's resident memory, as the kernel counts it.
    private func residentKibibytes() throws -> Int {
        guard let file = fopen("/proc/self/statm", "r") else {
            throw ValidationError("/proc/self/statm: errno \(errno)")
        }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        guard fgets(&line, Int32(line.count), file) != nil else { throw ValidationError("/proc/self/statm is empty") }
        let fields = line.prefix { $0 != 0 }.split(separator: CChar(UInt8(ascii: " ")))
        let text = fields.count > 1 ? String(decoding: fields[1].map { UInt8(bitPattern: $0) }, as: UTF8.self) : ""
        guard let pages = Int(text) else { throw ValidationError("/proc/self/statm has no resident size") }
        return pages * Int(getpagesize()) / 1024
    }
}

/// Spoiled frames for all decoders of frames.
private struct FrameFuzzer {
    private(set) var byteStrings: UInt64 = 0
    private(set) var found: UInt64 = 0
    private(set) var decoded: UInt64 = 0
    /// How many kinds of frames it starts from.
    let kinds: Int
    private let mutator: ByteMutator

    init(samples: [[UInt8]]) {
        kinds = Set(samples.map { $0[Frame.headerBytes - 1] }).count
        mutator = ByteMutator(corpus: samples, bytesMax: 1 << 20)
    }

    func draw(using random: inout Xoshiro256) -> [UInt8] {
        var bytes = mutator.next(using: &random)
        // With the right length in front, more of it is a frame.
        if bytes.count > Frame.headerBytes, Int.random(in: 0..<4, using: &random) > 0 {
            withUnsafeBytes(of: UInt32(bytes.count - 4).littleEndian) { bytes.replaceSubrange(0..<4, with: $0) }
        }
        return bytes
    }

    mutating func take(_ bytes: UnsafeRawBufferPointer) {
        byteStrings += 1
        var offset = 0
        while let (kind, body, consumed) = try? Frame.next(in: UnsafeRawBufferPointer(rebasing: bytes[offset...])) {
            offset += consumed
            found += 1
            do {
                try decode(kind, body)
                decoded += 1
            } catch {
                // A connection ends here.
                return
            }
        }
    }

    /// As those do that receive it.
    private func decode(_ kind: Frame.Kind, _ body: UnsafeRawBufferPointer) throws(MalformedBytes) {
        switch kind {
        case .hello: _ = try Hello(body)
        case .request: _ = try RequestFrame(body)
        case .response: _ = try ResponseFrame(body)
        case .acknowledgement: _ = try AcknowledgementFrame(body)
        case .accesses:
            let frame = try AccessesFrame(body)
            for index in 0..<frame.count { _ = frame[index] }
        case .entry:
            let entry = try EntryFrame(body)
            var reader = ByteReader(entry.payload)
            switch entry.kind {
            case .stored: _ = try WireItem(&reader)
            case .snapshotEnd: _ = try SliceMarks(&reader)
            default: break
            }
        case .merge:
            var reader = ByteReader(body)
            _ = try reader.slice()
            while reader.remaining > 0 { _ = try WireItem(&reader) }
        case .exchange, .exchangeReply: break
        default: _ = try ControlMessage(kind, body)
        }
    }
}
