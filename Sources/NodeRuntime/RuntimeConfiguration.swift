package import CacheNode
package import ClusterCore
package import Membership
package import Sealing

/// All that a node needs to start, resolved and checked.
package struct RuntimeConfiguration: Sendable {
    package var name: String
    package var clusterName: String
    /// Where clients connect; opened when the node may serve.
    package var clientListen: [Endpoint]
    /// UDP for gossip and TCP for links.
    package var clusterListen: Endpoint
    package var workers: Int
    package var shards: Int
    package var memoryBytes: Int
    package var itemBytesMax: Int
    package var connectionsMax: Int
    /// After how many seconds of silence a client is disconnected; 0 is never.
    package var idleTimeoutSeconds: Int
    package var verbosity: Int
    package var onStop: StopAction
    package var control: ControlConfiguration
    package var dataPlane: DataPlaneConfiguration
    package var membership: MembershipConfiguration
    package var own: MemberRecord
    package var seeds: [HostAndPort]
    package var remembered: [Endpoint]
    package var randomSeed: UInt64
    package var gossip: GossipTransport
    /// The cluster keys; nil where nodes talk in the clear.
    package var keyRing: KeyRing?

    /// How gossip travels.
    package enum GossipTransport: Sendable {
        case udp
        case tcp
    }

    /// What a first SIGTERM does.
    package enum StopAction: Sendable {
        case handOver
        case drain
        case none
    }

    package init(
        name: String,
        clusterName: String,
        clientListen: [Endpoint],
        clusterListen: Endpoint,
        workers: Int,
        shards: Int,
        memoryBytes: Int,
        itemBytesMax: Int,
        connectionsMax: Int,
        idleTimeoutSeconds: Int,
        verbosity: Int,
        onStop: StopAction,
        control: ControlConfiguration,
        dataPlane: DataPlaneConfiguration,
        membership: MembershipConfiguration,
        own: MemberRecord,
        seeds: [HostAndPort],
        remembered: [Endpoint],
        randomSeed: UInt64,
        gossip: GossipTransport,
        keyRing: KeyRing?
    ) {
        self.gossip = gossip
        self.keyRing = keyRing
        self.name = name
        self.clusterName = clusterName
        self.clientListen = clientListen
        self.clusterListen = clusterListen
        self.workers = workers
        self.shards = shards
        self.memoryBytes = memoryBytes
        self.itemBytesMax = itemBytesMax
        self.connectionsMax = connectionsMax
        self.idleTimeoutSeconds = idleTimeoutSeconds
        self.verbosity = verbosity
        self.onStop = onStop
        self.control = control
        self.dataPlane = dataPlane
        self.membership = membership
        self.own = own
        self.seeds = seeds
        self.remembered = remembered
        self.randomSeed = randomSeed
    }
}
