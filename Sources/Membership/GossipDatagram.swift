package import ClusterCore

/// One datagram between members: who says it, to whom, what, and records that ride along.
package struct GossipDatagram: Hashable, Sendable {
    /// Hash of the cluster's name; a datagram with another one changes nothing.
    package var clusterTag: UInt64
    package var sender: NodeID
    package var senderGeneration: UInt64
    /// Who is meant; nil where the sender does not know who lives at the address.
    package var target: NodeID?
    package var message: GossipMessage
    package var entries: [GossipEntry]

    package init(
        clusterTag: UInt64,
        sender: NodeID,
        senderGeneration: UInt64,
        target: NodeID?,
        message: GossipMessage,
        entries: [GossipEntry] = []
    ) {
        self.clusterTag = clusterTag
        self.sender = sender
        self.senderGeneration = senderGeneration
        self.target = target
        self.message = message
        self.entries = entries
    }

    /// What stands for a cluster's name in every datagram.
    package static func tag(ofCluster name: String) -> UInt64 { KeyHash.mix(KeyHash.hash(Array(name.utf8))) }
}

/// What a datagram says. A hash of 0 means "none yet": the sender is no member so far.
package enum GossipMessage: Hashable, Sendable {
    /// Are you there? Answered by `ack`.
    case ping(GossipProbe)
    case ack(GossipProbe)
    /// Ping that member for me. Answered by `indirectAck` or `nack`.
    case pingRequest(sequence: UInt32, subject: NodeID)
    /// The member that you asked for has answered me.
    case indirectAck(sequence: UInt32)
    /// It has not, so far; I at least am here.
    case nack(sequence: UInt32)
    /// News in the entries. Answered by `updated` where the sequence is not 0.
    case update(sequence: UInt32)
    /// The news is in; my hash now.
    case updated(sequence: UInt32, hash: UInt64)
    /// Send me your state; my hash is this. With sums, which are my hash by parts of the id space, only the records of
    /// those parts that differ; there are none or `MemberTable.bucketCount`.
    case pull(nonce: UInt32, hash: UInt64, sums: [UInt32])
    /// A part of all records, or of those that were asked for. `parts` 0: too much for datagrams, come by TCP; with a
    /// record aboard, ask that member instead.
    case state(nonce: UInt32, part: UInt8, parts: UInt8, hash: UInt64)
    /// A node that looks for its cluster, or a member that looks for lost seeds. Answered by `helloReply` or `refuse`.
    case hello(GossipHello)
    case helloReply(GossipHello)
    /// A majority of the seeds sees each other: form the cluster with me, if that is still your generation.
    case form(generation: UInt64)
    /// You cannot join, for this reason.
    case refuse(GossipRefusal)
    /// The same as `pull` and `state`, whole, over TCP.
    case exchangeRequest(hash: UInt64)
    case exchangeReply(hash: UInt64)
}

extension GossipMessage {
    /// It comes back only if what it answers has arrived.
    var isAnswer: Bool {
        switch self {
        case .ack, .helloReply, .updated, .indirectAck, .nack: true
        default: false
        }
    }

    /// Only who holds the cluster's state says this.
    var isOfMember: Bool {
        switch self {
        case .ping(let probe), .ack(let probe): probe.hash != 0
        case .update, .updated, .state: true
        case .hello(let hello), .helloReply(let hello): hello.joined
        default: false
        }
    }
}

/// The body of `ping` and `ack`.
package struct GossipProbe: Hashable, Sendable {
    package var sequence: UInt32
    /// The sender's membership hash.
    package var hash: UInt64
}

/// The body of `hello` and `helloReply`.
package struct GossipHello: Hashable, Sendable {
    /// Chosen by who says `hello`, repeated in the reply; 0 asks for nothing.
    package var nonce: UInt32
    /// The sender is part of a cluster.
    package var joined: Bool
    /// The sender has had an answer from the receiver.
    package var seesReceiver: Bool
    /// The sender's membership hash; 0 while it seeks.
    package var hash: UInt64
    /// Hash of the sender's list of seeds, resolved and de-duplicated; 0 where it has none.
    package var seedListHash: UInt64
    package var clusterName: String
    /// The settings that must be equal on all nodes, to read.
    package var settings: String
    package var record: MemberRecord
}

/// The body of `refuse`.
package struct GossipRefusal: Hashable, Sendable {
    package enum Reason: UInt8, Hashable, Sendable {
        case foreignCluster = 1
        case configuration = 2
        case nameTaken = 3
        case forgotten = 4
    }

    /// That of the hello.
    package var nonce: UInt32
    package var reason: Reason
    /// The name of the refusing cluster for `foreignCluster`, its settings for `configuration`.
    package var detail: String
    /// Who has the name, for `nameTaken`.
    package var holder: NodeID
}

/// What rides along in a datagram; kinds that a reader does not know are skipped.
package enum GossipEntry: Hashable, Sendable {
    /// `ageSeconds`: how long it has been a tombstone or down, so that all forget it, or take it out of the ring, at about
    /// the same time.
    case record(MemberRecord, ageSeconds: UInt32)
    /// By its own probes, the accuser found the subject silent.
    case suspicion(subject: NodeID, generation: UInt64, incarnation: UInt32, accuser: NodeID)

    /// The most bytes of an entry on the wire.
    static let bytesMax = 3 + 4 + MemberRecord.encodedBytesMax
}
