package import ClusterCore
import Glibc

/// What one read from a connection brought.
package enum Received: Hashable, Sendable {
    /// That many bytes, at least one.
    case bytes(Int)
    /// Nothing for now.
    case wouldBlock
    /// The peer sends nothing more. It may still read.
    case closed
    /// The connection is broken, by that error number.
    case failed(Int32)
}

/// What one write to a connection did.
package enum Sent: Hashable, Sendable {
    /// Nothing is left to send.
    case all
    /// The kernel's buffer is full; `unsentBytes` of the buffer are left. Wait until the descriptor is writable.
    case wouldBlock
    /// The connection is broken, by that error number. The buffer is as it was.
    case failed(Int32)
}

/// Bytes on their way out, of which the kernel has taken some.
///
/// The bytes that were sent stay where they are until all are out, or until they are most of a large buffer: a slow
/// reader costs an offset, not a copy of everything at each write.
package struct TransmitBuffer: ~Copyable {
    /// Room that an empty buffer keeps. More is memory for each connection; less is an allocation for each large reply.
    package static let idleBytesMax = 64 * 1024

    /// Where to append. Its first bytes may have been sent already; whoever truncates goes no lower than `sentBytes`.
    package var buffer: ByteBuffer
    /// How many bytes of `buffer` have been sent.
    package private(set) var sentBytes = 0

    package init(capacity: Int = 256) {
        buffer = ByteBuffer(capacity: capacity)
    }

    /// How many bytes wait.
    package var unsentBytes: Int { buffer.count - sentBytes }

    /// Whether nothing waits.
    package var isEmpty: Bool { unsentBytes == 0 }

    /// Forgets everything, for a connection that is gone.
    package mutating func removeAll() {
        sentBytes = 0
        buffer.removeAll(shrinkingTo: Self.idleBytesMax)
    }

    /// The bytes that wait, valid until the next mutation.
    var unsent: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: buffer.bytes[sentBytes...]) }

    mutating func consume(_ count: Int) {
        sentBytes += count
        precondition(sentBytes <= buffer.count, "sent \(sentBytes) of \(buffer.count) bytes")
        if sentBytes == buffer.count {
            removeAll()
        } else if sentBytes >= Self.idleBytesMax, sentBytes >= buffer.count / 2 {
            // At most as many bytes move as were sent since the last move.
            buffer.removeFirst(sentBytes)
            sentBytes = 0
        }
    }
}

extension Socket {
    /// Reads at most `max` bytes to the end of `buffer`, with one system call.
    package static func receive(_ descriptor: Int32, into buffer: inout ByteBuffer, max: Int) -> Received {
        precondition(max > 0, "reading 0 bytes looks like the end of the stream")
        let room = buffer.reserve(max)
        while true {
            let count = recv(descriptor, room.baseAddress, max, 0)
            if count > 0 {
                buffer.commit(count)
                return .bytes(count)
            }
            if count == 0 { return .closed }
            switch errno {
            case EINTR: continue
            case EAGAIN: return .wouldBlock
            case let code: return .failed(code)
            }
        }
    }

    /// Writes what waits in `buffer`, with one system call; none where nothing waits.
    package static func send(_ descriptor: Int32, from buffer: inout TransmitBuffer) -> Sent {
        if buffer.isEmpty { return .all }
        while true {
            let unsent = buffer.unsent
            let count = Glibc.send(descriptor, unsent.baseAddress, unsent.count, Int32(MSG_NOSIGNAL))
            if count >= 0 {
                buffer.consume(count)
                // A short count means that the kernel's buffer is full: the next call would only say so.
                return buffer.isEmpty ? .all : .wouldBlock
            }
            switch errno {
            case EINTR: continue
            case EAGAIN: return .wouldBlock
            case let code: return .failed(code)
            }
        }
    }
}
