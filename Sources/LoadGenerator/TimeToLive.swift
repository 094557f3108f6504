/// How long items live: a mix of fixed times by weight, or a range evenly.
package struct TimeToLive: Sendable, Equatable {
    /// Seconds and weight.
    package struct Share: Sendable, Equatable {
        package var seconds: ClosedRange<UInt64>
        package var weight: Double
    }

    package var shares: [Share]

    /// The longest that this load knows, in seconds: more would be taken for a date.
    package static let secondsMax: UInt64 = 2_592_000

    /// Reads `30`, `10..60` (evenly), or a mix `5=0.5,60=0.3,120..300=0.2`; nil for anything else.
    package init?(_ text: String) {
        shares = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let sides = part.split(separator: "=", omittingEmptySubsequences: false)
            guard sides.count <= 2 else { return nil }
            guard let weight = sides.count == 2 ? Double(sides[1]) : 1, weight > 0 else { return nil }
            let bounds = sides[0].split(separator: "..", omittingEmptySubsequences: false).map { UInt64($0) }
            guard let first = bounds.first, let low = first, let last = bounds.last, let high = last,
                bounds.count <= 2, low >= 1, low <= high, high <= Self.secondsMax
            else { return nil }
            shares.append(Share(seconds: low...high, weight: weight))
        }
        if shares.isEmpty { return nil }
    }

    /// Draws a life in seconds.
    package func draw(_ chance: inout Chance) -> UInt64 {
        var left = chance.unit() * shares.reduce(0) { $0 + $1.weight }
        var chosen = shares[0].seconds
        for share in shares {
            chosen = share.seconds
            left -= share.weight
            if left <= 0 { break }
        }
        return chosen.lowerBound + chance.below(chosen.upperBound - chosen.lowerBound + 1)
    }
}
