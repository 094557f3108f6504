import PeerProtocol
import Testing

@testable import CacheNode
@testable import Membership
@testable import Simulation

/// What an operator says to a node of a simulated cluster, beside drains, and what it does to connections.
@Suite struct OperatorTests {
    private func world(_ nodes: Int, seed: UInt64) -> World {
        var options = WorldOptions(seed: seed)
        options.nodes = nodes
        options.clients = 0
        let world = World(options)
        for index in 0..<nodes { world.start(index) }
        world.settle(within: 30_000)
        return world
    }

    private func snapshot(_ world: World, _ index: Int) throws -> ClusterSnapshot {
        let process = try #require(world.nodes[index].process)
        return process.control.snapshot(now: world.now(process))
    }

    private func awaits(_ world: World, _ liveness: Liveness, of name: String, at index: Int) throws {
        let isSeen = world.run(atMostMilliseconds: 30_000) {
            (try? snapshot(world, index))?.members.contains {
                $0.record.name == name && $0.record.liveness == liveness
            } == true
        }
        try #require(isSeen, "\(name) is never \(liveness)")
    }

    @Test func `after a reset nobody waits for the end of a promise`() {
        let world = world(3, seed: 64)
        world.resetConnections(0, 1)
        world.run(milliseconds: 5)
        let excluding = world.nodes.compactMap(\.process).filter { $0.control.excludedSoon != nil }
        #expect(excluding.count == 2)
        // The connections are there again after 50 ms, a ping comes within 200.
        #expect(world.run(atMostMilliseconds: 400) { excluding.allSatisfy { $0.control.excludedSoon == nil } })
        world.settle(within: 10_000)
        #expect(world.failures == [])
    }

    @Test func `only who is down is forgotten, by all, once`() throws {
        let world = world(3, seed: 61)
        #expect(
            world.forget(2, at: 0)
                == .refused("n3 is alive: drain it, or end its process and wait until it is down")
        )
        #expect(world.forget(0, at: 0) == .refused("n1 is the node that was asked, and lives: drain it to remove it"))
        world.crash(2, isPowerLoss: true)
        try awaits(world, .suspect, of: "n3", at: 0)
        #expect(
            world.forget(2, at: 0) == .refused("n3 is suspect and may still live: wait until it is down or alive again")
        )
        try awaits(world, .down, of: "n3", at: 0)
        #expect(world.forget(2, at: 0) == .accepted)
        #expect(world.forget(2, at: 0) == .unknownNode)
        world.settle(within: 30_000)
        for index in 0..<2 { #expect(try snapshot(world, index).members.map(\.record.name) == ["n1", "n2"]) }
        let old = world.nodes[2].generation
        world.start(2)
        world.settle(within: 60_000)
        let back = try snapshot(world, 0).members.first { $0.record.name == "n3" }
        #expect(back?.record.generation == old + 1)
        let entries = try snapshot(world, 0).journal.entries.filter { "\($0.event)".contains("\"n3\"") }
        #expect(entries.map(\.event.kind).suffix(4) == [.suspected, .down, .forgotten, .joined])
        #expect(entries.map(\.unixMilliseconds) == entries.map(\.unixMilliseconds).sorted())
        #expect(world.failures == [])
    }

    @Test func `who is down is not drained, and the refusal says what to do`() throws {
        let world = world(3, seed: 62)
        world.crash(2)
        try awaits(world, .down, of: "n3", at: 0)
        let process = try #require(world.nodes[0].process)
        _ = process.control.order(
            .drain,
            node: "n3",
            now: world.now(process),
            outbox: &process.threads[0].outbox,
            effects: &process.effects
        )
        #expect(process.control.orderResults.map(\.refusal) == ["n3 is down: start it again, or forget it"])
    }

    @Test func `one of three forms a cluster at the operator's word, once, and the others join it`() throws {
        var options = WorldOptions(seed: 64)
        options.nodes = 3
        options.clients = 0
        let world = World(options)
        func form() throws -> OrderOutcome {
            let process = try #require(world.nodes[0].process)
            let thread = process.threads[0]
            let outcome = process.control.form(
                now: world.now(process),
                outbox: &thread.outbox,
                effects: &process.effects
            )
            world.finishTurn(process, thread)
            return outcome
        }
        world.start(0)
        world.run(milliseconds: 10_000)
        guard case .seeking = try snapshot(world, 0).phase else {
            Issue.record("one of three seeds has formed a cluster by itself")
            return
        }
        #expect(try form() == .accepted)
        world.settle(within: 30_000)
        #expect(try form() == .refused("n1 is part of a cluster already: nothing is to be formed"))
        for index in 1..<3 { world.start(index) }
        world.settle(within: 60_000)
        #expect(try snapshot(world, 0).members.count == 3)
        #expect(world.failures == [])
    }

    /// Neither loss leaves a majority of three. A node that returns from being forgotten once held the others up: its
    /// vote was missed, although it had been given back.
    @Test func `the last of three goes on without those that are forgotten, and takes them back`() throws {
        let world = world(3, seed: 63)
        for lost in [2, 1] {
            world.crash(lost)
            try awaits(world, .down, of: "n\(lost + 1)", at: 0)
            if lost == 1 { #expect(try !snapshot(world, 0).hasLease) }
            #expect(world.forget(lost, at: 0) == .accepted)
            world.settle(within: 30_000)
        }
        #expect(try snapshot(world, 0).hasLease)
        for index in 1..<3 { world.start(index) }
        world.settle(within: 60_000)
        #expect(world.failures == [])
    }

    private func ringSize(_ world: World, _ index: Int) throws -> Int {
        try snapshot(world, index).members.count { $0.wantedCopies > 0 }
    }

    @Test func `two of five at once brake, and leave the ring at the operator's word`() throws {
        var options = WorldOptions(seed: 65)
        options.replicas = 2
        options.clients = 0
        let world = World(options)
        for index in 0..<5 { world.start(index) }
        world.settle(within: 30_000)
        #expect(try snapshot(world, 0).brake == nil)
        world.crash(1)
        world.crash(3)
        for name in ["n2", "n4"] { try awaits(world, .down, of: name, at: 0) }
        for index in [0, 2, 4] { #expect(try snapshot(world, index).brake?.lost == ["n2", "n4"], "node \(index)") }
        // The fill delay is over, and copies that can prove themselves serve every slice.
        world.run(milliseconds: 12_000)
        for index in [0, 2, 4] {
            let snapshot = try snapshot(world, index)
            #expect(try ringSize(world, index) == 5, "node \(index)")
            #expect(snapshot.unavailable == 0)
            #expect((1...30_000).contains(snapshot.brakeLeftMilliseconds ?? 0))
        }
        #expect(world.releaseBrake(at: 4)?.told == ["n1", "n3", "n5"])
        world.run(milliseconds: 500)
        for index in [0, 2, 4] { #expect(try ringSize(world, index) == 3, "node \(index)") }
        world.settle(within: 10_000)
        let kinds = try snapshot(world, 0).journal.entries.map(\.event.kind)
        #expect(kinds.filter { $0 == .braked || $0 == .brakeEnded } == [.braked, .brakeEnded])
        #expect(world.failures == [])
    }

    @Test func `one of three does not brake`() throws {
        let world = world(3, seed: 66)
        world.crash(2)
        try awaits(world, .down, of: "n3", at: 0)
        world.run(milliseconds: 6000)
        #expect(try ringSize(world, 0) == 2)
        // A lost datagram may have made the other suspect for a moment.
        #expect(try snapshot(world, 0).brake == nil)
        world.settle(within: 30_000)
        #expect(world.failures == [])
    }

    /// The brake is each node's own. A node that keeps a lost member in its ring for longer hands slices to others than
    /// those think right; nothing is lost by that, and all agree once it is over.
    @Test func `a node that brakes alone disagrees with the others for a while, and nothing else`() throws {
        var options = WorldOptions(seed: 71)
        options.nodes = 4
        options.clients = 2
        let world = World(options)
        for index in 0..<4 { world.start(index) }
        world.settle(within: 30_000)
        world.startWorkload()
        let process = try #require(world.nodes[0].process)
        world.crash(2)
        for _ in 0..<320 {
            process.control.membership.health = 7
            world.run(milliseconds: 50)
        }
        #expect(process.control.brake.engagement?.lost == [])
        #expect(try ringSize(world, 0) == 4)
        #expect(try ringSize(world, 1) == 3)
        process.control.membership.health = 0
        world.settle(within: 60_000)
        #expect(try ringSize(world, 0) == 3)
        world.stopWorkload()
        #expect(world.run(atMostMilliseconds: 13_000) { world.clients.allSatisfy(\.isIdle) })
        #expect(world.failures == [])
    }

    @Test func `a lone change of the ring shows at once, further ones after a fifth of a second`() throws {
        let world = world(3, seed: 68)
        for _ in 0..<3 { world.start(world.addNode()) }
        let process = try #require(world.nodes[0].process)
        var changes: [UInt64] = []
        let before = try snapshot(world, 0)
        var last = before.ringHash
        var joinedAt: UInt64?
        for millisecond in 0..<5000 as Range<UInt64> {
            world.run(milliseconds: 1)
            if joinedAt == nil, process.control.membership.members.count > 3 { joinedAt = millisecond }
            if process.control.topology.ringHash != last { changes.append(millisecond) }
            last = process.control.topology.ringHash
        }
        let first = try #require(changes.first)
        #expect(first == joinedAt)
        #expect(zip(changes, changes.dropFirst()).allSatisfy { $1 - $0 >= 198 }, "\(changes)")
        let after = try snapshot(world, 0)
        #expect(after.members.allSatisfy { $0.wantedCopies > 0 } && after.members.count == 6)
        #expect(after.outcomes.ringChanges - before.outcomes.ringChanges == UInt64(changes.count))
        #expect(after.outcomes.ringChangesCoalesced > 0)
        world.settle(within: 60_000)
        #expect(world.failures == [])
    }
}
