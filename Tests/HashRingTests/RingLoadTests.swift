import ClusterCore
import Testing

@testable import HashRing

@Suite struct RingLoadTests {
    @Test(arguments: [2, 3, 4, 6, 9, 12, 17, 24, 32], 0...2)
    func `equal nodes hold equal loads within 3 percent`(count: Int, replicas: Int) {
        let seed = UInt64(count * 10 + replicas)
        let spread = LoadSpread(Ring(members: randomMembers(count, seed: seed), replicas: replicas))
        #expect(spread.isWithin(0.03), "seed \(seed): \(spread)")
    }

    @Test(arguments: [3, 5, 10, 24], 0...2)
    func `weights are honoured within 3 percent`(count: Int, replicas: Int) {
        let seed = UInt64(count * 10 + replicas)
        let weights: [UInt32] = [1000, 2000, 500, 4000, 1000]
        let members = randomMembers(count, seed: seed, weight: { weights[$0 % weights.count] })
        let spread = LoadSpread(Ring(members: members, replicas: replicas))
        // A thousandth beside it: the shares of light nodes are a few hundred slices.
        #expect(spread.isWithin(0.031), "seed \(seed): \(spread)")
    }

    @Test(arguments: [3, 4, 6, 12, 24], [1, 2])
    func `owners are in distinct zones and loads stay within 4 percent of what zones allow`(count: Int, replicas: Int) {
        let seed = UInt64(count * 10 + replicas)
        let ring = Ring(members: randomMembers(count, seed: seed, zone: { "z\($0 % 3)" }), replicas: replicas)
        #expect(slicesWithSharedZone(ring) == 0, "seed \(seed)")
        let spread = LoadSpread(ring)
        #expect(spread.isWithin(0.04), "seed \(seed): \(spread)")
    }

    @Test func `a small zone holds a copy of every slice where it must`() {
        // One node alone in its zone, six in the other: two copies need both zones.
        let members = randomMembers(7, seed: 6, zone: { $0 == 0 ? "small" : "large" })
        let ring = Ring(members: members, replicas: 1)
        #expect(slicesWithSharedZone(ring) == 0)
        let small = ring.members.indices.filter { ring.members[$0].zone == "small" }
        #expect(small.map(ring.copies(of:)) == [Slice.count])
        let spread = LoadSpread(ring)
        #expect(spread.isWithin(0.03), "\(spread)")
    }

    @Test func `with fewer zones than copies every zone has a copy`() {
        let ring = Ring(members: randomMembers(8, seed: 7, zone: { $0 < 3 ? "a" : "b" }), replicas: 2)
        for slice in 0..<Slice.count {
            let zones = Set(ring.owners(of: slice).map { ring.members[Int($0)].zone })
            if zones.count != 2 { Issue.record("slice \(slice) is in \(zones)") }
        }
        let spread = LoadSpread(ring)
        #expect(spread.isWithin(0.03), "\(spread)")
    }

    @Test func `members without a zone are apart from all others`() {
        let ring = Ring(members: randomMembers(6, seed: 8, zone: { $0 < 2 ? "a" : "" }), replicas: 4)
        let zoned = ring.members.indices.filter { ring.members[$0].zone == "a" }
        for slice in 0..<Slice.count where ring.owners(of: slice).count(where: { zoned.contains(Int($0)) }) != 1 {
            Issue.record("slice \(slice) has the owners \(ring.owners(of: slice))")
        }
    }

    @Test(arguments: 0...2)
    func `extreme weights are held`(replicas: Int) {
        let members = randomMembers(5, seed: 9, weight: { [1, 100_000, 1000, 1000, 10][$0] })
        let ring = Ring(members: members, replicas: replicas)
        for (index, share) in ring.fairShares().enumerated() {
            let fair = Double(share) / 65_536
            let copies = Double(ring.copies(of: index))
            #expect(abs(copies - fair) <= max(1, fair * 0.03), "\(ring.members[index]): \(copies) of \(fair)")
        }
    }

    @Test(arguments: [63, 128])
    func `many nodes hold equal loads within 3 percent`(count: Int) {
        let spread = LoadSpread(Ring(members: randomMembers(count, seed: 10), replicas: 1))
        #expect(spread.isWithin(0.03), "\(spread)")
    }
}

@Suite struct RingMovementTests {
    /// Joins and leaves alike: a join back is a leave, and both move the same copies in opposite directions.
    private func moved(
        _ count: Int,
        replicas: Int,
        seeds: Range<UInt64>,
        weights: [UInt32] = [1000],
        zones: Int = 0
    ) -> (join: Double, leave: Double) {
        var sums = (join: 0.0, leave: 0.0)
        for seed in seeds {
            let members = randomMembers(
                count + 1,
                seed: seed &* 7919 &+ UInt64(count),
                weight: { weights[$0 % weights.count] },
                zone: { zones > 0 ? "z\($0 % zones)" : "" }
            )
            let small = Ring(members: Array(members.dropLast()), replicas: replicas)
            let large = Ring(members: members, replicas: replicas)
            let join = RingDifference(from: small, to: large)
            let leave = RingDifference(from: large, to: small)
            sums.join += Double(join.copiesMoved) / Double(join.copiesMovedMin)
            sums.leave += leave.copiesMovedMin == 0 ? 1 : Double(leave.copiesMoved) / Double(leave.copiesMovedMin)
        }
        return (sums.join / Double(seeds.count), sums.leave / Double(seeds.count))
    }

    @Test(arguments: [3, 5, 9, 16, 23], [1, 2])
    func `a join or a leave moves at most 3 percent more copies than it must`(count: Int, replicas: Int) {
        let seeds: Range<UInt64> = 1..<6
        let moved = moved(count, replicas: replicas, seeds: seeds)
        #expect(moved.join <= 1.03 && moved.leave <= 1.03, "seeds \(seeds): \(moved)")
    }

    /// Without replicas a node has fewest slices, and most must be steered: 60 seeds gave 1.002 at 6 nodes, 1.010 at 12,
    /// 1.033 at 20 and 1.036 at 23, more than wished for; five seeds stray by 0.015 around that.
    @Test(arguments: [(3, 1.03), (6, 1.03), (12, 1.03), (23, 1.06)])
    func `without replicas a join moves little more than it must`(count: Int, limit: Double) {
        let seeds: Range<UInt64> = 1..<6
        let moved = moved(count, replicas: 0, seeds: seeds)
        #expect(moved.join <= limit && moved.leave <= limit, "seeds \(seeds): \(moved)")
    }

    @Test(arguments: [3, 7, 12])
    func `as many zones as copies cost no movement`(count: Int) {
        let seeds: Range<UInt64> = 1..<4
        let moved = moved(count, replicas: 2, seeds: seeds, zones: 3)
        #expect(moved.join <= 1.03 && moved.leave <= 1.03, "seeds \(seeds): \(moved)")
    }

    /// Rates follow shares, and not in proportion, so that a join also changes the order of nodes of unequal weights.
    @Test(arguments: [4, 9], [1, 2])
    func `unequal weights cost little movement`(count: Int, replicas: Int) {
        let seeds: Range<UInt64> = 1..<4
        let moved = moved(count, replicas: replicas, seeds: seeds, weights: [1000, 1500, 2000])
        #expect(moved.join <= 1.1 && moved.leave <= 1.1, "seeds \(seeds): \(moved)")
    }

    /// The ring's weak spot: fewer copies than zones, and zones of unequal size.
    @Test func `two copies over three unequal zones move less than half more than they must`() {
        let seeds: Range<UInt64> = 1..<4
        let moved = moved(7, replicas: 1, seeds: seeds, zones: 3)
        #expect(moved.join <= 1.5 && moved.leave <= 1.5, "seeds \(seeds): \(moved)")
    }

    @Test func `a difference names exactly who gains and loses`() {
        let members = randomMembers(9, seed: 11, zone: { "z\($0 % 3)" })
        let old = Ring(members: Array(members.dropLast(2)), replicas: 1)
        let new = Ring(members: Array(members.dropFirst()), replicas: 2)
        let difference = RingDifference(from: old, to: new)
        var moved = 0
        var primaries = 0
        var changes = difference.changes[...]
        for slice in 0..<Slice.count {
            let before = old.owners(of: slice).map { old.members[Int($0)].id }
            let after = new.owners(of: slice).map { new.members[Int($0)].id }
            let gains = Set(after).subtracting(before)
            let losses = Set(before).subtracting(after)
            moved += gains.count
            primaries += before[0] == after[0] ? 0 : 1
            guard !gains.isEmpty || !losses.isEmpty || before[0] != after[0] else { continue }
            let change = changes.removeFirst()
            if change.slice != slice || Set(change.gains) != gains || Set(change.losses) != losses
                || change.primaryBefore != before[0] || change.primaryAfter != after[0]
            {
                Issue.record("\(change) is not the change from \(before) to \(after)")
            }
        }
        #expect(changes.isEmpty)
        #expect(difference.copiesMoved == moved)
        #expect(difference.primariesMoved == primaries)
    }

    @Test func `equal rings do not differ and an empty one differs in everything`() {
        let ring = Ring(members: randomMembers(3, seed: 12), replicas: 1)
        let none = RingDifference(from: ring, to: ring)
        #expect(none.changes.isEmpty && none.copiesMoved == 0 && none.copiesMovedMin == 0)
        let start = RingDifference(from: Ring(members: [], replicas: 1), to: ring)
        #expect(start.copiesMoved == 2 * Slice.count && start.copiesMovedMin == 2 * Slice.count)
        #expect(start.primariesMoved == Slice.count)
        let end = RingDifference(from: ring, to: Ring(members: [], replicas: 1))
        #expect(end.copiesMoved == 0 && end.changes.allSatisfy { $0.losses.count == 2 && $0.primaryAfter == nil })
    }
}
