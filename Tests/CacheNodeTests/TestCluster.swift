import CacheStore
import ClusterCore
import PeerProtocol
import Replication
import Testing

@testable import CacheNode

/// What became of a request, with bytes of its own.
enum Result: Equatable {
    case done(ReplyStatus, [UInt8])
    case pending
    case elsewhere(PeerNumber)
    case busy
}

/// Keys of one slice, found by trying.
enum Keys {
    /// The slice that most tests are about.
    static let slice = Slice.index(of: KeyHash.hash(Array("key0".utf8)))

    /// Keys in `slice`.
    static let all: [[UInt8]] = {
        var found: [[UInt8]] = []
        var number = 0
        while found.count < 12 {
            let key = Array("key\(number)".utf8)
            if Slice.index(of: KeyHash.hash(key)) == slice { found.append(key) }
            number += 1
        }
        return found
    }()
}

/// One shard of a node that talks to others through bytes.
final class TestNode {
    let number: PeerNumber
    let reference: MemberReference
    let shards: ShardTable
    var outbox = Outbox()
    var completions: [Outbox.Completion] = []
    var signals: [Outbox.Signal] = []

    init(_ number: UInt32, configuration: ReplicationConfiguration, memoryBytes: Int) {
        self.number = PeerNumber(number)
        reference = MemberReference(id: NodeID(high: 0, low: UInt64(number)), generation: 1)
        shards = ShardTable(
            count: 1,
            store: StoreConfiguration(memoryBytes: memoryBytes),
            configuration: configuration,
            locks: nil
        )
    }
}

/// A few shards and the frames between them, which the test delivers as it likes.
final class TestCluster {
    struct Message {
        var from: Int
        var to: Int
        var bytes: [UInt8]

        var kind: Frame.Kind? { Frame.Kind(rawValue: bytes[4]) }
        /// The entry in the frame, by kind and number.
        var entry: (kind: EntryFrame.Kind, sequence: UInt64)? {
            guard kind == .entry else { return nil }
            return bytes.withUnsafeBytes { raw in
                let body = UnsafeRawBufferPointer(rebasing: raw[Frame.headerBytes...])
                guard let entry = try? EntryFrame(body) else { return nil }
                return (entry.kind, entry.sequence)
            }
        }
    }

    var nodes: [TestNode] = []
    /// Frames under way, in the order in which they were sent.
    var network: [Message] = []
    var now = Now(instant: Instant(nanoseconds: 1 << 40), unixMilliseconds: 1_800_000_000_000)
    var leaseUntil = Instant.distantFuture
    let slice = Keys.slice
    private var topologyVersion: UInt64 = 0
    private var requests: UInt64 = 0

    init(
        _ count: Int,
        configuration: ReplicationConfiguration = ReplicationConfiguration(),
        memoryBytes: Int = 16 * 1024 * 1024
    ) {
        nodes = (0..<count).map {
            TestNode(UInt32($0 + 1), configuration: configuration, memoryBytes: memoryBytes)
        }
        for node in nodes {
            for other in nodes where other !== node { setPeer(node, other, isReachable: true) }
        }
    }

    /// `count` nodes; the first holds the slice in epoch 1, the others are in-sync copies.
    static func inSync(
        _ count: Int,
        configuration: ReplicationConfiguration = ReplicationConfiguration()
    ) throws -> TestCluster {
        let cluster = TestCluster(count, configuration: configuration)
        cluster.startEmpty(0, epoch: 1)
        cluster.walk(0, wanted: Array(0..<count))
        try cluster.run()
        for index in 1..<count { try #require(cluster.isInSync(index), "node \(index)") }
        return cluster
    }

    var context: Context { Context(now: now, leaseUntil: leaseUntil) }

    func pass(_ milliseconds: UInt64) {
        now.instant = now.instant.advanced(byMilliseconds: milliseconds)
        now.unixMilliseconds += milliseconds
    }

    func setPeer(_ node: TestNode, _ other: TestNode, isReachable: Bool) {
        node.shards.withShard(0) {
            $0.setPeer(other.number, reference: other.reference, session: 1, isReachable: isReachable)
        }
    }

    /// Changes a shard; what it sends is under way then.
    @discardableResult
    func change<Value>(_ index: Int, _ body: (inout ShardPlane, inout Outbox) -> Value) -> Value {
        let node = nodes[index]
        let value = node.shards.withShard(0) { body(&$0, &node.outbox) }
        collect(index)
        return value
    }

    func look<Value>(_ index: Int, _ body: (borrowing ShardPlane) -> Value) -> Value {
        nodes[index].shards.withShard(0) { body($0) }
    }

    private func collect(_ index: Int) {
        let node = nodes[index]
        for send in node.outbox.sends {
            let target: UInt32 =
                switch send.target {
                case .peer(let peer): peer.value
                case .link(let link): link
                }
            let bytes = Array(node.outbox.bytes.bytes[send.start..<send.end])
            network.append(Message(from: index, to: Int(target) - 1, bytes: bytes))
        }
        node.completions += node.outbox.completions
        node.signals += node.outbox.signals
        node.outbox.removeAll()
    }

    // MARK: - Delivery

    func deliver(_ message: Message) throws {
        let node = nodes[message.to]
        let peer = nodes[message.from].number
        try message.bytes.withUnsafeBytes { raw in
            let (kind, body, consumed) = try #require(try Frame.next(in: raw))
            #expect(consumed == raw.count)
            let isTaken = try node.shards.receive(
                kind,
                body,
                from: peer,
                link: peer.value,
                context: context,
                outbox: &node.outbox
            )
            if isTaken { return }
            let control = try #require(try ControlMessage(kind, body))
            node.shards.withShard(0) {
                $0.receive(control, from: peer, context: context, outbox: &node.outbox)
            }
        }
        collect(message.to)
    }

    /// Delivers everything, and what follows from it.
    func run() throws {
        var count = 0
        while !network.isEmpty {
            // What follows comes behind everything that is under way.
            let list = network
            network = []
            for message in list { try deliver(message) }
            count += list.count
            try #require(count < 100_000, "the nodes talk for ever")
        }
    }

    /// Takes what is under way to a node, undelivered.
    func take(to index: Int) -> [Message] {
        let taken = network.filter { $0.to == index }
        network.removeAll { $0.to == index }
        return taken
    }

    // MARK: - Steps

    func startEmpty(_ index: Int, epoch: UInt32, slice: Int = Keys.slice) {
        let entry = SliceEpoch(slice: slice, epoch: epoch)
        change(index) { $0.startEmpty(entry, context: context, outbox: &$1) }
    }

    func topology(_ own: Int, wanted: [Int]) -> Topology {
        topologyVersion += 1
        return Topology(
            version: topologyVersion,
            own: nodes[own].number,
            ringHash: 1,
            peers: nodes.map {
                Topology.Peer(
                    number: $0.number,
                    reference: $0.reference,
                    name: "n",
                    cluster: Endpoint(.v4(1), port: 1)
                )
            },
            holders: Array(repeating: .none, count: Slice.count),
            epochs: Array(repeating: 0, count: Slice.count),
            copies: wanted.count,
            wanted: (0..<Slice.count).flatMap { _ in wanted.map { nodes[$0].number } }
        )
    }

    /// One walk of a node towards a ring in which the slice's owners are `wanted`. No more slices than `most` begin to
    /// be learned.
    func walk(_ index: Int, wanted: [Int], most: Int = 100) {
        let topology = topology(index, wanted: wanted)
        change(index) {
            var budget = most
            $0.ringChanged()
            $0.walk(topology: topology, budget: &budget, context: context, outbox: &$1)
        }
    }

    /// Walks until nothing is under way.
    func settle(_ index: Int, wanted: [Int]) throws {
        for _ in 0..<5 {
            walk(index, wanted: wanted)
            try run()
        }
    }

    @discardableResult
    func advance(_ index: Int) -> Set<PeerNumber> {
        change(index) {
            var lateness = ShardPlane.Lateness()
            $0.advance(context: context, writeDeadlineMilliseconds: 100, lateness: &lateness, outbox: &$1)
            return lateness.late
        }
    }

    @discardableResult
    func request(
        _ index: Int,
        _ verb: RequestFrame.Verb,
        _ key: [UInt8],
        _ value: String = "",
        exptime: Int64 = 0,
        delta: UInt64 = 0
    ) -> Result {
        requests += 1
        let origin = Origin(worker: 0, link: 0, id: requests)
        return key.withUnsafeBytes { key in
            Array(value.utf8).withUnsafeBytes { value in
                let frame = RequestFrame(
                    id: requests,
                    ringHash: 0,
                    epoch: 0,
                    verb: verb,
                    exptime: exptime,
                    unique: verb == .flush ? UInt64(slice) : 0,
                    delta: delta,
                    key: key,
                    value: value
                )
                return change(index) {
                    let execution = $0.execute(
                        frame,
                        hash: KeyHash.hash(key),
                        origin: origin,
                        context: context,
                        outbox: &$1
                    )
                    switch execution {
                    case .done(let outcome): return .done(outcome.status, Reply(outcome).value)
                    case .pending: return .pending
                    case .elsewhere(let peer): return .elsewhere(peer)
                    case .busy: return .busy
                    case .flushed: return .done(.flushed, [])
                    }
                }
            }
        }
    }

    // MARK: - Looking

    /// What a node's store has of the slice: key and value, by version; tombstones are left out.
    func content(_ index: Int) -> [String: String] {
        look(index) { shard in
            var content: [String: String] = [:]
            var cursor: UInt64? = 0
            while let position = cursor {
                cursor = shard.store.scan(slice: slice, from: position, now: now) { item in
                    if !item.isTombstone {
                        content[String(decoding: item.key, as: UTF8.self)] =
                            "\(String(decoding: item.value.array, as: UTF8.self))@\(item.version)"
                    }
                    return true
                }
            }
            return content
        }
    }

    /// Puts an item into a node's store behind the protocol's back: a base from an earlier time.
    func plant(_ index: Int, _ key: [UInt8], _ value: String, version: UInt64) {
        key.withUnsafeBytes { key in
            Array(value.utf8).withUnsafeBytes { value in
                let item = ItemView(
                    key: key,
                    value: value,
                    version: version,
                    unique: version,
                    hash: KeyHash.hash(key)
                )
                let isStored = change(index) { shard, _ in shard.store.put(item, now: now) }
                #expect(isStored)
            }
        }
    }

    func isInSync(_ index: Int) -> Bool {
        look(index) { $0.isSettledHere(slice, asHolder: false) && $0.heldEpoch(slice) == nil }
    }

    func epoch(_ index: Int) -> UInt32? { look(index) { $0.heldEpoch(slice) } }

    /// Statuses of the answers that a node gave so far to requests that waited.
    func answers(_ index: Int) -> [ReplyStatus] { nodes[index].completions.map(\.reply.status) }
}
