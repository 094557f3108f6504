package import Logging

/// A message with all that is known about it, in an order that does not vary.
package struct LogRecord: Sendable {
    package var level: Logger.Level
    package var label: String
    package var message: String
    /// Keys as the program gave them, sorted.
    package var metadata: [(key: String, value: String)]
    package var file: String
    package var function: String
    package var line: UInt
    /// Since 1970 in UTC.
    package var microseconds: Int64

    package init(
        level: Logger.Level,
        label: String,
        message: String,
        metadata: Logger.Metadata,
        file: String = "",
        function: String = "",
        line: UInt = 0,
        microseconds: Int64
    ) {
        self.level = level
        self.label = label
        self.message = message
        self.metadata = metadata.sorted { $0.key < $1.key }.map { ($0.key, Self.text($0.value)) }
        self.file = file
        self.function = function
        self.line = line
        self.microseconds = microseconds
    }

    /// Dictionaries are written in the order of their keys, so that equal values read alike.
    private static func text(_ value: Logger.MetadataValue) -> String {
        switch value {
        case .string(let text): text
        case .stringConvertible(let value): value.description
        case .array(let values): "[" + values.map(text).joined(separator: ", ") + "]"
        case .dictionary(let values):
            "{" + values.sorted { $0.key < $1.key }.map { "\($0.key): \(text($0.value))" }.joined(separator: ", ") + "}"
        }
    }
}
