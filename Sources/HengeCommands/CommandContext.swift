package import Settings

/// How a command ended, as an exit code.
package enum ExitStatus: Int32, Hashable, Sendable {
    case done = 0
    case failed = 1
    /// A wrong flag, an unreadable file, a port in use.
    case usage = 2
    /// `status`: copies, slices or members are missing. `doctor`: something was found.
    case degraded = 3
    /// A safety check said no.
    case refused = 4
    /// No node answered.
    case unreachable = 5
    /// Waiting took too long; what was begun goes on.
    case timedOut = 124
    /// Interrupted; what was begun goes on.
    case interrupted = 130
}

/// A command that cannot go on: the exit code, and one line for standard error.
package struct CommandError: Error, Hashable, Sendable, CustomStringConvertible {
    package var status: ExitStatus
    package var description: String

    package init(_ status: ExitStatus, _ description: String) {
        self.status = status
        self.description = description
    }
}

/// All that commands touch of the world; tests make one up.
package struct CommandContext: Sendable {
    /// The program's version.
    package var version: String
    package var environment: [String: String]
    package var host: HostFacts
    /// Writes to standard output, as given.
    package var output: @Sendable (String) -> Void
    /// Writes to standard error, as given.
    package var complain: @Sendable (String) -> Void
    /// Reads a line of an answer; nil at the end of the input.
    package var readAnswer: @Sendable () -> String?
    package var isInputTerminal: Bool
    package var isOutputTerminal: Bool
    /// Reads a text file of at most so many bytes.
    package var readFile: @Sendable (_ path: String, _ bytesMax: Int) throws -> String
    /// Runs a node until it is stopped. Throws a `CommandError` where the exit code matters.
    package var start: @Sendable (NodeSettings) async throws -> Void
    /// Between two looks at something that is waited for, in milliseconds.
    package var pollMilliseconds = 500
    /// Between two lines of progress where standard output is no terminal, in milliseconds.
    package var reportMilliseconds = 5000

    package init(
        version: String,
        environment: [String: String],
        host: HostFacts,
        output: @escaping @Sendable (String) -> Void,
        complain: @escaping @Sendable (String) -> Void,
        readAnswer: @escaping @Sendable () -> String?,
        isInputTerminal: Bool,
        isOutputTerminal: Bool,
        readFile: @escaping @Sendable (_ path: String, _ bytesMax: Int) throws -> String,
        start: @escaping @Sendable (NodeSettings) async throws -> Void
    ) {
        self.version = version
        self.environment = environment
        self.host = host
        self.output = output
        self.complain = complain
        self.readAnswer = readAnswer
        self.isInputTerminal = isInputTerminal
        self.isOutputTerminal = isOutputTerminal
        self.readFile = readFile
        self.start = start
    }
}
