import ClusterCore
import Glibc
import Testing

@testable import HashRing

@Suite struct FixedLogarithmTests {
    @Test func `logarithms agree with floating point`() {
        var random = Xoshiro256(seed: 21)
        for _ in 0..<2000 {
            let value = max(1, random.next() >> UInt64.random(in: 0..<64, using: &random))
            let exact = log2(Double(value))
            let fixed = Double(FixedLogarithm.log2(value)) / 4_294_967_296
            if abs(fixed - exact) > 1e-9 { Issue.record("log2(\(value)) is \(exact), not \(fixed)") }
        }
        #expect(FixedLogarithm.log2(1) == 0)
        #expect(FixedLogarithm.log2(1 << 63) == 63 << 32)
        #expect(FixedLogarithm.log2(.max) == (64 << 32) - 1)
    }

    @Test func `waiting times fall as their chance grows`() {
        var last = Int32.max
        for part in stride(from: UInt64(1), to: 32_768, by: 2) {
            let time = FixedLogarithm.waitingTime(part: part, bits: 15)
            let exact = log2(-log2(Double(part) / 32_768))
            if time >= last || abs(Double(time) / 65_536 - exact) > 1e-4 {
                Issue.record("\(part): \(time) after \(last), exactly \(exact)")
            }
            last = time
        }
    }
}

@Suite struct FairShareTests {
    @Test func `shares add up to the copies whatever weights and zones are`() {
        for seed in UInt64(0)..<200 {
            var random = Xoshiro256(seed: seed)
            let count = Int.random(in: 1...20, using: &random)
            let copies = Int.random(in: 1...min(4, count), using: &random)
            let weights = (0..<count).map { _ in UInt64.random(in: 1...100_000, using: &random) }
            var zones: [Int] = []
            var zoneCount = 0
            for _ in 0..<count {
                zones.append(Int.random(in: 0...min(zoneCount, 5), using: &random))
                zoneCount = max(zoneCount, zones[zones.count - 1] + 1)
            }
            let shares = FairShare.copies(weights: weights, zones: zones, copies: copies)
            let sum = shares.reduce(0, +)
            let whole = FairShare.whole * UInt64(copies)
            #expect(sum <= whole && sum + 64 >= whole, "seed \(seed): \(shares)")
            #expect(shares.allSatisfy { $0 <= FairShare.whole }, "seed \(seed): \(shares)")
            for zone in 0..<zoneCount {
                let share = zip(shares, zones).reduce(0) { $1.1 == zone ? $0 + $1.0 : $0 }
                if zoneCount >= copies { #expect(share <= FairShare.whole, "seed \(seed): zone \(zone)") }
                if zoneCount <= copies { #expect(share + 64 >= FairShare.whole, "seed \(seed): zone \(zone)") }
            }
        }
    }

    @Test func `what a heavy member cannot hold goes to the others by weight`() {
        let shares = FairShare.copies(weights: [9000, 1000, 2000], zones: [0, 1, 2], copies: 2)
        let whole = FairShare.whole
        #expect(shares == [whole, whole / 3, whole / 3 * 2])
    }
}

@Suite struct PlacementTests {
    /// The primaries of equal nodes, as plainly as they can be told: each slice in turn takes the node that ranks it
    /// best and is not full, or, near the end, not yet at its least.
    private func plainPrimaries(_ members: [RingMember]) -> [UInt16] {
        let count = members.count
        let ranks = members.map { member in
            var ranks = Array(0..<Slice.count)
            var chances = Array(repeating: 0, count: Slice.count)
            var state = KeyHash.mix(KeyHash.mix(member.id.high) ^ member.id.low)
            for slice in (0..<Slice.count).reversed() {
                state = state &+ 0x9e37_79b9_7f4a_7c15
                let random = KeyHash.mix(state)
                ranks.swapAt(slice, Int(((random >> 32) * UInt64(slice + 1)) >> 32))
                chances[slice] = Int(random & 0xff)
            }
            return zip(ranks, chances).map { $0 * 256 + $1 }
        }
        let least = Int((Double(Slice.count) / Double(count) * 0.97).rounded(.up))
        let most = Int((Double(Slice.count) / Double(count) * 1.03).rounded(.down))
        var counts = Array(repeating: 0, count: count)
        return (0..<Slice.count).map { slice in
            let needed = counts.reduce(0) { $0 + max(0, least - $1) }
            let limit = needed >= Slice.count - slice ? least : most
            let chosen = (0..<count).filter { counts[$0] < limit }.min { ranks[$0][slice] < ranks[$1][slice] }
            counts[chosen ?? 0] += 1
            return UInt16(chosen ?? 0)
        }
    }

    @Test(arguments: [3, 11, 24])
    func `primaries agree with a plain telling of the rule`(count: Int) {
        let seed = UInt64(30 + count)
        let ring = Ring(members: randomMembers(count, seed: seed), replicas: 0)
        let differing = zip(0..., plainPrimaries(ring.members)).filter { ring.primary(of: $0) != $1 }
        #expect(differing.isEmpty, "seed \(seed): \(differing.count) slices, the first \(differing.prefix(3))")
    }

    @Test func `a share has a whole number within its bounds`() {
        for share in stride(from: UInt64(0), through: FairShare.whole, by: 9973) {
            let bounds = ShareBounds(share: share)
            let fair = Double(share) / 65_536
            if Double(bounds.least) > fair || Double(bounds.most) < fair { Issue.record("\(share): \(bounds)") }
            if fair > 40, Double(bounds.least) < fair * 0.97 || Double(bounds.most) > fair * 1.03 {
                Issue.record("\(share): \(bounds)")
            }
        }
    }
}
