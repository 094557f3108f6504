package import ClusterCore
package import Membership

/// Nodes on a network that delays, loses, duplicates and reorders datagrams, in virtual time and one thread: the
/// production membership of each, and nothing else of a node. The same seed gives the same run, which `trace` proves.
package struct GossipSimulator {
    /// What happens to datagrams on their way; percentages are 0 to 100.
    package struct Network: Sendable {
        package var delayMicroseconds: ClosedRange<UInt64> = 300...700
        package var lossPercent = 0
        /// So many in a hundred arrive twice.
        package var duplicatePercent = 0
        /// So many in a hundred datagrams take up to 20 ms more, and are overtaken.
        package var detourPercent = 0

        package init(lossPercent: Int = 0) { self.lossPercent = lossPercent }
    }

    /// A fault of the network that is in force, besides `network`; several may be at once.
    package enum LinkFault: Hashable, Sendable {
        /// So many in a hundred datagrams are lost from one node to another; nil stands for all nodes. From 50 on no
        /// connection comes about either; 100 is a cut.
        case loss(from: Int?, to: Int?, percent: Int)
        /// Nodes inside and nodes outside do not hear each other; those beyond the end of the list are outside.
        case split(inside: [Bool])
        /// Each datagram takes up to so long more, and may be overtaken.
        case jitter(mostMilliseconds: UInt64)
        case duplicates(percent: Int)
        /// Bytes are changed. What still decodes is dropped, since the checksum of UDP is not simulated.
        case corruption(percent: Int)
        /// The end is missing.
        case truncation(percent: Int)
    }

    /// Something in the course of events that must not be, for the campaign to report.
    package enum Finding: Hashable, Sendable {
        /// A datagram of another cluster, or one that does not decode, changed what a node knows.
        case strangerHeard(String)
        /// What a datagram said is not in what its receiver knows.
        case evidenceLost(String)
    }

    /// A datagram that was delivered.
    package struct Capture: Sendable {
        package var receiver: Int
        /// Whether the receiver was part of a cluster.
        package var wasMember: Bool
        /// Which start of the receiver's took it.
        package var life: Int
        package var from: Endpoint
        package var bytes: [UInt8]
    }

    /// A machine with the process that runs on it, if any.
    package struct Node {
        /// What its next start begins with, but for the generation, which each start raises.
        package var record: MemberRecord
        package var seeds: [HostAndPort]
        package var configuration: MembershipConfiguration
        /// Nil while no process runs.
        package var membership: Membership?
        /// When the membership wants to be called.
        package var deadline = Instant.distantFuture
        /// The end of a pause as SIGSTOP makes one; nil while the process runs.
        package var pausedUntil: Instant?
        /// What came during the pause, or while the processor was busy.
        package var inbox: [(from: Endpoint, bytes: [UInt8], isStreamed: Bool, arrived: Instant)] = []
        /// All events of all its processes, the oldest first.
        package var events: [(at: Instant, event: MembershipEvent)] = []
        /// Why the membership wants the process to end.
        package var stopReason: MembershipStopReason?
        /// How often it formed a cluster, and joined one.
        package var formedCount = 0
        package var joinedCount = 0
        /// Nodes of different sides do not hear each other.
        package var side = 0
        /// How long the processor takes for a datagram; 0: no time at all.
        package var microsecondsEach: UInt64 = 0
        /// Datagrams that wait for the process at most: what a socket's buffer holds.
        package var inboxMax = 1000
        /// How often it was started.
        package fileprivate(set) var life = 0
        fileprivate var busyUntil = Instant(nanoseconds: 0)
        /// When a node would show its ring, by how many members are up.
        fileprivate(set) var ringPace = RingPace<Int>(now: Instant(nanoseconds: 0))
        /// The size of the ring that it would show.
        package fileprivate(set) var ringSize = 0
        /// What its membership says after each call.
        package var hash: UInt64 = 0
        /// When the wake-up comes that is on the queue and counts.
        fileprivate var wakeAt = Instant.distantFuture

        package var isRunning: Bool { membership != nil && stopReason == nil }
    }

    private enum Action {
        case datagram(to: Endpoint, from: Endpoint, bytes: [UInt8], isStreamed: Bool)
        case exchangeRequest(to: Endpoint, from: Endpoint, bytes: [UInt8])
        case exchangeReply(to: Endpoint, from: Endpoint, bytes: [UInt8])
        case start(Int)
        case resume(Int)
        case serve(Int)
        case wake(Int)
    }

    private struct Pending {
        var at: Instant
        var order: UInt64
        var action: Action

        static func < (left: Pending, right: Pending) -> Bool { (left.at, left.order) < (right.at, right.order) }
    }

    package var network = Network()
    /// Host names and what they resolve to; addresses need no entry. `3/name` is the name as node 3 sees it.
    package var names: [String: [Endpoint]] = [:]
    /// Further addresses of nodes.
    package var aliases: [Endpoint: Endpoint] = [:]
    /// Whether a node that has joined a cluster declares itself up at once.
    package var declaresUp = true
    package private(set) var nodes: [Node] = []
    package private(set) var now = Instant(nanoseconds: 1_000_000_000)
    /// When a process was started last.
    package private(set) var lastStart = Instant(nanoseconds: 0)
    /// A hash over all that happened.
    package private(set) var trace: UInt64 = 0
    package private(set) var datagramCount = 0
    /// In bytes of payload.
    package private(set) var longestDatagram = 0
    /// By how many members were up: the nodes have shown rings of those sizes. Only counted: its order is not the seed's.
    package private(set) var ringSizes: Set<Int> = []
    /// Calls into nodes so far: datagrams, deadlines and all else.
    package private(set) var callCount: UInt64 = 0
    private var random: Xoshiro256
    /// Of the datagrams that were delivered, one in so many is kept, the last ones.
    package var captureInterval = 16
    package var capturesMax = 0
    package private(set) var captures: [Capture] = []
    /// Whether each delivery is looked at for findings.
    package var isLookingAtDeliveries = false
    private var findings: [Finding] = []
    /// No shorter datagram has a record aboard.
    private static let bytesWithRecordMin = 140
    private var linkFaults: [(number: Int, fault: LinkFault)] = []
    private var linkFaultNumber = 0
    private var deliveryCount = 0
    /// Which nodes have an address. Only asked, never listed: its order is not the seed's.
    private var owners: [Endpoint: [Int]] = [:]
    private var queue: [Pending] = []
    private var order: UInt64 = 0

    package init(seed: UInt64) {
        random = Xoshiro256(seed: seed)
    }

    // MARK: Nodes

    package static func endpoint(_ index: Int) -> Endpoint { Endpoint(.v4(0x0a00_0001 + UInt32(index)), port: 11_212) }

    package static func seed(_ index: Int) -> HostAndPort {
        HostAndPort(host: endpoint(index).address.description, port: 11_212)
    }

    /// Adds a node that does not run yet; returns its index.
    package mutating func add(
        seeds: [HostAndPort],
        name: String? = nil,
        configuration: MembershipConfiguration = .init()
    ) -> Int {
        let index = nodes.count
        let record = MemberRecord(
            id: NodeID(using: &random),
            generation: 1000 + UInt64(index),
            name: name ?? "n\(index)",
            client: Endpoint(.v4(0x0a00_0001 + UInt32(index)), port: 11_211),
            cluster: Self.endpoint(index),
            admin: Endpoint(.v4(0x7f00_0001), port: 11_213)
        )
        nodes.append(Node(record: record, seeds: seeds, configuration: configuration))
        owners[record.cluster, default: []].append(index)
        return index
    }

    package mutating func edit(_ index: Int, _ change: (inout Node) -> Void) {
        let before = nodes[index].record.cluster
        change(&nodes[index])
        let after = nodes[index].record.cluster
        guard before != after else { return }
        owners[before]?.removeAll { $0 == index }
        owners[after, default: []].append(index)
    }

    /// `losesGeneration`: as if the number had not reached the disk.
    package mutating func start(_ index: Int, remembered: [Endpoint] = [], losesGeneration: Bool = false) {
        if !losesGeneration { nodes[index].record.generation += 1 }
        nodes[index].stopReason = nil
        nodes[index].life += 1
        nodes[index].busyUntil = now
        nodes[index].inbox = []
        nodes[index].pausedUntil = nil
        let membership = Membership(
            configuration: nodes[index].configuration,
            own: nodes[index].record,
            seeds: nodes[index].seeds,
            remembered: remembered,
            now: now,
            randomSeed: random.next()
        )
        nodes[index].membership = membership
        nodes[index].hash = membership.hash
        nodes[index].deadline = membership.nextDeadline
        scheduleWake(index)
        lastStart = now
    }

    package mutating func start(_ index: Int, afterMilliseconds delay: UInt64) {
        push(.start(index), at: now.advanced(byMilliseconds: delay))
    }

    package mutating func crash(_ index: Int) {
        nodes[index].membership = nil
        nodes[index].deadline = .distantFuture
    }

    /// Stops a process as SIGSTOP does: what arrives waits.
    package mutating func pause(_ index: Int, milliseconds: UInt64) {
        let end = now.advanced(byMilliseconds: milliseconds)
        nodes[index].pausedUntil = end
        push(.resume(index), at: end)
    }

    /// Lets a process go on that was stopped.
    package mutating func resume(_ index: Int) {
        guard nodes[index].pausedUntil != nil else { return }
        nodes[index].pausedUntil = nil
        let inbox = nodes[index].inbox
        nodes[index].inbox = []
        for datagram in inbox {
            arrive(
                datagram.bytes,
                at: index,
                from: datagram.from,
                isStreamed: datagram.isStreamed,
                since: datagram.arrived
            )
        }
        scheduleWake(index)
    }

    /// Puts a fault of the network in force; returns its number, for `end(linkFault:)`.
    package mutating func begin(_ fault: LinkFault) -> Int {
        linkFaultNumber += 1
        linkFaults.append((linkFaultNumber, fault))
        return linkFaultNumber
    }

    package mutating func end(linkFault number: Int) { linkFaults.removeAll { $0.number == number } }

    package mutating func endLinkFaults() { linkFaults = [] }

    /// What was found since the last call.
    package mutating func takeFindings() -> [Finding] {
        defer { findings = [] }
        return findings
    }

    /// Calls into a running node.
    package mutating func call(_ index: Int, _ body: (inout Membership, Instant, inout [MembershipEffect]) -> Void) {
        var effects: [MembershipEffect] = []
        let now = now
        // Taken out, so that its arrays have one owner while they change.
        guard var membership = nodes[index].membership.take() else { return }
        body(&membership, now, &effects)
        callCount += 1
        nodes[index].hash = membership.hash
        nodes[index].deadline = membership.nextDeadline
        let up = membership.upCount
        if up == nodes[index].ringSize {
            nodes[index].ringPace.settle()
        } else if nodes[index].ringPace.isDue(up, differences: abs(up - nodes[index].ringSize), now: now) {
            nodes[index].ringSize = up
            ringSizes.insert(up)
        }
        nodes[index].membership = membership
        scheduleWake(index)
        perform(effects, of: index)
    }

    /// Another course of chance on the network from here on.
    package mutating func reseed(_ seed: UInt64) { random = Xoshiro256(seed: seed) }

    // MARK: Time

    package mutating func run(milliseconds: UInt64) {
        run(until: now.advanced(byMilliseconds: milliseconds))
    }

    /// Runs to that moment, which is not in the past.
    package mutating func run(until end: Instant) {
        while step(until: end) {}
        now = max(now, end)
    }

    /// Runs until the condition holds; the milliseconds that took, or nil where the limit came first.
    package mutating func run(
        limitMilliseconds: UInt64,
        until condition: (borrowing GossipSimulator) -> Bool
    ) -> Double? {
        let start = now
        let end = now.advanced(byMilliseconds: limitMilliseconds)
        // Looked at before time goes on by a tenth of a millisecond: most events change nothing that shows.
        var looked = Instant(nanoseconds: 0)
        while true {
            if nextEvent.nanoseconds(since: looked) >= 100_000 {
                looked = now
                if condition(self) { return Double(now.nanoseconds(since: start)) / 1e6 }
            }
            if !step(until: end) { break }
        }
        now = end
        return nil
    }

    private var nextEvent: Instant { queue.first?.at ?? .distantFuture }

    private mutating func step(until end: Instant) -> Bool {
        guard let pending = queue.first, pending.at <= end else { return false }
        now = max(now, pending.at)
        pop()
        run(pending.action)
        return true
    }

    /// Puts the node's deadline on the queue. Wake-ups that came to nothing stay there and do nothing.
    private mutating func scheduleWake(_ index: Int) {
        let deadline = nodes[index].deadline
        guard deadline < nodes[index].wakeAt else { return }
        nodes[index].wakeAt = deadline
        push(.wake(index), at: max(now, deadline))
    }

    private mutating func wake(_ index: Int) {
        guard nodes[index].wakeAt <= now else { return }
        nodes[index].wakeAt = .distantFuture
        guard nodes[index].isRunning, nodes[index].pausedUntil == nil else { return }
        if nodes[index].busyUntil > now {
            nodes[index].wakeAt = nodes[index].busyUntil
            push(.wake(index), at: nodes[index].busyUntil)
        } else if nodes[index].deadline <= now {
            note(UInt64(index))
            call(index) { $0.advance(to: $1, effects: &$2) }
        } else {
            scheduleWake(index)
        }
    }

    private mutating func run(_ action: Action) {
        switch action {
        case .start(let index): start(index)
        case .wake(let index): wake(index)
        case .resume(let index):
            guard let end = nodes[index].pausedUntil, end <= now else { return }
            resume(index)
        case .serve(let index):
            // One that crashed or was stopped meanwhile has an empty inbox, or serves it when it goes on.
            guard nodes[index].isRunning, nodes[index].pausedUntil == nil, nodes[index].busyUntil <= now,
                !nodes[index].inbox.isEmpty
            else { return }
            let datagram = nodes[index].inbox.removeFirst()
            serve(
                datagram.bytes,
                at: index,
                from: datagram.from,
                isStreamed: datagram.isStreamed,
                since: datagram.arrived
            )
            if !nodes[index].inbox.isEmpty { push(.serve(index), at: nodes[index].busyUntil) }
        case .datagram(let to, let from, let bytes, let isStreamed):
            guard let index = reachable(to, from: from) else { return }
            arrive(bytes, at: index, from: from, isStreamed: isStreamed, since: now)
        case .exchangeRequest(let to, let from, let bytes):
            guard let index = reachable(to, from: from), nodes[index].pausedUntil == nil else { return }
            var answer: [UInt8] = []
            call(index) { membership, now, effects in
                answer = bytes.withUnsafeBytes { membership.exchange(with: $0, now: now, effects: &effects) }
            }
            push(.exchangeReply(to: from, from: to, bytes: answer), at: now.advanced(byMilliseconds: 2))
        case .exchangeReply(let to, let from, let bytes):
            guard let index = reachable(to, from: from), nodes[index].pausedUntil == nil else { return }
            call(index) { membership, now, effects in
                _ = bytes.withUnsafeBytes { membership.exchange(with: $0, now: now, effects: &effects) }
            }
        }
    }

    /// A datagram is at the socket, since it `arrived`.
    private mutating func arrive(
        _ bytes: [UInt8],
        at index: Int,
        from: Endpoint,
        isStreamed: Bool,
        since arrived: Instant
    ) {
        guard nodes[index].pausedUntil != nil || nodes[index].busyUntil > now else {
            serve(bytes, at: index, from: from, isStreamed: isStreamed, since: arrived)
            return
        }
        guard nodes[index].inbox.count < nodes[index].inboxMax else { return }
        nodes[index].inbox.append((from, bytes, isStreamed, arrived))
        if nodes[index].pausedUntil == nil, nodes[index].inbox.count == 1 {
            push(.serve(index), at: nodes[index].busyUntil)
        }
    }

    private mutating func serve(
        _ bytes: [UInt8],
        at index: Int,
        from: Endpoint,
        isStreamed: Bool,
        since arrived: Instant
    ) {
        nodes[index].busyUntil = now.advanced(byNanoseconds: nodes[index].microsecondsEach * 1000)
        // Of what comes over TCP the kernel does not say when it came.
        let age = isStreamed ? 0 : now.nanoseconds(since: arrived)
        deliver(bytes, to: index, from: from, isStreamed: isStreamed, ageNanoseconds: age)
    }

    /// Hands a datagram to a node, as if it had arrived `ageNanoseconds` ago.
    package mutating func deliver(
        _ bytes: [UInt8],
        to index: Int,
        from: Endpoint,
        isStreamed: Bool = false,
        ageNanoseconds: UInt64 = 0
    ) {
        note(KeyHash.hash(bytes))
        deliveryCount += 1
        if capturesMax > 0, deliveryCount % captureInterval == 0 {
            let capture = Capture(
                receiver: index,
                wasMember: nodes[index].membership?.phase == .joined,
                life: nodes[index].life,
                from: from,
                bytes: bytes
            )
            if captures.count < capturesMax {
                captures.append(capture)
            } else {
                captures[deliveryCount / captureInterval % capturesMax] = capture
            }
        }
        let before = nodes[index].hash
        // Pings and acknowledgements, most of all, carry nothing to look for; who seeks a cluster keeps nothing yet.
        let mayTeach =
            isLookingAtDeliveries && bytes.count >= Self.bytesWithRecordMin
            && nodes[index].membership?.phase == .joined
        call(index) { membership, now, effects in
            bytes.withUnsafeBytes {
                membership.receive(
                    $0,
                    from: from,
                    isStreamed: isStreamed,
                    ageNanoseconds: ageNanoseconds,
                    now: now,
                    effects: &effects
                )
            }
        }
        if isLookingAtDeliveries, mayTeach || nodes[index].hash != before {
            look(at: bytes, receivedBy: index, whoseHashWas: before, mayTeach: mayTeach)
        }
    }

    private mutating func look(
        at bytes: [UInt8],
        receivedBy index: Int,
        whoseHashWas before: UInt64,
        mayTeach: Bool
    ) {
        let tag = GossipDatagram.tag(ofCluster: nodes[index].configuration.clusterName)
        guard let datagram = bytes.withUnsafeBytes({ try? GossipDatagram(decoding: $0) }), datagram.clusterTag == tag
        else {
            if nodes[index].hash != before {
                findings.append(.strangerHeard("node \(index) learned from a datagram that is none of its cluster's"))
            }
            return
        }
        guard mayTeach, let membership = nodes[index].membership, membership.phase == .joined,
            datagram.target == nil || datagram.target == membership.ownRecord.id
        else { return }
        for case .record(let record, _) in datagram.entries where record.id != membership.ownRecord.id {
            // A tombstone may be old, and a verdict about one that is alive waits for the subject's own answer.
            guard let known = membership.record(of: record.id),
                !(record.liveness == .down && known.liveness == .alive)
            else { continue }
            if (known.generation, known.incarnation, known.sequence)
                < (record.generation, record.incarnation, record.sequence)
            {
                findings.append(.evidenceLost("node \(index) did not keep what it heard of \(record.name)"))
            }
        }
    }

    private func reachable(_ to: Endpoint, from: Endpoint) -> Int? {
        guard let receiver = holder(of: to), nodes[receiver].isRunning, let sender = holder(of: from),
            nodes[sender].side == nodes[receiver].side
        else { return nil }
        return receiver
    }

    /// Who has an address: of several, one that runs.
    private func holder(of endpoint: Endpoint) -> Int? {
        guard let holders = owners[endpoint] else { return nil }
        return holders.first { nodes[$0].isRunning } ?? holders.first
    }

    /// Of so many percent lost, one way, no connection comes about in any time that matters: opening one and saying one
    /// thing takes five packets in a row, or seconds of the kernel's patience.
    private static var lossWithoutConnections: Int { 50 }

    /// Whether a connection between two addresses would come about.
    private func isConnected(_ left: Endpoint, _ right: Endpoint) -> Bool {
        guard !linkFaults.isEmpty, let first = holder(of: left), let second = holder(of: right) else { return true }
        return linkFaults.allSatisfy { _, fault in
            switch fault {
            case .loss(let from, let to, let percent) where percent >= Self.lossWithoutConnections:
                (from ?? first != first || to ?? second != second) && (from ?? second != second || to ?? first != first)
            case .split(let inside): isInside(first, inside) == isInside(second, inside)
            case .loss, .jitter, .duplicates, .corruption, .truncation: true
            }
        }
    }

    private func isInside(_ index: Int, _ inside: [Bool]) -> Bool { index < inside.count && inside[index] }

    private mutating func perform(_ effects: [MembershipEffect], of index: Int) {
        let own = nodes[index].record.cluster
        for effect in effects {
            switch effect {
            case .send(let bytes, let endpoint): post(bytes, to: endpoint, from: own)
            case .stream(let bytes, let endpoint):
                // Connections lose nothing as long as both ends can be reached; opening one takes a round trip.
                let target = aliases[endpoint] ?? endpoint
                guard isConnected(own, target) else { continue }
                let delay = 2 * UInt64.random(in: network.delayMicroseconds, using: &random) * 1000
                push(
                    .datagram(to: target, from: own, bytes: bytes, isStreamed: true),
                    at: now.advanced(byNanoseconds: delay)
                )
            case .resolve(let host):
                let addresses = names["\(index)/\(host.host)"] ?? names[host.host] ?? []
                call(index) { $0.resolved(host, to: addresses, now: $1, effects: &$2) }
            case .pull(let endpoint):
                guard isConnected(own, endpoint), let request = nodes[index].membership?.exchangeRequest(now: now)
                else { continue }
                push(
                    .exchangeRequest(to: endpoint, from: own, bytes: request),
                    at: now.advanced(byMilliseconds: 2)
                )
            case .changed: break
            case .event(let event): nodes[index].events.append((now, event))
            case .stop(let reason): nodes[index].stopReason = reason
            case .formed: nodes[index].formedCount += 1
            case .joinedExisting:
                nodes[index].joinedCount += 1
                if declaresUp { call(index) { $0.setLifecycle(.up, now: $1, effects: &$2) } }
            }
        }
    }

    /// Puts a datagram on the network.
    package mutating func post(_ bytes: [UInt8], to: Endpoint, from: Endpoint) {
        datagramCount += 1
        let to = aliases[to] ?? to
        longestDatagram = max(longestDatagram, bytes.count)
        var bytes = bytes
        var copies = 1
        var extra: UInt64 = 0
        if chance(network.duplicatePercent) { copies = 2 }
        if !linkFaults.isEmpty {
            let sender = holder(of: from)
            let receiver = holder(of: to)
            for (_, fault) in linkFaults {
                switch fault {
                case .loss(let source, let target, let percent):
                    if source ?? sender == sender, target ?? receiver == receiver, chance(percent) { return }
                case .split(let inside):
                    if let sender, let receiver, isInside(sender, inside) != isInside(receiver, inside) { return }
                case .jitter(let most): extra += UInt64.random(in: 0...most * 1_000_000, using: &random)
                case .duplicates(let percent): if chance(percent) { copies = 2 }
                case .corruption(let percent):
                    guard chance(percent), !bytes.isEmpty else { continue }
                    for _ in 0..<Int.random(in: 1...8, using: &random) {
                        let place = Int.random(in: 0..<bytes.count, using: &random)
                        bytes[place] ^= UInt8.random(in: 1...255, using: &random)
                    }
                    if bytes.withUnsafeBytes({ (try? GossipDatagram(decoding: $0)) != nil }) { return }
                case .truncation(let percent):
                    if chance(percent), !bytes.isEmpty {
                        bytes.removeLast(Int.random(in: 1...bytes.count, using: &random))
                    }
                }
            }
        }
        for _ in 0..<copies {
            if chance(network.lossPercent) { continue }
            var delay = UInt64.random(in: network.delayMicroseconds, using: &random) * 1000 + extra
            if chance(network.detourPercent) { delay += UInt64.random(in: 0...20_000_000, using: &random) }
            push(.datagram(to: to, from: from, bytes: bytes, isStreamed: false), at: now.advanced(byNanoseconds: delay))
        }
    }

    private mutating func chance(_ percent: Int) -> Bool {
        percent > 0 && Int.random(in: 0..<100, using: &random) < percent
    }

    private mutating func note(_ word: UInt64) {
        trace = KeyHash.fold(trace ^ word ^ KeyHash.seed, now.nanoseconds | 1)
    }

    // MARK: The queue, a binary heap by time and order of arrival

    private mutating func push(_ action: Action, at: Instant) {
        order += 1
        queue.append(Pending(at: at, order: order, action: action))
        var child = queue.count - 1
        while child > 0, queue[child] < queue[(child - 1) / 2] {
            queue.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    private mutating func pop() {
        queue.swapAt(0, queue.count - 1)
        queue.removeLast()
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < queue.count && queue[child] < queue[least] {
                least = child
            }
            if least == parent { return }
            queue.swapAt(parent, least)
            parent = least
        }
    }
}

extension GossipSimulator {
    /// `count` nodes with one list of seeds, the first `seedCount` of them, started within `spread`.
    package static func cluster(
        _ count: Int,
        seedCount: Int? = nil,
        spreadMilliseconds: UInt64 = 0,
        seed: UInt64,
        configuration: MembershipConfiguration = .init()
    ) -> GossipSimulator {
        var simulator = GossipSimulator(seed: seed)
        var random = Xoshiro256(seed: seed &+ 1)
        let seeds = (0..<(seedCount ?? count)).map { GossipSimulator.seed($0) }
        for _ in 0..<count { _ = simulator.add(seeds: seeds, configuration: configuration) }
        for index in 0..<count {
            simulator.start(
                index,
                afterMilliseconds: spreadMilliseconds == 0
                    ? 0 : UInt64.random(in: 0...spreadMilliseconds, using: &random)
            )
        }
        return simulator
    }

    /// All running nodes know the same, and hold exactly `count` members for up and alive.
    package func agrees(up count: Int) -> Bool {
        agrees { $0.lifecycle == .up && $0.liveness == .alive } && upCount == count
    }

    /// All running nodes know the same, and what they know of those that run holds.
    package func agrees(_ condition: (MemberRecord) -> Bool) -> Bool {
        guard let first = nodes.indices.first(where: { nodes[$0].isRunning }) else { return false }
        // The cheap half first: most of the time it does not hold.
        for index in nodes.indices where nodes[index].hash != nodes[first].hash && nodes[index].isRunning {
            return false
        }
        guard let members = nodes[first].membership?.members else { return false }
        return members.allSatisfy { record in
            !nodes.contains { $0.record.id == record.id && $0.isRunning } || condition(record)
        }
    }

    package var upCount: Int {
        nodes.first(where: \.isRunning)?.membership?.members.count { $0.lifecycle == .up && $0.liveness == .alive } ?? 0
    }

    /// What node `observer` knows of node `index`.
    package func view(of index: Int, by observer: Int) -> MemberRecord? {
        nodes[observer].membership?.record(of: nodes[index].record.id)
    }

    package func allOthers(hold index: Int, _ condition: (MemberRecord) -> Bool) -> Bool {
        nodes.indices.allSatisfy { other in
            other == index || !nodes[other].isRunning || view(of: index, by: other).map(condition) == true
        }
    }
}
