package import ClusterCore
import Membership
import PeerProtocol
import Replication
package import Sealing

// The key ring of the cluster, as this node has it.
//
// A change that an operator makes at one node goes to all: whoever hears of a ring that says more than its own merges
// it, has it stored, and only then uses it and tells the others, so that nobody is counted as having a key that a crash
// takes from it. Two nodes exchange rings whenever a connection between them begins.

/// What an operator does to the key ring.
package enum KeyRingChange: Hashable, Sendable {
    case install(ClusterKey)
    /// `isForced`: also where living members lack the key, which then lose touch until they have it.
    case use(ClusterKeyID, isForced: Bool)
    /// `isForced`: also where members have nothing else, which then do not find back.
    case remove(ClusterKeyID, isForced: Bool)
}

/// Who has which keys.
package struct KeyRingView: Hashable, Sendable {
    package struct Member: Hashable, Sendable {
        package var name: String
        package var isLiving: Bool
        /// The keys that it said it has, the one that it seals with first; nil where it has not said so far.
        package var keys: [ClusterKeyID]?
    }

    /// This node's keys, the one that it seals with first.
    package var keys: [ClusterKeyID]
    /// By name, this node included.
    package var members: [Member]

    /// The members that have not said that they have that key.
    package func lacking(_ key: ClusterKeyID) -> [Member] {
        members.filter { $0.keys?.contains(key) != true }
    }
}

extension ControlPlane {
    /// Gives the node its keys, before it runs.
    package mutating func begin(with ring: KeyRing) {
        precondition(keyRing == nil, "a node begins with one key ring")
        keyRing = ring
    }

    /// The keys and who has them; nil where the cluster has none.
    package func keyRingView() -> KeyRingView? {
        guard let keyRing else { return nil }
        var members: [KeyRingView.Member] = []
        for index in peers.indices where index > 0 && !peers[index].isGone {
            guard let record = peers[index].record, !record.isTombstone else { continue }
            let isOwn = index == Int(Self.own.value)
            members.append(
                KeyRingView.Member(
                    name: record.name,
                    isLiving: isOwn || record.isLiving,
                    keys: isOwn ? keyRing.ids : peers[index].keys
                )
            )
        }
        members.sort { $0.name < $1.name }
        return KeyRingView(keys: keyRing.ids, members: members)
    }

    /// Carries out an operator's change, here at first.
    package mutating func change(_ change: KeyRingChange, effects: inout [ControlEffect]) -> OrderOutcome {
        guard let view = keyRingView(), var ring = storingRing ?? keyRing else {
            return .refused("the cluster has no key: start all its nodes with --cluster-key-file")
        }
        do throws(KeyRingError) {
            switch change {
            case .install(let key): try ring.install(key)
            case .use(let id, let isForced):
                let lacking = view.lacking(id).filter(\.isLiving)
                if ring[id] != nil, !lacking.isEmpty, !isForced {
                    return .refused("\(Self.names(lacking)) do not have key \(id) yet: wait, or use it by force")
                }
                try ring.use(id)
            case .remove(let id, let isForced):
                let lacking = view.members.filter { $0.keys?.first != ring.primary }
                if id != ring.primary, ring[id] != nil, !lacking.isEmpty, !isForced {
                    return .refused(
                        "\(Self.names(lacking)) do not seal with key \(ring.primary) yet and might not find back: wait, "
                            + "forget who will not return, or remove the key by force"
                    )
                }
                try ring.remove(id)
            }
        } catch {
            return .refused("\(error)")
        }
        store(ring, &effects)
        return .accepted
    }

    private static func names(_ members: [KeyRingView.Member]) -> String {
        members.map { $0.isLiving ? $0.name : $0.name + " (down)" }.joined(separator: ", ")
    }

    /// A member's ring.
    mutating func receive(
        _ ring: KeyRing,
        from peer: PeerNumber,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) {
        // Without a key there is nothing that keeps the frame from other eyes, and no member sends it.
        guard let own = keyRing else { return }
        peers[Int(peer.value)].keys = ring.ids
        var merged = storingRing ?? own
        merged.merge(ring)
        if merged != storingRing ?? own { store(merged, &effects) }
        var answer = own
        answer.merge(ring)
        if answer != ring { outbox.send(.keyRing(own), to: peer) }
    }

    private mutating func store(_ ring: KeyRing, _ effects: inout [ControlEffect]) {
        guard ring != storingRing ?? keyRing else { return }
        storingRing = ring
        effects.append(.storeKeys(ring))
    }

    /// The ring is on disk: it is used from now on, and the others hear of it.
    package mutating func stored(
        _ ring: KeyRing,
        now: Now,
        outbox: inout Outbox,
        effects: inout [ControlEffect]
    ) {
        if storingRing == ring { storingRing = nil }
        guard keyRing != ring else { return }
        keyRing = ring
        effects.append(.useKeys(ring))
        let ids = ring.ids.map(\.description).joined(separator: " ")
        follow([.event(.keysChanged(ids: ids))], now, &outbox, &effects)
        for index in peers.indices where index > 1 { sendKeys(to: index, &outbox) }
    }

    /// Tells a member this node's keys.
    func sendKeys(to index: Int, _ outbox: inout Outbox) {
        guard let keyRing, peers[index].isControlConnected, !peers[index].isGone else { return }
        outbox.send(.keyRing(keyRing), to: PeerNumber(UInt32(index)))
    }
}
