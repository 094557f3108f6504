import CLinux
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

extension Socket {
    /// Reads at most `max` bytes to the end of `buffer`, with one system call.
    package static func receive(_ descriptor: Int32, into buffer: inout ByteBuffer, max: Int) -> Received {
        precondition(max > 0, "reading 0 bytes looks like the end of the stream")
        let room = buffer.reserve(max)
        while true {
            let count = clinux_receive(descriptor, room.baseAddress, UInt(max))
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
            let count = clinux_send(descriptor, unsent.baseAddress, UInt(unsent.count))
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
