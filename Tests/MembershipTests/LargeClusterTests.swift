import ClusterCore
import MembershipSimulation
import Testing

@testable import Membership

@Suite struct `Large clusters` {
    @Test func `a seed that has answered its share of joiners sends the others on`() {
        var configuration = MembershipConfiguration()
        configuration.pullAnswersPerSecond = 1
        configuration.pullAnswersBurst = 3
        var simulator = GossipSimulator.cluster(60, seedCount: 1, seed: 51, configuration: configuration)
        // The seed alone would take a minute.
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 60) } != nil)
    }

    @Test func `a joiner that nobody takes in waits for the next try`() {
        var configuration = MembershipConfiguration()
        configuration.pullAnswersPerSecond = 1
        configuration.pullAnswersBurst = 1
        configuration.joinRedirectsMax = 0
        var simulator = GossipSimulator.cluster(20, seedCount: 1, seed: 52, configuration: configuration)
        #expect(simulator.run(limitMilliseconds: 5000) { $0.agrees(up: 20) } == nil)
        #expect(simulator.run(limitMilliseconds: 60_000) { $0.agrees(up: 20) } != nil)
    }

    @Test func `a pull with sums is answered with the records of the parts that differ`() throws {
        var simulator = GossipSimulator.cluster(50, seedCount: 3, seed: 53)
        #expect(simulator.run(limitMilliseconds: 20_000) { $0.agrees(up: 50) } != nil)
        simulator.run(milliseconds: 5000)
        let asker = simulator.nodes[1].record
        let membership = try #require(simulator.nodes[0].membership)
        let table = membership.table
        var sums = table.bucketSums
        sums[MemberTable.bucket(of: membership.own.id)] &+= membership.ownHash
        func answer(_ sums: [UInt64]) throws -> [NodeID] {
            let pull = GossipDatagram(
                clusterTag: GossipDatagram.tag(ofCluster: "henge"),
                sender: asker.id,
                senderGeneration: asker.generation,
                target: membership.own.id,
                message: .pull(nonce: 0, hash: 0, sums: sums)
            )
            var answering = membership
            var effects: [MembershipEffect] = []
            pull.encoded().withUnsafeBytes {
                answering.receive($0, from: asker.cluster, now: simulator.now, effects: &effects)
            }
            var ids: [NodeID] = []
            for case .send(let bytes, to: asker.cluster) in effects {
                let datagram = try bytes.withUnsafeBytes { try GossipDatagram(decoding: $0) }
                guard case .state = datagram.message else { continue }
                for case .record(let record, _) in datagram.entries { ids.append(record.id) }
            }
            return ids.sorted()
        }
        #expect(try answer(sums) == [])
        let bucket = MemberTable.bucket(of: table.peers[7].record.id)
        sums[bucket] &+= 1
        #expect(try answer(sums) == membership.members.map(\.id).filter { MemberTable.bucket(of: $0) == bucket })
        #expect(try answer([]).count == 50)
    }

    @Test func `news that all have is dropped though its turn has not come`() {
        var configuration = MembershipConfiguration()
        configuration.gossipTransmitsMin = 10_000
        var simulator = GossipSimulator.cluster(40, seedCount: 3, seed: 54, configuration: configuration)
        #expect(simulator.run(limitMilliseconds: 20_000) { $0.agrees(up: 40) } != nil)
        #expect(simulator.nodes.contains { $0.membership?.gossip.isEmpty == false })
        simulator.run(milliseconds: 5000)
        #expect(simulator.nodes.allSatisfy { $0.membership?.gossip.isEmpty == true })
    }

    @Test func `many that start at once go up without waiting for each other's hashes`() {
        for seed in 55...57 as ClosedRange<UInt64> {
            var simulator = GossipSimulator.cluster(64, seedCount: 1, seed: seed)
            let time = simulator.run(limitMilliseconds: 20_000) { $0.agrees(up: 64) }
            // The wait for hashes that hold ended after `joinSettleMost`, 5 s.
            #expect((time ?? .infinity) < 4000, "seed \(seed)")
        }
    }
}
