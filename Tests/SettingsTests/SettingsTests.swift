import ClusterCore
import Testing

@testable import Settings

private let host = HostFacts(name: "host1", processors: 3, isRoot: true)

private func resolve(
    file: String? = nil,
    environment: [String: String] = [:],
    flags: [FlagValue] = [],
    host: HostFacts = host
) throws(SettingsError) -> ResolvedSettings {
    var layers = SettingsLayers(host: host)
    if let file { layers.file = try SettingsFile(name: "n1.toml", text: file) }
    layers.environment = environment
    layers.flags = flags
    return try layers.resolve()
}

private func flag(_ key: String, _ text: String) -> FlagValue {
    FlagValue(key: key, flag: SettingsTable.setting(key)?.flag ?? "", text: text)
}

private func message(_ body: () throws -> Void) -> String {
    do {
        try body()
        return ""
    } catch {
        return "\(error)"
    }
}

/// A value for every setting that differs from its default, as text and as TOML.
private let others: [(key: String, text: String, toml: String)] = [
    ("name", "n7", "\"n7\""), ("data-dir", "/tmp/n7", "\"/tmp/n7\""), ("workers", "5", "5"), ("zone", "r2", "\"r2\""),
    ("weight", "2.125", "2.125"), ("client.listen", "10.0.0.7,[::1]:99", "[\"10.0.0.7\", \"[::1]:99\"]"),
    ("client.max-connections", "77", "77"), ("client.idle-timeout", "5m", "\"5m\""),
    ("cluster.name", "prod", "\"prod\""), ("cluster.key-file", "/etc/key", "\"/etc/key\""),
    ("cluster.insecure", "true", "true"), ("cluster.gossip", "tcp", "\"tcp\""),
    ("cluster.listen", "10.0.0.7", "\"10.0.0.7\""), ("cluster.advertise", "10.0.0.8", "\"10.0.0.8\""),
    ("cluster.seeds", "a,b:5", "[\"a\", \"b:5\"]"), ("cluster.replicas", "2", "2"),
    ("cluster.partition", "safe", "\"safe\""), ("cluster.fill-delay", "2m", "\"2m\""),
    ("store.memory", "1GiB", "\"1GiB\""), ("store.max-item-size", "2M", "\"2M\""),
    ("stop.on-stop", "drain", "\"drain\""),
    ("admin.listen", "[::1]", "\"[::1]\""), ("log.level", "debug", "\"debug\""),
]

private func expectOthers(_ settings: NodeSettings) {
    #expect(settings.name == "n7")
    #expect(settings.dataDirectory == "/tmp/n7")
    #expect(settings.workers == 5)
    #expect(settings.zone == "r2")
    #expect(settings.weightThousandths == 2125)
    #expect(settings.clientListen.map(\.description) == ["10.0.0.7:11211", "[::1]:99"])
    #expect(settings.maxConnections == 77)
    #expect(settings.idleTimeoutSeconds == 300)
    #expect(settings.clusterName == "prod")
    #expect(settings.clusterKeyFile == "/etc/key" && settings.isInsecure && settings.gossip == .tcp)
    #expect(settings.clusterListen.description == "10.0.0.7:11212")
    #expect(settings.advertise == "10.0.0.8")
    #expect(settings.seeds.map(\.description) == ["a:11212", "b:5"])
    #expect(settings.replicas == 2)
    #expect(settings.partition == .safe)
    #expect(settings.fillDelaySeconds == 120)
    #expect(settings.memoryBytes == 1 << 30)
    #expect(settings.itemBytesMax == 2 << 20)
    #expect(settings.onStop == .drain)
    #expect(settings.adminListen.description == "[::1]:11213")
    #expect(settings.logLevel == .debug)
}

@Suite struct LayerTests {
    @Test func `the defaults are those of the documentation`() throws {
        let settings = try resolve().settings
        #expect(settings.name == "host1")
        #expect(settings.dataDirectory == "/var/lib/henge/host1")
        #expect(settings.clientListen == [HostAndPort(host: "0.0.0.0", port: 11211)])
        #expect(settings.clusterListen == HostAndPort(host: "0.0.0.0", port: 11212))
        #expect(settings.adminListen == HostAndPort(host: "127.0.0.1", port: 11213))
        #expect(settings.advertise == nil && settings.seeds.isEmpty && settings.clusterName == "henge")
        #expect(settings.clusterKeyFile == nil && !settings.isInsecure && settings.gossip == .udp)
        #expect(settings.replicas == 1 && settings.memoryBytes == 67_108_864 && settings.workers == 3)
        #expect(settings.itemBytesMax == 1_048_576 && settings.maxConnections == 1024)
        #expect(settings.partition == .auto && settings.zone.isEmpty && settings.weightThousandths == 1000)
        #expect(settings.fillDelaySeconds == 30 && settings.onStop == .handOver && settings.logLevel == .info)
    }

    @Test func `the table of other values names every setting`() {
        #expect(others.map(\.key).sorted() == SettingsTable.all.map(\.key).sorted())
        #expect(Set(SettingsTable.all.map(\.flag)).count == SettingsTable.all.count)
        #expect(Set(SettingsTable.all.map(\.environmentName)).count == SettingsTable.all.count)
    }

    @Test func `every setting can be set by flag`() throws {
        let resolved = try resolve(flags: others.map { flag($0.key, $0.text) })
        expectOthers(resolved.settings)
        for setting in SettingsTable.all { #expect(resolved.origin(of: setting) == .flag(setting.flag)) }
    }

    @Test func `every setting can be set by environment`() throws {
        var environment: [String: String] = [:]
        for other in others { environment[try #require(SettingsTable.setting(other.key)).environmentName] = other.text }
        let resolved = try resolve(environment: environment)
        expectOthers(resolved.settings)
        for setting in SettingsTable.all {
            #expect(resolved.origin(of: setting) == .environment(setting.environmentName))
        }
    }

    @Test func `every setting can be set by file`() throws {
        let text = SettingsDocument.render { setting in
            "\(setting.lastKey) = \(others.first { $0.key == setting.key }?.toml ?? "")"
        }
        let resolved = try resolve(file: text)
        expectOthers(resolved.settings)
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated()
        where line.contains(" = ") {
            let place = SettingOrigin.file("n1.toml:\(index + 1):1")
            #expect(SettingsTable.all.contains { resolved.origin(of: $0) == place }, "no setting is from \(place)")
        }
    }

    @Test func `flags come before the environment before the file before defaults`() throws {
        let file = "[cluster]\nreplicas = 2\nname = \"file\"\n[store]\nmemory = 33554432\n"
        let environment = ["HENGE_CLUSTER_REPLICAS": "3", "HENGE_CLUSTER_NAME": "environment", "HOME": "/root"]
        let resolved = try resolve(file: file, environment: environment, flags: [flag("cluster.replicas", "4")])
        #expect(resolved.settings.replicas == 4)
        #expect(resolved.settings.clusterName == "environment")
        #expect(resolved.settings.memoryBytes == 32 << 20)
        let origins = ["cluster.replicas", "cluster.name", "store.memory", "zone"].compactMap(SettingsTable.setting)
            .map { resolved.origin(of: $0).description }
        #expect(origins == ["--replicas", "HENGE_CLUSTER_NAME", "n1.toml:5:1", "default"])
    }

    @Test func `the data directory follows the name unless it is given`() throws {
        #expect(try resolve(flags: [flag("name", "n2")]).settings.dataDirectory == "/var/lib/henge/n2")
        var user = HostFacts(name: "h", processors: 1, isRoot: false, home: "/home/ann")
        #expect(try resolve(host: user).settings.dataDirectory == "/home/ann/.local/state/henge/h")
        user.stateHome = "/home/ann/state"
        #expect(try resolve(host: user).settings.dataDirectory == "/home/ann/state/henge/h")
        user.stateDirectory = "/var/lib/private/a:/var/lib/private/b"
        #expect(try resolve(host: user).settings.dataDirectory == "/var/lib/private/a")
        #expect(try resolve(file: "data-dir = \"/d\"", host: user).settings.dataDirectory == "/d")
    }

    @Test func `an empty variable counts as not set, and a service link as no setting`() throws {
        let environment = [
            "HENGE_CLUSTER_SEEDS": "", "HENGE_NODE": "10.0.0.1", "HENGE_SERVICE_HOST": "10.3.0.1",
            "HENGE_PORT": "tcp://10.3.0.1:11211", "HENGE_PORT_11211_TCP_ADDR": "10.3.0.1",
        ]
        #expect(try resolve(environment: environment).settings.seeds.isEmpty)
    }

    @Test func `a client port replaces the port of every place`() throws {
        var layers = SettingsLayers(host: host)
        layers.file = try SettingsFile(name: "f", text: "[client]\nlisten = [\"10.0.0.1\", \"10.0.0.2:9\"]")
        layers.clientPort = 11300
        #expect(try layers.resolve().settings.clientListen.map(\.description) == ["10.0.0.1:11300", "10.0.0.2:11300"])
    }
}

@Suite struct MessageTests {
    @Test(arguments: [
        ("\n\n  [cluster]\n  replica = 1", "n1.toml:4:3: unknown key 'replica' in [cluster]; did you mean 'replicas'?"),
        ("nam = \"x\"", "n1.toml:1:1: unknown key 'nam'; did you mean 'name'?"),
        ("[cluster]\nmemory = 5", "n1.toml:2:1: unknown key 'memory' in [cluster]; did you mean 'memory' in [store]?"),
        ("replicas = 5", "n1.toml:1:1: unknown key 'replicas'; did you mean 'replicas' in [cluster]?"),
        ("[clustre]\nreplicas = 5", "n1.toml:1:1: unknown key 'clustre'; did you mean [cluster]?"),
        ("[store]\nxyzzy-plugh = 5", "n1.toml:2:1: unknown key 'xyzzy-plugh' in [store]"),
        ("cluster.replica = 1", "n1.toml:1:1: unknown key 'replica' in [cluster]; did you mean 'replicas'?"),
        ("cluster = 3", "n1.toml:1:1: 'cluster' is a section: write [cluster]"),
        ("store = {memry = 3}", "n1.toml: unknown key 'memry' in [store]; did you mean 'memory'?"),
        ("a\0b = 3", "n1.toml: a zero byte is no TOML"),
        (
            "[cluster]\nreplicas = 9",
            "n1.toml:2:1: cluster.replicas: 9 is not a whole number from 0 to 4"
        ),
        (
            "[cluster]\nreplicas = \"1\"",
            "n1.toml:2:1: cluster.replicas: \"1\" is not a whole number from 0 to 4"
        ),
        ("name = 5", "n1.toml:1:1: name: 5 is not a string"),
        ("name = true", "n1.toml:1:1: name: true is not a string"),
        (
            "[client]\nlisten = [1]",
            "n1.toml:2:1: client.listen: a list of other things than strings is not a list of strings"
        ),
        (
            "[store]\nmemory = \"64X\"",
            "n1.toml:2:1: store.memory: \"64X\" is not a size such as 512K, 64M, 1GiB or a number of bytes"
        ),
        ("[store]\nmemory = 64", "n1.toml:2:1: store.memory: 64 is not a size from 8MiB to 64TiB"),
        (
            "weight = 0.0001",
            "n1.toml:1:1: weight: 0.0001 is not a number from 0.001 to 100.0 with at most three decimals"
        ),
        (
            "[stop]\non-stop = \"handover\"",
            "n1.toml:2:1: stop.on-stop: \"handover\" is not one of hand-over, drain, none"
        ),
    ])
    func `a file's error says where and what`(_ text: String, _ expected: String) {
        #expect(message { _ = try resolve(file: text) } == expected)
    }

    @Test func `what is no TOML is told with line and column`() {
        let text = message { _ = try resolve(file: "name = \"a\"\n[cluster\n") }
        #expect(text.hasPrefix("n1.toml:2:") && !text.contains("\n"), "\(text)")
    }

    @Test(arguments: [
        ("HENGE_CLUSTER_REPLICA", "did you mean HENGE_CLUSTER_REPLICAS?"),
        ("HENGE_SEEDS", "did you mean HENGE_CLUSTER_SEEDS?"),
        ("HENGE_CLIENT_PORT", "unknown environment variable HENGE_CLIENT_PORT"),
        ("HENGE_XYZZYPLUGHFROTZ", "unknown environment variable HENGE_XYZZYPLUGHFROTZ"),
    ])
    func `an unknown variable is an error`(_ name: String, _ expected: String) {
        let text = message { _ = try resolve(environment: [name: "1"]) }
        #expect(text.hasPrefix("unknown environment variable \(name)") && text.contains(expected), "\(text)")
    }

    @Test func `values of flags and variables are told with their names`() {
        #expect(
            message { _ = try resolve(flags: [flag("cluster.replicas", "x")]) }
                == "--replicas: 'x' is not a whole number from 0 to 4"
        )
        #expect(
            message { _ = try resolve(environment: ["HENGE_CLUSTER_FILL_DELAY": "2d"]) }
                == "HENGE_CLUSTER_FILL_DELAY: '2d' is not a time such as 30s, 5m or 1h, from 0 to 86400 seconds"
        )
        #expect(
            message {
                _ = try resolve(flags: [
                    flag("workers", "2"), FlagValue(key: "workers", flag: "-t", text: "3"),
                ])
            } == "--workers and -t set the same thing: give one of them"
        )
    }

    @Test(arguments: [
        ([("name", "a/b")], "name 'a/b'"), ([("name", "")], "name ''"), ([("name", ".x")], "name '.x'"),
        ([("cluster.name", "")], "cluster name"), ([("client.listen", "")], "client.listen is empty"),
        (
            [("store.memory", "8M"), ("store.max-item-size", "5M")],
            "max-item-size 5MiB is more than half of memory 8MiB"
        ),
        (
            [("client.listen", "127.0.0.1:11212")],
            "client.listen 127.0.0.1:11212 and cluster.listen 0.0.0.0:11212 share"
        ),
        ([("cluster.advertise", "0.0.0.0")], "advertise 0.0.0.0 is no address"),
        ([("cluster.advertise", "a b")], "advertise 'a b' is neither"),
        ([("cluster.advertise", "10.0.0.1:5")], "advertise '10.0.0.1:5' is neither"),
        (
            [("cluster.advertise", "127.0.0.1"), ("cluster.seeds", "10.0.0.1")],
            "loopback address, which seed 10.0.0.1:11212"
        ),
        ([("cluster.listen", "127.0.0.1"), ("cluster.seeds", "::1,db1")], "loopback address, which seed db1:11212"),
        ([("cluster.advertise", "localhost"), ("cluster.seeds", "db1")], "loopback address, which seed db1:11212"),
        ([("cluster.advertise", "169.254.3.1"), ("cluster.seeds", "db1")], "link-local address"),
        ([("cluster.advertise", "fe80::1"), ("cluster.seeds", "db1")], "link-local address"),
    ])
    func `contradictions are named`(_ values: [(String, String)], _ expected: String) {
        let text = message { _ = try resolve(flags: values.map { flag($0.0, $0.1) }) }
        #expect(text.contains(expected), "\(text)")
    }

    @Test func `what only looks like a contradiction passes`() throws {
        _ = try resolve(flags: [
            flag("cluster.listen", "127.0.0.1"), flag("cluster.seeds", "127.0.0.1:5,localhost,[::1]"),
        ])
        _ = try resolve(flags: [flag("client.listen", "0.0.0.0:11211,[::]:11211")])
        _ = try resolve(flags: [flag("cluster.seeds", "10.0.0.1")])
        _ = try resolve(flags: [flag("cluster.advertise", "fd00::1"), flag("cluster.seeds", "db1")])
        #expect(try resolve().settings.warnings.isEmpty)
        #expect(try resolve(flags: [flag("admin.listen", "0.0.0.0")]).settings.warnings.count == 1)
    }

    @Test func `shards leave room for two of the largest items`() throws {
        var settings = NodeSettings(host: host)
        #expect(settings.shardCount == 4)
        settings.memoryBytes = 8 << 20
        #expect(settings.shardCount == 1)
        settings.memoryBytes = 1 << 30
        #expect(settings.shardCount == 12)
        settings.itemBytesMax = 128 << 20
        #expect(settings.shardCount == 4)
        try settings.validate()
    }
}

@Suite struct DocumentTests {
    @Test func `the sample without its comment signs is the defaults`() throws {
        let sampleHost = HostFacts(name: "n1", processors: 4, isRoot: true)
        let sample = SettingsDocument.sample(host: sampleHost)
        let text = sample.split(separator: "\n").map { line in
            line.hasPrefix("#") && !line.hasPrefix("# ") ? String(line.dropFirst()) : String(line)
        }.joined(separator: "\n")
        let resolved = try resolve(file: text, host: sampleHost)
        #expect(resolved.settings == NodeSettings(host: sampleHost))
        for setting in SettingsTable.all {
            #expect(resolved.origin(of: setting) != .builtIn, "\(setting.key) is not in the sample")
        }
        #expect(try resolve(file: sample).settings == NodeSettings(host: host))
    }

    @Test func `what is printed reads back as the same settings`() throws {
        let settings = try resolve(flags: others.map { flag($0.key, $0.text) }).printed()
        #expect(settings.contains("replicas = 2  # --replicas\n"))
        expectOthers(try resolve(file: settings).settings)
        let odd = try resolve(flags: [flag("zone", "a\"b\\c é"), flag("name", "n")])
        #expect(try resolve(file: odd.printed()).settings == odd.settings)
    }

    @Test func `damaged files are errors and never traps`() throws {
        let seed: UInt64 = 0x5e77
        var random = Xoshiro256(seed: seed)
        let sample = Array(try resolve(flags: others.map { flag($0.key, $0.text) }).printed().utf8)
        for _ in 0..<300 {
            var bytes = sample
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                let index = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: bytes[index] = UInt8.random(in: 1...126, using: &random)
                case 1: bytes.remove(at: index)
                default: bytes.insert(UInt8(ascii: "\""), at: index)
                }
            }
            let text = message { _ = try resolve(file: String(decoding: bytes, as: UTF8.self)) }
            #expect(!text.contains("\n"), "seed \(seed): \(text)")
        }
    }
}

@Suite struct UnitTests {
    @Test(arguments: [
        ("0", 0), ("64", 64), ("1k", 1024), ("64M", 67_108_864), ("64MiB", 67_108_864), ("64mb", 67_108_864),
        ("1GiB", 1_073_741_824), ("2T", 2_199_023_255_552), ("7b", 7),
    ])
    func `sizes`(_ text: String, _ bytes: Int) {
        #expect(Units.bytes(text) == bytes)
        #expect(Units.bytes(Units.text(bytes: bytes)) == bytes)
    }

    @Test(arguments: ["", "M", "-1", "1.5M", "1 M", "1MM", "9999999999999T", "99999999999999999999", "+1", "٣"])
    func `what is no size`(_ text: String) {
        #expect(Units.bytes(text) == nil)
        #expect(Units.seconds(text) == nil)
    }

    @Test func `times and decimals`() {
        #expect(Units.seconds("30") == 30 && Units.seconds("30s") == 30 && Units.seconds("5m") == 300)
        #expect(Units.seconds("2h") == 7200 && Units.seconds("2d") == nil)
        #expect(Units.decimal(thousandths: 1000) == "1.0" && Units.decimal(thousandths: 1) == "0.001")
        #expect(Units.decimal(thousandths: 12_340) == "12.34" && Units.decimal(thousandths: 50) == "0.05")
    }

    @Test func `the distance of two words is that of the plain recursion`() {
        func plain(_ a: ArraySlice<UInt8>, _ b: ArraySlice<UInt8>) -> Int {
            guard let x = a.last, let y = b.last else { return max(a.count, b.count) }
            let (restA, restB) = (a.dropLast(), b.dropLast())
            var best = min(plain(restA, restB) + (x == y ? 0 : 1), plain(restA, b) + 1, plain(a, restB) + 1)
            if let u = restA.last, let v = restB.last, x == v, y == u {
                best = min(best, plain(restA.dropLast(), restB.dropLast()) + 1)
            }
            return best
        }
        let seed: UInt64 = 11
        var random = Xoshiro256(seed: seed)
        func word() -> [UInt8] {
            (0..<Int.random(in: 0...5, using: &random)).map { _ in UInt8.random(in: 97...99, using: &random) }
        }
        for _ in 0..<200 {
            let (a, b) = (word(), word())
            #expect(Spelling.distance(a, b) == plain(a[...], b[...]), "seed \(seed): \(a) \(b)")
        }
    }
}
