/// The identity of a node: 128 random bits, drawn once and kept in the node's data directory.
///
/// A node's name and addresses are data that may change; its id does not. Ordered by value, so that every node sorts
/// members alike.
public struct NodeID: Hashable, Comparable, Sendable {
    public var high: UInt64
    public var low: UInt64

    @inlinable
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Draws a new id.
    public init(using random: inout some RandomNumberGenerator) {
        self.init(high: random.next(), low: random.next())
    }

    @inlinable
    public static func < (left: NodeID, right: NodeID) -> Bool {
        (left.high, left.low) < (right.high, right.low)
    }
}

extension NodeID: CustomStringConvertible {
    /// 32 lower-case hexadecimal digits.
    public var description: String {
        hexadecimal(high) + hexadecimal(low)
    }

    /// Parses what `description` prints; nil for anything else.
    public init?(_ text: some StringProtocol) {
        let digits = Array(text.utf8)
        guard digits.count == 32 else { return nil }
        var halves: (UInt64, UInt64) = (0, 0)
        for (index, digit) in digits.enumerated() {
            let nibble: UInt64
            switch digit {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): nibble = UInt64(digit - UInt8(ascii: "0"))
            case UInt8(ascii: "a")...UInt8(ascii: "f"): nibble = UInt64(digit - UInt8(ascii: "a") + 10)
            default: return nil
            }
            if index < 16 { halves.0 = halves.0 << 4 | nibble } else { halves.1 = halves.1 << 4 | nibble }
        }
        self.init(high: halves.0, low: halves.1)
    }
}

/// 16 lower-case hexadecimal digits, zero-padded; how ids and hashes are shown.
public func hexadecimal(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}
