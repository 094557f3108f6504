import AdminServer
import Foundation
import Testing

@testable import HengeCommands

@Suite struct FormTests {
    @Test func `nothing is formed without a yes, and where nobody can be asked --yes is needed`() async throws {
        let node = ScriptedNode([cluster("n1", [])])
        try await serving(node) { address, _ in
            #expect(await run("form -n \(address)", Recorder().context()) == 2)
            #expect(await run("form -o json -n \(address)", Recorder().context(terminal: true)) == 2)
            let refused = Recorder()
            #expect(await run("form -n \(address)", refused.context(answer: "n", terminal: true)) == 1)
            #expect(refused.output.contains("there will be two. Form one at \(address)? [y/N] "))
            #expect(await node.formations == 0)
            let asked = Recorder()
            #expect(await run("form -n \(address)", asked.context(answer: "y", terminal: true)) == 0)
            let told = Recorder()
            #expect(await run("form --yes -n \(address)", told.context()) == 0)
            #expect(told.output == "n1 formed a cluster; members are n1\n")
            let json = Recorder()
            #expect(await run("form --yes -o json -n \(address)", json.context()) == 0)
            let report = try JSONDecoder().decode(MembersReport.self, from: Data(json.output.utf8))
            #expect(report == MembersReport(node: "n1", members: ["n1"]))
        }
        #expect(await node.formations == 3)
    }

    @Test func `a node that is in a cluster refuses`() async throws {
        let objection = AdministrationError.refused(check: "cluster", detail: "n1 is part of a cluster already")
        try await serving(ScriptedNode([cluster("n1", [])], objection: objection)) { address, _ in
            let recorder = Recorder()
            #expect(await run("form --yes -n \(address)", recorder.context()) == 4)
            #expect(recorder.complaints == "henge: n1 is part of a cluster already\n")
        }
    }
}
