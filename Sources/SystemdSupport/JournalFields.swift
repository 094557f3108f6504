import Logging

/// Turns a message into the fields of a journal entry.
///
/// journald drops a field whose name is not made of `A` to `Z`, digits and `_`, begins with `_` or a digit, or is
/// longer than 64 characters, and reports success all the same. So names are made to fit: `drain.id` becomes
/// `HENGE_DRAIN_ID`. With that prefix metadata never replaces `MESSAGE` or `PRIORITY`.
package enum JournalFields {
    /// The longest name of a field, in characters.
    private static let nameCharactersMax = 64
    /// The longest value, in bytes; longer ones are cut. The journal takes more, but a reader does not.
    package static let valueBytesMax = 48 << 10
    /// The most metadata fields of one message.
    package static let metadataFieldsMax = 64

    /// `NAME=value` for each field, as sd_journal_sendv(3) takes them. Values may hold any bytes.
    package static func encode(_ record: LogRecord) -> [[UInt8]] {
        var fields = [
            field("MESSAGE", record.message), field("PRIORITY", String(priority(record.level))),
            field("SYSLOG_IDENTIFIER", "henge"), field("HENGE_LOGGER", record.label),
        ]
        if !record.file.isEmpty {
            fields += [
                field("CODE_FILE", record.file), field("CODE_LINE", String(record.line)),
                field("CODE_FUNC", record.function),
            ]
        }
        for (key, value) in record.metadata.prefix(metadataFieldsMax) { fields.append(field(name(key), value)) }
        return fields
    }

    /// The name of the field for a key of metadata.
    static func name(_ key: String) -> String {
        var name = "HENGE_"
        for byte in key.utf8.prefix(nameCharactersMax - name.count) {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"): name.unicodeScalars.append(Unicode.Scalar(byte - 32))
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"):
                name.unicodeScalars.append(Unicode.Scalar(byte))
            default: name.append("_")
            }
        }
        return name
    }

    /// The severity of syslog(3).
    static func priority(_ level: Logger.Level) -> Int {
        switch level {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }

    private static func field(_ name: String, _ value: String) -> [UInt8] {
        Array(name.utf8) + [UInt8(ascii: "=")] + value.utf8.prefix(valueBytesMax)
    }
}
