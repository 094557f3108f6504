import Glibc

/// What lies in a segment: items, tombstones, chunks of large values, and fillers, one behind the other, each a
/// multiple of four bytes. The first word tells what it is and how long.
///
///     bits 0–19 length of the value (filler: bytes / 4) │ 20–21 kind │ 22–23 size of the flags │ 24 unique apart
///          25 in chunks │ 26 fetched │ 27–31 spare
///
///      0 word    4 last access (24 bits of seconds), key length (8)    8 version    16 expiry    20 [flags] [unique]
///        key, value
///
/// A tombstone's `expiry` is the monotonic second of its burial. The value of an item in chunks is its length (four
/// bytes) and the chunks' locations (eight bytes each). A record that dies becomes a filler, so that no walk revives it.
struct Record {
    enum Kind: UInt32 {
        case filler = 0
        case item = 1
        case tombstone = 2
        case chunk = 3
    }

    let raw: UnsafeMutableRawPointer

    @inline(__always)
    init(_ raw: UnsafeMutableRawPointer) {
        self.raw = raw
    }

    static let headerBytes = 20
    /// Records begin at multiples of this.
    static let unitBytes = 4
    static let uniqueBit: UInt32 = 1 << 24
    static let chunkedBit: UInt32 = 1 << 25
    static let fetchedBit: UInt32 = 1 << 26
    private static let lengthMask: UInt32 = 0xf_ffff
    static let accessMask: UInt32 = 0xff_ffff

    @inline(__always)
    var word: UInt32 {
        get { raw.load(as: UInt32.self) }
        nonmutating set { raw.storeBytes(of: newValue, as: UInt32.self) }
    }

    @inline(__always)
    private var accessWord: UInt32 {
        get { raw.load(fromByteOffset: 4, as: UInt32.self) }
        nonmutating set { raw.storeBytes(of: newValue, toByteOffset: 4, as: UInt32.self) }
    }

    @inline(__always)
    var kind: Kind {
        switch word &>> 20 & 3 {
        case 0: .filler
        case 1: .item
        case 2: .tombstone
        default: .chunk
        }
    }

    /// The bytes that follow the key: the value, or the table of an item in chunks.
    @inline(__always)
    var bodyBytes: Int { Int(word & Self.lengthMask) }

    @inline(__always)
    var keyBytes: Int { Int(accessWord &>> 24) }

    @inline(__always)
    var flagBytes: Int {
        let code = word &>> 22 & 3
        return code == 3 ? 4 : Int(code)
    }

    @inline(__always)
    var isChunked: Bool { word & Self.chunkedBit != 0 }

    @inline(__always)
    var hasUnique: Bool { word & Self.uniqueBit != 0 }

    @inline(__always)
    var isFetched: Bool { word & Self.fetchedBit != 0 }

    @inline(__always)
    var version: UInt64 {
        get { raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self) }
        nonmutating set { raw.storeBytes(of: newValue, toByteOffset: 8, as: UInt64.self) }
    }

    /// Absolute Unix seconds, 0 never; of a tombstone the monotonic second of its burial.
    @inline(__always)
    var expiry: UInt32 {
        get { raw.load(fromByteOffset: 16, as: UInt32.self) }
        nonmutating set { raw.storeBytes(of: newValue, toByteOffset: 16, as: UInt32.self) }
    }

    @inline(__always)
    var flags: UInt32 {
        switch word &>> 22 & 3 {
        case 0: 0
        case 1: UInt32(raw.load(fromByteOffset: 20, as: UInt8.self))
        case 2: UInt32(raw.loadUnaligned(fromByteOffset: 20, as: UInt16.self))
        default: raw.loadUnaligned(fromByteOffset: 20, as: UInt32.self)
        }
    }

    /// The CAS unique: the version, unless it is kept apart.
    @inline(__always)
    var unique: UInt64 {
        hasUnique ? raw.loadUnaligned(fromByteOffset: Self.headerBytes &+ flagBytes, as: UInt64.self) : version
    }

    @inline(__always)
    var keyStart: UnsafeMutableRawPointer {
        raw + (Self.headerBytes &+ flagBytes &+ (hasUnique ? 8 : 0))
    }

    @inline(__always)
    var key: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: keyStart, count: keyBytes) }

    @inline(__always)
    var bodyStart: UnsafeMutableRawPointer { keyStart + keyBytes }

    @inline(__always)
    var body: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: bodyStart, count: bodyBytes) }

    /// What the record takes in its segment, in bytes.
    @inline(__always)
    var byteCount: Int {
        switch kind {
        case .filler: bodyBytes &* Self.unitBytes
        case .chunk: Self.round(ChunkRecord.headerBytes &+ bodyBytes)
        case .item, .tombstone:
            Self.round(Self.headerBytes &+ flagBytes &+ (hasUnique ? 8 : 0) &+ keyBytes &+ bodyBytes)
        }
    }

    /// Seconds of the last access, modulo 2^24.
    @inline(__always)
    var lastAccess: UInt32 { accessWord & Self.accessMask }

    @inline(__always)
    func hasKey(_ other: UnsafeRawBufferPointer) -> Bool {
        let count = keyBytes
        guard count == other.count else { return false }
        guard let start = other.baseAddress else { return true }
        return memcmp(keyStart, start, count) == 0
    }

    /// Notes a read; writes only what changes, so that a hot item's line stays clean.
    @inline(__always)
    func noteAccess(_ unixSeconds: UInt32) {
        let access = accessWord
        let seconds = unixSeconds & Self.accessMask
        if access & Self.accessMask != seconds { accessWord = access & ~Self.accessMask | seconds }
        let word = word
        if word & Self.fetchedBit == 0 { self.word = word | Self.fetchedBit }
    }

    /// Turns `byteCount` bytes, a multiple of four, into a filler.
    @inline(__always)
    func fill(byteCount: Int) {
        word = UInt32(truncatingIfNeeded: byteCount / Self.unitBytes)
    }

    @inline(__always)
    static func round(_ bytes: Int) -> Int { (bytes &+ 3) & ~3 }

    @inline(__always)
    static func flagBytes(_ flags: UInt32) -> Int {
        flags == 0 ? 0 : flags < 1 << 8 ? 1 : flags < 1 << 16 ? 2 : 4
    }

    /// Writes a whole record. The parts of the body must not lie within it.
    @inline(__always)
    func write(_ draft: RecordDraft, unixSeconds: UInt32) {
        let flagBytes = Self.flagBytes(draft.flags)
        let flagCode: UInt32 = flagBytes == 4 ? 3 : UInt32(truncatingIfNeeded: flagBytes)
        let bodyBytes = draft.first.count &+ draft.second.count
        let kind: UInt32 = draft.isTombstone ? Kind.tombstone.rawValue : Kind.item.rawValue
        var word = UInt32(truncatingIfNeeded: bodyBytes) | kind &<< 20 | flagCode &<< 22
        if draft.hasUnique { word |= Self.uniqueBit }
        if draft.isChunked { word |= Self.chunkedBit }
        self.word = word
        accessWord = unixSeconds & Self.accessMask | UInt32(truncatingIfNeeded: draft.key.count) &<< 24
        version = draft.version
        expiry = draft.expiry
        var target = raw + Self.headerBytes
        switch flagCode {
        case 0: break
        case 1: target.storeBytes(of: UInt8(truncatingIfNeeded: draft.flags), as: UInt8.self)
        case 2: target.storeBytes(of: UInt16(truncatingIfNeeded: draft.flags), as: UInt16.self)
        default: target.storeBytes(of: draft.flags, as: UInt32.self)
        }
        target += flagBytes
        if draft.hasUnique {
            target.storeBytes(of: draft.unique, as: UInt64.self)
            target += 8
        }
        if let start = draft.key.baseAddress { memcpy(target, start, draft.key.count) }
        target += draft.key.count
        if let start = draft.first.baseAddress { memcpy(target, start, draft.first.count) }
        if let start = draft.second.baseAddress { memcpy(target + draft.first.count, start, draft.second.count) }
    }

    // MARK: Items in chunks

    /// The table of an item in chunks: the value's length, then a location a chunk.
    static let tableHeaderBytes = 4
    static let tableEntryBytes = 8

    /// The value's length in bytes.
    @inline(__always)
    var chunkedBytes: Int { Int(bodyStart.loadUnaligned(as: UInt32.self)) }

    @inline(__always)
    var chunkCount: Int { (bodyBytes &- Self.tableHeaderBytes) / Self.tableEntryBytes }

    /// The location of a chunk, in units of four bytes from the first segment.
    @inline(__always)
    func chunkLocation(_ index: Int) -> UInt64 {
        bodyStart.loadUnaligned(fromByteOffset: Self.tableHeaderBytes &+ index &* Self.tableEntryBytes, as: UInt64.self)
    }

    @inline(__always)
    func setChunkLocation(_ index: Int, _ location: UInt64) {
        bodyStart.storeBytes(
            of: location,
            toByteOffset: Self.tableHeaderBytes &+ index &* Self.tableEntryBytes,
            as: UInt64.self
        )
    }
}

/// What goes into an item or tombstone; the body in two parts.
struct RecordDraft {
    var key: UnsafeRawBufferPointer
    var first: UnsafeRawBufferPointer
    var second = UnsafeRawBufferPointer(start: nil, count: 0)
    var flags: UInt32 = 0
    /// Absolute Unix seconds, 0 never; of a tombstone the monotonic second of its burial.
    var expiry: UInt32 = 0
    var version: UInt64
    var unique: UInt64 = 0
    var isTombstone = false
    /// The body is a table of chunks.
    var isChunked = false

    @inline(__always)
    var hasUnique: Bool { !isTombstone && unique != version }

    @inline(__always)
    var byteCount: Int {
        Record.round(
            Record.headerBytes &+ Record.flagBytes(flags) &+ (hasUnique ? 8 : 0) &+ key.count &+ first.count
                &+ second.count
        )
    }
}

/// A part of a large value.
///
///     0 word (length of the part, kind)    4 which part    8 hash of the item's key    16 the part
struct ChunkRecord {
    static let headerBytes = 16

    let raw: UnsafeMutableRawPointer

    @inline(__always)
    init(_ raw: UnsafeMutableRawPointer) {
        self.raw = raw
    }

    var index: Int { Int(raw.load(fromByteOffset: 4, as: UInt32.self)) }

    var hash: UInt64 { raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self) }

    /// Writes the head of a chunk; the part follows at `headerBytes`.
    func write(partBytes: Int, index: Int, hash: UInt64) {
        raw.storeBytes(of: UInt32(truncatingIfNeeded: partBytes) | Record.Kind.chunk.rawValue << 20, as: UInt32.self)
        raw.storeBytes(of: UInt32(truncatingIfNeeded: index), toByteOffset: 4, as: UInt32.self)
        raw.storeBytes(of: hash, toByteOffset: 8, as: UInt64.self)
    }
}
