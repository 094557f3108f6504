import AdminServer
import ArgumentParser

/// The brake on removals from the ring.
struct Brake: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Override the brake on removals from the ring.",
        discussion: """
            Where two members or more, and over a third of the ring, go within a few seconds, or a node is not well \
            itself, that node takes nobody out of the ring: what they had is copied elsewhere 30 seconds later than \
            else. 'henge status' shows it.
            """,
        subcommands: [Release.self]
    )

    /// Has what the lost members had copied elsewhere now.
    struct Release: ContextCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take members that are down out of the ring now.",
            discussion: """
                Tells the node and all members that it reaches that those who went will not be back soon: they leave \
                the ring once they have been down for the fill delay, and what they had is copied elsewhere. They \
                remain members. Members that go later brake again.
                """
        )

        @OptionGroup var client: ClientOptions
        @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

        func run(in context: CommandContext) async throws -> ExitStatus {
            let asked = AdminClient(address: try client.address(in: context), deadline: try client.deadline())
            let report = try await asked.releaseBrake()
            context.output(output == .json ? try JSONText.render(report) : text(report))
            return .done
        }

        private func text(_ report: BrakeReport) -> String {
            var text = "no brake is on any more at \(report.told.map(StatusText.safe).joined(separator: ", "))\n"
            if !report.unreachable.isEmpty {
                let names = report.unreachable.map(StatusText.safe).joined(separator: ", ")
                text += "not reached from there: \(names); ask them\n"
            }
            return text
        }
    }
}
