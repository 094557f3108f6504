package import ClusterCore

// A datagram on the wire, little-endian:
//
//     offset 0  "HG"   2  version   3  kind   4  cluster tag   12  sender id   28  generation   36  target id (0: any)
//     offset 52 the body of the kind, in fixed order
//     then entries until the end: type (1 byte), length (2 bytes), content
//
// A reader skips entry types that it does not know, and bytes at the end of a record that it does not know, so that a
// later version may add both. What else does not fit is malformed as a whole: nothing of it is used.

extension GossipDatagram {
    static let version: UInt8 = 2
    static let headerBytes = 52
    private static let targetOffset = 36

    /// The bytes of the datagram. Texts beyond their limits are a fault of the caller.
    package func encoded() -> [UInt8] {
        var buffer = ByteBuffer(capacity: 256)
        buffer.append(UInt8(ascii: "H"))
        buffer.append(UInt8(ascii: "G"))
        buffer.append(Self.version)
        buffer.append(message.kind.rawValue)
        buffer.appendInteger(clusterTag)
        buffer.appendNodeID(sender)
        buffer.appendInteger(senderGeneration)
        buffer.appendNodeID(target ?? NodeID(high: 0, low: 0))
        message.encode(into: &buffer)
        for entry in entries { entry.encode(into: &buffer) }
        return buffer.array()
    }

    /// Puts another target into an encoded datagram.
    static func readdress(_ bytes: inout [UInt8], to target: NodeID) {
        bytes.withUnsafeMutableBytes {
            $0.storeBytes(of: target.high.littleEndian, toByteOffset: targetOffset, as: UInt64.self)
            $0.storeBytes(of: target.low.littleEndian, toByteOffset: targetOffset + 8, as: UInt64.self)
        }
    }

    /// Reads one datagram, or a whole exchange. Throws for everything that `encoded()` cannot have written.
    ///
    /// `isKnown` is asked with the id and the hash of each record that comes, and may have it left out: most records of
    /// an exchange are known already, and looking that up costs less than reading them.
    package init(
        decoding bytes: UnsafeRawBufferPointer,
        leavingOut isKnown: (NodeID, UInt64) -> Bool = { _, _ in false }
    ) throws(MalformedBytes) {
        var reader = ByteReader(bytes)
        guard try reader.integer(UInt8.self) == UInt8(ascii: "H"), try reader.integer(UInt8.self) == UInt8(ascii: "G"),
            try reader.integer(UInt8.self) == Self.version,
            let kind = GossipMessage.Kind(rawValue: try reader.integer(UInt8.self))
        else { throw MalformedBytes() }
        clusterTag = try reader.integer()
        sender = try reader.nodeID()
        senderGeneration = try reader.integer()
        let target = try reader.nodeID()
        self.target = target == NodeID(high: 0, low: 0) ? nil : target
        message = try GossipMessage(kind, reader: &reader)
        entries = []
        while reader.remaining > 0 {
            if let entry = try GossipEntry(reader: &reader, leavingOut: isKnown) { entries.append(entry) }
        }
    }
}

extension GossipMessage {
    enum Kind: UInt8 {
        case ping = 1
        case ack = 2
        case pingRequest = 3
        case indirectAck = 4
        case nack = 5
        case update = 6
        case updated = 7
        case pull = 8
        case state = 9
        case hello = 10
        case helloReply = 11
        case form = 12
        case refuse = 13
        case exchangeRequest = 14
        case exchangeReply = 15
    }

    fileprivate var kind: Kind {
        switch self {
        case .ping: .ping
        case .ack: .ack
        case .pingRequest: .pingRequest
        case .indirectAck: .indirectAck
        case .nack: .nack
        case .update: .update
        case .updated: .updated
        case .pull: .pull
        case .state: .state
        case .hello: .hello
        case .helloReply: .helloReply
        case .form: .form
        case .refuse: .refuse
        case .exchangeRequest: .exchangeRequest
        case .exchangeReply: .exchangeReply
        }
    }

    fileprivate func encode(into buffer: inout ByteBuffer) {
        switch self {
        case .ping(let probe), .ack(let probe):
            buffer.appendInteger(probe.sequence)
            buffer.appendInteger(probe.hash)
        case .pingRequest(let sequence, let subject):
            buffer.appendInteger(sequence)
            buffer.appendNodeID(subject)
        case .indirectAck(let sequence), .nack(let sequence), .update(let sequence):
            buffer.appendInteger(sequence)
        case .updated(let number, let hash):
            buffer.appendInteger(number)
            buffer.appendInteger(hash)
        case .pull(let nonce, let hash, let sums):
            buffer.appendInteger(nonce)
            buffer.appendInteger(hash)
            buffer.append(UInt8(sums.count))
            for sum in sums { buffer.appendInteger(sum) }
        case .state(let nonce, let part, let parts, let hash):
            buffer.appendInteger(nonce)
            buffer.append(part)
            buffer.append(parts)
            buffer.appendInteger(hash)
        case .hello(let hello), .helloReply(let hello):
            buffer.appendInteger(hello.nonce)
            buffer.append((hello.joined ? 1 : 0) | (hello.seesReceiver ? 2 : 0))
            buffer.appendInteger(hello.hash)
            buffer.appendInteger(hello.seedListHash)
            buffer.appendShortText(hello.clusterName)
            buffer.appendShortText(hello.settings)
            buffer.appendInteger(UInt16(hello.record.encodedBytes))
            hello.record.encode(into: &buffer)
        case .form(let number), .exchangeRequest(let number), .exchangeReply(let number):
            buffer.appendInteger(number)
        case .refuse(let refusal):
            buffer.appendInteger(refusal.nonce)
            buffer.append(refusal.reason.rawValue)
            buffer.appendShortText(refusal.detail)
            buffer.appendNodeID(refusal.holder)
        }
    }

    fileprivate init(_ kind: Kind, reader: inout ByteReader) throws(MalformedBytes) {
        switch kind {
        case .ping: self = .ping(try GossipProbe(reader: &reader))
        case .ack: self = .ack(try GossipProbe(reader: &reader))
        case .pingRequest:
            self = .pingRequest(
                sequence: try reader.integer(),
                subject: try reader.nodeID()
            )
        case .indirectAck: self = .indirectAck(sequence: try reader.integer())
        case .nack: self = .nack(sequence: try reader.integer())
        case .update: self = .update(sequence: try reader.integer())
        case .updated: self = .updated(sequence: try reader.integer(), hash: try reader.integer())
        case .pull:
            let nonce: UInt32 = try reader.integer()
            let hash: UInt64 = try reader.integer()
            let count = Int(try reader.integer(UInt8.self))
            guard count == 0 || count == MemberTable.bucketCount else { throw MalformedBytes() }
            var sums: [UInt32] = []
            for _ in 0..<count { sums.append(try reader.integer()) }
            self = .pull(nonce: nonce, hash: hash, sums: sums)
        case .state:
            let nonce: UInt32 = try reader.integer()
            let part: UInt8 = try reader.integer()
            let parts: UInt8 = try reader.integer()
            guard parts <= 64, parts == 0 ? part == 0 : part < parts else { throw MalformedBytes() }
            self = .state(nonce: nonce, part: part, parts: parts, hash: try reader.integer())
        case .hello: self = .hello(try GossipHello(reader: &reader))
        case .helloReply: self = .helloReply(try GossipHello(reader: &reader))
        case .form: self = .form(generation: try reader.integer())
        case .refuse: self = .refuse(try GossipRefusal(reader: &reader))
        case .exchangeRequest: self = .exchangeRequest(hash: try reader.integer())
        case .exchangeReply: self = .exchangeReply(hash: try reader.integer())
        }
    }
}

extension GossipProbe {
    fileprivate init(reader: inout ByteReader) throws(MalformedBytes) {
        sequence = try reader.integer()
        hash = try reader.integer()
    }
}

extension GossipHello {
    fileprivate init(reader: inout ByteReader) throws(MalformedBytes) {
        nonce = try reader.integer()
        let flags: UInt8 = try reader.integer()
        joined = flags & 1 != 0
        seesReceiver = flags & 2 != 0
        hash = try reader.integer()
        seedListHash = try reader.integer()
        clusterName = try reader.shortText()
        settings = try reader.shortText()
        let length = Int(try reader.integer(UInt16.self))
        record = try MemberRecord(encoded: try reader.bytes(length))
        guard (1...64).contains(clusterName.utf8.count), settings.utf8.count <= 200 else { throw MalformedBytes() }
    }
}

extension GossipRefusal {
    fileprivate init(reader: inout ByteReader) throws(MalformedBytes) {
        nonce = try reader.integer()
        guard let reason = Reason(rawValue: try reader.integer()) else { throw MalformedBytes() }
        self.reason = reason
        detail = try reader.shortText()
        holder = try reader.nodeID()
        guard detail.utf8.count <= 200 else { throw MalformedBytes() }
    }
}

extension GossipEntry {
    private static let recordType: UInt8 = 1
    private static let suspicionType: UInt8 = 2

    func encode(into buffer: inout ByteBuffer) {
        switch self {
        case .record(let record, let ageSeconds):
            buffer.append(Self.recordType)
            buffer.appendInteger(UInt16(4 + record.encodedBytes))
            buffer.appendInteger(ageSeconds)
            record.encode(into: &buffer)
        case .suspicion(let subject, let generation, let incarnation, let accuser):
            buffer.append(Self.suspicionType)
            buffer.appendInteger(UInt16(44))
            buffer.appendNodeID(subject)
            buffer.appendInteger(generation)
            buffer.appendInteger(incarnation)
            buffer.appendNodeID(accuser)
        }
    }

    /// How many bytes `encode` writes.
    var encodedBytes: Int {
        switch self {
        case .record(let record, _): 3 + 4 + record.encodedBytes
        case .suspicion: 3 + 44
        }
    }

    /// Reads one entry; nil for a type of a later version, and for a record that is left out.
    fileprivate init?(
        reader: inout ByteReader,
        leavingOut isKnown: (NodeID, UInt64) -> Bool
    ) throws(MalformedBytes) {
        let type: UInt8 = try reader.integer()
        let length = Int(try reader.integer(UInt16.self))
        var content = ByteReader(try reader.bytes(length))
        switch type {
        case Self.recordType:
            let age: UInt32 = try content.integer()
            var record = content
            if isKnown(try record.nodeID(), MemberRecord.hash(ofEncoded: try content.rest())) { return nil }
            self = .record(try MemberRecord(encoded: try content.bytes(content.remaining)), ageSeconds: age)
        case Self.suspicionType:
            self = .suspicion(
                subject: try content.nodeID(),
                generation: try content.integer(),
                incarnation: try content.integer(),
                accuser: try content.nodeID()
            )
        default: return nil
        }
    }
}

extension MemberRecord {
    /// The most bytes of a record on the wire.
    static let encodedBytesMax =
        16 + 8 + 4 + 4 + 1 + 1 + (1 + nameBytesMax) + (1 + zoneBytesMax) + 4 + 3 * 19 + 8 + 2 + 8 + 1

    /// How many bytes `encoded` has.
    var encodedBytes: Int {
        func bytes(_ endpoint: Endpoint) -> Int {
            switch endpoint.address {
            case .v4: 1 + 4 + 2
            case .v6: 1 + 16 + 2
            }
        }
        return 16 + 8 + 4 + 4 + 1 + 1 + (1 + name.utf8.count) + (1 + zone.utf8.count) + 4 + bytes(client)
            + bytes(cluster) + bytes(admin) + 8 + 2 + 8 + 1
    }

    /// The record on the wire, and what its hash is taken of.
    package var encoded: [UInt8] {
        var buffer = ByteBuffer(capacity: 160)
        encode(into: &buffer)
        return buffer.array()
    }

    /// What the hash of a record is that has this encoding.
    static func hash(ofEncoded bytes: UnsafeRawBufferPointer) -> UInt64 { KeyHash.mix(KeyHash.hash(bytes)) }

    func encode(into buffer: inout ByteBuffer) {
        precondition(
            name.utf8.count <= Self.nameBytesMax && zone.utf8.count <= Self.zoneBytesMax,
            "name \(name) or zone \(zone) is too long"
        )
        buffer.appendNodeID(id)
        buffer.appendInteger(generation)
        buffer.appendInteger(incarnation)
        buffer.appendInteger(sequence)
        buffer.append(lifecycle.rawValue)
        buffer.append(liveness.rawValue)
        buffer.appendShortText(name)
        buffer.appendShortText(zone)
        buffer.appendInteger(weight)
        buffer.appendEndpoint(client)
        buffer.appendEndpoint(cluster)
        buffer.appendEndpoint(admin)
        buffer.appendInteger(configurationHash)
        buffer.appendInteger(protocolVersion)
        buffer.appendInteger(memoryBytes)
        buffer.append((sawThree ? 1 : 0) | (isDamped ? 2 : 0))
    }

    /// Reads a record; bytes after it are ignored.
    package init(encoded bytes: UnsafeRawBufferPointer) throws(MalformedBytes) {
        var reader = ByteReader(bytes)
        id = try reader.nodeID()
        generation = try reader.integer()
        incarnation = try reader.integer()
        sequence = try reader.integer()
        guard let lifecycle = Lifecycle(rawValue: try reader.integer()),
            let liveness = Liveness(rawValue: try reader.integer())
        else { throw MalformedBytes() }
        self.lifecycle = lifecycle
        self.liveness = liveness
        name = try reader.shortText()
        zone = try reader.shortText()
        weight = try reader.integer()
        client = try reader.endpoint()
        cluster = try reader.endpoint()
        admin = try reader.endpoint()
        configurationHash = try reader.integer()
        protocolVersion = try reader.integer()
        memoryBytes = try reader.integer()
        let flags: UInt8 = try reader.integer()
        sawThree = flags & 1 != 0
        isDamped = flags & 2 != 0
        guard name.utf8.count <= Self.nameBytesMax, zone.utf8.count <= Self.zoneBytesMax else { throw MalformedBytes() }
    }
}

extension ByteBuffer {
    fileprivate mutating func appendNodeID(_ id: NodeID) {
        appendInteger(id.high)
        appendInteger(id.low)
    }

    fileprivate mutating func appendEndpoint(_ endpoint: Endpoint) {
        switch endpoint.address {
        case .v4(let bits):
            append(UInt8(4))
            appendInteger(bits)
        case .v6(let high, let low):
            append(UInt8(6))
            appendInteger(high)
            appendInteger(low)
        }
        appendInteger(endpoint.port)
    }
}

extension ByteReader {
    fileprivate mutating func nodeID() throws(MalformedBytes) -> NodeID {
        NodeID(high: try integer(), low: try integer())
    }

    /// What is left, without reading it.
    fileprivate func rest() throws(MalformedBytes) -> UnsafeRawBufferPointer {
        var copy = self
        return try copy.bytes(remaining)
    }

    fileprivate mutating func endpoint() throws(MalformedBytes) -> Endpoint {
        switch try integer(UInt8.self) {
        case 4: Endpoint(.v4(try integer()), port: try integer())
        case 6: Endpoint(.v6(try integer(), try integer()), port: try integer())
        default: throw MalformedBytes()
        }
    }
}
