/// A table as terminals show it: columns as wide as they must be, two spaces between them.
struct TextTable {
    private var rows: [[String]]

    init(_ head: [String]) {
        rows = [head]
    }

    mutating func add(_ row: [String]) {
        precondition(row.count == rows[0].count, "a row of \(row.count) cells in a table of \(rows[0].count)")
        rows.append(row)
    }

    /// The lines, without spaces at their ends.
    func rendered() -> String {
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        var text = ""
        for row in rows {
            var line = ""
            for (cell, width) in zip(row, widths) {
                line += cell + String(repeating: " ", count: width - cell.count + 2)
            }
            while line.last == " " { line.removeLast() }
            text += line + "\n"
        }
        return text
    }
}

/// Numbers as people read them.
enum Readable {
    /// `16,384`.
    static func count(_ value: Int) -> String {
        var text = ""
        for (index, digit) in String(value.magnitude).reversed().enumerated() {
            if index > 0, index % 3 == 0 { text.append(",") }
            text.append(digit)
        }
        return (value < 0 ? "-" : "") + String(text.reversed())
    }

    /// `842M`, `2.0G`: at most four characters where it can be.
    static func bytes(_ value: Int) -> String {
        let units = ["B", "K", "M", "G", "T", "P"]
        var scaled = Double(max(value, 0))
        var unit = 0
        while scaled >= 999.5, unit < units.count - 1 {
            scaled /= 1024
            unit += 1
        }
        if unit == 0 { return "\(Int(scaled))B" }
        return (scaled < 9.95 ? tenths(scaled) : String(Int(scaled.rounded()))) + units[unit]
    }

    /// One decimal place.
    static func tenths(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }

    /// Whole percent, rounded down, so that 100 means all.
    static func percent(_ part: Int, of whole: Int) -> Int {
        whole <= 0 ? 0 : Int(Double(part) / Double(whole) * 100)
    }

    /// `7,157`, or `7,157 → 8,192` where the two differ.
    static func change(now: Int, wanted: Int) -> String {
        now == wanted ? count(now) : "\(count(now)) → \(count(wanted))"
    }
}
