import AdminServer
import ArgumentParser

/// Examines the members from one node.
struct Doctor: ContextCommand {
    static let configuration = CommandConfiguration(
        abstract: "Test what the members need from each other, and print what to open or change.",
        discussion: """
            The node that is asked tests, towards every other member and within a second: UDP there and back, TCP there \
            and back, how far the wall clocks are apart, and whether the settings that should be equal are. It looks at \
            its seeds too, also where it waits for a cluster. Nothing is changed. It sees its own ways only: ask each \
            node where a network is in doubt.

            Exit 0 where all is well, 3 where something was found.
            """
    )

    @OptionGroup var client: ClientOptions
    @Option(name: [.customShort("o"), .customLong("output")], help: "table or json") var output = OutputForm.table

    func run(in context: CommandContext) async throws -> ExitStatus {
        let asked = AdminClient(address: try client.address(in: context), deadline: try client.deadline())
        let report = try await asked.doctor()
        context.output(output == .json ? try JSONText.render(report) : DoctorText.render(report))
        return report.findings.isEmpty ? .done : .degraded
    }
}

/// `henge doctor` as text.
enum DoctorText {
    /// A table of the members, and a line for each finding.
    static func render(_ report: DoctorReport) -> String {
        var text = "from node \(StatusText.safe(report.node))   settings \(StatusText.safe(report.settings))\n"
        if !report.members.isEmpty {
            var table = TextTable(["MEMBER", "ADDRESS", "STATE", "UDP", "TCP", "CLOCK", "SETTINGS"])
            for member in report.members {
                table.add([
                    StatusText.safe(member.name), StatusText.safe(member.cluster), member.liveness.rawValue,
                    ways(member.udpOut, member.udpBack), ways(member.tcpOut, member.tcpBack),
                    member.clock.map(clock) ?? "?", member.settings.map { $0 ? "equal" : "differ" } ?? "?",
                ])
            }
            text += table.rendered()
        }
        for finding in report.findings {
            text += "\(StatusText.safe(finding.check)): \(StatusText.safe(finding.text))\n"
        }
        return text + (report.findings.isEmpty ? "all is well\n" : "")
    }

    /// `ok`, or each way that is not.
    private static func ways(_ out: DoctorReport.Way, _ back: DoctorReport.Way) -> String {
        if out == .passes, back == .passes { return "ok" }
        if out == .unused, back == .unused { return "unused" }
        func word(_ way: DoctorReport.Way) -> String {
            switch way {
            case .passes: "ok"
            case .fails: "no"
            case .unknown: "?"
            case .unused: "unused"
            }
        }
        return "there \(word(out)), back \(word(back))"
    }

    /// `+3 ms`, `-3600.0 s`.
    private static func clock(_ milliseconds: Int) -> String {
        let sign = milliseconds < 0 ? "-" : "+"
        guard milliseconds.magnitude >= 1000 else { return "\(sign)\(milliseconds.magnitude) ms" }
        return "\(sign)\(milliseconds.magnitude / 1000).\(milliseconds.magnitude % 1000 / 100) s"
    }
}
