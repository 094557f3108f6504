import ClusterCore
import Glibc
import Reactor
import Testing

/// How long a test waits for what should come at once.
let patienceMilliseconds: UInt64 = 20_000

let loopback = IPAddress.v4(0x7f00_0001)
let anyPort = Endpoint(loopback, port: 0)

extension EventLoop {
    /// Runs the loop until `isDone` says so after a turn, or fails the test when patience ends.
    func run(until isDone: () -> Bool, sourceLocation: SourceLocation = #_sourceLocation) {
        let limit = readClock().instant.advanced(byMilliseconds: patienceMilliseconds)
        run { now in
            if isDone() {
                stop()
            } else if now.instant >= limit {
                Issue.record("the loop waited in vain", sourceLocation: sourceLocation)
                stop()
            }
            return limit
        }
    }
}

/// A handler made of a closure.
final class Handler: EventHandler {
    private let body: (Ready) -> Void

    init(_ body: @escaping (Ready) -> Void) {
        self.body = body
    }

    override func ready(_ events: Ready) { body(events) }
}

/// Two connected stream sockets, non-blocking.
func socketPair() -> (Int32, Int32) {
    var ends: [Int32] = [0, 0]
    let type = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
    precondition(socketpair(AF_UNIX, type, 0, &ends) == 0, "no socket pair: \(SystemError.describe(errno))")
    return (ends[0], ends[1])
}

func write(_ text: String, to descriptor: Int32) {
    let count = Glibc.write(descriptor, text, text.utf8.count)
    precondition(count == text.utf8.count, "wrote \(count) of \(text.utf8.count) bytes")
}

/// Sends back what it receives.
final class EchoConnection: EventHandler {
    private let loop: EventLoop
    private let descriptor: Int32
    private var registration: Registration?
    private var input = ByteBuffer(capacity: 4096)
    private var output = TransmitBuffer()
    private let closed: () -> Void

    init(_ loop: EventLoop, _ descriptor: Int32, closed: @escaping () -> Void) throws {
        self.loop = loop
        self.descriptor = descriptor
        self.closed = closed
        super.init()
        registration = try loop.add(descriptor, interest: .readable, handler: self)
    }

    override func ready(_ events: Ready) {
        guard let registration else { return }
        if !events.isDisjoint(with: [.readable, .hangup, .error]) {
            switch Socket.receive(descriptor, into: &input, max: 4096) {
            case .bytes:
                output.buffer.append(input.bytes)
                input.removeAll()
            case .wouldBlock: break
            case .closed, .failed: return close()
            }
        }
        switch Socket.send(descriptor, from: &output) {
        case .all: loop.change(registration, interest: .readable)
        case .wouldBlock: loop.change(registration, interest: [.readable, .writable])
        case .failed: close()
        }
    }

    private func close() {
        guard let registration else { return }
        self.registration = nil
        loop.remove(registration)
        Socket.close(descriptor)
        closed()
    }
}

/// Accepts connections and echoes on them.
final class EchoServer: EventHandler {
    let loop: EventLoop
    let listener: Int32
    let endpoint: Endpoint
    private(set) var accepted = 0
    private(set) var closed = 0

    init(_ loop: EventLoop, on endpoint: Endpoint = anyPort) throws {
        self.loop = loop
        listener = try Socket.listen(on: endpoint)
        self.endpoint = try Socket.localEndpoint(of: listener)
        super.init()
        _ = try loop.add(listener, interest: .readable, handler: self)
    }

    deinit {
        Socket.close(listener)
    }

    override func ready(_ events: Ready) {
        do {
            while true {
                switch try Socket.accept(from: listener) {
                case .connection(let descriptor, let peer):
                    #expect(try Socket.peerEndpoint(of: descriptor) == peer)
                    try Socket.setNoDelay(descriptor)
                    try Socket.setKeepAlive(descriptor)
                    _ = try EchoConnection(loop, descriptor) { [unowned self] in closed += 1 }
                    accepted += 1
                case .wouldBlock: return
                case .exhausted(let error): throw error
                }
            }
        } catch {
            Issue.record(error)
        }
    }
}

/// Connects, sends `message`, and reads as many bytes back.
final class EchoClient: EventHandler {
    private let loop: EventLoop
    private let descriptor: Int32
    private let server: Endpoint
    private let message: [UInt8]
    private var registration: Registration?
    private var isConnected = false
    private var output = TransmitBuffer()
    private var input = ByteBuffer()
    private let done: (EchoClient) -> Void
    private(set) var isRight = false

    init(_ loop: EventLoop, to server: Endpoint, message: [UInt8], done: @escaping (EchoClient) -> Void) throws {
        self.loop = loop
        self.server = server
        self.message = message
        self.done = done
        descriptor = try Socket.connect(to: server)
        output.buffer.append(message)
        super.init()
        registration = try loop.add(descriptor, interest: .writable, handler: self)
    }

    override func ready(_ events: Ready) {
        guard let registration else { return }
        if !isConnected {
            do { try Socket.connectResult(descriptor, to: server) } catch { return finish(error) }
            isConnected = true
        }
        switch Socket.send(descriptor, from: &output) {
        case .all: loop.change(registration, interest: .readable)
        case .wouldBlock: loop.change(registration, interest: [.readable, .writable])
        case .failed(let code): return finish(SystemError(.connect(server), code))
        }
        switch Socket.receive(descriptor, into: &input, max: 65_536) {
        case .bytes, .wouldBlock: break
        case .closed: return finish(SystemError(.connect(server), ECONNRESET))
        case .failed(let code): return finish(SystemError(.connect(server), code))
        }
        if input.count >= message.count { finish(nil) }
    }

    private func finish(_ error: SystemError?) {
        guard let registration else { return }
        self.registration = nil
        if let error { Issue.record(error) }
        isRight = input.array() == message
        loop.remove(registration)
        Socket.close(descriptor)
        done(self)
    }
}
