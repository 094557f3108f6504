package import ClusterCore

/// What the shell has to do after a call.
package enum MembershipEffect: Hashable, Sendable {
    /// Send a datagram.
    case send([UInt8], to: Endpoint)
    /// Send a datagram over TCP: on the connection on which one came from there, or one of its own.
    case stream([UInt8], to: Endpoint)
    /// Look a name up and answer with `resolved(_:to:now:effects:)`, also where it has no address.
    case resolve(HostAndPort)
    /// Connect by TCP, send `exchangeRequest()`, and hand the answer to `exchange(with:now:effects:)`.
    case pull(from: Endpoint)
    /// The member list changed: compute the topology again. At most once per call.
    case changed
    /// Something worth a line in the log.
    case event(MembershipEvent)
    /// The node must end, with this line; membership is silent from here on.
    case stop(MembershipStopReason)
    /// A fresh cluster: the own lifecycle is `up`.
    case formed
    /// The state of an existing cluster is here. The own lifecycle stays `joining` until `setLifecycle(.up)`.
    case joinedExisting
}

/// What happened to the membership; for logs and counters.
package enum MembershipEvent: Hashable, Sendable {
    /// A member that was unknown, or a known one in a higher generation.
    case joined(MemberRecord)
    case suspected(NodeID, name: String, by: NodeID?)
    /// A suspect, or a member that was down, showed itself alive.
    case refuted(NodeID, name: String)
    case down(NodeID, name: String)
    case left(NodeID, name: String)
    case forgotten(NodeID, name: String)
    /// This node was accused and raised its incarnation.
    case refutedOwn(Liveness)
    /// Somebody under another cluster name called, or answered at a seed's address.
    case rejectedCluster(name: String, at: Endpoint)
    /// A node whose settings differ called, or answered.
    case configurationDiffers(name: String, at: Endpoint, difference: String)
    /// A node was refused because a living member has its name.
    case rejectedName(String, at: Endpoint)
    /// Only TCP reaches a node, or a seed: UDP is blocked on the way. Gossip goes over TCP until it passes again.
    case datagramsBlocked(name: String?, at: Endpoint)
    case datagramsPass(name: String?, at: Endpoint)
    /// A member came back after it had been given up, and stays out of the ring for a while; this node, perhaps.
    case damped(NodeID, name: String)
    /// The ring takes it back.
    case undamped(NodeID, name: String)
    /// Removals from the ring wait: these members of `ringSize` went together, or none where this node doubts itself.
    case braked(lost: [String], ringSize: Int)
    /// They wait no longer.
    case brakeEnded(RingBrake.End)
    /// The own process stood still for so long.
    case stalled(milliseconds: UInt64)
    /// This node has other cluster keys than before: these, the one that seals first.
    case keysChanged(ids: String)
}

extension MembershipEvent {
    /// What sort of event it is, under the name that operators and metrics know.
    package enum Kind: String, Hashable, Sendable, CaseIterable {
        case joined
        case suspected
        case refuted
        case down
        case left
        case forgotten
        case refutedOwn = "refuted-own"
        case rejectedCluster = "rejected-cluster"
        case configurationDiffers = "configuration-differs"
        case rejectedName = "rejected-name"
        case damped
        case undamped
        case braked
        case brakeEnded = "brake-ended"
        case stalled
        case datagramsBlocked = "udp-blocked"
        case datagramsPass = "udp-passes"
        case keysChanged = "keys-changed"
    }

    package var kind: Kind {
        switch self {
        case .joined: .joined
        case .suspected: .suspected
        case .refuted: .refuted
        case .down: .down
        case .left: .left
        case .forgotten: .forgotten
        case .refutedOwn: .refutedOwn
        case .rejectedCluster: .rejectedCluster
        case .configurationDiffers: .configurationDiffers
        case .rejectedName: .rejectedName
        case .damped: .damped
        case .undamped: .undamped
        case .braked: .braked
        case .brakeEnded: .brakeEnded
        case .stalled: .stalled
        case .datagramsBlocked: .datagramsBlocked
        case .datagramsPass: .datagramsPass
        case .keysChanged: .keysChanged
        }
    }
}

/// Why a node must end.
package enum MembershipStopReason: Hashable, Sendable {
    /// A younger holder of this node's id answered: the data directory was copied, or started twice.
    case olderTwin(at: Endpoint)
    /// The cluster knows this node under a higher generation and nobody answers there: the stored generation is lost.
    /// Store `seen`, and start again above it.
    case generationBehind(seen: UInt64)
    /// A living member has this node's name.
    case nameTaken(String, by: NodeID, at: Endpoint)
    /// The settings that must be equal are not.
    case configurationDiffers(difference: String, at: Endpoint)
    /// The cluster has forgotten this node in this generation; a restart comes back as a new one.
    case forgotten
}

extension MembershipStopReason: CustomStringConvertible {
    /// One line for the log: what is wrong and what to do.
    package var description: String {
        switch self {
        case .olderTwin(let endpoint):
            "another process with this node's id and a higher generation answers at \(endpoint): "
                + "the data directory was copied or is in use twice; give each node its own"
        case .generationBehind(let seen):
            "the cluster knows this node in generation \(seen), which nobody holds any more: "
                + "the stored generation was lost; start again above it"
        case .nameTaken(let name, let id, let endpoint):
            "the name \(name) belongs to the living member \(id) at \(endpoint): choose another name, "
                + "or forget that member first"
        case .configurationDiffers(let difference, let endpoint):
            "settings that must be equal on all nodes differ from those at \(endpoint): \(difference)"
        case .forgotten:
            "the cluster has forgotten this node: restart it to join again"
        }
    }
}

/// Where a node stands on its way into a cluster.
package enum MembershipPhase: Hashable, Sendable {
    /// Calls seeds and remembered peers; goes to `joined`.
    case seeking(MembershipSeeking)
    /// Part of a cluster, whatever the own lifecycle says.
    case joined
    /// Said farewell, or was stopped; for ever.
    case ended
}

/// Whom a node that seeks its cluster has asked, and what came back.
package struct MembershipSeeking: Hashable, Sendable {
    /// What is known of one seed or remembered peer.
    package enum Answer: Hashable, Sendable {
        case unresolved
        case silent
        case itself
        /// Seeks as well. `agrees`: same list, same settings, and it sees this node.
        case seeking(name: String, agrees: Bool)
        case joined(name: String)
        case foreign(clusterName: String)
    }

    package struct Contact: Hashable, Sendable {
        /// The seed as written, or the remembered address.
        package var label: String
        package var endpoint: Endpoint?
        package var answer: Answer

        package init(label: String, endpoint: Endpoint?, answer: Answer) {
            self.label = label
            self.endpoint = endpoint
            self.answer = answer
        }
    }

    package var contacts: [Contact]
    /// How many seeds must see each other, this node included if it is one; 0 where this node can only join.
    package var majority: Int
    /// How many do, by what this node knows.
    package var agreeing: Int
}

/// Counts since the start.
package struct MembershipStatistics: Hashable, Sendable {
    package var datagramsReceived: UInt64 = 0
    package var datagramsSent: UInt64 = 0
    package var bytesSent: UInt64 = 0
    /// Datagrams that travelled over TCP.
    package var streamsSent: UInt64 = 0
    package var streamsReceived: UInt64 = 0
    /// Probes that only TCP got an answer to.
    package var probesRescued: UInt64 = 0
    package var malformed: UInt64 = 0
    package var foreignCluster: UInt64 = 0
    package var wrongTarget: UInt64 = 0
    package var probesSent: UInt64 = 0
    package var probesFailed: UInt64 = 0
    package var indirectProbesRequested: UInt64 = 0
    package var suspicions: UInt64 = 0
    package var convictions: UInt64 = 0
    /// Suspicions that three others confirmed.
    package var suspicionsConfirmed: UInt64 = 0
    package var refutations: UInt64 = 0
    package var dampings: UInt64 = 0
    package var pulls: UInt64 = 0
    package var pullsSuppressed: UInt64 = 0
    /// Rounds in which news went to fewer members than the fan-out, or to none, for the bytes a second that it may take.
    package var gossipHeldBack: UInt64 = 0
    package var updatesRetried: UInt64 = 0
    package var updatesAbandoned: UInt64 = 0
    package var stalls: UInt64 = 0
    /// The longest that a datagram lay in the inbox before it was read, in microseconds.
    package var inboxAgeMaxMicroseconds: UInt64 = 0
    /// Datagrams that lay there for more than a quarter of the probe interval.
    package var datagramsReadLate: UInt64 = 0
    package var recordsRefused: UInt64 = 0

    package init() {}
}
