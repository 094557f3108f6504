import ClusterCore
import PeerProtocol
import Replication
import Testing

@testable import CacheNode

@Suite struct CutOverTests {
    private let keys = Keys.all

    private func confirm(_ cluster: TestCluster, _ index: Int, epoch: UInt32) {
        cluster.change(index) { shard, _ in shard.confirm(SliceEpoch(slice: cluster.slice, epoch: epoch)) }
    }

    /// The first holds the slice, the second is in sync and shall have it; the hand over is under way.
    private func begun(_ count: Int = 2) throws -> TestCluster {
        let cluster = try TestCluster.inSync(count)
        cluster.request(0, .set, keys[0], "a")
        try cluster.run()
        cluster.walk(0, wanted: [1, 0] + Array(2..<count))
        return cluster
    }

    @Test func `the wanted primary takes over when it is in sync`() throws {
        let cluster = try begun()
        #expect(cluster.network.map(\.entry?.kind) == [.handOver])
        #expect(cluster.epoch(0) == nil)
        #expect(cluster.request(0, .get, keys[0]) == .elsewhere(PeerNumber(2)), "it says who has it now")
        try cluster.deliver(cluster.network.removeFirst())
        #expect(cluster.epoch(1) == 2)
        let entry = SliceEpoch(slice: cluster.slice, epoch: 2)
        #expect(cluster.nodes[1].signals.contains(.handedOver(entry, from: PeerNumber(1))))
        #expect(cluster.request(1, .get, keys[0]) == .elsewhere(.none), "no majority knows it")
        confirm(cluster, 1, epoch: 2)
        #expect(cluster.request(1, .get, keys[0]) == .done(.hit, Array("a".utf8)))
        #expect(cluster.request(1, .set, keys[0], "b") == .elsewhere(.none), "the old holder has not answered")
        try cluster.run()
        #expect(cluster.request(1, .set, keys[0], "b") == .pending)
        try cluster.run()
        #expect(cluster.answers(1) == [.stored])
        #expect(cluster.content(0) == cluster.content(1))
        #expect(cluster.isInSync(0))
        // A plain walk is enough: nothing has to be learned again.
        try cluster.settle(1, wanted: [1, 0])
        #expect(cluster.look(0) { $0.counters.learned } == 0)
    }

    @Test func `copies beside the two stay in sync`() throws {
        let cluster = try begun(3)
        try cluster.run()
        confirm(cluster, 1, epoch: 2)
        #expect(cluster.request(1, .set, keys[0], "b") == .pending)
        try cluster.run()
        #expect(cluster.look(1) { $0.inSyncCount(cluster.slice) } == 2)
        for index in [0, 2] {
            #expect(cluster.isInSync(index))
            #expect(cluster.content(index) == cluster.content(1))
        }
        #expect(cluster.nodes[1].signals.contains(.promised(PeerNumber(3))))
    }

    @Test func `a cut over waits for what is under way, and new writes for the cut over`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        let entries = cluster.take(to: 1)
        cluster.walk(0, wanted: [1, 0])
        #expect(cluster.network.isEmpty)
        #expect(cluster.epoch(0) == 1)
        #expect(cluster.request(0, .set, keys[0], "b") == .elsewhere(.none))
        #expect(cluster.request(0, .get, keys[0]) == .done(.hit, Array("a".utf8)))
        for message in entries { try cluster.deliver(message) }
        try cluster.run()
        #expect(cluster.answers(0) == [.stored])
        #expect(cluster.epoch(1) == 2)
        #expect(cluster.content(1) == cluster.content(0))
    }

    @Test func `a cut over that takes too long is called off`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        let entries = cluster.take(to: 1)
        cluster.walk(0, wanted: [1, 0])
        cluster.pass(cluster.look(0) { $0.configuration.cutOverMilliseconds })
        cluster.advance(0)
        #expect(cluster.look(0) { $0.counters.cutOversAborted } == 1)
        #expect(cluster.request(0, .set, keys[1], "b") == .pending)
        for message in entries { try cluster.deliver(message) }
        try cluster.run()
        #expect(cluster.answers(0) == [.stored, .stored])
        #expect(cluster.epoch(0) == 1)
        try cluster.settle(0, wanted: [1, 0])
        #expect(cluster.epoch(1) == 2)
    }

    @Test func `a refusal by the one that shall have it calls the cut over off`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        cluster.walk(0, wanted: [1, 0])
        cluster.change(1) { shard, _ in shard.leave(cluster.slice) }
        try cluster.run()
        #expect(cluster.epoch(0) == 1)
        #expect(cluster.answers(0) == [.stored])
        #expect(cluster.request(0, .set, keys[1], "b") == .done(.stored, []))
    }

    @Test func `nothing is handed over without a lease`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        let entries = cluster.take(to: 1)
        cluster.walk(0, wanted: [1, 0])
        cluster.leaseUntil = cluster.now.instant
        for message in entries { try cluster.deliver(message) }
        try cluster.run()
        #expect(cluster.epoch(0) == 1)
        #expect(cluster.epoch(1) == nil)
    }

    @Test func `a copy that is not where the new holder is learns again`() throws {
        let cluster = try TestCluster.inSync(3)
        cluster.request(0, .set, keys[0], "a")
        // The third misses the write and is excluded; the second takes over.
        let lost = cluster.take(to: 2)
        try cluster.run()
        cluster.change(0) { $0.dropStreams(to: PeerNumber(3), context: cluster.context, outbox: &$1) }
        let took = cluster.change(1) {
            $0.takeOver(
                SliceEpoch(slice: cluster.slice, epoch: 2),
                from: PeerNumber(1),
                others: [PeerNumber(3)],
                context: cluster.context,
                outbox: &$1
            )
        }
        #expect(took)
        #expect(cluster.request(1, .set, keys[1], "b") == .elsewhere(.none))
        try cluster.run()
        #expect(cluster.look(1) { $0.inSyncCount(cluster.slice) } == 0, "it refused")
        cluster.pass(100)
        try cluster.settle(1, wanted: [1, 2])
        #expect(cluster.isInSync(2))
        #expect(cluster.content(2) == cluster.content(1))
        // What the old holder sent is of no stream any more.
        for message in lost { try cluster.deliver(message) }
        #expect(cluster.content(2) == cluster.content(1))
    }

    @Test func `a copy takes over what every acknowledged write is in`() throws {
        let cluster = try TestCluster.inSync(3)
        for (number, key) in keys.enumerated() { cluster.request(0, .set, key, "\(number)") }
        try cluster.run()
        #expect(cluster.answers(0).count == keys.count)
        var candidates: [SliceEpoch] = []
        cluster.look(1) { $0.candidates(for: PeerNumber(1), isProven: { _ in true }, { candidates.append($0) }) }
        #expect(candidates == [SliceEpoch(slice: cluster.slice, epoch: 1)])
        let took = cluster.change(1) {
            $0.takeOver(
                SliceEpoch(slice: cluster.slice, epoch: 2),
                from: PeerNumber(1),
                others: [PeerNumber(3)],
                context: cluster.context,
                outbox: &$1
            )
        }
        #expect(took)
        try cluster.run()
        #expect(cluster.isInSync(2))
        for (number, key) in keys.enumerated() {
            #expect(cluster.request(1, .get, key) == .done(.hit, Array("\(number)".utf8)))
        }
        // The old holder comes back and hears of it.
        cluster.change(0) {
            $0.demote(SliceEpoch(slice: cluster.slice, epoch: 2), mergingTo: nil, outbox: &$1)
        }
        cluster.pass(100)
        try cluster.settle(1, wanted: [1, 0, 2])
        #expect(cluster.isInSync(0))
        #expect(cluster.content(0) == cluster.content(1))
    }

    @Test func `a copy of an epoch that another one followed is not adopted, though it is as far`() throws {
        for (previous, isAdopted) in [(UInt32(1), true), (2, false)] {
            let cluster = try TestCluster.inSync(2)
            let message = ControlMessage.adopt(
                slice: cluster.slice,
                epoch: 3,
                stream: 9,
                session: 1,
                previousEpoch: previous,
                position: 0
            )
            var frame = ByteBuffer()
            message.append(to: &frame)
            try cluster.deliver(TestCluster.Message(from: 0, to: 1, bytes: frame.array()))
            #expect(cluster.network.map(\.kind) == [isAdopted ? .acknowledgement : .refusal])
            #expect(cluster.isInSync(1) == isAdopted)
        }
    }

    @Test func `a learner takes nothing over`() throws {
        let cluster = TestCluster(2)
        cluster.startEmpty(0, epoch: 1)
        cluster.request(0, .set, keys[0], "a")
        cluster.walk(0, wanted: [0, 1])
        try cluster.deliver(cluster.network.removeFirst())
        let took = cluster.change(1) {
            $0.takeOver(
                SliceEpoch(slice: cluster.slice, epoch: 2),
                from: PeerNumber(1),
                others: [],
                context: cluster.context,
                outbox: &$1
            )
        }
        #expect(!took)
        #expect(cluster.epoch(1) == nil)
    }

    // MARK: - Other ends of a role

    @Test func `a dismissed copy drops its content`() throws {
        let cluster = try TestCluster.inSync(3)
        cluster.request(0, .set, keys[0], "a")
        try cluster.run()
        try cluster.settle(0, wanted: [0, 1])
        #expect(!cluster.isInSync(2))
        #expect(cluster.isInSync(1))
        cluster.advance(2)
        #expect(cluster.content(2).isEmpty)
        #expect(cluster.content(1).count == 1)
        #expect(cluster.request(0, .set, keys[1], "b") == .pending)
        try cluster.run()
        #expect(cluster.answers(0) == [.stored, .stored])
    }

    @Test func `a surplus copy stays until the wanted one is in sync`() throws {
        let cluster = TestCluster(3)
        cluster.startEmpty(0, epoch: 1)
        try cluster.settle(0, wanted: [0, 1])
        cluster.setPeer(cluster.nodes[0], cluster.nodes[2], isReachable: false)
        try cluster.settle(0, wanted: [0, 2])
        #expect(cluster.isInSync(1), "the wanted one cannot be reached")
        cluster.setPeer(cluster.nodes[0], cluster.nodes[2], isReachable: true)
        try cluster.settle(0, wanted: [0, 2])
        #expect(cluster.isInSync(2))
        #expect(!cluster.isInSync(1))
    }

    @Test func `a suspended holder serves nothing until it is confirmed above the claim`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        let again = cluster.change(0) { shard, _ in shard.suspend(SliceEpoch(slice: cluster.slice, epoch: 4)) }
        #expect(again == SliceEpoch(slice: cluster.slice, epoch: 5))
        #expect(cluster.request(0, .get, keys[0]) == .elsewhere(.none))
        try cluster.run()
        #expect(cluster.answers(0).isEmpty)
        let older = cluster.change(0) { shard, _ in shard.suspend(SliceEpoch(slice: cluster.slice, epoch: 3)) }
        #expect(older == nil)
        cluster.change(0) {
            $0.resume(SliceEpoch(slice: cluster.slice, epoch: 4), context: cluster.context, outbox: &$1)
        }
        #expect(cluster.answers(0).isEmpty)
        cluster.change(0) {
            $0.resume(SliceEpoch(slice: cluster.slice, epoch: 5), context: cluster.context, outbox: &$1)
        }
        #expect(cluster.answers(0) == [.stored])
        #expect(cluster.epoch(0) == 5)
        #expect(cluster.request(0, .get, keys[0]) == .done(.hit, Array("a".utf8)))
        var counters = ShardPlane.Counters()
        counters.add(cluster.look(0) { $0.counters })
        #expect(counters.suspended == 1)
    }

    /// Somebody claimed the slice over the first node in epoch 2, and a majority has recorded the first again.
    private func recordAgain(_ cluster: TestCluster) {
        cluster.change(0) { shard, _ in shard.suspend(SliceEpoch(slice: cluster.slice, epoch: 2)) }
        cluster.change(0) {
            $0.resume(SliceEpoch(slice: cluster.slice, epoch: 3), context: cluster.context, outbox: &$1)
        }
    }

    private func epochOfCopy(_ cluster: TestCluster, _ index: Int) -> UInt32? {
        var epoch: UInt32?
        cluster.look(index) { $0.copies { _, copy in epoch = copy.epoch } }
        return epoch
    }

    @Test func `copies follow a holder that was recorded again into its epoch`() throws {
        let cluster = try TestCluster.inSync(3)
        cluster.request(0, .set, keys[0], "a")
        try cluster.run()
        recordAgain(cluster)
        try cluster.run()
        for index in 1...2 {
            #expect(cluster.isInSync(index))
            #expect(epochOfCopy(cluster, index) == 3)
        }
        #expect(cluster.look(0) { $0.inSyncCount(cluster.slice) } == 2)
        #expect(cluster.request(0, .set, keys[1], "b") == .pending)
        try cluster.run()
        #expect(cluster.answers(0) == [.stored, .stored])
        #expect(cluster.content(1) == cluster.content(0))
    }

    @Test func `a write that waits for a copy is not answered for it by being recorded again`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        let entries = cluster.take(to: 1)
        recordAgain(cluster)
        #expect(cluster.answers(0).isEmpty)
        for message in entries { try cluster.deliver(message) }
        #expect(cluster.answers(0).isEmpty)
        try cluster.run()
        #expect(cluster.answers(0) == [.stored])
        #expect(cluster.isInSync(1))
        #expect(cluster.content(1) == cluster.content(0))
    }

    @Test func `a copy that lacks a write does not follow, and learns`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        let entries = cluster.take(to: 1)
        recordAgain(cluster)
        try cluster.run()
        #expect(!cluster.isInSync(1), "the write overtook nothing: it is behind")
        #expect(cluster.look(0) { $0.inSyncCount(cluster.slice) } == 0)
        for message in entries { try cluster.deliver(message) }
        try cluster.run()
        #expect(cluster.content(1).isEmpty)
        cluster.pass(100)
        try cluster.settle(0, wanted: [0, 1])
        #expect(cluster.isInSync(1))
        #expect(cluster.content(1) == cluster.content(0))
    }

    @Test func `a learner begins again when its holder is recorded again`() throws {
        let cluster = TestCluster(2)
        cluster.startEmpty(0, epoch: 1)
        cluster.walk(0, wanted: [0, 1])
        for message in cluster.take(to: 1) { try cluster.deliver(message) }
        recordAgain(cluster)
        try cluster.run()
        #expect(!cluster.isInSync(1))
        try cluster.settle(0, wanted: [0, 1])
        #expect(cluster.isInSync(1))
        #expect(epochOfCopy(cluster, 1) == 3)
    }

    @Test func `a holder counts on no copy that was left`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.change(1) { $0.leaveCopy(cluster.slice, of: PeerNumber(2), outbox: &$1) }
        #expect(cluster.isInSync(1), "of another holder")
        cluster.change(1) { $0.leaveCopy(cluster.slice, of: PeerNumber(1), outbox: &$1) }
        #expect(!cluster.isInSync(1))
        try cluster.run()
        #expect(cluster.look(0) { $0.inSyncCount(cluster.slice) } == 0)
        cluster.pass(100)
        try cluster.settle(0, wanted: [0, 1])
        #expect(cluster.isInSync(1))
        #expect(cluster.look(0) { $0.inSyncCount(cluster.slice) } == 1)
    }

    @Test func `what was handed over and never claimed is taken back`() throws {
        let cluster = try begun()
        let lost = cluster.take(to: 1)
        let entry = SliceEpoch(slice: cluster.slice, epoch: 2)
        var released: [SliceEpoch] = []
        cluster.look(0) { $0.released { entry, _, _ in released.append(entry) } }
        #expect(released == [entry])
        #expect(cluster.change(0) { shard, _ in shard.takeBack(SliceEpoch(slice: cluster.slice, epoch: 1)) } == nil)
        let again = try #require(cluster.change(0) { shard, _ in shard.takeBack(entry) })
        #expect(again == SliceEpoch(slice: cluster.slice, epoch: 3))
        #expect(cluster.request(0, .get, keys[0]) == .elsewhere(.none), "no majority has recorded it")
        cluster.look(0) { $0.released { _, _, _ in Issue.record("taken back twice") } }
        cluster.change(0) { $0.resume(again, context: cluster.context, outbox: &$1) }
        #expect(cluster.request(0, .get, keys[0]) == .done(.hit, Array("a".utf8)))
        // The last entry was only late: the other claims in vain, and learns from who was faster.
        for message in lost { try cluster.deliver(message) }
        #expect(cluster.epoch(1) == 2)
        cluster.request(0, .set, keys[0], "b")
        cluster.pass(100)
        try cluster.settle(0, wanted: [0, 1])
        #expect(cluster.epoch(1) == nil)
        #expect(cluster.isInSync(1))
        #expect(cluster.content(1) == cluster.content(0))
    }

    @Test func `who only claims gives way to who was confirmed in the same epoch`() throws {
        let cluster = try begun(3)
        for message in cluster.take(to: 1) { try cluster.deliver(message) }
        #expect(cluster.epoch(1) == 2)
        _ = cluster.take(to: 2)
        cluster.change(2) { shard, _ in shard.leave(cluster.slice) }
        cluster.startEmpty(2, epoch: 2)
        try cluster.settle(2, wanted: [2, 1])
        #expect(cluster.epoch(1) == nil)
        #expect(cluster.isInSync(1))
        // One that was confirmed does not: two holders of one epoch are none of its making.
        cluster.startEmpty(0, epoch: 2)
        cluster.walk(2, wanted: [2, 0])
        try cluster.run()
        #expect(cluster.epoch(0) == 2)
    }

    @Test func `what waits at a holder that is replaced has an unknown fate`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        cluster.change(0) {
            $0.demote(SliceEpoch(slice: cluster.slice, epoch: 2), mergingTo: nil, outbox: &$1)
        }
        #expect(cluster.answers(0) == [.unknown])
        #expect(cluster.nodes[0].signals.contains(.lost(slice: cluster.slice)))
        #expect(cluster.look(0) { $0.pendingCount } == 0)
    }

    @Test func `a claim that failed leaves nothing served`() throws {
        let cluster = try begun()
        try cluster.deliver(cluster.network.removeFirst())
        cluster.change(1) { $0.abandonClaim(SliceEpoch(slice: cluster.slice, epoch: 2), outbox: &$1) }
        #expect(cluster.epoch(1) == nil)
        #expect(cluster.request(1, .get, keys[0]) == .elsewhere(.none))
    }

    @Test func `a stop hands everything over`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "a")
        try cluster.run()
        let held = cluster.change(0) { $0.handOverAll(context: cluster.context, outbox: &$1) }
        #expect(held == 1)
        try cluster.run()
        #expect(cluster.epoch(1) == 2)
        let left = cluster.change(0) { $0.handOverAll(context: cluster.context, outbox: &$1) }
        #expect(left == 0)
    }

    @Test func `after a split newer items win, and a deletion wins a tie`() throws {
        let cluster = TestCluster(2)
        cluster.startEmpty(0, epoch: 1)
        cluster.startEmpty(1, epoch: 2)
        for index in 0..<4 { cluster.request(0, .set, keys[index], "left") }
        cluster.pass(10)
        cluster.request(0, .set, keys[1], "left, later")
        cluster.pass(10)
        cluster.request(1, .set, keys[0], "right, later")
        cluster.request(1, .delete, keys[2])
        let before = cluster.content(0)
        cluster.change(0) {
            $0.demote(SliceEpoch(slice: cluster.slice, epoch: 2), mergingTo: PeerNumber(2), outbox: &$1)
        }
        cluster.advance(0)
        try cluster.run()
        func key(_ index: Int) -> String { String(decoding: keys[index], as: UTF8.self) }
        let after = cluster.content(1)
        #expect(after[key(0)]?.hasPrefix("right, later") == true)
        #expect(after[key(1)] == before[key(1)])
        #expect(after[key(2)] == nil)
        #expect(after[key(3)] == before[key(3)])

        // A deletion and an item of one version.
        var frame = ByteBuffer()
        let start = Frame.begin(.merge, in: &frame)
        frame.appendInteger(UInt16(cluster.slice))
        let known = try #require(before[key(3)])
        let version = try #require(UInt64(known.split(separator: "@")[1]))
        keys[3].withUnsafeBytes {
            WireItem(
                version: version,
                unique: version,
                expiry: 0,
                flags: 0,
                isTombstone: true,
                key: $0,
                value: UnsafeRawBufferPointer(start: nil, count: 0)
            ).append(to: &frame)
        }
        Frame.end(start, in: &frame)
        try cluster.deliver(TestCluster.Message(from: 0, to: 1, bytes: frame.array()))
        #expect(cluster.content(1)[key(3)] == nil)
    }

    // MARK: - What a stranger could send

    private func entry(
        _ cluster: TestCluster,
        _ kind: EntryFrame.Kind,
        sumBeside: UInt64 = 0,
        _ write: (inout ByteBuffer) -> Void
    ) throws
        -> TestCluster.Message
    {
        let copy = cluster.look(1) { shard -> (stream: UInt64, applied: UInt64, sum: UInt64)? in
            guard case .copy(let copy) = shard.roles[cluster.slice] else { return nil }
            return (copy.stream, copy.applied, copy.sum.value)
        }
        let (stream, applied, sum) = try #require(copy)
        var buffer = ByteBuffer()
        let start = EntryFrame.begin(
            slice: cluster.slice,
            stream: stream,
            sequence: applied + 1,
            position: 1,
            sum: sum &+ sumBeside,
            kind: kind,
            in: &buffer
        )
        write(&buffer)
        Frame.end(start, in: &buffer)
        return TestCluster.Message(from: 0, to: 1, bytes: buffer.array())
    }

    @Test func `a copy that has applied other writes than were sent takes nothing over and learns anew`() throws {
        let cluster = try TestCluster.inSync(2)
        cluster.request(0, .set, keys[0], "here")
        try cluster.run()
        #expect(cluster.content(1) == cluster.content(0))
        let message = try entry(cluster, .handOver, sumBeside: 1) {
            $0.appendInteger(UInt32(9))
            SliceMarks(newest: 1, floor: 0, flushVersion: 0, flushAt: 0).append(to: &$0)
        }
        try cluster.deliver(message)
        #expect(cluster.look(1) { $0.counters.sumMismatches } == 1)
        #expect(!cluster.isInSync(1))
        #expect(cluster.epoch(1) == nil)
        try cluster.run()
        #expect(cluster.look(0) { $0.inSyncCount(cluster.slice) } == 0)
    }

    @Test(arguments: [0, 1, UInt32.max])
    func `a hand over in no later epoch is malformed`(_ epoch: UInt32) throws {
        let cluster = try TestCluster.inSync(2)
        let message = try entry(cluster, .handOver) {
            $0.appendInteger(epoch)
            SliceMarks(newest: 1, floor: 0, flushVersion: 0, flushAt: 0).append(to: &$0)
        }
        #expect(throws: MalformedBytes.self) { try cluster.deliver(message) }
        #expect(cluster.epoch(1) == nil)
    }

    @Test func `flushes and removals of a version without a later one are malformed`() throws {
        let cluster = try TestCluster.inSync(2)
        let flush = try entry(cluster, .flush) { $0.appendInteger(UInt64.max) }
        #expect(throws: MalformedBytes.self) { try cluster.deliver(flush) }
        let removal = try entry(cluster, .removed) {
            $0.appendInteger(UInt64(1) << 63)
            $0.append(keys[0])
        }
        #expect(throws: MalformedBytes.self) { try cluster.deliver(removal) }
    }

    @Test func `a removal of another slice's key is malformed`() throws {
        let cluster = try TestCluster.inSync(2)
        let message = try entry(cluster, .removed) {
            $0.appendInteger(UInt64(1))
            $0.append(Array("key1".utf8))
        }
        #expect(throws: MalformedBytes.self) { try cluster.deliver(message) }
    }

    @Test func `no mutation of what is under way traps`() throws {
        let seed: UInt64 = 1
        var random = Xoshiro256(seed: seed)
        for round in 0..<40 {
            let cluster = TestCluster(3)
            cluster.startEmpty(0, epoch: 1)
            for key in keys.prefix(6) { cluster.request(0, .set, key, "a") }
            for key in keys.suffix(3) { cluster.plant(1, key, "old", version: 7) }
            for step in 0..<60 {
                switch Int.random(in: 0..<8, using: &random) {
                case 0: cluster.walk(0, wanted: [[0, 1], [1, 0], [0, 1, 2]].randomElement(using: &random) ?? [0])
                case 1: cluster.request(Int.random(in: 0..<3, using: &random), .set, keys[0], "b\(step)")
                case 2:
                    cluster.pass(50)
                    for index in 0..<3 { cluster.advance(index) }
                    for epoch in 1...4 as ClosedRange<UInt32> { confirm(cluster, 1, epoch: epoch) }
                default: break
                }
                guard var message = cluster.network.first else { continue }
                cluster.network.removeFirst()
                if Int.random(in: 0..<4, using: &random) == 0 {
                    let at = Int.random(in: 4..<message.bytes.count, using: &random)
                    message.bytes[at] = UInt8(truncatingIfNeeded: random.next())
                }
                // What is malformed, or a frame of another family, ends the connection; here it is lost.
                let known: [Frame.Kind] = [
                    .entry, .acknowledgement, .offer, .learn, .refusal, .adopt, .merge,
                ]
                guard let kind = message.kind, known.contains(kind) else { continue }
                do { try cluster.deliver(message) } catch is MalformedBytes { continue }
            }
            for index in 0..<3 {
                #expect(cluster.look(index) { $0.earlyCount } >= 0, "seed \(seed), round \(round)")
                #expect(cluster.look(index) { $0.pendingCount } >= 0, "seed \(seed), round \(round)")
            }
        }
    }
}
