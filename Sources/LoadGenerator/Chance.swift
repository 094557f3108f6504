/// The generator's own seeded chance: wyrand (Wang Yi), one multiplication a number.
///
/// Drawn several times a request, so it lives in this module, where it inlines. Not for cryptography.
package struct Chance: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) {
        // Neighbouring seeds must not begin alike.
        state = Chance.mix(seed &+ 0x9e37_79b9_7f4a_7c15)
    }

    @inline(__always)
    package mutating func next() -> UInt64 {
        state = state &+ 0xa076_1d64_78bd_642f
        let product = state.multipliedFullWidth(by: state ^ 0xe703_7ed1_a0b4_28db)
        return product.high ^ product.low
    }

    /// A number below `bound`, which is not 0. Its bias is `bound` divided by 2^64.
    @inline(__always)
    mutating func below(_ bound: UInt64) -> UInt64 {
        next().multipliedFullWidth(by: bound).high
    }

    /// A number above 0 and at most 1, in steps of 2^-53.
    @inline(__always)
    package mutating func unit() -> Double {
        Double((next() >> 11) &+ 1) * 0x1p-53
    }

    /// Spreads a number over 64 bits, each number to another one (the finaliser of MurmurHash3, Austin Appleby).
    @inline(__always)
    static func mix(_ value: UInt64) -> UInt64 {
        var mixed = value
        mixed ^= mixed >> 33
        mixed = mixed &* 0xff51_afd7_ed55_8ccd
        mixed ^= mixed >> 33
        mixed = mixed &* 0xc4ce_b9fe_1a85_ec53
        return mixed ^ (mixed >> 33)
    }
}
