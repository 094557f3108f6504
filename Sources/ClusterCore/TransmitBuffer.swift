/// Bytes on their way out, of which the kernel has taken some.
///
/// The bytes that were sent stay where they are until all are out, or until they are most of a large buffer: a slow
/// reader costs an offset, not a copy of everything at each write.
public struct TransmitBuffer: ~Copyable {
    /// Room that an empty buffer keeps, in bytes, unless it is taken away. More is memory for each connection; less is
    /// an allocation for each large reply.
    public static let idleBytesMax = 64 * 1024

    /// Where to append. Its first bytes may have been sent already; whoever truncates goes no lower than `sentBytes`.
    public var buffer: ByteBuffer
    /// How many bytes of `buffer` have been sent.
    @usableFromInline var sent = 0

    @inlinable
    public init(capacity: Int = 256) {
        buffer = ByteBuffer(capacity: capacity)
    }

    /// How many bytes of `buffer` have been sent.
    @inlinable
    public var sentBytes: Int { sent }

    /// How many bytes wait.
    @inlinable
    public var unsentBytes: Int { buffer.count &- sent }

    /// Whether nothing waits.
    @inlinable
    public var isEmpty: Bool { unsentBytes == 0 }

    /// The bytes that wait, valid until the next mutation.
    @inlinable
    public var unsent: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: buffer.bytes[sent...])
    }

    /// The bytes that wait, as an array of their own.
    public func array() -> [UInt8] { Array(unsent) }

    /// Forgets everything, for a connection that is gone or bytes that went another way.
    public mutating func removeAll() {
        sent = 0
        buffer.removeAll(shrinkingTo: Self.idleBytesMax)
    }

    /// Counts bytes that the kernel has taken. What was sent last leaves the buffer empty with all its room.
    public mutating func consume(_ count: Int) {
        sent += count
        precondition(sent <= buffer.count, "sent \(sent) of \(buffer.count) bytes")
        if sent == buffer.count {
            sent = 0
            buffer.removeAll()
        } else if sent >= Self.idleBytesMax, sent >= buffer.count / 2 {
            // At most as many bytes move as were sent since the last move.
            buffer.removeFirst(sent)
            sent = 0
        }
    }
}

/// Buffers that connections borrow while they have something to say, so that an idle connection has none.
///
/// The one that came back last is lent first: its bytes are still in the processor's cache.
public struct BufferPool: ~Copyable {
    /// Room of a new buffer, in bytes.
    public static let bufferBytes = 16 * 1024
    /// The largest buffer that is kept, in bytes.
    public static let bufferBytesMax = 1024 * 1024
    /// Bytes of buffers that nobody uses, at most; more go back to the allocator.
    public static let idleBytesMax = 8 * 1024 * 1024
    /// Buffers that nobody uses, at most.
    static let idleCountMax = idleBytesMax / bufferBytes

    private let idle: UnsafeMutablePointer<ByteBuffer>
    private var count = 0
    private var idleBytes = 0

    public init() {
        idle = .allocate(capacity: Self.idleCountMax)
    }

    deinit {
        idle.deinitialize(count: count)
        idle.deallocate()
    }

    /// Gives a buffer that has no room one with room.
    public mutating func equip(_ buffer: inout ByteBuffer) {
        guard buffer.capacityBytes == 0 else { return }
        if count == 0 {
            buffer = ByteBuffer(capacity: Self.bufferBytes)
            return
        }
        count -= 1
        buffer = (idle + count).move()
        idleBytes -= buffer.capacityBytes
    }

    /// Takes the room of an empty buffer back.
    public mutating func reclaim(_ buffer: inout ByteBuffer) {
        precondition(buffer.isEmpty, "\(buffer.count) bytes would be lost")
        let room = buffer.capacityBytes
        guard room >= Self.bufferBytes, room <= Self.bufferBytesMax, count < Self.idleCountMax,
            idleBytes + room <= Self.idleBytesMax
        else {
            buffer.removeAll(shrinkingTo: 0)
            return
        }
        (idle + count).initialize(to: exchange(&buffer, with: ByteBuffer(capacity: 0)))
        count += 1
        idleBytes += room
    }
}

/// Puts a value in the place of another and returns that one.
private func exchange(_ place: inout ByteBuffer, with replacement: consuming ByteBuffer) -> ByteBuffer {
    var result = replacement
    swap(&place, &result)
    return result
}
