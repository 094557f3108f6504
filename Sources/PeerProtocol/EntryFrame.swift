package import ClusterCore

/// An item as it travels: everything that a copy must know of it.
package struct WireItem {
    package var version: UInt64
    /// The CAS unique; equal to the version unless the item was touched since.
    package var unique: UInt64
    /// Absolute Unix seconds; 0 is never.
    package var expiry: UInt32
    package var flags: UInt32
    /// How often it was read of late, 0 to 3.
    package var frequency: UInt8
    package var isTombstone: Bool
    package var key: UnsafeRawBufferPointer
    package var value: UnsafeRawBufferPointer

    package init(
        version: UInt64,
        unique: UInt64,
        expiry: UInt32,
        flags: UInt32,
        frequency: UInt8 = 0,
        isTombstone: Bool,
        key: UnsafeRawBufferPointer,
        value: UnsafeRawBufferPointer
    ) {
        self.version = version
        self.unique = unique
        self.expiry = expiry
        self.flags = flags
        self.frequency = frequency
        self.isTombstone = isTombstone
        self.key = key
        self.value = value
    }

    package func append(to buffer: inout ByteBuffer) {
        buffer.appendInteger(version)
        buffer.appendInteger(unique)
        buffer.appendInteger(expiry)
        buffer.appendInteger(flags)
        buffer.append((isTombstone ? 1 : 0) | frequency << 1)
        buffer.append(UInt8(truncatingIfNeeded: key.count))
        buffer.appendInteger(UInt32(truncatingIfNeeded: value.count))
        buffer.append(key)
        buffer.append(value)
    }

    package init(_ reader: inout ByteReader) throws(MalformedBytes) {
        version = try reader.version()
        unique = try reader.version()
        expiry = try reader.integer()
        flags = try reader.integer()
        let bits = try reader.integer(UInt8.self)
        guard bits < 8 else { throw MalformedBytes() }
        isTombstone = bits & 1 != 0
        frequency = bits >> 1
        let keyLength = Int(try reader.integer(UInt8.self))
        let valueLength = Int(try reader.integer(UInt32.self))
        guard keyLength > 0, keyLength <= RequestFrame.keyBytesMax else { throw MalformedBytes() }
        key = try reader.bytes(keyLength)
        value = try reader.bytes(valueLength)
    }
}

/// One step of a slice's stream from its holder to one copy.
///
/// A stream is numbered from 1 without gaps, for each slice and each copy; entries travel over several connections and
/// are applied in the order of their numbers. So a copy's content is a function of a prefix of its stream, whatever
/// was lost, delayed or evicted in between.
package struct EntryFrame {
    package enum Kind: UInt8, Sendable {
        /// A write's resulting item.
        case stored = 1
        /// A key is gone at a version: deleted, replaced by what could not be stored, or expired by a write.
        case removed = 2
        /// Everything at or below a version is gone.
        case flush = 3
        /// A flush that comes due later.
        case flushAt = 4
        /// A part of the holder's content: items, and hashes of items that the copy has already.
        case snapshot = 5
        /// The end of the content: what the copy holds beyond it is dropped.
        case snapshotEnd = 6
        /// The holder waits for this copy from now on.
        case inSync = 7
        /// The last entry of an epoch: the copy is the holder of the next.
        case handOver = 8
        /// The copy is wanted no longer.
        case dismiss = 9
    }

    package var slice: Int
    package var stream: UInt64
    package var sequence: UInt64
    /// How many writes the slice has seen in its life as far as the holder knows; equal at equal contents.
    package var position: UInt64
    /// The sum of the writes that the stream has brought before this entry (`StreamSum`).
    package var sum: UInt64
    package var kind: Kind
    package var payload: UnsafeRawBufferPointer

    /// Starts an entry; the caller appends the payload and calls `Frame.end`.
    package static func begin(
        slice: Int,
        stream: UInt64,
        sequence: UInt64,
        position: UInt64,
        sum: UInt64,
        kind: Kind,
        in buffer: inout ByteBuffer
    ) -> Int {
        let start = Frame.begin(.entry, in: &buffer)
        buffer.appendInteger(UInt16(truncatingIfNeeded: slice))
        buffer.appendInteger(stream)
        buffer.appendInteger(sequence)
        buffer.appendInteger(position)
        buffer.appendInteger(sum)
        buffer.append(kind.rawValue)
        return start
    }

    /// Changes the kind of an entry whose payload starts at `payload`.
    package static func replaceKind(_ kind: Kind, before payload: Int, in buffer: inout ByteBuffer) {
        buffer.replaceInteger(at: payload - 1, with: kind.rawValue)
    }

    package init(_ body: UnsafeRawBufferPointer) throws(MalformedBytes) {
        var reader = ByteReader(body)
        slice = try reader.slice()
        stream = try reader.integer()
        sequence = try reader.integer()
        position = try reader.version()
        sum = try reader.integer()
        guard let kind = Kind(rawValue: try reader.integer()) else { throw MalformedBytes() }
        self.kind = kind
        payload = try reader.rest()
    }
}

/// A sum over the writes of one stream, which both ends keep: over what flowed, since contents differ by eviction. The
/// holder adds what it decided, the copy what it understood and applied; each entry tells the holder's sum so far.
package struct StreamSum: Equatable, Sendable {
    package private(set) var value: UInt64 = 0

    package init() {}

    /// Adds a write of one key.
    package mutating func add(_ kind: EntryFrame.Kind, hash: UInt64, version: UInt64) {
        value &+= KeyHash.mix(hash ^ KeyHash.mix(version ^ UInt64(kind.rawValue) << 56))
    }
}

/// What a copy has applied: every entry of a stream up to `sequence`.
package struct AcknowledgementFrame {
    package var slice: Int
    package var stream: UInt64
    package var sequence: UInt64
    package var position: UInt64

    package init(slice: Int, stream: UInt64, sequence: UInt64, position: UInt64) {
        self.slice = slice
        self.stream = stream
        self.sequence = sequence
        self.position = position
    }

    package func append(to buffer: inout ByteBuffer) {
        let start = Frame.begin(.acknowledgement, in: &buffer)
        buffer.appendInteger(UInt16(truncatingIfNeeded: slice))
        buffer.appendInteger(stream)
        buffer.appendInteger(sequence)
        buffer.appendInteger(position)
        Frame.end(start, in: &buffer)
    }

    package init(_ body: UnsafeRawBufferPointer) throws(MalformedBytes) {
        var reader = ByteReader(body)
        slice = try reader.slice()
        stream = try reader.integer()
        sequence = try reader.integer()
        position = try reader.version()
        guard reader.remaining == 0 else { throw MalformedBytes() }
    }
}

/// What is known of a slice beside its items.
package struct SliceMarks: Hashable, Sendable {
    package var newest: UInt64
    package var floor: UInt64
    package var flushVersion: UInt64
    package var flushAt: UInt64

    package init(newest: UInt64, floor: UInt64, flushVersion: UInt64, flushAt: UInt64) {
        self.newest = newest
        self.floor = floor
        self.flushVersion = flushVersion
        self.flushAt = flushAt
    }

    package func append(to buffer: inout ByteBuffer) {
        buffer.appendInteger(newest)
        buffer.appendInteger(floor)
        buffer.appendInteger(flushVersion)
        buffer.appendInteger(flushAt)
    }

    package init(_ reader: inout ByteReader) throws(MalformedBytes) {
        newest = try reader.version()
        floor = try reader.version()
        flushVersion = try reader.version()
        flushAt = try reader.integer()
    }
}
