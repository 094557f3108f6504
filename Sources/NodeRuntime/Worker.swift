import CacheNode
import ClusterCore
import Membership
import PeerProtocol
import Reactor
import Replication
import Synchronization

/// A worker thread: an event loop with its share of the clients, one link to every member, and the data plane.
final class Worker: LinkOwner {
    /// A turn that took longer than this while the lease ran out was a pause; its answers are not sent.
    static let pauseMilliseconds: UInt64 = 50

    let index: UInt16
    let loop: EventLoop
    private let shared: SharedState
    private let port: WorkerPort
    let hello: Hello
    private var plane: DataPlane
    private var outbox = Outbox()
    private var links: LinkTable { linkTable }
    private lazy var linkTable = LinkTable(owner: self)
    private var connections: [Int: ClientConnection] = [:]
    private var connectionCounter = 0
    private var touched: [ClientConnection] = []
    private var touchedSet: Set<Int> = []
    private var messages: [WorkerPort.Message] = []
    private var isDraining = false
    private var readBytes: UInt64 = 0
    private var writtenBytes: UInt64 = 0

    init(index: UInt16, loop: EventLoop, shared: SharedState, topology: Topology) {
        self.index = index
        self.loop = loop
        self.shared = shared
        port = shared.workers[Int(index)]
        let configuration = shared.configuration
        hello = Hello(
            clusterName: configuration.clusterName,
            node: configuration.own.id,
            generation: configuration.own.generation,
            lane: .data,
            worker: UInt8(truncatingIfNeeded: index)
        )
        plane = DataPlane(
            worker: index,
            shards: shared.shards,
            configuration: configuration.dataPlane,
            topology: topology
        )
        plane.statistics = RuntimeStatistics(shared: shared)
    }

    /// Runs until told to stop.
    func run() {
        loop.run { _ in self.turn() }
        for connection in Array(connections.values) { close(connection) }
        links.closeAll()
    }

    var context: Context {
        Context(
            now: loop.now,
            leaseUntil: Instant(nanoseconds: shared.leaseUntil.load(ordering: .acquiring))
        )
    }

    // MARK: - The turn

    /// After each batch of events: messages, timers, then everything that is to be sent, one call a socket.
    private func turn() -> Instant {
        let began = loop.now.instant
        port.mailbox.drain(into: &messages)
        for message in messages { take(message) }
        messages.removeAll(keepingCapacity: true)
        plane.advance(context: context, outbox: &outbox)
        links.connect(loop.now.instant)
        deliver()
        let didSleep = hasSlept(since: began)
        if didSleep { links.abandonAnswers() }
        while true {
            for session in plane.takeTouched() {
                if let connection = connections[session.token] { touch(connection) }
            }
            guard !touched.isEmpty else { break }
            let list = touched
            touched.removeAll(keepingCapacity: true)
            touchedSet.removeAll(keepingCapacity: true)
            for connection in list where !connection.isClosed {
                if didSleep {
                    connection.abandon()
                } else {
                    connection.flush(isStopping: isDraining)
                }
            }
            deliver()
        }
        links.flush()
        if readBytes > 0 || writtenBytes > 0 {
            shared.bytesRead.add(readBytes, ordering: .relaxed)
            shared.bytesWritten.add(writtenBytes, ordering: .relaxed)
            readBytes = 0
            writtenBytes = 0
            port.counters.store(plane.counters)
        }
        port.turnedAt.store(loop.now.instant.nanoseconds, ordering: .relaxed)
        return min(plane.nextDeadline, links.nextDeadline)
    }

    /// Whether this thread stood still in this turn for so long that the lease under which it answered has ended: what
    /// it read may be outdated, and is not sent.
    private func hasSlept(since began: Instant) -> Bool {
        guard !touched.isEmpty || !plane.touched.isEmpty || links.hasOutput else { return false }
        let until = Instant(nanoseconds: shared.leaseUntil.load(ordering: .acquiring))
        guard until != .distantFuture else { return false }
        let now = loop.readClock().instant
        guard now.milliseconds(since: began) >= Self.pauseMilliseconds, now >= until else { return false }
        shared.staleTurns.add(1, ordering: .relaxed)
        return true
    }

    private func take(_ message: WorkerPort.Message) {
        switch message {
        case .client(let descriptor): open(descriptor)
        case .link(let descriptor, let peer, let bytes): links.accept(descriptor, peer: peer, bytes: bytes)
        case .topology(let topology):
            plane.adopt(topology, context: context, outbox: &outbox)
            links.adopt(topology)
        case .complete(let completions):
            for completion in completions {
                plane.complete(
                    Outbox.Completion(origin: completion.origin, reply: completion.reply),
                    context: context,
                    outbox: &outbox
                )
            }
        case .resetCounters: plane.resetCounters()
        case .drainClients:
            isDraining = true
            for connection in connections.values { touch(connection) }
        case .stop: loop.stop()
        }
    }

    /// Carries out what the data plane and the shards want done.
    private func deliver() {
        while !outbox.isEmpty {
            links.send(outbox)
            let completions = outbox.completions
            let signals = outbox.signals
            outbox.removeAll()
            if !signals.isEmpty { shared.control.post(.signals(signals)) }
            for completion in completions where completion.origin.worker == index {
                plane.complete(completion, context: context, outbox: &outbox)
            }
            post(completions, from: index, to: shared)
        }
    }

    // MARK: - Links

    func receive(
        _ kind: Frame.Kind,
        _ body: UnsafeRawBufferPointer,
        from peer: PeerNumber,
        link: UInt32
    ) throws(MalformedBytes) {
        switch kind {
        case .request: plane.receive(try RequestFrame(body), link: link, context: context, outbox: &outbox)
        case .response: plane.receive(try ResponseFrame(body), from: peer, context: context, outbox: &outbox)
        default:
            let isTaken = try shared.shards.receive(
                kind,
                body,
                from: peer,
                link: link,
                context: context,
                outbox: &outbox
            )
            if !isTaken { throw MalformedBytes() }
        }
    }

    func linkChanged(to peer: PeerNumber, isUp: Bool) {
        if isUp {
            plane.connected(to: peer, context: context, outbox: &outbox)
        } else {
            plane.disconnected(from: peer, context: context, outbox: &outbox)
        }
        shared.control.post(
            .connection(peer: peer, worker: UInt8(truncatingIfNeeded: index), isUp: isUp)
        )
    }

    // MARK: - Clients

    private func open(_ descriptor: Int32) {
        guard !isDraining else {
            Socket.close(descriptor)
            shared.connections.subtract(1, ordering: .relaxed)
            return
        }
        connectionCounter += 1
        let session = ClientSession(token: connectionCounter, itemBytesMax: shared.configuration.itemBytesMax)
        let connection = ClientConnection(descriptor: descriptor, session: session, worker: self)
        do throws(SystemError) {
            try Socket.setNoDelay(descriptor)
            try Socket.setKeepAlive(descriptor)
            connection.registration = try loop.add(descriptor, interest: .readable, handler: connection)
            connections[connectionCounter] = connection
        } catch {
            Socket.close(descriptor)
            shared.connections.subtract(1, ordering: .relaxed)
        }
    }

    func receive(_ bytes: UnsafeRawBufferPointer, _ session: ClientSession) -> Int {
        plane.receive(bytes, session: session, context: context, outbox: &outbox)
    }

    func touch(_ connection: ClientConnection) {
        guard touchedSet.insert(connection.session.token).inserted else { return }
        touched.append(connection)
    }

    func close(_ connection: ClientConnection) {
        guard !connection.isClosed else { return }
        connection.close()
        connections[connection.session.token] = nil
        shared.connections.subtract(1, ordering: .relaxed)
    }

    func countRead(_ count: Int) { readBytes &+= UInt64(count) }
    func countWritten(_ count: Int) { writtenBytes &+= UInt64(count) }
}

/// Answers that belong to other workers go to their mailboxes.
func post(_ completions: [Outbox.Completion], from own: UInt16, to shared: SharedState) {
    guard completions.contains(where: { $0.origin.worker != own }) else { return }
    for (index, worker) in shared.workers.enumerated() where index != Int(own) {
        let theirs = completions.filter { Int($0.origin.worker) == index }
        guard !theirs.isEmpty else { continue }
        worker.post(.complete(theirs.map { CompletionMessage(origin: $0.origin, reply: $0.reply) }))
    }
}
