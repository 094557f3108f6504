import AdminServer
import Foundation
import Testing

@testable import HengeCommands

@Suite struct EventsTests {
    @Test func `events read like this`() async throws {
        try await serving(ScriptedNode([cluster("n1", [])])) { address, _ in
            let recorder = Recorder()
            #expect(await run("events -n \(address)", recorder.context()) == 0, "\(recorder.complaints)")
            #expect(
                recorder.output == """
                    node n1   events 3   dropped 7
                    TIME                      TYPE       MEMBER  DETAIL
                    2025-11-29T08:00:00.007Z  suspected  n3      by n2
                    2025-11-29T08:00:01.900Z  down       n?3
                    2025-11-29T08:00:02.000Z  stalled    -       stood still for 900 ms

                    """
            )
            let json = Recorder()
            #expect(await run("events -o json -n \(address)", json.context()) == 0)
            let decoded = try JSONDecoder().decode(EventList.self, from: Data(json.output.utf8))
            #expect(decoded == sampleEvents)
        }
    }

    @Test(arguments: [
        (0, "1970-01-01T00:00:00.000Z"), (1_709_210_096_789, "2024-02-29T12:34:56.789Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"), (.max, "9999-12-31T23:59:59.999Z"),
    ])
    func `times are in UTC, to the millisecond`(_ unixMilliseconds: UInt64, _ text: String) {
        #expect(EventText.timestamp(unixMilliseconds) == text)
    }
}
