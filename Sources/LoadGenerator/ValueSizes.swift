import Glibc

/// How long the values are. A key's length is a function of its number and a seed, so that every reply can be checked.
package enum ValueSizes: Sendable, Equatable {
    /// All of one length.
    case fixed(Int)
    /// Evenly between two lengths, both included.
    case even(ClosedRange<Int>)
    /// Log-normal with that median and sigma, at most `cap`.
    case logNormal(median: Double, sigma: Double, cap: Int)
    /// A histogram: a range of sizes (its lower bound, included, and its upper, excluded) by weight, then evenly in it.
    case histogram([HistogramRange], cap: Int)

    package struct HistogramRange: Sendable, Equatable {
        package var bounds: Range<Int>
        package var weight: UInt64

        package init(bounds: Range<Int>, weight: UInt64) {
            self.bounds = bounds
            self.weight = weight
        }
    }

    /// The longest value that a load may have, in bytes.
    package static let bytesMax = 128 << 20

    /// Reads `100`, `10..100`, `lognormal:230:1` or `lognormal:230:1:20000`; nil for anything else.
    package init?(_ text: String) {
        if text.hasPrefix("lognormal:") {
            let parts = text.split(separator: ":").dropFirst().compactMap { Double($0) }
            guard parts.count == 2 || parts.count == 3, parts[0] >= 1, parts[1] >= 0 else { return nil }
            let cap = parts.count == 3 ? parts[2] : 20_000
            guard cap >= 1, cap <= Double(Self.bytesMax) else { return nil }
            self = .logNormal(median: parts[0], sigma: parts[1], cap: Int(cap))
            return
        }
        let parts = text.split(separator: "..", omittingEmptySubsequences: false).map { Int($0) }
        switch parts.count {
        case 1:
            guard let size = parts[0], size >= 0, size <= Self.bytesMax else { return nil }
            self = .fixed(size)
        case 2:
            guard let low = parts[0], let high = parts[1], low >= 0, low <= high,
                high <= Self.bytesMax
            else { return nil }
            self = .even(low...high)
        default: return nil
        }
    }

    /// The size below which a share of `fraction` (0 to 1) of the values lies.
    package func quantile(_ fraction: Double) -> Int {
        switch self {
        case .fixed(let size): return size
        case .even(let range):
            return min(range.lowerBound + Int(fraction * Double(range.count)), range.upperBound)
        case .logNormal(let median, let sigma, let cap):
            let size = median * exp(sigma * Self.normalQuantile(fraction))
            return size < Double(cap) ? Int(size.rounded()) : cap
        case .histogram(let ranges, let cap):
            let total = ranges.reduce(0) { $0 + Double($1.weight) }
            var left = fraction * total
            for range in ranges {
                let weight = Double(range.weight)
                if left < weight {
                    let within = Int(left / weight * Double(range.bounds.count))
                    return min(range.bounds.lowerBound + within, range.bounds.upperBound - 1, cap)
                }
                left -= weight
            }
            return min((ranges.last?.bounds.upperBound ?? 1) - 1, cap)
        }
    }

    /// The standard normal deviate below which a share of `fraction` lies, to nine digits (Peter Acklam's rational
    /// approximation).
    static func normalQuantile(_ fraction: Double) -> Double {
        func polynomial(_ coefficients: [Double], _ x: Double) -> Double {
            coefficients.reduce(0) { $0 * x + $1 }
        }
        let a = [
            -3.969683028665376e+01, 2.209460984245205e+02, -2.759285104469687e+02, 1.383577518672690e+02,
            -3.066479806614716e+01, 2.506628277459239e+00,
        ]
        let b = [
            -5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02, 6.680131188771972e+01,
            -1.328068155288572e+01, 1,
        ]
        let c = [
            -7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00, -2.549732539343734e+00,
            4.374664141464968e+00, 2.938163982698783e+00,
        ]
        let d = [7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00, 3.754408661907416e+00, 1]
        let low = 0.02425
        if fraction < low {
            let q = (-2 * log(max(fraction, .leastNormalMagnitude))).squareRoot()
            return polynomial(c, q) / polynomial(d, q)
        }
        if fraction > 1 - low { return -normalQuantile(1 - fraction) }
        let q = fraction - 0.5
        return polynomial(a, q * q) * q / polynomial(b, q * q)
    }
}

/// The sizes as the hot loop looks them up: one load a key.
///
/// Holds 65,536 evenly spaced quantiles; a key's number and the seed choose one. Another seed gives most keys other
/// sizes, of the same distribution. Or holds a size for each key number.
///
/// `@unchecked Sendable`: the memory is written in `init` and only read from then on.
package final class SizeTable: @unchecked Sendable {
    /// The longest value of the table in bytes.
    package let bytesMax: Int
    /// Looks up without counting references; valid as long as the table.
    let lookup: Lookup

    struct Lookup {
        fileprivate let sizes: UnsafeMutablePointer<UInt32>
        fileprivate let count: Int
        fileprivate let isPerKey: Bool
        fileprivate let seed: UInt64

        @inline(__always)
        func size(of number: UInt64) -> Int {
            if isPerKey { return Int(sizes[Int(truncatingIfNeeded: number) % count]) }
            return Int(sizes[Int(truncatingIfNeeded: Chance.mix(number ^ seed) >> 48)])
        }
    }

    private static let quantiles = 1 << 16

    package init(_ distribution: ValueSizes, seed: UInt64) {
        let sizes = UnsafeMutablePointer<UInt32>.allocate(capacity: Self.quantiles)
        for index in 0..<Self.quantiles {
            let fraction = (Double(index) + 0.5) / Double(Self.quantiles)
            sizes.advanced(by: index).initialize(to: UInt32(distribution.quantile(fraction)))
        }
        lookup = Lookup(sizes: sizes, count: Self.quantiles, isPerKey: false, seed: Chance.mix(seed))
        bytesMax = Int(sizes[Self.quantiles - 1])
    }

    /// A size for each key number, at least one; other key numbers begin again.
    package init(perKey list: [UInt32]) {
        precondition(!list.isEmpty, "a table without sizes")
        let sizes = UnsafeMutablePointer<UInt32>.allocate(capacity: list.count)
        sizes.initialize(from: list, count: list.count)
        lookup = Lookup(sizes: sizes, count: list.count, isPerKey: true, seed: 0)
        bytesMax = Int(list.max() ?? 0)
    }

    deinit {
        lookup.sizes.deallocate()
    }

    /// The value of key `number` in bytes.
    package func size(of number: UInt64) -> Int { lookup.size(of: number) }
}
