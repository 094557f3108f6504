import CacheStore
import ClusterCore
import PeerProtocol
import Replication
import Testing

@testable import CacheNode

/// One worker of a node with all its shards, and clients as bytes.
final class TestWorker {
    static let own = PeerNumber(1)

    let shards: ShardTable
    var plane: DataPlane
    var outbox = Outbox()
    var now = Now(instant: Instant(nanoseconds: 1 << 40), unixMilliseconds: 1_800_000_000_000)
    private var version: UInt64 = 1
    private var holders: [PeerNumber]

    /// A node that serves every slice, `others` excepted, which other nodes hold.
    init(others: [Int: PeerNumber] = [:], configuration: DataPlaneConfiguration = DataPlaneConfiguration()) {
        let shards = ShardTable(
            count: 2,
            store: StoreConfiguration(memoryBytes: 32 * 1024 * 1024),
            configuration: ReplicationConfiguration(),
            locks: nil
        )
        holders = (0..<Slice.count).map { others[$0] ?? Self.own }
        self.shards = shards
        plane = DataPlane(
            worker: 0,
            shards: shards,
            configuration: configuration,
            topology: Self.topology(1, holders)
        )
        for slice in 0..<Slice.count where holders[slice] == Self.own { serve(slice) }
    }

    static func reference(_ peer: PeerNumber) -> MemberReference {
        MemberReference(id: NodeID(high: 0, low: UInt64(peer.value)), generation: 1)
    }

    private static func topology(_ version: UInt64, _ holders: [PeerNumber]) -> Topology {
        Topology(
            version: version,
            own: own,
            ringHash: 77,
            peers: (1...4 as ClosedRange<UInt32>).map {
                Topology.Peer(
                    number: PeerNumber($0),
                    reference: reference(PeerNumber($0)),
                    name: "n\($0)",
                    cluster: Endpoint(.v4($0), port: 1)
                )
            },
            holders: holders,
            epochs: Array(repeating: 9, count: Slice.count),
            copies: 1,
            wanted: Array(repeating: own, count: Slice.count)
        )
    }

    var context: Context { Context(now: now, leaseUntil: .distantFuture) }

    func pass(_ milliseconds: UInt64) {
        now.instant = now.instant.advanced(byMilliseconds: milliseconds)
        now.unixMilliseconds += milliseconds
        plane.advance(context: context, outbox: &outbox)
    }

    /// This node serves the slice from now on, with nothing in it.
    func serve(_ slice: Int) {
        shards.withShard(shards.index(of: slice)) {
            $0.startEmpty(SliceEpoch(slice: slice, epoch: 9), context: context, outbox: &outbox)
        }
    }

    /// The topology says who holds a slice now.
    func publish(_ slice: Int, _ holder: PeerNumber) {
        holders[slice] = holder
        version += 1
        plane.adopt(Self.topology(version, holders), context: context, outbox: &outbox)
    }

    func connect(_ peer: UInt32) {
        plane.connected(to: PeerNumber(peer), context: context, outbox: &outbox)
    }

    func disconnect(_ peer: UInt32) {
        plane.disconnected(from: PeerNumber(peer), context: context, outbox: &outbox)
    }

    /// A request that was sent to another node.
    struct Forwarded: Equatable {
        var peer: PeerNumber
        var id: UInt64
        var verb: RequestFrame.Verb
        var key: String
    }

    /// Takes the requests that were sent to other nodes, in that epoch.
    func takeForwarded(epoch: UInt32 = 9) throws -> [Forwarded] {
        var found: [Forwarded] = []
        for send in outbox.sends {
            guard case .peer(let peer) = send.target else { continue }
            let raw = UnsafeRawBufferPointer(rebasing: outbox.bytes.bytes[send.start..<send.end])
            let (kind, body, _) = try #require(try Frame.next(in: raw))
            #expect(kind == .request)
            let frame = try RequestFrame(body)
            #expect(frame.ringHash == 77)
            #expect(frame.epoch == epoch)
            found.append(
                Forwarded(peer: peer, id: frame.id, verb: frame.verb, key: String(decoding: frame.key, as: UTF8.self))
            )
        }
        outbox.removeAll()
        return found
    }

    /// Another node answers.
    func respond(
        _ request: Forwarded,
        _ status: ReplyStatus,
        _ value: [UInt8] = [],
        number: UInt64 = 0,
        from peer: PeerNumber? = nil
    ) {
        value.withUnsafeBytes {
            plane.receive(
                ResponseFrame(id: request.id, status: status, number: number, value: $0),
                from: peer ?? request.peer,
                context: context,
                outbox: &outbox
            )
        }
    }

    /// Says that the asked node does not hold the slice, and who does.
    func respondNotHolder(_ request: Forwarded, named peer: PeerNumber?) {
        var name = ByteBuffer()
        if let peer { name.append(Self.reference(peer)) }
        respond(request, .notHolder, name.array(), number: 9)
    }
}

/// A client of a worker.
final class TestClient {
    let worker: TestWorker
    let session: ClientSession
    private var input: [UInt8] = []

    init(_ worker: TestWorker) {
        self.worker = worker
        session = ClientSession(token: 0, itemBytesMax: worker.plane.configuration.itemBytesMax)
    }

    /// How many bytes the session has not taken.
    var untaken: Int { input.count }

    /// Sends bytes; what the session does not take is kept for the next time.
    func send(_ bytes: some Sequence<UInt8>) {
        input += bytes
        pump()
    }

    func send(_ text: String) { send(Array(text.utf8)) }

    /// Lets the session take what it would not take before, as the shell does for sessions that were touched.
    func pump() {
        for _ in 0..<1000 {
            let before = session.output.unsentBytes
            let consumed = input.withUnsafeBytes {
                worker.plane.receive($0, session: session, context: worker.context, outbox: &worker.outbox)
            }
            input.removeFirst(consumed)
            let isResumed = worker.plane.takeTouched().contains { $0 === session && $0.wantsResume }
            // A long multi-get is answered in part, and taken when it is answered whole.
            let hasMoved = consumed > 0 || session.output.unsentBytes > before
            guard isResumed || (session.wantsResume && hasMoved), !input.isEmpty else { return }
        }
        Issue.record("a session that never ends")
    }

    /// Takes what the session has to say.
    func take() -> String {
        let text = String(decoding: session.output.array(), as: UTF8.self)
        session.output.removeAll()
        return text
    }

    func ask(_ text: String) -> String {
        send(text)
        return take()
    }
}
