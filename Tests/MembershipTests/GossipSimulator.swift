import ClusterCore

@testable import Membership

/// Nodes on a network that delays, loses, duplicates and reorders datagrams, in virtual time and one thread. The same
/// seed gives the same run, which `trace` proves.
struct GossipSimulator {
    struct Network {
        var delayMicroseconds: ClosedRange<UInt64> = 300...700
        var lossPercent = 0
        var duplicatePercent = 0
        /// So many in a hundred datagrams take up to 20 ms more, and are overtaken.
        var detourPercent = 0
    }

    struct Node {
        var record: MemberRecord
        var seeds: [HostAndPort]
        var configuration: MembershipConfiguration
        var membership: Membership?
        var deadline = Instant.distantFuture
        var pausedUntil: Instant?
        var inbox: [(from: Endpoint, bytes: [UInt8])] = []
        var events: [(at: Instant, event: MembershipEvent)] = []
        var stopReason: MembershipStopReason?
        var formedCount = 0
        var joinedCount = 0
        /// Nodes of different sides do not hear each other.
        var side = 0
        /// What its membership says after each call.
        var hash: UInt64 = 0

        var isRunning: Bool { membership != nil && stopReason == nil }
    }

    private enum Action {
        case datagram(to: Endpoint, from: Endpoint, bytes: [UInt8])
        case exchangeRequest(to: Endpoint, from: Endpoint, bytes: [UInt8])
        case exchangeReply(to: Endpoint, from: Endpoint, bytes: [UInt8])
        case start(Int)
        case resume(Int)
    }

    private struct Pending {
        var at: Instant
        var order: UInt64
        var action: Action

        static func < (left: Pending, right: Pending) -> Bool { (left.at, left.order) < (right.at, right.order) }
    }

    var network = Network()
    /// Host names and what they resolve to; addresses need no entry. `3/name` is the name as node 3 sees it.
    var names: [String: [Endpoint]] = [:]
    /// Further addresses of nodes.
    var aliases: [Endpoint: Endpoint] = [:]
    /// Whether a node that has joined a cluster declares itself up at once.
    var declaresUp = true
    private(set) var nodes: [Node] = []
    private(set) var now = Instant(nanoseconds: 1_000_000_000)
    private(set) var lastStart = Instant(nanoseconds: 0)
    private(set) var trace: UInt64 = 0
    private(set) var datagramCount = 0
    private(set) var longestDatagram = 0
    private var random: Xoshiro256
    private var queue: [Pending] = []
    private var order: UInt64 = 0

    init(seed: UInt64) {
        random = Xoshiro256(seed: seed)
    }

    // MARK: Nodes

    static func endpoint(_ index: Int) -> Endpoint { Endpoint(.v4(0x0a00_0001 + UInt32(index)), port: 11_212) }

    static func seed(_ index: Int) -> HostAndPort {
        HostAndPort(host: endpoint(index).address.description, port: 11_212)
    }

    /// Adds a node that does not run yet; returns its index.
    mutating func add(
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
        return index
    }

    mutating func edit(_ index: Int, _ change: (inout Node) -> Void) { change(&nodes[index]) }

    mutating func start(_ index: Int, remembered: [Endpoint] = []) {
        nodes[index].record.generation += 1
        nodes[index].stopReason = nil
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
        lastStart = now
    }

    mutating func start(_ index: Int, afterMilliseconds delay: UInt64) {
        push(.start(index), at: now.advanced(byMilliseconds: delay))
    }

    mutating func crash(_ index: Int) {
        nodes[index].membership = nil
        nodes[index].deadline = .distantFuture
    }

    /// Stops a process as SIGSTOP does: what arrives waits.
    mutating func pause(_ index: Int, milliseconds: UInt64) {
        let end = now.advanced(byMilliseconds: milliseconds)
        nodes[index].pausedUntil = end
        push(.resume(index), at: end)
    }

    /// Calls into a running node.
    mutating func call(_ index: Int, _ body: (inout Membership, Instant, inout [MembershipEffect]) -> Void) {
        var effects: [MembershipEffect] = []
        let now = now
        // Taken out, so that its arrays have one owner while they change.
        guard var membership = nodes[index].membership.take() else { return }
        body(&membership, now, &effects)
        nodes[index].hash = membership.hash
        nodes[index].deadline = membership.nextDeadline
        nodes[index].membership = membership
        perform(effects, of: index)
    }

    // MARK: Time

    mutating func run(milliseconds: UInt64) {
        let end = now.advanced(byMilliseconds: milliseconds)
        while step(until: end) {}
        now = end
    }

    /// Runs until the condition holds; the milliseconds that took, or nil where the limit came first.
    mutating func run(limitMilliseconds: UInt64, until condition: (borrowing GossipSimulator) -> Bool) -> Double? {
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

    private var nextEvent: Instant { min(queue.first?.at ?? .distantFuture, nextDeadline?.at ?? .distantFuture) }

    private var nextDeadline: (index: Int, at: Instant)? {
        var earliest: (index: Int, at: Instant)?
        for index in nodes.indices where nodes[index].pausedUntil == nil && nodes[index].stopReason == nil {
            if nodes[index].deadline < earliest?.at ?? .distantFuture { earliest = (index, nodes[index].deadline) }
        }
        return earliest
    }

    private mutating func step(until end: Instant) -> Bool {
        let earliest = nextDeadline
        let next = min(queue.first?.at ?? .distantFuture, earliest?.at ?? .distantFuture)
        guard next <= end else { return false }
        now = max(now, next)
        if let pending = queue.first, pending.at <= now {
            pop()
            run(pending.action)
        } else if let earliest {
            note(UInt64(earliest.index))
            call(earliest.index) { $0.advance(to: $1, effects: &$2) }
        }
        return true
    }

    private mutating func run(_ action: Action) {
        switch action {
        case .start(let index): start(index)
        case .resume(let index):
            guard let end = nodes[index].pausedUntil, end <= now else { return }
            nodes[index].pausedUntil = nil
            let inbox = nodes[index].inbox
            nodes[index].inbox = []
            for datagram in inbox { deliver(datagram.bytes, to: index, from: datagram.from) }
        case .datagram(let to, let from, let bytes):
            guard let index = reachable(to, from: from) else { return }
            if nodes[index].pausedUntil != nil {
                if nodes[index].inbox.count < 1000 { nodes[index].inbox.append((from, bytes)) }
            } else {
                deliver(bytes, to: index, from: from)
            }
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

    private mutating func deliver(_ bytes: [UInt8], to index: Int, from: Endpoint) {
        note(KeyHash.hash(bytes))
        call(index) { membership, now, effects in
            bytes.withUnsafeBytes { membership.receive($0, from: from, now: now, effects: &effects) }
        }
    }

    private func reachable(_ to: Endpoint, from: Endpoint) -> Int? {
        guard let receiver = nodes.firstIndex(where: { $0.record.cluster == to && $0.isRunning }),
            let sender = nodes.first(where: { $0.record.cluster == from }), sender.side == nodes[receiver].side
        else { return nil }
        return receiver
    }

    private mutating func perform(_ effects: [MembershipEffect], of index: Int) {
        let own = nodes[index].record.cluster
        for effect in effects {
            switch effect {
            case .send(let bytes, let endpoint): post(bytes, to: endpoint, from: own)
            case .resolve(let host):
                let addresses = names["\(index)/\(host.host)"] ?? names[host.host] ?? []
                call(index) { $0.resolved(host, to: addresses, now: $1, effects: &$2) }
            case .pull(let endpoint):
                guard let request = nodes[index].membership?.exchangeRequest(now: now) else { continue }
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
    mutating func post(_ bytes: [UInt8], to: Endpoint, from: Endpoint) {
        datagramCount += 1
        let to = aliases[to] ?? to
        longestDatagram = max(longestDatagram, bytes.count)
        var copies = 1
        if chance(network.duplicatePercent) { copies = 2 }
        for _ in 0..<copies {
            if chance(network.lossPercent) { continue }
            var delay = UInt64.random(in: network.delayMicroseconds, using: &random) * 1000
            if chance(network.detourPercent) { delay += UInt64.random(in: 0...20_000_000, using: &random) }
            push(.datagram(to: to, from: from, bytes: bytes), at: now.advanced(byNanoseconds: delay))
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
    static func cluster(
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
    func agrees(up count: Int) -> Bool { agrees { $0.lifecycle == .up && $0.liveness == .alive } && upCount == count }

    /// All running nodes know the same, and what they know of those that run holds.
    func agrees(_ condition: (MemberRecord) -> Bool) -> Bool {
        guard let first = nodes.first(where: \.isRunning), let members = first.membership?.members,
            nodes.allSatisfy({ !$0.isRunning || $0.hash == first.hash })
        else { return false }
        return members.allSatisfy { record in
            !nodes.contains { $0.record.id == record.id && $0.isRunning } || condition(record)
        }
    }

    var upCount: Int {
        nodes.first(where: \.isRunning)?.membership?.members.count { $0.lifecycle == .up && $0.liveness == .alive } ?? 0
    }

    /// What node `observer` knows of node `index`.
    func view(of index: Int, by observer: Int) -> MemberRecord? {
        nodes[observer].membership.flatMap { membership in
            (membership.members + membership.tombstones).first { $0.id == nodes[index].record.id }
        }
    }

    func allOthers(hold index: Int, _ condition: (MemberRecord) -> Bool) -> Bool {
        nodes.indices.allSatisfy { other in
            other == index || !nodes[other].isRunning || view(of: index, by: other).map(condition) == true
        }
    }
}
