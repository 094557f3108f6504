import AdminServer
import ArgumentParser
private import Foundation

/// Shows the cluster, or waits until it is well.
struct Status: ContextCommand {
    enum Wait: String, ExpressibleByArgument, CaseIterable {
        /// Until every member is up and every slice is where it belongs.
        case all
        /// Until the node that is asked may serve.
        case `self`
    }

    static let configuration = CommandConfiguration(
        abstract: "Show the cluster as one node sees it.",
        discussion: "Exits with 3 where copies, slices or members are missing."
    )

    @OptionGroup var client: ClientOptions
    @Option(
        name: .long,
        defaultAsFlag: Wait.all,
        parsing: .next,
        help: "wait until the cluster is settled (all) or the asked node may serve (self)"
    ) var wait: Wait? = nil
    @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

    func run(in context: CommandContext) async throws -> ExitStatus {
        let deadline = try client.deadline()
        let asked = AdminClient(address: try client.address(in: context), deadline: deadline)
        guard let wait else {
            let status = try await asked.status()
            try show(status, context)
            return status.isDegraded ? .degraded : .done
        }
        var reason = "no node answered"
        while true {
            do throws(CommandError) {
                let status = try await asked.status()
                let isReached =
                    switch wait {
                    case .all: status.ready && status.isSettled
                    case .self: status.ready
                    }
                if isReached {
                    try show(status, context)
                    return .done
                }
                let slices = status.ring.slices
                reason =
                    status.ready
                    ? "\(Readable.count(slices.settled)) of \(Readable.count(slices.total)) slices are settled"
                    : "the node is not ready"
            } catch {
                // A node that starts does not listen yet. The last request, cut short, tells nothing new.
                guard error.status == .unreachable || error.status == .timedOut else { throw error }
                if error.status == .unreachable { reason = error.description }
            }
            if deadline.hasPassed { throw CommandError(.timedOut, "not reached within \(deadline.text): \(reason)") }
            try await Task.sleep(for: .milliseconds(context.pollMilliseconds))
        }
    }

    private func show(_ status: ClusterStatus, _ context: CommandContext) throws(CommandError) {
        context.output(output == .json ? try JSONText.render(status) : StatusText.render(status))
    }
}

/// Shows who owns how much of the ring.
struct RingView: ContextCommand {
    static let configuration = CommandConfiguration(
        commandName: "ring",
        abstract: "Show who owns how much of the ring, or where a key lives."
    )

    @OptionGroup var client: ClientOptions
    @Option(name: .long, help: ArgumentHelp("show where this key lives", valueName: "KEY")) var key: String?
    @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

    func run(in context: CommandContext) async throws -> ExitStatus {
        let report = try await AdminClient(address: try client.address(in: context), deadline: try client.deadline())
            .ring(key: key)
        context.output(output == .json ? try JSONText.render(report) : StatusText.render(report))
        return .done
    }
}

/// Objects of the admin API on one line.
enum JSONText {
    static func render(_ value: some Encodable) throws(CommandError) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return String(decoding: try encoder.encode(value), as: UTF8.self) + "\n"
        } catch {
            throw CommandError(.failed, "no JSON: \(error)")
        }
    }
}
