import Glibc

/// Memory from the allocator, and what it costs.
enum Block {
    /// What glibc really takes for `bytes`: chunks of 16 bytes with 8 of its own, at least 32; from 128 KiB on whole
    /// pages. (Its threshold for pages rises with use, so that large blocks may cost less than is counted; and a reused
    /// chunk may be 16 bytes larger, where that rest would be too small for a chunk of its own.)
    @inline(__always)
    static func charge(_ bytes: Int) -> Int {
        let chunk = max(32, (bytes &+ 23) & ~15)
        if chunk < 131_072 { return chunk }
        return (bytes &+ 24 &+ 4095) & ~4095
    }

    /// How many bytes may be used of a block of that charge.
    @inline(__always)
    static func capacity(charge: Int) -> Int {
        charge < 131_072 ? charge &- 8 : charge &- 24
    }
}

typealias ItemPointer = UnsafeMutablePointer<Item>

/// The head of an item's block; the key follows it, then the value.
///
///      0 next    8 newer    16 older    24 version    32 unique    40 hash
///     48 expiry  52 flags  56 valueBytes  60 keyBytes  61 kind  62 frequency  63 isFetched  64 key, value
struct Item {
    enum Kind: UInt8 {
        /// In the small queue.
        case small
        /// In the main queue.
        case main
        /// Says that the key was deleted; `expiry` holds the monotonic second of the burial.
        case tombstone
    }

    /// The next in the same bucket, with the same or a higher hash. First, so that a bucket and an item are linked
    /// alike.
    var next: ItemPointer?
    var newer: ItemPointer?
    var older: ItemPointer?
    var version: UInt64
    var unique: UInt64
    var hash: UInt64
    var expiry: UInt32
    var flags: UInt32
    var valueBytes: UInt32
    var keyBytes: UInt8
    var kind: Kind
    /// Reads since the item entered its queue, at most `frequencyMax`.
    var frequency: UInt8
    var isFetched: Bool

    static let frequencyMax: UInt8 = 3
    static let headerBytes = 64

    @inline(__always)
    static func charge(keyBytes: Int, valueBytes: Int) -> Int {
        Block.charge(headerBytes &+ keyBytes &+ valueBytes)
    }
}

extension UnsafeMutablePointer where Pointee == Item {
    @inline(__always)
    var keyStart: UnsafeMutableRawPointer { UnsafeMutableRawPointer(self) + Item.headerBytes }

    @inline(__always)
    var valueStart: UnsafeMutableRawPointer { keyStart + Int(pointee.keyBytes) }

    /// The place that holds the link to the next item of the bucket.
    @inline(__always)
    var link: UnsafeMutablePointer<ItemPointer?> {
        // `next` is the first field of `Item`.
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ItemPointer?.self)
    }

    @inline(__always)
    var key: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: keyStart, count: Int(pointee.keyBytes)) }

    @inline(__always)
    var value: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: valueStart, count: Int(pointee.valueBytes)) }

    @inline(__always)
    var charge: Int {
        Item.charge(keyBytes: Int(pointee.keyBytes), valueBytes: Int(pointee.valueBytes))
    }

    @inline(__always)
    var isTombstone: Bool { pointee.kind == .tombstone }

    @inline(__always)
    func hasKey(_ other: UnsafeRawBufferPointer) -> Bool {
        guard Int(pointee.keyBytes) == other.count else { return false }
        guard let start = other.baseAddress else { return true }
        return memcmp(keyStart, start, other.count) == 0
    }

    @inline(__always)
    var view: ItemView {
        ItemView(
            key: key,
            value: value,
            flags: pointee.flags,
            expiry: isTombstone ? 0 : pointee.expiry,
            version: pointee.version,
            unique: pointee.unique,
            hash: pointee.hash,
            isTombstone: isTombstone
        )
    }

    /// Counts a read; writes only what changes, so that a hot item's line stays shared.
    @inline(__always)
    func countRead() {
        if pointee.frequency < Item.frequencyMax { pointee.frequency &+= 1 }
        if !pointee.isFetched { pointee.isFetched = true }
    }

    /// Writes the value as two parts, one of which may be the item's present value: append keeps it as `first`,
    /// prepend as `second`. So the second part moves first.
    @inline(__always)
    func writeValue(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) {
        if let start = second.baseAddress { memmove(valueStart + first.count, start, second.count) }
        if let start = first.baseAddress { memmove(valueStart, start, first.count) }
        pointee.valueBytes = UInt32(truncatingIfNeeded: first.count &+ second.count)
    }
}
