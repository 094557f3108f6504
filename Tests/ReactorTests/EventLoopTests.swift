import ClusterCore
import Glibc
import Reactor
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(1))) struct EventLoopTests {
    @Test(arguments: [anyPort, Endpoint(.v6(0, 1), port: 0)])
    func `what a client sends comes back through the loop`(endpoint: Endpoint) throws {
        let loop = try EventLoop()
        let server: EchoServer
        do { server = try EchoServer(loop, on: endpoint) } catch let error as SystemError {
            // A host without IPv6 has no [::1].
            #expect(error.code == EADDRNOTAVAIL || error.code == EAFNOSUPPORT, "\(error)")
            return
        }
        var done = false
        _ = try EchoClient(loop, to: server.endpoint, message: Array("hello".utf8)) { client in
            #expect(client.isRight)
            done = true
        }
        loop.run { done && server.closed == 1 }
        #expect(server.accepted == 1)
        #expect(loop.registrationCount == 1)
    }

    @Test func `megabytes pass in both directions in pieces`() throws {
        var random = Xoshiro256(seed: 1)
        let message = (0..<8_000_000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        let loop = try EventLoop()
        let server = try EchoServer(loop)
        var done = false
        _ = try EchoClient(loop, to: server.endpoint, message: message) { client in
            #expect(client.isRight)
            done = true
        }
        loop.run { done }
    }

    @Test func `hundreds of connections live side by side`() throws {
        let loop = try EventLoop()
        let server = try EchoServer(loop)
        var right = 0
        for number in 0..<400 {
            _ = try EchoClient(loop, to: server.endpoint, message: Array("message \(number)".utf8)) { client in
                right += client.isRight ? 1 : 0
            }
        }
        loop.run { right == 400 && server.closed == 400 }
        #expect(server.accepted == 400)
        #expect(loop.registrationCount == 1)
        #expect(loop.staleEvents == 0)
    }

    @Test func `an event of a removed descriptor does not reach whoever got its number`() throws {
        let loop = try EventLoop()
        let (first, firstPeer) = socketPair()
        let (second, secondPeer) = socketPair()
        let (other, otherPeer) = socketPair()
        defer { [first, firstPeer, second, secondPeer, other, otherPeer].forEach(Socket.close) }
        var registrations: [Registration] = []
        var calls: [String] = []
        // Both are readable in one batch. Whoever is called first removes both and gives the number of the second one,
        // and both slots, to other owners.
        for descriptor in [first, second] {
            let handler = Handler { _ in
                calls.append("old")
                registrations.forEach(loop.remove)
                #expect(dup2(other, second) == second)
                do {
                    for reused in [first, second] {
                        _ = try loop.add(reused, interest: .writable, handler: Handler { _ in calls.append("new") })
                    }
                } catch { Issue.record(error) }
            }
            registrations.append(try loop.add(descriptor, interest: .readable, handler: handler))
        }
        write("x", to: firstPeer)
        write("x", to: secondPeer)
        var callsOfFirstTurn: [String]?
        loop.run {
            if callsOfFirstTurn == nil, !calls.isEmpty { callsOfFirstTurn = calls }
            return calls.contains("new")
        }
        #expect(callsOfFirstTurn == ["old"])
        #expect(loop.staleEvents == 1)
        #expect(loop.registrationCount == 2)
    }

    @Test func `a removed registration can be removed again and a pause holds events back`() throws {
        let loop = try EventLoop()
        let (descriptor, peer) = socketPair()
        defer { [descriptor, peer].forEach(Socket.close) }
        var calls = 0
        let registration = try loop.add(descriptor, interest: [], handler: Handler { _ in calls += 1 })
        write("x", to: peer)
        var turns = 0
        loop.run { now in
            turns += 1
            if turns == 3 { #expect(calls == 0) }
            if turns == 3 { loop.change(registration, interest: .readable) }
            if calls > 0 { loop.stop() }
            return now.instant
        }
        #expect(calls == 1)
        loop.remove(registration)
        loop.remove(registration)
        #expect(loop.registrationCount == 0)
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func `each turn tells exactly of the descriptors that are watched and readable`(seed: UInt64) throws {
        struct Pair {
            let descriptor: Int32
            let peer: Int32
            var registration: Registration
            var interest: Interest
            var hasBytes = false
        }
        var random = Xoshiro256(seed: seed)
        let loop = try EventLoop()
        var pairs: [Pair] = []
        var told: Set<Int32> = []
        var rounds = 0
        loop.run { now in
            let expected = pairs.filter { $0.hasBytes && $0.interest.contains(.readable) }.map(\.descriptor)
            if told != Set(expected) {
                Issue.record("seed \(seed), round \(rounds): told of \(told.sorted()), not of \(expected.sorted())")
                loop.stop()
            }
            told = []
            for _ in 0..<Int.random(in: 1...10, using: &random) {
                let index = pairs.indices.randomElement(using: &random)
                switch (Int.random(in: 0..<6, using: &random), index) {
                case (0, _), (1, _), (_, nil):
                    // More pairs than the first slots of a loop, fewer than the events of a turn.
                    if pairs.count == 200 { continue }
                    let (descriptor, peer) = socketPair()
                    let handler = Handler { events in
                        #expect(events == .readable)
                        told.insert(descriptor)
                    }
                    do {
                        let registration = try loop.add(descriptor, interest: .readable, handler: handler)
                        let pair = Pair(
                            descriptor: descriptor,
                            peer: peer,
                            registration: registration,
                            interest: .readable
                        )
                        pairs.append(pair)
                    } catch { Issue.record(error) }
                case (2, let index?):
                    pairs[index].interest = pairs[index].interest.isEmpty ? .readable : []
                    loop.change(pairs[index].registration, interest: pairs[index].interest)
                case (3, let index?) where Bool.random(using: &random):
                    let pair = pairs.remove(at: index)
                    loop.remove(pair.registration)
                    Socket.close(pair.descriptor)
                    Socket.close(pair.peer)
                case (3, let index?), (4, let index?):
                    write("x", to: pairs[index].peer)
                    pairs[index].hasBytes = true
                case (_, let index?):
                    var input = ByteBuffer()
                    _ = Socket.receive(pairs[index].descriptor, into: &input, max: 4096)
                    pairs[index].hasBytes = false
                }
            }
            rounds += 1
            if rounds == 600 { loop.stop() }
            return now.instant
        }
        #expect(loop.registrationCount == pairs.count)
        for pair in pairs {
            loop.remove(pair.registration)
            Socket.close(pair.descriptor)
            Socket.close(pair.peer)
        }
    }

    @Test func `a handler lives as long as its registration`() throws {
        let loop = try EventLoop()
        let (descriptor, peer) = socketPair()
        defer { [descriptor, peer].forEach(Socket.close) }
        weak var handler: Handler?
        var registration: Registration?
        do {
            let strong = Handler { _ in if let registration { loop.remove(registration) } }
            handler = strong
            registration = try loop.add(descriptor, interest: .readable, handler: strong)
        }
        #expect(handler != nil)
        write("x", to: peer)
        loop.run { loop.registrationCount == 0 }
        #expect(handler == nil)
    }

    @Test func `a turn comes when the deadline has passed and not before`() throws {
        let loop = try EventLoop()
        var turns: [Instant] = []
        var deadlines: [Instant] = []
        loop.run { now in
            turns.append(now.instant)
            if turns.count == 6 { loop.stop() }
            // Odd numbers of nanoseconds, as the kernel counts in milliseconds.
            deadlines.append(now.instant.advanced(byNanoseconds: 3_000_001))
            return deadlines[deadlines.count - 1]
        }
        #expect(turns.count == 6)
        for (turn, deadline) in zip(turns.dropFirst(), deadlines) { #expect(turn >= deadline) }
    }

    @Test func `a deadline in the past is a turn at once`() throws {
        let loop = try EventLoop()
        var turns = 0
        loop.run { now in
            turns += 1
            if turns == 1000 { loop.stop() }
            return Instant(nanoseconds: 0)
        }
        #expect(turns == 1000)
    }

    @Test func `the clock moves and agrees with the host's`() throws {
        let loop = try EventLoop()
        let before = loop.now
        let after = loop.readClock()
        #expect(after.instant >= before.instant)
        #expect(loop.now.instant == after.instant)
        #expect(after.unixSeconds >= 1_700_000_000)
    }

    @Test func `a loop refuses what it cannot watch`() throws {
        let loop = try EventLoop(registrationsMax: 1)
        let (first, second) = socketPair()
        defer { [first, second].forEach(Socket.close) }
        let file = open("/dev/null", O_RDONLY | O_CLOEXEC)
        let null = Handler { _ in }
        #expect(throws: SystemError(.other("watch descriptor \(file)"), EPERM)) {
            try loop.add(file, interest: .readable, handler: null)
        }
        Socket.close(file)
        let registration = try loop.add(first, interest: .readable, handler: null)
        #expect(throws: SystemError.self) { try loop.add(second, interest: .readable, handler: null) }
        loop.remove(registration)
        _ = try loop.add(second, interest: .readable, handler: null)
    }
}

@Suite(.timeLimit(.minutes(1))) struct WakerTests {
    @Test func `many wakes of a sleeping loop are one write`() throws {
        let waker = try EventLoop().waker
        #expect(waker.prepareToSleep())
        var threads: [ThreadHandle] = []
        for number in 0..<4 {
            threads.append(try ThreadHandle(name: "waker \(number)") { for _ in 0..<1000 { waker.wake() } })
        }
        for thread in threads { thread.join() }
        #expect(waker.takeWriteCount() == 1)
    }

    @Test func `a wake of a loop that is awake is no write and keeps it awake`() throws {
        let waker = try EventLoop().waker
        for _ in 0..<10 { waker.wake() }
        #expect(!waker.prepareToSleep())
        waker.wokeUp()
        #expect(waker.prepareToSleep())
        #expect(waker.takeWriteCount() == 0)
    }

    @Test func `no message is left behind when four threads post and wake`() throws {
        let loop = try EventLoop()
        let waker = loop.waker
        let mailbox = Mailbox<Int>()
        let each = 20_000
        var threads: [ThreadHandle] = []
        for number in 0..<4 {
            threads.append(
                try ThreadHandle(name: "poster \(number)") {
                    for message in 0..<each {
                        while true {
                            let posting = mailbox.post(message)
                            if posting.needsWake { waker.wake() }
                            if posting != .full { break }
                            sched_yield()
                        }
                    }
                }
            )
        }
        var sum = 0
        var count = 0
        var messages: [Int] = []
        // Without a deadline nothing but a wake-up brings a turn.
        loop.run { _ in
            mailbox.drain(into: &messages)
            count += messages.count
            sum += messages.reduce(0, +)
            if count == 4 * each { loop.stop() }
            return .distantFuture
        }
        for thread in threads { thread.join() }
        #expect(sum == 4 * each * (each - 1) / 2)
    }

    @Test func `another thread stops a loop`() throws {
        let loop = try EventLoop()
        let waker = loop.waker
        let turns = Mailbox<Int>()
        let thread = try ThreadHandle(name: "loop") {
            loop.run { _ in
                _ = turns.post(1)
                return .distantFuture
            }
        }
        waker.stop()
        thread.join()
        #expect(turns.drain().count >= 1)
    }
}
