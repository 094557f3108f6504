import ClusterCore
import Membership

extension GossipCampaign {
    /// Begins a fault; whether there was something for it to work on.
    mutating func begin(_ fault: GossipFault, _ number: Int) -> Bool {
        // A course of chance of the fault's own: leaving others out changes nothing in it.
        var random = Xoshiro256(seed: seed &* 31 &+ UInt64(number))
        switch fault {
        case .crash(let index):
            guard simulator.nodes[index].membership != nil else { return false }
            crash(index)
        case .start(let index, let seeds): return start(index, seeds)
        case .crashLoop(let index, let times, let every):
            for time in 0..<UInt64(times) {
                schedule(.crash(index), afterMilliseconds: time * every)
                schedule(.start(index), afterMilliseconds: time * every + every / 2)
            }
        case .restoredDisk(let index):
            guard simulator.nodes[index].membership == nil, generations == .stored else { return false }
            return start(index, isRestored: true)
        case .pause(let index, let length):
            guard isAwake(index) else { return false }
            simulator.pause(index, milliseconds: length)
        case .slow(let index, let each, let length):
            simulator.edit(index) {
                $0.microsecondsEach = each
                $0.inboxMax = 64
            }
            schedule(.endSlow(index), afterMilliseconds: length)
        case .massRestart(let mass, let spread): massRestart(mass, spread)
        case .leave(let index, let cut, let isForGood):
            guard cut > 0 else { return leave(index, isForGood: isForGood) }
            guard isAwake(index) else { return false }
            cutOff(index, milliseconds: cut)
            schedule(.leave(index, isForGood: isForGood), afterMilliseconds: cut)
        case .joins(let most):
            let idle = members.dropFirst(count).filter { simulator.nodes[$0].membership == nil }.prefix(most)
            for index in idle {
                goneForGood.remove(index)
                _ = start(index)
            }
            return !idle.isEmpty
        case .leaves(let most):
            let settled = members.dropFirst(3).reversed().filter { isAwake($0) }.prefix(most)
            for index in settled { _ = leave(index, isForGood: index >= count) }
            return !settled.isEmpty
        case .loss(let from, let to, let percent, let length):
            guard count > 1 else { return false }
            begin(.loss(from: from, to: to, percent: percent), milliseconds: length)
        case .cut(let left, let right, let length):
            guard left != right else { return false }
            begin(.loss(from: left, to: right, percent: 100), milliseconds: length)
            begin(.loss(from: right, to: left, percent: 100), milliseconds: length)
        case .halves(let inside, let length):
            guard inside.contains(true) else { return false }
            begin(.split(inside: inside), milliseconds: length)
        case .alone(let index, let length): cutOff(index, milliseconds: length)
        case .flipFlop(let index, let times):
            for time in 0..<UInt64(times) {
                schedule(.cutOff(index, milliseconds: 20_000), afterMilliseconds: time * 40_000)
            }
        case .jitter(let most, let length): begin(.jitter(mostMilliseconds: most), milliseconds: length)
        case .duplicates(let percent, let length): begin(.duplicates(percent: percent), milliseconds: length)
        case .corruption(let percent, let length): begin(.corruption(percent: percent), milliseconds: length)
        case .truncation(let percent, let length): begin(.truncation(percent: percent), milliseconds: length)
        case .replay(let most): return replay(most, &random)
        case .garbage(let index, let datagrams): return garbage(index, datagrams, &random)
        case .linkBroke(let index, let other):
            guard index != other, isAwake(index) else { return false }
            let id = simulator.nodes[other].record.id
            simulator.call(index) { $0.reportUnreachable(id, now: $1, effects: &$2) }
        case .twin(let index, let length):
            guard twinOf == nil, generations == .stored else { return false }
            startTwin(of: index, milliseconds: length)
        case .swapAddresses(let left, let right):
            guard left != right else { return false }
            crash(left)
            crash(right)
            let (first, second) = (simulator.nodes[left].record, simulator.nodes[right].record)
            simulator.edit(left) { ($0.record.cluster, $0.record.client) = (second.cluster, second.client) }
            simulator.edit(right) { ($0.record.cluster, $0.record.client) = (first.cluster, first.client) }
            _ = start(left)
            _ = start(right)
        case .foreignCluster(let index, let length):
            endForeign()
            crash(index)
            let address = simulator.nodes[index].record.cluster
            simulator.edit(foreignFounder) { $0.record.cluster = address }
            simulator.start(foreignFounder)
            simulator.start(foreignSeeker)
            schedule(.endForeign, afterMilliseconds: length)
        }
        return true
    }

    mutating func perform(_ sequel: Sequel) {
        switch sequel {
        case .crash(let index): crash(index)
        case .start(let index): _ = start(index)
        case .endLinkFault(let number):
            simulator.end(linkFault: number)
            if splits.remove(number) != nil { lastSplit = simulator.now }
        case .cutOff(let index, let length): cutOff(index, milliseconds: length)
        case .endSlow(let index):
            simulator.edit(index) {
                $0.microsecondsEach = 0
                $0.inboxMax = 1000
            }
        case .leave(let index, let isForGood): _ = leave(index, isForGood: isForGood)
        case .endLeave(let index): endLeave(index)
        case .endTwin: endTwin()
        case .endForeign: endForeign()
        }
    }

    /// Whether a process runs there that takes calls.
    private func isAwake(_ index: Int) -> Bool {
        let node = simulator.nodes[index]
        return node.isRunning && node.pausedUntil == nil && leaving[index] == nil
    }

    // MARK: Processes

    mutating func crash(_ index: Int) {
        guard let membership = simulator.nodes[index].membership else { return }
        log("node \(index) ends")
        count(membership.statistics)
        simulator.crash(index)
        leaving[index] = nil
        restored.remove(index)
        for member in known[index].indices { known[index][member] = nil }
    }

    /// Starts a node unless it runs, or has left for good. `isRestored`: far below its last generation.
    @discardableResult
    mutating func start(_ index: Int, _ seeds: GossipFault.Seeds = .usual, isRestored: Bool = false) -> Bool {
        guard simulator.nodes[index].membership == nil, !goneForGood.contains(index) else { return false }
        if simulator.nodes[foreignFounder].membership != nil,
            simulator.nodes[foreignFounder].record.cluster == simulator.nodes[index].record.cluster
        {
            endForeign()
        }
        log("node \(index) starts")
        let list: [HostAndPort]
        switch seeds {
        case .usual: list = Self.seeds(count)
        case .stale: list = [GossipSimulator.seed(0), GossipSimulator.seed(200), GossipSimulator.seed(201)]
        case .none: list = []
        case .itself:
            let own = simulator.nodes[index].record.cluster
            list = [HostAndPort(host: own.address.description, port: own.port)]
        }
        let subject = index == twin ? twinOf ?? index : index
        let generation: UInt64
        switch generations {
        case .stored: generation = isRestored ? 500 : highest[subject]
        case .lost: generation = simulator.nodes[index].record.generation
        case .wallClock:
            let offset = KeyHash.mix(seed ^ UInt64(index) << 32 ^ UInt64(simulator.nodes[index].life)) % 60_000
            generation = 1_000_000 + simulator.now.nanoseconds / 1_000_000 + offset
        }
        simulator.edit(index) {
            $0.seeds = list
            $0.record.generation = generation
        }
        // Those that it has heard of and that have not left since, as a node keeps them on its disk.
        let others = members.filter {
            $0 != index && !goneForGood.contains($0) && ($0 < count || simulator.nodes[$0].life > 0)
        }
        simulator.start(
            index,
            remembered: others.map { simulator.nodes[$0].record.cluster },
            losesGeneration: generations == .lost
        )
        highest[subject] = max(highest[subject], simulator.nodes[index].record.generation)
        farewells[subject] = nil
        if isRestored { restored.insert(index) }
        if index != twin, twinOf != index { twinned.remove(index) }
        return true
    }

    private mutating func massRestart(_ mass: GossipFault.Mass, _ spread: UInt64) {
        let chosen = members.filter {
            simulator.nodes[$0].membership != nil && leaving[$0] == nil && (mass != .third || $0 % 3 == 0)
        }
        for (place, index) in chosen.enumerated() {
            if mass == .rolling {
                schedule(.crash(index), afterMilliseconds: UInt64(place) * 300)
                schedule(.start(index), afterMilliseconds: UInt64(place) * 300 + 100)
            } else {
                crash(index)
                schedule(.start(index), afterMilliseconds: UInt64(place) * 7919 % (spread + 1))
            }
        }
    }

    // MARK: Leaving

    private mutating func leave(_ index: Int, isForGood: Bool) -> Bool {
        guard isAwake(index), let membership = simulator.nodes[index].membership,
            membership.ownRecord.lifecycle == .up
        else { return false }
        let view = membership.members
        let witnesses = members.filter { other in
            other != index && isAwake(other)
                && view.contains { $0.id == simulator.nodes[other].record.id && $0.isLiving }
                && simulator.nodes[other].membership?.phase == .joined
        }
        leaving[index] = Farewell(
            witnesses: witnesses.map { ($0, simulator.nodes[$0].life) },
            abandonedBefore: membership.statistics.updatesAbandoned
        )
        log("node \(index) leaves")
        // The seeds have to remain, or nobody finds the cluster; and a majority of those of the start.
        let mayGo = index >= count || (index >= 3 && goneForGood.count { $0 < count } < (count - 1) / 4)
        if isForGood, mayGo { goneForGood.insert(index) }
        simulator.call(index) { $0.setLifecycle(.left, now: $1, effects: &$2) }
        schedule(.endLeave(index), afterMilliseconds: 1000)
        return true
    }

    mutating func endLeave(_ index: Int) {
        guard var farewell = leaving[index] else { return }
        if let membership = simulator.nodes[index].membership, simulator.nodes[index].isRunning {
            farewell.isHeard =
                membership.hasSaidFarewell && membership.statistics.updatesAbandoned == farewell.abandonedBefore
        }
        crash(index)
        leaving[index] = nil
        farewells[index] = farewell
        if farewell.isHeard, !farewell.witnesses.isEmpty { outcome.reached.insert(.leaveHeard) }
    }

    // MARK: Links

    private mutating func begin(_ fault: GossipSimulator.LinkFault, milliseconds: UInt64) {
        let number = simulator.begin(fault)
        if case .split = fault { splits.insert(number) }
        schedule(.endLinkFault(number), afterMilliseconds: milliseconds)
    }

    private mutating func cutOff(_ index: Int, milliseconds: UInt64) {
        begin(.split(inside: simulator.nodes.indices.map { $0 == index }), milliseconds: milliseconds)
    }

    private mutating func replay(_ most: Int, _ random: inout Xoshiro256) -> Bool {
        let captures = simulator.captures
        guard !captures.isEmpty else { return false }
        for _ in 0..<most {
            guard let capture = captures.randomElement(using: &random), isAwake(capture.receiver) else { continue }
            let before = simulator.nodes[capture.receiver].hash
            simulator.deliver(capture.bytes, to: capture.receiver, from: capture.from)
            let node = simulator.nodes[capture.receiver]
            guard node.life == capture.life, capture.wasMember else { continue }
            if node.hash == before {
                outcome.reached.insert(.replayed)
            } else {
                breach(.strangerHeard, "node \(capture.receiver) learned from a datagram that it had had before")
            }
        }
        return true
    }

    private mutating func garbage(_ index: Int, _ datagrams: Int, _ random: inout Xoshiro256) -> Bool {
        guard isAwake(index) else { return false }
        for _ in 0..<datagrams {
            guard isAwake(index) else { break }
            var bytes: [UInt8]
            if Bool.random(using: &random), let capture = simulator.captures.randomElement(using: &random),
                capture.bytes.count > 12
            {
                // As another cluster would send it.
                bytes = capture.bytes
                bytes[Int.random(in: 4..<12, using: &random)] ^= UInt8.random(in: 1...255, using: &random)
            } else {
                bytes = (0..<Int.random(in: 0...200, using: &random)).map { _ in
                    UInt8.random(in: 0...255, using: &random)
                }
            }
            let from = GossipSimulator.endpoint(Int.random(in: 0..<count, using: &random))
            simulator.deliver(bytes, to: index, from: from)
        }
        return true
    }

    // MARK: Identity

    private mutating func startTwin(of index: Int, milliseconds: UInt64) {
        crash(twin)
        twinOf = index
        twinned.insert(index)
        let record = simulator.nodes[index].record
        let address = GossipSimulator.endpoint(twin)
        simulator.edit(twin) {
            $0.record = record
            $0.record.cluster = address
        }
        _ = start(twin)
        schedule(.endTwin, afterMilliseconds: milliseconds)
    }

    mutating func endTwin() {
        crash(twin)
        twinOf = nil
    }

    mutating func endForeign() {
        for index in [foreignFounder, foreignSeeker] where simulator.nodes[index].membership != nil { crash(index) }
    }
}
