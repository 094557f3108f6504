private import ClusterCore

/// Every setting, once. The file's keys, the names of environment variables, the sample and the printed configuration
/// derive from it; the flags of `henge serve` are compared with it by a test.
package enum SettingsTable {
    /// All settings: the top level first, then section by section.
    package static let all: [Setting] = top + client + cluster + store + other

    /// The setting with that key path.
    package static func setting(_ key: String) -> Setting? {
        all.first { $0.key == key }
    }

    private static let top: [Setting] = [
        Setting(
            "name",
            "--name",
            .text,
            help: "the node's name, unique in the cluster; the host's name by default",
            computed: true,
            show: { quoted($0.name) },
            apply: { value, settings throws(SettingsError) in settings.name = try value.asString() }
        ),
        Setting(
            "data-dir",
            "--data-dir",
            .text,
            help: "where the node keeps its id and generation, a few KB",
            computed: true,
            show: { quoted($0.dataDirectory) },
            apply: { value, settings throws(SettingsError) in settings.dataDirectory = try value.asString() }
        ),
        Setting(
            "workers",
            "--workers",
            .integer,
            unit: "threads",
            help: "worker threads; one for each processor by default",
            computed: true,
            show: { String($0.workers) },
            apply: { value, settings throws(SettingsError) in
                settings.workers = try value.asInteger(in: 1...NodeSettings.workersMax)
            }
        ),
        Setting(
            "zone",
            "--zone",
            .text,
            help: "the failure domain: copies go to distinct zones where there are enough",
            show: { quoted($0.zone) },
            apply: { value, settings throws(SettingsError) in settings.zone = try value.asString() }
        ),
        Setting(
            "weight",
            "--weight",
            .decimal,
            help: "the node's share of the slices relative to others; 0.001 to 100",
            show: { Units.decimal(thousandths: $0.weightThousandths) },
            apply: { value, settings throws(SettingsError) in
                settings.weightThousandths = try value.asThousandths(in: 1...100_000)
            }
        ),
    ]

    private static let client: [Setting] = [
        Setting(
            "client.listen",
            "--listen",
            .places,
            help: "where memcache clients connect (port 11211 unless given)",
            show: { list($0.clientListen) },
            apply: { value, settings throws(SettingsError) in
                settings.clientListen = try value.asPlaces(defaultPort: 11211, atMost: NodeSettings.listenersMax)
            }
        ),
        Setting(
            "client.max-connections",
            "--max-connections",
            .integer,
            unit: "connections",
            help: "client connections at a time; further ones are refused",
            show: { String($0.maxConnections) },
            apply: { value, settings throws(SettingsError) in
                settings.maxConnections = try value.asInteger(in: 1...1_000_000)
            }
        ),
        Setting(
            "client.idle-timeout",
            "--idle-timeout",
            .seconds,
            unit: "seconds",
            help: "how long a client may be silent before it is disconnected; 0 is for ever",
            show: { quoted("\($0.idleTimeoutSeconds)s") },
            apply: { value, settings throws(SettingsError) in
                settings.idleTimeoutSeconds = try value.asSeconds(in: 0...86_400)
            }
        ),
    ]

    private static let cluster: [Setting] = [
        Setting(
            "cluster.name",
            "--cluster-name",
            .text,
            help: "the cluster's name, equal on all nodes",
            show: { quoted($0.clusterName) },
            apply: { value, settings throws(SettingsError) in settings.clusterName = try value.asString() }
        ),
        Setting(
            "cluster.key-file",
            "--cluster-key-file",
            .text,
            help:
                "the file with the cluster's key, of 'henge keyring generate', equal on all nodes; none: in the clear",
            show: { quoted($0.clusterKeyFile ?? "") },
            apply: { value, settings throws(SettingsError) in
                let text = try value.asString()
                settings.clusterKeyFile = text.isEmpty ? nil : text
            }
        ),
        Setting(
            "cluster.gossip",
            "--gossip",
            .choice,
            help: "how nodes gossip, equal on all of them: udp, or tcp where the network drops UDP",
            show: { quoted($0.gossip.rawValue) },
            apply: { value, settings throws(SettingsError) in
                settings.gossip = try value.asChoice(GossipTransport.self)
            }
        ),
        Setting(
            "cluster.insecure",
            "--insecure",
            .boolean,
            help: "without a key, talk to nodes beyond loopback all the same, in the clear",
            show: { String($0.isInsecure) },
            apply: { value, settings throws(SettingsError) in settings.isInsecure = try value.asBoolean() }
        ),
        Setting(
            "cluster.listen",
            "--cluster",
            .place,
            help: "where other nodes connect, UDP and TCP (port 11212 unless given)",
            show: { quoted($0.clusterListen.description) },
            apply: { value, settings throws(SettingsError) in
                settings.clusterListen = try value.asPlace(defaultPort: 11212)
            }
        ),
        Setting(
            "cluster.advertise",
            "--advertise",
            .text,
            help: "auto, or the address by which other nodes reach this one",
            show: { quoted($0.advertise ?? "auto") },
            apply: { value, settings throws(SettingsError) in
                let text = try value.asString()
                settings.advertise = text == "auto" ? nil : text
            }
        ),
        Setting(
            "cluster.seeds",
            "--seeds",
            .places,
            help: "nodes to ask for the cluster (port 11212 unless given)",
            show: { list($0.seeds) },
            apply: { value, settings throws(SettingsError) in
                settings.seeds = try value.asPlaces(defaultPort: 11212, atMost: NodeSettings.seedsMax)
            }
        ),
        Setting(
            "cluster.replicas",
            "--replicas",
            .integer,
            unit: "copies",
            help: "copies of every item beyond the first, equal on all nodes; 0 to 4",
            show: { String($0.replicas) },
            apply: { value, settings throws(SettingsError) in settings.replicas = try value.asInteger(in: 0...4) }
        ),
        Setting(
            "cluster.partition",
            "--partition",
            .choice,
            help: "who serves when the cluster is split, equal on all nodes: auto, safe or available",
            show: { quoted($0.partition.rawValue) },
            apply: { value, settings throws(SettingsError) in
                settings.partition = try value.asChoice(PartitionPolicy.self)
            }
        ),
        Setting(
            "cluster.fill-delay",
            "--fill-delay",
            .seconds,
            unit: "seconds",
            help: "how long an absent node's copies are waited for before new ones are made",
            show: { quoted("\($0.fillDelaySeconds)s") },
            apply: { value, settings throws(SettingsError) in
                settings.fillDelaySeconds = try value.asSeconds(in: 0...86_400)
            }
        ),
    ]

    private static let store: [Setting] = [
        Setting(
            "store.memory",
            "--memory",
            .bytes,
            unit: "bytes",
            help: "memory for items and their index; at least 8 MiB",
            show: { quoted(Units.text(bytes: $0.memoryBytes)) },
            apply: { value, settings throws(SettingsError) in
                settings.memoryBytes = try value.asBytes(in: NodeSettings.memoryBytesMin...(1 << 46))
            }
        ),
        Setting(
            "store.max-item-size",
            "--max-item-size",
            .bytes,
            unit: "bytes",
            help: "the largest item, key and value together; 1 KiB to 128 MiB",
            show: { quoted(Units.text(bytes: $0.itemBytesMax)) },
            apply: { value, settings throws(SettingsError) in
                settings.itemBytesMax = try value.asBytes(in: 1024...(128 << 20))
            }
        ),
    ]

    private static let other: [Setting] = [
        Setting(
            "stop.on-stop",
            "--on-stop",
            .choice,
            help: "what SIGTERM does: hand-over, drain or none",
            show: { quoted($0.onStop.rawValue) },
            apply: { value, settings throws(SettingsError) in settings.onStop = try value.asChoice(StopPolicy.self) }
        ),
        Setting(
            "admin.listen",
            "--admin",
            .place,
            help: "where henge commands, probes and scrapers connect, HTTP; no authentication: keep it on loopback",
            show: { quoted($0.adminListen.description) },
            apply: { value, settings throws(SettingsError) in
                settings.adminListen = try value.asPlace(defaultPort: 11213)
            }
        ),
        Setting(
            "log.level",
            "--log-level",
            .choice,
            help: "the least severe messages logged: trace, debug, info, notice, warning, error or critical",
            show: { quoted($0.logLevel.rawValue) },
            apply: { value, settings throws(SettingsError) in settings.logLevel = try value.asChoice(LogLevel.self) }
        ),
    ]

    /// A TOML basic string.
    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case _ where scalar.value < 0x20 || scalar.value == 0x7f:
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }

    private static func list(_ places: [HostAndPort]) -> String {
        "[" + places.map { quoted($0.description) }.joined(separator: ", ") + "]"
    }
}
