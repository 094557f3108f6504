package import ClusterCore
package import PeerProtocol
package import Replication

/// What the control plane publishes and every worker reads: who is there, who holds each slice, who should have it.
///
/// Immutable: a change is a new value. Being outdated costs a hop, never a wrong answer, since the holder itself
/// checks every request.
package final class Topology: Sendable {
    package struct Peer: Hashable, Sendable {
        package var number: PeerNumber
        package var reference: MemberReference
        package var name: String
        package var cluster: Endpoint

        package init(number: PeerNumber, reference: MemberReference, name: String, cluster: Endpoint) {
            self.number = number
            self.reference = reference
            self.name = name
            self.cluster = cluster
        }
    }

    /// Rises with every publication.
    package let version: UInt64
    package let own: PeerNumber
    package let ringHash: UInt64
    /// Members that can be asked, own included, by number.
    package let peers: [Peer]
    /// The holder of each slice; nobody where unknown.
    package let holders: [PeerNumber]
    package let epochs: [UInt32]
    /// How many owners each slice should have.
    package let copies: Int
    /// The owners that each slice should have, `copies` a slice, primary first; nobody where a member is missing.
    package let wanted: [PeerNumber]

    package init(
        version: UInt64,
        own: PeerNumber,
        ringHash: UInt64,
        peers: [Peer],
        holders: [PeerNumber],
        epochs: [UInt32],
        copies: Int,
        wanted: [PeerNumber]
    ) {
        self.version = version
        self.own = own
        self.ringHash = ringHash
        self.peers = peers
        self.holders = holders
        self.epochs = epochs
        self.copies = copies
        self.wanted = wanted
    }

    package func peer(_ number: PeerNumber) -> Peer? {
        peers.first { $0.number == number }
    }

    package func number(of reference: MemberReference) -> PeerNumber? {
        peers.first { $0.reference == reference }?.number
    }

    /// The owners that the slice should have, primary first.
    package func wantedOwners(of slice: Int) -> ArraySlice<PeerNumber> {
        wanted[(slice * copies)..<((slice + 1) * copies)]
    }
}
