import ClusterCore

/// A value as a layer gave it: text from a flag or the environment, a typed value from the file.
package enum SettingValue: Hashable, Sendable {
    /// From a flag or the environment: any kind, lists separated by commas.
    case text(String)
    case string(String)
    case integer(Int)
    case number(Double)
    case boolean(Bool)
    case list([String])
    /// A type that no setting has, by its name.
    case other(String)

    private func mismatch(_ wanted: String) -> SettingsError {
        switch self {
        case .text(let text): SettingsError("'\(text)' is not \(wanted)")
        case .string(let text): SettingsError("\"\(text)\" is not \(wanted)")
        case .integer(let value): SettingsError("\(value) is not \(wanted)")
        case .number(let value): SettingsError("\(value) is not \(wanted)")
        case .boolean(let value): SettingsError("\(value) is not \(wanted)")
        case .list: SettingsError("a list is not \(wanted)")
        case .other(let type): SettingsError("a \(type) is not \(wanted)")
        }
    }

    private var words: String? {
        switch self {
        case .text(let text), .string(let text): text
        default: nil
        }
    }

    /// Any text.
    func asString() throws(SettingsError) -> String {
        guard let words else { throw mismatch("a string") }
        return words
    }

    /// True or false.
    func asBoolean() throws(SettingsError) -> Bool {
        switch self {
        case .boolean(let value): return value
        case .text("true"): return true
        case .text("false"): return false
        default: throw mismatch("true or false")
        }
    }

    /// A whole number within `range`.
    func asInteger(in range: ClosedRange<Int>) throws(SettingsError) -> Int {
        let value: Int? =
            switch self {
            case .text(let text): Int(text)
            case .integer(let value): value
            default: nil
            }
        guard let value, range.contains(value) else {
            throw mismatch("a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    /// A decimal number, in thousandths, within `range` of thousandths.
    func asThousandths(in range: ClosedRange<Int>) throws(SettingsError) -> Int {
        let value: Double? =
            switch self {
            case .text(let text): Double(text)
            case .integer(let value): Double(value)
            case .number(let value): value
            default: nil
            }
        let wanted =
            "a number from \(Units.decimal(thousandths: range.lowerBound)) to "
            + "\(Units.decimal(thousandths: range.upperBound)) with at most three decimals"
        guard let value, value.isFinite, abs(value) < 1e12 else { throw mismatch(wanted) }
        let thousandths = (value * 1000).rounded()
        guard abs(thousandths - value * 1000) < 1e-6, range.contains(Int(thousandths)) else { throw mismatch(wanted) }
        return Int(thousandths)
    }

    /// A size with a unit, or a plain number of bytes.
    func asBytes(in range: ClosedRange<Int>) throws(SettingsError) -> Int {
        let value: Int? =
            switch self {
            case .text(let text), .string(let text): Units.bytes(text)
            case .integer(let value): value
            default: nil
            }
        guard let value else { throw mismatch("a size such as 512K, 64M, 1GiB or a number of bytes") }
        guard range.contains(value) else {
            throw mismatch(
                "a size from \(Units.text(bytes: range.lowerBound)) to \(Units.text(bytes: range.upperBound))"
            )
        }
        return value
    }

    /// A time with a unit, or a plain number of seconds.
    func asSeconds(in range: ClosedRange<Int>) throws(SettingsError) -> Int {
        let value: Int? =
            switch self {
            case .text(let text), .string(let text): Units.seconds(text)
            case .integer(let value): value
            default: nil
            }
        guard let value, range.contains(value) else {
            throw mismatch("a time such as 30s, 5m or 1h, from \(range.lowerBound) to \(range.upperBound) seconds")
        }
        return value
    }

    /// An address or a name, with a port.
    func asPlace(defaultPort: UInt16) throws(SettingsError) -> HostAndPort {
        guard let words, let place = HostAndPort(words, defaultPort: defaultPort) else {
            throw mismatch("HOST, HOST:PORT, [IPv6] or [IPv6]:PORT")
        }
        return place
    }

    /// Places: a list, one string, or text with commas. Empty parts of text are skipped.
    func asPlaces(defaultPort: UInt16, atMost limit: Int) throws(SettingsError) -> [HostAndPort] {
        let parts: [String]
        switch self {
        case .text(let text):
            parts = text.split(separator: ",").map { part in part.filter { $0 != " " } }.filter { !$0.isEmpty }
        case .string(let text): parts = [text]
        case .list(let texts): parts = texts
        default: throw mismatch("a list of strings")
        }
        guard parts.count <= limit else { throw SettingsError("\(parts.count) places are more than \(limit)") }
        var places: [HostAndPort] = []
        for part in parts { places.append(try SettingValue.text(part).asPlace(defaultPort: defaultPort)) }
        return places
    }

    /// One of a few words.
    func asChoice<Choice: RawRepresentable & CaseIterable>(
        _ type: Choice.Type
    ) throws(SettingsError) -> Choice where Choice.RawValue == String {
        guard let words, let choice = Choice(rawValue: words) else {
            throw mismatch("one of \(Choice.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        return choice
    }
}
