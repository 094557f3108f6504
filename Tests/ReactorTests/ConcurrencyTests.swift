import ClusterCore
import Glibc
import Reactor
import Testing

/// A counter that only a lock protects: a lost update shows as a wrong sum.
private struct Counter: @unchecked Sendable {
    // Sendable because each test touches it under a lock, which is what the test is about.
    let value = UnsafeMutablePointer<Int>.allocate(capacity: 1)

    init() {
        value.initialize(to: 0)
    }
}

@Suite(.timeLimit(.minutes(1))) struct LockTests {
    @Test func `four threads under one lock lose no update`() throws {
        let lock = Lock()
        let counter = Counter()
        defer { counter.value.deallocate() }
        var threads: [ThreadHandle] = []
        for number in 0..<4 {
            threads.append(
                try ThreadHandle(name: "locker \(number)") {
                    for round in 0..<50_000 {
                        lock.lock()
                        counter.value.pointee += 1
                        // Now and then the holder gives up the processor, so that others go to sleep.
                        if round % 1000 == 0 { sched_yield() }
                        lock.unlock()
                    }
                }
            )
        }
        for thread in threads { thread.join() }
        #expect(counter.value.pointee == 200_000)
    }

    @Test func `the locks of an array exclude each for itself`() throws {
        let locks = LockArray(count: 3)
        locks.lock(1)
        #expect(!locks.tryLock(1))
        #expect(locks.tryLock(0))
        #expect(locks.tryLock(2))
        for index in 0..<3 { locks.unlock(index) }
        #expect(locks.tryLock(1))
        locks.unlock(1)

        let counters = [Counter(), Counter(), Counter()]
        defer { for counter in counters { counter.value.deallocate() } }
        var threads: [ThreadHandle] = []
        for number in 0..<4 {
            threads.append(
                try ThreadHandle(name: "locker \(number)") {
                    for round in 0..<30_000 {
                        let index = (round + number) % 3
                        locks.lock(index)
                        counters[index].value.pointee += 1
                        locks.unlock(index)
                    }
                }
            )
        }
        for thread in threads { thread.join() }
        #expect(counters.map { $0.value.pointee } == [40_000, 40_000, 40_000])
    }

    @Test func `a sleeping waiter gets the lock`() throws {
        let lock = Lock()
        let mailbox = Mailbox<Int>()
        lock.lock()
        let thread = try ThreadHandle(name: "waiter") {
            lock.lock()
            _ = mailbox.post(1)
            lock.unlock()
        }
        // Long enough for the waiter to go to sleep on most machines; right on all.
        for _ in 0..<1000 { sched_yield() }
        #expect(mailbox.drain().isEmpty)
        lock.unlock()
        thread.join()
        #expect(mailbox.drain() == [1])
    }
}

@Suite(.timeLimit(.minutes(1))) struct MailboxTests {
    @Test func `only the first message of a batch asks for a wake`() {
        let mailbox = Mailbox<String>(messagesMax: 3)
        #expect(mailbox.post("a") == .first)
        #expect(mailbox.post("b") == .queued)
        #expect(mailbox.post("c") == .queued)
        #expect(mailbox.post("d") == .full)
        #expect(mailbox.drain() == ["a", "b", "c"])
        #expect(mailbox.drain().isEmpty)
        #expect(mailbox.post("e") == .first)
    }

    @Test func `messages of four threads arrive once and in each thread's order`() throws {
        let mailbox = Mailbox<(Int, Int)>(messagesMax: 1000)
        let each = 20_000
        var threads: [ThreadHandle] = []
        for number in 0..<4 {
            threads.append(
                try ThreadHandle(name: "poster \(number)") {
                    for message in 0..<each {
                        while mailbox.post((number, message)) == .full { sched_yield() }
                    }
                }
            )
        }
        var next = [0, 0, 0, 0]
        var messages: [(Int, Int)] = []
        while next.reduce(0, +) < 4 * each {
            mailbox.drain(into: &messages)
            #expect(messages.count <= 1000)
            for (number, message) in messages {
                if message != next[number] { Issue.record("thread \(number) posted \(next[number]), not \(message)") }
                next[number] += 1
            }
            if messages.isEmpty { sched_yield() }
        }
        for thread in threads { thread.join() }
        #expect(next == [each, each, each, each])
        #expect(mailbox.drain().isEmpty)
    }
}

@Suite(.timeLimit(.minutes(1))) struct ResolverTests {
    private func resolve(_ name: HostAndPort) throws -> Result<[Endpoint], ResolutionError> {
        let loop = try EventLoop()
        let resolver = try Resolver(waking: loop.waker)
        #expect(resolver.resolve(name))
        var resolutions: [Resolution] = []
        loop.run {
            resolutions += resolver.drain()
            return !resolutions.isEmpty
        }
        #expect(resolutions.count == 1)
        let resolution = try #require(resolutions.first)
        #expect(resolution.name == name)
        return resolution.result
    }

    @Test func `localhost is a loopback address`() throws {
        let endpoints = try resolve(HostAndPort(host: "localhost", port: 11_211)).get()
        #expect(!endpoints.isEmpty)
        #expect(endpoints.allSatisfy { $0.address.isLoopback && $0.port == 11_211 })
        #expect(Set(endpoints).count == endpoints.count)
    }

    @Test func `a name that cannot exist is an error that says so`() throws {
        // A label has 63 bytes at most, so that no name server is asked.
        let host = String(repeating: "x", count: 64) + ".invalid"
        let result = try resolve(HostAndPort(host: host, port: 1))
        guard case .failure(let error) = result else {
            Issue.record("\(host) has addresses: \(result)")
            return
        }
        #expect(error.host == host)
        #expect(error.description.hasPrefix("cannot resolve \(host): "))
    }

    @Test func `a literal is there at once`() throws {
        let loop = try EventLoop()
        let resolver = try Resolver(waking: loop.waker, namesMax: 2)
        let names = [HostAndPort(host: "10.1.2.3", port: 5), HostAndPort(host: "::1", port: 6)]
        for name in names { #expect(resolver.resolve(name)) }
        #expect(!resolver.resolve(names[0]))
        let endpoints = try resolver.drain().flatMap { try $0.result.get() }
        #expect(endpoints.map(\.description) == ["10.1.2.3:5", "[::1]:6"])
        #expect(resolver.resolve(names[0]))
    }
}

@Suite(.timeLimit(.minutes(1)), .serialized) struct SignalTests {
    @Test func `signals become events of the loop`() throws {
        let loop = try EventLoop()
        var received: [ProcessSignal] = []
        let watcher = try SignalWatcher(on: loop) { received.append($0) }
        #expect(throws: SystemError(.other("watch signals"), EBUSY)) { try SignalWatcher(on: loop) { _ in } }
        for signal in [SIGHUP, SIGTERM, SIGINT] { #expect(kill(getpid(), signal) == 0) }
        loop.run { received.count == 3 }
        watcher.cancel()
        watcher.cancel()
        // Signals that are pending together have no order.
        #expect(Set(received) == Set(ProcessSignal.allCases))
        #expect(loop.registrationCount == 0)
    }

    @Test func `a watcher can follow another`() throws {
        for _ in 0..<2 {
            let loop = try EventLoop()
            var received: [ProcessSignal] = []
            let watcher = try SignalWatcher(on: loop) { received.append($0) }
            #expect(kill(getpid(), SIGHUP) == 0)
            loop.run { !received.isEmpty }
            watcher.cancel()
            #expect(received == [.hangUp])
        }
    }
}
