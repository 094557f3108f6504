private import Glibc
package import Logging

/// Where the program's log goes.
package enum LogOutput: String, CaseIterable, Hashable, Sendable {
    /// The journal if standard error is its stream, else standard error.
    case auto
    case journal
    case stderr

    /// Sets up swift-log for the whole process; may be called once. Keep the writer: it is flushed before the process
    /// ends, and counts what was dropped.
    package static func bootstrap(
        _ output: LogOutput = .auto,
        level: Logger.Level,
        environment: [String: String]
    ) -> LogWriter {
        let writer = LogWriter(output.destination(environment: environment))
        LoggingSystem.bootstrap { label in
            QueuedLogHandler(label: label, level: level, writer: writer)
        }
        return writer
    }

    func destination(environment: [String: String]) -> LogWriter.Destination {
        switch self {
        case .journal: return .journal
        case .auto where Self.isJournal(descriptor: 2, stream: environment["JOURNAL_STREAM"]): return .journal
        case .auto, .stderr:
            guard isatty(2) == 1 else { return .descriptor(2, .logfmt) }
            let isPlain = environment["NO_COLOR"].map { !$0.isEmpty } ?? false
            return .descriptor(2, .readable(colour: !isPlain && environment["TERM"] != "dumb"))
        }
    }

    /// Whether a descriptor is the stream that the journal gave this process (`DEVICE:INODE`). The variable alone says
    /// nothing: it is inherited by programs whose output goes elsewhere.
    static func isJournal(descriptor: Int32, stream: String?) -> Bool {
        guard let parts = stream?.split(separator: ":"), parts.count == 2, let device = UInt64(parts[0]),
            let inode = UInt64(parts[1])
        else { return false }
        var status = stat()
        return fstat(descriptor, &status) == 0 && status.st_dev == device && status.st_ino == inode
    }
}

/// Hands messages to a writer.
package struct QueuedLogHandler: LogHandler {
    package var logLevel: Logger.Level
    package var metadata: Logger.Metadata = [:]
    package var metadataProvider: Logger.MetadataProvider?
    private let label: String
    private let writer: LogWriter

    package init(label: String, level: Logger.Level, writer: LogWriter) {
        self.label = label
        logLevel = level
        self.writer = writer
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var all = metadata
        if let provided = metadataProvider?.get() { all.merge(provided) { _, new in new } }
        if let own = event.metadata { all.merge(own) { _, new in new } }
        if let error = event.error { all["error"] = .string("\(error)") }
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        writer.write(
            LogRecord(
                level: event.level,
                label: label,
                message: event.message.description,
                metadata: all,
                file: event.file,
                function: event.function,
                line: event.line,
                microseconds: Int64(now.tv_sec) * 1_000_000 + Int64(now.tv_nsec) / 1000
            )
        )
    }
}
