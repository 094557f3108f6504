internal import Crypto

/// A secret that the nodes of a cluster share: whoever has it is one of them.
///
/// It seals nothing itself. The keys of packets and connections are derived from it (HKDF, RFC 5869).
package struct ClusterKey: Hashable, Sendable {
    /// The length of a key.
    package static let bytes = 32

    package let material: [UInt8]
    /// By what people and packets call the key: the start of a hash of it, which tells nothing about it.
    package let id: ClusterKeyID

    /// Nil where there are not `bytes` bytes.
    package init?(material: [UInt8]) {
        guard material.count == Self.bytes else { return nil }
        self.material = material
        var hash = SHA256()
        hash.update(data: Array("henge cluster key".utf8))
        hash.update(data: material)
        var reading = Array(hash.finalize().prefix(4))[...]
        var value: UInt32 = 0
        while let byte = reading.popFirst() { value = value << 8 | UInt32(byte) }
        id = ClusterKeyID(value)
    }

    /// Draws a new key.
    package init(using random: inout some RandomNumberGenerator) {
        var material: [UInt8] = []
        while material.count < Self.bytes {
            let word: UInt64 = random.next()
            withUnsafeBytes(of: word) { material.append(contentsOf: $0) }
        }
        guard let key = ClusterKey(material: material) else { preconditionFailure("a key of the wrong length") }
        self = key
    }
}

extension ClusterKey: CustomStringConvertible {
    /// The id; the material is in no text.
    package var description: String { id.description }
}

/// The name of a cluster key.
package struct ClusterKeyID: Hashable, Comparable, Sendable {
    package let value: UInt32

    package init(_ value: UInt32) {
        self.value = value
    }

    /// Reads what `description` writes.
    package init?(_ text: String) {
        guard text.utf8.count == 8, let value = UInt32(text, radix: 16), text.first != "+" else { return nil }
        self.value = value
    }

    package static func < (left: ClusterKeyID, right: ClusterKeyID) -> Bool { left.value < right.value }
}

extension ClusterKeyID: CustomStringConvertible {
    /// 8 lower-case hexadecimal digits.
    package var description: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }
}
