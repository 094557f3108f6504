package import ClusterCore

/// A request that one node forwards to another: a coordinator to the slice's holder.
///
/// `exptime` travels as the client gave it, so that the holder's clock alone turns it into a moment.
package struct RequestFrame {
    /// What the holder shall do. The values of stores and reads are those of the store's operations.
    package enum Verb: UInt8, Sendable, CaseIterable {
        case get = 1
        case getAndTouch = 2
        case set = 3
        case add = 4
        case replace = 5
        case append = 6
        case prepend = 7
        case compareAndSet = 8
        case increment = 9
        case decrement = 10
        case touch = 11
        case delete = 12
        /// A `set` that was refused for its size: the old value goes.
        case discard = 13
        /// Everything of one slice; `unique` is the slice, `exptime` the delay as the client gave it.
        case flush = 14

        /// Whether repeating it after an unknown result is harmless: the second time changes nothing that a client
        /// could tell from the first having come later.
        package var isRepeatable: Bool {
            switch self {
            case .get, .set, .touch, .getAndTouch, .delete, .discard, .flush: true
            case .add, .replace, .append, .prepend, .compareAndSet, .increment, .decrement: false
            }
        }

        package var isRead: Bool { self == .get }
    }

    /// The coordinator's number for it, echoed in the response.
    package var id: UInt64
    /// The ring that the coordinator knows.
    package var ringHash: UInt64
    /// The epoch of the slice that the coordinator knows.
    package var epoch: UInt32
    package var verb: Verb
    package var flags: UInt32
    package var exptime: Int64
    package var unique: UInt64
    package var delta: UInt64
    package var key: UnsafeRawBufferPointer
    package var value: UnsafeRawBufferPointer

    package init(
        id: UInt64,
        ringHash: UInt64,
        epoch: UInt32,
        verb: Verb,
        flags: UInt32 = 0,
        exptime: Int64 = 0,
        unique: UInt64 = 0,
        delta: UInt64 = 0,
        key: UnsafeRawBufferPointer,
        value: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
    ) {
        self.id = id
        self.ringHash = ringHash
        self.epoch = epoch
        self.verb = verb
        self.flags = flags
        self.exptime = exptime
        self.unique = unique
        self.delta = delta
        self.key = key
        self.value = value
    }

    /// The slice that it concerns.
    package var slice: Int {
        verb == .flush ? Int(truncatingIfNeeded: unique) & (Slice.count - 1) : Slice.index(of: KeyHash.hash(key))
    }

    /// The longest key, in bytes.
    package static let keyBytesMax = 250

    package func append(to buffer: inout ByteBuffer) {
        let start = Frame.begin(.request, in: &buffer)
        buffer.appendInteger(id)
        buffer.appendInteger(ringHash)
        buffer.appendInteger(epoch)
        buffer.append(verb.rawValue)
        buffer.appendInteger(flags)
        buffer.appendInteger(exptime)
        buffer.appendInteger(unique)
        buffer.appendInteger(delta)
        buffer.append(UInt8(truncatingIfNeeded: key.count))
        buffer.append(key)
        buffer.append(value)
        Frame.end(start, in: &buffer)
    }

    package init(_ body: UnsafeRawBufferPointer) throws(MalformedBytes) {
        var reader = ByteReader(body)
        id = try reader.integer()
        ringHash = try reader.integer()
        epoch = try reader.integer()
        guard let verb = Verb(rawValue: try reader.integer()) else { throw MalformedBytes() }
        self.verb = verb
        flags = try reader.integer()
        exptime = try reader.integer()
        unique = try reader.integer()
        delta = try reader.integer()
        let length = Int(try reader.integer(UInt8.self))
        guard length <= Self.keyBytesMax, length > 0 || verb == .flush else { throw MalformedBytes() }
        key = try reader.bytes(length)
        value = try reader.rest()
        if verb == .flush, unique >= UInt64(Slice.count) { throw MalformedBytes() }
    }

    /// The key in an encoded frame of this node's own making.
    package static func key(inFrame frame: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        // Behind id, ring hash, epoch, verb, flags, exptime, unique and delta.
        let offset = Frame.headerBytes + 8 + 8 + 4 + 1 + 4 + 8 + 8 + 8
        let length = Int(frame[offset])
        return UnsafeRawBufferPointer(rebasing: frame[(offset + 1)..<(offset + 1 + length)])
    }

    /// Where `id` and, after it, the ring hash and the epoch stand in an encoded frame, so that a retry can patch them.
    package static let idOffset = Frame.headerBytes
    package static let ringHashOffset = Frame.headerBytes + 8
    package static let epochOffset = Frame.headerBytes + 16
}

/// What a holder answers.
package enum ReplyStatus: UInt8, Sendable {
    case hit = 1
    case miss = 2
    case stored = 3
    case notStored = 4
    case exists = 5
    case notFound = 6
    case deleted = 7
    case touched = 8
    case number = 9
    case nonNumeric = 10
    case tooLarge = 11
    case outOfMemory = 12
    case flushed = 13
    /// The asked node does not hold the slice; `number` is the epoch that it knows, the value names the holder (an id
    /// and a generation), or is empty.
    case notHolder = 14
    /// The holder lost the slice, or its lease, before it could answer: whether the request took effect is unknown.
    case unknown = 15
    /// A bound of the holder was reached; nothing took effect.
    case busy = 16
}

/// A response to a `RequestFrame`. `value` points into the frame that it was read from.
package struct ResponseFrame {
    package var id: UInt64
    package var status: ReplyStatus
    /// The CAS unique, the counter's number, or an epoch, by `status`.
    package var number: UInt64
    package var flags: UInt32
    package var value: UnsafeRawBufferPointer

    package init(
        id: UInt64,
        status: ReplyStatus,
        number: UInt64 = 0,
        flags: UInt32 = 0,
        value: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
    ) {
        self.id = id
        self.status = status
        self.number = number
        self.flags = flags
        self.value = value
    }

    package func append(to buffer: inout ByteBuffer) {
        let start = Frame.begin(.response, in: &buffer)
        buffer.appendInteger(id)
        buffer.append(status.rawValue)
        buffer.appendInteger(number)
        buffer.appendInteger(flags)
        buffer.append(value)
        Frame.end(start, in: &buffer)
    }

    package init(_ body: UnsafeRawBufferPointer) throws(MalformedBytes) {
        var reader = ByteReader(body)
        id = try reader.integer()
        guard let status = ReplyStatus(rawValue: try reader.integer()) else { throw MalformedBytes() }
        self.status = status
        number = try reader.integer()
        flags = try reader.integer()
        value = try reader.rest()
    }
}
