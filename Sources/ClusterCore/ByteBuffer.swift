/// A growable run of bytes with one owner: replies on their way to a client, frames on their way to a node.
///
/// Storage is raw memory, so that appending costs neither reference counting nor exclusivity checks. Integers are
/// little-endian.
public struct ByteBuffer: ~Copyable {
    @usableFromInline var base: UnsafeMutableRawPointer
    @usableFromInline var capacity: Int
    @usableFromInline var used: Int

    /// How many bytes the buffer holds.
    @inlinable
    public var count: Int { used }

    /// Where a buffer without room points; nothing is read or written there.
    @inlinable
    static var nowhere: UnsafeMutableRawPointer {
        // The address is not 0.
        UnsafeMutableRawPointer(bitPattern: 16).unsafelyUnwrapped
    }

    /// Takes `capacity` bytes from the allocator; with 0, none before something is appended.
    @inlinable
    public init(capacity: Int = 256) {
        precondition(capacity >= 0, "a buffer of \(capacity) bytes")
        self.base = capacity > 0 ? .allocate(byteCount: capacity, alignment: 16) : Self.nowhere
        self.capacity = capacity
        self.used = 0
    }

    deinit {
        if capacity > 0 { base.deallocate() }
    }

    @inlinable
    public var isEmpty: Bool { count == 0 }

    /// The room that the buffer has without growing, in bytes.
    @inlinable
    public var capacityBytes: Int { capacity }

    /// The bytes, valid until the next mutation.
    @inlinable
    public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

    /// The bytes, to be patched in place; valid until the next mutation.
    @inlinable
    public var mutableBytes: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(start: base, count: count) }

    @inlinable
    public func array() -> [UInt8] { Array(bytes) }

    /// Forgets the bytes and keeps the room.
    @inlinable
    public mutating func removeAll() { used = 0 }

    /// Forgets the bytes and gives back room beyond `limit` bytes.
    public mutating func removeAll(shrinkingTo limit: Int) {
        used = 0
        if capacity > limit { reallocate(limit) }
    }

    /// Forgets all but the first `newCount` bytes.
    @inlinable
    public mutating func truncate(to newCount: Int) {
        precondition(newCount >= 0 && newCount <= count, "cannot truncate \(count) bytes to \(newCount)")
        used = newCount
    }

    /// Forgets the first `prefix` bytes and moves the rest to the front.
    public mutating func removeFirst(_ prefix: Int) {
        precondition(prefix >= 0 && prefix <= count, "cannot remove \(prefix) of \(count) bytes")
        if prefix == 0 { return }
        if prefix < count { base.copyMemory(from: base + prefix, byteCount: count - prefix) }
        used -= prefix
    }

    /// Makes room for `additional` more bytes and returns where they go; `commit` says how many came.
    @inlinable
    public mutating func reserve(_ additional: Int) -> UnsafeMutableRawBufferPointer {
        if capacity &- count < additional { grow(additional) }
        return UnsafeMutableRawBufferPointer(start: base + count, count: capacity &- count)
    }

    /// Counts bytes that were written into what `reserve` returned.
    @inlinable
    public mutating func commit(_ additional: Int) {
        precondition(additional >= 0 && additional <= capacity &- count, "committed more than was reserved")
        used &+= additional
    }

    @inlinable
    public mutating func append(_ byte: UInt8) {
        if capacity &- count < 1 { grow(1) }
        base.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
        used &+= 1
    }

    @inlinable
    public mutating func append(_ source: UnsafeRawBufferPointer) {
        let added = source.count
        guard added > 0, let start = source.baseAddress else { return }
        if capacity &- count < added { grow(added) }
        (base + count).copyMemory(from: start, byteCount: added)
        used &+= added
    }

    /// Appends bytes that the buffer holds already.
    @inlinable
    public mutating func appendOwn(_ range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "no bytes \(range) among \(count)")
        if capacity &- count < range.count { grow(range.count) }
        (base + count).copyMemory(from: base + range.lowerBound, byteCount: range.count)
        used &+= range.count
    }

    @inlinable
    public mutating func append(_ source: [UInt8]) {
        source.withUnsafeBytes { append($0) }
    }

    @inlinable
    public mutating func append(_ text: StaticString) {
        append(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// UTF-8; for what is not on the hot path. A literal takes the overload above.
    @_disfavoredOverload
    public mutating func append(_ text: String) {
        append(Array(text.utf8))
    }

    @inlinable
    public mutating func appendInteger<Integer: FixedWidthInteger>(_ value: Integer) {
        let size = MemoryLayout<Integer>.size
        if capacity &- count < size { grow(size) }
        base.storeBytes(of: value.littleEndian, toByteOffset: count, as: Integer.self)
        used &+= size
    }

    /// Appends an unsigned number in decimal digits.
    @inlinable
    public mutating func appendDecimal(_ value: UInt64) {
        if capacity &- count < 20 { grow(20) }
        if value < 10 {
            base.storeBytes(of: UInt8(truncatingIfNeeded: value) &+ 48, toByteOffset: count, as: UInt8.self)
            used &+= 1
            return
        }
        var digits = 1
        var bound: UInt64 = 10
        while value >= bound {
            digits &+= 1
            if digits == 20 { break }
            bound = bound &* 10
        }
        var rest = value
        var position = count &+ digits
        while position > count {
            position &-= 1
            let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
            base.storeBytes(of: UInt8(truncatingIfNeeded: digit) &+ 48, toByteOffset: position, as: UInt8.self)
            rest = quotient
        }
        used &+= digits
    }

    /// Overwrites an integer that was appended before.
    @inlinable
    public mutating func replaceInteger<Integer: FixedWidthInteger>(at offset: Int, with value: Integer) {
        precondition(offset >= 0 && offset &+ MemoryLayout<Integer>.size <= count, "no integer at \(offset)")
        base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: Integer.self)
    }

    @usableFromInline
    mutating func grow(_ additional: Int) {
        reallocate(max(capacity * 2, count + additional))
    }

    private mutating func reallocate(_ newCapacity: Int) {
        let replacement =
            newCapacity > 0 ? UnsafeMutableRawPointer.allocate(byteCount: newCapacity, alignment: 16) : Self.nowhere
        if count > 0 { replacement.copyMemory(from: base, byteCount: count) }
        if capacity > 0 { base.deallocate() }
        base = replacement
        capacity = newCapacity
    }
}
