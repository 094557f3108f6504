import ClusterCore
package import Membership

// The faults of a plan on a network of members, from one seed; then all is healed, and the members must agree.
//
// The first nodes are those that the seed asked for. Behind them are ten that join when a plan says so, one process for
// a twin, which has another node's id, and two nodes of another cluster.

package struct GossipCampaign {
    /// What must hold, by the names under which breaches are told.
    package enum Invariant: String, CaseIterable, Sendable {
        /// What a node knows of a member never falls while the node runs, nor stays below what it hears.
        case knowledgeFell = "A1"
        /// Only the owner of a record raises its incarnation and sequence.
        case ownerOutrun = "A2"
        /// After a tombstone only a higher generation comes back.
        case tombstoneUndone = "A4"
        /// What does not decode, is another cluster's, or was delivered before changes nothing.
        case strangerHeard = "A5"
        /// No datagram is larger than the limit; what a node keeps is bounded by the number of members.
        case outOfBounds = "A13"
        /// No node knows another cluster's; one list of seeds makes one cluster.
        case clustersMixed = "A14"
        /// One seed is one course of events.
        case anotherCourse = "A15"
        /// After the faults all know the same within a minute.
        case noAgreement = "E1"
        /// The living are up for all, the others for none; no node stops by itself that should not.
        case wrongView = "E2"
        /// Who left, and was heard, is in no list of members.
        case ghost = "E5"
        /// A split heals by itself.
        case splitStayed = "E7"
    }

    /// What a range of seeds has to reach, or it shows little.
    package enum Sometimes: String, CaseIterable, Sendable {
        case refutation = "refutation wins"
        case confirmation = "suspicion confirmed by three"
        case pull = "pull by hash"
        case stall = "stall recovered"
        case joinDuringCrash = "join during a crash"
        case collision = "generation collision"
        case groupsMeet = "two groups of one seed list meet"
        case split = "split healed"
        case leaveHeard = "leave heard"
        case returned = "return above a tombstone"
        case foreign = "foreign cluster refused"
        case malformed = "malformed datagram dropped"
        case replayed = "old datagram changed nothing"
    }

    /// Where a node has its generation from when it starts.
    package enum Generations: Hashable, Sendable {
        /// One above the highest before: what a node's disk is for.
        case stored
        /// The same again, as if it had not reached the disk.
        case lost
        /// From a clock that is up to half a minute off, and elsewhere at each start.
        case wallClock
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
        package internal(set) var reached: Set<Sometimes> = []
        /// The kinds of faults that had something to work on.
        package internal(set) var faults: Set<GossipFault.Kind> = []

        package mutating func add(_ invariant: Invariant, _ text: String) {
            breaches.append(Breach(invariant: invariant, text: text))
        }
    }

    /// How many nodes may join beside those that are there from the start.
    package static let joinersMax = 10

    /// What comes after a fault.
    enum Sequel {
        case crash(Int)
        case start(Int)
        case endLinkFault(Int)
        case cutOff(Int, milliseconds: UInt64)
        case endSlow(Int)
        case leave(Int, isForGood: Bool)
        case endLeave(Int)
        case endTwin
        case endForeign
    }

    /// Who heard that a node leaves: slots, and which of their starts.
    struct Farewell {
        var witnesses: [(index: Int, life: Int)]
        var abandonedBefore: UInt64
        var isHeard = false
    }

    let seed: UInt64
    let count: Int
    let generations: Generations
    private let isLogging: Bool
    private let only: Set<Int>?
    let plan: GossipPlan
    var simulator: GossipSimulator
    var outcome = Outcome()
    private var sequels: [(at: Instant, order: Int, sequel: Sequel)] = []
    private var sequelCount = 0

    /// For each node and member, by number: the highest record that the node has shown since it started.
    var known: [[MemberRecord?]]
    /// For each node: the highest generation that a process of its id had.
    var highest: [UInt64]
    /// Nodes that run from a restored disk: the cluster will tell them so.
    var restored: Set<Int> = []
    /// Nodes of which there were two; the older one stops.
    var twinned: Set<Int> = []
    var twinOf: Int?
    var goneForGood: Set<Int> = []
    var leaving: [Int: Farewell] = [:]
    var farewells: [Int: Farewell] = [:]
    /// Faults of the network that split it, and when the last one ended.
    var splits: Set<Int> = []
    var lastSplit: Instant?
    var joinedBefore = 0

    /// - Parameters:
    ///   - count: how many members there are from the start.
    ///   - steps: how many faults there are before all is healed.
    ///   - configuration: of all members.
    ///   - only: the numbers of the plan's steps that are done; all where nil. The others keep their time.
    package init(
        seed: UInt64,
        count: Int,
        steps: Int = 40,
        configuration: MembershipConfiguration = .init(),
        generations: Generations = .stored,
        only: Set<Int>? = nil,
        isLogging: Bool = false
    ) {
        self.seed = seed
        self.count = count
        self.isLogging = isLogging
        self.generations = generations
        self.only = only
        plan = GossipPlan(seed: seed, count: count, steps: steps)
        simulator = GossipSimulator.cluster(
            count,
            seedCount: min(count, 3),
            seed: seed,
            configuration: configuration
        )
        for _ in 0...Self.joinersMax {
            _ = simulator.add(seeds: Self.seeds(count), configuration: configuration)
        }
        var foreign = configuration
        foreign.clusterName = "other"
        _ = simulator.add(seeds: [], configuration: foreign)
        _ = simulator.add(seeds: Self.seeds(count), configuration: foreign)
        let slots = simulator.nodes.count
        known = Array(repeating: Array(repeating: nil, count: slots), count: slots)
        // The nodes of the start start with the run.
        highest = simulator.nodes.map(\.record.generation)
        for index in 0..<count { highest[index] += 1 }
        simulator.capturesMax = 256
        simulator.isLookingAtDeliveries = true
    }

    package var nodesAtStart: Int { count }

    /// The nodes that may be members: those of the start and those that join.
    var members: Range<Int> { 0..<(count + Self.joinersMax) }
    var twin: Int { count + Self.joinersMax }
    /// Forms a cluster of its own.
    var foreignFounder: Int { twin + 1 }
    /// Looks for a cluster where this one's seeds are.
    var foreignSeeker: Int { twin + 2 }

    static func seeds(_ count: Int) -> [HostAndPort] { (0..<min(count, 3)).map { GossipSimulator.seed($0) } }

    package consuming func run() -> Outcome {
        let start = simulator.now
        form()
        for (number, step) in plan.steps.enumerated().dropFirst(plan.openingCount) {
            perform(step.fault, number)
            go(milliseconds: step.waitMilliseconds)
            look()
        }
        heal()
        settle()
        judge()
        outcome.trace = simulator.trace
        outcome.calls = simulator.callCount
        outcome.virtualMilliseconds = simulator.now.milliseconds(since: start)
        return outcome
    }

    // MARK: The course of events

    private mutating func form() {
        for (number, step) in plan.steps.enumerated().prefix(plan.openingCount) { perform(step.fault, number) }
        let start = simulator.now
        // The longest fault of an opening, and a minute.
        while simulator.now.milliseconds(since: start) < 80_000 {
            // Groups that formed apart meet soon.
            for _ in 0..<20 {
                go(milliseconds: 10)
                lookAtFormation()
            }
            look()
            if sequels.isEmpty, simulator.agrees(up: count) { break }
        }
        if !simulator.agrees(up: count) { breach(.noAgreement, "no cluster of \(count) has formed") }
    }

    private mutating func perform(_ fault: GossipFault, _ number: Int) {
        guard only?.contains(number) ?? true else { return }
        log("fault \(number): \(fault)")
        if begin(fault, number) { outcome.faults.insert(fault.kind) } else { log("  nothing to work on") }
    }

    /// Lets time pass, and does what is due in it.
    mutating func go(milliseconds: UInt64) {
        let end = simulator.now.advanced(byMilliseconds: milliseconds)
        while let next = sequels.first, next.at <= end {
            sequels.removeFirst()
            simulator.run(until: next.at)
            perform(next.sequel)
        }
        simulator.run(until: end)
    }

    mutating func schedule(_ sequel: Sequel, afterMilliseconds delay: UInt64) {
        let at = simulator.now.advanced(byMilliseconds: delay)
        sequelCount += 1
        let place = sequels.firstIndex { $0.at > at } ?? sequels.endIndex
        sequels.insert((at, sequelCount, sequel), at: place)
    }

    private mutating func heal() {
        log("all is healed")
        sequels = []
        simulator.endLinkFaults()
        if !splits.isEmpty { lastSplit = simulator.now }
        splits = []
        endTwin()
        endForeign()
        for index in members {
            simulator.edit(index) {
                $0.microsecondsEach = 0
                $0.inboxMax = 1000
            }
            if leaving[index] != nil { endLeave(index) }
            simulator.resume(index)
        }
        look()
        for index in members where !goneForGood.contains(index) {
            let node = simulator.nodes[index]
            guard let membership = node.membership else {
                // A joiner that a mass restart has ended comes back as well.
                if index < count || node.life > 0 { start(index) }
                continue
            }
            // The operator corrects a wrong list, and sees to it that there is one node of an id.
            let isAstray = membership.phase != .joined && node.seeds != Self.seeds(count)
            if isAstray || membership.ownRecord.generation < highest[index] && !restored.contains(index) {
                crash(index)
                start(index)
            }
        }
    }

    /// A minute at most until all agree.
    private mutating func settle() {
        let start = simulator.now
        while simulator.now.milliseconds(since: start) < 60_000 {
            let wanted = members.count { simulator.nodes[$0].isRunning }
            let gone = goneForGood.sorted()
            let isSettled = simulator.run(limitMilliseconds: 500) { simulator in
                // All know the same, so one may speak of those that do not run any more.
                guard simulator.agrees(up: wanted), let one = simulator.nodes.firstIndex(where: \.isRunning) else {
                    return false
                }
                return gone.allSatisfy { simulator.view(of: $0, by: one)?.isLiving != true }
            }
            if isSettled != nil {
                outcome.agreedAfter = Double(simulator.now.nanoseconds(since: start)) / 1e6
                break
            }
            look()
        }
        look()
    }

    // MARK: Reports

    mutating func breach(_ invariant: Invariant, _ text: String) {
        log("BREACH \(invariant.rawValue): \(text)")
        guard outcome.breaches.count < 20 else { return }
        outcome.add(invariant, text)
    }

    mutating func log(_ text: @autoclosure () -> String) {
        guard isLogging else { return }
        outcome.lines.append("\(simulator.now.nanoseconds / 1_000_000) ms: \(text())")
    }
}
