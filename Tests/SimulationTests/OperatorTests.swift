import CacheNode
import Membership
import PeerProtocol
import Testing

@testable import Simulation

/// What an operator says to a node of a simulated cluster, beside drains.
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
}
