/// Keys as text: `k` and the number in decimal digits, filled up with zeros to a fixed length.
///
/// A number of eight digits or fewer is told by the last eight bytes alone, so a reply's key is compared as one word.
package enum KeyText {
    /// The shortest key: `k`, and digits for a hundred million keys.
    package static let bytesMin = 9
    /// memcached's limit.
    package static let bytesMax = 250
    /// Numbers below this have keys of their own at any length.
    package static let numbersMax: UInt64 = 100_000_000

    /// Writes the key of a number below `numbersMax`, `bytes` long, and returns where it ends.
    @inline(__always)
    static func write(_ number: UInt64, bytes: Int, to start: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer {
        start.storeBytes(of: 0x6b, as: UInt8.self)
        let zeros = bytes &- 9
        if zeros == 11 {
            // The usual key of 20 bytes.
            start.storeBytes(of: 0x3030_3030_3030_3030, toByteOffset: 1, as: UInt64.self)
            start.storeBytes(of: 0x3030_3030, toByteOffset: 8, as: UInt32.self)
        } else if zeros > 0 {
            (start + 1).initializeMemory(as: UInt8.self, repeating: 0x30, count: zeros)
        }
        let end = start + bytes
        (end - 8).storeBytes(of: tail(number), as: UInt64.self)
        return end
    }

    /// The last eight bytes of the key of a number below `numbersMax`, as they lie in memory.
    @inline(__always)
    package static func tail(_ number: UInt64) -> UInt64 {
        // Eight digits side by side: two halves of four, four quarters of two, eight of one.
        let (high, low) = number.quotientAndRemainder(dividingBy: 10_000)
        var digits = high | low << 32
        let hundreds = ((digits &* 10_486) >> 20) & 0x0000_007f_0000_007f
        digits = hundreds | (digits &- hundreds &* 100) << 16
        let tens = ((digits &* 103) >> 10) & 0x000f_000f_000f_000f
        digits = tens | (digits &- tens &* 10) << 8
        return (digits | 0x3030_3030_3030_3030).littleEndian
    }

    /// Writes a number in decimal digits, and returns where it ends.
    @inline(__always)
    static func writeDecimal(_ number: UInt64, to start: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer {
        var digits = 1
        var bound: UInt64 = 10
        while number >= bound, digits < 19 {
            digits &+= 1
            bound = bound &* 10
        }
        var rest = number
        var place = start + digits
        while place > start {
            place -= 1
            let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
            place.storeBytes(of: UInt8(truncatingIfNeeded: digit) &+ 48, as: UInt8.self)
            rest = quotient
        }
        return start + digits
    }
}
