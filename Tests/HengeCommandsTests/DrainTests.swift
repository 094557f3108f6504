import AdminServer
import ClusterCore
import Foundation
import Testing

@testable import HengeCommands

private let three = [
    member("n1"), member("n2", admin: "10.0.0.2:11213"), member("n3", .draining, admin: "10.0.0.3:11213"),
]

private func follower(_ task: TaskReport = drainTask(0)) -> DrainFollower {
    DrainFollower(task: task, status: cluster("n1", three), address: HostAndPort(host: "127.0.0.1", port: 1))
}

@Suite struct DrainFollowerTests {
    @Test func `the task's own word comes first`() {
        for (state, outcome) in [
            (TaskReport.State.running, DrainFollower.Outcome.going), (.done, .done), (.cancelled, .cancelled),
            (.failed, .failed("no memory")),
        ] {
            var subject = follower()
            #expect(
                subject.observe(cluster("n1", three, tasks: [drainTask(5, state, blocked: "no memory")])) == outcome
            )
        }
    }

    @Test func `who has left is drained, whether or not the last percent was seen`() {
        var subject = follower()
        let left = [three[0], three[1], member("n3", .left, .down)]
        #expect(subject.observe(cluster("n1", left)) == .done)
    }

    @Test func `who is gone or down is drained only if everything had moved`() {
        let gone = Array(three.prefix(2))
        let down = gone + [member("n3", .draining, .down)]
        for members in [gone, down] {
            var complete = follower()
            #expect(complete.observe(cluster("n1", three, tasks: [drainTask(100)])) == .going)
            #expect(complete.observe(cluster("n1", members)) == .done)
            var partial = follower()
            #expect(partial.observe(cluster("n1", three, tasks: [drainTask(99)])) == .going)
            guard case .failed(let reason) = partial.observe(cluster("n1", members)) else {
                Issue.record("a drain that ended at 99 % is not told as failed")
                continue
            }
            #expect(reason.contains("99 %"))
            var unknown = follower(drainTask(0, of: 0))
            #expect(unknown.observe(cluster("n1", members)) != .done)
        }
    }

    @Test func `a suspect is waited for`() {
        var subject = follower()
        #expect(subject.observe(cluster("n1", [three[0], member("n3", .draining, .suspect)])) == .going)
    }

    @Test func `who is up again was undrained, but not before the news of the drain arrived`() {
        var subject = follower()
        let up = [member("n1"), member("n3")]
        #expect(subject.observe(cluster("n1", up)) == .going)
        #expect(subject.observe(cluster("n1", three)) == .going)
        #expect(subject.observe(cluster("n1", up)) == .cancelled)
    }

    @Test func `living members are asked, the drained one last, strangers never`() {
        let subject = follower()
        #expect(subject.candidates.map { $0.name } == ["n1", "n2", "n3"])
        #expect(subject.candidates[1].address == HostAndPort(host: "10.0.0.2", port: 11213))
        let second = subject.candidates[1]
        #expect(subject.accepts(cluster("n2", three), from: second))
        #expect(!subject.accepts(cluster("n1", three), from: second))
        #expect(!subject.accepts(cluster("n2", three, name: "other"), from: second))
    }

    @Test func `silence is the end only where nobody else was known`() {
        let alone = cluster("n3", [member("n3", .draining, admin: "127.0.0.1:1")])
        let address = HostAndPort(host: "127.0.0.1", port: 1)
        var last = DrainFollower(task: drainTask(0), status: alone, address: address)
        #expect(last.observeSilence() == .going)
        var moved = alone
        moved.tasks = [drainTask(100)]
        #expect(last.observe(moved) == .going)
        #expect(last.observeSilence() == .done)
        var subject = follower()
        #expect(subject.observe(cluster("n1", three, tasks: [drainTask(100)])) == .going)
        #expect(subject.observeSilence() == .going)
    }
}

@Suite struct ClientCommandTests {
    @Test func `status shows the cluster, and its exit code tells whether something is missing`() async throws {
        try await serving(ScriptedNode([cluster("n1", [member("n1")])])) { address, _ in
            let recorder = Recorder()
            #expect(await run("status -n \(address)", recorder.context()) == 0)
            #expect(recorder.output.hasPrefix("cluster prod   1 node up"))
            let json = Recorder()
            #expect(await run("status -o json", json.context(environment: ["HENGE_NODE": address])) == 0)
            let decoded = try JSONDecoder().decode(ClusterStatus.self, from: Data(json.output.utf8))
            #expect(decoded == cluster("n1", [member("n1")]))
        }
        try await serving(ScriptedNode([cluster("n1", [member("n1"), member("n2", .up, .down)])])) { address, _ in
            #expect(await run("status -n \(address)", Recorder().context()) == 3)
        }
    }

    @Test func `waiting ends when all is settled, or with 124`() async throws {
        let moving = cluster("n1", [member("n1")], settled: 5)
        try await serving(ScriptedNode([moving, moving, cluster("n1", [member("n1")])])) { address, _ in
            #expect(await run("status --wait -n \(address) --timeout 60s", Recorder().context()) == 0)
        }
        try await serving(ScriptedNode([moving])) { address, _ in
            #expect(await run("status --wait=self -n \(address)", Recorder().context()) == 0)
            let recorder = Recorder()
            #expect(await run("status --wait=all --timeout 1s -n \(address)", recorder.context()) == 124)
            #expect(recorder.complaints == "henge: not reached within 1s: 5 of 16,384 slices are settled\n")
        }
    }

    @Test func `the ring and the place of a key`() async throws {
        try await serving(ScriptedNode([cluster("n1", [member("n1")])])) { address, _ in
            let recorder = Recorder()
            #expect(await run("ring -n \(address)", recorder.context()) == 0)
            #expect(recorder.output.contains("7,157 → 8,192"))
            let key = Recorder()
            #expect(await run("ring --key user:42 -n \(address)", key.context()) == 0)
            #expect(key.output.contains("slice 9,731   epoch 41   holder n2"))
        }
    }

    @Test func `nobody at the address is exit code 5`() async throws {
        let address = try await serving(ScriptedNode([cluster("n1", [])])) { address, _ in address }
        for line in ["status", "ring", "drain n3", "undrain n3", "forget n3", "events"] {
            let recorder = Recorder()
            #expect(await run("\(line) -n \(address)", recorder.context()) == 5)
            #expect(recorder.complaints == "henge: node \(address) not reached: Connection refused\n")
        }
    }

    @Test func `a drain is followed until it is done`() async throws {
        let script = [
            cluster("n1", three), cluster("n1", three, tasks: [drainTask(40)]),
            cluster("n1", three, tasks: [drainTask(100, .done)]),
        ]
        try await serving(ScriptedNode(script)) { address, _ in
            let recorder = Recorder()
            #expect(await run("drain n3 -n \(address)", recorder.context()) == 0, "\(recorder.complaints)")
            let lines = recorder.output.split(separator: "\n")
            #expect(lines.first?.contains("state=running done=40") == true, "\(recorder.output)")
            #expect(lines.last?.contains("state=done done=100") == true, "\(recorder.output)")
        }
        try await serving(ScriptedNode(script)) { address, _ in
            let recorder = Recorder()
            #expect(await run("drain n3 -o json -n \(address)", recorder.context(terminal: true)) == 0)
            let tasks = try recorder.output.split(separator: "\n").map {
                try JSONDecoder().decode(TaskReport.self, from: Data($0.utf8))
            }
            #expect(tasks == [drainTask(40), drainTask(100, .done)])
        }
        try await serving(ScriptedNode(script)) { address, _ in
            let recorder = Recorder()
            #expect(await run("drain n3 -n \(address)", recorder.context(answer: "y", terminal: true)) == 0)
            #expect(recorder.output.hasPrefix("Drain n3? [y/N] "))
            #expect(recorder.output.contains("✔ n3 drained in ") && recorder.output.contains(": 100 copies, 100M\n"))
        }
    }

    @Test func `without a yes nothing begins, and a detached drain is not waited for`() async throws {
        try await serving(ScriptedNode([cluster("n1", three)])) { address, _ in
            for answer in ["n", "", nil] as [String?] {
                let recorder = Recorder()
                #expect(await run("drain n3 -n \(address)", recorder.context(answer: answer, terminal: true)) == 1)
                #expect(recorder.complaints == "henge: nothing was done\n")
            }
            let recorder = Recorder()
            #expect(await run("drain n3 -y --detach -n \(address)", recorder.context(terminal: true)) == 0)
            #expect(recorder.output == "task 8c1f started; henge status shows it\n")
        }
    }

    @Test func `when its own node is gone, another member is asked`() async throws {
        try await serving(
            ScriptedNode([cluster("n1", [member("n1"), member("n2"), member("n3", .left)])])
        ) { other, _ in
            let members = [member("n1", admin: other), member("n2"), member("n3", .draining)]
            // The drained node was asked itself; its admin port closes once the last status was fetched.
            let node = ScriptedNode([cluster("n3", members), cluster("n3", members, tasks: [drainTask(70)])])
            try await serving(node) { address, server in
                let recorder = Recorder()
                async let code = run("drain n3 -n \(address)", recorder.context())
                while recorder.output.isEmpty { await Task.yield() }
                await server.stop(graceSeconds: 0)
                #expect(await code == 0, "\(recorder.complaints)")
                #expect(recorder.output.hasSuffix("state=done done=70 total=100 percent=70 bytes=73400320\n"))
            }
        }
    }

    @Test func `refusals, unknown nodes, failures and time-outs have their exit codes`() async throws {
        let start = cluster("n1", three)
        let cases: [(ScriptedNode, String, Int32, String)] = [
            (
                ScriptedNode([start], drain: .failure(.refused(check: "copies", detail: "1 node would remain"))),
                "drain n3", 4, "henge: 1 node would remain\n"
            ),
            (
                ScriptedNode([start], drain: .failure(.unknownNode("n9"))), "drain n9", 1,
                "henge: no member is called 'n9' or has that address\n"
            ),
            (
                ScriptedNode([start, cluster("n1", three, tasks: [drainTask(3, .failed, blocked: "n2 is full")])]),
                "drain n3", 1, "henge: drain of n3 failed: n2 is full\n"
            ),
            (
                ScriptedNode([start, cluster("n1", three, tasks: [drainTask(3, .cancelled)])]), "drain n3", 1,
                "henge: drain of n3 was cancelled\n"
            ),
            (
                ScriptedNode([start, cluster("n1", three, tasks: [drainTask(3)])]), "drain n3 --timeout 1s", 124,
                "henge: not done within 1s; task 8c1f goes on\n"
            ),
            (ScriptedNode([start]), "undrain n3", 0, ""),
        ]
        for (node, line, code, complaint) in cases {
            try await serving(node) { address, _ in
                let recorder = Recorder()
                #expect(await run("\(line) -n \(address)", recorder.context()) == code, "\(line)")
                #expect(recorder.complaints == complaint)
            }
        }
    }
}
