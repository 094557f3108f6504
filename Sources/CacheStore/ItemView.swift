public import ClusterCore
import Glibc

/// A borrowed look at a value: one run of bytes, or chunks in a shard.
public struct ItemValue {
    /// In bytes.
    public let count: Int
    /// The bytes, or the table of the chunks.
    private let start: UnsafeRawPointer?
    /// Where a shard's segments begin; nil where the value is one run.
    private let segments: UnsafeRawPointer?
    private let chunkBytes: Int

    /// A value in one run.
    public init(_ bytes: UnsafeRawBufferPointer) {
        count = bytes.count
        start = bytes.baseAddress
        segments = nil
        chunkBytes = 0
    }

    /// The value of an item in chunks.
    init(chunked record: Record, segments: UnsafeRawPointer, chunkBytes: Int) {
        count = record.chunkedBytes
        start = UnsafeRawPointer(record.bodyStart) + Record.tableHeaderBytes
        self.segments = segments
        self.chunkBytes = chunkBytes
    }

    /// The bytes, where they are one run; nil where they are chunks.
    @inline(__always)
    public var whole: UnsafeRawBufferPointer? {
        segments == nil ? UnsafeRawBufferPointer(start: start, count: count) : nil
    }

    /// Visits the runs of bytes in order.
    public func forEachPart(_ body: (UnsafeRawBufferPointer) -> Void) {
        guard let segments, let start else {
            body(UnsafeRawBufferPointer(start: start, count: count))
            return
        }
        var offset = 0
        var entry = 0
        while offset < count {
            let location = start.loadUnaligned(fromByteOffset: entry, as: UInt64.self)
            let chunk = segments + Int(truncatingIfNeeded: location) << 2 + ChunkRecord.headerBytes
            let part = min(chunkBytes, count - offset)
            body(UnsafeRawBufferPointer(start: chunk, count: part))
            offset += part
            entry += Record.tableEntryBytes
        }
    }

    /// Puts the bytes behind what the buffer holds.
    public func append(to buffer: inout ByteBuffer) {
        if let whole {
            buffer.append(whole)
            return
        }
        _ = buffer.reserve(count)
        forEachPart { buffer.append($0) }
    }

    /// Writes the bytes to `target`, which has room for `count`.
    public func copy(to target: UnsafeMutableRawPointer) {
        var target = target
        forEachPart { part in
            if let start = part.baseAddress { memcpy(target, start, part.count) }
            target += part.count
        }
    }

    /// Hands out the bytes in one run, for the call only; chunks are copied for that.
    public func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        if let whole { return body(whole) }
        return withUnsafeTemporaryAllocation(byteCount: count, alignment: 8) { bytes in
            if let start = bytes.baseAddress { copy(to: start) }
            return body(UnsafeRawBufferPointer(bytes))
        }
    }

    /// A copy of the bytes.
    public var array: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            if let start = buffer.baseAddress { copy(to: UnsafeMutableRawPointer(start)) }
            initialized = count
        }
    }
}

/// A borrowed look at one item: its bytes lie in the shard, or in a message, and are valid until the next mutation of
/// whoever owns them. Reads (`find`, `peek`, `scan`) are no mutations.
public struct ItemView {
    public var key: UnsafeRawBufferPointer
    /// Empty for a tombstone.
    public var value: ItemValue
    /// The client's flags, opaque.
    public var flags: UInt32
    /// Absolute Unix seconds from which the item is dead; 0 is never.
    public var expiry: UInt32
    /// The stamp of the last change of the item.
    public var version: UInt64
    /// The CAS unique: the version of the last change of the content, which a touch keeps.
    public var unique: UInt64
    /// The hash of the key.
    public var hash: UInt64
    /// How often the item was read of late, 0 to 3: what eviction goes by. An item of the main pool has 1 at least.
    public var frequency: UInt8
    /// Says that the key was deleted at `version`.
    public var isTombstone: Bool

    public init(
        key: UnsafeRawBufferPointer,
        value: UnsafeRawBufferPointer,
        flags: UInt32 = 0,
        expiry: UInt32 = 0,
        version: UInt64,
        unique: UInt64,
        hash: UInt64,
        frequency: UInt8 = 0,
        isTombstone: Bool = false
    ) {
        self.init(
            key: key,
            value: ItemValue(value),
            flags: flags,
            expiry: expiry,
            version: version,
            unique: unique,
            hash: hash,
            frequency: frequency,
            isTombstone: isTombstone
        )
    }

    @inline(__always)
    init(
        key: UnsafeRawBufferPointer,
        value: ItemValue,
        flags: UInt32,
        expiry: UInt32,
        version: UInt64,
        unique: UInt64,
        hash: UInt64,
        frequency: UInt8,
        isTombstone: Bool
    ) {
        self.key = key
        self.value = value
        self.flags = flags
        self.expiry = expiry
        self.version = version
        self.unique = unique
        self.hash = hash
        self.frequency = frequency
        self.isTombstone = isTombstone
    }
}
