/// The text of the numbers that increment and decrement work on.
enum DecimalNumber {
    /// The longest text of a 64-bit number.
    static let digitsMax = 20

    /// Reads digits with blanks before and after; nil for anything else, and above 2^64 - 1.
    static func parse(_ bytes: UnsafeRawBufferPointer) -> UInt64? {
        var start = 0
        var end = bytes.count
        while start < end, isBlank(bytes[start]) { start &+= 1 }
        while end > start, isBlank(bytes[end &- 1]) { end &-= 1 }
        guard start < end else { return nil }
        var number: UInt64 = 0
        for index in start..<end {
            let digit = bytes[index] &- UInt8(ascii: "0")
            guard digit < 10 else { return nil }
            let (product, productOverflows) = number.multipliedReportingOverflow(by: 10)
            let (sum, sumOverflows) = product.addingReportingOverflow(UInt64(digit))
            if productOverflows || sumOverflows { return nil }
            number = sum
        }
        return number
    }

    /// Writes a number to the front of `target`, which has room for `digitsMax` bytes; returns how many it took.
    static func write(_ number: UInt64, to target: UnsafeMutableRawBufferPointer) -> Int {
        var count = 1
        var rest = number
        while rest >= 10 {
            rest /= 10
            count &+= 1
        }
        rest = number
        var index = count
        while index > 0 {
            index &-= 1
            target[index] = UInt8(truncatingIfNeeded: rest % 10) &+ UInt8(ascii: "0")
            rest /= 10
        }
        return count
    }

    /// What C calls white space.
    private static func isBlank(_ byte: UInt8) -> Bool { byte == 32 || (9...13).contains(byte) }
}
