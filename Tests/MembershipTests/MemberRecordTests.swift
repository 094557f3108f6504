import ClusterCore
import MembershipSimulation
import Testing

@testable import Membership

@Suite struct `Member records` {
    @Test func `merge commutes, associates and is idempotent`() {
        var random = Xoshiro256(seed: 11)
        let id = NodeID(high: 1, low: 2)
        for round in 0..<20_000 {
            let (a, b, c) = (
                Samples.record(&random, id: id), Samples.record(&random, id: id), Samples.record(&random, id: id)
            )
            #expect(a.merged(with: b) == b.merged(with: a), "seed 11, round \(round)")
            #expect(a.merged(with: b).merged(with: c) == a.merged(with: b.merged(with: c)), "seed 11, round \(round)")
            #expect(a.merged(with: a) == a)
            #expect(a.merged(with: b).merged(with: b) == a.merged(with: b))
        }
    }

    private func record(
        generation: UInt64 = 1,
        incarnation: UInt32 = 0,
        sequence: UInt32 = 0,
        lifecycle: Lifecycle = .up,
        liveness: Liveness = .alive
    ) -> MemberRecord {
        MemberRecord(
            id: NodeID(high: 1, low: 1),
            generation: generation,
            incarnation: incarnation,
            sequence: sequence,
            lifecycle: lifecycle,
            liveness: liveness,
            name: "a",
            client: GossipSimulator.endpoint(1),
            cluster: GossipSimulator.endpoint(1),
            admin: GossipSimulator.endpoint(1)
        )
    }

    @Test func `what an owner says while it is suspected is heard`() {
        let merged = record(sequence: 5, lifecycle: .left).merged(with: record(sequence: 4, liveness: .down))
        #expect(merged.lifecycle == .left)
        #expect(merged.liveness == .down)
    }

    @Test func `a higher incarnation refutes, the same does not`() {
        #expect(record(incarnation: 1).merged(with: record(liveness: .down)).liveness == .alive)
        #expect(record(incarnation: 1).merged(with: record(incarnation: 1, liveness: .suspect)).liveness == .suspect)
    }

    @Test func `a tombstone falls to a higher generation alone`() {
        let forgotten = record(incarnation: 3, liveness: .forgotten)
        #expect(record(incarnation: 9).merged(with: forgotten).isTombstone)
        #expect(!record(generation: 2).merged(with: forgotten).isTombstone)
    }

    @Test func `having seen three members is never taken back`() {
        var old = record(generation: 1)
        old.sawThree = true
        #expect(record(generation: 2).merged(with: old).sawThree)
    }

    @Test func `the hash is fixed`() {
        #expect(hexadecimal(record().hash) == "dfdb4aca33d081c5")
    }

    @Test func `every field is in the hash`() {
        let base = record()
        let changes: [(inout MemberRecord) -> Void] = [
            { $0.id.low += 1 }, { $0.generation += 1 }, { $0.incarnation += 1 }, { $0.sequence += 1 },
            { $0.lifecycle = .draining }, { $0.liveness = .suspect }, { $0.name = "b" }, { $0.zone = "z" },
            { $0.weight += 1 }, { $0.client.port += 1 }, { $0.cluster.port += 1 }, { $0.admin.port += 1 },
            { $0.configurationHash += 1 }, { $0.protocolVersion += 1 }, { $0.memoryBytes += 1 },
            { $0.sawThree.toggle() }, { $0.isDamped.toggle() },
        ]
        var hashes: Set<UInt64> = [base.hash]
        for change in changes {
            var changed = base
            change(&changed)
            hashes.insert(changed.hash)
        }
        #expect(hashes.count == changes.count + 1)
    }
}

@Suite struct `Suspicion times` {
    @Test func `the logarithm is right within two thousandths`() {
        for (number, thousandths) in [
            (1, 0), (2, 301), (10, 1000), (16, 1204), (100, 2000), (128, 2107), (1000, 3000), (4096, 3612),
        ] as [(Int, UInt64)] {
            let result = log10Thousandths(number)
            #expect(result <= thousandths && result + 2 >= thousandths, "\(number): \(result)")
        }
    }

    @Test func `confirmations shorten, and none are waited for where nobody can confirm`() {
        let configuration = MembershipConfiguration()
        var suspicion = Suspicion(since: Instant(nanoseconds: 0))
        func seconds(members: Int, opinions: Int) -> Double {
            Double(suspicion.deadline(members: members, opinions: opinions, configuration: configuration).nanoseconds)
                / 1e9
        }
        #expect(seconds(members: 2, opinions: 0) == 2)
        #expect(seconds(members: 3, opinions: 1) == 12)
        var accusers = Xoshiro256(seed: 1)
        let (first, second, third) = (
            NodeID(using: &accusers), NodeID(using: &accusers), NodeID(using: &accusers)
        )
        let counted = [first, first].map { suspicion.add($0) }
        #expect(counted == [true, false])
        #expect(seconds(members: 3, opinions: 1) == 12)
        _ = suspicion.add(second)
        #expect(seconds(members: 3, opinions: 1) == 2)
        #expect((5.6...5.8).contains(seconds(members: 5, opinions: 3)))
        _ = suspicion.add(third)
        #expect(seconds(members: 5, opinions: 3) == 2)
        #expect((2.39...2.42).contains(seconds(members: 16, opinions: 14)))
    }

    @Test func `a configuration names what contradicts`() {
        #expect(throws: Never.self) { try MembershipConfiguration().validate() }
        var configuration = MembershipConfiguration()
        configuration.directTimeoutMilliseconds = 400
        #expect(throws: InvalidMembershipConfiguration.self) { try configuration.validate() }
        #expect(
            MembershipConfiguration.difference(own: "replicas=1 partition=auto", other: "replicas=2 partition=auto")
                == "here replicas=1, there replicas=2"
        )
    }
}
