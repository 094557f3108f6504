package import ClusterCore
internal import Crypto
internal import Membership

// Sealing of connections between nodes.
//
// Each side draws a key pair for the connection (X25519, RFC 7748) and sends its public half in the clear, with the
// ids of the cluster keys that it has; whoever was called chooses one of them. What both then derive from the shared
// secret, the chosen cluster key and all bytes of the handshake, only holders of that cluster key can derive, and later
// nobody, since the key pairs are gone with the connection. The first record of either side proves that it could.
//
// In the clear, little-endian: "HL", version, number of key ids (1 byte), cluster tag (4), public key (32), key ids.
// Then records: length of what follows (4 bytes), sealed bytes, tag (16). The length is authenticated; the nonce is a
// counter of the direction.
//
// When another cluster key comes into use, a connection goes over to it without a pause: a record with the highest bit
// of its length set names the key, and what follows in that direction is sealed under a key that derives from the one
// before and that cluster key. So by the time an old key is removed no connection rests on it any more.

/// One side of a sealed connection: takes what came, gives what is to be sent.
package struct LinkSealer: Sendable {
    /// Who called whom.
    package enum Role: Hashable, Sendable {
        case caller
        case called
    }

    /// The most plain bytes of a record.
    package static let recordBytesMax = 64 * 1024
    private static let version: UInt8 = 1
    private static let prefaceBytes = 40
    private static let tagBytes = 16

    private let role: Role
    private var ring: KeyRing
    private let clusterName: [UInt8]
    private let clusterTag: UInt32
    private let secret: Curve25519.KeyAgreement.PrivateKey
    private var preface: [UInt8] = []
    private var keys: Keys?

    private struct Keys: Sendable {
        var sending: Direction
        var receiving: Direction
    }

    private struct Direction: Sendable {
        /// The cluster key that it rests on.
        var id: ClusterKeyID
        var key: SymmetricKey
        var records: UInt64 = 0

        /// Goes over to another cluster key.
        mutating func change(to next: ClusterKey, _ clusterName: [UInt8]) {
            let material = next.material + key.withUnsafeBytes { Array($0) }
            key = AEAD.derive(from: material, salt: [], purpose: "henge link 1 next", clusterName)
            id = next.id
            records = 0
        }
    }

    /// Marks a record that names the cluster key of those that follow.
    private static let changeMark: UInt32 = 1 << 31

    /// - Parameter secret: 32 random bytes, drawn for this connection alone.
    package init(_ role: Role, ring: KeyRing, clusterName: String, secret: [UInt8]) {
        guard let key = try? Curve25519.KeyAgreement.PrivateKey(rawRepresentation: secret) else {
            preconditionFailure("a secret of \(secret.count) bytes")
        }
        self.role = role
        self.ring = ring
        self.clusterName = Array(clusterName.utf8)
        self.clusterTag = UInt32(truncatingIfNeeded: GossipDatagram.tag(ofCluster: clusterName))
        self.secret = key
        if role == .caller { preface = makePreface(ring.ids) }
    }

    /// Whether bytes look like the start of a sealed connection, to whoever has no key.
    package static func isSealed(_ bytes: UnsafeRawBufferPointer) -> Bool {
        bytes.count >= 3 && bytes[0] == UInt8(ascii: "H") && bytes[1] == UInt8(ascii: "L") && bytes[2] == version
    }

    /// What a caller sends first.
    package var greeting: [UInt8] { role == .caller ? preface : [] }

    /// Whether the other side's handshake is in, so that `seal` may be called.
    package var isEstablished: Bool { keys != nil }

    /// The cluster key that the other side has shown to have last; nil before the connection is established.
    package var keyID: ClusterKeyID? { keys?.receiving.id }

    /// Follows the key ring: with another key in use, says so in `output` and goes over to it.
    package mutating func adopt(_ ring: KeyRing, into output: inout ByteBuffer) {
        self.ring = ring
        guard let keys, keys.sending.id != ring.primary else { return }
        withUnsafeBytes(of: ring.primary.value.littleEndian) { appendRecord($0, mark: Self.changeMark, to: &output) }
        self.keys?.sending.change(to: ring.primaryKey, clusterName)
    }

    private func makePreface(_ ids: [ClusterKeyID]) -> [UInt8] {
        var buffer = ByteBuffer(capacity: 64)
        buffer.append(UInt8(ascii: "H"))
        buffer.append(UInt8(ascii: "L"))
        buffer.append(Self.version)
        buffer.append(UInt8(ids.count))
        buffer.appendInteger(clusterTag)
        buffer.append(Array(secret.publicKey.rawRepresentation))
        for id in ids { buffer.appendInteger(id.value) }
        return buffer.array()
    }

    // MARK: - What comes in

    /// Takes what is complete at the start of `input`: opens records into `plain`; a handshake's answer goes to
    /// `output`. Throws where the other side is no member of the cluster; the connection is then of no use.
    package mutating func open(
        _ input: inout ByteBuffer,
        into plain: inout ByteBuffer,
        answer output: inout ByteBuffer
    ) throws(LinkSealingError) {
        var consumed = 0
        defer { input.removeFirst(consumed) }
        if keys == nil {
            guard let length = try shakeHands(input.bytes, answer: &output) else { return }
            consumed = length
        }
        while let length = try openRecord(UnsafeRawBufferPointer(rebasing: input.bytes[consumed...]), into: &plain) {
            consumed += length
        }
    }

    /// Reads the other side's part of the handshake; nil where it is not complete. Returns its length.
    private mutating func shakeHands(
        _ bytes: UnsafeRawBufferPointer,
        answer output: inout ByteBuffer
    ) throws(LinkSealingError) -> Int? {
        if bytes.count >= 2, bytes[0] != UInt8(ascii: "H") || bytes[1] != UInt8(ascii: "L") {
            throw LinkSealingError(.plain)
        }
        guard bytes.count >= Self.prefaceBytes else { return nil }
        let count = Int(bytes[3])
        guard bytes[2] == Self.version, (1...KeyRing.keysMax).contains(count), role == .called || count == 1 else {
            throw LinkSealingError(.malformed)
        }
        guard bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self).littleEndian == clusterTag else {
            throw LinkSealingError(.foreignCluster)
        }
        let length = Self.prefaceBytes + 4 * count
        guard bytes.count >= length else { return nil }
        let offered = (0..<count).map { index in
            let offset = Self.prefaceBytes + 4 * index
            return ClusterKeyID(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self).littleEndian)
        }
        guard let id = offered.first(where: { ring[$0] != nil }), let key = ring[id] else {
            throw LinkSealingError(.unknownKey)
        }
        if role == .called {
            preface = makePreface([id])
            output.append(preface)
        }
        let other = Array(bytes[..<length])
        guard let publicKey = try? Curve25519.KeyAgreement.PublicKey(rawRepresentation: other[8..<40]),
            let shared = try? secret.sharedSecretFromKeyAgreement(with: publicKey)
        else { throw LinkSealingError(.malformed) }
        let transcript = role == .caller ? preface + other : other + preface
        let material = key.material + shared.withUnsafeBytes { Array($0) }
        func derived(_ direction: String) -> SymmetricKey {
            let salt = Array(SHA256.hash(data: transcript))
            return AEAD.derive(from: material, salt: salt, purpose: "henge link 1 " + direction, clusterName)
        }
        let calling = Direction(id: id, key: derived("calling"))
        let called = Direction(id: id, key: derived("called"))
        keys =
            role == .caller
            ? Keys(sending: calling, receiving: called) : Keys(sending: called, receiving: calling)
        return length
    }

    /// Opens one record; nil where none is complete. Returns its length.
    private mutating func openRecord(
        _ bytes: UnsafeRawBufferPointer,
        into plain: inout ByteBuffer
    ) throws(LinkSealingError) -> Int? {
        guard bytes.count >= 4, var keys else { return nil }
        let word = bytes.loadUnaligned(as: UInt32.self).littleEndian
        let length = Int(word & ~Self.changeMark)
        guard (Self.tagBytes...(Self.recordBytesMax + Self.tagBytes)).contains(length) else {
            throw LinkSealingError(.malformed)
        }
        guard bytes.count >= 4 + length else { return nil }
        keys.receiving.records += 1
        let record = UnsafeRawBufferPointer(rebasing: bytes[..<(4 + length)])
        guard let opened = AEAD.open(record, after: 4, with: keys.receiving.key, keys.receiving.records, []) else {
            throw LinkSealingError(.forged)
        }
        if word & Self.changeMark == 0 {
            plain.append(opened)
        } else {
            guard opened.count == 4 else { throw LinkSealingError(.malformed) }
            let id = opened.reversed().reduce(0) { $0 << 8 | UInt32($1) }
            guard let next = ring[ClusterKeyID(id)] else { throw LinkSealingError(.unknownKey) }
            keys.receiving.change(to: next, clusterName)
        }
        self.keys = keys
        return 4 + length
    }

    // MARK: - What goes out

    /// Seals bytes into as many records as they need.
    package mutating func seal(_ plain: UnsafeRawBufferPointer, into output: inout ByteBuffer) {
        var offset = 0
        while offset < plain.count {
            let end = min(offset + Self.recordBytesMax, plain.count)
            appendRecord(UnsafeRawBufferPointer(rebasing: plain[offset..<end]), mark: 0, to: &output)
            offset = end
        }
    }

    private mutating func appendRecord(_ plain: UnsafeRawBufferPointer, mark: UInt32, to output: inout ByteBuffer) {
        guard var sending = keys?.sending else {
            preconditionFailure("a connection seals nothing before the handshake")
        }
        sending.records += 1
        keys?.sending = sending
        var record: [UInt8] = []
        record.reserveCapacity(4 + plain.count + Self.tagBytes)
        let length = UInt32(plain.count + Self.tagBytes) | mark
        withUnsafeBytes(of: length.littleEndian) { record.append(contentsOf: $0) }
        AEAD.seal(
            Array(plain),
            with: sending.key,
            counter: sending.records,
            authenticating: record,
            into: &record
        )
        output.append(record)
    }
}

/// Why a connection was refused.
package struct LinkSealingError: Error, Hashable {
    package var cause: SealingRefusal

    package init(_ cause: SealingRefusal) {
        self.cause = cause
    }
}
