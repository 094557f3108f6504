package import ClusterCore

/// A question whether one member is there, by ping and then by others' pings.
struct Probe: Sendable {
    var subject: NodeID
    var generation: UInt64
    var sequence: UInt32
    /// When others are asked; nil once they were.
    var indirectAt: Instant?
    var endsAt: Instant
    /// Those asked that have answered neither yes nor no.
    var helpers: [NodeID] = []
    /// How many were asked.
    var helperCount = 0
    /// Until when answers are waited for that arrived by `endsAt` and are not read yet.
    var readBy: Instant?

    /// When the probe has failed.
    var failsAt: Instant { readBy ?? endsAt }
    var next: Instant { min(indirectAt ?? failsAt, failsAt) }
}

/// A ping on behalf of another member.
struct Relay: Sendable {
    var requester: NodeID
    var requesterEndpoint: Endpoint
    var requesterSequence: UInt32
    var subject: NodeID
    var sequence: UInt32
    /// When the requester hears that nothing came; nil once it did.
    var nackAt: Instant?
    var endsAt: Instant
}

extension Membership {
    /// Open probes and relays at most; further ones wait for their turn or are not taken.
    private static let probesMax = 64
    private static let relaysMax = 128

    /// How many members this node holds for alive, itself included.
    var aliveCount: Int { table.aliveCount + 1 }

    /// The places of the living others in the table.
    var livingOthers: [Int] { table.indices { $0.record.isLiving } }

    /// The places of so many of the living others, by chance; fewer where there are fewer.
    mutating func randomLivingOthers(_ count: Int) -> [Int] {
        // Drawing blindly is quick where many are alive, and does without a look at all.
        if table.peers.count > 64, table.aliveCount >= table.peers.count / 2, count <= 8 {
            var found: [Int] = []
            while found.count < count {
                let index = Int.random(in: table.peers.indices, using: &random)
                if table.peers[index].record.isLiving, !found.contains(index) { found.append(index) }
            }
            return found
        }
        if count == 1 { return livingOthers.randomElement(using: &random).map { [$0] } ?? [] }
        return Array(livingOthers.shuffled(using: &random).prefix(count))
    }

    /// Who could confirm an accusation: all that are well, this node included, but for the first accuser.
    var opinionCount: Int { aliveCount - 1 }

    func deadline(of suspicion: Suspicion, opinions: Int) -> Instant {
        suspicion.deadline(members: table.memberCount + 1, opinions: opinions, configuration: configuration)
    }

    mutating func worsenHealth(by amount: Int) { health = min(configuration.healthMax, health + amount) }

    // MARK: Own probes

    /// Starts a probe, unless one of the same member runs. `isUrgent` asks others at once.
    mutating func startProbe(
        of id: NodeID,
        isUrgent: Bool = false,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        guard let peer = table[id], !peer.record.isTombstone else { return }
        if let running = probes.firstIndex(where: { $0.subject == id && $0.generation == peer.record.generation }) {
            if isUrgent, probes[running].indirectAt != nil { askOthers(running, now: now, effects: &effects) }
            return
        }
        guard probes.count < Self.probesMax else { return }
        let stretch = UInt64(health + 1)
        let probe = Probe(
            subject: id,
            generation: peer.record.generation,
            sequence: makeSequence(),
            indirectAt: now.advanced(byMilliseconds: configuration.directTimeoutMilliseconds * stretch),
            endsAt: now.advanced(byMilliseconds: configuration.probeEndMilliseconds * stretch)
        )
        probes.append(probe)
        statistics.probesSent &+= 1
        // The accused hears of it first: that gives it the most time to refute.
        var entries: [GossipEntry] = []
        if configuration.ablations.contains(.buddy) {
            // News spreads as all other does.
        } else if let verdict = peer.verdict {
            entries = [.record(verdict.record, ageSeconds: verdict.ageSeconds)]
        } else if peer.record.liveness != .alive {
            entries = [entry(for: peer, now: now)]
        }
        sendPing(probe.sequence, to: peer.record, entries: entries, effects: &effects)
        if isUrgent { askOthers(probes.count - 1, now: now, effects: &effects) }
    }

    private mutating func sendPing(
        _ sequence: UInt32,
        to record: MemberRecord,
        entries: [GossipEntry],
        effects: inout [MembershipEffect]
    ) {
        let probe = GossipProbe(
            sequence: sequence,
            hash: gossipedHash
        )
        send(.ping(probe), to: record.cluster, target: record.id, entries: entries, effects: &effects)
    }

    private mutating func askOthers(_ index: Int, now: Instant, effects: inout [MembershipEffect]) {
        probes[index].indirectAt = nil
        let probe = probes[index]
        if let record = table[probe.subject]?.record {
            let ping = GossipProbe(sequence: probe.sequence, hash: gossipedHash)
            stream(.ping(ping), to: record.cluster, target: record.id, effects: &effects)
        }
        let candidates = table.indices {
            $0.record.liveness == .alive && !$0.record.isTombstone && $0.record.id != probe.subject
        }
        let helpers = candidates.shuffled(using: &random).prefix(configuration.indirectProbeCount)
            .map { table.peers[$0] }
        probes[index].helpers = helpers.map(\.record.id)
        probes[index].helperCount = helpers.count
        for helper in helpers {
            statistics.indirectProbesRequested &+= 1
            send(
                .pingRequest(sequence: probe.sequence, subject: probe.subject),
                to: helper.record.cluster,
                target: helper.record.id,
                effects: &effects
            )
        }
    }

    mutating func acknowledge(
        _ sequence: UInt32,
        from id: NodeID,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        if let index = probes.firstIndex(where: { $0.sequence == sequence && $0.subject == id }) {
            if probes[index].endsAt > arrived { health = max(0, health - 1) }
            if answering?.isStreamed == true { statistics.probesRescued &+= 1 }
            probes.remove(at: index)
        } else if let index = relays.firstIndex(where: { $0.sequence == sequence && $0.subject == id }) {
            let relay = relays.remove(at: index)
            send(
                .indirectAck(sequence: relay.requesterSequence),
                to: relay.requesterEndpoint,
                target: relay.requester,
                effects: &effects
            )
        }
    }

    mutating func indirectlyAcknowledge(_ sequence: UInt32, by helper: NodeID) {
        // Only those that were asked may answer for another.
        guard let index = probes.firstIndex(where: { $0.sequence == sequence && $0.helpers.contains(helper) }) else {
            return
        }
        if probes[index].endsAt > arrived { health = max(0, health - 1) }
        probes.remove(at: index)
    }

    mutating func advanceProbes(to now: Instant, effects: inout [MembershipEffect]) {
        for index in probes.indices.reversed() where probes[index].failsAt <= now {
            guard !waitForInbox(index, now: now) else { continue }
            let probe = probes.remove(at: index)
            fail(probe, now: now, effects: &effects)
        }
        for index in probes.indices {
            if let at = probes[index].indirectAt, at <= now { askOthers(index, now: now, effects: &effects) }
        }
        if nextProbe <= now {
            nextProbe = now.advanced(byMilliseconds: configuration.probeIntervalMilliseconds * UInt64(health + 1))
            if let id = nextInProbeOrder() { startProbe(of: id, now: now, effects: &effects) }
        }
        if nextDownProbe <= now {
            nextDownProbe = now.advanced(byMilliseconds: jittered(configuration.downProbeIntervalMilliseconds))
            probeDownMember(now, effects: &effects)
        }
    }

    /// Whether a probe that ends must wait, once, since the answer may be among what this node has yet to read: the last
    /// datagram that it read was old, and arrived before the probe's end.
    private mutating func waitForInbox(_ index: Int, now: Instant) -> Bool {
        guard let oldInbox, probes[index].readBy == nil,
            now.nanoseconds(since: oldInbox.readAt) <= oldInbox.ageNanoseconds
        else { return false }
        let endsAt = probes[index].endsAt
        guard oldInbox.readAt.nanoseconds(since: endsAt) < oldInbox.ageNanoseconds else { return false }
        let readBy = endsAt.advanced(byNanoseconds: oldInbox.ageNanoseconds)
        guard readBy > now else { return false }
        probes[index].readBy = readBy
        return true
    }

    private mutating func fail(_ probe: Probe, now: Instant, effects: inout [MembershipEffect]) {
        guard let index = table.index(of: probe.subject) else { return }
        let record = table.peers[index].record
        guard record.generation == probe.generation, record.isLiving else { return }
        statistics.probesFailed &+= 1
        // Helpers that did not even say no make this node doubt itself; with none to ask, each failure does.
        // A suspect's silence is no news.
        if probe.helperCount > 0 {
            worsenHealth(by: probe.helpers.count)
        } else if record.liveness == .alive {
            worsenHealth(by: 1)
        }
        accuse(index, now: now, effects: &effects)
    }

    private mutating func accuse(_ index: Int, now: Instant, effects: inout [MembershipEffect]) {
        var record = table.peers[index].record
        if record.liveness == .alive {
            statistics.suspicions &+= 1
            record.liveness = .suspect
            apply(record, at: index, by: own.id, now: now, effects: &effects)
        }
        if table.edit(index, { $0.suspicion?.add(own.id) }) == true {
            tell(record.id, accuser: own.id, now: now)
        }
    }

    /// Each member once, in an order drawn anew for each round: bounds the time until any is probed.
    private mutating func nextInProbeOrder() -> NodeID? {
        for _ in 0..<2 {
            while let id = probeOrder.popLast() {
                if let peer = table[id], peer.record.isLiving { return id }
            }
            probeOrder = livingOthers.map { table.peers[$0].record.id }.shuffled(using: &random)
        }
        return nil
    }

    /// Puts a newcomer at a random place of the running round, lest it waits for the next.
    mutating func scheduleProbe(of id: NodeID) {
        guard !probeOrder.isEmpty, !probeOrder.contains(id) else { return }
        probeOrder.insert(id, at: Int.random(in: 0...probeOrder.count, using: &random))
    }

    /// The one not tried for longest, of several the one lost last; with chance min(1, down/alive), so that in a split
    /// at least one side always tries.
    private mutating func probeDownMember(_ now: Instant, effects: inout [MembershipEffect]) {
        let downs = table.indices { $0.record.liveness == .down && !$0.record.isTombstone }.map { table.peers[$0] }
        guard !downs.isEmpty, Int.random(in: 0..<aliveCount, using: &random) < downs.count else { return }
        let zero = Instant(nanoseconds: 0)
        let chosen = downs.min {
            let left = $0.tried ?? zero
            let right = $1.tried ?? zero
            return left != right ? left < right : ($0.lost ?? zero) > ($1.lost ?? zero)
        }
        guard let chosen, let index = table.index(of: chosen.record.id) else { return }
        table.edit(index) { $0.tried = now }
        startProbe(of: chosen.record.id, now: now, effects: &effects)
    }

    // MARK: Probes for others

    mutating func relay(
        to subject: NodeID,
        requester: NodeID,
        requesterEndpoint: Endpoint,
        sequence: UInt32,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        // Only between members: no stranger makes this node ping a third.
        guard stage == .joined, relays.count < Self.relaysMax, table[requester] != nil, subject != own.id else {
            return
        }
        guard let peer = table[subject] else {
            send(.nack(sequence: sequence), to: requesterEndpoint, target: requester, effects: &effects)
            return
        }
        let left = configuration.probeEndMilliseconds - configuration.directTimeoutMilliseconds
        let relay = Relay(
            requester: requester,
            requesterEndpoint: requesterEndpoint,
            requesterSequence: sequence,
            subject: subject,
            sequence: makeSequence(),
            nackAt: now.advanced(byMilliseconds: max(1, left * configuration.nackPercent / 100)),
            endsAt: now.advanced(byMilliseconds: max(2, left * UInt64(configuration.healthMax + 1)))
        )
        relays.append(relay)
        sendPing(relay.sequence, to: peer.record, entries: [], effects: &effects)
    }

    mutating func advanceRelays(to now: Instant, effects: inout [MembershipEffect]) {
        relays.removeAll { $0.endsAt <= now }
        for index in relays.indices {
            guard let nackAt = relays[index].nackAt, nackAt <= now else { continue }
            relays[index].nackAt = nil
            let relay = relays[index]
            send(
                .nack(sequence: relay.requesterSequence),
                to: relay.requesterEndpoint,
                target: relay.requester,
                effects: &effects
            )
        }
    }

    // MARK: Convictions

    mutating func advanceConvictions(to now: Instant, effects: inout [MembershipEffect]) {
        if table.firstExpiry <= now {
            for index in table.indices(where: { ($0.expires ?? .distantFuture) <= now }).reversed() {
                table.remove(at: index)
            }
        }
        for index in table.pending.reversed() {
            guard let verdict = table.peers[index].verdict, verdict.deadline <= now else { continue }
            let record = table.peers[index].record
            table.edit(index) { $0.verdict = nil }
            apply(
                record.merged(with: verdict.record),
                at: index,
                by: nil,
                now: now,
                ageSeconds: verdict.ageSeconds,
                effects: &effects
            )
        }
        // Counted after the verdicts, which take opinions away; a conviction takes none, for a suspect had none.
        let opinions = opinionCount
        for index in table.pending {
            guard let suspicion = table.peers[index].suspicion, deadline(of: suspicion, opinions: opinions) <= now
            else {
                continue
            }
            statistics.convictions &+= 1
            var record = table.peers[index].record
            record.liveness = .down
            apply(record, at: index, by: own.id, now: now, effects: &effects)
            tell(record.id, now: now)
        }
    }

    /// What lay in the inbox for more than a quarter of the probe interval shows that this node is slow, as a late clock
    /// does.
    mutating func noteInboxAge(_ ageNanoseconds: UInt64, now: Instant) {
        guard ageNanoseconds > 0, !configuration.ablations.contains(.ownSlowness) else { return }
        statistics.inboxAgeMaxMicroseconds = max(statistics.inboxAgeMaxMicroseconds, ageNanoseconds / 1000)
        guard ageNanoseconds / 1_000_000 > configuration.probeIntervalMilliseconds / 4 else { return }
        statistics.datagramsReadLate &+= 1
        guard stage == .joined else { return }
        let least = Suspicion.leastMilliseconds(members: table.memberCount + 1, configuration: configuration)
        oldInbox = (min(ageNanoseconds, least * 1_000_000), now)
        doubtOwnSpeed(now)
    }

    /// One cause shows in many datagrams and in the clock too, and counts once per probe interval.
    private mutating func doubtOwnSpeed(_ now: Instant) {
        guard slownessCountsFrom <= now else { return }
        slownessCountsFrom = now.advanced(byMilliseconds: configuration.probeIntervalMilliseconds)
        worsenHealth(by: 1)
    }

    /// What was due while the process stood still proves nothing about others.
    mutating func recoverFromStall(milliseconds: UInt64, now: Instant, effects: inout [MembershipEffect]) {
        statistics.stalls &+= 1
        effects.append(.event(.stalled(milliseconds: milliseconds)))
        doubtOwnSpeed(now)
        probes.removeAll()
        relays.removeAll()
        for index in table.pending {
            table.edit(index) {
                $0.suspicion?.since = now
                $0.verdict?.deadline = now.advanced(byMilliseconds: configuration.probeEndMilliseconds)
            }
        }
        let least = Suspicion.leastMilliseconds(members: table.memberCount + 1, configuration: configuration)
        if milliseconds >= least {
            damping.stalled(milliseconds: milliseconds, now)
            // The others may have given this node up: ask two of them before anything else.
            for index in livingOthers.shuffled(using: &random).prefix(2) {
                let record = table.peers[index].record
                pull(from: record.id, at: record.cluster, effects: &effects)
            }
        }
    }

    // MARK: Hints from links

    /// A link to that member broke or was refused: probes it at once, through others too. Convicts nobody by itself.
    package mutating func reportUnreachable(_ id: NodeID, now: Instant, effects: inout [MembershipEffect]) {
        guard stage == .joined, let peer = table[id], peer.record.isLiving else { return }
        startProbe(of: id, isUrgent: true, now: now, effects: &effects)
        finish(now, effects: &effects)
    }

    /// That member answered over a link: an open probe of it has succeeded.
    package mutating func reportReachable(_ id: NodeID, now: Instant) {
        guard stage == .joined else { return }
        probes.removeAll { $0.subject == id }
    }
}
