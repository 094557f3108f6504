import AdminServer
import ArgumentParser
import ClusterCore
private import Glibc

/// Moves everything that a node has elsewhere, and has it leave.
struct Drain: ContextCommand {
    static let configuration = CommandConfiguration(
        abstract: "Move everything a node has elsewhere, then end it.",
        discussion: "The cluster does it: an interrupted or timed-out command leaves the drain running."
    )

    @Argument(help: "the node's name or address") var target: String
    @OptionGroup var client: ClientOptions
    @Flag(name: .long, help: "go on where too few copies or too little memory would remain") var force = false
    @Flag(name: .long, help: "return as soon as the drain has begun") var detach = false
    @Flag(name: .shortAndLong, help: "do not ask") var yes = false
    @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

    /// How long nobody may answer before the command gives up, in seconds.
    private static let silenceSecondsMax = 15
    /// How long one node may take to say how the drain goes, in milliseconds; then the next one is asked.
    private static let lookMilliseconds = 2000

    func run(in context: CommandContext) async throws -> ExitStatus {
        let address = try client.address(in: context)
        let deadline = try client.deadline()
        let asked = AdminClient(address: address, deadline: deadline)
        let status = try await asked.status()
        // A program that calls has decided already.
        if !yes, output == .table, context.isTerminal {
            try Confirmation.ask("Drain \(StatusText.safe(target))?", in: context)
        }
        let task = try await asked.drain(node: target, force: force)
        var progress = Progress(task: task, context: context, output: output)
        if detach {
            try progress.detached()
            return .done
        }
        InterruptNotice.install()
        var follower = DrainFollower(task: task, status: status, address: address)
        var lastAnswer = ContinuousClock.now
        while true {
            var outcome = DrainFollower.Outcome.going
            if let answer = await Self.ask(follower, deadline) {
                outcome = follower.observe(answer)
                lastAnswer = .now
            } else {
                outcome = follower.observeSilence()
            }
            switch outcome {
            case .going: try progress.update(follower.task)
            case .done:
                try progress.end(follower.task, .done)
                return .done
            case .failed(let reason):
                try progress.end(follower.task, .failed)
                throw CommandError(.failed, "drain of \(follower.task.node) failed: \(reason)")
            case .cancelled:
                try progress.end(follower.task, .cancelled)
                throw CommandError(.failed, "drain of \(follower.task.node) was cancelled")
            }
            if deadline.hasPassed {
                progress.leave()
                throw CommandError(.timedOut, "not done within \(deadline.text); task \(task.id) goes on")
            }
            if lastAnswer.duration(to: .now) > .seconds(Self.silenceSecondsMax) {
                progress.leave()
                throw CommandError(
                    .unreachable,
                    "no node has answered for \(Self.silenceSecondsMax) s; task \(task.id) goes on, see henge status"
                )
            }
            try await Task.sleep(for: .milliseconds(context.pollMilliseconds))
        }
    }

    /// The first answer that counts, nil where nobody gives one.
    private static func ask(
        _ follower: DrainFollower,
        _ deadline: Deadline
    ) async -> ClusterStatus? {
        for candidate in follower.candidates {
            let answer: ClusterStatus
            do throws(CommandError) {
                answer = try await AdminClient(address: candidate.address, deadline: deadline)
                    .status(milliseconds: lookMilliseconds)
            } catch {
                continue  // the next one may know; who is silent is not counted against the task
            }
            if follower.accepts(answer, from: candidate) { return answer }
        }
        return nil
    }

    /// Writes how a task goes: a line that changes on a terminal, a line now and then elsewhere, objects for programs.
    private struct Progress {
        let first: TaskReport
        let start = ContinuousClock.now
        let context: CommandContext
        let output: OutputForm
        var lastReport: ContinuousClock.Instant?
        var lastWritten: TaskReport?

        init(task: TaskReport, context: CommandContext, output: OutputForm) {
            first = task
            self.context = context
            self.output = output
        }

        private var seconds: Double { start.duration(to: .now) / .seconds(1) }

        private var isDue: Bool {
            guard let lastReport else { return true }
            return lastReport.duration(to: .now) >= .milliseconds(context.reportMilliseconds)
        }

        mutating func update(_ task: TaskReport) throws(CommandError) {
            switch output {
            case .json where task != lastWritten: context.output(try JSONText.render(task))
            case .json: return
            case .table where context.isOutputTerminal:
                context.output("\r\u{1b}[K" + TaskText.live(task, since: first, seconds: seconds))
            case .table:
                guard isDue else { return }
                context.output(TaskText.logfmt(task) + "\n")
                lastReport = .now
            }
            lastWritten = task
        }

        mutating func end(_ task: TaskReport, _ state: TaskReport.State) throws(CommandError) {
            var final = task
            final.state = state
            switch output {
            case .json: context.output(try JSONText.render(final))
            case .table where context.isOutputTerminal:
                context.output("\r\u{1b}[K")
                guard state == .done else { return }
                context.output(
                    "✔ \(StatusText.safe(task.node)) drained in \(Readable.tenths(seconds)) s: "
                        + "\(Readable.count(task.total)) copies, \(Readable.bytes(task.bytes))\n"
                )
            case .table: context.output(TaskText.logfmt(final) + "\n")
            }
        }

        /// Ends the line that changes, before something else is written.
        func leave() {
            if output == .table, context.isOutputTerminal, lastWritten != nil { context.output("\n") }
        }

        func detached() throws(CommandError) {
            switch output {
            case .json: context.output(try JSONText.render(first))
            case .table where context.isOutputTerminal:
                context.output("task \(StatusText.safe(first.id)) started; henge status shows it\n")
            case .table: context.output(TaskText.logfmt(first) + "\n")
            }
        }
    }
}

/// Cancels a drain.
struct Undrain: ContextCommand {
    static let configuration = CommandConfiguration(abstract: "Cancel the drain of a node.")

    @Argument(help: "the node's name or address") var target: String
    @OptionGroup var client: ClientOptions
    @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

    func run(in context: CommandContext) async throws -> ExitStatus {
        let task = try await AdminClient(address: try client.address(in: context), deadline: try client.deadline())
            .undrain(node: target)
        context.output(output == .json ? try JSONText.render(task) : TaskText.logfmt(task) + "\n")
        return .done
    }
}

/// Says on Ctrl-C that the task goes on.
private enum InterruptNotice {
    static func install() {
        _ = signal(SIGINT) { _ in
            // A signal handler may do little more than write and end.
            let message: StaticString = "\nhenge: interrupted; the drain goes on, see henge status\n"
            _ = write(2, message.utf8Start, message.utf8CodeUnitCount)
            _exit(ExitStatus.interrupted.rawValue)
        }
    }
}
