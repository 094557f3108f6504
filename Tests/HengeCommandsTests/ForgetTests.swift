import AdminServer
import Foundation
import Testing

@testable import HengeCommands

@Suite struct ForgetTests {
    @Test func `a node is forgotten, and the rest is named`() async throws {
        let node = ScriptedNode([cluster("n1", [])])
        try await serving(node) { address, _ in
            let recorder = Recorder()
            #expect(await run("forget n3 -n \(address)", recorder.context()) == 0, "\(recorder.complaints)")
            #expect(recorder.output == "n3 is forgotten; members are n1, n2\n")
            let json = Recorder()
            #expect(await run("forget n4 -o json -n \(address)", json.context(terminal: true)) == 0)
            let report = try JSONDecoder().decode(MembersReport.self, from: Data(json.output.utf8))
            #expect(report == MembersReport(node: "n4", members: ["n1", "n2"]))
        }
        #expect(await node.forgotten == ["n3", "n4"])
    }

    @Test func `on a terminal nobody is forgotten without a yes`() async throws {
        let node = ScriptedNode([cluster("n1", [])])
        try await serving(node) { address, _ in
            for answer in ["n", "", nil] as [String?] {
                let recorder = Recorder()
                #expect(await run("forget n3 -n \(address)", recorder.context(answer: answer, terminal: true)) == 1)
                #expect(recorder.complaints == "henge: nothing was done\n")
                #expect(recorder.output.hasSuffix("Forget n3? [y/N] "))
            }
            #expect(await node.forgotten == [])
            #expect(await run("forget n3 -n \(address)", Recorder().context(answer: "y", terminal: true)) == 0)
            #expect(await run("forget n4 --yes -n \(address)", Recorder().context(terminal: true)) == 0)
        }
        #expect(await node.forgotten == ["n3", "n4"])
    }

    @Test func `refusals and unknown nodes have their exit codes`() async throws {
        let cases: [(AdministrationError, Int32, String)] = [
            (.refused(check: "liveness", detail: "n3 is alive: drain it"), 4, "henge: n3 is alive: drain it\n"),
            (
                .unknownNode("n3", members: ["n1", "n2"]), 1,
                "henge: no member is called 'n3' or has that address; there are n1, n2\n"
            ),
        ]
        for (objection, code, complaint) in cases {
            try await serving(ScriptedNode([cluster("n1", [])], objection: objection)) { address, _ in
                let recorder = Recorder()
                #expect(await run("forget n3 -n \(address)", recorder.context()) == code)
                #expect(recorder.complaints == complaint)
            }
        }
    }

    @Test func `the help says what it costs`() async {
        let recorder = Recorder()
        #expect(await run("forget --help", recorder.context()) == 0)
        let words = recorder.output.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        #expect(words.contains("counts towards no majority any more") && words.contains("What only it had is lost"))
        #expect(words.contains("restart it to join again"))
    }
}
