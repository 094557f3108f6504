import AdminServer
import Foundation
import Testing

@testable import HengeCommands

@Suite struct DoctorTests {
    private func member(
        _ name: String,
        udpOut: DoctorReport.Way = .passes,
        tcpBack: DoctorReport.Way = .passes,
        clock: Int? = 3,
        settings: Bool? = true
    ) -> DoctorReport.Member {
        DoctorReport.Member(
            name: name,
            cluster: "10.0.0.2:11212",
            liveness: .alive,
            udpOut: udpOut,
            udpBack: .passes,
            tcpOut: .passes,
            tcpBack: tcpBack,
            clock: clock,
            settings: settings
        )
    }

    @Test func `where all is well it says so and ends with 0`() async throws {
        let report = DoctorReport(node: "n1", settings: "replicas=1", members: [member("n2")], findings: [])
        try await serving(ScriptedNode([cluster("n1", [])], examination: report)) { address, _ in
            let recorder = Recorder()
            #expect(await run("doctor -n \(address)", recorder.context()) == 0, "\(recorder.complaints)")
            #expect(
                recorder.output == """
                    from node n1   settings replicas=1
                    MEMBER  ADDRESS         STATE  UDP  TCP  CLOCK  SETTINGS
                    n2      10.0.0.2:11212  alive  ok   ok   +3 ms  equal
                    all is well

                    """
            )
        }
    }

    @Test func `what is found is a line each, and ends with 3`() async throws {
        let report = DoctorReport(
            node: "n1",
            settings: "replicas=1",
            members: [
                member("n2", udpOut: .fails, clock: -3_600_040),
                member("n\u{1b}3", tcpBack: .unknown, clock: nil, settings: nil),
            ],
            findings: [.init(check: "udp", member: "n2", text: "n2: open\nUDP")]
        )
        try await serving(ScriptedNode([cluster("n1", [])], examination: report)) { address, _ in
            let recorder = Recorder()
            #expect(await run("doctor -n \(address)", recorder.context()) == 3, "\(recorder.complaints)")
            #expect(
                recorder.output == """
                    from node n1   settings replicas=1
                    MEMBER  ADDRESS         STATE  UDP                TCP               CLOCK      SETTINGS
                    n2      10.0.0.2:11212  alive  there no, back ok  ok                -3600.0 s  equal
                    n?3     10.0.0.2:11212  alive  ok                 there ok, back ?  ?          ?
                    udp: n2: open?UDP

                    """
            )
            let json = Recorder()
            #expect(await run("doctor -o json -n \(address)", json.context()) == 3)
            let read = try JSONDecoder().decode(DoctorReport.self, from: Data(json.output.utf8))
            #expect(read == report)
        }
    }

    @Test func `a node that has stopped, and one that is not there`() async throws {
        let objection = AdministrationError.unavailable("the node has stopped")
        let address = try await serving(ScriptedNode([cluster("n1", [])], objection: objection)) { address, _ in
            let recorder = Recorder()
            #expect(await run("doctor -n \(address)", recorder.context()) != 0)
            #expect(recorder.complaints.contains("the node has stopped"), "\(recorder.complaints)")
            return address
        }
        #expect(await run("doctor -n \(address)", Recorder().context()) == 5)
    }
}
