/// Reads what another node wrote: every length is checked before it is used, and what does not fit is an error.
public struct ByteReader {
    public let bytes: UnsafeRawBufferPointer
    /// Where the next read starts.
    public private(set) var offset: Int

    /// `bytes` must outlive the reader.
    public init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
        self.offset = 0
    }

    /// How many bytes are left.
    public var remaining: Int { bytes.count - offset }

    public mutating func integer<Integer: FixedWidthInteger>(
        _ type: Integer.Type = Integer.self
    ) throws(MalformedBytes) -> Integer {
        let size = MemoryLayout<Integer>.size
        guard remaining >= size else { throw MalformedBytes() }
        let value = bytes.loadUnaligned(fromByteOffset: offset, as: Integer.self)
        offset += size
        return Integer(littleEndian: value)
    }

    public mutating func bytes(_ count: Int) throws(MalformedBytes) -> UnsafeRawBufferPointer {
        guard count >= 0, remaining >= count else { throw MalformedBytes() }
        defer { offset += count }
        return UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + count)])
    }

    /// Text with a length of one byte before it; not UTF-8 is an error.
    public mutating func shortText() throws(MalformedBytes) -> String {
        let count = Int(try integer(UInt8.self))
        let slice = try bytes(count)
        guard let text = String(validating: slice, as: UTF8.self) else { throw MalformedBytes() }
        return text
    }
}

/// Bytes from another node that do not follow the protocol.
public struct MalformedBytes: Error, Hashable {
    public init() {}
}

extension ByteBuffer {
    /// Text with a length of one byte before it. Text longer than 255 bytes of UTF-8 is a fault of the caller.
    public mutating func appendShortText(_ text: String) {
        let bytes = Array(text.utf8)
        precondition(bytes.count <= 255, "text of \(bytes.count) bytes does not fit its length byte")
        append(UInt8(bytes.count))
        append(bytes)
    }
}
