package import ClusterCore

// Settings of a node.
//
// The problem: the same forty words appear as keys of a file, as environment variables, as flags, in a sample, in a
// printed configuration and in error messages, and whatever is written down more than once drifts apart. Reading them
// where they are used fails for another reason: nobody can say any more where a value came from.
//
// The idea: `SettingsTable` names every setting once, with its key path, flag, kind, default and help. Keys of the
// file, names of environment variables, the sample and the printed configuration are derived from it. Four layers
// (defaults, file, environment, flags) are reduced to pairs of setting and value, applied in order, and the last one
// that spoke is remembered as the origin. `validate()` looks at the result as a whole and names what contradicts.

/// Everything one node is told before it starts.
///
/// `clusterName`, `replicas` and `partition` must be equal on all nodes of a cluster; the rest is a node's own.
package struct NodeSettings: Hashable, Sendable {
    /// The node's name, unique in its cluster. 1 to 63 letters, digits, `.`, `_`, `-`. The host's name by default.
    package var name: String

    /// Where the node keeps its id and generation, a few kilobytes. The caller creates it if it is missing.
    package var dataDirectory: String

    /// Where memcache clients connect, TCP. 1 to `listenersMax` places.
    package var clientListen = [HostAndPort(host: "0.0.0.0", port: 11211)]

    /// Where the other nodes connect, UDP and TCP on one port.
    package var clusterListen = HostAndPort(host: "0.0.0.0", port: 11212)

    /// Where `henge` commands, probes and scrapers connect, HTTP. Without authentication: keep it on loopback, or on
    /// a network where whoever reaches it may drain nodes.
    package var adminListen = HostAndPort(host: "127.0.0.1", port: 11213)

    /// The address or name, without a port, by which other nodes reach this one. Nil: the local end of the route to
    /// the first seed.
    package var advertise: String?

    /// The name of the cluster. Nodes of another name are not talked to. 1 to 63 bytes.
    package var clusterName = "henge"

    /// The file with the cluster key, 32 bytes in base64: whoever has it is a member. Nil: nodes talk in the clear, and
    /// on loopback only unless `isInsecure`. It counts at the first start; from then on the data directory has the keys.
    package var clusterKeyFile: String?

    /// How nodes gossip. Where a network drops UDP, `tcp` on all nodes.
    package var gossip = GossipTransport.udp

    /// Without a cluster key, listen for nodes beyond loopback all the same: whoever reaches the port can take the
    /// cluster over.
    package var isInsecure = false

    /// Nodes to ask for the cluster, by name or address; resolved again while the node is alone. At most `seedsMax`.
    package var seeds: [HostAndPort] = []

    /// Successors that hold a copy of every item beside the primary. 0 to 4. Each one more survives one more failure
    /// at the same time, and costs its share of memory and one more acknowledgement a write.
    package var replicas = 1

    /// Memory for items, their index included, in bytes. At least `memoryBytesMin`.
    package var memoryBytes = 64 << 20

    /// Worker threads, each with its own event loop. 1 to 256. One for each processor by default.
    package var workers: Int

    /// The largest item, key and value together, in bytes. 1 KiB to 128 MiB. Growing it leaves fewer, larger shards.
    package var itemBytesMax = 1 << 20

    /// Client connections at a time; further ones are refused. 1 to 1,000,000.
    package var maxConnections = 1024

    /// How long a client may be silent before it is disconnected, in seconds; 0 is for ever. 0 to 86,400. Shorter frees
    /// connections that nobody uses, and disconnects pools of clients that keep some in reserve.
    package var idleTimeoutSeconds = 0

    /// Who may serve when the cluster is split.
    package var partition = PartitionPolicy.auto

    /// The failure domain (rack, room, power line): copies go to distinct zones where there are enough. At most 63
    /// bytes; empty: the node stands for itself.
    package var zone = ""

    /// The node's share of the slices relative to others, in thousandths: 1000 is a weight of 1.0. 1 to 100,000.
    package var weightThousandths = 1000

    /// How long an absent node's copies are waited for before they are made anew elsewhere, in seconds. 0 to 86,400.
    /// Longer spares traffic at restarts, shorter closes the time with a copy too few.
    package var fillDelaySeconds = 30

    /// What the first SIGTERM does.
    package var onStop = StopPolicy.handOver

    /// The least severe messages that are logged.
    package var logLevel = LogLevel.info

    /// The defaults, which depend on the host.
    package init(host: HostFacts) {
        name = host.name
        dataDirectory = host.dataDirectory(forNode: host.name)
        workers = min(max(host.processors, 1), Self.workersMax)
    }

    /// The least memory with which a node works, in bytes.
    package static let memoryBytesMin = 8 << 20
    /// The most places to listen for clients.
    package static let listenersMax = 16
    /// The most seeds.
    package static let seedsMax = 64
    /// The most worker threads.
    package static let workersMax = 256
    /// The longest name of a node, a cluster or a zone, in bytes.
    package static let nameBytesMax = 63
    /// The least memory of a shard, in bytes: below it, open segments eat the budget.
    package static let shardBytesMin = 16 << 20
    /// Shards for each worker, enough that two workers seldom want the same one.
    package static let shardsPerWorker = 4

    /// Into how many shards the store is cut: four for each worker, as long as each has 16 MiB and room for two of the
    /// largest items.
    package var shardCount: Int {
        max(1, min(Self.shardsPerWorker * workers, memoryBytes / max(Self.shardBytesMin, 2 * itemBytesMax)))
    }
}

/// Who may serve when the cluster is split.
package enum PartitionPolicy: String, CaseIterable, Hashable, Sendable {
    /// `available` until the cluster has had three members, `safe` from then on.
    case auto
    /// Only the side with a majority serves: no old value, but the other side answers errors.
    case safe
    /// Both sides serve, and are merged by version when they meet again: old values across the split.
    case available
}

/// How nodes gossip.
package enum GossipTransport: String, CaseIterable, Hashable, Sendable {
    case udp
    /// Over TCP alone: for networks that drop UDP. More packets, and no UDP port.
    case tcp
}

/// What the first SIGTERM does; a second one ends at once.
package enum StopPolicy: String, CaseIterable, Hashable, Sendable {
    /// Passes on what it holds to successors that have a copy; about a second, nothing is copied.
    case handOver = "hand-over"
    /// Moves every copy elsewhere and leaves the cluster.
    case drain
    /// Ends; the others take over as after a crash.
    case none
}

/// How severe a message must be to be logged; named as in swift-log.
package enum LogLevel: String, CaseIterable, Hashable, Sendable {
    case trace
    case debug
    case info
    case notice
    case warning
    case error
    case critical
}
