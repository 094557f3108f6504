import AdminServer
import CacheNode
import ClusterCore
import Foundation
import HengeCommands
import Logging
import Membership
import NodeRuntime
import PeerProtocol
import Reactor
import Replication
import Sealing
import Settings
import SystemdSupport

/// `henge serve`: from settings to a running node, and to its end.
enum Server {
    /// Runs a node until it is stopped or drained. Throws what ends the process with a code other than 0.
    static func run(_ settings: NodeSettings) async throws {
        let notifier = ServiceNotifier()
        let writer = LogOutput.bootstrap(
            level: settings.logLevel.level,
            environment: ProcessInfo.processInfo.environment
        )
        defer { writer.flush() }
        var logger = Logger(label: "henge")
        logger[metadataKey: "node"] = "\(settings.name)"

        let identity = try NodeIdentity.begin(in: settings.dataDirectory)
        let keyRing = try keyRing(settings, logger)
        let settings = try Self.settings(settings, keyRing, logger)
        let configuration = try configuration(settings, identity, keyRing)
        let observer = Observer(logger: logger, notifier: notifier, identity: identity, settings: settings)
        try probe(settings.adminListen)
        let node: Node
        do {
            node = try Node(configuration, observer: observer)
        } catch {
            throw CommandError(.usage, "\(error)")
        }
        let administration = Administration(node: node, settings: settings)
        let admin = try await AdminServer.start(
            on: settings.adminListen,
            hostNames: [settings.name],
            version: Main.version,
            administration: administration,
            logger: logger
        )
        logger.notice(
            "started",
            metadata: [
                "cluster-name": "\(settings.clusterName)", "client": "\(configuration.own.client)",
                "cluster": "\(configuration.own.cluster)", "admin": "\(settings.adminListen)",
                "id": "\(identity.id)", "generation": "\(identity.generation)",
                "on-stop": "\(settings.onStop.rawValue)",
            ]
        )
        notifier.ready(status: "joining")
        let status = Task { await tellServiceManager(node, notifier) }
        let failure = await node.ended()
        status.cancel()
        observer.finishSaving()
        await administration.waitForLastLook()
        await admin.stop()
        if let failure {
            logger.critical("ended", metadata: ["reason": "\(failure)"])
            throw CommandError(.failed, failure)
        }
        logger.notice("stopped")
    }

    /// Whether the admin port can be opened, before the node says anything to anybody.
    private static func probe(_ place: HostAndPort) throws(CommandError) {
        let endpoint = try endpoint(place)
        do throws(SystemError) {
            Socket.close(try Socket.listen(on: endpoint))
        } catch {
            throw CommandError(.usage, "\(error)")
        }
    }

    /// Keeps the service manager informed: the state in words, and that the loops turn.
    private static func tellServiceManager(_ node: Node, _ notifier: ServiceNotifier) async {
        guard notifier.isActive else { return }
        let interval = min(notifier.watchdogMicroseconds.map { $0 / 2 } ?? 2_000_000, 2_000_000)
        var movedBefore: UInt64 = 0
        while !Task.isCancelled {
            if await node.isLively() { notifier.watchdog() }
            if let snapshot = await node.snapshot() {
                let text = StatusLine.text(snapshot)
                let moved = snapshot.members.first { $0.isOwn }?.report.sentBytes ?? 0
                if snapshot.lifecycle == .draining, moved != movedBefore {
                    notifier.extendTimeout(microseconds: 30_000_000, status: text)
                } else {
                    notifier.status(text)
                }
                movedBefore = moved
            }
            try? await Task.sleep(nanoseconds: interval * 1000)
        }
    }

    // MARK: - From settings to a configuration

    private static func configuration(
        _ settings: NodeSettings,
        _ identity: NodeIdentity,
        _ keyRing: KeyRing?
    ) throws(CommandError) -> RuntimeConfiguration {
        let advertised = try advertisedAddress(settings)
        let cluster = try endpoint(settings.clusterListen)
        var clients: [Endpoint] = []
        for place in settings.clientListen { clients.append(try endpoint(place)) }
        let admin = try endpoint(settings.adminListen)

        var control = ControlConfiguration()
        control.replication.replicas = settings.replicas
        control.replication.partition =
            switch settings.partition {
            case .auto: .auto
            case .safe: .safe
            case .available: .available
            }
        control.fillDelayMilliseconds = UInt64(settings.fillDelaySeconds) * 1000
        control.workers = settings.workers
        control.usesDatagrams = settings.gossip != .tcp
        control.comparedSettings =
            "version=\(Main.version) replicas=\(settings.replicas) partition=\(settings.partition.rawValue) "
            + "gossip=\(settings.gossip.rawValue) fill-delay=\(settings.fillDelaySeconds)s "
            + "max-item-size=\(settings.itemBytesMax)"
        var dataPlane = DataPlaneConfiguration()
        dataPlane.itemBytesMax = settings.itemBytesMax
        var membership = MembershipConfiguration()
        membership.clusterName = settings.clusterName
        if keyRing != nil { membership.datagramBytesMax -= GossipSealer.overheadBytes }
        membership.settings = "replicas=\(settings.replicas) partition=\(settings.partition.rawValue)"

        let own = MemberRecord(
            id: identity.id,
            generation: identity.generation,
            name: settings.name,
            zone: settings.zone,
            weight: UInt32(settings.weightThousandths),
            client: shown(clients[0], advertised),
            cluster: shown(cluster, advertised),
            admin: shown(admin, advertised),
            configurationHash: KeyHash.hash(Array(membership.settings.utf8)),
            memoryBytes: UInt64(settings.memoryBytes),
            sawThree: identity.sawThree
        )
        var shards = 1
        while shards * 2 <= settings.shardCount { shards *= 2 }
        var random = SystemRandomNumberGenerator()
        return RuntimeConfiguration(
            name: settings.name,
            clusterName: settings.clusterName,
            clientListen: clients,
            clusterListen: cluster,
            workers: settings.workers,
            shards: shards,
            memoryBytes: settings.memoryBytes,
            itemBytesMax: settings.itemBytesMax,
            connectionsMax: settings.maxConnections,
            idleTimeoutSeconds: settings.idleTimeoutSeconds,
            verbosity: settings.logLevel == .debug || settings.logLevel == .trace ? 1 : 0,
            onStop: {
                switch settings.onStop {
                case .handOver: .handOver
                case .drain: .drain
                case .none: .none
                }
            }(),
            control: control,
            dataPlane: dataPlane,
            membership: membership,
            own: own,
            seeds: settings.seeds,
            remembered: identity.peers.compactMap { Endpoint($0) },
            randomSeed: random.next(),
            gossip: settings.gossip == .tcp ? .tcp : .udp,
            keyRing: keyRing
        )
    }

    /// The keys of the data directory; at the first start the one of the settings; nil where there is neither.
    private static func keyRing(_ settings: NodeSettings, _ logger: Logger) throws(CommandError) -> KeyRing? {
        var configured: ClusterKey?
        if let file = settings.clusterKeyFile {
            do {
                let text = try CommandContext.readFile(file, bytesMax: ClusterKeyText.fileBytesMax)
                configured = try ClusterKeyText.read(file, text)
            } catch {
                throw CommandError(.usage, "cannot read the cluster key: \(error)")
            }
        }
        if let stored = try KeyRingFile.load(from: settings.dataDirectory) {
            if let configured, stored[configured.id] == nil {
                logger.warning(
                    "the key of --cluster-key-file is not in the node's key ring, which counts: update that file",
                    metadata: [
                        "file-key": "\(configured)",
                        "ring-keys": "\(stored.ids.map(\.description).joined(separator: " "))",
                    ]
                )
            }
            return stored
        }
        guard let configured else { return nil }
        let ring = KeyRing(configured)
        do {
            try KeyRingFile.save(ring.encoded, in: settings.dataDirectory)
        } catch {
            throw CommandError(.usage, "cannot write the key ring in \(settings.dataDirectory): \(error)")
        }
        return ring
    }

    /// Without a key, nobody beyond this machine is listened to unless the operator says so.
    private static func settings(
        _ settings: NodeSettings,
        _ keyRing: KeyRing?,
        _ logger: Logger
    ) throws(CommandError) -> NodeSettings {
        guard keyRing == nil else { return settings }
        let address = try endpoint(settings.clusterListen).address
        if address.isLoopback { return settings }
        if settings.isInsecure {
            logger.warning(
                "nodes talk in the clear: whoever reaches the cluster port can take the cluster over",
                metadata: ["cluster": "\(settings.clusterListen)", "because": "--insecure and no --cluster-key-file"]
            )
            return settings
        }
        let isMeantForOthers = settings.advertise != nil || settings.seeds.contains { !NodeSettings.isLoopback($0) }
        guard address.isUnspecified, !isMeantForOthers else {
            throw CommandError(
                .usage,
                "nodes would talk in the clear on \(settings.clusterListen): give all of them one --cluster-key-file "
                    + "('henge keyring generate' makes a key), or say --insecure"
            )
        }
        var local = settings
        local.clusterListen.host = if case .v6 = address { "::1" } else { "127.0.0.1" }
        logger.warning(
            "no cluster key: other nodes are listened to on loopback only; give --cluster-key-file, or say --insecure",
            metadata: ["cluster": "\(local.clusterListen)"]
        )
        return local
    }

    /// Where others reach a socket that listens on every address.
    private static func shown(_ endpoint: Endpoint, _ advertised: IPAddress) -> Endpoint {
        endpoint.address.isUnspecified ? Endpoint(advertised, port: endpoint.port) : endpoint
    }

    private static func endpoint(_ place: HostAndPort) throws(CommandError) -> Endpoint {
        switch Resolver.look(up: place) {
        case .success(let endpoints):
            guard let first = endpoints.first else { throw CommandError(.usage, "\(place.host) has no address") }
            return first
        case .failure(let error): throw CommandError(.usage, "cannot listen on \(place): \(error)")
        }
    }

    /// The address that other nodes are told: the setting; what the node listens on; or this end of the route to a seed.
    private static func advertisedAddress(_ settings: NodeSettings) throws(CommandError) -> IPAddress {
        if let advertise = settings.advertise {
            return try endpoint(HostAndPort(host: advertise, port: settings.clusterListen.port)).address
        }
        let listening = try endpoint(settings.clusterListen).address
        guard listening.isUnspecified else { return listening }
        for seed in settings.seeds {
            guard case .success(let endpoints) = Resolver.look(up: seed) else { continue }
            for endpoint in endpoints {
                if let address = try? Socket.localAddress(toward: endpoint), !address.isUnspecified { return address }
            }
        }
        // Without a seed that resolves: this end of the way out. Nothing is sent (a test network of RFC 5737).
        let outside = Endpoint(.v4(203 << 24 | 113 << 8 | 1), port: settings.clusterListen.port)
        return (try? Socket.localAddress(toward: outside)) ?? .v4(127 << 24 | 1)
    }
}

extension LogLevel {
    var level: Logger.Level {
        switch self {
        case .trace: .trace
        case .debug: .debug
        case .info: .info
        case .notice: .notice
        case .warning: .warning
        case .error: .error
        case .critical: .critical
        }
    }
}

/// The node's state in one line, for the service manager.
enum StatusLine {
    static func text(_ snapshot: ClusterSnapshot) -> String {
        let up = snapshot.members.count { $0.record.lifecycle == .up && $0.record.isLiving }
        var text = "\(up)/\(snapshot.members.count) nodes"
        if let drain = snapshot.drains.last, drain.state == .running, drain.total > 0 {
            text += ", draining \(100 * (drain.total - drain.left) / drain.total) %"
        }
        if snapshot.isReady { return text + ", serving" }
        return text + ", " + snapshot.notReadyBecause.joined(separator: "; ")
    }
}
