import AdminServer
import Settings
import Testing

@testable import HengeCommands

@Suite struct KeyRingCommandTests {
    @Test func `a generated key is one, and no two are the same`() async {
        let recorder = Recorder()
        #expect(await run("keyring generate", recorder.context()) == 0)
        #expect(await run("keyring generate", recorder.context()) == 0)
        let lines = recorder.output.split(separator: "\n")
        #expect(lines.count == 2 && lines[0] != lines[1])
        #expect(lines.allSatisfy { ClusterKeyText.key(String($0)) != nil })
    }

    @Test func `the list says who lacks which key`() async throws {
        try await serving(ScriptedNode([cluster("n1", [])])) { address, _ in
            let recorder = Recorder()
            #expect(await run("keyring install -n \(address)", recorder.context()) == 0, "\(recorder.complaints)")
            #expect(
                recorder.output == """
                    key aaaaaaaa   seals   all 3 members have it
                    key bbbbbbbb   opens   lacking: n3 (down)

                    """
            )
        }
    }

    @Test func `a rotation keeps the old key while a node is down, and removes it where none is`() async throws {
        try await serving(ScriptedNode([cluster("n1", [])])) { address, _ in
            let recorder = Recorder()
            #expect(await run("keyring rotate -n \(address)", recorder.context()) == 0, "\(recorder.complaints)")
            #expect(recorder.output.contains("key aaaaaaaa stays: n3 will need it"), "\(recorder.output)")
            #expect(recorder.output.contains("key bbbbbbbb   seals   lacking: n3 (down)"), "\(recorder.output)")
        }
        let node = ScriptedNode([cluster("n1", [])])
        await node.tellAll()
        try await serving(node) { address, _ in
            let recorder = Recorder()
            #expect(await run("keyring rotate -o json -n \(address)", recorder.context()) == 0)
            #expect(await node.keys.keys == ["bbbbbbbb"])
        }
    }

    @Test func `what a node refuses is said, with the code for it`() async throws {
        let objection = AdministrationError.refused(check: "key", detail: "n2 does not have key 00000001 yet")
        try await serving(ScriptedNode([cluster("n1", [])], objection: objection)) { address, _ in
            for line in ["list", "rotate", "install", "use 00000001", "remove 00000001"] {
                let recorder = Recorder()
                #expect(await run("keyring \(line) -n \(address)", recorder.context()) == 4, "\(line)")
                #expect(recorder.complaints.contains("n2 does not have key"), "\(recorder.complaints)")
            }
        }
    }
}
