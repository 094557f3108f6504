import ClusterCore

/// How many slices each member ought to hold, and how far it may stray from that.
///
/// Shares are integers in 65,536ths of a slice. A share follows the weight as far as a slice allows: no member holds
/// two copies of one slice, and no zone holds two where there are zones enough, so what a heavy member or a small
/// zone cannot take flows to the others by their weights.
enum FairShare {
    /// Bits behind the point of a share.
    static let fractionBits = 16
    /// A copy of every slice.
    static let whole = UInt64(Slice.count) << UInt64(fractionBits)

    /// The share of each member in the primaries: by weight alone.
    static func primaries(weights: [UInt64]) -> [UInt64] {
        let sum = weights.reduce(0, +)
        return weights.map { proportion(whole, $0, sum) }
    }

    /// The share of each member in all copies. `zones` numbers the members' zones from 0.
    static func copies(weights: [UInt64], zones: [Int], copies: Int) -> [UInt64] {
        let zoneCount = (zones.max() ?? -1) + 1
        var zoneWeights = [UInt64](repeating: 0, count: zoneCount)
        for (weight, zone) in zip(weights, zones) { zoneWeights[zone] += weight }
        if zoneCount >= copies {
            let zoneShares = pour(copies, by: zoneWeights, into: Array(repeating: true, count: zoneCount))
            return zip(weights, zones).map { proportion(zoneShares[$1], $0, zoneWeights[$1]) }
        }
        // Every slice has a copy in each zone. A zone that would get less than that is given it, out of the others'.
        var raised = [Bool](repeating: false, count: zoneCount)
        while true {
            let rest = copies - raised.count(where: { $0 })
            var shares = pour(rest, by: weights, into: zones.map { !raised[$0] })
            var zoneShares = [UInt64](repeating: 0, count: zoneCount)
            for (share, zone) in zip(shares, zones) { zoneShares[zone] += share }
            // Rounding may keep a zone of full members a few units short of the whole.
            let slack = UInt64(weights.count)
            guard let poor = (0..<zoneCount).first(where: { !raised[$0] && zoneShares[$0] + slack < whole }) else {
                for index in shares.indices where raised[zones[index]] {
                    shares[index] = proportion(whole, weights[index], zoneWeights[zones[index]])
                }
                return shares
            }
            raised[poor] = true
        }
    }

    /// Pours `copies` wholes into the open vessels in proportion to their weights; a vessel holds at most one whole.
    private static func pour(_ copies: Int, by weights: [UInt64], into open: [Bool]) -> [UInt64] {
        var open = open
        var shares = [UInt64](repeating: 0, count: weights.count)
        var left = UInt64(copies)
        while left > 0 {
            let sum = zip(weights, open).reduce(0) { $1.1 ? $0 + $1.0 : $0 }
            let full = weights.indices.filter { open[$0] && proportion(whole * left, weights[$0], sum) > whole }
            guard !full.isEmpty else {
                for index in weights.indices where open[index] {
                    shares[index] = proportion(whole * left, weights[index], sum)
                }
                break
            }
            for index in full {
                shares[index] = whole
                open[index] = false
                left -= 1
            }
        }
        return shares
    }

    /// total * part / sum, rounded down, by way of 128 bits.
    static func proportion(_ total: UInt64, _ part: UInt64, _ sum: UInt64) -> UInt64 {
        precondition(part <= sum && sum > 0, "\(part) is no part of \(sum)")
        return sum.dividingFullWidth(total.multipliedFullWidth(by: part)).quotient
    }
}

/// The least and the most slices that a member may hold: within 3 % of its share, and always a neighbour of it.
struct ShareBounds {
    /// How far a count may stray from its share, in percent.
    static let strayPercentMax: UInt64 = 3

    let least: Int
    let most: Int

    init(share: UInt64) {
        let one = UInt64(1) << UInt64(FairShare.fractionBits)
        let down = Int(share / one)
        let up = Int((share + one - 1) / one)
        let low = share * (100 - Self.strayPercentMax)
        let high = share * (100 + Self.strayPercentMax)
        // A small share may have no whole number within 3 % of it.
        least = min(down, Int((low + one * 100 - 1) / (one * 100)))
        most = min(Slice.count, max(up, Int(high / (one * 100))))
    }
}
