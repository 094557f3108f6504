import ClusterCore

/// The work of building a ring: scores, shares, and the walk over the slices that turns them into owners.
///
/// A score is the logarithm of a waiting time; the lowest comes first. It has 16 bits behind the point and below
/// those 8 bits of chance, so that two nodes dealt the same value do not always end in the same order. To divide a
/// waiting time by a node's rate is to subtract the rate's logarithm, its *head start*.
struct Placement {
    /// How often the successors' head starts are corrected at most.
    private static let correctionsMax = 16
    /// How far a count may be from its share before it is corrected, in thousandths; just inside the walk's bounds.
    private static let nearThousandths: UInt64 = 29
    /// Bits of chance below the logarithm in a score.
    private static let chanceBits: Int32 = 8
    /// One doubling of a rate, in the units of scores.
    private static let doubling: Int32 = 1 << 24
    /// The head start of a node that belongs to every slice: nobody is faster by 2^64.
    private static let unbeatable: Int32 = 64 * doubling
    /// The range in which other head starts are kept.
    private static let headStarts: ClosedRange<Int32> = (-40 * doubling)...(40 * doubling)

    /// The logarithm of the waiting time for each of the evenly spaced chances, shortest first.
    private static let waitingTimes: [Int32] = (0..<UInt64(Slice.count)).map { rank in
        FixedLogarithm.waitingTime(part: 2 * (UInt64(Slice.count) - rank) - 1, bits: 15) << chanceBits
    }

    private let memberCount: Int
    private let copies: Int
    private let weights: [UInt64]
    private let zones: [Int]
    /// Scores without head starts: a row of members for each slice.
    private let scores: [Int32]
    /// The result: `copies` entries for each slice.
    private(set) var owners: [UInt16]

    /// `members` is sorted by id and not empty.
    init(members: [RingMember], copies: Int) {
        memberCount = members.count
        self.copies = copies
        weights = members.map { UInt64($0.weight) }
        zones = Self.zoneNumbers(of: members)
        scores = Self.scores(of: members)
        owners = Array(repeating: 0, count: Slice.count * copies)
    }

    /// Numbers the zones from 0 in the order of the members; a member without a zone gets a number of its own.
    static func zoneNumbers(of members: [RingMember]) -> [Int] {
        var numbers: [[UInt8]: Int] = [:]
        var next = 0
        return members.map { member in
            // By bytes: a string's own equality follows the version of Unicode.
            let name = Array(member.zone.utf8)
            if !name.isEmpty, let number = numbers[name] { return number }
            if !name.isEmpty { numbers[name] = next }
            next += 1
            return next - 1
        }
    }

    private static func scores(of members: [RingMember]) -> [Int32] {
        let waitingTimes = waitingTimes
        var scores = [Int32](repeating: 0, count: Slice.count * members.count)
        for (index, member) in members.enumerated() {
            // Fisher and Yates' shuffle; the numbers come from a counter, mixed (SplitMix).
            var ranks = Array(0..<UInt16(Slice.count))
            var state = KeyHash.mix(KeyHash.mix(member.id.high) ^ member.id.low)
            for slice in stride(from: Slice.count - 1, through: 0, by: -1) {
                state = state &+ 0x9e37_79b9_7f4a_7c15
                let random = KeyHash.mix(state)
                let other = Int(((random >> 32) &* UInt64(slice + 1)) >> 32)
                ranks.swapAt(slice, other)
                // This place is settled: later steps swap among those below.
                let chance = Int32(truncatingIfNeeded: random & 0xff)
                scores[slice * members.count + index] = waitingTimes[Int(ranks[slice])] | chance
            }
        }
        return scores
    }

    /// Chooses the primary of every slice; returns how many each member got.
    mutating func choosePrimaries() -> [Int] {
        let headStarts = weights.map { Int32(FixedLogarithm.log2($0) >> 16) << Self.chanceBits }
        var counts = [Int](repeating: 0, count: memberCount)
        let bounds = FairShare.primaries(weights: weights).map(ShareBounds.init)
        walk(0..<1, headStarts: headStarts, bounds: bounds, counts: &counts)
        return counts
    }

    /// Chooses the successors after the primaries; returns how many copies each member got in all.
    mutating func chooseSuccessors(primaryCounts: [Int]) -> [Int] {
        var counts = primaryCounts
        guard copies > 1 else { return counts }
        let shares = FairShare.copies(weights: weights, zones: zones, copies: copies)
        // A node that is included as soon as its waiting time is below a fixed bound is included with chance p if its
        // rate is -log(1 - p) over the bound. The bound is not quite fixed, hence the corrections.
        var headStarts = shares.map { share in
            share >= FairShare.whole ? Self.unbeatable : Self.rate(including: share)
        }
        if memberCount > copies {
            for _ in 0..<Self.correctionsMax {
                counts = primaryCounts
                walk(1..<copies, headStarts: headStarts, bounds: nil, counts: &counts)
                guard Self.correct(&headStarts, counts: counts, shares: shares) else { break }
            }
            counts = primaryCounts
        }
        walk(1..<copies, headStarts: headStarts, bounds: shares.map(ShareBounds.init), counts: &counts)
        return counts
    }

    /// The logarithm of the rate that includes a node in `share` of the slices.
    private static func rate(including share: UInt64) -> Int32 {
        let part = min(max(share, 1), FairShare.whole - 1)
        return FixedLogarithm.waitingTime(part: FairShare.whole - part, bits: 30) << chanceBits
    }

    /// Brings the head starts of nodes that are too far from their share nearer to it; says whether there were any.
    ///
    /// A count that is near enough is left alone and one that is not is brought to the edge of what is near enough:
    /// the less is corrected, the less a change of membership moves. The walk's bounds do the rest.
    private static func correct(_ headStarts: inout [Int32], counts: [Int], shares: [UInt64]) -> Bool {
        let slice = UInt64(1) << UInt64(FairShare.fractionBits)
        var corrected = false
        for index in headStarts.indices where shares[index] < FairShare.whole {
            let count = UInt64(counts[index]) * slice
            let low = shares[index] * (1000 - nearThousandths) / 1000
            let high = shares[index] * (1000 + nearThousandths) / 1000
            guard count > high + slice || count + slice < low else { continue }
            corrected = true
            let wanted = min(count > high ? high : low, FairShare.whole / 2000 * 1999)
            let reached = min(max(count, slice / 2), FairShare.whole - slice / 2)
            // One and a half times the difference: nodes of one zone hold each other back.
            let step = (rate(including: wanted) / 2 - rate(including: reached) / 2) * 3
            let limited = min(max(step, -2 * doubling), 2 * doubling)
            headStarts[index] = min(
                max(headStarts[index] + limited, Self.headStarts.lowerBound),
                Self.headStarts.upperBound
            )
        }
        return corrected
    }
}

// MARK: - The walk

extension Placement {
    /// Fills the given places of every slice with the best-scoring members, within the bounds, and counts them.
    private mutating func walk(
        _ places: Range<Int>,
        headStarts: [Int32],
        bounds: [ShareBounds]?,
        counts: inout [Int]
    ) {
        let least = bounds?.map(\.least) ?? [Int](repeating: 0, count: memberCount)
        let most = bounds?.map(\.most) ?? [Int](repeating: .max, count: memberCount)
        // How many places are still needed to bring everybody to the least, and how many are left.
        var needed = bounds == nil ? 0 : zip(least, counts).reduce(0) { $0 + max(0, $1.0 - $1.1) }
        var left = Slice.count * places.count
        for slice in 0..<Slice.count {
            for place in places {
                let chosen = choose(
                    slice,
                    place,
                    headStarts: headStarts,
                    counts: counts,
                    urgent: needed >= left,
                    least: least,
                    most: most
                )
                owners[slice * copies + place] = UInt16(truncatingIfNeeded: chosen)
                if counts[chosen] < least[chosen] { needed -= 1 }
                counts[chosen] += 1
                left -= 1
            }
        }
    }

    /// The best member for a place: in a new zone if there is one, and then within the bounds if one is.
    private func choose(
        _ slice: Int,
        _ place: Int,
        headStarts: [Int32],
        counts: [Int],
        urgent: Bool,
        least: [Int],
        most: [Int]
    ) -> Int {
        func candidate(below limits: [Int]?, newZone: Bool) -> Int? {
            best(slice, place, headStarts: headStarts, counts: counts, below: limits, newZone: newZone)
        }
        if urgent, let member = candidate(below: least, newZone: true) { return member }
        if let member = candidate(below: most, newZone: true) { return member }
        if let member = candidate(below: nil, newZone: true) { return member }
        if urgent, let member = candidate(below: least, newZone: false) { return member }
        if let member = candidate(below: most, newZone: false) { return member }
        guard let member = candidate(below: nil, newZone: false) else {
            preconditionFailure("\(memberCount) members cannot fill \(copies) places")
        }
        return member
    }

    /// The member with the lowest score among those not yet owners, below their limits, and in zones not yet used.
    private func best(
        _ slice: Int,
        _ place: Int,
        headStarts: [Int32],
        counts: [Int],
        below limits: [Int]?,
        newZone: Bool
    ) -> Int? {
        let row = slice * memberCount
        let taken = slice * copies..<slice * copies + place
        var best: Int?
        var bestScore = Int32.max
        scan: for member in 0..<memberCount {
            let score = scores[row + member] &- headStarts[member]
            guard score < bestScore else { continue }
            if let limits, counts[member] >= limits[member] { continue }
            for entry in taken {
                let owner = Int(owners[entry])
                if owner == member || (newZone && zones[owner] == zones[member]) { continue scan }
            }
            best = member
            bestScore = score
        }
        return best
    }
}
