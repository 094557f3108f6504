import AdminServer
import Foundation
import Testing

@testable import HengeCommands

@Suite struct BrakeTests {
    @Test func `the brake is released, and who was not told is named`() async throws {
        let report = BrakeReport(told: ["n1", "n2"], unreachable: ["n4\u{1b}"])
        try await serving(ScriptedNode([cluster("n1", [])], brakes: report)) { address, _ in
            let recorder = Recorder()
            #expect(await run("brake release -n \(address)", recorder.context()) == 0, "\(recorder.complaints)")
            #expect(
                recorder.output
                    == "no brake is on any more at n1, n2\nnot reached from there: n4?; ask them\n"
            )
            let json = Recorder()
            #expect(await run("brake release -o json -n \(address)", json.context()) == 0)
            let read = try JSONDecoder().decode(BrakeReport.self, from: Data(json.output.utf8))
            #expect(read == report)
        }
    }

    @Test func `status shows the brake, and who is damped`() {
        var status = cluster("n1", [member("n1"), member("n2")])
        #expect(!StatusText.render(status).contains("brake"))
        status.ring.brake = BrakeStatus(lost: ["n3", "n4"], members: 5, left: nil)
        #expect(
            StatusText.render(status)
                .contains("\nbrake on: n3, n4 of 5 went at once; who goes stays in the ring for longer\n")
        )
        status.ring.brake = BrakeStatus(lost: [], members: 5, left: 1001)
        #expect(
            StatusText.render(status).contains(
                "\nbrake on: this node is not well; who is down leaves the ring in 2 s, or by 'henge brake release'\n"
            )
        )
        #expect(status.isSettled)
        status.members[1].damped = true
        #expect(!status.isSettled)
        #expect(StatusText.render(status).contains("up damped"))
    }

    @Test func `the help says when it brakes and what the word does`() async {
        let recorder = Recorder()
        #expect(await run("brake --help", recorder.context()) == 0)
        let words = recorder.output.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        #expect(words.contains("over a third of the ring") && words.contains("henge status"))
    }
}
