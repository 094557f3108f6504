package import ClusterCore

// The cluster keys that a node has.
//
// The problem: a key that leaked, or that somebody who left the team knows, must be replaced while the cluster runs.
// All nodes cannot change at the same instant, so for a while there are two keys, and a node that is away for that
// while must find back.
//
// The idea: three steps, each spread to all before the next. *Install* a key: every node opens what is sealed with it.
// *Use* it: every node seals with it. *Remove* the old one. The ring is a value that merges without regard to order
// (keys by union, removals over keys, the key in use by the highest stamp), so nodes pass on whole rings whenever they
// meet and end up with the same, also when two operators act on both sides of a split.

/// The keys of a node: which it opens with, and the one that it seals with.
package struct KeyRing: Hashable, Sendable {
    /// The most keys at a time; more are not installed.
    package static let keysMax = 8
    /// The most removals that are remembered; beyond it the one with the lowest stamp goes.
    package static let removalsMax = 64

    /// By id. Never empty, at most `keysMax`.
    package private(set) var keys: [ClusterKey]
    /// The key that seals. It is one of `keys`.
    package private(set) var primary: ClusterKeyID
    /// When the primary was chosen, in steps of this ring.
    private(set) var primaryStamp: UInt64
    /// Keys that were removed, by id. None of them is in `keys`.
    private(set) var removals: [Removal]

    /// The word that a key is not to be trusted any more.
    struct Removal: Hashable, Sendable {
        var id: ClusterKeyID
        /// When, in steps of the ring.
        var stamp: UInt64
    }

    /// A ring with one key.
    package init(_ key: ClusterKey) {
        keys = [key]
        primary = key.id
        primaryStamp = 0
        removals = []
    }

    package subscript(id: ClusterKeyID) -> ClusterKey? { keys.first { $0.id == id } }

    /// The key that seals.
    package var primaryKey: ClusterKey {
        guard let key = self[primary] else { preconditionFailure("the primary key is not in the ring") }
        return key
    }

    /// The names of the keys, the one that seals first, the others by id.
    package var ids: [ClusterKeyID] { [primary] + keys.map(\.id).filter { $0 != primary } }

    /// Whether that key was here once and was removed.
    package func wasRemoved(_ id: ClusterKeyID) -> Bool { removals.contains { $0.id == id } }

    // MARK: - What an operator does

    /// Adds a key to open with. Installing a key that is there changes nothing.
    package mutating func install(_ key: ClusterKey) throws(KeyRingError) {
        if self[key.id] != nil { return }
        guard !wasRemoved(key.id) else { throw .wasRemoved(key.id) }
        guard keys.count < Self.keysMax else { throw .isFull }
        keys.append(key)
        keys.sort { $0.id < $1.id }
    }

    /// Seals with that key from now on.
    package mutating func use(_ id: ClusterKeyID) throws(KeyRingError) {
        guard self[id] != nil else { throw .isUnknown(id) }
        guard primary != id else { return }
        primaryStamp = nextStamp
        primary = id
    }

    /// Trusts that key no more.
    package mutating func remove(_ id: ClusterKeyID) throws(KeyRingError) {
        guard self[id] != nil else { throw .isUnknown(id) }
        guard id != primary else { throw .isPrimary(id) }
        removals.append(Removal(id: id, stamp: nextStamp))
        normalize()
    }

    private var nextStamp: UInt64 {
        removals.reduce(primaryStamp) { max($0, $1.stamp) } + 1
    }

    // MARK: - Merging

    /// What this ring and another one say together. Commutes, associates, and is idempotent as long as no limit is hit.
    package mutating func merge(_ other: KeyRing) {
        if (other.primaryStamp, other.primary) > (primaryStamp, primary) {
            primaryStamp = other.primaryStamp
            primary = other.primary
        }
        for key in other.keys where self[key.id] == nil { keys.append(key) }
        for removal in other.removals {
            if let index = removals.firstIndex(where: { $0.id == removal.id }) {
                removals[index].stamp = max(removals[index].stamp, removal.stamp)
            } else {
                removals.append(removal)
            }
        }
        normalize()
    }

    /// A key that one side removed while the other began to use it stays: without it the sides would not meet again.
    private mutating func normalize() {
        removals.removeAll { $0.id == primary }
        removals.sort { ($0.stamp, $0.id) > ($1.stamp, $1.id) }
        if removals.count > Self.removalsMax { removals.removeLast(removals.count - Self.removalsMax) }
        removals.sort { $0.id < $1.id }
        keys.removeAll { key in removals.contains { $0.id == key.id } }
        keys.sort { $0.id < $1.id }
        while keys.count > Self.keysMax, let index = keys.lastIndex(where: { $0.id != primary }) {
            keys.remove(at: index)
        }
    }
}

/// Why a change of the key ring is refused.
package enum KeyRingError: Error, Hashable {
    case isUnknown(ClusterKeyID)
    case isPrimary(ClusterKeyID)
    case wasRemoved(ClusterKeyID)
    case isFull
}

extension KeyRingError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .isUnknown(let id): "no key \(id) is in the key ring"
        case .isPrimary(let id): "key \(id) is the one in use: use another first"
        case .wasRemoved(let id): "key \(id) was removed once and is not trusted again: generate a new one"
        case .isFull: "the key ring holds \(KeyRing.keysMax) keys, the most: remove one first"
        }
    }
}

// MARK: - Bytes

extension KeyRing {
    /// The most bytes of `encoded`.
    package static let encodedBytesMax = 1 + 4 + 8 + 1 + keysMax * ClusterKey.bytes + 1 + removalsMax * 12

    /// For the disk and for members: version, primary, stamp, keys, removals. It holds the secrets.
    package var encoded: [UInt8] {
        var buffer = ByteBuffer(capacity: 256)
        buffer.append(1)
        buffer.appendInteger(primary.value)
        buffer.appendInteger(primaryStamp)
        buffer.append(UInt8(keys.count))
        for key in keys { buffer.append(key.material) }
        buffer.append(UInt8(removals.count))
        for removal in removals {
            buffer.appendInteger(removal.id.value)
            buffer.appendInteger(removal.stamp)
        }
        return buffer.array()
    }

    /// Reads what `encoded` wrote.
    package init(encoded bytes: UnsafeRawBufferPointer) throws(MalformedBytes) {
        var reader = ByteReader(bytes)
        guard try reader.integer(UInt8.self) == 1 else { throw MalformedBytes() }
        primary = ClusterKeyID(try reader.integer())
        primaryStamp = try reader.integer()
        keys = []
        let count = Int(try reader.integer(UInt8.self))
        guard (1...Self.keysMax).contains(count) else { throw MalformedBytes() }
        for _ in 0..<count {
            guard let key = ClusterKey(material: Array(try reader.bytes(ClusterKey.bytes))) else {
                throw MalformedBytes()
            }
            keys.append(key)
        }
        removals = []
        let removed = Int(try reader.integer(UInt8.self))
        guard removed <= Self.removalsMax else { throw MalformedBytes() }
        for _ in 0..<removed {
            removals.append(Removal(id: ClusterKeyID(try reader.integer()), stamp: try reader.integer()))
        }
        let ids = Set(keys.map(\.id))
        guard reader.remaining == 0, ids.count == keys.count, ids.contains(primary),
            Set(removals.map(\.id)).count == removals.count, removals.allSatisfy({ !ids.contains($0.id) }),
            // A stamp counts steps; one that leaves no room for another is nobody's.
            removals.allSatisfy({ $0.stamp < 1 << 62 }), primaryStamp < 1 << 62
        else { throw MalformedBytes() }
        normalize()
    }
}
