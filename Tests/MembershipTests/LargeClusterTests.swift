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
        sums[MemberTable.bucket(of: membership.own.id)] &+= UInt32(truncatingIfNeeded: membership.ownHash)
        func answer(_ sums: [UInt32]) throws -> [NodeID] {
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

    @Test func `some changes at once are told at a pace, and known all the same`() {
        func bytes(_ configuration: MembershipConfiguration) -> (most: UInt64, heldBack: UInt64, isKnown: Bool) {
            var simulator = GossipSimulator.cluster(128, seedCount: 3, seed: 58, configuration: configuration)
            #expect(simulator.run(limitMilliseconds: 20_000) { $0.agrees(up: 128) } != nil)
            simulator.run(milliseconds: 10_000)
            let before = simulator.nodes.map { $0.membership?.statistics ?? MembershipStatistics() }
            for index in 118..<128 { simulator.crash(index) }
            simulator.run(milliseconds: 2000)
            let after = simulator.nodes.map { $0.membership?.statistics ?? MembershipStatistics() }
            let sent = (0..<118).map { after[$0].bytesSent - before[$0].bytesSent }
            let heldBack = (0..<118).reduce(0) { $0 + after[$1].gossipHeldBack - before[$1].gossipHeldBack }
            return (sent.max() ?? 0, heldBack, simulator.run(limitMilliseconds: 20_000) { $0.agrees(up: 118) } != nil)
        }
        let paced = bytes(MembershipConfiguration())
        var configuration = MembershipConfiguration()
        configuration.pacedGossipItemsMax = 0
        let unpaced = bytes(configuration)
        #expect(paced.heldBack > 0)
        #expect(paced.isKnown)
        #expect(unpaced.heldBack == 0)
        #expect(paced.most * 10 < unpaced.most * 9, "\(paced.most) and \(unpaced.most) bytes")
    }

    @Test func `a joiner tells of itself, not of all that it was told`() throws {
        var simulator = GossipSimulator.cluster(50, seedCount: 3, seed: 60)
        #expect(simulator.run(limitMilliseconds: 20_000) { $0.agrees(up: 50) } != nil)
        let joiner = simulator.add(seeds: (0..<3).map { GossipSimulator.seed($0) })
        simulator.start(joiner)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.nodes[joiner].membership?.members.count == 51 } != nil)
        let membership = try #require(simulator.nodes[joiner].membership)
        #expect(membership.gossip.map(\.id) == [membership.own.id])
    }

    @Test func `an accusation alone makes a suspect, and the accused refutes it`() throws {
        var simulator = GossipSimulator.cluster(50, seedCount: 3, seed: 61)
        #expect(simulator.run(limitMilliseconds: 20_000) { $0.agrees(up: 50) } != nil)
        simulator.run(milliseconds: 5000)
        let (accuser, accused) = (simulator.nodes[1].record, simulator.nodes[2].record)
        func accusation(to target: NodeID) -> [UInt8] {
            GossipDatagram(
                clusterTag: GossipDatagram.tag(ofCluster: "henge"),
                sender: accuser.id,
                senderGeneration: accuser.generation,
                target: target,
                message: .update(sequence: 0),
                entries: [
                    .suspicion(
                        subject: accused.id,
                        generation: accused.generation,
                        incarnation: accused.incarnation,
                        accuser: accuser.id
                    )
                ]
            ).encoded()
        }
        simulator.deliver(accusation(to: simulator.nodes[0].record.id), to: 0, from: accuser.cluster)
        #expect(simulator.view(of: 2, by: 0)?.liveness == .suspect)
        #expect(simulator.nodes[0].membership?.table[accused.id]?.suspicion?.accusers == [accuser.id])
        simulator.deliver(accusation(to: accused.id), to: 2, from: accuser.cluster)
        #expect(simulator.nodes[2].membership?.own.incarnation == accused.incarnation + 1)
        let isRefuted = simulator.run(limitMilliseconds: 5000) { $0.view(of: 2, by: 0)?.liveness == .alive }
        #expect(isRefuted != nil)
    }
}
