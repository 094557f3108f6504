package import ClusterCore

// Frames between nodes.
//
// Every TCP connection between two nodes carries frames: four bytes of length (of what follows), one byte of type, the
// body. Integers are little-endian. A frame longer than `Frame.bytesMax`, of unknown type, or with a body that does
// not fit its type ends the connection: after that nothing on it can be trusted. The first frame of a connection is a
// `hello`, which carries the protocol version, so that a later version can refuse or adapt.
//
// Four families share the connections: requests and responses (a coordinator and a holder), stream entries and
// acknowledgements (a holder and its successors, per slice and in order), control (leases, claims, movement), and
// access hints (a holder to its successors, which may be lost).

/// What every frame begins with.
package enum Frame {
    /// Bytes before the body: length and type.
    package static let headerBytes = 5
    /// The longest body, in bytes: an item of the largest size with room for its key and fields.
    package static let bodyBytesMax = 129 * 1024 * 1024
    /// The version of this protocol, said in `hello`.
    package static let version: UInt16 = 5

    /// The type of a frame.
    package enum Kind: UInt8, Sendable, CaseIterable {
        case hello = 1
        case request = 2
        case response = 3
        case entry = 4
        case acknowledgement = 5
        case offer = 6
        case learn = 7
        case refusal = 8
        case adopt = 9
        case claim = 10
        case claimReply = 11
        case withdraw = 12
        case leasePing = 13
        case leasePong = 14
        case holdingsPull = 15
        case holdings = 16
        case tablePull = 17
        case table = 18
        case release = 19
        case exchange = 20
        case exchangeReply = 21
        case merge = 22
        case order = 23
        case orderReply = 24
        case stopping = 25
        case accesses = 26
        case keyRing = 27
        case gossip = 28
        case examine = 29
        case examined = 30
        case promiseRecall = 31
        case promiseReturn = 32
    }

    /// Looks for a whole frame at the front of `bytes`. Nil: more bytes are wanted.
    package static func next(
        in bytes: UnsafeRawBufferPointer
    ) throws(MalformedBytes) -> (kind: Kind, body: UnsafeRawBufferPointer, consumed: Int)? {
        guard bytes.count >= headerBytes else { return nil }
        let length = Int(UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)))
        guard length >= 1, length <= bodyBytesMax, let kind = Kind(rawValue: bytes[4]) else { throw MalformedBytes() }
        guard bytes.count >= 4 + length else { return nil }
        return (kind, UnsafeRawBufferPointer(rebasing: bytes[headerBytes..<(4 + length)]), 4 + length)
    }

    /// Appends a frame whose body `write` appends.
    package static func append(
        _ kind: Kind,
        to buffer: inout ByteBuffer,
        _ write: (inout ByteBuffer) -> Void
    ) {
        let start = begin(kind, in: &buffer)
        write(&buffer)
        end(start, in: &buffer)
    }

    /// Starts a frame; `end` completes it.
    package static func begin(_ kind: Kind, in buffer: inout ByteBuffer) -> Int {
        let start = buffer.count
        buffer.appendInteger(UInt32(0))
        buffer.append(kind.rawValue)
        return start
    }

    /// Writes the length of the frame that began at `start`.
    package static func end(_ start: Int, in buffer: inout ByteBuffer) {
        buffer.replaceInteger(at: start, with: UInt32(buffer.count - start - 4))
    }
}

/// The first frame of a connection: who calls, and for what.
package struct Hello: Hashable, Sendable {
    /// What a connection carries.
    package enum Lane: UInt8, Sendable {
        /// The control thread's: leases, claims, movement.
        case control = 0
        /// A worker's: requests and stream entries.
        case data = 1
        /// One membership exchange, then it closes.
        case exchange = 2
        /// Gossip where UDP does not pass: datagrams, each behind the sender's cluster endpoint.
        case gossip = 3
    }

    package var clusterName: String
    package var node: NodeID
    package var generation: UInt64
    /// Which of the caller's threads this is, from 0 for each kind of lane.
    package var lane: Lane
    package var worker: UInt8

    package init(clusterName: String, node: NodeID, generation: UInt64, lane: Lane, worker: UInt8) {
        self.clusterName = clusterName
        self.node = node
        self.generation = generation
        self.lane = lane
        self.worker = worker
    }

    package func append(to buffer: inout ByteBuffer) {
        Frame.append(.hello, to: &buffer) { buffer in
            buffer.appendInteger(Frame.version)
            buffer.appendShortText(clusterName)
            buffer.append(node)
            buffer.appendInteger(generation)
            buffer.append(lane.rawValue)
            buffer.append(worker)
        }
    }

    package init(_ body: UnsafeRawBufferPointer) throws(MalformedBytes) {
        var reader = ByteReader(body)
        guard try reader.integer(UInt16.self) == Frame.version else { throw MalformedBytes() }
        clusterName = try reader.shortText()
        node = try reader.nodeID()
        generation = try reader.integer()
        guard let lane = Lane(rawValue: try reader.integer()) else { throw MalformedBytes() }
        self.lane = lane
        worker = try reader.integer()
        guard reader.remaining == 0 else { throw MalformedBytes() }
    }
}

extension ByteBuffer {
    package mutating func append(_ node: NodeID) {
        appendInteger(node.high)
        appendInteger(node.low)
    }
}

extension ByteReader {
    package mutating func nodeID() throws(MalformedBytes) -> NodeID {
        let high = try integer(UInt64.self)
        let low = try integer(UInt64.self)
        return NodeID(high: high, low: low)
    }

    /// The number of a slice; out of range is malformed.
    package mutating func slice() throws(MalformedBytes) -> Int {
        let slice = Int(try integer(UInt16.self))
        guard slice < Slice.count else { throw MalformedBytes() }
        return slice
    }

    /// The epoch of a slice; one that leaves no room to rise is malformed.
    package mutating func epoch() throws(MalformedBytes) -> UInt32 {
        let epoch = try integer(UInt32.self)
        guard epoch <= SliceEpoch.epochMax else { throw MalformedBytes() }
        return epoch
    }

    /// A version, or a position in a slice's writes: below 2^63, so that there is always a later one.
    package mutating func version() throws(MalformedBytes) -> UInt64 {
        let version = try integer(UInt64.self)
        guard version >> 63 == 0 else { throw MalformedBytes() }
        return version
    }

    /// Everything that is left.
    package mutating func rest() throws(MalformedBytes) -> UnsafeRawBufferPointer {
        try bytes(remaining)
    }
}
