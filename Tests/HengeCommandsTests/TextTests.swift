import AdminServer
import Testing

@testable import HengeCommands

@Suite struct TextTests {
    @Test func `a status reads like this`() {
        var status = cluster(
            "n1",
            [member("n1"), member("n2"), member("n3", .draining)],
            tasks: [drainTask(62, blocked: "n2: no acknowledgement for 11 s")],
            settled: 15972
        )
        status.members[1].zone = "rack2"
        #expect(
            StatusText.render(status) == """
                cluster prod   2 nodes up   replicas 1   ring 7f3c9a41   partition safe   health ok
                NODE  STATE     LIVE   ADDRESS         ADMIN        ZONE   WEIGHT  PRIMARY  COPIES  ITEMS    MEMORY
                n1 *  up        alive  10.0.0.1:11211  127.0.0.1:1  -      1.0     8,192    16,384  158,214  842M/2.0G
                n2    up        alive  10.0.0.1:11211  127.0.0.1:1  rack2  1.0     8,192    16,384  158,214  842M/2.0G
                n3    draining  alive  10.0.0.1:11211  127.0.0.1:1  -      1.0     0        16,384  158,214  842M/2.0G
                slices 16,384   settled 15,972   moving 412   short of copies 0   unavailable 0
                task 8c1f   drain n3   running   62 %   BLOCKED n2: no acknowledgement for 11 s

                """
        )
    }

    @Test func `names cannot steer the terminal`() {
        var status = cluster("n1", [member("n1")])
        status.members[0].zone = "\u{1b}[2J\u{9b}x"
        #expect(StatusText.render(status).contains("?[2J?x"))
        #expect(!StatusText.render(status).unicodeScalars.contains("\u{1b}"))
    }

    @Test func `a ring reads like this`() {
        let report = RingReport(
            hash: HexHash(0xab),
            members: [
                .init(name: "n1", primaries: .init(now: 7157, wanted: 8192), copies: .init(now: 3, wanted: 3)),
                .init(name: "node2", primaries: .init(now: 5, wanted: 0), copies: .init(now: 4, wanted: 0)),
            ]
        )
        #expect(
            StatusText.render(report) == """
                ring 00000000000000ab
                NODE   PRIMARY        COPIES
                n1     7,157 → 8,192  3
                node2  5 → 0          4 → 0

                """
        )
        var placed = report
        placed.placement = .init(
            key: "k",
            hash: HexHash(2),
            slice: 9731,
            epoch: 41,
            holder: "n2",
            successors: ["n3"],
            inSync: 2
        )
        #expect(
            StatusText.render(placed)
                == "hash 0000000000000002   slice 9,731   epoch 41   holder n2   successors n3   in sync 2 of 2\n"
        )
        placed.placement = .init(
            key: "k",
            hash: HexHash(2),
            slice: 0,
            epoch: 1,
            holder: nil,
            successors: [],
            inSync: 0
        )
        #expect(StatusText.render(placed).contains("holder none   successors none   in sync 0 of 1"))
    }

    @Test func `progress reads like this`() {
        let line = TaskText.live(drainTask(62), since: drainTask(0), seconds: 4)
        #expect(
            line == "drain n3  ██████████████░░░░░░░░░░ 62 %  62/100 copies  62M  16M/s  3 s left"
        )
        #expect(TaskText.live(drainTask(0), since: drainTask(0), seconds: 0).hasSuffix("0 %  0/100 copies  0B"))
        #expect(TaskText.live(drainTask(0, of: 0), since: drainTask(0, of: 0), seconds: 1).contains("0 %  0/0"))
        #expect(
            TaskText.logfmt(drainTask(62, blocked: "a \"b\""))
                == "task=8c1f kind=drain node=n3 state=running done=62 total=100 percent=62 bytes=65011712 "
                + "blocked=\"a \\\"b\\\"\""
        )
    }

    @Test(arguments: [
        (0, "0B"), (999, "999B"), (1000, "1.0K"), (1024, "1.0K"), (10_188, "9.9K"), (10_189, "10K"),
        (1_048_576, "1.0M"),
        (2_147_483_648, "2.0G"), (-5, "0B"), (1_047_000, "1.0M"),
    ])
    func `bytes in four characters`(_ value: Int, _ text: String) {
        #expect(Readable.bytes(value) == text)
    }

    @Test func `counts and percent`() {
        #expect([0, 999, 1000, 1_234_567, -1234].map(Readable.count) == ["0", "999", "1,000", "1,234,567", "-1,234"])
        #expect(Readable.percent(10_922, of: 10_923) == 99 && Readable.percent(5, of: 5) == 100)
        #expect(Readable.percent(5, of: 0) == 0)
    }

    @Test func `keys are percent-encoded`() {
        #expect(AdminClient.percentEncoded("user:42 é+~") == "user%3A42%20%C3%A9%2B~")
    }
}
