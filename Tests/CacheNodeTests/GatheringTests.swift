import ClusterCore
import PeerProtocol
import Replication
import Testing

@testable import CacheNode

@Suite struct GatheringTests {
    private let far = Slice.index(of: KeyHash.hash(Array("far".utf8)))

    /// Several clients of one worker, of which each has said something that stays where it is.
    private final class Crowd {
        let worker: TestWorker
        let clients: [TestClient]
        private var kept: [UnsafeMutableRawBufferPointer] = []

        init(_ worker: TestWorker, count: Int) {
            self.worker = worker
            clients = (0..<count).map { _ in TestClient(worker) }
        }

        deinit { for bytes in kept { bytes.deallocate() } }

        func gather(_ index: Int, _ text: String) -> Bool {
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: text.utf8.count, alignment: 1)
            bytes.copyBytes(from: text.utf8)
            kept.append(bytes)
            return worker.plane.gather(UnsafeRawBufferPointer(bytes), clients[index].session)
        }

        func execute() {
            worker.plane.executeGathered(context: worker.context, outbox: &worker.outbox)
        }
    }

    @Test func `gathered requests have the answers that each would have alone`() {
        for seed in 1...30 as ClosedRange<UInt64> {
            var random = Xoshiro256(seed: seed)
            let crowd = Crowd(TestWorker(), count: BatchKey.countMax)
            let alone = TestClient(TestWorker())
            for _ in 0..<20 {
                let asked = (0..<Int.random(in: 1...BatchKey.countMax, using: &random)).map { _ in
                    let key = "k\(Int.random(in: 0..<12, using: &random))"
                    return [
                        "get \(key)\r\n", "gat 0 \(key)\r\n", "set \(key) 3 0 2\r\n10\r\n", "incr \(key) 7\r\n",
                        "append \(key) 0 0 1\r\n1\r\n", "delete \(key)\r\n", "set \(key) 0 0 1 noreply\r\n5\r\n",
                        "add \(key) 0 0 1\r\n1\r\n", "touch \(key) 0\r\n", "cas \(key) 0 0 1 1\r\n4\r\n",
                    ][Int.random(in: 0..<10, using: &random)]
                }
                for (index, text) in asked.enumerated() {
                    #expect(crowd.gather(index, text), "\(text) seed \(seed)")
                }
                #expect(crowd.worker.plane.gatheredCount == asked.count)
                crowd.execute()
                #expect(crowd.worker.plane.gatheredCount == 0)
                for (index, text) in asked.enumerated() {
                    #expect(crowd.clients[index].take() == alone.ask(text), "\(text) seed \(seed)")
                }
            }
            #expect(crowd.worker.plane.counters == alone.worker.plane.counters, "seed \(seed)")
        }
    }

    @Test(
        arguments: [
            ("get a\r\nget a\r\n", "END\r\nEND\r\n"), ("get a b\r\n", "END\r\n"), ("nonsense\r\n", "ERROR\r\n"),
            ("version\r\n", "VERSION 1.6.45\r\n"), ("incr a x\r\n", "CLIENT_ERROR invalid numeric delta argument\r\n"),
            ("set a 0 0 1\r\n1\r\nget", "STORED\r\n"), ("set a 0 0 5\r\n1", ""), ("get a", ""), ("", ""),
        ]
    )
    func `what is more or less than a request about a key is left as it was`(says: String, hears: String) {
        let crowd = Crowd(TestWorker(), count: 1)
        #expect(!crowd.gather(0, says))
        #expect(crowd.worker.plane.gatheredCount == 0)
        #expect(crowd.clients[0].ask(says) == hears)
    }

    @Test func `a client that waits for another node is not gathered`() throws {
        let worker = TestWorker(others: [far: PeerNumber(2)])
        worker.connect(2)
        let crowd = Crowd(worker, count: 1)
        #expect(crowd.gather(0, "get far\r\n"))
        #expect(!crowd.clients[0].session.isIdle || worker.plane.gatheredCount == 1)
        crowd.execute()
        #expect(!crowd.gather(0, "get near\r\n"))
        worker.respond(try #require(try worker.takeForwarded().first), .hit, Array("F".utf8))
        #expect(crowd.clients[0].take() == "VALUE far 0 1\r\nF\r\nEND\r\n")
        #expect(crowd.gather(0, "get near\r\n"))
        crowd.execute()
        #expect(crowd.clients[0].take() == "END\r\n")
    }

    @Test func `no more is gathered than a batch has room for`() {
        let crowd = Crowd(TestWorker(), count: BatchKey.countMax + 1)
        for index in 0..<BatchKey.countMax { #expect(crowd.gather(index, "get a\r\n")) }
        #expect(!crowd.gather(BatchKey.countMax, "get a\r\n"))
        crowd.execute()
        #expect(crowd.gather(BatchKey.countMax, "get a\r\n"))
        crowd.execute()
        #expect(crowd.clients.map { $0.take() } == Array(repeating: "END\r\n", count: BatchKey.countMax + 1))
    }

    @Test func `no more is gathered than may wait for other nodes`() throws {
        var configuration = DataPlaneConfiguration()
        configuration.requestsMax = 3
        let worker = TestWorker(others: [far: PeerNumber(2)], configuration: configuration)
        worker.connect(2)
        let crowd = Crowd(worker, count: 4)
        let taken = (0..<4).map { crowd.gather($0, "get far\r\n") }
        #expect(taken == [true, true, true, false])
        crowd.execute()
        #expect(try worker.takeForwarded().count == 3)
        #expect(worker.plane.requestCount == 3)
    }

    @Test func `what was gathered comes before what is received, and before a new topology`() throws {
        let worker = TestWorker()
        let crowd = Crowd(worker, count: 2)
        #expect(crowd.gather(0, "set far 0 0 1\r\n1\r\n"))
        #expect(crowd.clients[1].ask("get far near\r\n") == "VALUE far 0 1\r\n1\r\nEND\r\n")
        #expect(crowd.clients[0].take() == "STORED\r\n")
        #expect(crowd.gather(0, "get far\r\n"))
        worker.publish(far, PeerNumber(2))
        #expect(crowd.clients[0].take() == "VALUE far 0 1\r\n1\r\nEND\r\n")
    }

    @Test func `a client that is gone is passed over`() {
        let crowd = Crowd(TestWorker(), count: 2)
        #expect(crowd.gather(0, "set a 0 0 1\r\n1\r\n"))
        #expect(crowd.gather(1, "get a\r\n"))
        crowd.clients[0].session.isGone = true
        crowd.execute()
        #expect(crowd.clients[0].take() == "")
        #expect(crowd.clients[1].take() == "END\r\n")
    }

    @Test func `asking for memory ahead changes nothing, whatever the frames are`() {
        let worker = TestWorker()
        for seed in 1...200 as ClosedRange<UInt64> {
            var random = Xoshiro256(seed: seed)
            var buffer = ByteBuffer()
            for number in 0..<Int.random(in: 0...60, using: &random) {
                let key = Array("k\(number)".utf8)
                key.withUnsafeBytes {
                    RequestFrame(id: UInt64(number), ringHash: 77, epoch: 9, verb: .get, key: $0).append(to: &buffer)
                }
            }
            var bytes = buffer.array()
            for _ in 0..<Int.random(in: 0...3, using: &random) where !bytes.isEmpty {
                bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            bytes.removeLast(Int.random(in: 0...min(bytes.count, 5), using: &random))
            bytes.withUnsafeBytes { worker.plane.prefetchRequests(in: $0) }
        }
        #expect(worker.outbox.sends.isEmpty)
        #expect(worker.plane.counters == CommandCounters())
    }
}
