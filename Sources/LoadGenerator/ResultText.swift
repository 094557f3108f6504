import Histogram

/// A flat JSON object, its keys in the order in which they were put.
package struct JSONObject: Sendable {
    private var fields: [String] = []

    package init() {}

    package mutating func put(_ key: String, _ value: UInt64) { fields.append("\(Self.quoted(key)): \(value)") }

    /// Numbers that JSON cannot say become null.
    package mutating func put(_ key: String, _ value: Double) {
        fields.append("\(Self.quoted(key)): \(value.isFinite ? "\(value)" : "null")")
    }

    package mutating func put(_ key: String, _ value: String) {
        fields.append("\(Self.quoted(key)): \(Self.quoted(value))")
    }

    package mutating func put(_ key: String, _ values: [UInt64]) {
        fields.append("\(Self.quoted(key)): [\(values.map { "\($0)" }.joined(separator: ", "))]")
    }

    package mutating func put(_ key: String, _ object: JSONObject) {
        fields.append("\(Self.quoted(key)): \(object.text)")
    }

    package mutating func put(_ key: String, _ objects: [JSONObject]) {
        fields.append("\(Self.quoted(key)): [\(objects.map { $0.text }.joined(separator: ", "))]")
    }

    package var text: String { "{\(fields.joined(separator: ", "))}" }

    static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\u{0}"..."\u{1f}":
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}

extension LoadResult {
    private static let percentiles: [(name: String, percent: Double)] = [
        ("p50", 50), ("p90", 90), ("p99", 99), ("p99.9", 99.9), ("max", 100),
    ]

    /// As JSON: `commands`, `seconds`, `per_second`, `server_us`, `generator_us`, `latency_us` and others.
    package var json: JSONObject {
        var object = JSONObject()
        object.put("commands", counts.commands)
        object.put("gets", counts.gets)
        object.put("hits", counts.hits)
        object.put("misses", counts.misses)
        object.put("sets", counts.sets)
        object.put("refusals", counts.refusals)
        object.put("stored_bytes", counts.storedBytes)
        object.put("received_bytes", counts.receivedBytes)
        object.put("sent_bytes", counts.sentBytes)
        object.put("seconds", Double(elapsedNanoseconds) / 1e9)
        object.put("per_second", commandsPerSecond)
        object.put("generator_us", generatorMicrosecondsPerCommand)
        if let server = serverMicrosecondsPerCommand { object.put("server_us", server) }
        if !serverNanoseconds.isEmpty { object.put("server_ns", serverNanoseconds) }
        if let latency { object.put("latency_us", Self.json(latency)) }
        if let lateness { object.put("lateness_us", Self.json(lateness)) }
        if let itemsAlive { object.put("items_alive", itemsAlive) }
        if let firstRefusal { object.put("first_refusal", firstRefusal) }
        return object
    }

    /// As lines for people.
    package var lines: [String] {
        var lines = [
            "commands \(counts.commands) in \(Self.short(Double(elapsedNanoseconds) / 1e9)) s,"
                + " \(Self.short(commandsPerSecond / 1000)) thousand a second",
            "gets \(counts.gets), hits \(counts.hits), misses \(counts.misses), sets \(counts.sets),"
                + " refused \(counts.refusals)",
        ]
        if let firstRefusal { lines.append("first refusal: \(firstRefusal)") }
        if counts.gets > 0 {
            lines.append("miss ratio \(Self.short(100 * Double(counts.misses) / Double(counts.gets))) %")
        }
        if let server = serverMicrosecondsPerCommand {
            lines.append("server \(Self.short(server)) us a command")
        }
        lines.append("generator \(Self.short(generatorMicrosecondsPerCommand)) us a command")
        if let latency { lines.append("latency from the time due, us: \(Self.text(latency))") }
        if let lateness { lines.append("of it the generator's own, us: \(Self.text(lateness))") }
        if let itemsAlive { lines.append("items alive by their time to live \(itemsAlive)") }
        return lines
    }

    private static func json(_ histogram: Histogram<UInt64>) -> JSONObject {
        var object = JSONObject()
        for (name, percent) in percentiles {
            object.put(name, Double(histogram.valueAtPercentile(percent)) / 1000)
        }
        return object
    }

    private static func text(_ histogram: Histogram<UInt64>) -> String {
        percentiles.map { "\($0.name) \(short(Double(histogram.valueAtPercentile($0.percent)) / 1000))" }
            .joined(separator: "  ")
    }

    /// A number with three decimals at most, as many as tell something.
    package static func short(_ value: Double) -> String {
        guard value.isFinite, value.magnitude < 1e15 else { return "\(value)" }
        let decimals =
            value.magnitude < 10 ? 1000.0 : value.magnitude < 100 ? 100.0 : value.magnitude < 1000 ? 10.0 : 1.0
        let rounded = (value * decimals).rounded() / decimals
        return rounded == rounded.rounded() ? "\(Int(rounded))" : "\(rounded)"
    }
}
