import ClusterCore
import PeerProtocol
import Reactor
import Sealing

// Gossip over TCP.
//
// Some networks let TCP through and drop UDP, for one pair of nodes or for all. Datagrams then travel on connections of
// their own: opened when there is something to say, closed when they have been idle. What is lost with a connection is
// lost like a datagram; membership repeats what matters. Every frame says the sender's cluster endpoint, by which the
// receiver knows it, and on whose connection it answers.

/// Whoever takes datagrams that came on a stream.
protocol GossipStreamOwner: AnyObject {
    var loop: EventLoop { get }
    var shared: SharedState { get }
    var hello: Hello { get }
    /// A datagram from the node that is called at that endpoint.
    func receiveStreamed(_ datagram: UnsafeRawBufferPointer, from endpoint: Endpoint)
}

/// One connection that carries datagrams, both ways.
final class GossipStream: EventHandler {
    /// Bytes that wait to be sent, at most; beyond it datagrams are dropped.
    static let outputBytesMax = 64 * 1024
    private static let readBytesMax = 64 * 1024

    private let descriptor: Int32
    /// Where the other side is called. For an accepted stream it is what the last datagram said.
    private(set) var endpoint: Endpoint?
    fileprivate(set) var usedAt: Instant
    private unowned let streams: GossipStreams
    private let seal: SealedConnection?
    fileprivate var registration: Registration?
    private var isConnecting: Bool
    private var input = ByteBuffer(capacity: 1024)
    private var output = TransmitBuffer(capacity: 1024)

    fileprivate init(
        _ descriptor: Int32,
        endpoint: Endpoint?,
        seal: SealedConnection?,
        streams: GossipStreams
    ) {
        self.descriptor = descriptor
        self.endpoint = endpoint
        self.seal = seal
        self.streams = streams
        isConnecting = endpoint != nil
        usedAt = streams.now
    }

    fileprivate func begin() {
        var hello = streams.owner.hello
        hello.lane = .gossip
        hello.append(to: &output.buffer)
    }

    override func ready(_ events: Ready) {
        guard registration != nil else { return }
        if isConnecting {
            guard let endpoint, (try? Socket.connectResult(descriptor, to: endpoint)) != nil else {
                streams.close(self)
                return
            }
            isConnecting = false
        }
        if events.contains(.readable) || events.contains(.hangup) || events.contains(.error) { read() }
        flush()
    }

    /// Bytes that came before the stream was one.
    fileprivate func accept(_ bytes: [UInt8]) {
        input.append(bytes)
        take()
        flush()
    }

    private func read() {
        let received: Received
        do throws(LinkSealingError) {
            received =
                try seal?.receive(descriptor, into: &input, max: Self.readBytesMax)
                ?? Socket.receive(descriptor, into: &input, max: Self.readBytesMax)
        } catch {
            if let endpoint { streams.owner.shared.refused(error.cause, at: endpoint) }
            streams.close(self)
            return
        }
        switch received {
        case .bytes: take()
        case .wouldBlock: break
        case .closed, .failed: streams.close(self)
        }
    }

    private func take() {
        var consumed = 0
        do throws(MalformedBytes) {
            while registration != nil,
                let (kind, body, count) = try Frame.next(
                    in: UnsafeRawBufferPointer(rebasing: input.bytes[consumed...])
                )
            {
                consumed += count
                guard kind == .gossip else { throw MalformedBytes() }
                var reader = ByteReader(body)
                guard let source = Endpoint(try reader.shortText()) else { throw MalformedBytes() }
                if endpoint == nil {
                    endpoint = source
                    streams.know(self, at: source)
                }
                usedAt = streams.now
                streams.owner.receiveStreamed(try reader.rest(), from: source)
            }
        } catch {
            streams.close(self)
            return
        }
        input.removeFirst(consumed)
        // A datagram is small; whoever announces more is not a node.
        if input.count > Self.readBytesMax { streams.close(self) }
    }

    /// Puts a datagram on its way; one for which there is no room is dropped.
    func send(_ datagram: [UInt8]) {
        guard registration != nil, output.unsentBytes + (seal?.unsentBytes ?? 0) < Self.outputBytesMax else {
            streams.dropped += 1
            return
        }
        let source = streams.ownEndpoint.description
        Frame.append(.gossip, to: &output.buffer) { buffer in
            buffer.appendShortText(source)
            buffer.append(datagram)
        }
        usedAt = streams.now
        flush()
    }

    private func flush() {
        guard !isConnecting, let registration else { return }
        let sent = seal?.send(descriptor, from: &output) ?? Socket.send(descriptor, from: &output)
        switch sent {
        case .all: streams.owner.loop.change(registration, interest: .readable)
        case .wouldBlock: streams.owner.loop.change(registration, interest: [.readable, .writable])
        case .failed: streams.close(self)
        }
    }

    fileprivate func close() {
        guard let registration else { return }
        self.registration = nil
        streams.owner.loop.remove(registration)
        Socket.close(descriptor)
    }

    /// Whether the stream rests on a key that is not trusted any more, after it went over to the one in use.
    fileprivate func isOutdated(by ring: KeyRing) -> Bool {
        guard let seal else { return false }
        if let id = seal.keyID, ring[id] == nil { return true }
        seal.adopt(ring)
        flush()
        return false
    }
}

/// The streams of a node.
final class GossipStreams {
    /// Streams at a time; beyond it the one that was idle longest is closed.
    static let streamsMax = 1024
    /// How long a stream may be idle before it is closed.
    static let idleMilliseconds: UInt64 = 60_000

    fileprivate unowned let owner: any GossipStreamOwner
    fileprivate let ownEndpoint: Endpoint
    private var streams: [ObjectIdentifier: GossipStream] = [:]
    /// The one on which an endpoint is spoken to: whichever came first, ours or theirs.
    private var byEndpoint: [Endpoint: GossipStream] = [:]
    /// Datagrams dropped for want of room or of a connection, since the start.
    fileprivate(set) var dropped: UInt64 = 0
    private var sweepAt = Instant(nanoseconds: 0)

    init(owner: any GossipStreamOwner, ownEndpoint: Endpoint) {
        self.owner = owner
        self.ownEndpoint = ownEndpoint
    }

    var count: Int { streams.count }
    fileprivate var now: Instant { owner.loop.now.instant }

    /// Sends a datagram on the stream to an endpoint, which is opened where there is none.
    func send(_ datagram: [UInt8], to endpoint: Endpoint) {
        if byEndpoint[endpoint] == nil { open(endpoint) }
        guard let stream = byEndpoint[endpoint] else {
            dropped += 1
            return
        }
        stream.send(datagram)
    }

    private func open(_ endpoint: Endpoint) {
        guard let descriptor = try? Socket.connect(to: endpoint) else { return }
        let seal = owner.shared.sealer(.caller).map { SealedConnection($0) }
        let stream = GossipStream(descriptor, endpoint: endpoint, seal: seal, streams: self)
        guard add(stream, descriptor, interest: [.readable, .writable]) else { return }
        byEndpoint[endpoint] = stream
        stream.begin()
    }

    /// An accepted stream has said who calls. The newest counts: an earlier one may be of a process that has ended.
    fileprivate func know(_ stream: GossipStream, at endpoint: Endpoint) {
        byEndpoint[endpoint] = stream
    }

    /// Takes a connection that another node opened; `bytes` came behind its first frame.
    func accept(_ descriptor: Int32, bytes: [UInt8], seal: SealedConnection?) {
        let stream = GossipStream(descriptor, endpoint: nil, seal: seal, streams: self)
        if add(stream, descriptor, interest: .readable) { stream.accept(bytes) }
    }

    private func add(_ stream: GossipStream, _ descriptor: Int32, interest: Interest) -> Bool {
        if streams.count >= Self.streamsMax, let oldest = streams.values.min(by: { $0.usedAt < $1.usedAt }) {
            close(oldest)
        }
        do throws(SystemError) {
            stream.registration = try owner.loop.add(descriptor, interest: interest, handler: stream)
        } catch {
            Socket.close(descriptor)
            return false
        }
        streams[ObjectIdentifier(stream)] = stream
        return true
    }

    fileprivate func close(_ stream: GossipStream) {
        stream.close()
        streams[ObjectIdentifier(stream)] = nil
        if let endpoint = stream.endpoint, byEndpoint[endpoint] === stream { byEndpoint[endpoint] = nil }
    }

    /// Closes what is idle, once a second.
    func sweep() {
        guard sweepAt <= now else { return }
        sweepAt = now.advanced(byMilliseconds: 1000)
        for stream in Array(streams.values) where now.milliseconds(since: stream.usedAt) > Self.idleMilliseconds {
            close(stream)
        }
    }

    /// Follows the key ring, as links do.
    func adopt(_ ring: KeyRing) {
        for stream in Array(streams.values) where stream.isOutdated(by: ring) { close(stream) }
    }

    func closeAll() {
        for stream in Array(streams.values) { close(stream) }
    }
}
