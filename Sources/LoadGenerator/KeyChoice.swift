import Glibc

/// Draws an index by weight in constant time: Walker's alias method, as Vose builds it.
///
/// `@unchecked Sendable`: the memory is written in `init` and only read from then on.
package final class AliasTable: @unchecked Sendable {
    package let count: Int
    let thresholds: UnsafeMutablePointer<UInt32>
    let aliases: UnsafeMutablePointer<UInt32>

    /// At least one weight, fewer than 2^32, none negative, their sum above 0.
    package init(weights: [Double]) {
        count = weights.count
        let total = weights.reduce(0, +)
        precondition(count > 0 && count < 1 << 32 && total > 0, "\(count) weights with the sum \(total)")
        thresholds = .allocate(capacity: count)
        aliases = .allocate(capacity: count)
        var scaled = weights.map { $0 * Double(count) / total }
        var poor: [Int] = []
        var rich: [Int] = []
        for index in 0..<count {
            thresholds[index] = .max
            aliases[index] = UInt32(index)
            if scaled[index] < 1 { poor.append(index) } else { rich.append(index) }
        }
        while let small = poor.popLast(), let large = rich.popLast() {
            thresholds[small] = UInt32(min(scaled[small] * 0x1p32, 0xffff_ffff))
            aliases[small] = UInt32(large)
            scaled[large] -= 1 - scaled[small]
            if scaled[large] < 1 { poor.append(large) } else { rich.append(large) }
        }
        // What rounding left over in either list is drawn for itself.
    }

    deinit {
        thresholds.deallocate()
        aliases.deallocate()
    }

    /// An index below `count`, which is that of the table that the pointers belong to.
    @inline(__always)
    static func draw(
        _ chance: inout Chance,
        thresholds: UnsafeMutablePointer<UInt32>,
        aliases: UnsafeMutablePointer<UInt32>,
        count: UInt64
    ) -> UInt64 {
        let product = chance.next().multipliedFullWidth(by: count)
        let index = Int(truncatingIfNeeded: product.high)
        let isOwn = UInt32(truncatingIfNeeded: product.low >> 32) <= thresholds[index]
        return isOwn ? UInt64(index) : UInt64(aliases[index])
    }

    /// Weights by rank: 1, 2^-s, 3^-s, …
    package static func zipf(count: Int, exponent: Double) -> AliasTable {
        AliasTable(weights: (1...count).map { pow(Double($0), -exponent) })
    }
}

/// Which key a request is for.
package enum KeyChoice: Sendable {
    /// Every key of 0 ..< count equally often.
    case even(count: UInt64)
    /// By weight; see `AliasTable.zipf`.
    case weighted(AliasTable)
    /// One after the other, each once; then the stream ends.
    case sequence(Range<UInt64>)
    /// A recorded sequence, then the stream ends.
    case trace(Trace)
}

/// A recorded sequence of key numbers.
///
/// `@unchecked Sendable`: the memory is written in `init` and only read from then on.
package final class Trace: @unchecked Sendable {
    package let count: Int
    package let keys: UnsafeMutablePointer<UInt32>

    package init(_ list: [UInt32]) {
        count = list.count
        keys = .allocate(capacity: max(count, 1))
        keys.initialize(from: list, count: count)
    }

    deinit {
        keys.deallocate()
    }
}

/// Draws the keys of one thread.
package struct KeyStream {
    private enum Kind {
        case even
        case weighted
        case sequence
        case trace
    }

    private let kind: Kind
    private var next: UInt64 = 0
    private let end: UInt64
    // Pointers into what `owner` keeps alive, so that a draw counts no references.
    private let first: UnsafeMutablePointer<UInt32>?
    private let second: UnsafeMutablePointer<UInt32>?
    private let owner: AnyObject?

    package init(_ choice: KeyChoice) {
        switch choice {
        case .even(let count): (kind, end, first, second, owner) = (.even, count, nil, nil, nil)
        case .weighted(let table):
            (kind, end, first, second, owner) =
                (.weighted, UInt64(table.count), table.thresholds, table.aliases, table)
        case .sequence(let range):
            (kind, end, first, second, owner) = (.sequence, range.upperBound, nil, nil, nil)
            next = range.lowerBound
        case .trace(let trace):
            (kind, end, first, second, owner) = (.trace, UInt64(trace.count), trace.keys, nil, trace)
        }
    }

    /// Whether no key is left. Drawn ones are never used up.
    @inline(__always)
    package var isAtEnd: Bool {
        switch kind {
        case .even, .weighted: false
        case .sequence, .trace: next >= end
        }
    }

    /// Whether the order of the keys matters, so that a key must not be asked for again before it was answered.
    @inline(__always)
    var isTrace: Bool { kind == .trace }

    /// The next key of a trace that is not at its end, without taking it.
    @inline(__always)
    func peek() -> UInt64 {
        // A trace was made with its keys.
        UInt64(first.unsafelyUnwrapped[Int(truncatingIfNeeded: next)])
    }

    /// The next key of a stream that is not at its end.
    @inline(__always)
    package mutating func draw(_ chance: inout Chance) -> UInt64 {
        switch kind {
        case .even: return chance.below(end)
        case .weighted:
            // A stream by weight was made with a table.
            return AliasTable.draw(
                &chance,
                thresholds: first.unsafelyUnwrapped,
                aliases: second.unsafelyUnwrapped,
                count: end
            )
        case .sequence:
            next &+= 1
            return next &- 1
        case .trace:
            let key = peek()
            next &+= 1
            return key
        }
    }
}
