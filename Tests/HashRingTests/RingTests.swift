import ClusterCore
import HashRing
import Testing

@Suite struct RingTests {
    @Test func `a ring without members has no owners`() {
        let ring = Ring(members: [], replicas: 2)
        #expect(ring.copies == 0)
        #expect(ring.owners(of: 0).isEmpty)
        #expect(ring.primary(of: Slice.count - 1) == nil)
    }

    @Test func `a single member owns everything`() {
        let ring = Ring(members: randomMembers(1, seed: 1), replicas: 2)
        #expect(ring.copies == 1)
        #expect((0..<Slice.count).allSatisfy { ring.owners(of: $0).elementsEqual([0]) })
        #expect(ring.primaries(of: 0) == Slice.count)
        #expect(ring.copies(of: 0) == Slice.count)
    }

    @Test(arguments: [(2, 1), (2, 5), (3, 1), (3, 2), (7, 3), (24, 2)])
    func `owners are distinct and counted`(count: Int, replicas: Int) {
        let ring = Ring(members: randomMembers(count, seed: 2), replicas: replicas)
        #expect(ring.copies == min(replicas + 1, count))
        var primaries = Array(repeating: 0, count: count)
        var copies = primaries
        for slice in 0..<Slice.count {
            let owners = ring.owners(of: slice)
            if owners.count != ring.copies || Set(owners).count != ring.copies {
                Issue.record("slice \(slice) has the owners \(owners)")
            }
            primaries[Int(owners[owners.startIndex])] += 1
            for owner in owners { copies[Int(owner)] += 1 }
        }
        #expect(primaries == (0..<count).map(ring.primaries(of:)))
        #expect(copies == (0..<count).map(ring.copies(of:)))
    }

    @Test func `the order in which members are named does not matter`() {
        let members = randomMembers(7, seed: 3, weight: { 500 + UInt32($0) * 300 }, zone: { "z\($0 % 3)" })
        let ring = Ring(members: members, replicas: 1)
        let other = Ring(members: members.reversed(), replicas: 1)
        #expect(ring == other)
        #expect(ring.hash == other.hash)
        #expect(digest(ring) == digest(other))
        #expect(ring.members == other.members)
    }

    @Test func `the hash tells rings apart`() {
        let members = randomMembers(3, seed: 4, zone: { _ in "a" })
        var variants = [members, Array(members.dropLast()), members, members, members, members]
        variants[2][0].weight = 1001
        variants[3][1].zone = "b"
        variants[4][2].id.low ^= 1
        variants[5][2].zone = ""
        var rings = variants.map { Ring(members: $0, replicas: 1) }
        rings.append(Ring(members: members, replicas: 2))
        rings.append(Ring(members: [], replicas: 1))
        for left in rings.indices {
            for right in rings.indices {
                #expect((rings[left].hash == rings[right].hash) == (left == right))
                #expect((rings[left] == rings[right]) == (left == right))
            }
        }
    }

    @Test func `primaries are the same for any number of replicas`() {
        let members = randomMembers(6, seed: 5, weight: { $0 == 0 ? 3000 : 1000 })
        let rings = (0...2).map { Ring(members: members, replicas: $0) }
        for slice in 0..<Slice.count where Set(rings.map { $0.primary(of: slice) }).count != 1 {
            Issue.record("slice \(slice) has several primaries")
        }
    }

    /// What any other program must compute. A change here is a change of `Ring.version`.
    @Test(arguments: RingVector.all)
    func `rings are fixed by vectors`(vector: RingVector) {
        let members = (0..<vector.members).map { index in
            RingMember(
                id: NodeID(high: UInt64(index) &* 0x9e37_79b9_7f4a_7c15, low: UInt64(index)),
                weight: vector.weighted ? 1000 + UInt32(index % 3) * 500 : 1000,
                zone: vector.zones > 0 ? "zone-\(index % vector.zones)" : ""
            )
        }
        let ring = Ring(members: members, replicas: vector.replicas)
        #expect(hexadecimal(ring.hash) == vector.hash)
        #expect(hexadecimal(digest(ring)) == vector.digest)
        #expect(Array(ring.owners(of: 4711)) == vector.owners)
    }

    @Test func `impossible members stop the program`() async {
        await #expect(processExitsWith: .failure) {
            let member = RingMember(id: NodeID(high: 1, low: 2))
            _ = Ring(members: [member, member], replicas: 1)
        }
        await #expect(processExitsWith: .failure) {
            _ = Ring(members: [RingMember(id: NodeID(high: 1, low: 2), weight: 0)], replicas: 1)
        }
    }
}

struct RingVector: Sendable, CustomTestStringConvertible {
    var members: Int
    var replicas: Int
    var weighted = false
    var zones = 0
    var hash: String
    var digest: String
    var owners: [UInt16]

    var testDescription: String { "\(members) members, \(replicas) replicas, \(zones) zones, weighted \(weighted)" }

    static let all = [
        RingVector(
            members: 2,
            replicas: 0,
            hash: "c54d26ddde2b505b",
            digest: "f1b52ae32d2d73be",
            owners: [0]
        ),
        RingVector(
            members: 3,
            replicas: 1,
            hash: "89751731a12fa738",
            digest: "75f20a0d5a3954ad",
            owners: [1, 0]
        ),
        RingVector(
            members: 5,
            replicas: 2,
            weighted: true,
            hash: "e3c734141973a6f7",
            digest: "5270d2bf8e408292",
            owners: [1, 0, 3]
        ),
        RingVector(
            members: 9,
            replicas: 1,
            weighted: true,
            zones: 3,
            hash: "f998a3423107c479",
            digest: "f4353bb499c3292e",
            owners: [2, 0]
        ),
        RingVector(
            members: 24,
            replicas: 2,
            zones: 2,
            hash: "6c737e65c4d4f5ec",
            digest: "00d9ccc080f9c4f3",
            owners: [6, 1, 12]
        ),
    ]
}
