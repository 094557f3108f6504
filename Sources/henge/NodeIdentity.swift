import ClusterCore
import Foundation
import HengeCommands

/// What a node keeps in its data directory: who it is, how often it has started, and whom it knew.
///
/// The generation is raised and on disk before the first packet leaves, so that whatever an earlier start has said is
/// outranked. The file is replaced as a whole: written beside, synced, renamed.
struct NodeIdentity: Codable {
    var id: NodeID
    var generation: UInt64
    /// The cluster has had three members (partition policy `auto`).
    var sawThree: Bool
    /// Cluster endpoints of the members known last.
    var peers: [String]

    private static let fileName = "node.json"

    /// Reads the directory's identity, or makes one, with the next generation, and syncs it. Throws a line for a person
    /// where the directory cannot be used or another process uses it.
    static func begin(in directory: String) throws(CommandError) -> NodeIdentity {
        do {
            try FileManager.default.createDirectory(
                atPath: directory,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700]
            )
        } catch {
            throw CommandError(
                .usage,
                "cannot create the data directory \(directory): \(error.localizedDescription); choose another with --data-dir"
            )
        }
        try lock(directory)
        let path = directory + "/" + fileName
        var identity: NodeIdentity
        if FileManager.default.fileExists(atPath: path) {
            guard let data = FileManager.default.contents(atPath: path),
                let known = try? JSONDecoder().decode(NodeIdentity.self, from: data)
            else {
                throw CommandError(
                    .usage,
                    "cannot read the node's identity in \(path); restore it, or remove it to start as a new node"
                )
            }
            identity = known
        } else {
            var random = SystemRandomNumberGenerator()
            identity = NodeIdentity(id: NodeID(using: &random), generation: 0, sawThree: false, peers: [])
        }
        let milliseconds = UInt64(max(0, Date().timeIntervalSince1970 * 1000))
        identity.generation = max(identity.generation + 1, milliseconds)
        do {
            try identity.save(in: directory)
        } catch {
            throw CommandError(.usage, "cannot write \(path): \(error.localizedDescription)")
        }
        return identity
    }

    /// Writes the identity and syncs file and directory.
    func save(in directory: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        try SyncedFile.replace(Self.fileName, in: directory, with: encoder.encode(self))
    }

    /// Held until the process ends: two processes with one identity would be two nodes with one name.
    private static func lock(_ directory: String) throws(CommandError) {
        let path = directory + "/lock"
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw CommandError(.usage, "cannot write \(path): \(String(cString: strerror(errno)))")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            throw CommandError(
                .usage,
                "the data directory \(directory) is in use by another henge; give each node its own with --data-dir"
            )
        }
    }
}
