import ClusterCore
import PeerProtocol
import Replication
import Testing

@testable import CacheNode

@Suite struct SessionTests {
    /// What a client says, and what memcached answers.
    private static let conversation: [(says: String, hears: String)] = [
        ("get a\r\n", "END\r\n"),
        ("set a 5 0 3\r\none\r\n", "STORED\r\n"),
        ("get a\r\n", "VALUE a 5 3\r\none\r\nEND\r\n"),
        ("add a 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        ("add b 0 0 2\r\n10\r\n", "STORED\r\n"),
        ("get a b c\r\n", "VALUE a 5 3\r\none\r\nVALUE b 0 2\r\n10\r\nEND\r\n"),
        ("incr b 5\r\n", "15\r\n"),
        ("decr b 100\r\n", "0\r\n"),
        ("get b\r\n", "VALUE b 0 2\r\n0 \r\nEND\r\n"),
        ("incr a 1\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
        ("incr missing 1\r\n", "NOT_FOUND\r\n"),
        ("append a 0 0 2\r\n!!\r\n", "STORED\r\n"),
        ("prepend a 0 0 1\r\n>\r\n", "STORED\r\n"),
        ("set q 0 0 1 noreply\r\nq\r\n", ""),
        ("delete nothing noreply\r\n", ""),
        ("gat 100 a q\r\n", "VALUE a 5 6\r\n>one!!\r\nVALUE q 0 1\r\nq\r\nEND\r\n"),
        ("touch a 0\r\n", "TOUCHED\r\n"),
        ("cas a 0 0 1 0\r\nx\r\n", "EXISTS\r\n"),
        ("cas missing 0 0 1 1\r\nx\r\n", "NOT_FOUND\r\n"),
        ("delete a\r\n", "DELETED\r\n"),
        ("delete a\r\n", "NOT_FOUND\r\n"),
        ("set e 0 -1 1\r\nx\r\n", "STORED\r\n"),
        ("get a e\r\n", "END\r\n"),
        ("replace a 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        ("nonsense\r\n", "ERROR\r\n"),
        ("version\r\n", "VERSION 1.6.45\r\n"),
        ("verbosity 1\r\n", "OK\r\n"),
        ("delete b\r\ndelete q\r\n", "DELETED\r\nDELETED\r\n"),
    ]

    private let says = conversation.map(\.says).joined()
    private let hears = conversation.map(\.hears).joined()

    @Test func `every command is answered as memcached does`() {
        let client = TestClient(TestWorker())
        for (says, hears) in Self.conversation { #expect(client.ask(says) == hears, "\(says)") }
        #expect(client.session.isIdle)
    }

    @Test func `a pipeline is answered at once and in its order`() {
        let client = TestClient(TestWorker())
        #expect(client.ask(says) == hears)
        #expect(client.untaken == 0)
    }

    @Test func `where the bytes are split makes no difference`() {
        // The conversation leaves nothing behind, so that one worker serves all.
        let worker = TestWorker()
        let bytes = Array(says.utf8)
        for split in 0...bytes.count {
            let client = TestClient(worker)
            client.send(bytes[..<split])
            client.send(bytes[split...])
            #expect(client.take() == hears, "split at \(split)")
        }
        let slow = TestClient(worker)
        for byte in bytes { slow.send([byte]) }
        #expect(slow.take() == hears)
    }

    @Test func `a unique that was read decides a cas`() throws {
        let client = TestClient(TestWorker())
        _ = client.ask("set a 0 0 1\r\nx\r\n")
        let unique = try #require(client.ask("gets a\r\n").split(separator: "\r\n").first?.split(separator: " ").last)
        #expect(client.ask("cas a 0 0 1 \(unique)\r\ny\r\n") == "STORED\r\n")
        #expect(client.ask("cas a 0 0 1 \(unique)\r\nz\r\n") == "EXISTS\r\n")
        #expect(client.ask("get a\r\n") == "VALUE a 0 1\r\ny\r\nEND\r\n")
    }

    @Test func `a store that is too large takes the old value with it`() {
        var configuration = DataPlaneConfiguration()
        configuration.itemBytesMax = 1024
        let client = TestClient(TestWorker(configuration: configuration))
        _ = client.ask("set a 0 0 1\r\nx\r\n")
        let large = "set a 0 0 2000\r\n" + String(repeating: "y", count: 2000) + "\r\nget a\r\n"
        #expect(client.ask(large) == "SERVER_ERROR object too large for cache\r\nEND\r\n")
        #expect(client.worker.plane.counters.tooLarge == 1)
    }

    @Test func `a flush of all empties every slice and answers once`() {
        let client = TestClient(TestWorker())
        for key in ["a", "b", "c"] { _ = client.ask("set \(key) 0 0 1\r\nx\r\n") }
        #expect(client.ask("flush_all\r\nget a b c\r\n") == "OK\r\nEND\r\n")
        _ = client.ask("set a 0 0 1\r\nx\r\n")
        #expect(client.ask("flush_all noreply\r\nget a\r\n") == "END\r\n")
        #expect(client.worker.plane.counters.flushes == 2)
    }

    @Test func `a quit takes nothing more`() {
        let client = TestClient(TestWorker())
        #expect(client.ask("set a 0 0 1\r\nx\r\nquit\r\nget a\r\n") == "STORED\r\n")
        #expect(client.session.isClosing)
    }

    @Test func `a client that does not read is not read either`() {
        let client = TestClient(TestWorker())
        _ = client.ask("set a 0 0 100000\r\n" + String(repeating: "x", count: 100_000) + "\r\n")
        let asked = 100
        client.send(String(repeating: "get a\r\n", count: asked))
        #expect(client.untaken > 0)
        #expect(client.session.wantsResume)
        #expect(client.session.output.unsentBytes < ClientSession.outputBytesMax + 200_000)
        var answers = client.take().count
        while client.untaken > 0 {
            client.pump()
            answers += client.take().count
        }
        #expect(answers == asked * ("VALUE a 0 100000\r\n\r\nEND\r\n".count + 100_000))
    }

    /// Gives a session bytes once; how many it took.
    private func receive(_ text: String, _ client: TestClient) -> Int {
        Array(text.utf8).withUnsafeBytes {
            client.worker.plane.receive(
                $0,
                session: client.session,
                context: client.worker.context,
                outbox: &client.worker.outbox
            )
        }
    }

    @Test func `one client takes a bounded share of a turn`() {
        let client = TestClient(TestWorker())
        _ = client.ask("set a 0 0 1\r\nx\r\n")
        let request = "get a\r\n"
        let taken = receive(String(repeating: request, count: 10_000), client) / request.utf8.count
        #expect(taken >= DataPlane.keysPerTurnMax && taken < DataPlane.keysPerTurnMax + BatchKey.countMax)
        #expect(client.session.wantsResume)
        let isRight = client.take() == String(repeating: "VALUE a 0 1\r\nx\r\nEND\r\n", count: taken)
        #expect(isRight)
    }

    @Test func `a get of very many keys is answered whole and in its place`() {
        let client = TestClient(TestWorker())
        for key in ["a", "b"] { _ = client.ask("set \(key) 0 0 1\r\n\(key)\r\n") }
        let values = "VALUE a 0 1\r\na\r\nVALUE b 0 1\r\nb\r\n"
        for count in [1, 15, 16, 17, 511, 512, 513, 4000] {
            let line = "get" + String(repeating: " a missing  b", count: count) + "\r\n"
            let hears = client.ask("get a\r\n" + line + "gets nothing here\r\n" + line)
            let long = String(repeating: values, count: count) + "END\r\n"
            let isRight = hears == "VALUE a 0 1\r\na\r\nEND\r\n" + long + "END\r\n" + long
            #expect(isRight, "\(count)")
            #expect(client.untaken == 0)
        }
    }

    @Test func `large answers to one get are written as the client takes them`() {
        let client = TestClient(TestWorker())
        let value = String(repeating: "v", count: 50_000)
        _ = client.ask("set a 0 0 50000\r\n\(value)\r\n")
        client.send("get" + String(repeating: " a", count: 100) + "\r\nversion\r\n")
        var answers = ""
        var rounds = 0
        while client.untaken > 0, rounds < 1000 {
            #expect(client.session.output.unsentBytes < ClientSession.outputBytesMax + 60_000)
            answers += client.take()
            client.pump()
            rounds += 1
        }
        answers += client.take()
        let each = "VALUE a 0 50000\r\n\(value)\r\n"
        let isRight = answers == String(repeating: each, count: 100) + "END\r\nVERSION 1.6.45\r\n"
        #expect(isRight)
    }

    @Test func `an idle session gives its room back`() {
        let client = TestClient(TestWorker())
        #expect(client.ask("set a 0 0 1\r\nx\r\nget a\r\n") == "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n")
        #expect(client.session.output.buffer.capacityBytes > 0)
        client.worker.plane.reclaim(client.session)
        #expect(client.session.output.buffer.capacityBytes == 0)
        #expect(client.ask("get a\r\n") == "VALUE a 0 1\r\nx\r\nEND\r\n")
        client.session.trim()
        #expect(client.session.output.buffer.capacityBytes == 0)
    }

    @Test func `what clients do is counted`() {
        let client = TestClient(TestWorker())
        client.send(says)
        let counters = client.worker.plane.counters
        #expect(counters.getHits == 6)
        #expect(counters.getMisses == 4)
        #expect(counters.deleteHits == 3)
        #expect(counters.deleteMisses == 2)
        #expect(counters.incrementHits == 1)
        #expect(counters.incrementMisses == 1)
        #expect(counters.decrementHits == 1)
        #expect(counters.casMisses == 1)
        #expect(counters.casBadValue == 1)
    }
}
