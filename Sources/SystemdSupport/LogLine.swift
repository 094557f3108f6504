private import Logging

/// Turns a message into one line of text.
package enum LogLine {
    /// The longest line, in bytes; longer ones are cut.
    package static let bytesMax = 16 << 10

    /// For programs: `time=2026-01-02T03:04:05.678Z level=info logger=henge msg="…" key=value`.
    package static func logfmt(_ record: LogRecord) -> [UInt8] {
        var line =
            "time=\(timestamp(record.microseconds)) level=\(record.level.rawValue) logger=\(quoted(record.label))"
        line += " msg=" + quoted(record.message, always: true)
        for (key, value) in record.metadata { line += " \(word(key))=\(quoted(value))" }
        return ended(line)
    }

    /// For people: `03:04:05.678 INFO  message  key=value`, in UTC.
    package static func readable(_ record: LogRecord, colour: Bool) -> [UInt8] {
        let time = timestamp(record.microseconds).dropFirst(11).dropLast()
        let level = record.level.rawValue.uppercased()
        let padding = String(repeating: " ", count: 8 - level.count)
        var line =
            colour ? "\u{1b}[2m\(time)\u{1b}[0m \(colourCode(record.level))\(level)\u{1b}[0m" : "\(time) \(level)"
        line += padding + " " + escaped(record.message)
        for (index, (key, value)) in record.metadata.enumerated() {
            let name = colour ? "\u{1b}[2m\(word(key))=\u{1b}[0m" : "\(word(key))="
            line += (index == 0 ? "  " : " ") + name + quoted(value)
        }
        return ended(line)
    }

    private static func ended(_ line: String) -> [UInt8] {
        Array(line.utf8.prefix(bytesMax - 1)) + [UInt8(ascii: "\n")]
    }

    private static func colourCode(_ level: Logger.Level) -> String {
        switch level {
        case .trace, .debug: "\u{1b}[2m"
        case .info, .notice: "\u{1b}[32m"
        case .warning: "\u{1b}[33m"
        case .error, .critical: "\u{1b}[31m"
        }
    }

    /// Plain words stay as they are; what has spaces, quotes or control characters is quoted.
    private static func quoted(_ text: String, always: Bool = false) -> String {
        let isPlain =
            !text.isEmpty
            && text.unicodeScalars.allSatisfy {
                $0.value > 0x20 && $0.value != 0x7f && $0 != "\"" && $0 != "=" && $0 != "\\"
            }
        return isPlain && !always ? text : "\"" + escaped(text, quotes: true) + "\""
    }

    /// Control characters are written out, or a value could end the line or colour the terminal.
    private static func escaped(_ text: String, quotes: Bool = false) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\n": result += "\\n"
            case "\"" where quotes: result += "\\\""
            case "\\" where quotes: result += "\\\\"
            case _ where scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value):
                result += "\\x" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    private static func word(_ key: String) -> String {
        String(key.map { $0.isLetter || $0.isNumber || $0 == "." || $0 == "_" || $0 == "-" ? $0 : "_" })
    }

    /// `2026-01-02T03:04:05.678Z`: the date by the calendar that repeats every 400 years (Howard Hinnant,
    /// "chrono-compatible low-level date algorithms").
    static func timestamp(_ microseconds: Int64) -> String {
        let seconds = microseconds.dividedFloor(by: 1_000_000)
        let milliseconds = (microseconds - seconds * 1_000_000) / 1000
        let day = seconds.dividedFloor(by: 86_400)
        let second = seconds - day * 86_400
        let shifted = day + 719_468  // days since 0000-03-01
        let era = shifted.dividedFloor(by: 146_097)
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let date = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        return digits(year, 4) + "-" + digits(month, 2) + "-" + digits(date, 2) + "T" + digits(second / 3600, 2) + ":"
            + digits(second / 60 % 60, 2) + ":" + digits(second % 60, 2) + "." + digits(milliseconds, 3) + "Z"
    }

    private static func digits(_ value: Int64, _ count: Int) -> String {
        let text = String(value)
        return String(repeating: "0", count: max(0, count - text.count)) + text
    }
}

extension Int64 {
    fileprivate func dividedFloor(by divisor: Int64) -> Int64 {
        self >= 0 ? self / divisor : -((-self + divisor - 1) / divisor)
    }
}
