/// Reads what another node wrote: every length is checked before it is used, and what does not fit is an error.
///
/// Inlinable, since a generic function of another module that is not looks up its types at every call.
public struct ByteReader {
    public let bytes: UnsafeRawBufferPointer
    /// Where the next read starts.
    @inlinable
    public var offset: Int { position }
    @usableFromInline var position: Int

    /// `bytes` must outlive the reader.
    @inlinable
    public init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
        self.position = 0
    }

    /// How many bytes are left.
    @inlinable
    public var remaining: Int { bytes.count &- position }

    @inlinable
    public mutating func integer<Integer: FixedWidthInteger>(
        _ type: Integer.Type = Integer.self
    ) throws(MalformedBytes) -> Integer {
        let size = MemoryLayout<Integer>.size
        guard remaining >= size else { throw MalformedBytes() }
        let value = bytes.loadUnaligned(fromByteOffset: position, as: Integer.self)
        position &+= size
        return Integer(littleEndian: value)
    }

    @inlinable
    public mutating func bytes(_ count: Int) throws(MalformedBytes) -> UnsafeRawBufferPointer {
        guard count >= 0, remaining >= count else { throw MalformedBytes() }
        defer { position &+= count }
        return UnsafeRawBufferPointer(rebasing: bytes[position..<(position &+ count)])
    }

    /// Text with a length of one byte before it; not UTF-8 is an error.
    public mutating func shortText() throws(MalformedBytes) -> String {
        let count = Int(try integer(UInt8.self))
        let slice = try bytes(count)
        // ASCII is UTF-8; most names are that, and the general check takes longer than all else in a record.
        if slice.allSatisfy({ $0 < 128 }) { return String(decoding: slice, as: UTF8.self) }
        guard let text = String(validating: slice, as: UTF8.self) else { throw MalformedBytes() }
        return text
    }
}

/// Bytes from another node that do not follow the protocol.
public struct MalformedBytes: Error, Hashable {
    @inlinable
    public init() {}
}

extension ByteBuffer {
    /// Text with a length of one byte before it. Text longer than 255 bytes of UTF-8 is a fault of the caller.
    public mutating func appendShortText(_ text: String) {
        let count = text.utf8.count
        precondition(count <= 255, "text of \(count) bytes does not fit its length byte")
        append(UInt8(count))
        if text.utf8.withContiguousStorageIfAvailable({ append(UnsafeRawBufferPointer($0)) }) == nil {
            append(Array(text.utf8))
        }
    }
}
