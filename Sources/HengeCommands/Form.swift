import AdminServer
import ArgumentParser

/// Has a node that seeks its cluster form one without a majority of its seeds.
struct Form: ContextCommand {
    static let configuration = CommandConfiguration(
        abstract: "Form a cluster at a node although most of its seeds are gone.",
        discussion: """
            For a node that waits for seeds of which most are gone for good: it forms a cluster with those that answer. \
            Where a cluster still lives that this node does not reach, there are two from then on, and what is written \
            to them in the meantime contradicts. Refused where the node is part of a cluster already, or a member of \
            one answers. Asks first; where nobody can be asked, --yes is needed.
            """
    )

    @OptionGroup var client: ClientOptions
    @Flag(name: .shortAndLong, help: "do not ask") var yes = false
    @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

    func run(in context: CommandContext) async throws -> ExitStatus {
        let address = try client.address(in: context)
        if !yes {
            guard context.isTerminal, output == .table else {
                throw CommandError(.usage, "a second cluster could come of it, and nobody can be asked: say --yes")
            }
            try Confirmation.ask(
                "If a cluster still lives elsewhere, there will be two. Form one at \(StatusText.safe("\(address)"))?",
                in: context
            )
        }
        let report = try await AdminClient(address: address, deadline: try client.deadline()).form()
        let members = report.members.map(StatusText.safe).joined(separator: ", ")
        context.output(
            output == .json
                ? try JSONText.render(report)
                : "\(StatusText.safe(report.node)) formed a cluster; members are \(members)\n"
        )
        return .done
    }
}
