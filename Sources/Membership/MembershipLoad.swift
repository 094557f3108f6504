import ClusterCore

/// How much a node keeps about others: what must stay bounded by the number of members.
package struct MembershipLoad: Hashable, Sendable {
    /// Members and tombstones, without the node itself.
    package var records: Int
    /// Members about which news travels by gossip.
    package var gossipQueued: Int
    /// Pieces of it, of the member of which there are the most.
    package var gossipPiecesMax: Int
    /// Members about which news waits for one peer, at the peer for which most waits.
    package var outboxMax: Int
    package var probes: Int
    package var relays: Int
    package var contacts: Int
}

extension Membership {
    /// Scans all members.
    package var load: MembershipLoad {
        var pieces: [NodeID: Int] = [:]
        for item in gossip { pieces[item.id, default: 0] += 1 }
        return MembershipLoad(
            records: table.peers.count,
            gossipQueued: pieces.count,
            gossipPiecesMax: pieces.values.max() ?? 0,
            outboxMax: table.peers.reduce(0) { max($0, $1.outbox?.ids.count ?? 0) },
            probes: probes.count,
            relays: relays.count,
            contacts: contacts.contacts.count
        )
    }
}
