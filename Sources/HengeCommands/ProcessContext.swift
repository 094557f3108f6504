private import Foundation
package import Settings

extension CommandContext {
    /// The context of this process.
    package static func process(
        version: String,
        start: @escaping @Sendable (NodeSettings) async throws -> Void
    ) -> CommandContext {
        let environment = ProcessInfo.processInfo.environment
        return CommandContext(
            version: version,
            environment: environment,
            host: .current(environment: environment),
            output: { write($0, to: STDOUT_FILENO) },
            complain: { write($0, to: STDERR_FILENO) },
            readAnswer: { readLine() },
            isInputTerminal: isatty(STDIN_FILENO) == 1,
            isOutputTerminal: isatty(STDOUT_FILENO) == 1,
            readFile: { try readFile($0, bytesMax: $1) },
            start: start
        )
    }

    private static func write(_ text: String, to descriptor: Int32) {
        // A reader that went away (`henge status | head -1`) is no error.
        try? FileHandle(fileDescriptor: descriptor, closeOnDealloc: false).write(contentsOf: Data(text.utf8))
    }

    /// Reads a text file of at most so many bytes. Throws a `CommandError` that names it.
    package static func readFile(_ path: String, bytesMax: Int) throws -> String {
        guard let file = FileHandle(forReadingAtPath: path) else {
            throw CommandError(.usage, "cannot read \(path): \(String(cString: strerror(errno)))")
        }
        defer { try? file.close() }
        let data: Data
        do {
            data = try file.read(upToCount: bytesMax + 1) ?? Data()
        } catch {
            throw CommandError(.usage, "cannot read \(path): \(error.localizedDescription)")
        }
        guard data.count <= bytesMax else { throw CommandError(.usage, "\(path) is larger than \(bytesMax) bytes") }
        guard let text = String(validating: data, as: UTF8.self) else {
            throw CommandError(.usage, "\(path) is not UTF-8")
        }
        return text
    }
}
