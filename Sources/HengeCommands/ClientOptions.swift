import ArgumentParser
import ClusterCore
import Settings

/// Options of all commands that ask a node.
struct ClientOptions: ParsableArguments {
    @Option(
        name: .shortAndLong,
        help: ArgumentHelp(
            "the admin address to ask; $HENGE_NODE, else 127.0.0.1:11213 by default",
            valueName: "ADDR"
        )
    )
    var node: String?

    @Option(
        name: .long,
        help: ArgumentHelp("give up after so long (30s, 5m, 1h); what was begun goes on", valueName: "TIME")
    )
    var timeout: String?

    /// The port of the admin address where none is given.
    static let defaultPort: UInt16 = 11213
    /// How long one request may take, in milliseconds.
    static let requestMilliseconds = 5000

    func address(in context: CommandContext) throws(CommandError) -> HostAndPort {
        let fromEnvironment = context.environment["HENGE_NODE"].flatMap { $0.isEmpty ? nil : $0 }
        let text = node ?? fromEnvironment ?? "127.0.0.1"
        guard let address = HostAndPort(text, defaultPort: Self.defaultPort) else {
            let source = node == nil ? "HENGE_NODE" : "--node"
            throw CommandError(.usage, "\(source): '\(text)' is not HOST, HOST:PORT, [IPv6] or [IPv6]:PORT")
        }
        return address
    }

    /// The time when the command gives up; never without `--timeout`.
    func deadline() throws(CommandError) -> Deadline {
        guard let timeout else { return Deadline(end: nil, text: "") }
        guard let seconds = Units.seconds(timeout), (1...1_000_000).contains(seconds) else {
            throw CommandError(.usage, "--timeout: '\(timeout)' is not a time such as 30s, 5m or 1h")
        }
        return Deadline(end: .now + .seconds(seconds), text: timeout)
    }
}

/// A time when waiting ends.
struct Deadline: Sendable {
    let end: ContinuousClock.Instant?
    let text: String

    var hasPassed: Bool { end.map { $0 <= .now } ?? false }

    /// At least 1.
    var millisecondsLeft: Int {
        guard let end else { return Int(Int32.max) }
        return max(1, Int((end - .now) / .milliseconds(1)))
    }
}

/// How a result is written.
enum OutputForm: String, ExpressibleByArgument, CaseIterable {
    case table
    case json
}
