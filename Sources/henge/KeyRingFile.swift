import Foundation
import HengeCommands
import Sealing

/// The cluster keys in a node's data directory; readable by its user only.
enum KeyRingFile {
    private static let name = "keyring"

    static func save(_ encoded: [UInt8], in directory: String) throws {
        try SyncedFile.replace(name, in: directory, with: Data(encoded), mode: 0o600)
    }

    /// The keys of an earlier start; nil where there are none.
    static func load(from directory: String) throws(CommandError) -> KeyRing? {
        let path = directory + "/" + name
        guard FileManager.default.fileExists(atPath: path) else { return nil }
        guard let data = FileManager.default.contents(atPath: path),
            let ring = try? Array(data).withUnsafeBytes({ try KeyRing(encoded: $0) })
        else {
            throw CommandError(
                .usage,
                "cannot read the key ring in \(path); restore it, or remove it to start with --cluster-key-file"
            )
        }
        return ring
    }
}
