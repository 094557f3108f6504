import ClusterCore
import MembershipSimulation
import Testing

@testable import Membership

/// Random records and datagrams.
enum Samples {
    static func endpoint(_ random: inout Xoshiro256) -> Endpoint {
        let address: IPAddress =
            Bool.random(using: &random)
            ? .v4(UInt32(truncatingIfNeeded: random.next())) : .v6(random.next(), random.next())
        return Endpoint(address, port: UInt16(truncatingIfNeeded: random.next()))
    }

    static func text(_ most: Int, _ random: inout Xoshiro256) -> String {
        String(
            (0..<Int.random(in: 0...most, using: &random)).map { _ in
                "abcdefghij-0123456789".randomElement(using: &random) ?? "a"
            }
        )
    }

    static func record(_ random: inout Xoshiro256, id: NodeID? = nil) -> MemberRecord {
        MemberRecord(
            id: id ?? NodeID(using: &random),
            generation: UInt64.random(in: 0...3, using: &random),
            incarnation: UInt32.random(in: 0...3, using: &random),
            sequence: UInt32.random(in: 0...3, using: &random),
            lifecycle: Lifecycle.allCases.randomElement(using: &random) ?? .up,
            liveness: Liveness.allCases.randomElement(using: &random) ?? .alive,
            name: text(64, &random),
            zone: text(32, &random),
            weight: UInt32(truncatingIfNeeded: random.next()),
            client: endpoint(&random),
            cluster: endpoint(&random),
            admin: endpoint(&random),
            configurationHash: random.next(),
            protocolVersion: UInt16(truncatingIfNeeded: random.next()),
            memoryBytes: random.next(),
            sawThree: Bool.random(using: &random),
            isDamped: Bool.random(using: &random)
        )
    }

    static func message(_ random: inout Xoshiro256) -> GossipMessage {
        let number = UInt32(truncatingIfNeeded: random.next())
        let probe = GossipProbe(
            sequence: number,
            hash: random.next()
        )
        let hello = GossipHello(
            nonce: number,
            joined: Bool.random(using: &random),
            seesReceiver: Bool.random(using: &random),
            hash: random.next(),
            seedListHash: random.next(),
            clusterName: "c" + text(63, &random),
            settings: text(200, &random),
            record: record(&random)
        )
        switch Int.random(in: 0..<15, using: &random) {
        case 0: return .ping(probe)
        case 1: return .ack(probe)
        case 2: return .pingRequest(sequence: number, subject: NodeID(using: &random))
        case 3: return .indirectAck(sequence: number)
        case 4: return .nack(sequence: number)
        case 5: return .update(sequence: number)
        case 6: return .updated(sequence: number, hash: random.next())
        case 7:
            let sums =
                Bool.random(using: &random) ? (0..<128).map { _ in UInt32(truncatingIfNeeded: random.next()) } : []
            return .pull(nonce: number, hash: random.next(), sums: sums)
        case 8:
            let parts = UInt8.random(in: 0...64, using: &random)
            let part = parts == 0 ? 0 : UInt8.random(in: 0..<parts, using: &random)
            return .state(nonce: number, part: part, parts: parts, hash: random.next())
        case 9: return .hello(hello)
        case 10: return .helloReply(hello)
        case 11: return .form(generation: random.next())
        case 12:
            let reasons: [GossipRefusal.Reason] = [.foreignCluster, .configuration, .nameTaken, .forgotten]
            return .refuse(
                GossipRefusal(
                    nonce: number,
                    reason: reasons.randomElement(using: &random) ?? .forgotten,
                    detail: text(200, &random),
                    holder: NodeID(using: &random)
                )
            )
        case 13: return .exchangeRequest(hash: random.next())
        default: return .exchangeReply(hash: random.next())
        }
    }

    static func datagram(_ random: inout Xoshiro256, tag: UInt64? = nil, sender: NodeID? = nil) -> GossipDatagram {
        var entries: [GossipEntry] = []
        for _ in 0..<Int.random(in: 0...3, using: &random) {
            if Bool.random(using: &random) {
                entries.append(.record(record(&random), ageSeconds: UInt32(truncatingIfNeeded: random.next())))
            } else {
                entries.append(
                    .suspicion(
                        subject: NodeID(using: &random),
                        generation: random.next(),
                        incarnation: 1,
                        accuser: NodeID(using: &random)
                    )
                )
            }
        }
        return GossipDatagram(
            clusterTag: tag ?? random.next(),
            sender: sender ?? NodeID(using: &random),
            senderGeneration: random.next(),
            target: Bool.random(using: &random) ? nil : NodeID(using: &random),
            message: message(&random),
            entries: entries
        )
    }

    static func mutate(_ bytes: inout [UInt8], _ random: inout Xoshiro256) {
        switch Int.random(in: 0..<4, using: &random) {
        case 0: bytes.removeLast(Int.random(in: 0...bytes.count, using: &random))
        case 1:
            bytes += (0..<Int.random(in: 1...9, using: &random)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        default:
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                // Not the first bytes, or nearly all would be refused there.
                guard bytes.count > 4 else { return }
                bytes[Int.random(in: 3..<bytes.count, using: &random)] = UInt8(truncatingIfNeeded: random.next())
            }
        }
    }
}

@Suite struct `Gossip codec` {
    @Test func `a record says how many bytes it takes`() {
        var random = Xoshiro256(seed: 12)
        for _ in 0..<200 {
            let record = Samples.record(&random)
            #expect(record.encodedBytes == record.encoded.count)
        }
    }

    @Test func `what is encoded decodes to the same`() throws {
        var random = Xoshiro256(seed: 1)
        for round in 0..<5000 {
            let datagram = Samples.datagram(&random)
            let bytes = datagram.encoded()
            let decoded = try bytes.withUnsafeBytes { try GossipDatagram(decoding: $0) }
            #expect(decoded == datagram, "seed 1, round \(round)")
        }
    }

    @Test func `entries say how long they are`() {
        var random = Xoshiro256(seed: 2)
        for _ in 0..<500 {
            var datagram = Samples.datagram(&random)
            let whole = datagram.encoded().count
            let entries = datagram.entries.reduce(0) { $0 + $1.encodedBytes }
            datagram.entries = []
            #expect(datagram.encoded().count + entries == whole)
        }
        var longest = Samples.record(&random)
        longest.name = String(repeating: "n", count: 64)
        longest.zone = String(repeating: "z", count: 32)
        let v6 = Endpoint(.v6(1, 2), port: 3)
        (longest.client, longest.cluster, longest.admin) = (v6, v6, v6)
        #expect(longest.encoded.count == MemberRecord.encodedBytesMax)
        #expect(GossipEntry.record(longest, ageSeconds: 1).encodedBytes == GossipEntry.bytesMax)
    }

    @Test func `every truncation is malformed or ends between two entries`() {
        var random = Xoshiro256(seed: 3)
        for _ in 0..<200 {
            let datagram = Samples.datagram(&random)
            let bytes = datagram.encoded()
            for count in 0..<bytes.count {
                let decoded = bytes[..<count].withUnsafeBytes { try? GossipDatagram(decoding: $0) }
                if let decoded {
                    #expect(decoded.message == datagram.message)
                    #expect(decoded.entries == Array(datagram.entries.prefix(decoded.entries.count)))
                    #expect(decoded.encoded().count == count)
                }
            }
        }
    }

    @Test func `entries of a later version are skipped`() throws {
        var random = Xoshiro256(seed: 4)
        var datagram = Samples.datagram(&random)
        datagram.entries = [.record(Samples.record(&random), ageSeconds: 0)]
        let bytes = datagram.encoded() + [200, 3, 0, 1, 2, 3]
        #expect(try bytes.withUnsafeBytes { try GossipDatagram(decoding: $0) } == datagram)
    }

    @Test func `mutated bytes never trap, and change nothing but by what decodes`() {
        var random = Xoshiro256(seed: 5)
        var decodedCount = 0
        for _ in 0..<100_000 {
            var bytes = Samples.datagram(&random).encoded()
            Samples.mutate(&bytes, &random)
            if let decoded = bytes.withUnsafeBytes({ try? GossipDatagram(decoding: $0) }) {
                decodedCount += 1
                #expect(decoded.encoded().count <= bytes.count)
            }
        }
        #expect(decodedCount > 1000)
    }

    @Test func `a member survives whatever arrives`() {
        var random = Xoshiro256(seed: 6)
        var simulator = GossipSimulator.cluster(3, seed: 6)
        simulator.run(milliseconds: 3000)
        let ids = simulator.nodes.map(\.record.id)
        let tag = GossipDatagram.tag(ofCluster: "henge")
        for round in 0..<30_000 {
            var datagram = Samples.datagram(
                &random,
                tag: tag,
                sender: Bool.random(using: &random) ? ids.randomElement(using: &random) : nil
            )
            datagram.target = Bool.random(using: &random) ? nil : ids[0]
            if Bool.random(using: &random) { datagram.senderGeneration = 1001 }
            datagram.entries = datagram.entries.map { entry in
                guard case .record(var record, let age) = entry, Bool.random(using: &random) else { return entry }
                record.id = ids[Int.random(in: 1...2, using: &random)]
                record.generation = 1002
                return .record(record, ageSeconds: age)
            }
            var bytes = datagram.encoded()
            if Bool.random(using: &random) { Samples.mutate(&bytes, &random) }
            if simulator.nodes[0].stopReason != nil { simulator.start(0) }
            simulator.call(0) { membership, now, effects in
                bytes.withUnsafeBytes {
                    membership.receive($0, from: GossipSimulator.endpoint(round % 3), now: now, effects: &effects)
                }
            }
            if round % 50 == 0 { simulator.run(milliseconds: 20) }
        }
        #expect(simulator.longestDatagram <= 1200)
    }
}
