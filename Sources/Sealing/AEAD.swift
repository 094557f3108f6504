internal import ClusterCore
internal import Crypto

/// AES-256-GCM and HKDF with SHA-256, in the forms that sealing uses.
enum AEAD {
    /// A key for one purpose of one cluster.
    static func derive(from secret: [UInt8], salt: [UInt8], purpose: String, _ context: [UInt8]) -> SymmetricKey {
        HKDF<SHA256>.deriveKey(
            inputKeyMaterial: SymmetricKey(data: secret),
            salt: salt,
            info: Array(purpose.utf8) + [0] + context,
            outputByteCount: 32
        )
    }

    /// The nonce of a counter: 4 zero bytes, then the counter.
    private static func nonce(_ counter: UInt64) -> AES.GCM.Nonce {
        var bytes: [UInt8] = [0, 0, 0, 0]
        withUnsafeBytes(of: counter.littleEndian) { bytes.append(contentsOf: $0) }
        guard let nonce = try? AES.GCM.Nonce(data: bytes) else { preconditionFailure("a nonce has 12 bytes") }
        return nonce
    }

    /// Appends the sealed body and its tag.
    static func seal(
        _ body: [UInt8],
        with key: SymmetricKey,
        counter: UInt64,
        authenticating context: [UInt8],
        into result: inout [UInt8]
    ) {
        guard let box = try? AES.GCM.seal(body, using: key, nonce: nonce(counter), authenticating: context) else {
            preconditionFailure("sealing fails for no body of this size")
        }
        result.append(contentsOf: box.ciphertext)
        result.append(contentsOf: box.tag)
    }

    /// Opens what comes after `offset` bytes, which are authenticated with `context` behind them; nil where it is not
    /// authentic.
    static func open(
        _ bytes: UnsafeRawBufferPointer,
        after offset: Int,
        with key: SymmetricKey,
        _ counter: UInt64,
        _ context: [UInt8]
    ) -> [UInt8]? {
        guard bytes.count >= offset + 16 else { return nil }
        let body = Array(bytes[offset..<(bytes.count - 16)])
        let tag = Array(bytes[(bytes.count - 16)...])
        guard let box = try? AES.GCM.SealedBox(nonce: nonce(counter), ciphertext: body, tag: tag),
            let opened = try? AES.GCM.open(box, using: key, authenticating: Array(bytes[..<offset]) + context)
        else { return nil }
        return Array(opened)
    }
}
