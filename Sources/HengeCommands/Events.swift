import AdminServer
import ArgumentParser
private import Foundation

/// Shows what happened to the membership.
struct Events: ContextCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show the last membership events of one node, the newest last.",
        discussion: "A node keeps the last 256 since its start. Times are UTC, by that node's clock."
    )

    @OptionGroup var client: ClientOptions
    @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

    func run(in context: CommandContext) async throws -> ExitStatus {
        let list = try await AdminClient(address: try client.address(in: context), deadline: try client.deadline())
            .events()
        context.output(output == .json ? try JSONText.render(list) : EventText.render(list))
        return .done
    }
}

/// `henge events` as text.
enum EventText {
    /// A headline with the count of dropped events, and a line for each that is kept.
    static func render(_ list: EventList) -> String {
        var table = TextTable(["TIME", "TYPE", "MEMBER", "DETAIL"])
        for event in list.events {
            table.add([
                timestamp(event.unixMilliseconds), StatusText.safe(event.type),
                event.member.map(StatusText.safe) ?? "-", event.detail.map(StatusText.safe) ?? "",
            ])
        }
        let head = [
            "node \(StatusText.safe(list.node))", "events \(Readable.count(list.events.count))",
            "dropped \(Readable.count(Int(clamping: list.dropped)))",
        ]
        return head.joined(separator: "   ") + "\n" + table.rendered()
    }

    /// The last millisecond of the year 9999; what is later is shown as that.
    private static let millisecondsMax: UInt64 = 253_402_300_799_999

    /// `2026-01-02T03:04:05.678Z`.
    static func timestamp(_ unixMilliseconds: UInt64) -> String {
        let shown = min(unixMilliseconds, millisecondsMax)
        // Whole seconds have an exact form as a `Date`, and the fraction none.
        let whole = Date(timeIntervalSince1970: Double(shown / 1000)).formatted(.iso8601)
        let fraction = String(shown % 1000)
        return whole.dropLast() + "." + String(repeating: "0", count: 3 - fraction.count) + fraction + "Z"
    }
}
