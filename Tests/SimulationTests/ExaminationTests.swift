import Membership
import PeerProtocol
import Testing

@testable import CacheNode
@testable import Simulation

/// `henge doctor` at a node of a simulated cluster.
@Suite struct ExaminationTests {
    private func world(_ nodes: Int, seed: UInt64, skewMilliseconds: Int64 = 0) -> World {
        var options = WorldOptions(seed: seed)
        options.nodes = nodes
        options.clients = 0
        options.skewMilliseconds = skewMilliseconds
        return World(options)
    }

    private func examine(_ world: World, _ index: Int) throws -> Examination {
        let process = try #require(world.nodes[index].process)
        process.control.examine(
            now: world.now(process),
            outbox: &process.threads[0].outbox,
            effects: &process.effects
        )
        world.finishTurn(process, process.threads[0])
        var result: Examination?
        _ = world.run(atMostMilliseconds: 3000) {
            result = process.control.takeExamination()
            return result != nil
        }
        return try #require(result, "the examination does not end")
    }

    @Test func `where all is well nothing is found, on every node`() throws {
        let world = world(4, seed: 71)
        for index in 0..<4 { world.start(index) }
        world.settle(within: 30_000)
        for index in 0..<4 {
            let result = try examine(world, index)
            #expect(result.findings == [])
            #expect(result.members.count == 3)
            for member in result.members {
                #expect(result.udpOut(member) == .passes && result.udpBack(member) == .passes)
                #expect(member.tcpOut == .passes && member.tcpBack == .passes)
            }
            #expect(result.waitedMilliseconds < 900)
        }
        #expect(world.failures == [])
    }

    @Test func `the distance of the clocks is what it is`() throws {
        let world = world(3, seed: 72, skewMilliseconds: 60_000)
        for index in 0..<3 { world.start(index) }
        world.settle(within: 30_000)
        let result = try examine(world, 0)
        for (member, index) in zip(result.members, 1...) {
            let wanted = world.nodes[index].skewMilliseconds - world.nodes[0].skewMilliseconds
            let found = try #require(member.clockMilliseconds)
            #expect(abs(found - wanted) < 50, "\(member.record.name): \(found), not \(wanted)")
            #expect(result.findings.contains { $0.member == member.record.name } == (abs(wanted) > 1000))
        }
    }

    @Test func `who is gone is named, and is waited for no longer than it says`() throws {
        let world = world(3, seed: 73)
        for index in 0..<3 { world.start(index) }
        world.settle(within: 30_000)
        world.crash(2)
        let result = try examine(world, 0)
        #expect(result.findings.map(\.member) == ["n3"])
        #expect(result.findings.map(\.check) == [.liveness])
        #expect((1000..<1100).contains(result.waitedMilliseconds))
    }

    @Test func `a node that waits for its cluster says which seeds are silent`() throws {
        let world = world(3, seed: 74)
        world.start(0)
        world.run(milliseconds: 5000)
        let result = try examine(world, 0)
        #expect(result.members == [] && result.seeking != nil)
        let texts = result.findings.map(\.text)
        #expect(texts.first?.hasPrefix("n1 has no cluster: 1 of 2 seeds needed agree;") == true, "\(texts)")
        #expect(texts.count { $0.contains("does not answer") } == 2, "\(texts)")
    }
}
