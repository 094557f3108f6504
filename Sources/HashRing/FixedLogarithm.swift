/// Binary logarithms in fixed point: integers in, integers out, the same bits on every platform.
///
/// Computed one bit at a time: squaring a number doubles its logarithm, so each squaring that passes 2 yields a one.
enum FixedLogarithm {
    /// Bits behind the point in what `log2` returns.
    static let fractionBits = 32

    /// log2 of a positive integer, rounded down, with 32 bits behind the point.
    static func log2(_ value: UInt64) -> Int64 {
        precondition(value > 0, "zero has no logarithm")
        let whole = 63 - value.leadingZeroBitCount
        var mantissa = value << UInt64(63 - whole)
        var result = Int64(whole)
        for _ in 0..<fractionBits {
            // The mantissa has 63 bits behind the point; its square's high word has 62.
            let square = mantissa.multipliedFullWidth(by: mantissa)
            if square.high >> 63 == 1 {
                result = result << 1 | 1
                mantissa = square.high
            } else {
                result <<= 1
                mantissa = square.high << 1 | square.low >> 63
            }
        }
        return result
    }

    /// log2(-log2(part / 2^bits)) with 16 bits behind the point: the logarithm of the waiting time whose chance is that.
    ///
    /// `part` lies in 1 to 2^bits - 1, `bits` is at most 31. Falls as `part` grows.
    static func waitingTime(part: UInt64, bits: Int64) -> Int32 {
        precondition(part >= 1 && part < 1 << UInt64(bits), "\(part) of 2^\(bits) is no chance between 0 and 1")
        let negated = (bits << Int64(fractionBits)) - log2(part)
        // At least one unit: a part just below the whole may round to nothing.
        let logarithm = log2(UInt64(max(negated, 1))) - (Int64(fractionBits) << Int64(fractionBits))
        return Int32(logarithm >> 16)
    }
}
