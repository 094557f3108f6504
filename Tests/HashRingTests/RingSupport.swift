import ClusterCore

@testable import HashRing

/// Members with random ids; weights and zones as a function of their number.
func randomMembers(
    _ count: Int,
    seed: UInt64,
    weight: (Int) -> UInt32 = { _ in 1000 },
    zone: (Int) -> String = { _ in "" }
) -> [RingMember] {
    var random = Xoshiro256(seed: seed)
    return (0..<count).map { RingMember(id: NodeID(using: &random), weight: weight($0), zone: zone($0)) }
}

/// The least and the most that members hold in relation to their fair shares: of primaries, and of all copies.
struct LoadSpread {
    var primaries = (least: Double.infinity, most: 0.0)
    var copies = (least: Double.infinity, most: 0.0)

    init(_ ring: Ring) {
        let weightSum = ring.members.reduce(0.0) { $0 + Double($1.weight) }
        for (index, share) in ring.fairShares().enumerated() {
            let primaries = Double(Slice.count) * Double(ring.members[index].weight) / weightSum
            add(Double(ring.primaries(of: index)) / primaries, to: \.primaries)
            add(Double(ring.copies(of: index)) * 65_536 / Double(share), to: \.copies)
        }
    }

    private mutating func add(_ ratio: Double, to spread: WritableKeyPath<Self, (least: Double, most: Double)>) {
        self[keyPath: spread].least = min(self[keyPath: spread].least, ratio)
        self[keyPath: spread].most = max(self[keyPath: spread].most, ratio)
    }

    /// Whether all is within the given part of the fair share.
    func isWithin(_ part: Double) -> Bool {
        [primaries, copies].allSatisfy { $0.least >= 1 - part && $0.most <= 1 + part }
    }
}

/// All owners of a ring in one number, for test vectors.
func digest(_ ring: Ring) -> UInt64 {
    (0..<Slice.count).reduce(0) { digest, slice in
        ring.owners(of: slice).reduce(digest) { KeyHash.mix($0 &* 31 &+ UInt64($1) &+ 1) }
    }
}

/// How many slices have two owners in one zone.
func slicesWithSharedZone(_ ring: Ring) -> Int {
    (0..<Slice.count).count { slice in
        let zones = ring.owners(of: slice).map { ring.members[Int($0)].zone }
        return Set(zones).count < zones.count
    }
}
