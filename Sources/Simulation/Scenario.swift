import CacheNode
import ClusterCore
import PeerProtocol
package import Replication

/// A story: a cluster, faults in order, and what must hold.
package struct Scenario: Sendable {
    package enum Step: Sendable {
        case run(UInt64)
        /// All must be well within so many milliseconds.
        case settle(UInt64)
        case start(Int)
        case addNode
        case crash(Int)
        case powerLoss(Int)
        case pause(Int)
        case resume(Int)
        case partition([Int], [Int])
        case cut(from: Int, to: Int)
        case reset(Int, Int)
        case heal
        case drain(Int)
        case undrain(Int)
        /// The cluster forgets a node that is down, at the word of the operator to another; refused, it is a failure.
        case forget(Int, at: Int)
        /// An operator's word to a node that who is down leaves the ring, although many went at once.
        case releaseBrake(at: Int)
        case stop(Int)
        /// Until the process has ended.
        case awaitEnd(Int, UInt64)
        case flushAll
        /// Of datagrams, in thousandths.
        case loss(UInt64)
        /// Of all packets, in thousandths.
        case lossOfAll(UInt64)
        case slow
        /// Datagrams and what connections carry come late by up to so many milliseconds, datagrams out of order and
        /// one in ten twice.
        case late(UInt64)
        /// From here on, every error or miss is a failure (promise P4).
        case beginStrict
        case endStrict
    }

    package var name: String
    package var nodes = 5
    package var replicas = 1
    package var workers = 1
    package var partition = PartitionPolicy.safe
    package var steps: [Step]

    package init(
        _ name: String,
        nodes: Int = 5,
        replicas: Int = 1,
        workers: Int = 1,
        partition: PartitionPolicy = .safe,
        _ steps: [Step]
    ) {
        self.name = name
        self.nodes = nodes
        self.replicas = replicas
        self.workers = workers
        self.partition = partition
        self.steps = steps
    }
}

/// What came of a run.
package struct Outcome: Sendable {
    package var failures: [String]
    package var trace: UInt64
    package var events: UInt64
    package var virtualMilliseconds: UInt64
    package var answers: UInt64
    package var errors: UInt64
    package var misses: UInt64
    package var lines: [String]
    /// Frames that nodes received, as many of each kind as were asked for.
    package var samples: [[UInt8]]
}

extension Scenario {
    /// Runs the story with that seed.
    package func run(
        seed: UInt64,
        isLogging: Bool = false,
        samplesPerKind: UInt64 = 0,
        onLine: ((String) -> Void)? = nil
    ) -> Outcome {
        var options = WorldOptions(seed: seed)
        options.nodes = nodes
        options.replicas = replicas
        options.workers = workers
        options.partition = partition
        options.isLogging = isLogging
        options.samplesPerKind = samplesPerKind
        let world = World(options)
        world.onLine = onLine
        for index in 0..<nodes { world.start(index) }
        world.settle(within: 30_000)
        world.startWorkload()
        world.run(milliseconds: 2000)
        var strictErrors: UInt64?
        for step in steps {
            guard world.failures.count < 5 else { break }
            perform(step, world, &strictErrors)
        }
        // Whatever was broken is mended; then all must be well, and every request answered.
        world.heal()
        for index in world.nodes.indices { world.resume(index) }
        if world.failures.isEmpty {
            for index in world.nodes.indices where !world.isAlive(index) { world.start(index) }
            world.settle(within: 90_000)
            world.run(milliseconds: 1000)
            world.stopWorkload()
            _ = world.run(atMostMilliseconds: 13_000) { world.clients.allSatisfy(\.isIdle) }
            let waiting = world.clients.count { !$0.inFlight.isEmpty }
            if waiting > 0 { world.fail("\(waiting) clients wait for ever") }
        }
        checkStrict(world, strictErrors)
        let kinds = Frame.Kind.allCases.filter { world.frames[Int($0.rawValue)] > 0 }
        world.log("frames: " + kinds.map { "\($0) \(world.frames[Int($0.rawValue)])" }.joined(separator: ", "))
        return Outcome(
            failures: world.failures,
            trace: world.trace,
            events: world.events,
            virtualMilliseconds: world.time / 1_000_000,
            answers: world.monitor.answers,
            errors: world.monitor.errors,
            misses: world.monitor.misses,
            lines: world.lines,
            samples: world.samples
        )
    }

    private func checkStrict(_ world: World, _ before: UInt64?) {
        guard let before, world.monitor.errors > before else { return }
        world.fail("\(world.monitor.errors - before) errors during a planned change")
    }

    private func perform(_ step: Step, _ world: World, _ strictErrors: inout UInt64?) {
        switch step {
        case .run(let milliseconds): world.run(milliseconds: milliseconds)
        case .settle(let limit): world.settle(within: limit)
        case .start(let index): world.start(index)
        case .addNode: world.start(world.addNode())
        case .crash(let index): world.crash(index)
        case .powerLoss(let index): world.crash(index, isPowerLoss: true)
        case .pause(let index): world.pause(index)
        case .resume(let index): world.resume(index)
        case .partition(let left, let right): world.partition(left, right)
        case .cut(let from, let to): world.cut(from: from, to: to)
        case .reset(let left, let right):
            world.resetConnections(left, right)
            // Until both ends have heard of it: before that, all would seem to be well.
            world.run(milliseconds: 5)
        case .heal: world.heal()
        case .drain(let index): world.order(.drain, index)
        case .undrain(let index): world.order(.undrain, index)
        case .forget(let index, let asked):
            let outcome = world.forget(index, at: asked)
            if outcome != .accepted { world.fail("\(world.nodes[index].name) is not forgotten: \(outcome)") }
        case .releaseBrake(let asked):
            if world.releaseBrake(at: asked) == nil { world.fail("\(world.nodes[asked].name) has no brake to release") }
        case .stop(let index): world.stop(index)
        case .awaitEnd(let index, let limit):
            if !world.run(atMostMilliseconds: limit, until: { !world.isAlive(index) }) {
                world.fail("\(world.nodes[index].name) has not ended after \(limit) ms")
            }
        case .flushAll: world.flushAll()
        case .loss(let thousandths): world.network.lossThousandths = thousandths
        case .lossOfAll(let thousandths): world.loseOfAll(thousandths)
        case .slow: world.network.slowOneIn = 5
        case .late(let milliseconds): world.delayAll(milliseconds)
        case .beginStrict: strictErrors = world.monitor.errors
        case .endStrict:
            checkStrict(world, strictErrors)
            strictErrors = nil
        }
    }

    /// The stories that are told by name.
    package static let all: [Scenario] = [
        Scenario("formation of three", nodes: 3, []),
        Scenario("formation of five", []),
        Scenario("one node", nodes: 1, replicas: 0, [.run(3000)]),
        Scenario("two nodes", nodes: 2, [.run(3000)]),
        Scenario("steady", workers: 2, [.beginStrict, .run(20_000), .endStrict]),
        Scenario("steady without copies", replicas: 0, [.beginStrict, .run(10_000), .endStrict]),
        Scenario("steady with two copies", replicas: 2, [.beginStrict, .run(10_000), .endStrict]),
        Scenario("crash", [.crash(3), .run(3000), .settle(60_000), .run(3000)]),
        Scenario("power loss", [.powerLoss(3), .run(3000), .settle(60_000), .run(3000)]),
        Scenario("crash and restart at once", [.crash(3), .run(100), .start(3), .settle(60_000), .run(3000)]),
        Scenario("crash and restart later", [.crash(1), .run(15_000), .start(1), .settle(60_000)]),
        Scenario(
            "crash with two copies",
            replicas: 2,
            [.crash(2), .crash(4), .run(5000), .settle(60_000), .run(3000)]
        ),
        // Without the word, what the two had is copied elsewhere half a minute later.
        Scenario(
            "two lost at once and the brake released",
            replicas: 2,
            [.crash(1), .powerLoss(3), .run(8000), .releaseBrake(at: 0), .settle(20_000), .run(2000)]
        ),
        // Each is out of the ring before it comes back, and is damped then, the second time for longer.
        Scenario(
            "long pauses",
            [
                .pause(2), .run(14_000), .resume(2), .run(3000), .pause(2), .run(14_000), .resume(2), .run(1000),
                .settle(60_000),
            ]
        ),
        Scenario("pause", [.pause(2), .run(10_000), .resume(2), .run(3000), .settle(60_000)]),
        Scenario("short pause", [.pause(2), .run(900), .resume(2), .run(3000), .settle(60_000)]),
        Scenario(
            "drain",
            [.beginStrict, .drain(2), .awaitEnd(2, 60_000), .endStrict, .run(1000), .settle(60_000)]
        ),
        Scenario(
            "undrain",
            [.beginStrict, .drain(2), .run(200), .undrain(2), .run(2000), .endStrict, .settle(60_000)]
        ),
        Scenario("join", [.beginStrict, .addNode, .run(1000), .settle(60_000), .endStrict]),
        Scenario("three joins", nodes: 3, [.beginStrict, .addNode, .addNode, .addNode, .settle(90_000), .endStrict]),
        Scenario(
            "rolling restart",
            [
                .beginStrict,
                .stop(0), .awaitEnd(0, 20_000), .start(0), .settle(60_000),
                .stop(1), .awaitEnd(1, 20_000), .start(1), .settle(60_000),
                .stop(2), .awaitEnd(2, 20_000), .start(2), .settle(60_000),
                .stop(3), .awaitEnd(3, 20_000), .start(3), .settle(60_000),
                .stop(4), .awaitEnd(4, 20_000), .start(4), .settle(60_000),
                .endStrict,
            ]
        ),
        Scenario(
            "forget",
            [.crash(3), .run(8000), .forget(3, at: 0), .settle(60_000), .start(3), .settle(60_000), .run(2000)]
        ),
        // Neither loss leaves a majority of three; the operator's word does.
        Scenario(
            "forget two of three",
            nodes: 3,
            [
                .crash(2), .run(8000), .forget(2, at: 0), .settle(60_000),
                .crash(1), .run(8000), .forget(1, at: 0), .settle(60_000), .run(3000),
            ]
        ),
        Scenario(
            "forget who is only cut off",
            [
                .partition([4], [0, 1, 2, 3]), .run(15_000), .forget(4, at: 1), .run(1000), .heal,
                .awaitEnd(4, 60_000), .start(4), .settle(60_000),
            ]
        ),
        Scenario("two crashes in turn", [.crash(0), .settle(60_000), .crash(4), .settle(60_000), .run(2000)]),
        Scenario("minority split off", [.partition([3, 4], [0, 1, 2]), .run(15_000), .heal, .settle(60_000)]),
        Scenario("one-way cut", [.cut(from: 1, to: 2), .run(10_000), .heal, .settle(60_000)]),
        Scenario("reset", [.reset(1, 2), .run(2000), .reset(0, 4), .run(500), .settle(60_000)]),
        // Leases end everywhere, claims cross, and copies are left that nothing can prove.
        Scenario(
            "loss of a fifth and a restart",
            [
                .lossOfAll(200), .run(3000), .crash(4), .run(4000), .start(4), .run(15_000), .heal, .settle(40_000),
                .run(2000),
            ]
        ),
        Scenario(
            "late packets and a restart",
            nodes: 4,
            [.late(30), .run(3000), .crash(2), .run(4000), .start(2), .run(8000), .heal, .settle(40_000), .run(2000)]
        ),
        // Those who are left cannot tell what the others had recorded.
        Scenario(
            "two of three restart at once",
            nodes: 3,
            [.crash(1), .powerLoss(2), .run(3000), .start(1), .start(2), .settle(60_000), .run(2000)]
        ),
        Scenario(
            "three of five restart at once",
            [
                .crash(1), .powerLoss(2), .crash(4), .run(3000), .start(1), .start(2), .run(2000), .start(4),
                .settle(60_000), .run(2000),
            ]
        ),
        Scenario("flush", [.run(500), .flushAll, .run(3000), .flushAll, .run(3000)]),
    ]

    /// A schedule of faults drawn from the seed; with `links`, of losses and delays on connections among them.
    package static func random(seed: UInt64, links: Bool = false) -> Scenario {
        var random = Xoshiro256(seed: seed ^ 0x7363_656e_6172_696f)
        let nodes = [3, 5, 5, 5, 6, 7].randomElement(using: &random) ?? 5
        let replicas = [0, 1, 1, 1, 2].randomElement(using: &random) ?? 1
        let workers = Int.random(in: 1...2, using: &random)
        var steps: [Step] = []
        func node() -> Int { Int.random(in: 0..<nodes, using: &random) }
        func pair() -> (Int, Int) {
            let left = node()
            return (left, (left + Int.random(in: 1..<nodes, using: &random)) % nodes)
        }
        func time(_ range: ClosedRange<UInt64>) -> UInt64 { UInt64.random(in: range, using: &random) }
        let isSequential = Bool.random(using: &random)
        /// One after the other, each fault ends before the next; else it may last into others.
        func mended() -> [Step] { isSequential || Bool.random(using: &random) ? [.heal] : [] }
        for _ in 0..<Int.random(in: 2...6, using: &random) {
            switch Int.random(in: 0..<(links ? 19 : 13), using: &random) {
            case 0:
                let victim = node()
                steps += [.crash(victim), .run(time(10...12_000)), .start(victim)]
            case 1:
                let victim = node()
                steps += [.powerLoss(victim), .run(time(10...15_000)), .start(victim)]
            case 2, 3:
                let victim = node()
                steps += [.pause(victim), .run(time(100...12_000)), .resume(victim)]
            case 4:
                let victim = node()
                let other = (victim + 1) % nodes
                let minority = nodes >= 5 && Bool.random(using: &random) ? [victim, other] : [victim]
                let rest = (0..<nodes).filter { !minority.contains($0) }
                steps += [.partition(minority, rest), .run(time(200...15_000)), .heal]
            case 5:
                let (left, right) = pair()
                steps += [.cut(from: left, to: right), .run(time(200...15_000)), .heal]
            case 6:
                let (left, right) = pair()
                steps += [.reset(left, right)]
            case 7:
                let victim = node()
                steps += [.drain(victim), .run(time(50...3000))]
                if Bool.random(using: &random) { steps += [.undrain(victim)] }
            case 8:
                let victim = node()
                steps += [.stop(victim), .run(time(300...3000)), .start(victim)]
            case 9: steps += [.loss(time(50...300)), .run(time(1000...10_000)), .heal]
            case 10: steps += [.slow, .run(time(1000...5000)), .heal]
            case 11: steps += [.addNode]
            case 13, 14, 15, 16: steps += [.lossOfAll(time(20...300)), .run(time(500...10_000))] + mended()
            case 17, 18: steps += [.late(time(2...60)), .run(time(500...8000))] + mended()
            default: steps += [.flushAll]
            }
            if isSequential {
                for index in 0..<nodes { steps += [.start(index)] }
                steps += [.settle(90_000), .run(1000)]
            } else {
                steps += [.run(time(10...3000))]
            }
        }
        return Scenario(
            "\(links ? "links" : "random") \(seed)",
            nodes: nodes,
            replicas: replicas,
            workers: workers,
            steps
        )
    }
}
