import ClusterCore
import Glibc
import Histogram
import LoadGenerator
import Reactor
import Testing

/// A server of one connection that answers every line with the next of its answers, whatever was asked.
///
/// Ends when the client closes. Values that come with a set are lines to it as well.
private final class Parrot: Sendable {
    let endpoint: Endpoint
    private let thread: ThreadHandle

    init(_ answers: [String]) throws {
        let listener = try Socket.listen(on: Endpoint(.v4(0x7f00_0001), port: 0))
        endpoint = try Socket.localEndpoint(of: listener)
        thread = try ThreadHandle(name: "parrot") { Parrot.serve(listener, answers) }
    }

    func join() { thread.join() }

    private static func wait(_ descriptor: Int32) -> Bool {
        var wait = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&wait, 1, 10_000) == 1
    }

    private static func serve(_ listener: Int32, _ answers: [String]) {
        defer { Socket.close(listener) }
        guard wait(listener), case .connection(let descriptor, _)? = try? Socket.accept(from: listener) else { return }
        defer { Socket.close(descriptor) }
        var left = answers[...]
        var bytes = [UInt8](repeating: 0, count: 4096)
        while wait(descriptor) {
            let count = recv(descriptor, &bytes, bytes.count, 0)
            if count <= 0 { return }
            for _ in bytes[..<count].filter({ $0 == 0x0a }) {
                guard let answer = left.popFirst() else { return }
                let text = Array(answer.utf8)
                _ = send(descriptor, text, text.count, Int32(MSG_NOSIGNAL))
            }
        }
    }
}

@Suite(.timeLimit(.minutes(1))) struct LoadRunTests {
    private func plan(_ endpoint: Endpoint) -> LoadPlan {
        var plan = LoadPlan(sizes: SizeTable(.fixed(8), seed: 1))
        plan.servers = [endpoint]
        plan.connections = 1
        plan.keyBytes = 9
        plan.keys = .sequence(0..<1)
        return plan
    }

    /// Runs a plan against a server with these answers; what went wrong, or what was counted.
    private func run(
        _ answers: [String],
        change: (inout LoadPlan) -> Void = { _ in }
    ) throws -> Result<
        LoadCounts, LoadError
    > {
        let parrot = try Parrot(answers)
        defer { parrot.join() }
        var plan = plan(parrot.endpoint)
        change(&plan)
        do throws(LoadError) {
            return .success(try LoadRun(for: [plan]).run(plan).counts)
        } catch {
            return .failure(error)
        }
    }

    private static let hit = "VALUE k00000000 0 8\r\n00000000\r\nEND\r\n"

    @Test func `hits and misses are counted`() throws {
        let counts = try run([Self.hit, "END\r\n"]) { $0.keys = .sequence(0..<2) }.get()
        #expect(counts.commands == 2)
        #expect(counts.hits == 1)
        #expect(counts.misses == 1)
    }

    @Test func `what missed is set at once, where that is asked for`() throws {
        // The set's value is a line too.
        let counts = try run(["END\r\n", "STORED\r\n", ""]) { $0.isLookAside = true }.get()
        #expect(counts.misses == 1)
        #expect(counts.sets == 1)
        #expect(counts.storedBytes == 8)
    }

    @Test func `keys of one get that are left out have missed`() throws {
        let answer = "VALUE k00000001 0 8\r\n00000001\r\nVALUE k00000003 0 8\r\n00000003\r\nEND\r\n"
        let counts = try run([answer]) {
            $0.keys = .sequence(0..<5)
            $0.keysPerGet = 5
        }.get()
        #expect(counts.commands == 1)
        #expect(counts.gets == 5)
        #expect(counts.hits == 2)
        #expect(counts.misses == 3)
    }

    @Test(arguments: [
        ("VALUE k00000000 0 7\r\n0000000\r\nEND\r\n", "7 bytes instead of 8"),
        ("VALUE k00000000 0 8\r\n00000001\r\nEND\r\n", "another key"),
        ("VALUE k00000001 0 8\r\n00000001\r\nEND\r\n", "not asked for"),
        ("VALUE k0000000 0 8\r\n00000000\r\nEND\r\n", "not asked for"),
        (hit.replacing("END", with: "VALUE k00000000 0 8\r\n00000000\r\nEND"), "not asked for"),
        (hit + "END\r\n", "none was asked for"), ("STORED\r\n", "none was asked for"), ("hello\r\n", "no reply"),
        ("SERVER_ERROR busy\r\n", "SERVER_ERROR busy"), (hit + "VAL", "nothing asked for"),
    ])
    func `a wrong reply fails the run`(_ answer: String, _ words: String) throws {
        let result = try run([answer])
        guard case .failure(let error) = result else {
            Issue.record("it passed: \(result)")
            return
        }
        #expect(error.message.contains(words), "\(error.message)")
    }

    @Test func `a connection that ends fails the run`() throws {
        let result = try run([])
        guard case .failure(let error) = result else {
            Issue.record("it passed: \(result)")
            return
        }
        #expect(error.message.contains("closed"), "\(error.message)")
    }

    @Test func `refusals are counted where they are tolerated`() throws {
        let counts = try run(["SERVER_ERROR busy\r\n", Self.hit]) {
            $0.keys = .even(count: 1)
            $0.commandsMax = 2
            $0.toleratesRefusals = true
        }.get()
        #expect(counts.refusals == 1)
        #expect(counts.hits == 1)
    }

    @Test func `an open loop counts a latency for each request`() throws {
        let parrot = try Parrot([String](repeating: Self.hit, count: 50))
        var plan = plan(parrot.endpoint)
        plan.keys = .even(count: 1)
        plan.commandsMax = 50
        plan.ratePerSecond = 10_000
        let result = try LoadRun(for: [plan]).run(plan)
        parrot.join()
        #expect(result.latency?.totalCount == 50)
        #expect(result.counts.hits == 50)
    }
}
