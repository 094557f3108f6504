private import Foundation
package import Sealing

/// A cluster key as people and files write it: its 32 bytes in base64.
package enum ClusterKeyText {
    /// The longest file that is read for a key, in bytes.
    package static let fileBytesMax = 1024

    package static func text(of key: ClusterKey) -> String { Data(key.material).base64EncodedString() }

    /// Reads a key; nil for what is none.
    package static func key(_ text: String) -> ClusterKey? {
        Data(base64Encoded: text.trimmingCharacters(in: .whitespacesAndNewlines)).flatMap {
            ClusterKey(material: Array($0))
        }
    }

    /// The key in a file's text; the message names the file.
    package static func read(_ name: String, _ text: String) throws(SettingsError) -> ClusterKey {
        guard let key = key(text) else {
            throw SettingsError(
                "\(name) holds no cluster key, which is 32 bytes in base64: 'henge keyring generate' makes one"
            )
        }
        return key
    }
}
