import ClusterCore
import Membership

/// Real datagrams of a cluster, spoiled, for the members of that cluster: nothing may trap, and what a member keeps stays
/// within its limits.
///
/// Nothing is sealed here, so that much of what arrives is believed: it names members that never were. Tables fill to
/// their limits, nodes are talked into stopping and start again.
package struct GossipFuzzer {
    /// What came of it so far.
    package struct Counts: Sendable {
        package var datagrams: UInt64 = 0
        /// Those that decode.
        package var decoded: UInt64 = 0
        /// Those that came as over TCP.
        package var exchanges: UInt64 = 0
        package var stops: UInt64 = 0
        package var clusters: UInt64 = 0
        package var recordsMax = 0
    }

    /// A cluster takes so many datagrams; then a fresh one does.
    private static let datagramsPerCluster: UInt64 = 20_000
    private static let recordsMax = 128

    package private(set) var counts = Counts()
    /// What is wrong, if anything.
    package private(set) var failure: String?
    private let settled: GossipSimulator
    private let mutator: ByteMutator
    /// Those of the corpus that have records aboard.
    private let tellers: [GossipDatagram]
    private var simulator: GossipSimulator
    private var random: Xoshiro256

    package init(seed: UInt64) {
        random = Xoshiro256(seed: seed)
        var configuration = MembershipConfiguration()
        configuration.recordsMax = Self.recordsMax
        configuration.tombstonesMax = 32
        // One datagram with this much is more than one state of such a cluster.
        configuration.stateDatagramsMax = 4
        simulator = GossipSimulator.cluster(5, seedCount: 3, seed: seed, configuration: configuration)
        simulator.captureInterval = 1
        simulator.capturesMax = 4096
        for _ in 0..<3 { _ = simulator.add(seeds: [GossipSimulator.seed(0)], configuration: configuration) }
        // Of these three one is another cluster's, one has other settings, one has another's name.
        simulator.edit(5) { $0.configuration.clusterName = "other" }
        simulator.edit(6) { $0.record.configurationHash = 7 }
        simulator.edit(7) { $0.record.name = "n1" }
        simulator.run(milliseconds: 3000)
        for index in 5..<8 { simulator.start(index) }
        simulator.run(milliseconds: 1000)
        for index in 5..<8 { simulator.crash(index) }
        simulator.crash(3)
        simulator.run(milliseconds: 8000)
        simulator.start(3)
        simulator.call(4) { $0.setLifecycle(.left, now: $1, effects: &$2) }
        simulator.run(milliseconds: 1000)
        simulator.crash(4)
        simulator.start(4)
        simulator.run(milliseconds: 2000)
        var corpus = simulator.captures.map(\.bytes)
        for index in 0..<5 {
            guard let request = simulator.nodes[index].membership?.exchangeRequest(now: simulator.now) else { continue }
            var answer: [UInt8] = []
            simulator.call((index + 1) % 5) { membership, now, effects in
                answer = request.withUnsafeBytes { membership.exchange(with: $0, now: now, effects: &effects) }
            }
            corpus += [request, answer]
        }
        simulator.capturesMax = 0
        mutator = ByteMutator(corpus: corpus, bytesMax: 65_535)
        tellers = corpus.compactMap { bytes in bytes.withUnsafeBytes { try? GossipDatagram(decoding: $0) } }
            .filter { !$0.entries.isEmpty }
        settled = simulator
        counts.clusters = 1
    }

    /// The next datagram; the caller puts it where one byte too far is noticed.
    package mutating func draw() -> [UInt8] {
        if counts.datagrams > 0, counts.datagrams % Self.datagramsPerCluster == 0 {
            simulator = settled
            simulator.reseed(random.next())
            counts.clusters += 1
        }
        return Int.random(in: 0..<16, using: &random) == 0 ? drawPhantom() : mutator.next(using: &random)
    }

    /// What a member of the cluster might say, about a member that never was: such records fill the tables.
    private mutating func drawPhantom() -> [UInt8] {
        guard var datagram = tellers.randomElement(using: &random) else { return [] }
        datagram.target = nil
        datagram.entries = datagram.entries.map { entry in
            guard case .record(var record, let age) = entry, Bool.random(using: &random) else { return entry }
            record.id = NodeID(using: &random)
            record.name = "phantom-\(UInt16.random(in: 0...999, using: &random))"
            record.lifecycle = Lifecycle.allCases.randomElement(using: &random) ?? .up
            record.liveness = Liveness.allCases.randomElement(using: &random) ?? .alive
            return .record(record, ageSeconds: age)
        }
        return datagram.encoded()
    }

    /// Hands it to the decoders and to a member.
    package mutating func take(_ bytes: UnsafeRawBufferPointer) {
        counts.datagrams += 1
        if let decoded = try? GossipDatagram(decoding: bytes) {
            counts.decoded += 1
            let again = decoded.encoded()
            if again.count > bytes.count || again.withUnsafeBytes({ try? GossipDatagram(decoding: $0) }) != decoded {
                failure = "datagram \(counts.datagrams) is not what it encodes to"
            }
        }
        _ = try? MemberRecord(encoded: bytes)
        let index = Int.random(in: 0..<5, using: &random)
        if simulator.nodes[index].stopReason != nil {
            counts.stops += 1
            simulator.crash(index)
            simulator.start(index, remembered: [GossipSimulator.endpoint((index + 1) % 5)])
        }
        if Int.random(in: 0..<8, using: &random) == 0 {
            counts.exchanges += 1
            simulator.call(index) { _ = $0.exchange(with: bytes, now: $1, effects: &$2) }
        } else {
            let from = GossipSimulator.endpoint(Int.random(in: 0..<8, using: &random))
            simulator.call(index) { $0.receive(bytes, from: from, now: $1, effects: &$2) }
        }
        if counts.datagrams % 16 == 0 { simulator.run(milliseconds: UInt64.random(in: 1...40, using: &random)) }
        if counts.datagrams % 64 == 0 { look() }
    }

    private mutating func look() {
        for index in 0..<5 {
            guard let node = simulator.nodes[index].membership else { continue }
            let load = node.load
            counts.recordsMax = max(counts.recordsMax, load.records)
            // The node itself is news too.
            let most = load.records + 1
            if load.records >= Self.recordsMax || load.gossipQueued > most || load.gossipPiecesMax > 4
                || load.outboxMax > most || load.probes > 64 || load.relays > 128 || load.contacts > 64
            {
                failure = "node \(index) keeps too much after \(counts.datagrams) datagrams: \(load)"
            }
        }
    }
}
