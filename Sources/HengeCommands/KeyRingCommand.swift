import AdminServer
import ArgumentParser
import Sealing
import Settings

/// Shows and changes the cluster's keys.
struct KeyRingCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keyring",
        abstract: "Show and change the cluster's keys.",
        discussion: """
            Nodes seal what they say to each other under keys that derive from a cluster key. Several may be in the \
            ring, so that one can follow another while the cluster runs: every node opens what is sealed with any of \
            them, and seals with one. A change that is made at one node goes to all, and to those that are down when \
            they are back.
            """,
        subcommands: [List.self, Generate.self, Rotate.self, Install.self, Use.self, Remove.self]
    )

    struct List: ContextCommand {
        static let configuration = CommandConfiguration(abstract: "Show which keys there are and who has them.")

        @OptionGroup var client: ClientOptions
        @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

        func run(in context: CommandContext) async throws -> ExitStatus {
            let asked = AdminClient(address: try client.address(in: context), deadline: try client.deadline())
            try KeyRingCommand.show(try await asked.keyRing(), output, context)
            return .done
        }
    }

    struct Generate: ContextCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print a new key, for the file of --cluster-key-file.",
            discussion: "Asks no node. Keep the file where only the node's user can read it."
        )

        func run(in context: CommandContext) async throws -> ExitStatus {
            var random = SystemRandomNumberGenerator()
            context.output(ClusterKeyText.text(of: ClusterKey(using: &random)) + "\n")
            return .done
        }
    }

    struct Install: ContextCommand {
        static let configuration = CommandConfiguration(
            abstract: "Have all nodes open what is sealed with another key.",
            discussion: "Without a file the node draws a new key, which is then seen by nobody."
        )

        @Argument(help: "a file with the key in base64") var file: String?
        @OptionGroup var client: ClientOptions
        @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

        func run(in context: CommandContext) async throws -> ExitStatus {
            let key = try file.map { try ClusterKeyText.read($0, context.readFile($0, ClusterKeyText.fileBytesMax)) }
            let asked = AdminClient(address: try client.address(in: context), deadline: try client.deadline())
            let report = try await asked.changeKeys("install", key: key.map { ClusterKeyText.text(of: $0) })
            try KeyRingCommand.show(report, output, context)
            return .done
        }
    }

    struct Use: ContextCommand {
        static let configuration = CommandConfiguration(
            abstract: "Have all nodes seal with a key of the ring.",
            discussion: "Refused while a living node lacks the key."
        )

        @Argument(help: "the key's id") var id: String
        @OptionGroup var client: ClientOptions
        @Flag(name: .long, help: "also where living nodes lack the key and lose touch") var force = false
        @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

        func run(in context: CommandContext) async throws -> ExitStatus {
            let asked = AdminClient(address: try client.address(in: context), deadline: try client.deadline())
            try KeyRingCommand.show(try await asked.changeKeys("use", id: id, force: force), output, context)
            return .done
        }
    }

    struct Remove: ContextCommand {
        static let configuration = CommandConfiguration(
            abstract: "Have all nodes trust a key no more.",
            discussion:
                "Refused for the key in use, and while a node, also one that is down, does not seal with that one."
        )

        @Argument(help: "the key's id") var id: String
        @OptionGroup var client: ClientOptions
        @Flag(name: .long, help: "also where nodes that are down would not find back") var force = false
        @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

        func run(in context: CommandContext) async throws -> ExitStatus {
            let asked = AdminClient(address: try client.address(in: context), deadline: try client.deadline())
            try KeyRingCommand.show(try await asked.changeKeys("remove", id: id, force: force), output, context)
            return .done
        }
    }

    /// A whole rotation: a new key, which then replaces the one in use.
    struct Rotate: ContextCommand {
        static let configuration = CommandConfiguration(
            abstract: "Replace the key in use by a new one on all nodes.",
            discussion: """
                Installs a new key that the node draws, waits until every living node has it, has all seal with it, \
                waits until they do, and removes the old one. Where a node is down the old key stays, so that it finds \
                back: remove it when all have the new one. Safe to interrupt: the steps that are left can be done one \
                by one.
                """
        )

        @OptionGroup var client: ClientOptions
        @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

        func run(in context: CommandContext) async throws -> ExitStatus {
            let asked = AdminClient(address: try client.address(in: context), deadline: try client.deadline())
            let before = try await asked.keyRing()
            guard let old = before.keys.first else { throw CommandError(.failed, "the node names no key") }
            func say(_ line: String) { if output == .table { context.output(line + "\n") } }

            var report = try await asked.changeKeys("install")
            report = try await wait(asked, context) { $0.keys.count > before.keys.count ? [] : [$0.node] }
            guard let new = report.keys.first(where: { !before.keys.contains($0) }) else {
                throw CommandError(.failed, "the node names no new key")
            }
            say("installing key \(new)")
            _ = try await wait(asked, context) { $0.lacking(new, livingOnly: true) }
            _ = try await asked.changeKeys("use", id: new)
            say("sealing with key \(new)")
            report = try await wait(asked, context) { $0.sealingOtherwise(than: new, livingOnly: true) }
            let away = report.sealingOtherwise(than: new, livingOnly: false)
            if away.isEmpty {
                _ = try await asked.changeKeys("remove", id: old)
                say("removing key \(old)")
                report = try await wait(asked, context) { report in
                    report.members.filter { $0.keys?.contains(old) == true }.map(\.name)
                }
            } else {
                let names = away.map(StatusText.safe).joined(separator: ", ")
                say("key \(old) stays: \(names) will need it to find back; remove it when all have key \(new)")
            }
            try KeyRingCommand.show(report, output, context)
            return .done
        }

        /// Asks until nobody is named any more.
        private func wait(
            _ asked: AdminClient,
            _ context: CommandContext,
            for missing: (KeyRingReport) -> [String]
        ) async throws -> KeyRingReport {
            while true {
                let report = try await asked.keyRing()
                let names = missing(report)
                if names.isEmpty { return report }
                if asked.deadline.hasPassed {
                    throw CommandError(
                        .timedOut,
                        "waited \(asked.deadline.text) for \(names.joined(separator: ", ")); what was begun goes on"
                    )
                }
                let pause = min(context.pollMilliseconds, 100)
                try await Task.sleep(nanoseconds: UInt64(pause) * 1_000_000)
            }
        }
    }

    private static func show(_ report: KeyRingReport, _ output: OutputForm, _ context: CommandContext) throws {
        guard output == .table else {
            context.output(try JSONText.render(report))
            return
        }
        var text = ""
        for (index, key) in report.keys.enumerated() {
            let lacking = report.members.filter { $0.keys?.contains(key) != true }.map { member in
                StatusText.safe(member.name) + (member.living ? "" : " (down)")
            }
            text += "key \(key)   \(index == 0 ? "seals" : "opens")   "
            text +=
                lacking.isEmpty
                ? "all \(report.members.count) members have it\n" : "lacking: \(lacking.joined(separator: ", "))\n"
        }
        context.output(text)
    }
}
