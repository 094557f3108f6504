import ClusterCore
import PeerProtocol
import Replication
import Testing

@testable import CacheNode

@Suite struct ForwardingTests {
    private let away = PeerNumber(2)
    private let third = PeerNumber(3)
    private let slice = Slice.index(of: KeyHash.hash(Array("far".utf8)))

    /// A node that serves everything but the slice of `far`, which another node holds.
    private func worker(_ holder: PeerNumber? = PeerNumber(2)) -> TestWorker {
        let worker = TestWorker(others: [slice: holder ?? .none])
        worker.connect(2)
        worker.connect(3)
        return worker
    }

    @Test func `answers keep the order of the requests when some of them wait`() throws {
        let worker = worker()
        let client = TestClient(worker)
        client.send(
            "set near 0 0 1\r\nn\r\nget far\r\nget near\r\nversion\r\nset x 0 0 1 noreply\r\nx\r\nget x far near\r\n"
        )
        #expect(client.take() == "STORED\r\n")
        let asked = try worker.takeForwarded()
        #expect(asked.map(\.key) == ["far", "far"])
        #expect(asked.map(\.verb) == [.get, .get])
        // The second is answered first, and waits.
        worker.respond(asked[1], .hit, Array("F".utf8))
        #expect(client.take() == "")
        #expect(!client.session.isIdle)
        worker.respond(asked[0], .miss)
        let rest = "END\r\nVALUE near 0 1\r\nn\r\nEND\r\nVERSION 1.6.45\r\n"
        let last = "VALUE x 0 1\r\nx\r\nVALUE far 0 1\r\nF\r\nVALUE near 0 1\r\nn\r\nEND\r\n"
        #expect(client.take() == rest + last)
        #expect(client.session.isIdle)
    }

    @Test func `answers of a random order come in the order of the requests`() throws {
        for seed in 1...50 as ClosedRange<UInt64> {
            var random = Xoshiro256(seed: seed)
            let worker = worker()
            let client = TestClient(worker)
            var expected = ""
            var waiting: [TestWorker.Forwarded] = []
            for number in 0..<30 {
                if Bool.random(using: &random) {
                    client.send("get far\r\n")
                    expected += "VALUE far 0 2\r\n\(10 + number)\r\nEND\r\n"
                    waiting += try worker.takeForwarded()
                } else {
                    client.send("get near\r\n")
                    expected += "END\r\n"
                }
            }
            let numbers = expected.split(separator: "\r\n").filter { $0.count == 2 }.map { Array($0.utf8) }
            var heard = ""
            for (request, value) in zip(waiting, numbers).shuffled(using: &random) {
                worker.respond(request, .hit, value)
                heard += client.take()
                #expect(expected.hasPrefix(heard), "seed \(seed)")
            }
            #expect(heard + client.take() == expected, "seed \(seed)")
        }
    }

    @Test func `quiet commands leave no gap in the answers`() throws {
        let worker = worker()
        let client = TestClient(worker)
        client.send("set far 0 0 1 noreply\r\nx\r\nversion\r\n")
        #expect(client.take() == "VERSION 1.6.45\r\n")
        let asked = try worker.takeForwarded()
        worker.respond(try #require(asked.first), .stored)
        #expect(client.take() == "")
        #expect(client.session.isIdle)
    }

    @Test func `what follows a write on the same slice waits for it`() throws {
        let worker = worker()
        let client = TestClient(worker)
        client.send("set far 0 0 1\r\nx\r\nget near\r\nget far\r\n")
        let first = try worker.takeForwarded()
        #expect(first.map(\.verb) == [.set])
        #expect(client.untaken == "get far\r\n".utf8.count)
        #expect(client.session.waitsForRequest)
        worker.respond(first[0], .stored)
        client.pump()
        let second = try worker.takeForwarded()
        #expect(second.map(\.verb) == [.get])
        worker.respond(second[0], .hit, Array("x".utf8))
        #expect(client.take() == "STORED\r\nEND\r\nVALUE far 0 1\r\nx\r\nEND\r\n")
    }

    // MARK: - Nobody, or somebody else

    @Test func `a key whose slice nobody holds is a miss in time, and no error`() {
        let worker = worker(nil)
        let client = TestClient(worker)
        client.send("set near 0 0 1\r\nn\r\nget near far near\r\n")
        #expect(client.take() == "STORED\r\nVALUE near 0 1\r\nn\r\n")
        worker.pass(4900)
        #expect(client.take() == "")
        worker.pass(100)
        #expect(client.take() == "VALUE near 0 1\r\nn\r\nEND\r\n")
        #expect(worker.plane.counters.timedOut == 1)
        #expect(worker.plane.nextDeadline >= worker.now.instant)
    }

    @Test func `a write whose slice nobody holds is an error in time`() {
        let worker = worker(nil)
        let client = TestClient(worker)
        client.send("set far 0 0 1\r\nx\r\nversion\r\n")
        #expect(client.take() == "")
        worker.pass(5000)
        let answer = "SERVER_ERROR no node holds this key now; try again\r\n"
        #expect(client.take() == answer + "VERSION 1.6.45\r\n")
    }

    @Test func `a parked request goes on when somebody holds the slice`() throws {
        let worker = worker(nil)
        let client = TestClient(worker)
        client.send("set far 0 0 1\r\nx\r\n")
        #expect(try worker.takeForwarded().isEmpty)
        worker.publish(slice, third)
        let asked = try worker.takeForwarded()
        #expect(asked.map(\.peer) == [third])
        worker.respond(asked[0], .stored)
        #expect(client.take() == "STORED\r\n")
    }

    @Test func `a parked request is executed here when this node gets the slice`() {
        let worker = worker(nil)
        let client = TestClient(worker)
        client.send("set far 0 0 1\r\nx\r\n")
        worker.serve(slice)
        worker.publish(slice, TestWorker.own)
        #expect(client.take() == "STORED\r\n")
        client.pump()
        #expect(client.ask("get far\r\n") == "VALUE far 0 1\r\nx\r\nEND\r\n")
    }

    @Test func `who does not hold the slice names the holder, and is believed once`() throws {
        let worker = worker()
        let client = TestClient(worker)
        client.send("get far\r\n")
        let first = try worker.takeForwarded()
        worker.respondNotHolder(first[0], named: third)
        let second = try worker.takeForwarded()
        #expect(second.map(\.peer) == [third])
        #expect(second[0].id != first[0].id)
        // Each says that the other has it: parked, and tried again a little later.
        worker.respondNotHolder(second[0], named: away)
        #expect(try worker.takeForwarded().isEmpty)
        worker.pass(2)
        let again = try worker.takeForwarded()
        #expect(again.map(\.peer) == [away])
        worker.respond(again[0], .hit, Array("x".utf8))
        #expect(client.take() == "VALUE far 0 1\r\nx\r\nEND\r\n")
    }

    @Test func `answers to earlier tries and from strangers find nothing`() throws {
        let worker = worker()
        let client = TestClient(worker)
        client.send("get far\r\n")
        let first = try worker.takeForwarded()
        worker.respond(first[0], .hit, Array("?".utf8), from: third)
        #expect(client.take() == "")
        worker.respondNotHolder(first[0], named: third)
        let second = try worker.takeForwarded()
        worker.respond(first[0], .hit, Array("?".utf8))
        #expect(client.take() == "")
        worker.respond(second[0], .hit, Array("x".utf8))
        worker.respond(second[0], .hit, Array("?".utf8))
        #expect(client.take() == "VALUE far 0 1\r\nx\r\nEND\r\n")
    }

    // MARK: - Lost links

    @Test(arguments: [
        "incr far 1\r\n", "decr far 1\r\n", "add far 0 0 1\r\nx\r\n", "replace far 0 0 1\r\nx\r\n",
        "append far 0 0 1\r\nx\r\n", "prepend far 0 0 1\r\nx\r\n", "cas far 0 0 1 5\r\nx\r\n",
    ])
    func `what a second time would change is not repeated after a lost link`(_ command: String) throws {
        let worker = worker()
        let client = TestClient(worker)
        client.send(command)
        #expect(try worker.takeForwarded().count == 1)
        worker.disconnect(2)
        #expect(client.take() == "SERVER_ERROR a node was lost; the command may have taken effect\r\n")
        worker.connect(2)
        worker.pass(10)
        #expect(try worker.takeForwarded().isEmpty)
        #expect(worker.plane.counters.ambiguous == 1)
    }

    @Test(arguments: [
        ("set far 0 0 1\r\nx\r\n", ReplyStatus.stored, "STORED\r\n"), ("delete far\r\n", .deleted, "DELETED\r\n"),
        ("touch far 5\r\n", .touched, "TOUCHED\r\n"), ("get far\r\n", .miss, "END\r\n"),
        ("gat 5 far\r\n", .miss, "END\r\n"),
    ])
    func `what a second time does not change is repeated after a lost link`(
        _ command: String,
        _ status: ReplyStatus,
        _ answer: String
    ) throws {
        let worker = worker()
        let client = TestClient(worker)
        client.send(command)
        let first = try worker.takeForwarded()
        worker.disconnect(2)
        #expect(client.take() == "")
        worker.connect(2)
        let second = try worker.takeForwarded()
        #expect(second.map(\.verb) == first.map(\.verb))
        // The first answer comes after all.
        worker.respond(first[0], .notStored)
        #expect(client.take() == "")
        worker.respond(second[0], status)
        #expect(client.take() == answer)
        #expect(worker.plane.counters.ambiguous == 0)
    }

    @Test func `a holder that lost the slice before it answered makes a count ambiguous`() throws {
        let worker = worker()
        let client = TestClient(worker)
        client.send("incr far 1\r\n")
        worker.respond(try worker.takeForwarded()[0], .unknown)
        #expect(client.take() == "SERVER_ERROR a node was lost; the command may have taken effect\r\n")
    }

    @Test func `a node that sleeps is believed to hold nothing when the topology says so`() throws {
        let worker = worker()
        let client = TestClient(worker)
        client.send("get far\r\n")
        #expect(try worker.takeForwarded().map(\.peer) == [away])
        worker.publish(slice, third)
        #expect(try worker.takeForwarded().isEmpty, "it may still answer")
        worker.pass(100)
        worker.pass(2)
        #expect(try worker.takeForwarded().map(\.peer) == [third])
        #expect(client.take() == "")
    }

    @Test func `busy is an error for a write and a miss in a multi-get`() throws {
        let worker = worker()
        let client = TestClient(worker)
        client.send("get far near\r\nset far 0 0 1\r\nx\r\n")
        let asked = try worker.takeForwarded()
        for request in asked { worker.respond(request, .busy) }
        #expect(client.take() == "END\r\nSERVER_ERROR busy; try again\r\n")
    }

    @Test func `an answer for a client that is gone is dropped`() throws {
        let worker = worker()
        let client = TestClient(worker)
        client.send("set far 0 0 1\r\nx\r\n")
        client.session.isGone = true
        worker.respond(try worker.takeForwarded()[0], .stored)
        #expect(client.take() == "")
        #expect(worker.plane.requestCount == 0)
    }

    @Test func `too many requests under way stop the reading, and the end of one resumes it`() throws {
        var configuration = DataPlaneConfiguration()
        configuration.requestsMax = 2
        let worker = TestWorker(others: [slice: away], configuration: configuration)
        worker.connect(2)
        let client = TestClient(worker)
        client.send("get far\r\nget far\r\nget far\r\n")
        let asked = try worker.takeForwarded()
        #expect(asked.count == 2)
        #expect(client.untaken == "get far\r\n".utf8.count)
        worker.respond(asked[0], .miss)
        #expect(worker.plane.takeTouched().contains { $0 === client.session && $0.wantsResume })
        client.pump()
        #expect(try worker.takeForwarded().count == 1)
        #expect(client.untaken == 0)
    }

    // MARK: - For other nodes

    /// What a node answers to a request that another one forwarded.
    private func serve(
        _ worker: TestWorker,
        _ verb: RequestFrame.Verb,
        _ key: String,
        _ value: String = "",
        epoch: UInt32 = 9
    ) throws
        -> (status: ReplyStatus, value: [UInt8])
    {
        worker.outbox.removeAll()
        Array(key.utf8).withUnsafeBytes { key in
            Array(value.utf8).withUnsafeBytes { value in
                let frame = RequestFrame(id: 5, ringHash: 0, epoch: epoch, verb: verb, key: key, value: value)
                worker.plane.receive(frame, link: 8, context: worker.context, outbox: &worker.outbox)
            }
        }
        try #require(worker.outbox.sends.count == 1)
        #expect(worker.outbox.sends[0].target == .link(8))
        let (_, body, _) = try #require(try Frame.next(in: worker.outbox.bytes.bytes))
        let response = try ResponseFrame(body)
        #expect(response.id == 5)
        return (response.status, Array(response.value))
    }

    @Test func `a forwarded request is answered on its link`() throws {
        let worker = worker()
        #expect(try serve(worker, .set, "near", "n").status == .stored)
        let hit = try serve(worker, .get, "near")
        #expect(hit.status == .hit)
        #expect(hit.value == Array("n".utf8))
        #expect(worker.plane.counters.served == 2)
    }

    @Test func `who does not hold the slice says who does`() throws {
        let worker = worker(third)
        let reply = try serve(worker, .get, "far")
        #expect(reply.status == .notHolder)
        var name = ByteBuffer()
        name.append(TestWorker.reference(third))
        #expect(reply.value == name.array())
        let nobody = try serve(self.worker(nil), .get, "far")
        #expect(nobody.status == .notHolder)
        #expect(nobody.value.isEmpty)
    }

    @Test func `a write that was sent in an earlier epoch is refused, by who serves the slice now`() throws {
        let worker = worker()
        var own = ByteBuffer()
        own.append(TestWorker.reference(TestWorker.own))
        for verb in [.set, .delete, .touch, .flush] as [RequestFrame.Verb] {
            let late = try serve(worker, verb, "near", "l", epoch: 8)
            #expect(late.status == .notHolder, "\(verb)")
            #expect(late.value == own.array())
        }
        #expect(worker.plane.counters.outdated == 4)
        #expect(try serve(worker, .get, "near", epoch: 8).status == .miss, "a late read does no harm")
        #expect(try serve(worker, .set, "near", "n", epoch: 9).status == .stored)
        #expect(try serve(worker, .get, "near").value == Array("n".utf8))
    }

    @Test func `who is told of a later epoch asks again in it`() throws {
        let worker = worker()
        let client = TestClient(worker)
        client.send("set far 0 0 1\r\na\r\n")
        let asked = try #require(try worker.takeForwarded().first)
        var name = ByteBuffer()
        name.append(TestWorker.reference(asked.peer))
        worker.respond(asked, .notHolder, name.array(), number: 12)
        let again = try #require(try worker.takeForwarded(epoch: 12).first)
        #expect(again.peer == asked.peer)
        #expect(again.id != asked.id)
        // Once more, and in the same epoch it would be no news.
        worker.respond(again, .notHolder, name.array(), number: 12)
        #expect(try worker.takeForwarded().isEmpty)
        worker.pass(2)
        let last = try #require(try worker.takeForwarded(epoch: 12).first)
        worker.respond(last, .stored)
        #expect(client.take() == "STORED\r\n")
    }

    @Test func `a write that waits for copies is answered when they have it`() throws {
        let worker = worker()
        worker.plane.complete(
            Outbox.Completion(origin: Origin(worker: 0, link: 8, id: 5), reply: Reply(.number, number: 7)),
            context: worker.context,
            outbox: &worker.outbox
        )
        let (_, body, _) = try #require(try Frame.next(in: worker.outbox.bytes.bytes))
        let response = try ResponseFrame(body)
        #expect(response.status == .number)
        #expect(response.number == 7)
    }
}
