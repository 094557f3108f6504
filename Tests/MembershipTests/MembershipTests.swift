import ClusterCore
import MembershipSimulation
import Testing

@testable import Membership

private func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

private func shown(_ values: [Double]) -> String {
    let sorted = values.sorted()
    func digits(_ value: Double) -> String { value.isFinite ? String(Double(Int(value * 10)) / 10) : "never" }
    return "median \(digits(median(values))) ms, most \(digits(sorted[sorted.count - 1])) ms, \(values.count) runs"
}

@Suite struct `Formation and joining` {
    @Test(arguments: [1, 2, 3, 5, 9, 16, 32])
    func `nodes with one list of seeds form one cluster`(count: Int) {
        var times: [Double] = []
        for seed in 0..<4 as Range<UInt64> {
            var simulator = GossipSimulator.cluster(count, spreadMilliseconds: 1000, seed: seed)
            let time = simulator.run(limitMilliseconds: 10_000) { simulator in
                simulator.nodes.allSatisfy { $0.isRunning } && simulator.agrees(up: count)
            }
            #expect(time != nil, "seed \(seed), \(count) nodes")
            #expect(simulator.longestDatagram <= 1200)
            times.append(Double(simulator.now.nanoseconds(since: simulator.lastStart)) / 1e6)
        }
        print("formation of \(count), since the last start:", shown(times))
        #expect(median(times) < 1500)
    }

    @Test func `a node without seeds is a cluster of one at once`() {
        var simulator = GossipSimulator(seed: 1)
        let index = simulator.add(seeds: [])
        simulator.start(index)
        simulator.run(milliseconds: 1)
        #expect(simulator.nodes[index].formedCount == 1)
        #expect(simulator.nodes[index].membership?.phase == .joined)
        #expect(simulator.upCount == 1)
    }

    @Test(arguments: [2, 3, 9, 31])
    func `one more node joins within tens of milliseconds`(count: Int) {
        var times: [Double] = []
        for seed in 0..<5 as Range<UInt64> {
            var simulator = GossipSimulator.cluster(count, seed: seed)
            #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: count) } != nil, "seed \(seed)")
            simulator.run(milliseconds: 5000)
            let joiner = simulator.add(seeds: [GossipSimulator.seed(0), GossipSimulator.seed(1)])
            simulator.start(joiner)
            let time = simulator.run(limitMilliseconds: 10_000) { simulator in
                simulator.agrees { _ in true } && simulator.allOthers(hold: joiner) { $0.lifecycle == .joining }
            }
            times.append(time ?? .infinity)
            #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: count + 1) } != nil, "seed \(seed)")
            #expect(simulator.nodes[joiner].formedCount == 0)
            #expect(simulator.nodes[joiner].joinedCount == 1)
        }
        print("one joins \(count), to equal hashes:", shown(times))
        #expect(median(times) < 50)
    }

    @Test func `a node whose seeds are silent forms nothing and says who is missing`() throws {
        var simulator = GossipSimulator(seed: 3)
        let index = simulator.add(seeds: [0, 1, 2].map(GossipSimulator.seed))
        _ = simulator.add(seeds: [])
        simulator.start(index)
        simulator.run(milliseconds: 600_000)
        #expect(simulator.nodes[index].formedCount == 0)
        guard case .seeking(let seeking)? = simulator.nodes[index].membership?.phase else {
            Issue.record("not seeking")
            return
        }
        #expect(seeking.majority == 2)
        #expect(seeking.agreeing == 1)
        #expect(seeking.contacts.map(\.answer) == [.itself, .silent, .silent])
        // Retried for ever, with back-off.
        #expect((200..<1000).contains(simulator.datagramCount))
        // The operator's word overrides.
        simulator.call(index) { membership, now, effects in
            #expect(membership.formWithoutMajority(now: now, effects: &effects))
        }
        #expect(simulator.upCount == 1)
    }

    @Test func `of two seeds, both are needed; of three, two form and the third joins`() {
        var two = GossipSimulator.cluster(2, seed: 4)
        two.edit(1) { $0.side = 1 }
        two.run(milliseconds: 30_000)
        #expect(two.nodes.allSatisfy { $0.formedCount == 0 })
        two.edit(1) { $0.side = 0 }
        #expect(two.run(limitMilliseconds: 6000) { $0.agrees(up: 2) } != nil)

        var three = GossipSimulator(seed: 5)
        for _ in 0..<3 { _ = three.add(seeds: [0, 1, 2].map(GossipSimulator.seed)) }
        three.start(0)
        three.start(1)
        #expect(three.run(limitMilliseconds: 2000) { $0.agrees(up: 2) } != nil)
        three.start(2)
        #expect(three.run(limitMilliseconds: 2000) { $0.agrees(up: 3) } != nil)
        #expect(three.nodes.map(\.formedCount) == [1, 1, 0])
    }

    @Test func `a node outside the list joins as soon as a seed is up`() {
        var simulator = GossipSimulator(seed: 6)
        for _ in 0..<5 { _ = simulator.add(seeds: [0, 1, 2].map(GossipSimulator.seed)) }
        simulator.start(3)
        simulator.start(4)
        simulator.run(milliseconds: 20_000)
        #expect(simulator.nodes.allSatisfy { $0.formedCount == 0 })
        for index in 0..<3 { simulator.start(index) }
        #expect(simulator.run(limitMilliseconds: 2000) { $0.agrees(up: 5) } != nil)
        #expect(simulator.nodes.map(\.formedCount) == [1, 1, 1, 0, 0])
    }

    @Test func `two groups of one list that formed apart become one`() {
        // Both halves of four seeds lack a majority; with the operator's word both form, and meet again.
        var simulator = GossipSimulator.cluster(4, seed: 7)
        for index in 2..<4 { simulator.edit(index) { $0.side = 1 } }
        simulator.run(milliseconds: 10_000)
        #expect(simulator.nodes.allSatisfy { $0.formedCount == 0 })
        for index in [0, 2] {
            simulator.call(index) { _ = $0.formWithoutMajority(now: $1, effects: &$2) }
        }
        simulator.run(milliseconds: 10_000)
        #expect(simulator.nodes.allSatisfy { $0.membership?.members.count == 2 })
        for index in 2..<4 { simulator.edit(index) { $0.side = 0 } }
        let time = simulator.run(limitMilliseconds: 30_000) { $0.agrees(up: 4) }
        #expect(time != nil)
        print("two groups of one list meet:", time ?? .infinity, "ms")
    }

    @Test func `names are resolved again while they do not answer`() {
        var simulator = GossipSimulator(seed: 8)
        let seeds = ["a", "b", "c"].map { HostAndPort(host: $0, port: 11_212) }
        for _ in 0..<3 { _ = simulator.add(seeds: seeds) }
        // Two see their own name as loopback, as Debian has it; the third name comes late, the second is wrong at
        // first.
        let loopback = Endpoint(.v4(0x7f00_0101), port: 11_212)
        simulator.names = [
            "a": [GossipSimulator.endpoint(0)], "b": [GossipSimulator.endpoint(77)], "0/a": [loopback],
            "1/b": [loopback],
        ]
        for index in 0..<3 { simulator.start(index) }
        simulator.run(milliseconds: 10_000)
        #expect(simulator.nodes.allSatisfy { $0.formedCount == 0 })
        simulator.names["b"] = [GossipSimulator.endpoint(1)]
        simulator.names["c"] = [GossipSimulator.endpoint(2), GossipSimulator.endpoint(2)]
        #expect(simulator.run(limitMilliseconds: 15_000) { $0.agrees(up: 3) } != nil)
    }

    @Test func `a node finds itself in the list by the echo of its own hello`() {
        var simulator = GossipSimulator(seed: 14)
        simulator.names = ["me": [Endpoint(.v4(0xc0a8_0001), port: 11_212)]]
        simulator.aliases = [Endpoint(.v4(0xc0a8_0001), port: 11_212): GossipSimulator.endpoint(0)]
        _ = simulator.add(seeds: [HostAndPort(host: "me", port: 11_212)])
        simulator.start(0)
        #expect(simulator.run(limitMilliseconds: 100) { $0.agrees(up: 1) } != nil)
    }

    @Test func `another cluster's nodes are refused and named, and nothing is merged`() {
        var simulator = GossipSimulator(seed: 9)
        var other = MembershipConfiguration()
        other.clusterName = "avebury"
        _ = simulator.add(seeds: [])
        _ = simulator.add(seeds: [GossipSimulator.seed(0), GossipSimulator.seed(1)], configuration: other)
        simulator.start(0)
        simulator.start(1)
        simulator.run(milliseconds: 20_000)
        #expect(simulator.nodes[0].membership?.members.count == 1)
        #expect(simulator.nodes[1].formedCount == 0)
        #expect(
            simulator.nodes[1].events.map(\.event) == [.rejectedCluster(name: "henge", at: GossipSimulator.endpoint(0))]
        )
        guard case .seeking(let seeking)? = simulator.nodes[1].membership?.phase else {
            Issue.record("not seeking")
            return
        }
        #expect(seeking.contacts.first?.answer == .foreign(clusterName: "henge"))
    }

    @Test func `a joiner with other settings stops and names the difference`() {
        var simulator = GossipSimulator(seed: 10)
        var configuration = MembershipConfiguration()
        configuration.settings = "replicas=1 partition=auto"
        _ = simulator.add(seeds: [], configuration: configuration)
        configuration.settings = "replicas=2 partition=auto"
        let joiner = simulator.add(seeds: [GossipSimulator.seed(0)], configuration: configuration)
        simulator.edit(joiner) { $0.record.configurationHash = 7 }
        simulator.start(0)
        simulator.start(joiner)
        simulator.run(milliseconds: 1000)
        #expect(
            simulator.nodes[joiner].stopReason
                == .configurationDiffers(
                    difference: "here replicas=2, there replicas=1",
                    at: GossipSimulator.endpoint(0)
                )
        )
        #expect(simulator.nodes[0].membership?.members.count == 1)
    }

    @Test func `a state too large for datagrams comes over TCP`() {
        var configuration = MembershipConfiguration()
        configuration.stateDatagramsMax = 1
        var simulator = GossipSimulator.cluster(20, seed: 11, configuration: configuration)
        #expect(simulator.run(limitMilliseconds: 20_000) { $0.agrees(up: 20) } != nil)
        let joiner = simulator.add(seeds: [GossipSimulator.seed(0)], configuration: configuration)
        simulator.start(joiner)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 21) } != nil)
    }

    @Test func `beyond the direct limit news travels by gossip`() {
        var configuration = MembershipConfiguration()
        configuration.directMembersMax = 4
        var simulator = GossipSimulator.cluster(12, seedCount: 3, seed: 12, configuration: configuration)
        #expect(simulator.run(limitMilliseconds: 20_000) { $0.agrees(up: 12) } != nil)
        simulator.run(milliseconds: 3000)
        simulator.crash(5)
        let time = simulator.run(limitMilliseconds: 20_000) { simulator in
            simulator.allOthers(hold: 5) { $0.liveness == .down }
        }
        #expect(time != nil)
        print("crash of 1 of 12 by gossip alone:", time ?? .infinity, "ms")
    }
}

@Suite struct `Failure and recovery` {
    @Test(arguments: [
        (2, 3500.0, 6), (3, 3000.0, 20), (5, 3200.0, 6), (9, 3200.0, 6), (16, 3500.0, 12), (32, 4200.0, 9),
    ])
    func `a crash is known to all within the figures`(count: Int, medianMost: Double, runs: Int) {
        var times: [Double] = []
        for seed in 0..<UInt64(runs) {
            var simulator = GossipSimulator.cluster(count, seed: seed)
            #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: count) } != nil)
            simulator.run(milliseconds: 5000 + 137 * seed)
            let victim = Int(seed) % count
            simulator.crash(victim)
            let time = simulator.run(limitMilliseconds: 30_000) { simulator in
                simulator.allOthers(hold: victim) { $0.liveness == .down }
            }
            times.append(time ?? .infinity)
            #expect(
                simulator.nodes.allSatisfy { node in
                    !node.events.contains { if case .refutedOwn = $0.event { true } else { false } }
                },
                "seed \(seed): a healthy node was accused"
            )
        }
        print("crash of 1 of \(count), to down everywhere:", shown(times))
        #expect(median(times) < medianMost)
        #expect(times.max() ?? 0 < 9000)
    }

    @Test func `several crash at once`() {
        for seed in 0..<3 as Range<UInt64> {
            var simulator = GossipSimulator.cluster(9, seed: seed)
            #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 9) } != nil)
            for victim in [1, 4, 5, 8] { simulator.crash(victim) }
            let time = simulator.run(limitMilliseconds: 40_000) { simulator in
                [1, 4, 5, 8].allSatisfy { victim in simulator.allOthers(hold: victim) { $0.liveness == .down } }
            }
            #expect(time != nil, "seed \(seed)")
            #expect(simulator.nodes[0].membership?.members.count == 9, "down members stay members")
            print("4 of 9 crash:", time ?? .infinity, "ms")
        }
    }

    @Test func `a short pause is refuted before it convicts`() {
        for seed in 0..<5 as Range<UInt64> {
            var simulator = GossipSimulator.cluster(5, seed: seed)
            #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 5) } != nil)
            simulator.run(milliseconds: 3000)
            simulator.pause(2, milliseconds: 1800)
            simulator.run(milliseconds: 1800)
            #expect(simulator.run(limitMilliseconds: 5000) { $0.agrees(up: 5) } != nil, "seed \(seed)")
            simulator.run(milliseconds: 10_000)
            #expect(simulator.agrees(up: 5), "seed \(seed)")
            for node in simulator.nodes {
                #expect(!node.events.contains { if case .down = $0.event { true } else { false } }, "seed \(seed)")
            }
        }
    }

    @Test func `a node that paused for 3 s refutes and convicts nobody`() {
        for seed in 0..<5 as Range<UInt64> {
            var simulator = GossipSimulator.cluster(5, seed: seed)
            #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 5) } != nil)
            simulator.run(milliseconds: 3000)
            simulator.pause(2, milliseconds: 3000)
            simulator.run(milliseconds: 3000)
            let time = simulator.run(limitMilliseconds: 5000) { $0.agrees(up: 5) }
            #expect(time != nil, "seed \(seed)")
            simulator.run(milliseconds: 10_000)
            #expect(simulator.agrees(up: 5), "seed \(seed)")
            let paused = simulator.nodes[2]
            #expect(paused.membership?.statistics.convictions == 0)
            #expect(paused.membership?.statistics.stalls ?? 0 >= 1)
            #expect(paused.membership?.ownRecord.incarnation ?? 0 > 0)
            print("refutation after a pause of 3 s:", time ?? .infinity, "ms")
        }
    }

    @Test func `an old inbox makes a node doubt itself, once per probe interval`() throws {
        var simulator = GossipSimulator.cluster(2, seed: 51)
        simulator.captureInterval = 1
        simulator.capturesMax = 16
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 2) } != nil)
        simulator.run(milliseconds: 3000)
        let word = try #require(simulator.captures.first { $0.receiver == 0 })
        func read(ageMilliseconds: UInt64, times: Int) {
            for _ in 0..<times {
                simulator.deliver(word.bytes, to: 0, from: word.from, ageNanoseconds: ageMilliseconds * 1_000_000)
            }
        }
        func health() -> Int? { simulator.nodes[0].membership?.health }
        read(ageMilliseconds: 125, times: 10)
        #expect(health() == 0, "a quarter of the interval is not late")
        read(ageMilliseconds: 126, times: 10)
        #expect(health() == 1)
        // Cut off, so that no probe answered in time takes it back.
        simulator.edit(0) { $0.side = 1 }
        simulator.run(milliseconds: 100)
        read(ageMilliseconds: 300, times: 10)
        #expect(health() == 1)
        simulator.run(milliseconds: 400)
        let before = try #require(health())
        read(ageMilliseconds: 300, times: 10)
        #expect(health() == before + 1)
        #expect(simulator.nodes[0].membership?.statistics.datagramsReadLate == 30)
        #expect(simulator.nodes[0].membership?.statistics.inboxAgeMaxMicroseconds == 300_000)
    }

    @Test func `an answer that arrived in time and is read late fails no probe`() throws {
        for seed in 0..<5 as Range<UInt64> {
            var simulator = GossipSimulator.cluster(2, seed: seed)
            simulator.captureInterval = 1
            simulator.capturesMax = 16
            #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 2) } != nil)
            simulator.run(milliseconds: 3000)
            let word = try #require(simulator.captures.first { $0.receiver == 0 })
            // 60 datagrams of 10 ms each lie before the answer to the next probe, which ends after 400 ms.
            simulator.edit(0) { $0.microsecondsEach = 10_000 }
            for _ in 0..<60 { simulator.post(word.bytes, to: GossipSimulator.endpoint(0), from: word.from) }
            let probes = simulator.nodes[0].membership?.statistics.probesSent ?? 0
            simulator.run(milliseconds: 3000)
            let slow = try #require(simulator.nodes[0].membership)
            #expect(slow.statistics.probesSent > probes, "seed \(seed)")
            #expect(slow.statistics.inboxAgeMaxMicroseconds > 400_000, "seed \(seed)")
            #expect(slow.statistics.probesFailed == 0, "seed \(seed)")
            #expect(slow.statistics.suspicions == 0, "seed \(seed)")
            // Who does not answer at all is still found out.
            simulator.crash(1)
            #expect(simulator.run(limitMilliseconds: 30_000) { $0.view(of: 1, by: 0)?.liveness == .down } != nil)
        }
    }

    @Test func `a fifth of all datagrams lost convicts nobody and hides nothing`() {
        for seed in 0..<3 as Range<UInt64> {
            var simulator = GossipSimulator.cluster(9, seed: seed)
            simulator.network.lossPercent = 20
            simulator.network.duplicatePercent = 5
            simulator.network.detourPercent = 10
            #expect(simulator.run(limitMilliseconds: 20_000) { $0.agrees(up: 9) } != nil, "seed \(seed)")
            simulator.run(milliseconds: 60_000)
            for node in simulator.nodes {
                #expect(!node.events.contains { if case .down = $0.event { true } else { false } }, "seed \(seed)")
            }
            let joiner = simulator.add(seeds: [GossipSimulator.seed(0), GossipSimulator.seed(1)])
            simulator.start(joiner)
            let time = simulator.run(limitMilliseconds: 20_000) { simulator in
                simulator.agrees { _ in true } && simulator.allOthers(hold: joiner) { $0.lifecycle == .joining }
            }
            print("join of a tenth at 20 % loss:", time ?? .infinity, "ms")
            #expect(time != nil, "seed \(seed)")
            simulator.run(milliseconds: 3000)
            simulator.crash(3)
            let crash = simulator.run(limitMilliseconds: 20_000) { simulator in
                simulator.allOthers(hold: 3) { $0.liveness == .down }
            }
            print("crash of 1 of 10 at 20 % loss:", crash ?? .infinity, "ms")
            #expect(crash != nil, "seed \(seed)")
        }
    }

    @Test(arguments: [(5, 2), (9, 4), (16, 1), (3, 1)])
    func `a split heals without an operator`(count: Int, minority: Int) {
        var times: [Double] = []
        for seed in 0..<4 as Range<UInt64> {
            var simulator = GossipSimulator.cluster(count, seed: seed)
            #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: count) } != nil)
            simulator.run(milliseconds: 2000)
            for index in 0..<minority { simulator.edit(index) { $0.side = 1 } }
            simulator.run(milliseconds: 120_000)
            for observer in simulator.nodes.indices {
                for index in simulator.nodes.indices {
                    let apart = simulator.nodes[observer].side != simulator.nodes[index].side
                    #expect(
                        simulator.view(of: index, by: observer)?.liveness == (apart ? .down : .alive),
                        "seed \(seed)"
                    )
                }
            }
            let events = simulator.nodes.map(\.events.count)
            for index in 0..<minority { simulator.edit(index) { $0.side = 0 } }
            let time = simulator.run(limitMilliseconds: 40_000) { $0.agrees(up: count) }
            #expect(time != nil, "seed \(seed)")
            times.append(time ?? .infinity)
            // Nobody loses sight of a node of its own side while the verdicts of the other come in.
            for (index, node) in simulator.nodes.enumerated() {
                for (_, event) in node.events.dropFirst(events[index]) {
                    if case .down(_, let name) = event { Issue.record("seed \(seed): \(index) saw \(name) go down") }
                }
            }
        }
        print("split of \(count), \(minority) apart, heals:", shown(times))
    }

    @Test func `a restarted node replaces its record at once`() {
        var simulator = GossipSimulator.cluster(5, seed: 21)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 5) } != nil)
        simulator.crash(0)
        simulator.run(milliseconds: 20)
        simulator.start(0, remembered: (1..<5).map(GossipSimulator.endpoint))
        let time = simulator.run(limitMilliseconds: 3000) { $0.agrees(up: 5) }
        #expect(time != nil)
        #expect(simulator.nodes[0].formedCount == 1, "only the first time")
        #expect(simulator.nodes[0].joinedCount == 1)
        print("restart of 1 of 5, to up everywhere:", time ?? .infinity, "ms")
    }

    @Test func `who announces its end is down at once, without suspicion, and comes back`() {
        var simulator = GossipSimulator.cluster(5, seed: 22)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 5) } != nil)
        simulator.call(1) { $0.announceDown(now: $1, effects: &$2) }
        let time = simulator.run(limitMilliseconds: 100) { simulator in
            simulator.allOthers(hold: 1) { $0.liveness == .down && $0.lifecycle == .up }
        }
        #expect(time != nil)
        simulator.run(milliseconds: 100)
        #expect(simulator.nodes[1].membership?.hasSaidFarewell == true)
        simulator.crash(1)
        simulator.run(milliseconds: 60_000)
        #expect(
            simulator.nodes.allSatisfy { node in
                !node.events.contains { if case .suspected = $0.event { true } else { false } }
            }
        )
        simulator.start(1, remembered: [0, 2, 3, 4].map(GossipSimulator.endpoint))
        #expect(simulator.run(limitMilliseconds: 3000) { $0.agrees(up: 5) } != nil)
    }

    @Test func `who leaves is gone for good in this generation`() {
        var simulator = GossipSimulator.cluster(4, seed: 23)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 4) } != nil)
        simulator.call(3) { $0.setLifecycle(.draining, now: $1, effects: &$2) }
        #expect(
            simulator.run(limitMilliseconds: 50) { simulator in
                simulator.allOthers(hold: 3) { $0.lifecycle == .draining }
            } != nil
        )
        simulator.call(3) { $0.setLifecycle(.left, now: $1, effects: &$2) }
        simulator.run(milliseconds: 50)
        #expect(simulator.nodes[3].membership?.hasSaidFarewell == true)
        simulator.crash(3)
        #expect(simulator.agrees(up: 3))
        simulator.run(milliseconds: 60_000)
        #expect(simulator.nodes[0].membership?.members.count == 3)
        #expect(simulator.nodes[0].membership?.tombstones.count == 1)
        simulator.start(3)
        #expect(simulator.run(limitMilliseconds: 3000) { $0.agrees(up: 4) } != nil)
    }

    /// Beyond 32 members news travels by gossip, which takes rounds that who ends does not have.
    @Test(arguments: [0, 20])
    func `who ends tells all of a large cluster before it is gone`(lossPercent: Int) {
        var simulator = GossipSimulator.cluster(40, seedCount: 3, seed: 24)
        #expect(simulator.run(limitMilliseconds: 30_000) { $0.agrees(up: 40) } != nil)
        simulator.run(milliseconds: 5000)
        simulator.network.lossPercent = lossPercent
        simulator.call(7) { $0.setLifecycle(.left, now: $1, effects: &$2) }
        simulator.call(8) { $0.announceDown(now: $1, effects: &$2) }
        let time = simulator.run(limitMilliseconds: 1000) { simulator in
            [7, 8].allSatisfy { simulator.nodes[$0].membership?.hasSaidFarewell == true }
        }
        #expect(time != nil)
        for observer in simulator.nodes.indices where observer != 7 && observer != 8 {
            #expect(simulator.view(of: 7, by: observer)?.lifecycle == .left, "node \(observer)")
            #expect(simulator.view(of: 8, by: observer)?.liveness == .down, "node \(observer)")
        }
    }

    /// Tombstones that had to make room for others stayed in the queue for gossip.
    @Test func `nothing is to be told of a tombstone that was evicted`() {
        var configuration = MembershipConfiguration()
        configuration.directMembersMax = 0
        configuration.tombstonesMax = 4
        var simulator = GossipSimulator.cluster(2, seed: 18, configuration: configuration)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 2) } != nil)
        var random = Xoshiro256(seed: 18)
        let teller = simulator.nodes[1].record
        for _ in 0..<100 {
            var record = Samples.record(&random)
            record.lifecycle = .left
            let bytes = GossipDatagram(
                clusterTag: GossipDatagram.tag(ofCluster: "henge"),
                sender: teller.id,
                senderGeneration: teller.generation,
                target: nil,
                message: .update(sequence: 0),
                entries: [.record(record, ageSeconds: UInt32.random(in: 0...1000, using: &random))]
            ).encoded()
            simulator.deliver(bytes, to: 0, from: teller.cluster)
        }
        let load = simulator.nodes[0].membership?.load
        #expect(load?.records == 5)
        #expect((load?.gossipQueued ?? .max) <= 6)
    }

    @Test func `a tombstone is dropped after its term, everywhere and for good`() {
        var configuration = MembershipConfiguration()
        configuration.tombstoneMilliseconds = 30_000
        var simulator = GossipSimulator.cluster(4, seed: 28, configuration: configuration)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 4) } != nil)
        simulator.call(3) { $0.setLifecycle(.left, now: $1, effects: &$2) }
        simulator.run(milliseconds: 100)
        simulator.crash(3)
        simulator.run(milliseconds: 15_000)
        // One that comes later takes the tombstone with its age.
        let late = simulator.add(seeds: [GossipSimulator.seed(0)], configuration: configuration)
        simulator.start(late)
        simulator.run(milliseconds: 5000)
        #expect(simulator.nodes[late].membership?.tombstones.count == 1)
        simulator.run(milliseconds: 12_000)
        for node in simulator.nodes where node.isRunning { #expect(node.membership?.tombstones.isEmpty == true) }
        simulator.run(milliseconds: 60_000)
        for node in simulator.nodes where node.isRunning {
            #expect(node.membership?.tombstones.isEmpty == true)
            #expect(node.membership?.members.count == 4)
        }
    }

    @Test(arguments: [3, 5, 9])
    func `a cluster that was stopped whole comes up by itself`(count: Int) {
        var simulator = GossipSimulator.cluster(count, seedCount: 3, seed: 24)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: count) } != nil)
        for index in 0..<count { simulator.crash(index) }
        simulator.run(milliseconds: 5000)
        for index in 0..<count {
            simulator.start(index, remembered: (0..<count).filter { $0 != index }.map(GossipSimulator.endpoint))
        }
        #expect(simulator.run(limitMilliseconds: 5000) { $0.agrees(up: count) } != nil)
        print("restart of all \(count):", Double(simulator.now.nanoseconds(since: simulator.lastStart)) / 1e6, "ms")
    }

    @Test func `the first node, started without seeds, finds its cluster again`() {
        var simulator = GossipSimulator(seed: 25)
        _ = simulator.add(seeds: [])
        for _ in 1..<3 { _ = simulator.add(seeds: [GossipSimulator.seed(0)]) }
        for index in 0..<3 { simulator.start(index) }
        #expect(simulator.run(limitMilliseconds: 3000) { $0.agrees(up: 3) } != nil)
        simulator.crash(0)
        simulator.run(milliseconds: 1000)
        simulator.start(0, remembered: [GossipSimulator.endpoint(1), GossipSimulator.endpoint(2)])
        #expect(simulator.run(limitMilliseconds: 3000) { $0.agrees(up: 3) } != nil)
        #expect(simulator.nodes.map(\.formedCount) == [1, 0, 0])
        // All at once, too.
        for index in 0..<3 { simulator.crash(index) }
        for index in 0..<3 {
            simulator.start(index, remembered: (0..<3).filter { $0 != index }.map(GossipSimulator.endpoint))
        }
        #expect(simulator.run(limitMilliseconds: 5000) { $0.agrees(up: 3) } != nil)
        // And alone it waits.
        for index in 0..<3 { simulator.crash(index) }
        simulator.start(0, remembered: [GossipSimulator.endpoint(1), GossipSimulator.endpoint(2)])
        simulator.run(milliseconds: 60_000)
        #expect(simulator.nodes[0].membership?.phase != .joined)
    }

    @Test func `a link's hint finds a crash sooner and convicts nobody that lives`() {
        var simulator = GossipSimulator.cluster(9, seed: 26)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 9) } != nil)
        simulator.run(milliseconds: 3000)
        let (living, dead) = (simulator.nodes[3].record.id, simulator.nodes[4].record.id)
        simulator.call(0) { $0.reportUnreachable(living, now: $1, effects: &$2) }
        simulator.crash(4)
        simulator.call(0) { $0.reportUnreachable(dead, now: $1, effects: &$2) }
        let time = simulator.run(limitMilliseconds: 5000) { simulator in
            simulator.view(of: 4, by: 0)?.liveness == .suspect
        }
        #expect(time ?? 1000 <= 401)
        #expect(
            simulator.run(limitMilliseconds: 2900) { simulator in simulator.allOthers(hold: 4) { $0.liveness == .down }
            } != nil
        )
        #expect(simulator.view(of: 3, by: 0)?.liveness == .alive)
    }

    @Test func `one seed, one trace`() {
        func trace() -> UInt64 {
            var simulator = GossipSimulator.cluster(5, spreadMilliseconds: 500, seed: 27)
            simulator.network.lossPercent = 10
            simulator.network.detourPercent = 10
            simulator.run(milliseconds: 10_000)
            simulator.crash(1)
            simulator.pause(2, milliseconds: 2500)
            simulator.run(milliseconds: 20_000)
            simulator.start(1)
            simulator.run(milliseconds: 10_000)
            return simulator.trace
        }
        let first = trace()
        #expect(first == trace())
        #expect(first != 0)
    }
}

@Suite struct `Identity` {
    @Test func `the older of two twins stops`() {
        var simulator = GossipSimulator.cluster(3, seed: 31)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 3) } != nil)
        let twin = simulator.add(seeds: [GossipSimulator.seed(0), GossipSimulator.seed(1)], name: "n2")
        let (id, generation) = (simulator.nodes[2].record.id, simulator.nodes[2].record.generation)
        simulator.edit(twin) {
            $0.record.id = id
            $0.record.generation = generation + 10
        }
        simulator.start(twin)
        simulator.run(milliseconds: 10_000)
        #expect(simulator.nodes[2].stopReason == .olderTwin(at: GossipSimulator.endpoint(twin)))
        #expect(simulator.nodes[twin].stopReason == nil)
        #expect(simulator.agrees(up: 3))
    }

    @Test func `a node whose stored generation was lost says so`() {
        var simulator = GossipSimulator.cluster(3, seed: 32)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 3) } != nil)
        simulator.crash(2)
        simulator.run(milliseconds: 1000)
        let seen = simulator.nodes[2].record.generation
        simulator.edit(2) { $0.record.generation = 5 }
        simulator.start(2)
        simulator.run(milliseconds: 10_000)
        #expect(simulator.nodes[2].stopReason == .generationBehind(seen: seen))
    }

    /// Hellos were numbered from 1 in each life.
    @Test func `a refusal for an earlier life is none for the next`() {
        var simulator = GossipSimulator.cluster(2, seed: 37)
        simulator.captureInterval = 1
        simulator.capturesMax = 1000
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 2) } != nil)
        let newcomer = simulator.add(seeds: [GossipSimulator.seed(0)], name: "n1")
        simulator.start(newcomer)
        simulator.run(milliseconds: 1000)
        #expect(simulator.nodes[newcomer].stopReason != nil)
        simulator.crash(newcomer)
        // In its next life it has a name of its own, and the seed is silent.
        simulator.edit(newcomer) { $0.record.name = "n2" }
        simulator.edit(0) { $0.side = 1 }
        simulator.start(newcomer)
        simulator.run(milliseconds: 10)
        for capture in simulator.captures where capture.receiver == newcomer && capture.life == 1 {
            simulator.deliver(capture.bytes, to: newcomer, from: capture.from)
        }
        #expect(simulator.nodes[newcomer].stopReason == nil)
        simulator.edit(0) { $0.side = 0 }
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 3) } != nil)
    }

    @Test func `a name belongs to one living member`() {
        var simulator = GossipSimulator.cluster(3, seed: 33)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 3) } != nil)
        let thief = simulator.add(seeds: [GossipSimulator.seed(0)], name: "n2")
        simulator.start(thief)
        simulator.run(milliseconds: 1000)
        #expect(
            simulator.nodes[thief].stopReason
                == .nameTaken("n2", by: simulator.nodes[2].record.id, at: GossipSimulator.endpoint(0))
        )
        // Under the name of one that is down, the new id replaces it.
        simulator.crash(2)
        #expect(
            simulator.run(limitMilliseconds: 10_000) { simulator in
                simulator.allOthers(hold: 2) { $0.liveness == .down }
            } != nil
        )
        let heir = simulator.add(seeds: [GossipSimulator.seed(0)], name: "n2")
        simulator.start(heir)
        #expect(simulator.run(limitMilliseconds: 5000) { $0.agrees(up: 3) } != nil)
        #expect(simulator.nodes[0].membership?.members.count == 3)
        // The old one, back in its old generation, ends; in a new one its name is taken.
        simulator.start(2)
        simulator.run(milliseconds: 3000)
        #expect(
            simulator.nodes[2].stopReason
                == .nameTaken("n2", by: simulator.nodes[heir].record.id, at: GossipSimulator.endpoint(0))
                || simulator.nodes[2].stopReason
                    == .nameTaken("n2", by: simulator.nodes[heir].record.id, at: GossipSimulator.endpoint(1))
        )
    }

    @Test func `the living are not forgotten, the down are, and hear of it`() {
        var simulator = GossipSimulator.cluster(4, seed: 34)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 4) } != nil)
        let id = simulator.nodes[3].record.id
        simulator.call(0) { #expect($0.forget(id, now: $1, effects: &$2) == .refusedLiving) }
        simulator.edit(3) { $0.side = 1 }
        simulator.run(milliseconds: 20_000)
        simulator.call(0) { #expect($0.forget(id, now: $1, effects: &$2) == .forgotten) }
        simulator.run(milliseconds: 1000)
        #expect(simulator.nodes[0].membership?.members.count == 3)
        simulator.edit(3) { $0.side = 0 }
        simulator.run(milliseconds: 10_000)
        #expect(simulator.nodes[3].stopReason == .forgotten)
        simulator.start(3)
        #expect(simulator.run(limitMilliseconds: 5000) { $0.agrees(up: 4) } != nil)
    }

    @Test func `having seen three spreads and stays`() {
        var simulator = GossipSimulator.cluster(3, seed: 35)
        #expect(simulator.run(limitMilliseconds: 10_000) { $0.agrees(up: 3) } != nil)
        simulator.call(1) { $0.setSawThree(now: $1, effects: &$2) }
        simulator.run(milliseconds: 50)
        #expect(simulator.nodes.allSatisfy { $0.membership?.sawThree == true })
        simulator.crash(1)
        simulator.start(1)
        simulator.run(milliseconds: 3000)
        #expect(simulator.nodes[1].membership?.ownRecord.sawThree == true)
        #expect(simulator.agrees(up: 3))
    }

    @Test func `the clock is never late by itself`() {
        var simulator = GossipSimulator.cluster(5, seed: 36)
        simulator.run(milliseconds: 120_000)
        for node in simulator.nodes { #expect(node.membership?.statistics.stalls == 0) }
        let sent = simulator.nodes.map { $0.membership?.statistics.bytesSent ?? 0 }
        print("sent per node in two minutes of 5, idle:", sent, "bytes without headers")
    }
}
