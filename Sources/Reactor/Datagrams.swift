import CLinux
package import ClusterCore
import Glibc

/// Memory for a batch of datagrams, as the kernel wants it: headers, vectors, addresses and bytes, each an array.
///
/// Allocated once; a batch in either direction is one system call and no allocation.
private struct DatagramMemory: ~Copyable {
    static let noteBytes = Int(CLINUX_ARRIVAL_BYTES)

    let count: Int
    let bytesMax: Int
    let headers: UnsafeMutablePointer<clinux_datagram>
    let vectors: UnsafeMutablePointer<clinux_bytes>
    let addresses: UnsafeMutablePointer<sockaddr_in6>
    let bytes: UnsafeMutableRawPointer
    /// What the kernel says about each datagram beside its bytes; none where nobody asks.
    let notes: UnsafeMutableRawPointer?

    init(count: Int, bytesMax: Int, hasNotes: Bool) {
        precondition(count > 0 && bytesMax > 0, "room for \(count) datagrams of \(bytesMax) bytes")
        self.count = count
        self.bytesMax = bytesMax
        headers = .allocate(capacity: count)
        vectors = .allocate(capacity: count)
        addresses = .allocate(capacity: count)
        bytes = .allocate(byteCount: count * bytesMax, alignment: 64)
        notes = hasNotes ? .allocate(byteCount: count * Self.noteBytes, alignment: 16) : nil
        headers.initialize(repeating: clinux_datagram(), count: count)
        vectors.initialize(repeating: clinux_bytes(), count: count)
        addresses.initialize(repeating: sockaddr_in6(), count: count)
        for index in 0..<count {
            headers[index].header.address = UnsafeMutableRawPointer(addresses + index)
            headers[index].header.parts = vectors + index
            headers[index].header.part_count = 1
            if let notes { headers[index].header.control = notes + index * Self.noteBytes }
            vectors[index].base = bytes + index * bytesMax
        }
    }

    deinit {
        headers.deallocate()
        vectors.deallocate()
        addresses.deallocate()
        bytes.deallocate()
        notes?.deallocate()
    }
}

/// Receives datagrams in batches.
package final class DatagramReceiver {
    /// What one batch brought.
    package enum Batch: Hashable, Sendable {
        /// That many, at least one; `datagram(at:)` shows them. As many as the receiver holds: there may be more.
        case datagrams(Int)
        /// Nothing for now.
        case wouldBlock
        /// The socket reports an error, by its number; it works on.
        case failed(Int32)
    }

    /// Datagrams that were longer than the room for them, and dropped.
    package private(set) var oversizeCount: UInt64 = 0

    private let memory: DatagramMemory
    private var received = 0
    /// The wall clock when the last batch was read, in nanoseconds since 1970.
    private var readAt: UInt64 = 0
    /// The monotonic clock then.
    private var readInstant = Instant(nanoseconds: 0)
    /// When the socket was last seen empty: what is read later arrived later.
    private var emptyInstant = SystemClock.monotonic()

    /// `datagramsMax` of a batch, each of at most `bytesMax` bytes; their product is the memory it takes.
    package init(datagramsMax: Int = 32, bytesMax: Int = 2048) {
        memory = DatagramMemory(count: datagramsMax, bytesMax: bytesMax, hasNotes: true)
    }

    /// Takes the datagrams that wait, with one system call, over those of the last batch.
    package func receive(from descriptor: Int32) -> Batch {
        for index in 0..<memory.count {
            memory.headers[index].header.address_length = socklen_t(SocketAddress.bytesMax)
            memory.headers[index].header.control_length = UInt(DatagramMemory.noteBytes)
            memory.vectors[index].length = UInt(memory.bytesMax)
        }
        received = 0
        while true {
            // Before the call: what arrives during it is young, and not yet there.
            let instant = SystemClock.monotonic()
            let count = clinux_receive_datagrams(descriptor, memory.headers, UInt32(memory.count))
            if count >= 0 {
                received = Int(count)
                readAt = SystemClock.unixNanoseconds()
                readInstant = SystemClock.monotonic()
                return .datagrams(received)
            }
            switch errno {
            case EINTR: continue
            case EAGAIN:
                emptyInstant = instant
                return .wouldBlock
            case let code: return .failed(code)
            }
        }
    }

    /// A datagram of the last batch, who sent it, and how long it had waited in the socket when the batch was read; the
    /// bytes are valid until the next batch. Nil for one that was too long, and is counted.
    package func datagram(
        at index: Int
    ) -> (source: Endpoint, bytes: UnsafeRawBufferPointer, ageNanoseconds: UInt64)? {
        precondition(index >= 0 && index < received, "no datagram \(index) of \(received)")
        let datagram = memory.headers[index]
        if datagram.header.flags & Int32(MSG_TRUNC) != 0 {
            oversizeCount &+= 1
            return nil
        }
        let length = datagram.header.address_length
        guard let source = SocketAddress.read(memory.addresses + index, length: length) else { return nil }
        let bytes = memory.bytes + index * memory.bytesMax
        return (
            source, UnsafeRawBufferPointer(start: bytes, count: Int(datagram.length)),
            Self.age(
                arrivedAt: clinux_arrival(memory.headers + index),
                readAt: readAt,
                mostNanoseconds: readInstant.nanoseconds(since: emptyInstant)
            )
        )
    }

    /// How long a datagram waited by the wall clock, in nanoseconds, 0 where its arrival is not known (0).
    ///
    /// The wall clock may have been set meanwhile: an age below zero is none, and none exceeds `mostNanoseconds`, the time
    /// since the socket was empty by a clock that nobody sets.
    package static func age(arrivedAt: UInt64, readAt: UInt64, mostNanoseconds: UInt64) -> UInt64 {
        guard arrivedAt > 0, readAt > arrivedAt else { return 0 }
        return min(readAt - arrivedAt, mostNanoseconds)
    }
}

/// Gathers datagrams of a turn and sends them in one system call.
package final class DatagramSender {
    /// What became of a batch.
    package struct Flushed: Hashable, Sendable {
        /// Taken by the kernel.
        package var sent = 0
        /// Not taken, and dropped: a datagram that is late is worth nothing.
        package var dropped = 0
        /// Why the last of those was not taken, 0 where all were.
        package var lastError: Int32 = 0
    }

    /// Datagrams that wait for `flush`.
    package private(set) var count = 0

    private let memory: DatagramMemory

    /// `datagramsMax` of a batch, each of at most `bytesMax` bytes; their product is the memory it takes.
    package init(datagramsMax: Int = 64, bytesMax: Int = 2048) {
        memory = DatagramMemory(count: datagramsMax, bytesMax: bytesMax, hasNotes: false)
    }

    /// Whether the batch is full and wants to be flushed before the next `append`.
    package var isFull: Bool { count == memory.count }

    /// Copies a datagram into the batch; false where it is too long or the batch is full.
    package func append(_ bytes: UnsafeRawBufferPointer, to endpoint: Endpoint) -> Bool {
        guard !isFull, bytes.count <= memory.bytesMax else { return false }
        if let source = bytes.baseAddress {
            (memory.bytes + count * memory.bytesMax).copyMemory(from: source, byteCount: bytes.count)
        }
        memory.vectors[count].length = UInt(bytes.count)
        memory.headers[count].header.address_length = SocketAddress.write(endpoint, to: memory.addresses + count)
        count += 1
        return true
    }

    /// Sends the batch and empties it.
    ///
    /// A datagram that the kernel refuses (no route to that node) does not keep back those behind it; once the socket's
    /// buffer is full, the rest is dropped.
    package func flush(to descriptor: Int32) -> Flushed {
        var flushed = Flushed()
        var next = 0
        while next < count {
            let taken = clinux_send_datagrams(descriptor, memory.headers + next, UInt32(count - next))
            if taken > 0 {
                flushed.sent += Int(taken)
                next += Int(taken)
                continue
            }
            if errno == EINTR { continue }
            flushed.lastError = errno
            if errno == EAGAIN || errno == ENOBUFS {
                flushed.dropped += count - next
                break
            }
            flushed.dropped += 1
            next += 1
        }
        count = 0
        return flushed
    }
}
