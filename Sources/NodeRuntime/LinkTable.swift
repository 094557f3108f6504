import CacheNode
import ClusterCore
import PeerProtocol
import Reactor
import Replication
import Sealing

/// Who handles what a thread's links bring.
protocol LinkOwner: AnyObject {
    var loop: EventLoop { get }
    /// Frames, of which the last may be cut short, before they are taken one by one.
    func expect(_ frames: UnsafeRawBufferPointer)
    /// A whole frame. `link` is where answers go back. Malformed bytes end the link.
    func receive(
        _ kind: Frame.Kind,
        _ body: UnsafeRawBufferPointer,
        from peer: PeerNumber,
        link: UInt32
    ) throws(MalformedBytes)
    /// A connection that this thread opened works, or works no longer.
    func linkChanged(to peer: PeerNumber, isUp: Bool)
    /// A connection that the peer opened has ended, or begins: what the peer had to say in between is lost.
    func linkInterrupted(from peer: PeerNumber)
    /// What an outgoing connection says first.
    var hello: Hello { get }
    var shared: SharedState { get }
}

/// One TCP connection between two nodes.
///
/// The side that opened it sends on it what is addressed to the peer; the other side sends back only answers to what
/// came on it. So each thread of a node has one connection of its own to every member, and one from every member's
/// thread.
final class Link: EventHandler {
    /// Bytes that a peer has not taken, at most; beyond it the connection is given up.
    static let outputBytesMax = 256 * 1024 * 1024
    /// Bytes taken from the kernel at once.
    static let readBytesMax = 256 * 1024

    let number: UInt32
    let peer: PeerNumber
    let isOutgoing: Bool
    /// Which of the peer's threads opened it, where the peer did: its control thread, or that worker.
    let caller: UInt8
    let descriptor: Int32
    /// Outlives its links: whoever has it closes all of them before it goes.
    private unowned(unsafe) let table: LinkTable
    var registration: Registration?
    /// What is to be sent, and what has come and is not taken yet. In memory of their own: a stored property of a class
    /// is checked for overlapping accesses each time.
    let output: UnsafeMutablePointer<TransmitBuffer>
    private let input: UnsafeMutablePointer<ByteBuffer>
    /// An outgoing connection works once the other side has said who it is.
    fileprivate(set) var isUp: Bool
    var isDirty = false
    fileprivate(set) var isClosed = false
    private var isConnecting: Bool
    private let endpoint: Endpoint
    /// Nil where the cluster has no key.
    fileprivate let seal: SealedConnection?

    init(
        number: UInt32,
        peer: PeerNumber,
        isOutgoing: Bool,
        caller: UInt8,
        descriptor: Int32,
        endpoint: Endpoint,
        seal: SealedConnection?,
        table: LinkTable
    ) {
        self.caller = caller
        self.seal = seal
        self.number = number
        self.peer = peer
        self.isOutgoing = isOutgoing
        self.descriptor = descriptor
        self.endpoint = endpoint
        self.table = table
        isUp = !isOutgoing
        isConnecting = isOutgoing
        output = .allocate(capacity: 1)
        output.initialize(to: TransmitBuffer(capacity: 4096))
        input = .allocate(capacity: 1)
        input.initialize(to: ByteBuffer(capacity: 4096))
    }

    deinit {
        output.deinitialize(count: 1)
        output.deallocate()
        input.deinitialize(count: 1)
        input.deallocate()
    }

    override func ready(_ events: Ready) {
        guard !isClosed else { return }
        if isConnecting {
            do throws(SystemError) {
                try Socket.connectResult(descriptor, to: endpoint)
                try Socket.setNoDelay(descriptor)
                try Socket.setKeepAlive(descriptor, idleSeconds: 5, intervalSeconds: 2, probesMax: 3)
            } catch {
                table.close(self)
                return
            }
            isConnecting = false
            table.owner.hello.append(to: &output.pointee.buffer)
        }
        if events.contains(.readable) || events.contains(.hangup) || events.contains(.error) { read() }
        if !isClosed { flush() }
    }

    /// Frames that came behind the first one, before the link was a link.
    func accept(_ bytes: [UInt8]) {
        input.pointee.append(bytes)
        take()
    }

    private func read() {
        let received: Received
        if let seal {
            do throws(LinkSealingError) {
                received = try seal.receive(descriptor, into: &input.pointee, max: Self.readBytesMax)
            } catch {
                table.owner.shared.refused(error.cause, at: endpoint)
                table.close(self)
                return
            }
        } else {
            received = Socket.receive(descriptor, into: &input.pointee, max: Self.readBytesMax)
        }
        switch received {
        case .bytes: take()
        case .wouldBlock: break
        case .closed, .failed: table.close(self)
        }
    }

    /// Bytes that the kernel has not taken.
    fileprivate var unsentBytes: Int { output.pointee.unsentBytes + (seal?.unsentBytes ?? 0) }

    private func take() {
        var consumed = 0
        if !isOutgoing { table.owner.expect(input.pointee.bytes) }
        do throws(MalformedBytes) {
            while !isClosed,
                let (kind, body, count) = try Frame.next(
                    in: UnsafeRawBufferPointer(rebasing: input.pointee.bytes[consumed...])
                )
            {
                consumed += count
                if kind == .hello {
                    try greet(Hello(body))
                } else {
                    try table.owner.receive(kind, body, from: peer, link: number)
                }
            }
        } catch {
            table.close(self)
            return
        }
        if isClosed { return }
        if consumed == input.pointee.count {
            input.pointee.removeAll(shrinkingTo: 256 * 1024)
        } else {
            input.pointee.removeFirst(consumed)
        }
    }

    private func greet(_ hello: Hello) throws(MalformedBytes) {
        guard isOutgoing, !isUp else { throw MalformedBytes() }
        guard table.isExpected(hello, from: peer) else {
            table.close(self)
            return
        }
        isUp = true
        table.owner.linkChanged(to: peer, isUp: true)
    }

    /// Sends what is there; what the kernel does not take goes when it has room.
    func flush() {
        guard !isClosed, !isConnecting, let registration else { return }
        let sent: Sent
        if let seal {
            sent = seal.send(descriptor, from: &output.pointee)
        } else {
            sent = Socket.send(descriptor, from: &output.pointee)
            if case .all = sent { output.pointee.removeAll() }
        }
        switch sent {
        case .all:
            table.noteBacklog(of: self)
            table.owner.loop.change(registration, interest: .readable)
        case .wouldBlock:
            if unsentBytes > Self.outputBytesMax {
                table.close(self)
            } else {
                table.noteBacklog(of: self)
                table.owner.loop.change(registration, interest: [.readable, .writable])
            }
        case .failed: table.close(self)
        }
    }
}

/// The links of one thread: one to every member, and those that members opened to it.
final class LinkTable {
    /// Has the table, and so outlives it.
    unowned(unsafe) let owner: any LinkOwner
    private var links: [UInt32: Link] = [:]
    private var outgoing: [PeerNumber: Link] = [:]
    /// Members for which too much waits on the connection that this thread opened.
    private(set) var congested: Set<PeerNumber> = []
    private var topology: Topology?
    private var retryAt: [PeerNumber: Instant] = [:]
    private var dirty: [Link] = []
    private var flushing: [Link] = []
    /// Links to which frames went lately, by the bits of their target: most frames of a turn go to a few. All of them
    /// are in `links`. In memory of its own, as in `Link`.
    private let recent: UnsafeMutablePointer<(target: Outbox.Target, link: Unmanaged<Link>)?>
    private static let recentCount = 64
    /// When `connect` has something to do.
    private(set) var nextDeadline = Instant.distantFuture
    private var counter: UInt32 = 0
    /// How long after a failure a member is called again.
    static let retryMilliseconds: UInt64 = 50

    init(owner: any LinkOwner) {
        self.owner = owner
        recent = .allocate(capacity: Self.recentCount)
        recent.initialize(repeating: nil, count: Self.recentCount)
    }

    deinit {
        recent.deallocate()
    }

    /// Follows the members: new ones are called, those that are gone are let go.
    func adopt(_ topology: Topology) {
        self.topology = topology
        for link in links.values where topology.peer(link.peer) == nil { close(link) }
        retryAt = retryAt.filter { topology.peer($0.key) != nil }
        connect(owner.loop.now.instant)
    }

    /// Calls members to which there is no connection.
    func connect(_ now: Instant) {
        guard let topology else { return }
        for peer in topology.peers where peer.number != topology.own && outgoing[peer.number] == nil {
            if let at = retryAt[peer.number], at > now { continue }
            retryAt[peer.number] = now.advanced(byMilliseconds: Self.retryMilliseconds)
            guard let descriptor = try? Socket.connect(to: peer.cluster) else { continue }
            let seal = owner.shared.sealer(.caller).map { SealedConnection($0) }
            let link = add(descriptor, peer: peer.number, isOutgoing: true, endpoint: peer.cluster, seal: seal)
            if !link.isClosed { outgoing[peer.number] = link }
        }
        updateDeadline()
    }

    private func updateDeadline() {
        guard let topology else { return }
        nextDeadline = .distantFuture
        for peer in topology.peers where peer.number != topology.own && outgoing[peer.number] == nil {
            nextDeadline = min(nextDeadline, retryAt[peer.number] ?? Instant(nanoseconds: 0))
        }
    }

    /// Takes a connection that a member opened, by its worker `caller` where it is one of the data lane; `bytes` came
    /// behind its first frame.
    func accept(
        _ descriptor: Int32,
        peer: PeerNumber,
        caller: UInt8 = 0,
        bytes: [UInt8],
        seal: SealedConnection.Handed?
    ) {
        // What the same thread sent on an earlier connection must not be read after what it sends on this one: it has
        // given that up, and asked others, or asks again.
        for link in Array(links.values) where !link.isOutgoing && link.peer == peer && link.caller == caller {
            close(link)
        }
        guard let endpoint = try? Socket.peerEndpoint(of: descriptor) else {
            Socket.close(descriptor)
            return
        }
        let sealed = seal.map { SealedConnection($0) }
        let link = add(descriptor, peer: peer, isOutgoing: false, caller: caller, endpoint: endpoint, seal: sealed)
        owner.hello.append(to: &link.output.pointee.buffer)
        touch(link)
        owner.linkInterrupted(from: peer)
        link.accept(bytes)
    }

    private func add(
        _ descriptor: Int32,
        peer: PeerNumber,
        isOutgoing: Bool,
        caller: UInt8 = 0,
        endpoint: Endpoint,
        seal: SealedConnection?
    ) -> Link {
        counter &+= 1
        if counter == 0 { counter = 1 }
        let link = Link(
            number: counter,
            peer: peer,
            isOutgoing: isOutgoing,
            caller: caller,
            descriptor: descriptor,
            endpoint: endpoint,
            seal: seal,
            table: self
        )
        links[counter] = link
        let interest: Interest = isOutgoing ? [.readable, .writable] : .readable
        do throws(SystemError) {
            link.registration = try owner.loop.add(descriptor, interest: interest, handler: link)
        } catch {
            close(link)
        }
        return link
    }

    fileprivate func isExpected(_ hello: Hello, from peer: PeerNumber) -> Bool {
        guard let topology, let expected = topology.peer(peer) else { return false }
        return expected.reference == MemberReference(id: hello.node, generation: hello.generation)
            && hello.clusterName == owner.hello.clusterName
    }

    func close(_ link: Link) {
        guard !link.isClosed else { return }
        link.isClosed = true
        if let registration = link.registration { owner.loop.remove(registration) }
        Socket.close(link.descriptor)
        links[link.number] = nil
        forgetRecent()
        guard link.isOutgoing else {
            owner.linkInterrupted(from: link.peer)
            return
        }
        outgoing[link.peer] = nil
        congested.remove(link.peer)
        retryAt[link.peer] = owner.loop.now.instant.advanced(byMilliseconds: Self.retryMilliseconds)
        updateDeadline()
        if link.isUp { owner.linkChanged(to: link.peer, isUp: false) }
    }

    /// Puts a frame on its way; it leaves with `flush`. A frame for a link that is gone is dropped: whoever needs its
    /// answer hears of the link's end.
    func send(_ bytes: UnsafeRawBufferPointer, to target: Outbox.Target) {
        let index =
            switch target {
            case .peer(let peer): Int(peer.value) & (Self.recentCount / 2 - 1)
            case .link(let number): Self.recentCount / 2 + Int(number) & (Self.recentCount / 2 - 1)
            }
        if let entry = recent[index], entry.target == target {
            entry.link._withUnsafeGuaranteedRef {
                $0.output.pointee.buffer.append(bytes)
                touch($0)
            }
            return
        }
        let link: Link?
        switch target {
        case .peer(let peer): link = outgoing[peer].flatMap { $0.isUp ? $0 : nil }
        case .link(let number): link = links[number]
        }
        guard let link else { return }
        recent[index] = (target, .passUnretained(link))
        link.output.pointee.buffer.append(bytes)
        touch(link)
    }

    fileprivate func noteBacklog(of link: Link) {
        guard link.isOutgoing else { return }
        if link.unsentBytes > Outbox.backlogBytesMax {
            congested.insert(link.peer)
        } else if !congested.isEmpty {
            congested.remove(link.peer)
        }
    }

    private func forgetRecent() {
        recent.update(repeating: nil, count: Self.recentCount)
    }

    /// Puts all frames of a turn on their way.
    func send(_ outbox: borrowing Outbox) {
        for send in outbox.sends {
            self.send(UnsafeRawBufferPointer(rebasing: outbox.bytes.bytes[send.start..<send.end]), to: send.target)
        }
    }

    private func touch(_ link: Link) {
        guard !link.isDirty else { return }
        link.isDirty = true
        dirty.append(link)
    }

    /// One send for each link that has something.
    func flush() {
        guard !dirty.isEmpty else { return }
        swap(&dirty, &flushing)
        for link in flushing {
            link.isDirty = false
            link.flush()
        }
        flushing.removeAll(keepingCapacity: true)
    }

    /// Whether a link has something to send.
    var hasOutput: Bool { !dirty.isEmpty }

    /// Ends the connections on which answers to other nodes are about to leave, unsent: they may be outdated.
    func abandonAnswers() {
        for link in dirty where !link.isOutgoing { close(link) }
    }

    /// Goes over to the key in use, and ends connections whose other side shows only one that is not trusted any more.
    func adopt(_ ring: KeyRing) {
        for link in Array(links.values) {
            guard let seal = link.seal else { continue }
            if let id = seal.keyID, ring[id] == nil {
                close(link)
            } else {
                seal.adopt(ring)
                touch(link)
            }
        }
    }

    func closeAll() {
        for link in Array(links.values) { close(link) }
    }
}
