import ClusterCore
import PeerProtocol
import Replication
import Testing

@testable import CacheNode

@Suite struct StreamTests {
    private let keys = Keys.all

    @Test func `a holder without copies answers at once`() throws {
        let cluster = TestCluster(1)
        cluster.startEmpty(0, epoch: 1)
        #expect(cluster.request(0, .set, keys[0], "a") == .done(.stored, []))
        #expect(cluster.request(0, .get, keys[0]) == .done(.hit, Array("a".utf8)))
        #expect(cluster.network.isEmpty)
    }

    @Test func `a write is answered when the copy has it, and not before`() throws {
        let cluster = try TestCluster.inSync(2)
        #expect(cluster.request(0, .set, keys[0], "a") == .pending)
        #expect(cluster.answers(0).isEmpty)
        let entry = try #require(cluster.take(to: 1).first)
        try cluster.deliver(entry)
        #expect(cluster.content(1) == cluster.content(0))
        #expect(cluster.answers(0).isEmpty, "the acknowledgement is under way")
        try cluster.run()
        #expect(cluster.answers(0) == [.stored])
        #expect(cluster.nodes[0].completions.first?.origin.id == 1)
    }

    @Test func `a write waits for every copy`() throws {
        let cluster = try TestCluster.inSync(3)
        #expect(cluster.request(0, .set, keys[0], "a") == .pending)
        let slow = cluster.take(to: 2)
        try cluster.run()
        #expect(cluster.answers(0).isEmpty)
        for message in slow { try cluster.deliver(message) }
        try cluster.run()
        #expect(cluster.answers(0) == [.stored])
    }

    @Test func `writes are answered in their order, one acknowledgement for several`() throws {
        let cluster = try TestCluster.inSync(2)
        for index in 0..<4 { #expect(cluster.request(0, .set, keys[index], "a") == .pending) }
        for entry in cluster.take(to: 1) { try cluster.deliver(entry) }
        // Only the last of the four acknowledgements arrives.
        let acknowledgements = cluster.take(to: 0)
        #expect(acknowledgements.count == 4)
        try cluster.deliver(try #require(acknowledgements.last))
        #expect(cluster.nodes[0].completions.map(\.origin.id) == [1, 2, 3, 4])
        // The others come late and change nothing.
        for acknowledgement in acknowledgements { try cluster.deliver(acknowledgement) }
        #expect(cluster.nodes[0].completions.count == 4)
    }

    @Test func `what changes nothing is answered at once and sends nothing`() throws {
        let cluster = try TestCluster.inSync(2)
        #expect(cluster.request(0, .replace, keys[0], "a") == .done(.notStored, []))
        #expect(cluster.request(0, .increment, keys[0], delta: 1) == .done(.notFound, []))
        #expect(cluster.request(0, .touch, keys[0]) == .done(.notFound, []))
        #expect(cluster.request(0, .get, keys[0]) == .done(.miss, []))
        #expect(cluster.network.isEmpty)
    }

    @Test func `nobody is answered without a lease, and all are once it is back`() throws {
        let cluster = try TestCluster.inSync(2)
        #expect(cluster.request(0, .set, keys[0], "a") == .pending)
        cluster.leaseUntil = cluster.now.instant
        try cluster.run()
        #expect(cluster.answers(0).isEmpty, "a takeover may have happened")
        #expect(cluster.request(0, .get, keys[0]) == .elsewhere(.none))
        #expect(cluster.request(0, .set, keys[0], "b") == .elsewhere(.none))
        cluster.leaseUntil = .distantFuture
        cluster.advance(0)
        #expect(cluster.answers(0) == [.stored])
    }

    @Test func `too many waiting writes are refused`() throws {
        var configuration = ReplicationConfiguration()
        configuration.pendingWritesMax = 2
        let cluster = try TestCluster.inSync(2, configuration: configuration)
        #expect(cluster.request(0, .set, keys[0], "a") == .pending)
        #expect(cluster.request(0, .set, keys[1], "a") == .pending)
        #expect(cluster.request(0, .set, keys[2], "a") == .busy)
        #expect(cluster.request(0, .get, keys[0]) == .done(.hit, Array("a".utf8)))
        try cluster.run()
        #expect(cluster.request(0, .set, keys[2], "a") == .pending)
    }

    // MARK: - What travels

    @Test func `the delete of an absent key is replicated`() throws {
        let cluster = try TestCluster.inSync(2)
        // The holder has evicted it, the copy has not.
        cluster.plant(1, keys[0], "old", version: 5)
        #expect(cluster.request(0, .delete, keys[0]) == .pending)
        try cluster.run()
        #expect(cluster.answers(0) == [.notFound])
        #expect(cluster.content(1).isEmpty)
    }

    @Test func `a store that has expired at once removes the key everywhere`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        try cluster.run()
        #expect(cluster.content(1).count == 1)
        #expect(cluster.request(0, .set, keys[0], "b", exptime: -1) == .pending)
        try cluster.run()
        #expect(cluster.answers(0) == [.stored, .stored])
        #expect(cluster.content(0).isEmpty)
        #expect(cluster.content(1).isEmpty)
    }

    @Test func `a store that expires in this very second removes the key everywhere`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        cluster.request(0, .set, keys[0], "b", exptime: Int64(cluster.now.unixSeconds))
        try cluster.run()
        #expect(cluster.content(0).isEmpty)
        #expect(cluster.content(1).isEmpty)
    }

    @Test func `a touch travels with the value, and keeps the unique`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        try cluster.run()
        #expect(cluster.request(0, .touch, keys[0], exptime: 100) == .pending)
        try cluster.run()
        #expect(cluster.content(1) == cluster.content(0))
        cluster.pass(101_000)
        #expect(cluster.content(0).isEmpty)
        #expect(cluster.content(1).isEmpty)
    }

    @Test func `counters and joined values arrive as results`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "9")
        cluster.request(0, .increment, keys[0], delta: 3)
        cluster.request(0, .append, keys[0], "5")
        try cluster.run()
        #expect(cluster.answers(0) == [.stored, .number, .stored])
        #expect(cluster.request(0, .get, keys[0]) == .done(.hit, Array("125".utf8)))
        #expect(cluster.content(1) == cluster.content(0))
    }

    @Test func `a flush travels`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        try cluster.run()
        #expect(cluster.request(0, .flush, []) == .pending)
        #expect(cluster.content(0).isEmpty)
        try cluster.run()
        #expect(cluster.answers(0) == [.stored, .flushed])
        #expect(cluster.content(1).isEmpty)
        cluster.request(0, .set, keys[0], "b")
        try cluster.run()
        #expect(cluster.content(1).count == 1)
        #expect(cluster.content(1) == cluster.content(0))
    }

    @Test func `a delayed flush travels, and comes due everywhere`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        cluster.request(0, .flush, [], exptime: 10)
        try cluster.run()
        #expect(cluster.content(1).count == 1)
        cluster.pass(11_000)
        #expect(cluster.content(0).isEmpty)
        #expect(cluster.content(1).isEmpty)
    }

    @Test func `versions rise also where the wall clock goes back`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        cluster.now.unixMilliseconds -= 3_600_000
        cluster.request(0, .set, keys[0], "b")
        try cluster.run()
        #expect(cluster.request(0, .get, keys[0]) == .done(.hit, Array("b".utf8)))
        #expect(cluster.content(1) == cluster.content(0))
    }

    // MARK: - Order

    @Test func `entries that come out of order are applied in order`() throws {
        for seed in 1...30 as ClosedRange<UInt64> {
            var random = Xoshiro256(seed: seed)
            let cluster = try TestCluster.inSync(2)
            for step in 0..<40 {
                let key = keys[Int.random(in: 0..<4, using: &random)]
                switch Int.random(in: 0..<4, using: &random) {
                case 0: cluster.request(0, .delete, key)
                case 1: cluster.request(0, .append, key, "\(step)")
                default: cluster.request(0, .set, key, "\(step)")
                }
            }
            for entry in cluster.take(to: 1).shuffled(using: &random) { try cluster.deliver(entry) }
            try cluster.run()
            #expect(cluster.content(1) == cluster.content(0), "seed \(seed)")
            #expect(cluster.look(0) { $0.pendingCount } == 0, "seed \(seed)")
            #expect(cluster.look(1) { $0.earlyCount } == 0, "seed \(seed)")
        }
    }

    @Test func `an entry behind a gap is not acknowledged`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        cluster.request(0, .set, keys[1], "b")
        let entries = cluster.take(to: 1)
        try cluster.deliver(entries[1])
        #expect(cluster.network.isEmpty)
        #expect(cluster.content(1).isEmpty)
        try cluster.deliver(entries[0])
        try cluster.run()
        #expect(cluster.answers(0) == [.stored, .stored])
    }

    @Test func `an entry that comes twice is applied once`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        let first = cluster.take(to: 1)
        for message in first { try cluster.deliver(message) }
        try cluster.run()
        cluster.request(0, .set, keys[0], "b")
        try cluster.run()
        for message in first { try cluster.deliver(message) }
        try cluster.run()
        #expect(cluster.content(1) == cluster.content(0))
        #expect(cluster.answers(0) == [.stored, .stored])
    }

    @Test func `an early entry that comes twice takes one place`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        cluster.request(0, .set, keys[1], "b")
        let entries = cluster.take(to: 1)
        for _ in 0..<3 { try cluster.deliver(entries[1]) }
        #expect(cluster.look(1) { $0.earlyCount } == 1)
        try cluster.deliver(entries[0])
        try cluster.run()
        #expect(cluster.look(1) { $0.earlyCount } == 0)
        #expect(cluster.content(1) == cluster.content(0))
    }

    @Test func `a copy that holds back too much leaves, and learns again`() throws {
        var configuration = ReplicationConfiguration()
        configuration.earlyEntriesMax = 3
        let cluster = try TestCluster.inSync(2, configuration: configuration)
        for index in 0..<6 { cluster.request(0, .set, keys[index], "a") }
        // The first is lost.
        for message in cluster.take(to: 1).dropFirst() { try cluster.deliver(message) }
        #expect(!cluster.isInSync(1))
        try cluster.run()
        #expect(cluster.look(1) { $0.earlyCount } == 0)
        #expect(cluster.answers(0) == Array(repeating: .stored, count: 6), "nobody waits for it any more")
        cluster.pass(200)
        try cluster.settle(0, wanted: [0, 1])
        #expect(cluster.isInSync(1))
        #expect(cluster.content(1) == cluster.content(0))
    }

    @Test func `an entry of a stream that is unknown is refused`() throws {
        let cluster = try TestCluster.inSync(3)
        cluster.request(0, .set, keys[0], "a")
        var entry = try #require(cluster.take(to: 1).first)
        _ = cluster.take(to: 2)
        entry.from = 2
        try cluster.deliver(entry)
        #expect(cluster.take(to: 2).map(\.kind) == [.refusal])
        #expect(cluster.content(1).isEmpty)
    }

    // MARK: - Who is waited for no longer

    @Test func `a refusal removes the stream and answers what waited for it`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        #expect(cluster.look(0) { $0.requires(PeerNumber(2)) })
        cluster.change(1) { shard, _ in shard.leave(cluster.slice) }
        try cluster.run()
        #expect(cluster.answers(0) == [.stored])
        #expect(!cluster.look(0) { $0.requires(PeerNumber(2)) })
        #expect(cluster.look(0) { $0.inSyncCount(cluster.slice) } == 0)
        #expect(cluster.look(0) { $0.counters.refusals } == 1)
        // Not at once again.
        cluster.walk(0, wanted: [0, 1])
        #expect(cluster.network.isEmpty)
        cluster.pass(100)
        cluster.walk(0, wanted: [0, 1])
        #expect(cluster.network.map(\.kind) == [.offer])
    }

    @Test func `a peer that is late is named, and its exclusion answers what waited`() throws {
        let cluster = try TestCluster.inSync(3)
        cluster.request(0, .set, keys[0], "a")
        let lost = cluster.take(to: 2)
        try cluster.run()
        cluster.pass(99)
        #expect(cluster.advance(0).isEmpty)
        cluster.pass(1)
        #expect(cluster.advance(0) == [PeerNumber(3)])
        cluster.change(0) { $0.dropStreams(to: PeerNumber(3), context: cluster.context, outbox: &$1) }
        #expect(cluster.answers(0) == [.stored])
        #expect(cluster.advance(0).isEmpty)
        // What the excluded one says now counts for nothing.
        for message in lost { try cluster.deliver(message) }
        try cluster.run()
        #expect(cluster.look(0) { $0.inSyncCount(cluster.slice) } == 1)
    }

    @Test func `a peer's end forgets its streams`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        cluster.change(0) { $0.forgetPeer(PeerNumber(2), context: cluster.context, outbox: &$1) }
        #expect(cluster.answers(0) == [.stored])
        #expect(cluster.request(0, .set, keys[0], "b") == .done(.stored, []))
    }
}
