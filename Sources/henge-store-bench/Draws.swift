import ClusterCore

// Small copies of what the load generator has, since what is called per operation must share a module to inline.

/// Seeded chance: wyrand (Wang Yi).
struct Draws {
    private var state: UInt64

    init(seed: UInt64) {
        state = KeyHash.mix(seed &+ 0x9e37_79b9_7f4a_7c15)
    }

    @inline(__always)
    mutating func next() -> UInt64 {
        state = state &+ 0xa076_1d64_78bd_642f
        return KeyHash.fold(state, state ^ 0xe703_7ed1_a0b4_28db)
    }

    @inline(__always)
    mutating func below(_ bound: UInt64) -> UInt64 {
        next().multipliedFullWidth(by: bound).high
    }
}

/// Places for keys of 20 bytes: `k`, and a number in 19 digits.
struct KeyRoom {
    static let bytes = 20

    private let base: UnsafeMutableRawPointer

    init(count: Int) {
        base = .allocate(byteCount: count * Self.bytes, alignment: 16)
        for index in 0..<count {
            (base + index * Self.bytes).initializeMemory(as: UInt8.self, repeating: 0x30, count: Self.bytes)
            (base + index * Self.bytes).storeBytes(of: 0x6b, as: UInt8.self)
        }
    }

    func deallocate() {
        base.deallocate()
    }

    /// Writes the key of a number below a hundred million into a place.
    @inline(__always)
    func write(_ number: UInt64, at index: Int) -> UnsafeRawBufferPointer {
        let start = base + index &* Self.bytes
        // Eight digits side by side: two halves of four, four quarters of two, eight of one.
        let (high, low) = number.quotientAndRemainder(dividingBy: 10_000)
        var digits = high | low << 32
        let hundreds = ((digits &* 10_486) >> 20) & 0x0000_007f_0000_007f
        digits = hundreds | (digits &- hundreds &* 100) << 16
        let tens = ((digits &* 103) >> 10) & 0x000f_000f_000f_000f
        digits = tens | (digits &- tens &* 10) << 8
        (start + 12).storeBytes(of: (digits | 0x3030_3030_3030_3030).littleEndian, as: UInt64.self)
        return self[index]
    }

    /// The key in a place.
    @inline(__always)
    subscript(index: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base + index &* Self.bytes, count: Self.bytes)
    }
}
