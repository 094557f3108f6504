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
    /// How often connections are looked at that are silent.
    static let sweepMilliseconds: UInt64 = 1000
    /// After how many seconds of silence a connection gives back what only a busy one needs.
    static let trimSeconds: UInt64 = 10
    /// Bytes of requests that are gathered before they are executed: what is read stays in the nearest caches.
    static let gatheredBytesMax = 16 * 1024

    let index: UInt16
    let loop: EventLoop
    let shared: SharedState
    private let port: WorkerPort
    let hello: Hello
    /// In memory of their own, as in `ClientSession.State`.
    private let plane: UnsafeMutablePointer<DataPlane>
    private let outbox: UnsafeMutablePointer<Outbox>
    /// What connections without a rest of earlier input read into, one behind the other as long as requests are
    /// gathered.
    let input: UnsafeMutablePointer<ByteBuffer>
    private var links: LinkTable { linkTable }
    private lazy var linkTable = LinkTable(owner: self)
    /// All open connections; each knows its place.
    private var connections: [ClientConnection] = []
    /// Connections that were closed in this turn: lists may still name them.
    private var departed: [ClientConnection] = []
    /// Connections that have something to send, or to be looked at.
    private let touched = ConnectionList()
    /// Connections that go on in the next turn: their share of this one is used up.
    private let unfinished = ConnectionList()
    private let resumed = ConnectionList()
    private var sweepAt = Instant(nanoseconds: 0)
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
        plane = .allocate(capacity: 1)
        plane.initialize(
            to: DataPlane(
                worker: index,
                shards: shared.shards,
                configuration: configuration.dataPlane,
                topology: topology
            )
        )
        plane.pointee.statistics = RuntimeStatistics(shared: shared)
        outbox = .allocate(capacity: 1)
        outbox.initialize(to: Outbox())
        input = .allocate(capacity: 1)
        input.initialize(to: ByteBuffer(capacity: Self.gatheredBytesMax + ClientConnection.readBytesMax))
    }

    deinit {
        input.deinitialize(count: 1)
        input.deallocate()
        outbox.deinitialize(count: 1)
        outbox.deallocate()
        plane.deinitialize(count: 1)
        plane.deallocate()
    }

    /// Runs until told to stop.
    func run() {
        loop.run { _ in self.turn() }
        while let connection = connections.last { close(connection) }
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
        plane.pointee.executeGathered(context: context, outbox: &outbox.pointee)
        port.mailbox.drain(into: &messages)
        for message in messages { take(message) }
        messages.removeAll(keepingCapacity: true)
        unfinished.exchange(with: resumed)
        resumed.empty { connection in
            connection.goesOn = false
            connection.goOn(self)
        }
        if plane.pointee.nextDeadline <= began { plane.pointee.advance(context: context, outbox: &outbox.pointee) }
        if links.nextDeadline <= began { links.connect(began) }
        if sweepAt <= began { sweep(began) }
        deliver()
        let didSleep = hasSlept(since: began)
        if didSleep { links.abandonAnswers() }
        while true {
            while let session = plane.pointee.takeNextTouched() {
                if let connection = ClientConnection.of(session) { touch(connection) }
            }
            guard !touched.isEmpty else { break }
            touched.empty { connection in
                connection.isTouched = false
                if didSleep {
                    close(connection)
                } else {
                    connection.flush(isStopping: isDraining, self)
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
            port.counters.store(plane.pointee.counters)
        }
        if !departed.isEmpty { departed.removeAll(keepingCapacity: true) }
        port.turnedAt.store(began.nanoseconds, ordering: .relaxed)
        guard unfinished.isEmpty else { return Instant(nanoseconds: 0) }
        return min(plane.pointee.nextDeadline, links.nextDeadline, sweepAt)
    }

    /// Whether this thread stood still in this turn for so long that the lease under which it answered has ended: what
    /// it read may be outdated, and is not sent.
    private func hasSlept(since began: Instant) -> Bool {
        guard !touched.isEmpty || !plane.pointee.touched.isEmpty || links.hasOutput else { return false }
        let until = Instant(nanoseconds: shared.leaseUntil.load(ordering: .acquiring))
        guard until != .distantFuture else { return false }
        let now = loop.readMonotonicClock()
        guard now.milliseconds(since: began) >= Self.pauseMilliseconds, now >= until else { return false }
        shared.staleTurns.add(1, ordering: .relaxed)
        return true
    }

    private func take(_ message: WorkerPort.Message) {
        switch message {
        case .client(let descriptor): open(descriptor)
        case .link(let descriptor, let peer, let caller, let bytes, let seal):
            links.accept(descriptor, peer: peer, caller: caller, bytes: bytes, seal: seal)
        case .keys(let ring): links.adopt(ring)
        case .topology(let topology):
            plane.pointee.adopt(topology, context: context, outbox: &outbox.pointee)
            links.adopt(topology)
        case .complete(let completions):
            for completion in completions {
                plane.pointee.complete(
                    Outbox.Completion(origin: completion.origin, reply: completion.reply),
                    context: context,
                    outbox: &outbox.pointee
                )
            }
        case .resetCounters: plane.pointee.resetCounters()
        case .drainClients:
            isDraining = true
            for connection in connections { touch(connection) }
        case .stop: loop.stop()
        }
    }

    /// Carries out what the data plane and the shards want done.
    private func deliver() {
        while !outbox.pointee.isEmpty {
            links.send(outbox.pointee)
            let completions = outbox.pointee.completions
            let signals = outbox.pointee.signals
            outbox.pointee.removeAll()
            if !signals.isEmpty { shared.control.post(.signals(signals)) }
            for completion in completions where completion.origin.worker == index {
                plane.pointee.complete(completion, context: context, outbox: &outbox.pointee)
            }
            post(completions, from: index, to: shared)
        }
    }

    // MARK: - Links

    func expect(_ frames: UnsafeRawBufferPointer) { plane.pointee.prefetchRequests(in: frames) }

    func receive(
        _ kind: Frame.Kind,
        _ body: UnsafeRawBufferPointer,
        from peer: PeerNumber,
        link: UInt32
    ) throws(MalformedBytes) {
        switch kind {
        case .request:
            plane.pointee.receive(try RequestFrame(body), link: link, context: context, outbox: &outbox.pointee)
        case .response:
            plane.pointee.receive(try ResponseFrame(body), from: peer, context: context, outbox: &outbox.pointee)
        default:
            let isTaken = try shared.shards.receive(
                kind,
                body,
                from: peer,
                link: link,
                context: context,
                outbox: &outbox.pointee
            )
            if !isTaken { throw MalformedBytes() }
        }
    }

    func linkChanged(to peer: PeerNumber, isUp: Bool) {
        if isUp {
            plane.pointee.connected(to: peer, context: context, outbox: &outbox.pointee)
        } else {
            plane.pointee.disconnected(from: peer, context: context, outbox: &outbox.pointee)
        }
        shared.control.post(
            .connection(peer: peer, worker: UInt8(truncatingIfNeeded: index), isUp: isUp)
        )
    }

    func linkInterrupted(from peer: PeerNumber) {
        shared.control.post(.interruption(from: peer))
    }

    // MARK: - Clients

    private func open(_ descriptor: Int32) {
        guard !isDraining else {
            Socket.close(descriptor)
            left()
            return
        }
        let connection = ClientConnection(
            descriptor: descriptor,
            itemBytesMax: shared.configuration.itemBytesMax,
            worker: self
        )
        do throws(SystemError) {
            try Socket.setNoDelay(descriptor)
            try Socket.setKeepAlive(descriptor)
            connection.registration = try loop.add(
                descriptor,
                interest: [.readable, .writable, .peerClosed, .edges],
                handler: connection
            )
            connection.position = connections.count
            connections.append(connection)
            if sweepAt == .distantFuture { sweepAt = loop.now.instant.advanced(byMilliseconds: Self.sweepMilliseconds) }
        } catch {
            Socket.close(descriptor)
            left()
        }
    }

    /// One connection less.
    private func left() {
        shared.connections.subtract(1, ordering: .relaxed)
        port.connections.subtract(1, ordering: .relaxed)
    }

    /// Makes room for another read behind the requests that are gathered.
    func prepareInput() {
        if input.pointee.count > Self.gatheredBytesMax {
            plane.pointee.executeGathered(context: context, outbox: &outbox.pointee)
        }
        if plane.pointee.gatheredCount == 0 { input.pointee.removeAll() }
    }

    /// See `DataPlane.gather`.
    func gather(_ bytes: UnsafeRawBufferPointer, _ session: ClientSession) -> Bool {
        plane.pointee.gather(bytes, session)
    }

    func receive(_ bytes: UnsafeRawBufferPointer, _ session: ClientSession) -> Int {
        plane.pointee.receive(bytes, session: session, context: context, outbox: &outbox.pointee)
    }

    func equip(_ buffer: inout ByteBuffer) { plane.pointee.equip(&buffer) }
    func reclaim(_ buffer: inout ByteBuffer) { plane.pointee.reclaim(&buffer) }
    func reclaim(_ session: ClientSession) { plane.pointee.reclaim(session) }

    func touch(_ connection: ClientConnection) {
        guard !connection.isTouched else { return }
        connection.isTouched = true
        touched.append(connection)
    }

    func goOnLater(_ connection: ClientConnection) {
        guard !connection.goesOn else { return }
        connection.goesOn = true
        unfinished.append(connection)
    }

    func close(_ connection: ClientConnection) {
        guard !connection.isClosed else { return }
        connection.close()
        departed.append(connection)
        let last = connections.removeLast()
        if last !== connection {
            connections[connection.position] = last
            last.position = connection.position
        }
        left()
    }

    /// Looks at all connections: who has been silent for too long, and who has been idle for a while.
    private func sweep(_ now: Instant) {
        let idleSeconds = UInt64(shared.configuration.idleTimeoutSeconds)
        let isTimed = idleSeconds > 0
        func before(_ seconds: UInt64) -> UInt64 { now.nanoseconds - min(now.nanoseconds, seconds * 1_000_000_000) }
        // Backwards, since whoever is closed makes place for the last one.
        for index in connections.indices.reversed() {
            let connection = connections[index]
            connection.trim(silentSince: before(Self.trimSeconds))
            if isTimed { connection.close(silentSince: before(idleSeconds), self) }
        }
        sweepAt = connections.isEmpty ? .distantFuture : now.advanced(byMilliseconds: Self.sweepMilliseconds)
    }

    func countIdleTimeout() { shared.idleTimeouts.add(1, ordering: .relaxed) }

    func countRead(_ count: Int) { readBytes &+= UInt64(count) }
    func countWritten(_ count: Int) { writtenBytes &+= UInt64(count) }
}

/// A list of connections, without owning them: the worker does.
final class ConnectionList {
    /// In memory of its own, as in `ClientSession.State`.
    private struct State {
        var items: UnsafeMutablePointer<Unmanaged<ClientConnection>>
        var capacity = 64
        var count = 0
    }

    private let state: UnsafeMutablePointer<State>

    init() {
        state = .allocate(capacity: 1)
        state.initialize(to: State(items: .allocate(capacity: 64)))
    }

    deinit {
        state.pointee.items.deallocate()
        state.deallocate()
    }

    var isEmpty: Bool { state.pointee.count == 0 }

    func append(_ connection: ClientConnection) {
        let count = state.pointee.count
        if count == state.pointee.capacity {
            let replacement = UnsafeMutablePointer<Unmanaged<ClientConnection>>.allocate(capacity: count * 2)
            replacement.update(from: state.pointee.items, count: count)
            state.pointee.items.deallocate()
            state.pointee.items = replacement
            state.pointee.capacity = count * 2
        }
        state.pointee.items[count] = .passUnretained(connection)
        state.pointee.count = count + 1
    }

    /// Takes all connections, oldest first; what `body` appends is taken too.
    func empty(_ body: (ClientConnection) -> Void) {
        var index = 0
        while index < state.pointee.count {
            state.pointee.items[index]._withUnsafeGuaranteedRef { body($0) }
            index += 1
        }
        state.pointee.count = 0
    }

    func exchange(with other: ConnectionList) {
        let mine = state.pointee
        state.pointee = other.state.pointee
        other.state.pointee = mine
    }
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
