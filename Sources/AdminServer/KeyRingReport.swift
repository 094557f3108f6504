private import Foundation

/// The cluster's keys and who has them: the answer to `GET /v1/keyring` and to its changes. No key's material is in it.
package struct KeyRingReport: Codable, Hashable, Sendable {
    package struct Member: Codable, Hashable, Sendable {
        package var name: String
        /// Alive or suspect; what is down cannot be told anything.
        package var living: Bool
        /// The keys that it has, the one that it seals with first; nil where it has not said so since this node started.
        package var keys: [String]?

        package init(name: String, living: Bool, keys: [String]?) {
            self.name = name
            self.living = living
            self.keys = keys
        }
    }

    /// The name of the node that answers.
    package var node: String
    /// The ids of its keys, the one that it seals with first.
    package var keys: [String]
    /// By name, the answering node included.
    package var members: [Member]

    package init(node: String, keys: [String], members: [Member]) {
        self.node = node
        self.keys = keys
        self.members = members
    }

    /// The names of members that do not have a key as far as is known.
    package func lacking(_ key: String, livingOnly: Bool) -> [String] {
        members.filter { $0.keys?.contains(key) != true && ($0.living || !livingOnly) }.map(\.name)
    }

    /// The names of members that do not seal with a key as far as is known.
    package func sealingOtherwise(than key: String, livingOnly: Bool) -> [String] {
        members.filter { $0.keys?.first != key && ($0.living || !livingOnly) }.map(\.name)
    }
}

/// What an administrator does to the keys: `install` with the key's base64, or without one to have the node draw it;
/// `use` and `remove` with a key's id.
package enum KeyRingRequest: Hashable, Sendable {
    case install(material: String?)
    case use(id: String, force: Bool)
    case remove(id: String, force: Bool)
}
