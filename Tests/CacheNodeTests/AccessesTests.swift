import CacheStore
import ClusterCore
import Glibc
import PeerProtocol
import Replication
import Testing

@testable import CacheNode

@Suite struct AccessesTests {
    private let keys = Keys.all

    /// The hashes in the hints that are under way to a node.
    private func told(_ cluster: TestCluster, to index: Int) throws -> [[UInt64]] {
        try cluster.network.filter { $0.kind == .accesses && $0.to == index }.map { message in
            try message.bytes.withUnsafeBytes { raw in
                let frame = try AccessesFrame(UnsafeRawBufferPointer(rebasing: raw[Frame.headerBytes...]))
                return (0..<frame.count).map { frame[$0] }
            }
        }
    }

    private func counters(_ cluster: TestCluster, _ index: Int) -> ShardPlane.Counters {
        cluster.look(index) { $0.counters }
    }

    private func frequency(_ cluster: TestCluster, _ index: Int, _ key: [UInt8]) -> UInt8? {
        key.withUnsafeBytes { key in
            cluster.look(index) { $0.store.peek(hash: KeyHash.hash(key), key: key, now: cluster.now)?.frequency }
        }
    }

    @Test func `a shard without copies elsewhere notes no reads`() throws {
        let cluster = TestCluster(2)
        cluster.startEmpty(0, epoch: 1)
        cluster.request(0, .set, keys[0], "a")
        for _ in 0..<3 { cluster.request(0, .get, keys[0]) }
        #expect(cluster.look(0) { !$0.store.recordsAccesses && $0.store.recordedAccessCount == 0 })
        try cluster.settle(0, wanted: [0, 1])
        #expect(cluster.isInSync(1))
        #expect(cluster.look(0) { $0.store.recordsAccesses })
        #expect(cluster.look(1) { !$0.store.recordsAccesses }, "a copy answers no reads")
        cluster.request(0, .set, keys[1], "b")
        cluster.request(0, .get, keys[1])
        #expect(cluster.look(0) { $0.store.recordedAccessCount } == 1)
        // The copy is gone, and with it everybody who could be told.
        cluster.change(0) { $0.dropStreams(to: cluster.nodes[1].number, context: cluster.context, outbox: &$1) }
        #expect(cluster.look(0) { !$0.store.recordsAccesses && $0.store.recordedAccessCount == 0 })
    }

    @Test func `every copy hears of a read, and counts it once`() throws {
        let cluster = try TestCluster.inSync(3)
        cluster.request(0, .set, keys[0], "a")
        cluster.request(0, .set, keys[1], "b")
        try cluster.run()
        for _ in 0..<2 { cluster.request(0, .get, keys[0]) }
        cluster.pass(50)
        cluster.advance(0)
        let hash = KeyHash.hash(keys[0])
        #expect(try told(cluster, to: 1) == [[hash, hash]])
        #expect(try told(cluster, to: 2) == [[hash, hash]])
        try cluster.run()
        for index in 0...2 {
            #expect(frequency(cluster, index, keys[0]) == 2)
            #expect(frequency(cluster, index, keys[1]) == 0)
        }
        #expect(counters(cluster, 0).accessesSent == 4)
        #expect(counters(cluster, 1).accessesReceived == 2)
        // Nothing new was read: nothing is told.
        cluster.pass(1000)
        cluster.advance(0)
        #expect(cluster.network.isEmpty)
    }

    @Test func `few reads wait for more, but not for long`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        try cluster.run()
        func read() -> Int {
            cluster.request(0, .get, keys[0])
            cluster.advance(0)
            return cluster.take(to: 1).filter { $0.kind == .accesses }.count
        }
        #expect(read() == 1, "nothing was told for long")
        #expect(read() == 0)
        cluster.pass(49)
        cluster.advance(0)
        #expect(cluster.network.isEmpty)
        cluster.pass(1)
        cluster.advance(0)
        #expect(cluster.take(to: 1).map(\.kind) == [.accesses])
    }

    @Test func `many reads are told at once, in frames of a bounded length`() throws {
        let stream = ReadStream(keys: 1500)
        let cluster = try stream.cluster(memoryBytes: 16 << 20)
        for key in stream.keys { cluster.request(0, .set, key, "v") }
        try cluster.run()
        cluster.request(0, .get, stream.keys[0])
        cluster.advance(0)
        #expect(try told(cluster, to: 1).map(\.count) == [1])
        cluster.network = []
        for key in stream.keys.prefix(ShardPlane.accessesBatch - 1) { cluster.request(0, .get, key) }
        cluster.advance(0)
        #expect(cluster.network.isEmpty)
        for key in stream.keys.suffix(from: ShardPlane.accessesBatch - 1) { cluster.request(0, .get, key) }
        cluster.advance(0)
        #expect(try told(cluster, to: 1).map(\.count) == [AccessesFrame.countMax, 1500 - AccessesFrame.countMax])
        #expect(try told(cluster, to: 1).flatMap { $0 } == stream.keys.map { KeyHash.hash($0) })
        try cluster.run()
        #expect(counters(cluster, 1).accessesReceived == 1500)
        #expect(frequency(cluster, 1, stream.keys[1499]) == 1)
    }

    @Test func `where nothing can be sent, reads are dropped and counted`() throws {
        let cluster = try TestCluster.inSync(3)
        cluster.request(0, .set, keys[0], "a")
        try cluster.run()
        cluster.nodes[0].outbox.congested = [cluster.nodes[1].number]
        cluster.request(0, .get, keys[0])
        cluster.advance(0)
        #expect(cluster.take(to: 1).isEmpty)
        #expect(cluster.take(to: 2).map(\.kind) == [.accesses])
        #expect(counters(cluster, 0).accessesDropped == 1)
        #expect(counters(cluster, 0).accessesSent == 1)

        cluster.nodes[0].outbox.congested = []
        cluster.setPeer(cluster.nodes[0], cluster.nodes[2], isReachable: false)
        cluster.request(0, .get, keys[0])
        cluster.pass(50)
        cluster.advance(0)
        #expect(cluster.take(to: 1).map(\.kind) == [.accesses])
        #expect(cluster.take(to: 2).isEmpty)
        #expect(counters(cluster, 0).accessesDropped == 2)
    }

    @Test func `a hint for a slice that this node does not copy from its sender is ignored`() throws {
        let cluster = try TestCluster.inSync(3)
        cluster.request(0, .set, keys[0], "a")
        try cluster.run()
        func hear(_ index: Int, from sender: Int) throws {
            var buffer = ByteBuffer()
            AccessesFrame.append([KeyHash.hash(keys[0])], to: &buffer)
            try cluster.deliver(TestCluster.Message(from: sender, to: index, bytes: buffer.array()))
        }
        // The holder itself, a copy that hears it from another copy, and a slice that nobody has.
        try hear(0, from: 1)
        try hear(1, from: 2)
        #expect(counters(cluster, 0).accessesIgnored == 1)
        #expect(counters(cluster, 1).accessesIgnored == 1)
        #expect(frequency(cluster, 0, keys[0]) == 0)
        #expect(frequency(cluster, 1, keys[0]) == 0)
        let stranger = TestCluster(2)
        var buffer = ByteBuffer()
        AccessesFrame.append([0, .max, 1 << 63], to: &buffer)
        try stranger.deliver(TestCluster.Message(from: 0, to: 1, bytes: buffer.array()))
        #expect(counters(stranger, 1).accessesIgnored == 3)
        // From its holder, the copy takes it.
        try hear(1, from: 0)
        #expect(counters(cluster, 1).accessesReceived == 1)
        #expect(frequency(cluster, 1, keys[0]) == 1)
    }

    @Test func `a learner hears of reads before it is in sync`() throws {
        let cluster = TestCluster(2)
        cluster.startEmpty(0, epoch: 1)
        cluster.request(0, .set, keys[0], "a")
        cluster.walk(0, wanted: [0, 1])
        while cluster.network.contains(where: { $0.kind != .entry }) {
            try cluster.deliver(cluster.network.removeFirst())
        }
        #expect(!cluster.isInSync(1))
        cluster.request(0, .get, keys[0])
        cluster.advance(0)
        try cluster.run()
        #expect(cluster.isInSync(1))
        #expect(frequency(cluster, 1, keys[0]) == 1)
    }

    // MARK: - What it is for

    /// Drives a stream through the holder of all its slices until much was evicted, promotes the copy, and has the rest
    /// of the stream read from both as they are. Returns the share of the old primary's hits that the new one serves.
    private func shareAfterTakeover(withHints: Bool, exponent: Double, onceShare: Double) throws -> Double {
        let stream = ReadStream(keys: 32_000)
        let cluster = try stream.cluster(memoryBytes: 4 << 20)
        var draws = ReadStream.Draws(keys: 6000, exponent: exponent, onceShare: onceShare, seed: 11)
        let value = String(repeating: "v", count: 900)
        for turn in 1...60_000 {
            let key = stream.keys[draws.next()]
            if cluster.request(0, .get, key) == .done(.miss, []) { cluster.request(0, .set, key, value) }
            if !cluster.network.isEmpty { try cluster.run() }
            guard turn % 200 == 0 else { continue }
            // 20,000 requests a second.
            cluster.pass(10)
            for index in 0...1 { cluster.advance(index) }
            if !withHints { cluster.network.removeAll { $0.kind == .accesses } }
            try cluster.run()
        }
        #expect(cluster.look(0) { $0.store.statistics.evictions } > 3000)
        #expect(cluster.look(0) { $0.store.statistics.accessesDropped } == 0)
        let holder = cluster.nodes[0].number
        for slice in stream.slices {
            let entry = SliceEpoch(slice: slice, epoch: 2)
            let isTaken = cluster.change(1) {
                $0.takeOver(entry, from: holder, others: [], context: cluster.context, outbox: &$1)
            }
            try #require(isTaken, "slice \(slice)")
        }
        var old = 0
        var both = 0
        for _ in 0..<20_000 {
            let key = stream.keys[draws.next()]
            guard case .done(.hit, _) = cluster.request(0, .get, key) else { continue }
            old += 1
            if case .done(.hit, _) = cluster.request(1, .get, key) { both += 1 }
        }
        #expect(old > 5000, "the old primary itself must have what is asked for")
        return Double(both) / Double(old)
    }

    @Test(.timeLimit(.minutes(5)), arguments: [(1.0, 0.06), (0.8, 0.3)])
    func `a promoted copy serves what its primary would have served`(_ exponent: Double, _ onceShare: Double) throws {
        let share = try shareAfterTakeover(withHints: true, exponent: exponent, onceShare: onceShare)
        #expect(share >= 0.95, "with hints")
        let without = try shareAfterTakeover(withHints: false, exponent: exponent, onceShare: onceShare)
        #expect(without < share - 0.1, "without hints")
    }
}

/// Keys of a part of all slices, and a cluster of two that has just these slices.
private struct ReadStream {
    let slices = Array(stride(from: 0, to: Slice.count, by: 8))
    let keys: [[UInt8]]

    init(keys count: Int) {
        var found: [[UInt8]] = []
        var number = 0
        while found.count < count {
            let key = Array("key \(number)".utf8)
            if Slice.index(of: KeyHash.hash(key)) % 8 == 0 { found.append(key) }
            number += 1
        }
        keys = found
    }

    /// The first node holds the slices, the second is an in-sync copy of each.
    func cluster(memoryBytes: Int) throws -> TestCluster {
        let cluster = TestCluster(2, memoryBytes: memoryBytes)
        for slice in slices { cluster.startEmpty(0, epoch: 1, slice: slice) }
        cluster.walk(0, wanted: [0, 1], most: slices.count)
        try cluster.run()
        for slice in slices { try #require(cluster.look(0) { $0.inSyncCount(slice) } == 1, "slice \(slice)") }
        return cluster
    }

    /// Indices of keys: Zipf draws over the first of them, and among these a share that never come again.
    struct Draws {
        private var cumulative: [Double] = []
        private let onceShare: Double
        private var fresh: Int
        private var random: Xoshiro256

        init(keys: Int, exponent: Double, onceShare: Double, seed: UInt64) {
            var sum = 0.0
            for rank in 1...keys {
                sum += pow(Double(rank), -exponent)
                cumulative.append(sum)
            }
            self.onceShare = onceShare
            fresh = keys
            random = Xoshiro256(seed: seed)
        }

        mutating func next() -> Int {
            if Double.random(in: 0..<1, using: &random) < onceShare {
                defer { fresh += 1 }
                return fresh
            }
            let drawn = Double.random(in: 0..<cumulative[cumulative.count - 1], using: &random)
            var low = 0
            var high = cumulative.count - 1
            while low < high {
                let middle = (low + high) / 2
                if cumulative[middle] <= drawn { low = middle + 1 } else { high = middle }
            }
            return low
        }
    }
}
