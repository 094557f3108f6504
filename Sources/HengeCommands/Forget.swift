import AdminServer
import ArgumentParser

/// Has the cluster forget a member that is down.
struct Forget: ContextCommand {
    static let configuration = CommandConfiguration(
        abstract: "Say that a node that is down will not return.",
        discussion: """
            A node that is down keeps its vote. Forgotten, it counts towards no majority any more: those who are left \
            go on with a majority of themselves. What only it had is lost. Say it only of a node that has ended for \
            good: one that is merely cut off may still serve, and then there are two clusters.

            Refused for nodes that are alive or suspect: drain those, or end them and wait until they are down. A node \
            that was forgotten while it ran stops when it hears of it, with 'restart it to join again'; started again, \
            it joins as a new node.
            """
    )

    @Argument(help: "the node's name or address") var target: String
    @OptionGroup var client: ClientOptions
    @Flag(name: .shortAndLong, help: "do not ask") var yes = false
    @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

    func run(in context: CommandContext) async throws -> ExitStatus {
        let asked = AdminClient(address: try client.address(in: context), deadline: try client.deadline())
        // A program that calls has decided already.
        if !yes, output == .table, context.isTerminal {
            let name = StatusText.safe(target)
            try Confirmation.ask(
                "What only \(name) had is lost, and it has no vote any more. Forget \(name)?",
                in: context
            )
        }
        let report = try await asked.forget(node: target)
        context.output(output == .json ? try JSONText.render(report) : text(report))
        return .done
    }

    private func text(_ report: MembersReport) -> String {
        let members = report.members.map(StatusText.safe).joined(separator: ", ")
        return "\(StatusText.safe(report.node)) is forgotten; members are \(members)\n"
    }
}
