import ArgumentParser
import ClusterCore
import Foundation
import Settings
import Testing

@testable import HengeCommands

@Suite struct ServeTests {
    /// The long flags of a command, as the parser itself knows them.
    private func longFlags(of command: any ParsableCommand.Type) throws -> Set<String> {
        struct Dump: Decodable {
            struct Command: Decodable { var arguments: [Argument]? }
            struct Argument: Decodable { var names: [Name]? }
            struct Name: Decodable {
                var kind: String
                var name: String
            }
            var command: Command
        }
        let dump = try JSONDecoder().decode(Dump.self, from: Data(command._dumpHelp().utf8))
        let names = (dump.command.arguments ?? []).flatMap { $0.names ?? [] }
        return Set(names.filter { $0.kind == "long" }.map { "--" + $0.name }).subtracting(["--help"])
    }

    @Test func `the flags of serve and config print are those of the table`() throws {
        let table = Set(SettingsTable.all.map(\.flag)).union(["--config"])
        #expect(try longFlags(of: Serve.self) == table)
        #expect(try longFlags(of: Config.Print.self) == table)
    }

    @Test(arguments: SettingsTable.all.map { ($0.key, $0.flag) })
    func `every flag sets its own setting`(_ key: String, _ flag: String) async throws {
        let values = [
            "name": "n7", "data-dir": "/tmp/n7", "workers": "5", "zone": "r2", "weight": "2.5",
            "client.listen": "10.0.0.7", "client.max-connections": "77",
            "client.idle-timeout": "5m", "cluster.name": "prod", "cluster.key-file": "/etc/key",
            "cluster.insecure": "", "cluster.gossip": "tcp",
            "cluster.listen": "10.0.0.7", "cluster.advertise": "10.0.0.8", "cluster.seeds": "a,b",
            "cluster.replicas": "2", "cluster.partition": "safe", "cluster.fill-delay": "5s", "store.memory": "1GiB",
            "store.max-item-size": "2M", "stop.on-stop": "none", "admin.listen": "[::1]", "log.level": "debug",
        ]
        let value = try #require(values[key])
        let recorder = Recorder()
        #expect(await run("config print \(flag) \(value)", recorder.context()) == 0)
        let lines = recorder.output.split(separator: "\n").filter { $0.hasSuffix("  # \(flag)") }
        let lastKey = try #require(SettingsTable.setting(key)).lastKey
        #expect(lines.count == 1 && lines[0].hasPrefix("\(lastKey) = "), "\(recorder.output)")
    }

    @Test func `serve starts a node with what was given`() async throws {
        let recorder = Recorder()
        let code = await run(
            "serve --seeds 10.0.0.1,10.0.0.2 --config n.toml",
            recorder.context(environment: ["HENGE_CLUSTER_REPLICAS": "2"], files: ["n.toml": "name = \"n4\""])
        )
        #expect(code == 0 && recorder.complaints.isEmpty)
        let settings = try #require(recorder.started)
        #expect(settings.name == "n4" && settings.replicas == 2 && settings.seeds.count == 2)
    }

    @Test func `memcached's flags mean what they mean there`() async throws {
        let recorder = Recorder()
        let code = await run("serve -l 127.0.0.1,10.0.0.1:5 -p 11300 -m 128 -c 50 -t 3 -I 2m -vv", recorder.context())
        #expect(code == 0, "\(recorder.complaints)")
        let settings = try #require(recorder.started)
        #expect(settings.clientListen.map(\.description) == ["127.0.0.1:11300", "10.0.0.1:5"])
        #expect(settings.memoryBytes == 128 << 20 && settings.maxConnections == 50 && settings.workers == 3)
        #expect(settings.itemBytesMax == 2 << 20 && settings.logLevel == .trace)
    }

    @Test func `memcached's flags may be joined with their values`() async throws {
        let recorder = Recorder()
        #expect(await run("serve -p11300 -m64 -t3 -v", recorder.context()) == 0, "\(recorder.complaints)")
        let settings = try #require(recorder.started)
        #expect(settings.clientListen.map(\.description) == ["0.0.0.0:11300"])
        #expect(settings.memoryBytes == 64 << 20 && settings.workers == 3 && settings.logLevel == .debug)
    }

    @Test(arguments: [
        ("serve --replica 2", "henge: Unknown option '--replica'. Did you mean '--replicas'?"),
        ("serve --replicas 9", "henge: --replicas: '9' is not a whole number from 0 to 4"),
        ("serve --config none.toml", "henge: cannot read none.toml: no such file"),
        ("serve -p 0", "henge: -p: '0' is not a port"), ("serve -p 5 --listen 1.2.3.4", "henge: -p and --listen set"),
        ("serve -l 1.2.3.4 --listen 1.2.3.4", "henge: --listen and -l set the same thing"),
        ("serve -m x", "henge: -m: 'x' is not a size"), ("serve -v --log-level info", "henge: --log-level and -v set"),
        ("sreve", "henge: "), ("drain", "henge: Missing expected argument"),
        ("status --timeout 3x", "henge: --timeout: '3x' is not a time"),
        ("status -n a/b", "henge: --node: 'a/b' is not"),
        ("status -o yaml", "henge: "),
    ])
    func `wrong usage is one line and exit code 2`(_ line: String, _ message: String) async {
        let recorder = Recorder()
        #expect(await run(line, recorder.context()) == 2)
        #expect(recorder.complaints.hasPrefix(message), "\(recorder.complaints)")
        #expect(recorder.complaints.filter(\.isNewline).count == 1)
        #expect(recorder.output.isEmpty && recorder.started == nil)
    }

    @Test func `what the node fails with is the exit code`() async {
        let recorder = Recorder()
        let failure = CommandError(.usage, "cannot listen on 0.0.0.0:11211: Address already in use")
        #expect(await run("serve", recorder.context(failure: failure)) == 2)
        #expect(recorder.complaints == "henge: cannot listen on 0.0.0.0:11211: Address already in use\n")
    }

    @Test func `an open admin port is warned of`() async {
        let recorder = Recorder()
        #expect(await run("serve --admin 10.0.0.1", recorder.context()) == 0)
        #expect(recorder.complaints.hasPrefix("henge: warning: the admin port 10.0.0.1:11213 is open"))
    }

    @Test func `help, version and sample go to standard output`() async {
        for (line, text) in [
            ("--help", "SUBCOMMANDS"), ("serve --help", "--seeds"), ("version", "henge 9.9\n"),
            ("config sample", "#replicas = 1"), ("help drain", "--detach"),
        ] {
            let recorder = Recorder()
            #expect(await run(line, recorder.context()) == 0, "\(line)")
            #expect(recorder.output.contains(text) && recorder.complaints.isEmpty, "\(line): \(recorder.output)")
        }
    }
}
