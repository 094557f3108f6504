import AdminServer

/// The progress of a task as text.
enum TaskText {
    /// Cells of the bar.
    private static let barCells = 24

    /// One line for a terminal. `seconds` and `done`, `bytes` at its start tell the rate.
    static func live(_ task: TaskReport, since start: TaskReport, seconds: Double) -> String {
        let filled = task.total > 0 ? min(max(task.done, 0), task.total) * barCells / task.total : 0
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: barCells - filled)
        var line = "\(StatusText.safe(task.kind)) \(StatusText.safe(task.node))  \(bar) "
        line += "\(Readable.percent(task.done, of: task.total)) %  "
        line += "\(Readable.count(task.done))/\(Readable.count(task.total)) copies  \(Readable.bytes(task.bytes))"
        let moved = task.done - start.done
        if seconds > 0, moved > 0, task.total > task.done {
            let left = Double(task.total - task.done) * seconds / Double(moved)
            line += "  \(Readable.bytes(Int(Double(max(task.bytes - start.bytes, 0)) / seconds)))/s"
            line += left < 1e6 ? "  \(Int(left.rounded(.up))) s left" : ""
        }
        if let blocked = task.blocked { line += "  BLOCKED \(StatusText.safe(blocked))" }
        return line
    }

    /// One line of `key=value` for logs.
    static func logfmt(_ task: TaskReport) -> String {
        var line = "task=\(word(task.id)) kind=\(word(task.kind)) node=\(word(task.node)) state=\(task.state.rawValue) "
        line += "done=\(task.done) total=\(task.total) percent=\(Readable.percent(task.done, of: task.total)) "
        line += "bytes=\(task.bytes)"
        if let blocked = task.blocked { line += " blocked=\(word(blocked, always: true))" }
        return line
    }

    private static func word(_ text: String, always: Bool = false) -> String {
        let safe = StatusText.safe(text)
        guard always || safe.isEmpty || safe.contains(where: { $0 == " " || $0 == "\"" || $0 == "=" }) else {
            return safe
        }
        return "\"" + safe.map { $0 == "\"" || $0 == "\\" ? "\\\($0)" : String($0) }.joined() + "\""
    }
}
