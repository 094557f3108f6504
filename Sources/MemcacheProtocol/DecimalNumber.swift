/// Reads the numbers of a text request, strictly or leniently as memcached does for each argument.
///
/// Lengths, deltas, uniques and the expiry of touch and gat are strict: digits, bounded in number. Flags, the expiry of
/// storage commands and the rest go the way of `strtol`: a sign is taken, and what exceeds 32 bits is cut. Clients
/// rely on the cut, because some keep type bits in flags that they send as 64-bit numbers.
enum DecimalNumber {
    /// The most characters of a strict 32-bit number: a sign and ten digits.
    static let strict32CharactersMax = 11
    /// The most characters of a strict 64-bit number.
    static let strict64CharactersMax = 22

    /// Digits alone, at most 22 of them, up to 2^64 - 1.
    static func strictUnsigned64(_ text: UnsafeRawBufferPointer) -> UInt64? {
        if text.count > strict64CharactersMax { return nil }
        return digits(text, from: 0)
    }

    /// Digits, perhaps after a minus; at most 11 characters; within 32 bits.
    static func strictSigned32(_ text: UnsafeRawBufferPointer) -> Int32? {
        if text.isEmpty || text.count > strict32CharactersMax { return nil }
        let isNegative = text[0] == UInt8(ascii: "-")
        guard let magnitude = digits(text, from: isNegative ? 1 : 0) else { return nil }
        // At most 11 digits: far below 2^63.
        return Int32(exactly: isNegative ? -Int64(magnitude) : Int64(magnitude))
    }

    /// Up to 2^64 - 1, a plus is taken; a minus only before zero.
    static func lenientUnsigned64(_ text: UnsafeRawBufferPointer) -> UInt64? {
        guard let (isNegative, magnitude) = lenient(text), !isNegative || magnitude == 0 else { return nil }
        return magnitude
    }

    /// The low 32 bits of a number up to 2^64 - 1; a minus only before zero.
    static func lenientUnsigned32(_ text: UnsafeRawBufferPointer) -> UInt32? {
        lenientUnsigned64(text).map { UInt32(truncatingIfNeeded: $0) }
    }

    /// The low 32 bits, as a signed number, of a number of 64 bits.
    static func lenientSigned32(_ text: UnsafeRawBufferPointer) -> Int32? {
        guard let (isNegative, magnitude) = lenient(text) else { return nil }
        let largest = UInt64(Int64.max) &+ (isNegative ? 1 : 0)
        if magnitude > largest { return nil }
        let bits = Int32(truncatingIfNeeded: magnitude)
        return isNegative ? 0 &- bits : bits
    }

    private static func lenient(_ text: UnsafeRawBufferPointer) -> (isNegative: Bool, magnitude: UInt64)? {
        guard let first = text.first else { return nil }
        let isNegative = first == UInt8(ascii: "-")
        let hasSign = isNegative || first == UInt8(ascii: "+")
        guard let magnitude = digits(text, from: hasSign ? 1 : 0) else { return nil }
        return (isNegative, magnitude)
    }

    private static func digits(_ text: UnsafeRawBufferPointer, from start: Int) -> UInt64? {
        if start >= text.count { return nil }
        var value: UInt64 = 0
        var index = start
        while index < text.count {
            let digit = text[index] &- UInt8(ascii: "0")
            if digit > 9 { return nil }
            // Nineteen digits always fit; only the rare longer number pays for the checks.
            if index &- start < 19 {
                value = value &* 10 &+ UInt64(digit)
            } else {
                let (product, overflowed) = value.multipliedReportingOverflow(by: 10)
                let (sum, carried) = product.addingReportingOverflow(UInt64(digit))
                if overflowed || carried { return nil }
                value = sum
            }
            index &+= 1
        }
        return value
    }
}
