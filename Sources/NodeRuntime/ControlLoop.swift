import CacheNode
import ClusterCore
import Membership
import PeerProtocol
import Reactor
import Replication
import Sealing
import Synchronization

/// The control thread: gossip, links of the control lane, listeners, and the control plane.
final class ControlLoop: LinkOwner, GossipStreamOwner {
    /// Connections whose first frame has not come, at most; beyond it new ones are closed.
    static let greetingsMax = 256
    static let greetingMilliseconds: UInt64 = 5000
    /// How long accepting pauses where descriptors or memory ran out.
    static let acceptPauseMilliseconds: UInt64 = 100
    /// How often at most the log says so.
    static let acceptLogMilliseconds: UInt64 = 10_000

    let loop: EventLoop
    let hello: Hello
    let shared: SharedState
    private let observer: any NodeObserver
    /// Nil where gossip goes over TCP alone.
    private let datagrams: Int32?
    private let clusterListener: Int32
    private let resolver: Resolver
    private var plane: ControlPlane
    private var outbox = Outbox()
    private var effects: [ControlEffect] = []
    private lazy var linkTable = LinkTable(owner: self)
    private lazy var streams = GossipStreams(owner: self, ownEndpoint: shared.configuration.own.cluster)
    /// Nil where the node has no cluster key.
    private var sealer: GossipSealer?
    private var packets: [GossipPacket] = []
    private let receiver = DatagramReceiver()
    private let sender = DatagramSender()
    private var clientListeners: [(descriptor: Int32, registration: Registration)] = []
    private var registrations: [Registration] = []
    private var handlers: [Callback] = []
    private var greetings: [ObjectIdentifier: Greeting] = [:]
    private var calls: [ObjectIdentifier: ExchangeCall] = [:]
    private var messages: [ControlPort.Message] = []
    private var orders: [UInt64: @Sendable (OrderOutcome) -> Void] = [:]
    /// Who waits for an examination.
    private var examinations: [@Sendable (Examination?) -> Void] = []
    private var nextWorker = 0
    private var acceptAgainAt: Instant?
    private var acceptLoggedAt: Instant?
    private var memberListener: Registration?
    private var isClosing = false
    private var wereClientsOpened = false
    private var stopSignals = 0
    private(set) var failure: String?

    init(
        loop: EventLoop,
        shared: SharedState,
        plane: consuming ControlPlane,
        datagrams: Int32?,
        clusterListener: Int32,
        observer: any NodeObserver
    ) throws(SystemError) {
        self.loop = loop
        self.shared = shared
        self.plane = plane
        self.datagrams = datagrams
        self.clusterListener = clusterListener
        self.observer = observer
        resolver = try Resolver(waking: loop.waker)
        let configuration = shared.configuration
        var random = SystemRandomNumberGenerator()
        let startBits: UInt64 = random.next()
        sealer = configuration.keyRing.map {
            GossipSealer(
                ring: $0,
                clusterName: configuration.clusterName,
                own: GossipDatagram.Origin(
                    clusterTag: GossipDatagram.tag(ofCluster: configuration.clusterName),
                    node: configuration.own.id,
                    generation: configuration.own.generation
                ),
                startBits: startBits,
                now: loop.now.instant
            )
        }
        hello = Hello(
            clusterName: configuration.clusterName,
            node: configuration.own.id,
            generation: configuration.own.generation,
            lane: .control,
            worker: 0
        )
        if let datagrams { try watch(datagrams) { [unowned self] in receiveDatagrams(datagrams) } }
        try watch(clusterListener) { [unowned self] in acceptMembers() }
        memberListener = registrations.last
    }

    /// Runs until the node has stopped. Returns why it failed, nil for an orderly end.
    func run() -> String? {
        loop.run { _ in self.turn() }
        linkTable.closeAll()
        streams.closeAll()
        return failure
    }

    /// The cluster as this node sees it at its end.
    func lastSnapshot() -> ClusterSnapshot { plane.snapshot(now: loop.now) }

    /// Answers who asked too late to be answered in a turn.
    func answerRemaining() {
        for message in shared.control.mailbox.drain() {
            switch message {
            case .ask(let body): body(&plane, loop.now)
            case .order(_, _, let reply), .forget(_, let reply), .form(let reply), .keys(_, let reply):
                reply(.refused("the node has stopped"))
            case .releaseBrake(let reply): reply(BrakeRelease())
            case .examine(let reply): reply(nil)
            case .signals, .connection, .interruption, .stored, .stop: break
            }
        }
        for reply in orders.values { reply(.refused("the node has stopped")) }
        orders = [:]
        for reply in examinations { reply(nil) }
        examinations = []
    }

    private func watch(_ descriptor: Int32, _ body: @escaping () -> Void) throws(SystemError) {
        let handler = Callback(body)
        handlers.append(handler)
        registrations.append(try loop.add(descriptor, interest: .readable, handler: handler))
    }

    private var context: Context { Context(now: loop.now, leaseUntil: plane.leaseUntil) }

    // MARK: - The turn

    private func turn() -> Instant {
        shared.control.mailbox.drain(into: &messages)
        for message in messages { take(message) }
        messages.removeAll(keepingCapacity: true)
        for resolution in resolver.drain() {
            let addresses = (try? resolution.result.get()) ?? []
            plane.resolved(resolution.name, to: addresses, now: loop.now, outbox: &outbox, effects: &effects)
        }
        if plane.nextDeadline <= loop.now.instant {
            outbox.congested = linkTable.congested
            plane.advance(to: loop.now, outbox: &outbox, effects: &effects)
        }
        linkTable.connect(loop.now.instant)
        deliver()
        refreshClients()
        dropLateGreetings()
        answerOrders()
        deliver()
        linkTable.flush()
        flushDatagrams()
        streams.sweep()
        for refusal in shared.takeUnsaid() {
            observer.log(.refused(refusal.cause.rawValue, from: "\(refusal.address)"))
        }
        if let sealer { shared.note(sealer.statistics, sessions: sealer.sessionCount) }
        shared.controlTurnedAt.store(loop.now.instant.nanoseconds, ordering: .relaxed)
        var next = min(plane.nextDeadline, linkTable.nextDeadline)
        if let acceptAgainAt { next = min(next, acceptAgainAt) }
        if isClosing || !wereClientsOpened || !greetings.isEmpty {
            next = min(next, loop.now.instant.advanced(byMilliseconds: 20))
        }
        return next
    }

    private func take(_ message: ControlPort.Message) {
        switch message {
        case .signals(let signals):
            for signal in signals { plane.receive(signal, now: loop.now, outbox: &outbox, effects: &effects) }
        case .connection(let peer, let worker, let isUp):
            plane.connection(
                to: peer,
                lane: .data,
                worker: worker,
                isUp: isUp,
                now: loop.now,
                outbox: &outbox,
                effects: &effects
            )
        case .interruption(let peer):
            plane.interruption(from: peer, now: loop.now, outbox: &outbox, effects: &effects)
        case .ask(let body): body(&plane, loop.now)
        case .order(let order, let node, let reply):
            guard
                let id = plane.order(order, node: node, now: loop.now, outbox: &outbox, effects: &effects)
            else {
                reply(.unknownNode)
                return
            }
            orders[id] = reply
        case .forget(let node, let reply):
            reply(plane.forget(node: node, now: loop.now, outbox: &outbox, effects: &effects))
        case .form(let reply): reply(plane.form(now: loop.now, outbox: &outbox, effects: &effects))
        case .keys(let change, let reply): reply(plane.change(change, effects: &effects))
        case .stored(let ring): plane.stored(ring, now: loop.now, outbox: &outbox, effects: &effects)
        case .releaseBrake(let reply):
            reply(plane.releaseBrake(now: loop.now, outbox: &outbox, effects: &effects))
        case .examine(let reply):
            examinations.append(reply)
            plane.examine(now: loop.now, outbox: &outbox, effects: &effects)
        case .stop(let signal): stop(signal)
        }
    }

    private func answerOrders() {
        for (id, refusal) in plane.orderResults {
            orders.removeValue(forKey: id)?(refusal.isEmpty ? .accepted : .refused(refusal))
        }
        plane.orderResults = []
        if let examination = plane.takeExamination() {
            for reply in examinations { reply(examination) }
            examinations = []
        }
    }

    private func stop(_ signal: ProcessSignal) {
        stopSignals += 1
        guard stopSignals == 1 else {
            observer.endsAtOnce()
            return
        }
        observer.stopping()
        switch shared.configuration.onStop {
        case .handOver: plane.stop(now: loop.now, outbox: &outbox, effects: &effects)
        case .drain:
            let refusal = plane.carryOut(.drain, loop.now, &outbox, &effects)
            if !refusal.isEmpty {
                observer.log(.drainRefused(refusal))
                plane.stop(now: loop.now, outbox: &outbox, effects: &effects)
            }
        case .none: finish()
        }
    }

    // MARK: - Effects

    private func deliver() {
        while !outbox.isEmpty || !effects.isEmpty {
            let list = effects
            effects.removeAll(keepingCapacity: true)
            for effect in list { carryOut(effect) }
            linkTable.send(outbox)
            let completions = outbox.completions
            let signals = outbox.signals
            outbox.removeAll()
            post(completions, from: .max, to: shared)
            for signal in signals { plane.receive(signal, now: loop.now, outbox: &outbox, effects: &effects) }
        }
    }

    private func carryOut(_ effect: ControlEffect) {
        switch effect {
        case .datagram(let bytes, let endpoint):
            if datagrams == nil {
                streams.send(bytes, to: endpoint)
            } else if sealer == nil {
                send(bytes, to: endpoint)
            } else {
                sealer?.seal(bytes, to: endpoint, now: loop.now.instant, packets: &packets)
                sendPackets()
            }
        case .stream(let bytes, let endpoint): streams.send(bytes, to: endpoint)
        case .resolve(let seed):
            if !resolver.resolve(seed) {
                plane.resolved(seed, to: [], now: loop.now, outbox: &outbox, effects: &effects)
            }
        case .pull(let endpoint): pull(from: endpoint)
        case .publish(let topology):
            linkTable.adopt(topology)
            for worker in shared.workers { worker.post(.topology(topology)) }
        case .lease(let until): shared.leaseUntil.store(until.nanoseconds, ordering: .releasing)
        case .log(let event): observer.log(.control(event))
        case .remember(let sawThree, let peers): observer.remember(sawThree: sawThree, peers: peers)
        case .fail(let reason):
            failure = reason
            loop.stop()
        case .closeClients: closeClients()
        case .storeKeys(let ring):
            observer.store(ring.encoded) { [shared] isStored in
                if isStored { shared.control.post(.stored(ring)) }
            }
        case .useKeys(let ring):
            sealer?.adopt(ring)
            shared.adopt(ring)
            linkTable.adopt(ring)
            streams.adopt(ring)
        case .finished: finish()
        }
    }

    private func send(_ bytes: [UInt8], to endpoint: Endpoint) {
        if sender.isFull { flushDatagrams() }
        _ = bytes.withUnsafeBytes { sender.append($0, to: endpoint) }
    }

    private func flushDatagrams() {
        if let datagrams { _ = sender.flush(to: datagrams) }
    }

    private func sendPackets() {
        for packet in packets { send(packet.bytes, to: packet.endpoint) }
        packets.removeAll(keepingCapacity: true)
    }

    private func finish() {
        for worker in shared.workers { worker.post(.stop) }
        // What the links still hold leaves before the loop ends.
        linkTable.flush()
        flushDatagrams()
        loop.stop()
    }

    // MARK: - Gossip

    private func receiveDatagrams(_ datagrams: Int32) {
        // Bounded, so that a flood of datagrams does not starve the links.
        for _ in 0..<16 {
            guard case .datagrams(let count) = receiver.receive(from: datagrams), count > 0 else { return }
            for index in 0..<count {
                guard let (source, bytes, age) = receiver.datagram(at: index) else { continue }
                receive(bytes, from: source, ageNanoseconds: age)
            }
        }
    }

    private func receive(_ bytes: UnsafeRawBufferPointer, from source: Endpoint, ageNanoseconds: UInt64) {
        guard sealer != nil else {
            if GossipSealer.isSealed(bytes) { shared.refused(.sealed, at: source, isDatagram: true) }
            plane.receive(
                datagram: bytes,
                from: source,
                ageNanoseconds: ageNanoseconds,
                now: loop.now,
                outbox: &outbox,
                effects: &effects
            )
            return
        }
        let opened = sealer?.open(bytes, from: source, now: loop.now.instant, packets: &packets)
        sendPackets()
        switch opened {
        case .datagram(let datagram):
            datagram.withUnsafeBytes {
                plane.receive(
                    datagram: $0,
                    from: source,
                    ageNanoseconds: ageNanoseconds,
                    now: loop.now,
                    outbox: &outbox,
                    effects: &effects
                )
            }
        case .refused(let cause): shared.refused(cause, at: source, isDatagram: true)
        case .nothing, nil: break
        }
    }

    func receiveStreamed(_ datagram: UnsafeRawBufferPointer, from endpoint: Endpoint) {
        plane.receive(
            datagram: datagram,
            from: endpoint,
            // Where gossip goes over TCP alone, it shows nothing about UDP.
            isStreamed: datagrams != nil,
            now: loop.now,
            outbox: &outbox,
            effects: &effects
        )
    }

    private func pull(from endpoint: Endpoint) {
        guard calls.count < Self.greetingsMax else { return }
        guard let call = try? ExchangeCall(to: endpoint, owner: self) else { return }
        calls[ObjectIdentifier(call)] = call
    }

    fileprivate func exchangeRequest() -> [UInt8] { plane.exchangeRequest(now: loop.now.instant) }

    fileprivate func exchange(_ bytes: UnsafeRawBufferPointer) -> [UInt8] {
        plane.exchange(with: bytes, now: loop.now, outbox: &outbox, effects: &effects)
    }

    fileprivate func ended(_ call: ExchangeCall) {
        calls[ObjectIdentifier(call)] = nil
    }

    // MARK: - Members' connections

    private func acceptMembers() {
        while let descriptor = accept(from: clusterListener) {
            guard greetings.count < Self.greetingsMax else {
                Socket.close(descriptor)
                continue
            }
            let greeting = Greeting(descriptor: descriptor, owner: self, since: loop.now.instant)
            do throws(SystemError) {
                try Socket.setNoDelay(descriptor)
                try Socket.setKeepAlive(descriptor, idleSeconds: 5, intervalSeconds: 2, probesMax: 3)
                greeting.registration = try loop.add(descriptor, interest: .readable, handler: greeting)
                greetings[ObjectIdentifier(greeting)] = greeting
            } catch {
                Socket.close(descriptor)
            }
        }
    }

    private func accept(from listener: Int32) -> Int32? {
        switch try? Socket.accept(from: listener) {
        case .connection(let descriptor, _): return descriptor
        case .exhausted(let error):
            pauseAccepting("\(error)")
            return nil
        case nil:
            pauseAccepting("a listener failed")
            return nil
        case .wouldBlock: return nil
        }
    }

    /// Out of descriptors or memory: the queues wait in the kernel for a while. All of them, or whichever is watched
    /// would wake the loop again at once.
    private func pauseAccepting(_ reason: String) {
        shared.acceptPauses.add(1, ordering: .relaxed)
        let now = loop.now.instant
        if acceptLoggedAt.map({ now.milliseconds(since: $0) >= Self.acceptLogMilliseconds }) ?? true {
            acceptLoggedAt = now
            observer.log(.acceptPaused(reason))
        }
        acceptAgainAt = now.advanced(byMilliseconds: Self.acceptPauseMilliseconds)
        watchListeners([])
    }

    private func watchListeners(_ interest: Interest) {
        for listener in clientListeners { loop.change(listener.registration, interest: interest) }
        if let memberListener { loop.change(memberListener, interest: interest) }
    }

    private func dropLateGreetings() {
        if let at = acceptAgainAt, at <= loop.now.instant {
            acceptAgainAt = nil
            watchListeners(.readable)
        }
        for greeting in greetings.values
        where greeting.since.advanced(byMilliseconds: Self.greetingMilliseconds) <= loop.now.instant {
            refuse(greeting)
        }
    }

    fileprivate func refuse(_ greeting: Greeting) {
        release(greeting)
        Socket.close(greeting.descriptor)
    }

    private func release(_ greeting: Greeting) {
        if let registration = greeting.registration { loop.remove(registration) }
        greeting.registration = nil
        greetings[ObjectIdentifier(greeting)] = nil
    }

    /// A connection has said who calls. `rest` came behind the first frame.
    fileprivate func greeted(
        _ greeting: Greeting,
        _ caller: Hello,
        rest: [UInt8],
        seal: SealedConnection?
    ) {
        guard caller.clusterName == hello.clusterName else {
            refuse(greeting)
            return
        }
        if caller.lane == .exchange { return }
        if caller.lane == .gossip {
            release(greeting)
            streams.accept(greeting.descriptor, bytes: rest, seal: seal.map { SealedConnection($0.handOver()) })
            return
        }
        let peer = plane.number(of: caller)
        guard peer != .none else {
            refuse(greeting)
            return
        }
        release(greeting)
        switch caller.lane {
        case .control:
            linkTable.accept(greeting.descriptor, peer: peer, bytes: rest, seal: seal?.handOver())
        case .data:
            let worker = shared.workers[Int(caller.worker) % shared.workers.count]
            worker.post(.link(greeting.descriptor, peer, worker: caller.worker, rest, seal?.handOver()))
        case .exchange, .gossip: break
        }
    }

    /// Frames between control threads are few.
    func expect(_ frames: UnsafeRawBufferPointer) {}

    func receive(
        _ kind: Frame.Kind,
        _ body: UnsafeRawBufferPointer,
        from peer: PeerNumber,
        link: UInt32
    ) throws(MalformedBytes) {
        // Refusals of entries come back on the link that carried them; others are control frames like any.
        if kind != .refusal {
            let isTaken = try shared.shards.receive(
                kind,
                body,
                from: peer,
                link: link,
                context: context,
                outbox: &outbox
            )
            if isTaken { return }
        }
        guard let message = try ControlMessage(kind, body) else { throw MalformedBytes() }
        plane.receive(message, from: peer, link: link, now: loop.now, outbox: &outbox, effects: &effects)
    }

    func linkChanged(to peer: PeerNumber, isUp: Bool) {
        plane.connection(
            to: peer,
            lane: .control,
            worker: 0,
            isUp: isUp,
            now: loop.now,
            outbox: &outbox,
            effects: &effects
        )
    }

    func linkInterrupted(from peer: PeerNumber) {
        plane.interruption(from: peer, now: loop.now, outbox: &outbox, effects: &effects)
    }

    // MARK: - Clients

    /// Opens the client port when the node may serve, and finishes closing it.
    private func refreshClients() {
        if isClosing {
            if shared.connections.load(ordering: .relaxed) == 0 {
                isClosing = false
                plane.clientsClosed(now: loop.now, outbox: &outbox, effects: &effects)
            }
            return
        }
        guard !wereClientsOpened, plane.mayOpen(now: loop.now) else { return }
        wereClientsOpened = true
        for endpoint in shared.configuration.clientListen {
            do throws(SystemError) {
                let descriptor = try Socket.listen(on: endpoint)
                let handler = Callback { [unowned self] in acceptClients(descriptor) }
                handlers.append(handler)
                let registration = try loop.add(descriptor, interest: .readable, handler: handler)
                clientListeners.append((descriptor, registration))
            } catch {
                failure = "\(error)"
                loop.stop()
                return
            }
        }
        observer.clientsOpened()
    }

    private func acceptClients(_ listener: Int32) {
        while let descriptor = accept(from: listener) {
            shared.connectionsTotal.add(1, ordering: .relaxed)
            let count = shared.connections.add(1, ordering: .relaxed).newValue
            guard count <= shared.configuration.connectionsMax else {
                shared.connections.subtract(1, ordering: .relaxed)
                shared.connectionsRejected.add(1, ordering: .relaxed)
                var answer = TransmitBuffer()
                answer.buffer.append("ERROR Too many open connections\r\n")
                _ = Socket.send(descriptor, from: &answer)
                Socket.close(descriptor)
                continue
            }
            let worker = workerForClient()
            worker.connections.add(1, ordering: .relaxed)
            worker.post(.client(descriptor))
        }
    }

    /// The worker with the fewest clients, so that shares stay even when connections close; of equals, in turn.
    private func workerForClient() -> WorkerPort {
        var best = nextWorker % shared.workers.count
        var fewest = Int.max
        for offset in 0..<shared.workers.count {
            let index = (nextWorker + offset) % shared.workers.count
            let count = shared.workers[index].connections.load(ordering: .relaxed)
            if count < fewest {
                best = index
                fewest = count
            }
        }
        nextWorker = best + 1
        return shared.workers[best]
    }

    private func closeClients() {
        for listener in clientListeners {
            loop.remove(listener.registration)
            Socket.close(listener.descriptor)
        }
        clientListeners = []
        wereClientsOpened = true
        isClosing = true
        for worker in shared.workers { worker.post(.drainClients) }
    }
}

/// A descriptor whose readiness is a call.
private final class Callback: EventHandler {
    private let body: () -> Void

    init(_ body: @escaping () -> Void) {
        self.body = body
    }

    override func ready(_ events: Ready) { body() }
}

/// A connection from somebody who has not said who it is; it may be a stranger's.
private final class Greeting: EventHandler {
    static let bytesMax = 256 * 1024

    let descriptor: Int32
    let since: Instant
    private unowned let owner: ControlLoop
    var registration: Registration?
    private var input = ByteBuffer(capacity: 512)
    private var isExchange = false
    private var output = TransmitBuffer()
    private let seal: SealedConnection?

    init(descriptor: Int32, owner: ControlLoop, since: Instant) {
        self.descriptor = descriptor
        self.owner = owner
        self.since = since
        seal = owner.shared.sealer(.called).map { SealedConnection($0) }
    }

    override func ready(_ events: Ready) {
        guard registration != nil else { return }
        let received: Received
        do throws(LinkSealingError) {
            received =
                try seal?.receive(descriptor, into: &input, max: 64 * 1024)
                ?? Socket.receive(descriptor, into: &input, max: 64 * 1024)
        } catch {
            refuse(error.cause)
            return
        }
        guard case .bytes = received, input.count <= Self.bytesMax else {
            owner.refuse(self)
            return
        }
        if seal == nil, LinkSealer.isSealed(input.bytes) {
            refuse(.sealed)
            return
        }
        // The handshake's answer; a fresh socket takes it at once.
        _ = seal?.send(descriptor, from: &output)
        do throws(MalformedBytes) {
            try take()
        } catch {
            owner.refuse(self)
        }
    }

    private func refuse(_ cause: SealingRefusal) {
        if let endpoint = try? Socket.peerEndpoint(of: descriptor) { owner.shared.refused(cause, at: endpoint) }
        owner.refuse(self)
    }

    private func take() throws(MalformedBytes) {
        while registration != nil, let (kind, body, consumed) = try Frame.next(in: input.bytes) {
            switch kind {
            case .hello where !isExchange:
                let hello = try Hello(body)
                isExchange = hello.lane == .exchange
                let rest = Array(input.bytes[consumed...])
                owner.greeted(self, hello, rest: rest, seal: seal)
            case .exchange where isExchange:
                let answer = owner.exchange(body)
                Frame.append(.exchangeReply, to: &output.buffer) { $0.append(answer) }
                // A state is a few hundred kilobytes at most, which a fresh socket takes at once.
                _ = seal?.send(descriptor, from: &output) ?? Socket.send(descriptor, from: &output)
                owner.refuse(self)
            default:
                throw MalformedBytes()
            }
            if registration != nil { input.removeFirst(consumed) }
        }
    }
}

/// A membership exchange that this node began.
private final class ExchangeCall: EventHandler {
    static let bytesMax = 4 * 1024 * 1024

    private let descriptor: Int32
    private let endpoint: Endpoint
    private unowned let owner: ControlLoop
    private var registration: Registration?
    private var isConnecting = true
    private var output = TransmitBuffer()
    private var input = ByteBuffer(capacity: 4096)
    private let seal: SealedConnection?

    init(to endpoint: Endpoint, owner: ControlLoop) throws(SystemError) {
        self.endpoint = endpoint
        self.owner = owner
        descriptor = try Socket.connect(to: endpoint)
        seal = owner.shared.sealer(.caller).map { SealedConnection($0) }
        super.init()
        do throws(SystemError) {
            registration = try owner.loop.add(descriptor, interest: [.readable, .writable], handler: self)
        } catch {
            Socket.close(descriptor)
            throw error
        }
    }

    override func ready(_ events: Ready) {
        guard let registration else { return }
        if isConnecting {
            do throws(SystemError) {
                try Socket.connectResult(descriptor, to: endpoint)
            } catch {
                end()
                return
            }
            isConnecting = false
            var hello = owner.hello
            hello.lane = .exchange
            hello.append(to: &output.buffer)
            let request = owner.exchangeRequest()
            Frame.append(.exchange, to: &output.buffer) { $0.append(request) }
        }
        guard flush(registration) else { return }
        guard events.contains(.readable) || events.contains(.hangup) else { return }
        let received: Received
        do throws(LinkSealingError) {
            received =
                try seal?.receive(descriptor, into: &input, max: 64 * 1024)
                ?? Socket.receive(descriptor, into: &input, max: 64 * 1024)
        } catch {
            owner.shared.refused(error.cause, at: endpoint)
            end()
            return
        }
        // The request could not be sealed before the handshake was done.
        guard flush(registration) else { return }
        if let found = try? Frame.next(in: input.bytes), found.kind == .exchangeReply {
            _ = owner.exchange(found.body)
            end()
            return
        }
        switch received {
        case .bytes where input.count <= Self.bytesMax: break
        case .wouldBlock: break
        default: end()
        }
    }

    /// Sends what can be sent; returns whether the connection lives.
    private func flush(_ registration: Registration) -> Bool {
        let sent = seal?.send(descriptor, from: &output) ?? Socket.send(descriptor, from: &output)
        if case .failed = sent {
            end()
            return false
        }
        var interest: Interest = .readable
        if case .wouldBlock = sent { interest = [.readable, .writable] }
        owner.loop.change(registration, interest: interest)
        return true
    }

    private func end() {
        guard let registration else { return }
        self.registration = nil
        owner.loop.remove(registration)
        Socket.close(descriptor)
        owner.ended(self)
    }
}
