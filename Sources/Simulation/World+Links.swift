import CacheNode
import ClusterCore
import PeerProtocol
import Replication

// TCP between nodes as the shell keeps it: each thread has a connection of its own to every member.

extension World {
    static var retryMilliseconds: UInt64 { 50 }
    static let clusterName = "simulated"

    func hello(_ process: Process, _ thread: SimulatedThread) -> Hello {
        Hello(
            clusterName: Self.clusterName,
            node: process.node.id,
            generation: process.generation,
            lane: thread.index == 0 ? .control : .data,
            worker: UInt8(max(0, thread.index - 1))
        )
    }

    func adopt(_ topology: Topology, _ process: Process, _ thread: SimulatedThread) {
        thread.topology = topology
        for number in thread.links.keys.sorted() {
            guard let link = thread.links[number] else { continue }
            let peer = link.opener === process && link.openerThread == thread.index ? link.peer : link.acceptorPeer
            if topology.peer(peer) == nil { close(link, by: process, thread) }
        }
        connect(process, thread)
    }

    func connect(_ process: Process, _ thread: SimulatedThread) {
        guard let topology = thread.topology else { return }
        for peer in topology.peers where peer.number != topology.own && thread.outgoing[peer.number] == nil {
            if let at = thread.retryAt[peer.number], at > time { continue }
            thread.retryAt[peer.number] = time + Self.retryMilliseconds * 1_000_000
            guard let target = nodes.firstIndex(where: { $0.endpoint == peer.cluster }) else { continue }
            let connection = newConnection(process, thread, peer: peer.number, target: target)
            thread.outgoing[peer.number] = connection
            thread.links[connection.id] = connection
            let lost = network.retransmissionDelay(first: 1_000_000_000, using: &random)
            schedule(.called(connection), after: network.delay(using: &random) + lost)
        }
    }

    func nextConnect(_ process: Process, _ thread: SimulatedThread) -> UInt64 {
        guard let topology = thread.topology else { return .max }
        var next = UInt64.max
        for peer in topology.peers where peer.number != topology.own && thread.outgoing[peer.number] == nil {
            next = min(next, thread.retryAt[peer.number] ?? 0)
        }
        return next
    }

    /// A call reaches its machine: the kernel takes it, refuses it, or is not there.
    func arrive(_ connection: Connection, _ kind: Event.Kind) {
        guard connection.atOpener.isOpen else { return }
        let source = connection.opener.node.index
        if network.isBlocked(source, connection.target) || network.isBlocked(connection.target, source)
            || nodes[connection.target].isPoweredOff
        {
            // The kernel calls again and again.
            schedule(kind, after: 250_000_000)
            return
        }
        guard let process = nodes[connection.target].process, process.isAlive else {
            schedule(.closed(connection, toOpener: true), after: network.delay(using: &random))
            return
        }
        connection.acceptor = process
        connection.atAcceptor.isOpen = true
        let opener = connection.opener
        let thread = opener.threads[connection.openerThread]
        var buffer = ByteBuffer()
        hello(opener, thread).append(to: &buffer)
        transmit(buffer.array(), connection, toOpener: false, extraDelay: network.delay(using: &random))
    }

    func append(
        _ bytes: UnsafeRawBufferPointer,
        to connection: Connection,
        _ process: Process,
        _ thread: SimulatedThread
    ) {
        if connection.atOpener.output.isEmpty, connection.atAcceptor.output.isEmpty { thread.dirty.append(connection) }
        if isOpener(connection, process, thread) {
            connection.atOpener.output.append(contentsOf: bytes)
        } else {
            connection.atAcceptor.output.append(contentsOf: bytes)
        }
    }

    /// The members for which a fault holds back more than a connection should have waiting.
    func congested(_ thread: SimulatedThread) -> Set<PeerNumber> {
        var congested: Set<PeerNumber> = []
        for (peer, connection) in thread.outgoing where !connection.atAcceptor.held.isEmpty {
            let bytes = connection.atAcceptor.held.reduce(into: 0) { $0 += $1.count }
            if bytes > Outbox.backlogBytesMax { congested.insert(peer) }
        }
        return congested
    }

    func isOpener(_ connection: Connection, _ process: Process, _ thread: SimulatedThread) -> Bool {
        connection.opener === process && connection.openerThread == thread.index
            && !(connection.acceptor === process && connection.acceptorThread == thread.index)
    }

    func flush(_ process: Process, _ thread: SimulatedThread) {
        let list = thread.dirty
        thread.dirty.removeAll(keepingCapacity: true)
        for connection in list {
            if isOpener(connection, process, thread) {
                let bytes = connection.atOpener.output
                connection.atOpener.output = []
                if !bytes.isEmpty { transmit(bytes, connection, toOpener: false) }
            } else {
                let bytes = connection.atAcceptor.output
                connection.atAcceptor.output = []
                if !bytes.isEmpty { transmit(bytes, connection, toOpener: true) }
            }
        }
    }

    /// Bytes leave one end for the other, in order.
    func transmit(_ bytes: [UInt8], _ connection: Connection, toOpener: Bool, extraDelay: UInt64 = 0) {
        let source = toOpener ? connection.target : connection.opener.node.index
        let target = toOpener ? connection.opener.node.index : connection.target
        let isHeld = toOpener ? !connection.atOpener.held.isEmpty : !connection.atAcceptor.held.isEmpty
        if network.isBlocked(source, target) || isHeld || nodes[target].isPoweredOff {
            if toOpener { connection.atOpener.held.append(bytes) } else { connection.atAcceptor.held.append(bytes) }
            startPatience(connection, atOpener: !toOpener)
            return
        }
        if network.isBlocked(target, source) { startPatience(connection, atOpener: !toOpener) }
        let lost = network.retransmissionDelay(using: &random)
        let delay = network.delay(using: &random) + extraDelay + UInt64(bytes.count) * 2 + lost
        if toOpener {
            let at = max(connection.atOpener.lastArrival + 1, time + delay)
            connection.atOpener.lastArrival = at
            queue.schedule(.segment(connection, toOpener: true, bytes: bytes), at: at)
        } else {
            let at = max(connection.atAcceptor.lastArrival + 1, time + delay)
            connection.atAcceptor.lastArrival = at
            queue.schedule(.segment(connection, toOpener: false, bytes: bytes), at: at)
        }
    }

    /// Nothing is acknowledged: some time later this end gives the connection up.
    private func startPatience(_ connection: Connection, atOpener: Bool) {
        let isSet = atOpener ? connection.atOpener.willGiveUp : connection.atAcceptor.willGiveUp
        guard !isSet else { return }
        if atOpener { connection.atOpener.willGiveUp = true } else { connection.atAcceptor.willGiveUp = true }
        schedule(
            .gaveUp(connection, atOpener: atOpener),
            after: UInt64.random(in: 1000...15_000, using: &random) * 1_000_000
        )
    }

    func giveUp(_ connection: Connection, _ atOpener: Bool, _ kind: Event.Kind) {
        let process = atOpener ? connection.opener : connection.acceptor
        guard let process, process.isAlive else { return }
        if process.isPaused {
            process.backlog.append(kind)
            return
        }
        guard atOpener ? connection.atOpener.isOpen : connection.atAcceptor.isOpen else { return }
        let source = atOpener ? connection.opener.node.index : connection.target
        let target = atOpener ? connection.target : connection.opener.node.index
        let isStuck =
            network.isBlocked(source, target) || network.isBlocked(target, source) || nodes[target].isPoweredOff
        if atOpener { connection.atOpener.willGiveUp = false } else { connection.atAcceptor.willGiveUp = false }
        guard isStuck else { return }
        let thread = process.threads[atOpener ? connection.openerThread : connection.acceptorThread]
        log("\(process.node.name) gives up its connection with \(nodes[target].name)")
        close(connection, by: process, thread)
        finishTurn(process, thread)
    }

    func receive(_ connection: Connection, _ toOpener: Bool, _ bytes: [UInt8], _ kind: Event.Kind) {
        let process = toOpener ? connection.opener : connection.acceptor
        guard let process, process.isAlive else {
            // A reset comes back, unless nobody is there to send it.
            if nodes[toOpener ? connection.opener.node.index : connection.target].isPoweredOff { return }
            schedule(.closed(connection, toOpener: !toOpener), after: network.delay(using: &random))
            return
        }
        if process.isPaused {
            process.backlog.append(kind)
            return
        }
        guard toOpener ? connection.atOpener.isOpen : connection.atAcceptor.isOpen else { return }
        note(connection, bytes)
        var thread = process.threads[toOpener ? connection.openerThread : connection.acceptorThread]
        bytes.withUnsafeBytes { raw in
            var offset = 0
            do throws(MalformedBytes) {
                while process.isAlive, toOpener ? connection.atOpener.isOpen : connection.atAcceptor.isOpen,
                    let (kind, body, count) = try Frame.next(in: UnsafeRawBufferPointer(rebasing: raw[offset...]))
                {
                    offset += count
                    frames[Int(kind.rawValue)] += 1
                    if frames[Int(kind.rawValue)] <= options.samplesPerKind {
                        samples.append(Array(raw[(offset - count)..<offset]))
                    }
                    if kind == .hello {
                        let hello = try Hello(body)
                        if toOpener {
                            greet(connection, hello, process, thread)
                        } else {
                            accept(connection, hello, process)
                            thread = process.threads[connection.acceptorThread]
                        }
                    } else {
                        try handle(kind, body, connection, toOpener, process, thread)
                    }
                }
            } catch {
                fail(
                    "\(process.node.name) received malformed bytes from \(toOpener ? nodes[connection.target].name : connection.opener.node.name)"
                )
                close(connection, by: process, thread)
            }
        }
        if process.isAlive { finishTurn(process, thread) }
    }

    private func note(_ connection: Connection, _ bytes: [UInt8]) {
        trace = KeyHash.fold(trace ^ UInt64(connection.id), KeyHash.hash(bytes) ^ time)
    }

    private func greet(_ connection: Connection, _ hello: Hello, _ process: Process, _ thread: SimulatedThread) {
        let reference = MemberReference(id: hello.node, generation: hello.generation)
        guard !connection.isUp, thread.topology?.peer(connection.peer)?.reference == reference else {
            close(connection, by: process, thread)
            return
        }
        connection.isUp = true
        linkChanged(connection.peer, true, process, thread)
    }

    private func accept(_ connection: Connection, _ hello: Hello, _ process: Process) {
        let peer = process.control.number(of: hello)
        guard peer != .none else {
            connection.atAcceptor.isOpen = false
            schedule(.closed(connection, toOpener: true), after: network.delay(using: &random))
            return
        }
        let thread: SimulatedThread
        switch hello.lane {
        case .control, .exchange, .gossip: thread = process.threads[0]
        case .data: thread = process.threads[1 + Int(hello.worker) % process.workers.count]
        }
        connection.acceptorThread = thread.index
        connection.acceptorPeer = peer
        // What the peer's thread sent on an earlier connection must not be read after what it sends on this one.
        for earlier in connections
        where earlier !== connection && earlier.acceptor === process && earlier.opener === connection.opener
            && earlier.openerThread == connection.openerThread
        {
            close(earlier, by: process, process.threads[earlier.acceptorThread])
        }
        thread.links[connection.id] = connection
        linkInterrupted(peer, process, thread)
        var buffer = ByteBuffer()
        self.hello(process, thread).append(to: &buffer)
        append(buffer.bytes, to: connection, process, thread)
    }

    private func handle(
        _ kind: Frame.Kind,
        _ body: UnsafeRawBufferPointer,
        _ connection: Connection,
        _ toOpener: Bool,
        _ process: Process,
        _ thread: SimulatedThread
    ) throws(MalformedBytes) {
        let peer = toOpener ? connection.peer : connection.acceptorPeer
        let context = context(process)
        if thread.index > 0 {
            let worker = process.workers[thread.index - 1]
            switch kind {
            case .request:
                worker.plane.receive(
                    try RequestFrame(body),
                    link: connection.id,
                    context: context,
                    outbox: &thread.outbox
                )
                return
            case .response:
                worker.plane.receive(
                    try ResponseFrame(body),
                    from: peer,
                    context: context,
                    outbox: &thread.outbox
                )
                return
            default:
                break
            }
        }
        if thread.index > 0 || kind != .refusal {
            let isTaken = try process.shards.receive(
                kind,
                body,
                from: peer,
                link: connection.id,
                context: context,
                outbox: &thread.outbox
            )
            if isTaken { return }
        }
        guard thread.index == 0, let message = try ControlMessage(kind, body) else { throw MalformedBytes() }
        process.control.receive(
            message,
            from: peer,
            now: now(process),
            outbox: &thread.outbox,
            effects: &process.effects
        )
    }

    private func linkChanged(_ peer: PeerNumber, _ isUp: Bool, _ process: Process, _ thread: SimulatedThread) {
        if thread.index == 0 {
            process.control.connection(
                to: peer,
                lane: .control,
                worker: 0,
                isUp: isUp,
                now: now(process),
                outbox: &thread.outbox,
                effects: &process.effects
            )
            return
        }
        let worker = process.workers[thread.index - 1]
        if isUp {
            worker.plane.connected(to: peer, context: context(process), outbox: &thread.outbox)
        } else {
            worker.plane.disconnected(from: peer, context: context(process), outbox: &thread.outbox)
        }
        schedule(
            .post(process, thread: 0, .connection(peer: peer, worker: UInt8(thread.index - 1), isUp: isUp)),
            after: 20_000
        )
    }

    private func linkInterrupted(_ peer: PeerNumber, _ process: Process, _ thread: SimulatedThread) {
        guard thread.index == 0 else {
            schedule(.post(process, thread: 0, .interruption(from: peer)), after: 20_000)
            return
        }
        process.control.interruption(
            from: peer,
            now: now(process),
            outbox: &thread.outbox,
            effects: &process.effects
        )
    }

    /// One end closes; the other hears of it unless the network is broken.
    func close(_ connection: Connection, by process: Process, _ thread: SimulatedThread) {
        let isOpener = isOpener(connection, process, thread)
        if isOpener {
            guard connection.atOpener.isOpen else { return }
            connection.atOpener.isOpen = false
        } else {
            guard connection.atAcceptor.isOpen else { return }
            connection.atAcceptor.isOpen = false
        }
        thread.links[connection.id] = nil
        if !isOpener || connection.acceptor != nil { sayClosed(connection, toOpener: !isOpener) }
        guard isOpener else {
            linkInterrupted(connection.acceptorPeer, process, thread)
            return
        }
        if thread.outgoing[connection.peer] === connection { thread.outgoing[connection.peer] = nil }
        thread.retryAt[connection.peer] = time + Self.retryMilliseconds * 1_000_000
        if connection.isUp { linkChanged(connection.peer, false, process, thread) }
    }

    func sayClosed(_ connection: Connection, toOpener: Bool) {
        let source = toOpener ? connection.target : connection.opener.node.index
        let target = toOpener ? connection.opener.node.index : connection.target
        if network.isBlocked(source, target) {
            if toOpener { connection.atOpener.isCloseHeld = true } else { connection.atAcceptor.isCloseHeld = true }
            return
        }
        let last = toOpener ? connection.atOpener.lastArrival : connection.atAcceptor.lastArrival
        queue.schedule(
            .closed(connection, toOpener: toOpener),
            at: max(last + 1, time + network.delay(using: &random))
        )
    }

    func hearClose(_ connection: Connection, _ toOpener: Bool, _ kind: Event.Kind) {
        let process = toOpener ? connection.opener : connection.acceptor
        guard let process, process.isAlive else { return }
        if process.isPaused {
            process.backlog.append(kind)
            return
        }
        guard toOpener ? connection.atOpener.isOpen : connection.atAcceptor.isOpen else { return }
        let thread = process.threads[toOpener ? connection.openerThread : connection.acceptorThread]
        if toOpener {
            connection.atOpener.isOpen = false
        } else {
            connection.atAcceptor.isOpen = false
        }
        thread.links[connection.id] = nil
        if toOpener {
            if thread.outgoing[connection.peer] === connection { thread.outgoing[connection.peer] = nil }
            thread.retryAt[connection.peer] = time + Self.retryMilliseconds * 1_000_000
            if connection.isUp { linkChanged(connection.peer, false, process, thread) }
        } else {
            linkInterrupted(connection.acceptorPeer, process, thread)
        }
        finishTurn(process, thread)
    }

    /// The network works again: what was held arrives, after a retransmission's while.
    func release() {
        connections.removeAll { !$0.atOpener.isOpen && !$0.atAcceptor.isOpen }
        for connection in connections {
            let opener = connection.opener.node.index
            let delay = UInt64.random(in: 1...400, using: &random) * 1_000_000
            if !connection.atOpener.held.isEmpty || connection.atOpener.isCloseHeld,
                !network.isBlocked(connection.target, opener)
            {
                releaseHeld(connection, toOpener: true, delay)
            }
            if !connection.atAcceptor.held.isEmpty || connection.atAcceptor.isCloseHeld,
                !network.isBlocked(opener, connection.target), !nodes[connection.target].isPoweredOff
            {
                releaseHeld(connection, toOpener: false, delay)
            }
        }
    }

    private func releaseHeld(_ connection: Connection, toOpener: Bool, _ delay: UInt64) {
        let held = toOpener ? connection.atOpener.held : connection.atAcceptor.held
        let isClosed = toOpener ? connection.atOpener.isCloseHeld : connection.atAcceptor.isCloseHeld
        if toOpener {
            connection.atOpener.held = []
            connection.atOpener.isCloseHeld = false
        } else {
            connection.atAcceptor.held = []
            connection.atAcceptor.isCloseHeld = false
        }
        for bytes in held { transmit(bytes, connection, toOpener: toOpener, extraDelay: delay) }
        if isClosed { sayClosed(connection, toOpener: toOpener) }
    }
}
