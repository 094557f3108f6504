import ClusterCore
import PeerProtocol
import Replication
import Testing

@testable import CacheNode

@Suite struct LearningTests {
    private let keys = Keys.all

    /// The items and the mere hashes in the snapshots under way to a node.
    private func snapshot(_ cluster: TestCluster) throws -> (items: Int, hashes: Int) {
        var counts = (items: 0, hashes: 0)
        for message in cluster.network where message.entry?.kind == .snapshot {
            try message.bytes.withUnsafeBytes { raw in
                let entry = try EntryFrame(UnsafeRawBufferPointer(rebasing: raw[Frame.headerBytes...]))
                var reader = ByteReader(entry.payload)
                while reader.remaining > 0 {
                    if try reader.integer(UInt8.self) == 1 {
                        _ = try reader.integer(UInt64.self)
                        counts.hashes += 1
                    } else {
                        _ = try WireItem(&reader)
                        counts.items += 1
                    }
                }
            }
        }
        return counts
    }

    @Test func `a learner takes the differences and drops what the holder does not have`() throws {
        let cluster = TestCluster(2)
        cluster.startEmpty(0, epoch: 1)
        for index in 0..<6 { cluster.request(0, .set, keys[index], "new\(index)") }
        // Kept from an earlier life: three that are equal, one that is older, and two that were deleted since.
        for index in 0..<3 {
            let text = try #require(cluster.content(0)[String(decoding: keys[index], as: UTF8.self)])
            let version = try #require(UInt64(text.split(separator: "@")[1]))
            cluster.plant(1, keys[index], "new\(index)", version: version)
        }
        // Above what the holder began with: no flush takes them.
        let later = cluster.now.unixMilliseconds << 16 + 1
        cluster.plant(1, keys[3], "old", version: later)
        cluster.plant(1, keys[8], "deleted", version: later)
        cluster.plant(1, keys[9], "deleted", version: later + 1)
        #expect(cluster.content(1).count == 6)

        cluster.walk(0, wanted: [0, 1])
        #expect(cluster.network.map(\.kind) == [.offer])
        try cluster.deliver(cluster.network.removeFirst())
        #expect(cluster.network.map(\.kind) == [.learn])
        try cluster.deliver(cluster.network.removeFirst())
        let counts = try snapshot(cluster)
        #expect(counts.items == 3)
        #expect(counts.hashes == 3)
        try cluster.run()
        #expect(cluster.isInSync(1))
        #expect(cluster.content(1) == cluster.content(0))
        #expect(cluster.look(1) { $0.counters.learned } == 1)
    }

    @Test func `a learner whose inventory is too long learns from nothing`() throws {
        var configuration = ReplicationConfiguration()
        configuration.inventoryMax = 2
        let cluster = TestCluster(2, configuration: configuration)
        cluster.startEmpty(0, epoch: 1)
        for index in 0..<4 {
            cluster.request(0, .set, keys[index], "a")
            cluster.plant(1, keys[index], "old", version: 7)
        }
        try cluster.settle(0, wanted: [0, 1])
        #expect(cluster.isInSync(1))
        #expect(cluster.content(1) == cluster.content(0))
    }

    @Test func `content travels in batches, each asked for by the one before`() throws {
        var configuration = ReplicationConfiguration()
        configuration.snapshotBytesMax = 200
        let cluster = TestCluster(2, configuration: configuration)
        cluster.startEmpty(0, epoch: 1)
        for key in keys { cluster.request(0, .set, key, String(repeating: "a", count: 100)) }
        cluster.walk(0, wanted: [0, 1])
        var batches = 0
        while !cluster.network.isEmpty {
            let snapshots = cluster.network.filter { $0.entry?.kind == .snapshot }.count
            #expect(snapshots <= 1)
            batches += cluster.network[0].entry?.kind == .snapshot ? 1 : 0
            try cluster.deliver(cluster.network.removeFirst())
        }
        #expect(batches >= 4)
        #expect(cluster.content(1) == cluster.content(0))
    }

    @Test func `writes while a copy learns do not wait for it, and reach it`() throws {
        for seed in 1...30 as ClosedRange<UInt64> {
            var random = Xoshiro256(seed: seed)
            var configuration = ReplicationConfiguration()
            configuration.snapshotBytesMax = 150
            let cluster = TestCluster(2, configuration: configuration)
            cluster.startEmpty(0, epoch: 1)
            for key in keys.prefix(8) { cluster.request(0, .set, key, String(repeating: "a", count: 60)) }
            for key in keys.suffix(6) { cluster.plant(1, key, "old", version: 7) }
            cluster.walk(0, wanted: [0, 1])
            var steps = 0
            while !cluster.isInSync(1) {
                try #require(steps < 1000, "seed \(seed)")
                steps += 1
                let key = keys[Int.random(in: 0..<keys.count, using: &random)]
                let result =
                    switch Int.random(in: 0..<6, using: &random) {
                    case 0: cluster.request(0, .delete, key)
                    case 1: cluster.request(0, .set, key, "b\(steps)")
                    case 2: cluster.request(0, .flush, [])
                    default: Result.busy
                    }
                let isRequired = cluster.look(0) { $0.requires(PeerNumber(2)) }
                #expect((result == .pending) == (result != .busy && isRequired), "seed \(seed)")
                if !cluster.network.isEmpty { try cluster.deliver(cluster.network.removeFirst()) }
            }
            try cluster.run()
            #expect(cluster.content(1) == cluster.content(0), "seed \(seed)")
        }
    }

    @Test func `an offer of an older epoch is refused, one of the same epoch to a holder too`() throws {
        let cluster = TestCluster(2)
        cluster.startEmpty(0, epoch: 4)
        cluster.startEmpty(1, epoch: 5)
        cluster.walk(0, wanted: [0, 1])
        try cluster.deliver(cluster.network.removeFirst())
        #expect(cluster.network.map(\.kind) == [.refusal])
        try cluster.run()
        #expect(cluster.epoch(1) == 5)

        let equal = TestCluster(2)
        equal.startEmpty(0, epoch: 4)
        equal.startEmpty(1, epoch: 4)
        equal.walk(0, wanted: [0, 1])
        try equal.run()
        #expect(equal.epoch(0) == 4)
        #expect(equal.epoch(1) == 4)
    }

    @Test func `a holder that is offered a later epoch has been replaced`() throws {
        let cluster = TestCluster(2)
        cluster.startEmpty(0, epoch: 5)
        cluster.startEmpty(1, epoch: 4)
        cluster.request(1, .set, keys[0], "of the past")
        try cluster.settle(0, wanted: [0, 1])
        #expect(cluster.isInSync(1))
        #expect(cluster.content(1).isEmpty)
        #expect(cluster.nodes[1].signals == [.lost(slice: cluster.slice)])
    }

    @Test func `an offer that is not taken is made again`() throws {
        let cluster = TestCluster(2)
        cluster.startEmpty(0, epoch: 1)
        cluster.walk(0, wanted: [0, 1])
        #expect(cluster.take(to: 1).count == 1)
        cluster.walk(0, wanted: [0, 1])
        #expect(cluster.network.isEmpty)
        cluster.pass(1000)
        cluster.advance(0)
        try cluster.settle(0, wanted: [0, 1])
        #expect(cluster.isInSync(1))
    }

    @Test func `nothing is offered to a peer that cannot be reached`() throws {
        let cluster = TestCluster(2)
        cluster.startEmpty(0, epoch: 1)
        cluster.setPeer(cluster.nodes[0], cluster.nodes[1], isReachable: false)
        cluster.walk(0, wanted: [0, 1])
        #expect(cluster.network.isEmpty)
        cluster.setPeer(cluster.nodes[0], cluster.nodes[1], isReachable: true)
        try cluster.settle(0, wanted: [0, 1])
        #expect(cluster.isInSync(1))
    }

    @Test func `a learner whose last word came while it could not be reached is in sync after the next turn`() throws {
        let cluster = TestCluster(2)
        cluster.startEmpty(0, epoch: 1)
        cluster.walk(0, wanted: [0, 1])
        cluster.setPeer(cluster.nodes[0], cluster.nodes[1], isReachable: false)
        try cluster.run()
        cluster.advance(0)
        #expect(cluster.network.isEmpty)
        #expect(!cluster.isInSync(1))
        #expect(cluster.look(0) { $0.learnerCount } == 1)
        cluster.setPeer(cluster.nodes[0], cluster.nodes[1], isReachable: true)
        // Without a walk: learners that wait for this can use up its budget.
        cluster.advance(0)
        try cluster.run()
        #expect(cluster.isInSync(1))
        #expect(cluster.look(0) { $0.learnerCount } == 0)
    }

    @Test func `an empty slice begins with nothing that was seen in it before`() throws {
        let cluster = TestCluster(1)
        cluster.plant(0, keys[0], "of the past", version: 7)
        cluster.startEmpty(0, epoch: 1)
        #expect(cluster.request(0, .get, keys[0]) == .done(.miss, []))
        #expect(cluster.request(0, .add, keys[0], "new") == .done(.stored, []))
        #expect(cluster.request(0, .get, keys[0]) == .done(.hit, Array("new".utf8)))
    }

    // MARK: - Offers that are over

    /// The first offers the slice to the second, which does not hear of it in time; the frame comes late.
    private func offeredInVain() -> (TestCluster, TestCluster.Message) {
        let cluster = TestCluster(2)
        cluster.startEmpty(0, epoch: 1)
        cluster.walk(0, wanted: [0, 1])
        let offer = cluster.network.removeFirst()
        cluster.pass(1000)
        cluster.advance(0)
        return (cluster, offer)
    }

    @Test func `who learns by an offer that is over is told, and leaves`() throws {
        let (cluster, offer) = offeredInVain()
        try cluster.deliver(offer)
        #expect(cluster.look(1) { $0.describeRole(cluster.slice) }.contains("learning"))
        try cluster.run()
        #expect(cluster.look(1) { $0.describeRole(cluster.slice) } == "outside")
    }

    @Test func `an offer that comes after a later one changes nothing`() throws {
        let (cluster, offer) = offeredInVain()
        try cluster.settle(0, wanted: [0, 1])
        #expect(cluster.isInSync(1))
        try cluster.deliver(offer)
        #expect(cluster.isInSync(1))
        #expect(cluster.network.isEmpty)
    }
}
