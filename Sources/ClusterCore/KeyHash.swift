/// The 64-bit hash of a key: it names the key's slice, its place in the store's index and its place on the ring.
///
/// The same on every node and platform, fixed by test vectors. A multiply-and-fold hash in the manner of wyhash
/// (Wang Yi, "wyhash and wyrand"), which takes a few nanoseconds for a key of 20 bytes. It is seeded by a constant of
/// the protocol: a client that floods one slice on purpose is possible and harms itself alone.
public enum KeyHash {
    /// Mixed in first. A later version seeds by tenant as well.
    public static let seed: UInt64 = 0x48_65_6e_67_65_2e_31_00

    @usableFromInline static let secret0: UInt64 = 0xa076_1d64_78bd_642f
    @usableFromInline static let secret1: UInt64 = 0xe703_7ed1_a0b4_28db
    @usableFromInline static let secret2: UInt64 = 0x8ebc_6af0_9c88_c6e3

    @inlinable
    public static func hash(_ bytes: UnsafeRawBufferPointer, seed: UInt64 = KeyHash.seed) -> UInt64 {
        let count = bytes.count
        guard count > 0, let base = bytes.baseAddress else { return fold(seed ^ secret0, secret1) }
        var state = seed ^ secret0
        var offset = 0
        while count &- offset > 16 {
            state = fold(load64(base, offset) ^ secret1, load64(base, offset &+ 8) ^ state)
            offset &+= 16
        }
        // The last 1 to 16 bytes; overlapping loads where at least 8 bytes exist.
        let left: UInt64
        let right: UInt64
        if count >= 8 {
            let rest = count &- offset
            left = rest > 8 ? load64(base, offset) : 0
            right = load64(base, count &- 8)
        } else if count >= 4 {
            left = load32(base, 0)
            right = load32(base, count &- 4)
        } else {
            left =
                UInt64(base.load(as: UInt8.self)) << 16
                | UInt64(base.load(fromByteOffset: count >> 1, as: UInt8.self)) << 8
                | UInt64(base.load(fromByteOffset: count &- 1, as: UInt8.self))
            right = 0
        }
        return fold(secret1 ^ UInt64(truncatingIfNeeded: count), fold(left ^ secret2, right ^ state))
    }

    @inlinable
    public static func hash(_ bytes: [UInt8], seed: UInt64 = KeyHash.seed) -> UInt64 {
        bytes.withUnsafeBytes { hash($0, seed: seed) }
    }

    /// Mixes two words into one: the halves of their 128-bit product, folded.
    @inlinable
    public static func fold(_ left: UInt64, _ right: UInt64) -> UInt64 {
        let product = left.multipliedFullWidth(by: right)
        return product.high ^ product.low
    }

    /// Mixes one word; a bijection (the finaliser of MurmurHash3, Austin Appleby).
    @inlinable
    public static func mix(_ value: UInt64) -> UInt64 {
        var mixed = value
        mixed ^= mixed >> 33
        mixed = mixed &* 0xff51_afd7_ed55_8ccd
        mixed ^= mixed >> 33
        mixed = mixed &* 0xc4ce_b9fe_1a85_ec53
        mixed ^= mixed >> 33
        return mixed
    }

    @usableFromInline @inline(__always)
    static func load64(_ base: UnsafeRawPointer, _ offset: Int) -> UInt64 {
        UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }

    @usableFromInline @inline(__always)
    static func load32(_ base: UnsafeRawPointer, _ offset: Int) -> UInt64 {
        UInt64(UInt32(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
    }
}

/// One of the 16,384 equal parts of the circle of key hashes: the unit of ownership, transfer and fencing.
public enum Slice {
    /// How many slices there are.
    public static let count = 16_384

    /// The slice of a key hash: its top 14 bits.
    @inlinable
    public static func index(of hash: UInt64) -> Int {
        Int(truncatingIfNeeded: hash >> 50)
    }
}
