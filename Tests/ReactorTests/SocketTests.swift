import ClusterCore
import Glibc
import Reactor
import Testing

@Suite(.timeLimit(.minutes(1))) struct SocketTests {
    @Test func `a port in use is named with what to do`() throws {
        let listener = try Socket.listen(on: anyPort)
        defer { Socket.close(listener) }
        let endpoint = try Socket.localEndpoint(of: listener)
        let error = #expect(throws: SystemError.self) { try Socket.listen(on: endpoint) }
        #expect(
            error?.description == "cannot listen on \(endpoint): address already in use (EADDRINUSE); "
                + "is another node or memcached running there?"
        )
        // Every address of the host includes the one in use.
        let everywhere = Endpoint(.v4(0), port: endpoint.port)
        #expect(throws: SystemError(.listen(everywhere), EADDRINUSE)) { try Socket.listen(on: everywhere) }
    }

    @Test func `a port is free again as soon as its listener is closed`() throws {
        // An address that no other test uses, so that the kernel does not give the port to one.
        let listener = try Socket.listen(on: Endpoint(.v4(0x7f00_0002), port: 0))
        let endpoint = try Socket.localEndpoint(of: listener)
        Socket.close(listener)
        Socket.close(try Socket.listen(on: endpoint))
    }

    @Test func `a datagram port in use and a foreign address are refused`() throws {
        let socket = try Socket.bindDatagrams(to: anyPort)
        defer { Socket.close(socket) }
        let endpoint = try Socket.localEndpoint(of: socket)
        #expect(throws: SystemError(.bindDatagrams(endpoint), EADDRINUSE)) { try Socket.bindDatagrams(to: endpoint) }
        // 203.0.113.0/24 is kept for documentation.
        let foreign = Endpoint(.v4(0xcb00_7107), port: 0)
        let error = #expect(throws: SystemError.self) { try Socket.listen(on: foreign) }
        #expect(error?.description.hasSuffix("(EADDRNOTAVAIL); no interface of this host has that address") == true)
    }

    @Test func `nobody listening is a refused connection`() throws {
        // An address that no other test uses, so that the kernel does not give the port to one.
        let listener = try Socket.listen(on: Endpoint(.v4(0x7f00_0003), port: 0))
        let endpoint = try Socket.localEndpoint(of: listener)
        Socket.close(listener)
        let loop = try EventLoop()
        var failure: SystemError?
        do {
            let descriptor = try Socket.connect(to: endpoint)
            var isReady = false
            let registration = try loop.add(descriptor, interest: .writable, handler: Handler { _ in isReady = true })
            loop.run { isReady }
            loop.remove(registration)
            defer { Socket.close(descriptor) }
            try Socket.connectResult(descriptor, to: endpoint)
        } catch {
            failure = error
        }
        #expect(failure == SystemError(.connect(endpoint), ECONNREFUSED))
        #expect(failure?.description.contains("nothing listens there") == true)
    }

    @Test func `a connection that met itself is a refused connection`() throws {
        let listener = try Socket.listen(on: Endpoint(.v4(0x7f00_0004), port: 0))
        let endpoint = try Socket.localEndpoint(of: listener)
        Socket.close(listener)
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { Socket.close(descriptor) }
        var address = sockaddr_in()
        let length = SocketAddress.write(endpoint, to: &address)
        withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                #expect(bind(descriptor, $0, length) == 0)
                #expect(connect(descriptor, $0, length) == 0)
            }
        }
        #expect(throws: SystemError(.connect(endpoint), ECONNREFUSED)) {
            try Socket.connectResult(descriptor, to: endpoint)
        }
    }

    @Test func `without descriptors a connection waits until there are some`() async {
        // A process of its own, as the limit holds for all of it.
        await #expect(processExitsWith: .success) {
            let listener = try Socket.listen(on: Endpoint(.v4(0x7f00_0001), port: 0))
            _ = try Socket.connect(to: try Socket.localEndpoint(of: listener))
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            var none = limit
            none.rlim_cur = 0
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &none)
            for _ in 0..<2 {
                guard case .exhausted(let error) = try Socket.accept(from: listener) else { exit(1) }
                guard error.code == EMFILE, error.description.contains("ulimit -n") else { exit(2) }
            }
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            guard case .connection = try Socket.accept(from: listener) else { exit(3) }
        }
    }

    @Test func `a descriptor closed twice ends the process`() async {
        await #expect(processExitsWith: .failure) {
            let listener = try Socket.listen(on: Endpoint(.v4(0x7f00_0001), port: 0))
            Socket.close(listener)
            Socket.close(listener)
        }
    }

    @Test func `an idle listener has nothing to accept and a wrong descriptor is an error`() throws {
        let listener = try Socket.listen(on: anyPort)
        defer { Socket.close(listener) }
        guard case .wouldBlock = try Socket.accept(from: listener) else {
            Issue.record("accepted a connection that nobody made")
            return
        }
        let socket = try Socket.bindDatagrams(to: anyPort)
        defer { Socket.close(socket) }
        #expect(throws: SystemError.self) { try Socket.accept(from: socket) }
    }

    @Test func `the way to the loopback interface starts there`() throws {
        #expect(try Socket.localAddress(toward: Endpoint(loopback, port: 9)) == loopback)
    }

    @Test func `addresses survive the kernel's form`() {
        var random = Xoshiro256(seed: 7)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: SocketAddress.bytesMax, alignment: 8)
        defer { memory.deallocate() }
        for round in 0..<1000 {
            let port = UInt16(truncatingIfNeeded: random.next())
            let address: IPAddress =
                round % 2 == 0
                ? .v4(UInt32(truncatingIfNeeded: random.next())) : .v6(random.next(), random.next())
            let endpoint = Endpoint(address, port: port)
            let length = SocketAddress.write(endpoint, to: memory)
            #expect(SocketAddress.read(memory, length: length) == endpoint, "seed 7, round \(round)")
            for short in 0..<length { #expect(SocketAddress.read(memory, length: short) == nil) }
        }
    }

    @Test func `a reader that stops and goes on gets every byte once`() {
        let (descriptor, peer) = socketPair()
        var random = Xoshiro256(seed: 3)
        var output = TransmitBuffer()
        var input = ByteBuffer()
        var expected: [UInt8] = []
        var blocked = 0
        while expected.count < 3_000_000 || !output.isEmpty {
            if expected.count < 3_000_000 {
                let piece = (0..<Int.random(in: 1...200_000, using: &random)).map { UInt8(truncatingIfNeeded: $0 / 7) }
                output.buffer.append(piece)
                expected += piece
            }
            if Socket.send(descriptor, from: &output) == .wouldBlock { blocked += 1 }
            let max = Int.random(in: 1...300_000, using: &random)
            let before = input.count
            switch Socket.receive(peer, into: &input, max: max) {
            case .bytes(let count):
                #expect(count <= max)
                #expect(input.count == before + count)
            case .wouldBlock: break
            case .closed, .failed: Issue.record("seed 3: the pair broke")
            }
        }
        Socket.close(descriptor)
        reading: while true {
            switch Socket.receive(peer, into: &input, max: 65_536) {
            case .bytes: continue
            case .closed: break reading
            case .wouldBlock, .failed:
                Issue.record("seed 3: the end of the stream did not show")
                break reading
            }
        }
        Socket.close(peer)
        #expect(input.array() == expected, "seed 3")
        #expect(blocked > 0, "the kernel's buffer never filled")
        output.removeAll()
        #expect(output.buffer.capacityBytes <= TransmitBuffer.idleBytesMax)
    }

    @Test func `sending to a closed connection is an error and not a signal`() {
        let (descriptor, peer) = socketPair()
        defer { Socket.close(descriptor) }
        Socket.close(peer)
        var output = TransmitBuffer()
        output.buffer.append("x" as StaticString)
        #expect(Socket.send(descriptor, from: &output) == .failed(EPIPE))
        #expect(output.unsentBytes == 1)
    }
}

@Suite(.timeLimit(.minutes(1))) struct DatagramTests {
    @Test func `batches of datagrams arrive with their source`() throws {
        let source = try Socket.bindDatagrams(to: anyPort)
        let target = try Socket.bindDatagrams(to: anyPort)
        defer { [source, target].forEach(Socket.close) }
        let targetEndpoint = try Socket.localEndpoint(of: target)
        let sourceEndpoint = try Socket.localEndpoint(of: source)
        let sender = DatagramSender(datagramsMax: 16, bytesMax: 100)
        for number in 0..<16 {
            let message = [UInt8](repeating: UInt8(number), count: number)
            #expect(message.withUnsafeBytes { sender.append($0, to: targetEndpoint) })
        }
        #expect(sender.isFull)
        #expect(!sender.append(UnsafeRawBufferPointer(start: nil, count: 0), to: targetEndpoint))
        let flushed = sender.flush(to: source)
        #expect(flushed.sent == 16)
        #expect(flushed.dropped == 0)
        #expect(flushed.lastError == 0)
        #expect(sender.count == 0)

        let loop = try EventLoop()
        let receiver = DatagramReceiver(datagramsMax: 5, bytesMax: 10)
        var messages: [[UInt8]] = []
        var counts = 0
        let handler = Handler { _ in
            guard case .datagrams(let count) = receiver.receive(from: target) else { return }
            for index in 0..<count {
                counts += 1
                guard let datagram = receiver.datagram(at: index) else { continue }
                #expect(datagram.source == sourceEndpoint)
                messages.append(Array(datagram.bytes))
            }
        }
        _ = try loop.add(target, interest: .readable, handler: handler)
        loop.run { counts == 16 }
        // Those of 11 to 15 bytes do not fit.
        #expect(messages == (0...10).map { [UInt8](repeating: UInt8($0), count: $0) })
        #expect(receiver.oversizeCount == 5)
        #expect(receiver.receive(from: target) == .wouldBlock)
    }

    @Test func `a datagram has the age at which it was read`() throws {
        let source = try Socket.bindDatagrams(to: anyPort)
        let target = try Socket.bindDatagrams(to: anyPort)
        defer { [source, target].forEach(Socket.close) }
        let receiver = DatagramReceiver()
        #expect(receiver.receive(from: target) == .wouldBlock)
        let sender = DatagramSender()
        let message: [UInt8] = [1, 2, 3]
        let endpoint = try Socket.localEndpoint(of: target)
        // The kernel begins to note arrivals a moment after it was asked to, and until then takes the time of reading.
        let deadline = SystemClock.monotonic().advanced(byMilliseconds: 5000)
        var age: UInt64 = 0
        while age < 19_000_000, SystemClock.monotonic() < deadline {
            let before = SystemClock.monotonic()
            #expect(message.withUnsafeBytes { sender.append($0, to: endpoint) })
            #expect(sender.flush(to: source).sent == 1)
            let sent = SystemClock.monotonic()
            // It ages while time passes, for which nothing but the clock can be asked.
            while SystemClock.monotonic().milliseconds(since: sent) < 20 {}
            #expect(receiver.receive(from: target) == .datagrams(1))
            let most = SystemClock.monotonic().nanoseconds(since: before)
            age = try #require(receiver.datagram(at: 0)).ageNanoseconds
            #expect(age <= most)
            #expect(receiver.receive(from: target) == .wouldBlock)
        }
        #expect(age >= 19_000_000)
    }

    @Test func `a wall clock that is set makes no datagram older than the inbox`() {
        #expect(DatagramReceiver.age(arrivedAt: 1000, readAt: 1300, mostNanoseconds: 500) == 300)
        #expect(DatagramReceiver.age(arrivedAt: 1000, readAt: 3_600_000_001_000, mostNanoseconds: 500) == 500)
        #expect(DatagramReceiver.age(arrivedAt: 1300, readAt: 1000, mostNanoseconds: 500) == 0)
        #expect(DatagramReceiver.age(arrivedAt: 0, readAt: 1000, mostNanoseconds: 500) == 0)
    }

    @Test func `a datagram that cannot be sent does not keep back the next`() throws {
        let source = try Socket.bindDatagrams(to: anyPort)
        let target = try Socket.bindDatagrams(to: anyPort)
        defer { [source, target].forEach(Socket.close) }
        let sender = DatagramSender()
        let message: [UInt8] = [1, 2, 3]
        // An IPv6 address through an IPv4 socket, and a good one.
        let endpoints = [Endpoint(.v6(0, 1), port: 9), try Socket.localEndpoint(of: target)]
        for endpoint in endpoints { #expect(message.withUnsafeBytes { sender.append($0, to: endpoint) }) }
        let flushed = sender.flush(to: source)
        #expect(flushed.sent == 1)
        #expect(flushed.dropped == 1)
        #expect(flushed.lastError == EAFNOSUPPORT)
    }
}
