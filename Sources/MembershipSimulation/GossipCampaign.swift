import ClusterCore
package import Membership

/// Crashes, leaves, restarts, pauses, splits and a bad network in random order, from one seed; then all is healed, and the members
/// must agree.
package struct GossipCampaign {
    /// What must hold, by the names under which breaches are told.
    package enum Invariant: String, CaseIterable, Sendable {
        /// What a node knows of a member never falls while the node runs.
        case knowledgeFell = "A1"
        /// Only the owner of a record raises its incarnation and sequence.
        case ownerOutrun = "A2"
        /// After a tombstone only a higher generation comes back.
        case tombstoneUndone = "A4"
        /// No datagram is larger than the limit.
        case datagramTooLarge = "A13"
        /// After the faults all agree within a minute.
        case noAgreement = "E1"
        /// A member that lives stopped by itself.
        case wronglyStopped = "E2"
    }

    package struct Breach: Sendable {
        package let invariant: Invariant
        package let text: String
    }

    package struct Outcome: Sendable {
        package internal(set) var breaches: [Breach] = []
        package internal(set) var trace: UInt64 = 0
        /// From the last fault to agreement, in milliseconds; nil where it did not come.
        package internal(set) var agreedAfter: Double?
        package internal(set) var virtualMilliseconds: UInt64 = 0
        package internal(set) var calls: UInt64 = 0
        package internal(set) var lines: [String] = []
        package internal(set) var statistics = MembershipStatistics()
    }

    private let seed: UInt64
    private let count: Int
    private let isLogging: Bool
    private let losesGenerations: Bool
    private let steps: Int
    private var random: Xoshiro256
    private var simulator: GossipSimulator
    private var outcome = Outcome()
    /// For each node and member, by number: the highest record that the node has shown since it started.
    private var known: [[MemberRecord?]]

    /// - Parameters:
    ///   - count: how many members there are.
    ///   - steps: how many faults there are before all is healed.
    ///   - configuration: of all members.
    ///   - losesGenerations: restarts come with the generation that was before, which must not go well.
    package init(
        seed: UInt64,
        count: Int,
        steps: Int = 40,
        configuration: MembershipConfiguration = .init(),
        losesGenerations: Bool = false,
        isLogging: Bool = false
    ) {
        self.seed = seed
        self.count = count
        self.steps = steps
        self.isLogging = isLogging
        self.losesGenerations = losesGenerations
        random = Xoshiro256(seed: seed &* 977)
        simulator = GossipSimulator.cluster(
            count,
            seedCount: min(count, 3),
            seed: seed,
            configuration: configuration
        )
        known = Array(repeating: Array(repeating: nil, count: count), count: count)
    }

    package consuming func run() -> Outcome {
        let start = simulator.now
        if simulator.run(limitMilliseconds: 60_000, until: { $0.agrees(up: $0.nodes.count) }) == nil {
            breach(.noAgreement, "no cluster of \(count) has formed")
        }
        for _ in 0..<steps {
            fault()
            simulator.run(milliseconds: UInt64.random(in: 50...4000, using: &random))
            look()
        }
        heal()
        outcome.agreedAfter = simulator.run(limitMilliseconds: 60_000) { $0.agrees(up: $0.nodes.count) }
        look()
        if outcome.agreedAfter == nil { breach(.noAgreement, "the members do not agree a minute after the last fault") }
        for (index, node) in simulator.nodes.enumerated() {
            if let reason = node.stopReason { breach(.wronglyStopped, "node \(index) stopped: \(reason)") }
            if let statistics = node.membership?.statistics { add(statistics) }
        }
        if simulator.longestDatagram > simulator.nodes[0].configuration.datagramBytesMax {
            breach(.datagramTooLarge, "a datagram of \(simulator.longestDatagram) bytes")
        }
        outcome.trace = simulator.trace
        outcome.calls = simulator.callCount
        outcome.virtualMilliseconds = simulator.now.milliseconds(since: start)
        return outcome
    }

    private mutating func add(_ statistics: MembershipStatistics) {
        outcome.statistics.suspicions += statistics.suspicions
        outcome.statistics.convictions += statistics.convictions
        outcome.statistics.refutations += statistics.refutations
        outcome.statistics.pulls += statistics.pulls
        outcome.statistics.stalls += statistics.stalls
    }

    private mutating func breach(_ invariant: Invariant, _ text: String) {
        log("BREACH \(invariant.rawValue): \(text)")
        guard outcome.breaches.count < 20 else { return }
        outcome.breaches.append(Breach(invariant: invariant, text: text))
    }

    private mutating func log(_ text: @autoclosure () -> String) {
        guard isLogging else { return }
        outcome.lines.append("\(simulator.now.nanoseconds / 1_000_000) ms: \(text())")
    }

    // MARK: Faults

    private mutating func fault() {
        let index = Int.random(in: 0..<count, using: &random)
        switch Int.random(in: 0..<9, using: &random) {
        case 0, 1: crash(index)
        case 2, 3: restart(index)
        case 4:
            guard simulator.nodes[index].isRunning, simulator.nodes[index].pausedUntil == nil else { return }
            let length = UInt64.random(in: 10...6000, using: &random)
            log("node \(index) stands still for \(length) ms")
            simulator.pause(index, milliseconds: length)
        case 5:
            let side = Int.random(in: 0...1, using: &random)
            log("node \(index) is on side \(side)")
            simulator.edit(index) { $0.side = side }
        case 6:
            simulator.network.lossPercent = [0, 0, 5, 20, 40].randomElement(using: &random) ?? 0
            simulator.network.detourPercent = [0, 10, 50].randomElement(using: &random) ?? 0
            simulator.network.duplicatePercent = [0, 0, 10].randomElement(using: &random) ?? 0
            let network = simulator.network
            log(
                "loss \(network.lossPercent) %, detours \(network.detourPercent) %, twice \(network.duplicatePercent) %"
            )
        case 7:
            guard simulator.nodes[index].isRunning, simulator.nodes[index].pausedUntil == nil,
                simulator.nodes[index].membership?.ownRecord.lifecycle == .up
            else { return }
            log("node \(index) leaves")
            simulator.call(index) { $0.setLifecycle(.left, now: $1, effects: &$2) }
            simulator.run(milliseconds: 600)
            crash(index)
        default:
            let subject = Int.random(in: 0..<count, using: &random)
            guard subject != index else { return }
            let id = simulator.nodes[subject].record.id
            log("node \(index) hears that a link to node \(subject) broke")
            simulator.call(index) { $0.reportUnreachable(id, now: $1, effects: &$2) }
        }
    }

    private mutating func crash(_ index: Int) {
        log("node \(index) crashes")
        simulator.crash(index)
        for member in 0..<count { known[index][member] = nil }
    }

    private mutating func restart(_ index: Int) {
        guard simulator.nodes[index].membership == nil else { return }
        log("node \(index) starts")
        let others = (0..<count).filter { $0 != index }.map { GossipSimulator.endpoint($0) }
        simulator.start(index, remembered: others, losesGeneration: losesGenerations)
    }

    private mutating func heal() {
        log("all is healed")
        simulator.network = GossipSimulator.Network()
        for index in 0..<count {
            simulator.edit(index) { $0.side = 0 }
            restart(index)
        }
    }

    // MARK: What always holds

    private mutating func look() {
        for observer in 0..<count where simulator.nodes[observer].isRunning {
            for member in 0..<count {
                guard let record = simulator.view(of: member, by: observer) else { continue }
                if observer == member {
                    known[observer][member] = record
                    continue
                }
                if let before = known[observer][member] {
                    if before.merged(with: record) != record {
                        breach(.knowledgeFell, "node \(observer) knows less of node \(member) than before")
                    }
                    if before.isTombstone, !record.isTombstone, record.generation <= before.generation {
                        breach(.tombstoneUndone, "node \(observer) has node \(member) back in its generation")
                    }
                }
                known[observer][member] = record
                let owner = simulator.nodes[member]
                let own = owner.membership?.ownRecord
                if record.generation > owner.record.generation {
                    breach(.ownerOutrun, "node \(observer) knows a generation of node \(member) that never was")
                } else if let own, record.generation == own.generation,
                    record.incarnation > own.incarnation || record.sequence > own.sequence
                {
                    breach(.ownerOutrun, "node \(observer) knows more of node \(member) than that says of itself")
                }
            }
        }
    }
}
