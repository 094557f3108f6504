private import TOMLKit

/// A settings file, read but not applied: pairs of setting and value, in the order of the table.
package struct SettingsFile: Sendable {
    /// The name for messages, as the operator gave it.
    package let name: String
    private(set) var values: [(setting: Setting, value: SettingValue, place: String)] = []

    /// The largest file that is read, in bytes.
    package static let bytesMax = 1 << 20

    /// Reads a TOML document.
    ///
    /// Throws `file:line:column: …` for what is no TOML and for a key that does not exist, with a guess at the one
    /// that was meant.
    package init(name: String, text: String) throws(SettingsError) {
        self.name = name
        guard !text.utf8.contains(0) else { throw SettingsError("\(name): a zero byte is no TOML") }
        let root: TOMLTable
        do {
            root = try TOMLTable(string: text)
        } catch let error as TOMLParseError {
            let start = error.source.begin
            let reason = error.description.split(whereSeparator: \.isNewline).joined(separator: " ")
            throw SettingsError("\(name):\(start.line):\(start.column): \(reason)")
        } catch {
            throw SettingsError("\(name): \(error)")
        }
        let positions = KeyPositions(text)
        var found: [String: SettingValue] = [:]
        for key in root.keys.sorted() {
            guard let node = root[key] else { continue }
            if Self.sections.contains(key) {
                guard let table = node.table else {
                    throw SettingsError("\(name)\(positions.suffix(key)): '\(key)' is a section: write [\(key)]")
                }
                for inner in table.keys.sorted() {
                    guard let value = table[inner] else { continue }
                    found[try Self.known(inner, in: key, name, positions)] = Self.value(value)
                }
            } else {
                found[try Self.known(key, in: "", name, positions)] = Self.value(node)
            }
        }
        for setting in SettingsTable.all {
            if let value = found[setting.key] {
                values.append((setting, value, "\(name)\(positions.suffix(setting.key))"))
            }
        }
    }

    private static let sections = Set(SettingsTable.all.map(\.section)).subtracting([""])

    /// The full key path, if there is such a setting.
    private static func known(
        _ key: String,
        in section: String,
        _ name: String,
        _ positions: KeyPositions
    ) throws(SettingsError) -> String {
        let path = section.isEmpty ? key : "\(section).\(key)"
        if SettingsTable.setting(path) != nil { return path }
        let place = "\(name)\(positions.suffix(path))"
        let inside = section.isEmpty ? "" : " in [\(section)]"
        var guess = ""
        let siblings = SettingsTable.all.filter { $0.section == section }.map(\.lastKey)
        if let near = Spelling.nearest(to: key, among: siblings) {
            guess = "; did you mean '\(near)'?"
        } else if let elsewhere = SettingsTable.all.first(where: { $0.lastKey == key }) {
            guess =
                "; did you mean '\(key)' "
                + (elsewhere.section.isEmpty ? "above all sections?" : "in [\(elsewhere.section)]?")
        } else if section.isEmpty, let near = Spelling.nearest(to: key, among: sections.sorted()) {
            guess = "; did you mean [\(near)]?"
        }
        throw SettingsError("\(place): unknown key '\(key)'\(inside)\(guess)")
    }

    private static func value(_ node: any TOMLValueConvertible) -> SettingValue {
        switch node.type {
        case .string: return node.string.map(SettingValue.string) ?? .other("string")
        case .int: return node.int.map(SettingValue.integer) ?? .other("number")
        case .double: return node.double.map(SettingValue.number) ?? .other("number")
        case .bool: return node.bool.map(SettingValue.boolean) ?? .other("boolean")
        case .array:
            var texts: [String] = []
            for element in node.array ?? [] {
                guard let text = element.string else { return .other("list of other things than strings") }
                texts.append(text)
            }
            return .list(texts)
        case .table, .date, .time, .dateTime: return .other(node.type.description)
        }
    }
}

/// Where keys stand in a TOML text. The parser keeps positions of errors only; this finds the plain forms
/// (`[section]`, `key = …`, `section.key = …`), and nothing where a document is written another way.
private struct KeyPositions {
    private var positions: [String: (line: Int, column: Int)] = [:]

    init(_ text: String) {
        var section = ""
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let content = line.drop { $0 == " " || $0 == "\t" }
            let column = line.count - content.count + 1
            if content.first == "[" {
                section = String(content.dropFirst().prefix { $0 != "]" }).filter { $0 != " " }
                positions[section] = positions[section] ?? (index + 1, column)
            } else if content.first != "#", let equals = content.firstIndex(of: "=") {
                let key = content[..<equals].filter { $0 != " " && $0 != "\t" && $0 != "\"" && $0 != "'" }
                let path = section.isEmpty ? String(key) : "\(section).\(key)"
                positions[path] = positions[path] ?? (index + 1, column)
            }
        }
    }

    /// `:14:1`, or nothing where the place is not known.
    func suffix(_ path: String) -> String {
        positions[path].map { ":\($0.line):\($0.column)" } ?? ""
    }
}
