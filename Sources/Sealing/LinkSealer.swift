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
    private let ring: KeyRing
    private let clusterName: [UInt8]
    private let clusterTag: UInt32
    private let secret: Curve25519.KeyAgreement.PrivateKey
    private var preface: [UInt8] = []
    private var keys: Keys?

    private struct Keys: Sendable {
        var id: ClusterKeyID
        var sending: SymmetricKey
        var receiving: SymmetricKey
        var sent: UInt64 = 0
        var received: UInt64 = 0
    }

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

    /// The cluster key that the connection rests on; nil before it is established.
    package var keyID: ClusterKeyID? { keys?.id }

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
        let calling = derived("calling")
        let called = derived("called")
        keys =
            role == .caller
            ? Keys(id: id, sending: calling, receiving: called) : Keys(id: id, sending: called, receiving: calling)
        return length
    }

    /// Opens one record; nil where none is complete. Returns its length.
    private mutating func openRecord(
        _ bytes: UnsafeRawBufferPointer,
        into plain: inout ByteBuffer
    ) throws(LinkSealingError) -> Int? {
        guard bytes.count >= 4, var keys else { return nil }
        let length = Int(bytes.loadUnaligned(as: UInt32.self).littleEndian)
        guard (Self.tagBytes...(Self.recordBytesMax + Self.tagBytes)).contains(length) else {
            throw LinkSealingError(.malformed)
        }
        guard bytes.count >= 4 + length else { return nil }
        keys.received += 1
        let record = UnsafeRawBufferPointer(rebasing: bytes[..<(4 + length)])
        guard let opened = AEAD.open(record, after: 4, with: keys.receiving, keys.received, []) else {
            throw LinkSealingError(.forged)
        }
        plain.append(opened)
        self.keys = keys
        return 4 + length
    }

    // MARK: - What goes out

    /// Seals bytes into as many records as they need.
    package mutating func seal(_ plain: UnsafeRawBufferPointer, into output: inout ByteBuffer) {
        guard var keys else { preconditionFailure("a connection seals nothing before the handshake") }
        var offset = 0
        while offset < plain.count {
            let end = min(offset + Self.recordBytesMax, plain.count)
            keys.sent += 1
            var record: [UInt8] = []
            record.reserveCapacity(4 + end - offset + Self.tagBytes)
            withUnsafeBytes(of: UInt32(end - offset + Self.tagBytes).littleEndian) { record.append(contentsOf: $0) }
            AEAD.seal(
                Array(plain[offset..<end]),
                with: keys.sending,
                counter: keys.sent,
                authenticating: record,
                into: &record
            )
            output.append(record)
            offset = end
        }
        self.keys = keys
    }
}

/// Why a connection was refused.
package struct LinkSealingError: Error, Hashable {
    package var cause: SealingRefusal

    package init(_ cause: SealingRefusal) {
        self.cause = cause
    }
}
