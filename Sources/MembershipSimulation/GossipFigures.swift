import ClusterCore
import Membership

/// Measures what a cluster of members does after one change, in virtual time, many times over.
///
/// A cluster is formed once and settled; every sample starts from a copy of it, at a moment and with a course of chance of
/// its own.
package struct GossipFigures {
    /// What is measured; the unit is that of `unit`.
    package enum Figure: String, CaseIterable, Sendable {
        /// The start of all members with one seed, until all agree that all are up and have one ring.
        case formation
        /// How many sizes of the ring the members have shown by then, all of them together.
        case ringSizes
        /// A joiner's statement that it is up, until all know it.
        case join
        /// A member's statement that it has left, until all know it.
        case leave
        /// A crash, until all that live hold the member for down.
        case crash
        /// The end of a split into halves, until all agree that all are up. Seeds are on one side.
        case heal
        /// The start of the last of all members, which stopped together, until all agree that all are up; never where
        /// one is held for down meanwhile.
        case restart
        /// Bytes a second that a member sends while nothing happens: payload, and 28 for IPv4 and UDP.
        case idle
        /// Datagrams a second that a member sends while nothing happens.
        case packets
        /// One member stands still for 2 s, runs for 1 s, and so on: how often a minute another one's ring changes, after
        /// the first minute, where the ring drops at once who is down.
        case flapping
        /// The same where one member is cut off for 20 s and reachable for 20 s.
        case flipflop
        /// The same where one in a hundred members, at least one, loses 80 % of what is sent to it and by it. Of all three,
        /// never where a healthy one leaves the ring.
        case lossy
        /// Ten members join and ten others crash at once: bytes that a member sends in a second, payload and 28 for IPv4
        /// and UDP, in the half minute from then on: the 99th percentile over members and seconds.
        case churn
        /// The greatest of those.
        case churnMost
        /// A tenth of the members stand still for 1 to 5 s, and run as long in between, for ten minutes: members that
        /// never stood still and were held for down by one that was.
        case stalls

        package var unit: String {
            switch self {
            case .formation, .join, .leave, .crash, .heal, .restart: "ms"
            case .ringSizes: "sizes"
            case .idle: "B/s"
            case .packets: "datagrams/s"
            case .churn, .churnMost: "B/s"
            case .flapping, .flipflop, .lossy: "a minute"
            case .stalls: "convictions"
            }
        }
    }

    package let count: Int
    package let lossPercent: Int
    private let seed: UInt64
    private let settled: GossipSimulator
    /// From the start of all members with three seeds to one ring, in milliseconds.
    package let formationMilliseconds: Double
    /// Forms a cluster; nil where it does not within two minutes of virtual time.
    package init?(count: Int, rules: GossipRules, lossPercent: Int, seed: UInt64) {
        self.count = count
        self.lossPercent = lossPercent
        self.seed = seed
        var configuration = rules.configuration
        configuration.ringAbsenceMilliseconds = 0
        var simulator = GossipSimulator.cluster(
            count,
            seedCount: min(3, count),
            seed: seed,
            configuration: configuration
        )
        guard let time = simulator.run(limitMilliseconds: 120_000, until: { $0.agrees(up: count) }) else { return nil }
        formationMilliseconds = time
        simulator.run(milliseconds: 10_000)
        simulator.network = GossipSimulator.Network(lossPercent: lossPercent)
        settled = simulator
    }

    /// One sample; nil where what is waited for does not come.
    package func sample(_ figure: Figure, number: UInt64) -> Double? {
        var random = Xoshiro256(seed: seed &* 0x9e37_79b9 &+ number)
        var simulator = settled
        simulator.reseed(random.next())
        simulator.run(milliseconds: UInt64.random(in: 0...1000, using: &random))
        switch figure {
        case .formation: return form(&random).milliseconds
        case .ringSizes: return form(&random).ringSizes
        case .join: return join(&simulator)
        case .leave:
            let index = Int.random(in: 0..<count, using: &random)
            simulator.call(index) { $0.setLifecycle(.left, now: $1, effects: &$2) }
            return wait(&simulator, besides: index) { $0.view(of: index, by: $1)?.isTombstone ?? true }
        case .crash:
            let index = Int.random(in: 0..<count, using: &random)
            simulator.crash(index)
            return wait(&simulator, besides: index) { $0.view(of: index, by: $1)?.liveness == .down }
        case .heal: return heal(&simulator)
        case .restart: return restart(&simulator, &random)
        case .idle: return idle(&simulator) { $0.bytesSent + 28 * $0.datagramsSent }
        case .packets: return idle(&simulator) { $0.datagramsSent }
        case .flapping: return ringChanges(&simulator, &random, minutes: 5, outMilliseconds: 2000, inMilliseconds: 1000)
        case .flipflop:
            return ringChanges(&simulator, &random, minutes: 10, outMilliseconds: 20_000, inMilliseconds: 20_000)
        case .lossy: return ringChangesWithLossyMembers(&simulator, &random)
        case .churn: return churn(&simulator, &random).map { Double($0[$0.count * 99 / 100]) }
        case .churnMost: return churn(&simulator, &random).map { Double($0[$0.count - 1]) }
        case .stalls: return stalls(&simulator, &random)
        }
    }

    /// How long it takes until all running nodes but one have met a condition, which holds once it was met.
    private func wait(
        _ simulator: inout GossipSimulator,
        besides excluded: Int,
        limitMilliseconds: UInt64 = 240_000,
        _ condition: (borrowing GossipSimulator, Int) -> Bool
    ) -> Double? {
        var next = 0
        return simulator.run(limitMilliseconds: limitMilliseconds) { simulator in
            while next < simulator.nodes.count {
                if next != excluded, simulator.nodes[next].isRunning, !condition(simulator, next) { return false }
                next += 1
            }
            return true
        }
    }

    private func form(_ random: inout Xoshiro256) -> (milliseconds: Double?, ringSizes: Double?) {
        var simulator = GossipSimulator.cluster(
            count,
            seedCount: 1,
            seed: random.next(),
            configuration: settled.nodes[0].configuration
        )
        simulator.network = GossipSimulator.Network(lossPercent: lossPercent)
        let milliseconds = simulator.run(limitMilliseconds: 240_000) { simulator in
            simulator.agrees(up: self.count) && simulator.nodes.allSatisfy { $0.ringSize == self.count }
        }
        return (milliseconds, milliseconds.map { _ in Double(simulator.ringSizes.count) })
    }

    private func join(_ simulator: inout GossipSimulator) -> Double? {
        let seeds = (0..<min(3, count)).map { GossipSimulator.seed($0) }
        let index = simulator.add(seeds: seeds, configuration: simulator.nodes[0].configuration)
        simulator.start(index)
        guard simulator.run(limitMilliseconds: 60_000, until: { $0.nodes[index].joinedCount > 0 }) != nil else {
            return nil
        }
        return wait(&simulator, besides: index) { $0.view(of: index, by: $1)?.lifecycle == .up }
    }

    private func heal(_ simulator: inout GossipSimulator) -> Double? {
        for index in count / 2..<count { simulator.edit(index) { $0.side = 1 } }
        let half = count / 2
        let isSplit = wait(&simulator, besides: -1) { simulator, observer in
            let others = observer < half ? half..<self.count : 0..<half
            return others.allSatisfy { simulator.view(of: $0, by: observer)?.liveness == .down }
        }
        guard isSplit != nil else { return nil }
        simulator.run(milliseconds: 60_000)
        for index in half..<count { simulator.edit(index) { $0.side = 0 } }
        return simulator.run(limitMilliseconds: 240_000) { $0.agrees(up: self.count) }
    }

    private func restart(_ simulator: inout GossipSimulator, _ random: inout Xoshiro256) -> Double? {
        for index in 0..<count { simulator.crash(index) }
        simulator.run(milliseconds: 500)
        // As many addresses as a node remembers of those that it knew.
        let known = min(32, count)
        for index in 0..<count {
            let remembered = (0..<known).map { _ in
                GossipSimulator.endpoint(Int.random(in: 0..<count, using: &random))
            }
            simulator.start(index, remembered: remembered.filter { $0 != GossipSimulator.endpoint(index) })
        }
        let began = simulator.now
        let time = simulator.run(limitMilliseconds: 240_000) { $0.agrees(up: self.count) }
        // Nobody is to be held for down, not even for a while.
        let isWronged = simulator.nodes.contains { node in
            node.events.contains { if case .down = $0.event { $0.at >= began } else { false } }
        }
        return isWronged ? nil : time
    }

    /// What a member sends in a second.
    private func idle(_ simulator: inout GossipSimulator, _ amount: (MembershipStatistics) -> UInt64) -> Double? {
        func sent() -> UInt64 {
            simulator.nodes.reduce(0) { sum, node in sum + (node.membership.map { amount($0.statistics) } ?? 0) }
        }
        let before = sent()
        simulator.run(milliseconds: 60_000)
        return Double(sent() - before) / 60 / Double(count)
    }

    /// How often a minute the ring of a healthy member changes after the first minute, while another one is away and back
    /// in turn. A short absence is a pause, which leaves the member's own view as it was; a long one is a cut.
    private func ringChanges(
        _ simulator: inout GossipSimulator,
        _ random: inout Xoshiro256,
        minutes: Int,
        outMilliseconds: UInt64,
        inMilliseconds: UInt64
    ) -> Double? {
        let index = Int.random(in: 0..<count, using: &random)
        let isCut = outMilliseconds >= 10_000
        return ringChanges(&simulator, besides: [index], by: (index + 1) % count, minutes: minutes) {
            simulator,
            elapsed in
            let phase = elapsed % (outMilliseconds + inMilliseconds)
            if phase == 0 {
                if isCut {
                    simulator.edit(index) { $0.side = 1 }
                } else {
                    simulator.pause(index, milliseconds: outMilliseconds)
                }
            } else if phase == outMilliseconds, isCut {
                simulator.edit(index) { $0.side = 0 }
            }
        }
    }

    private func ringChangesWithLossyMembers(
        _ simulator: inout GossipSimulator,
        _ random: inout Xoshiro256
    ) -> Double? {
        let sick = Array((0..<count).shuffled(using: &random).prefix(max(1, count / 100)))
        for index in sick {
            _ = simulator.begin(.loss(from: index, to: nil, percent: 80))
            _ = simulator.begin(.loss(from: nil, to: index, percent: 80))
        }
        guard let observer = (0..<count).first(where: { !sick.contains($0) }) else { return nil }
        return ringChanges(&simulator, besides: sick, by: observer, minutes: 5) { _, _ in }
    }

    /// How often a minute the ring of `observer` changes after the first minute, looked at as often as a control plane
    /// does; nil where a member leaves it that is not among the `sick`. `disturb` is called with the milliseconds so far.
    private func ringChanges(
        _ simulator: inout GossipSimulator,
        besides sick: [Int],
        by observer: Int,
        minutes: Int,
        disturb: (inout GossipSimulator, UInt64) -> Void
    ) -> Double? {
        let stepMilliseconds: UInt64 = 10
        let sickIDs = Set(sick.map { simulator.nodes[$0].record.id })
        var ring: [NodeID] = []
        var changes = 0
        var elapsed: UInt64 = 0
        while elapsed < UInt64(minutes) * 60_000 {
            disturb(&simulator, elapsed)
            simulator.run(milliseconds: stepMilliseconds)
            elapsed += stepMilliseconds
            guard let membership = simulator.nodes[observer].membership else { return nil }
            let fresh = membership.ringMembers(now: simulator.now).map(\.id)
            if fresh.count(where: { !sickIDs.contains($0) }) < count - sickIDs.count { return nil }
            if fresh != ring, elapsed > 60_000 { changes += 1 }
            ring = fresh
        }
        return Double(changes) / Double(minutes - 1)
    }

    /// What each member sent in each of thirty seconds, the least first.
    private func churn(_ simulator: inout GossipSimulator, _ random: inout Xoshiro256) -> [UInt64]? {
        let most = 10
        guard count > 2 * most else { return nil }
        for index in (3..<count).shuffled(using: &random).prefix(most) { simulator.crash(index) }
        for _ in 0..<most {
            let seeds = (0..<3).map { GossipSimulator.seed($0) }
            simulator.start(simulator.add(seeds: seeds, configuration: simulator.nodes[0].configuration))
        }
        func sent() -> [UInt64?] {
            simulator.nodes.map { node in
                guard node.isRunning, let statistics = node.membership?.statistics else { return nil }
                return statistics.bytesSent + 28 * statistics.datagramsSent
            }
        }
        var amounts: [UInt64] = []
        var before = sent()
        for _ in 0..<30 {
            simulator.run(milliseconds: 1000)
            let after = sent()
            for (earlier, later) in zip(before, after) {
                if let earlier, let later { amounts.append(later - earlier) }
            }
            before = after
        }
        return amounts.sorted()
    }

    private func stalls(_ simulator: inout GossipSimulator, _ random: inout Xoshiro256) -> Double? {
        let sick = Array((0..<count).shuffled(using: &random).prefix(max(1, count / 10)))
        var isSick = Array(repeating: false, count: count)
        for index in sick { isSick[index] = true }
        var next = Array(repeating: UInt64(0), count: count)
        for step in 0..<(6000 as UInt64) {
            for index in sick where next[index] <= step {
                let length = UInt64.random(in: 10...50, using: &random)
                simulator.pause(index, milliseconds: length * 100)
                next[index] = step + length + UInt64.random(in: 10...50, using: &random)
            }
            simulator.run(milliseconds: 100)
        }
        var convictions = 0
        for node in simulator.nodes {
            for (_, event) in node.events {
                guard case .down(let id, _) = event,
                    let index = simulator.nodes.firstIndex(where: { $0.record.id == id })
                else { continue }
                if !isSick[index] { convictions += 1 }
            }
        }
        return Double(convictions)
    }
}
