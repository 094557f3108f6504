import AdminServer
package import ArgumentParser
import Settings

// The command line.
//
// One program: `serve` runs a node, everything else asks a running one over its admin port, which curl could do as
// well. Commands parse with swift-argument-parser and then run in a `CommandContext`, which is all they see of the
// world, so that tests run them whole. Whoever waits for something asks the cluster, never the connection: a task ends
// by what the cluster says of it (`DrainFollower`), and a command that is interrupted leaves it running.

/// The program `henge`, but for the node itself, which the context's `start` runs.
package enum HengeProgram {
    /// Runs one command.
    ///
    /// - Parameter arguments: without the program's name.
    /// - Returns: the exit code; all messages are written.
    package static func run(_ arguments: [String], in context: CommandContext) async -> Int32 {
        do {
            var command = try Henge.parseAsRoot(arguments)
            if let command = command as? any ContextCommand {
                return try await command.run(in: context).rawValue
            }
            try command.run()
            return ExitStatus.done.rawValue
        } catch {
            return report(error, in: context).rawValue
        }
    }

    private static func report(_ error: any Error, in context: CommandContext) -> ExitStatus {
        switch error {
        case let error as CommandError: return fail(error.status, error.description, context)
        case let error as SettingsError: return fail(.usage, error.description, context)
        case let error as ListenError: return fail(.usage, error.description, context)
        default:
            let code = Henge.exitCode(for: error)
            let message = Henge.message(for: error)
            if code == .success {
                context.output(message + "\n")
                return .done
            }
            return fail(code == .validationFailure ? .usage : .failed, message, context)
        }
    }

    private static func fail(_ status: ExitStatus, _ message: String, _ context: CommandContext) -> ExitStatus {
        let line = message.split(whereSeparator: \.isNewline).joined(separator: " ")
        context.complain("henge: \(line.isEmpty ? "failed" : line)\n")
        return status
    }
}

/// A command that runs in a context.
protocol ContextCommand: ParsableCommand {
    func run(in context: CommandContext) async throws -> ExitStatus
}

/// The root of the commands.
package struct Henge: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "henge",
        abstract: "A memcached-compatible cache cluster.",
        subcommands: [
            Serve.self, Status.self, RingView.self, Drain.self, Undrain.self, Forget.self, Form.self, Brake.self,
            Doctor.self, Events.self, KeyRingCommand.self, Config.self, VersionView.self,
        ]
    )

    package init() {}
}

struct VersionView: ContextCommand {
    static let configuration = CommandConfiguration(commandName: "version", abstract: "Print the program's version.")

    func run(in context: CommandContext) async throws -> ExitStatus {
        context.output("henge \(context.version)\n")
        return .done
    }
}
