import ArgumentParser
import ClusterCore
import Settings

/// The flags that set a node up: one for each row of `SettingsTable`, and memcached's short ones.
///
/// All are optional text without defaults: what is not given must not hide what the file or the environment says, and
/// values of one form are read in one place.
struct SettingsFlags: ParsableArguments {
    @Option(name: .long, help: help("name", "NAME")) var name: String?
    @Option(name: .customLong("data-dir"), help: help("data-dir", "DIR")) var dataDirectory: String?
    @Option(name: .long, help: help("workers", "N")) var workers: String?
    @Option(name: .long, help: help("zone", "ZONE")) var zone: String?
    @Option(name: .long, help: help("weight", "W")) var weight: String?
    @Option(name: .long, help: help("client.listen", "ADDR,…")) var listen: String?
    @Option(name: .customLong("max-connections"), help: help("client.max-connections", "N")) var maxConnections: String?
    @Option(name: .customLong("idle-timeout"), help: help("client.idle-timeout", "TIME")) var idleTimeout: String?
    @Option(name: .customLong("cluster-name"), help: help("cluster.name", "NAME")) var clusterName: String?
    @Option(name: .customLong("cluster-key-file"), help: help("cluster.key-file", "FILE")) var clusterKeyFile: String?
    @Option(name: .long, help: help("cluster.gossip", "TRANSPORT")) var gossip: String?
    @Flag(name: .long, help: help("cluster.insecure", "")) var insecure = false
    @Option(name: .long, help: help("cluster.listen", "ADDR")) var cluster: String?
    @Option(name: .long, help: help("cluster.advertise", "ADDR")) var advertise: String?
    @Option(name: .long, help: help("cluster.seeds", "ADDR,…")) var seeds: String?
    @Option(name: .long, help: help("cluster.replicas", "N")) var replicas: String?
    @Option(name: .long, help: help("cluster.partition", "POLICY")) var partition: String?
    @Option(name: .customLong("fill-delay"), help: help("cluster.fill-delay", "TIME")) var fillDelay: String?
    @Option(name: .long, help: help("store.memory", "SIZE")) var memory: String?
    @Option(name: .customLong("max-item-size"), help: help("store.max-item-size", "SIZE")) var maxItemSize: String?
    @Option(name: .customLong("on-stop"), help: help("stop.on-stop", "POLICY")) var onStop: String?
    @Option(name: .long, help: help("admin.listen", "ADDR")) var admin: String?
    @Option(name: .customLong("log-level"), help: help("log.level", "LEVEL")) var logLevel: String?

    @Option(name: .long, help: ArgumentHelp("the settings file, TOML", valueName: "FILE")) var config: String?

    @Option(
        name: .customShort("p", allowingJoined: true),
        help: ArgumentHelp("as memcached: the port for clients", valueName: "PORT")
    ) var port: String?
    @Option(
        name: .customShort("l", allowingJoined: true),
        help: ArgumentHelp("as memcached: where clients connect", valueName: "ADDR,…")
    ) var listenAddress: String?
    @Option(
        name: .customShort("m", allowingJoined: true),
        help: ArgumentHelp("as memcached: memory in MiB", valueName: "MIB")
    ) var megabytes: String?
    @Option(
        name: .customShort("c", allowingJoined: true),
        help: ArgumentHelp("as memcached: client connections at a time", valueName: "N")
    ) var connections: String?
    @Option(
        name: .customShort("t", allowingJoined: true),
        help: ArgumentHelp("as memcached: worker threads", valueName: "N")
    ) var threads: String?
    @Option(
        name: .customShort("I", allowingJoined: true),
        help: ArgumentHelp("as memcached: the largest item", valueName: "SIZE")
    ) var itemSize: String?
    @Flag(name: .customShort("v"), help: "as memcached: log more (-v debug, -vv trace)") var verbosity: Int

    private static func help(_ key: String, _ value: String) -> ArgumentHelp {
        guard let setting = SettingsTable.setting(key) else { preconditionFailure("no setting '\(key)'") }
        return ArgumentHelp(stringLiteral: setting.help).named(value)
    }

    /// The settings of a node: these flags over the environment over the file over defaults.
    func resolve(in context: CommandContext) throws -> ResolvedSettings {
        var layers = SettingsLayers(host: context.host)
        if let config {
            layers.file = try SettingsFile(name: config, text: context.readFile(config, SettingsFile.bytesMax))
        }
        layers.environment = context.environment
        layers.flags = try values()
        if let port, listenAddress == nil {
            guard listen == nil else {
                throw SettingsError("-p and --listen set the same thing: give the port in --listen")
            }
            layers.clientPort = try Self.port(port)
        }
        return try layers.resolve()
    }

    private func values() throws(SettingsError) -> [FlagValue] {
        var values: [FlagValue] = []
        func add(_ key: String, _ flag: String, _ text: String?) {
            if let text { values.append(FlagValue(key: key, flag: flag, text: text)) }
        }
        add("name", "--name", name)
        add("data-dir", "--data-dir", dataDirectory)
        add("workers", "--workers", workers)
        add("workers", "-t", threads)
        add("zone", "--zone", zone)
        add("weight", "--weight", weight)
        add("client.listen", "--listen", listen)
        add("client.listen", "-l", try listenAddress.map { text throws(SettingsError) in try placesWithPort(text) })
        add("client.max-connections", "--max-connections", maxConnections)
        add("client.max-connections", "-c", connections)
        add("client.idle-timeout", "--idle-timeout", idleTimeout)
        add("cluster.name", "--cluster-name", clusterName)
        add("cluster.key-file", "--cluster-key-file", clusterKeyFile)
        add("cluster.gossip", "--gossip", gossip)
        add("cluster.insecure", "--insecure", insecure ? "true" : nil)
        add("cluster.listen", "--cluster", cluster)
        add("cluster.advertise", "--advertise", advertise)
        add("cluster.seeds", "--seeds", seeds)
        add("cluster.replicas", "--replicas", replicas)
        add("cluster.partition", "--partition", partition)
        add("cluster.fill-delay", "--fill-delay", fillDelay)
        add("store.memory", "--memory", memory)
        // memcached takes a plain number of MiB; a unit says the same more clearly and is not refused.
        add("store.memory", "-m", megabytes.map { Int($0) == nil ? $0 : $0 + "MiB" })
        add("store.max-item-size", "--max-item-size", maxItemSize)
        add("store.max-item-size", "-I", itemSize)
        add("stop.on-stop", "--on-stop", onStop)
        add("admin.listen", "--admin", admin)
        add("log.level", "--log-level", logLevel)
        add("log.level", "-v", verbosity == 0 ? nil : verbosity == 1 ? "debug" : "trace")
        return values
    }

    /// What `-l` names, with the port of `-p` where it names none.
    private func placesWithPort(_ text: String) throws(SettingsError) -> String {
        let port = try port.map { text throws(SettingsError) in try Self.port(text) } ?? 11211
        return text.split(separator: ",").map { part in
            HostAndPort(String(part), defaultPort: port)?.description ?? String(part)
        }.joined(separator: ",")
    }

    private static func port(_ text: String) throws(SettingsError) -> UInt16 {
        guard let port = UInt16(text), port > 0 else {
            throw SettingsError("-p: '\(text)' is not a port from 1 to 65535")
        }
        return port
    }
}

extension ArgumentHelp {
    fileprivate func named(_ value: String) -> ArgumentHelp {
        var help = self
        help.valueName = value
        return help
    }
}
