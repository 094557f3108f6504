import CacheStore
package import ClusterCore
import HashRing
package import Membership
package import PeerProtocol
package import Replication

// What an operator asks of a node: drain and its way back, a stop that hands over, a word about who is gone for good or
// may leave the ring, and what is going on.

/// What came of an operator's order.
package enum OrderOutcome: Hashable, Sendable {
    case accepted
    case unknownNode
    /// Why not, and what to do instead.
    case refused(String)
}

/// Who was told that removals from the ring wait no longer.
package struct BrakeRelease: Hashable, Sendable {
    /// The names of members that were told, this node's own included, sorted.
    package var told: [String] = []
    /// The names of members that live and cannot be reached from here.
    package var unreachable: [String] = []

    package init(told: [String] = []) {
        self.told = told
    }
}

/// A drain of this node, until it is told otherwise.
package struct DrainTask: Sendable {
    package enum State: String, Sendable {
        case running
        case done
        case failed
        case cancelled
    }

    package var id: String
    /// The name of the node that is drained.
    package var node: String
    package var state = State.running
    /// Slices that the node was engaged in when the drain began.
    package var total: Int
    package var left: Int
    package var sentBytesBefore: UInt64
    /// When `left` fell last.
    var progressAt: Instant
    package var blocked = ""

    init(id: String, node: String, total: Int, sentBytesBefore: UInt64, progressAt: Instant) {
        self.id = id
        self.node = node
        self.total = total
        self.left = total
        self.sentBytesBefore = sentBytesBefore
        self.progressAt = progressAt
    }
}

/// What `status` shows of one member.
package struct MemberView: Sendable {
    package var record: MemberRecord
    package var report: NodeReport
    package var number: PeerNumber
    package var isOwn: Bool
    package var wantedPrimaries: Int
    package var wantedCopies: Int
}

/// What `status` shows of the cluster, as this node knows it.
package struct ClusterSnapshot: Sendable {
    package var ringHash: UInt64
    /// How many members the ring has.
    package var ringSize: Int
    package var settled: Int
    package var moving: Int
    package var short: Int
    package var unavailable: Int
    package var members: [MemberView]
    package var drains: [DrainTask]
    package var isSafe: Bool
    package var hasLease: Bool
    package var phase: MembershipPhase
    package var lifecycle: Lifecycle
    package var isReady: Bool
    package var notReadyBecause: [String]
    package var outcomes: ControlPlane.Outcomes
    /// The brake on removals from the ring, while it is on.
    package var brake: RingBrake.Engagement?
    /// In how many milliseconds it ends by itself; nil where it is off, or stops nothing so far.
    package var brakeLeftMilliseconds: UInt64?
    package var membership: MembershipStatistics
    /// Addresses of others to which gossip goes over TCP, since UDP does not pass.
    package var streamedCount: Int
    package var journal: MembershipJournal
    /// Nil where the cluster has no key.
    package var keyRing: KeyRingView?
}

/// Where a key lives.
package struct KeyPlacement: Sendable {
    package var hash: UInt64
    package var slice: Int
    package var epoch: UInt32
    /// Names; the holder is nil while there is none.
    package var holder: String?
    package var successors: [String]
    /// Copies in sync, the holder's own included; 0 where another node would have to be asked.
    package var inSync: Int
}

extension ControlPlane {
    /// Where a key lives, as far as this node knows.
    package func placement(of key: String) -> KeyPlacement {
        let hash = KeyHash.hash(Array(key.utf8))
        let slice = Slice.index(of: hash)
        let holder = table.holders[slice]
        let others = topology.wantedOwners(of: slice).filter { $0 != holder && $0 != .none }
        return KeyPlacement(
            hash: hash,
            slice: slice,
            epoch: table.epochs[slice],
            holder: holder == .none ? nil : peers[Int(holder.value)].name,
            successors: others.map { peers[Int($0.value)].name },
            inSync: shards.withShard(shards.index(of: slice)) { $0.inSyncCount(slice).map { $0 + 1 } ?? 0 }
        )
    }

    // MARK: - Lifecycle

    mutating func advanceLifecycle(_ now: Now, _ outbox: inout Outbox, _ effects: inout [ControlEffect]) {
        switch phase {
        case .running:
            if membership.ownRecord.lifecycle == .joining { advanceJoining(now, &outbox, &effects) }
            if drain?.state == .running { advanceDrain(now, &outbox, &effects) }
        case .stopping(let until):
            let context = context(now)
            var held = 0
            shards.withEach { held += $0.handOverAll(context: context, outbox: &outbox) }
            if held == 0 || until <= now.instant { close(isLeaving: false, now, &effects) }
        case .closing(let isLeaving, let until):
            if until <= now.instant { sayFarewell(leaving: isLeaving, now, &outbox, &effects) }
        case .farewell(let until):
            if until <= now.instant {
                phase = .finished
                effects.append(.finished)
            }
        case .finished:
            break
        }
    }

    /// A joiner becomes a settled member once it has every slice that the ring wants it to have.
    private mutating func advanceJoining(_ now: Now, _ outbox: inout Outbox, _ effects: inout [ControlEffect]) {
        guard case .joined = membership.phase, leaseUntil > now.instant else { return }
        for index in peers.indices where index > 1 && peers[index].isControlConnected && !peers[index].isGone {
            let peer = PeerNumber(UInt32(index))
            if !tableSources.contains(peer) { pullTable(from: peer, now.instant, &outbox) }
        }
        let quorum = quorum(now.instant)
        guard quorum.isMet(by: { tableSources.contains($0) }), !wanted.isEmpty else { return }
        let copies = max(ring.copies, 1)
        for slice in 0..<Slice.count {
            guard wanted[(slice * copies)..<((slice + 1) * copies)].contains(Self.own) else { continue }
            let holder = table.holders[slice]
            // A slice that nobody serves teaches nobody: it is started, or taken over, by whoever may.
            guard holder != .none, !isAway(Int(holder.value), now.instant) else { continue }
            let isFirst = wanted[slice * copies] == Self.own
            let isThere = shards.withShard(shards.index(of: slice)) { $0.isSettledHere(slice, asHolder: isFirst) }
            guard isThere else { return }
        }
        var words: [MembershipEffect] = []
        membership.setLifecycle(.up, now: now.instant, effects: &words)
        follow(words, now, &outbox, &effects)
        effects.append(.log(.up))
    }

    private func isAway(_ index: Int, _ now: Instant) -> Bool {
        if index == Int(Self.own.value) { return false }
        return peers[index].isGone || peers[index].isReleased || peers[index].downSince != nil
            || peers[index].record == nil
    }

    // MARK: - Drain

    /// Carries out an operator's order for this node. Returns why not; empty where it is done.
    package mutating func carryOut(
        _ order: NodeOrder,
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) -> String {
        switch order {
        case .drain: return startDrain(isForced: false, now, &outbox, &effects)
        case .drainByForce: return startDrain(isForced: true, now, &outbox, &effects)
        case .undrain: return cancelDrain(now, &outbox, &effects)
        case .releaseBrake:
            if let event = brake.release() { note(event, now, &effects) }
            refreshRing(now, &effects)
            return ""
        }
    }

    private mutating func startDrain(
        isForced: Bool,
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) -> String {
        if drain?.state == .running { return "" }
        guard case .running = phase, membership.ownRecord.lifecycle == .up else {
            return "the node is \(membership.ownRecord.lifecycle) and cannot be drained"
        }
        var others = 0
        var freeBytes: UInt64 = 0
        for index in peers.indices where index > 1 && !peers[index].isGone {
            guard let record = peers[index].record, record.lifecycle == .up, record.isLiving else { continue }
            others += 1
            freeBytes += record.memoryBytes - min(record.memoryBytes, peers[index].report.bytes)
        }
        if others == 0 { return "no other node is up to take the slices" }
        let copies = configuration.replication.replicas + 1
        if !isForced {
            if others < copies {
                return "\(others == 1 ? "1 node" : "\(others) nodes") would remain for \(copies) copies of each slice; "
                    + "start another node, or drain by force"
            }
            let bytes = storeStatistics().bytes
            if freeBytes < UInt64(bytes) {
                return "the other nodes have \(freeBytes) bytes free for the \(bytes) bytes of this node; "
                    + "add memory or a node, or drain by force"
            }
        }
        drainCounter += 1
        let id = hexadecimal(random.next()).prefix(8)
        let census = census(now)
        drain = DrainTask(
            id: String(id),
            node: membership.ownRecord.name,
            total: census.engaged,
            sentBytesBefore: sentBytes(),
            progressAt: now.instant
        )
        var words: [MembershipEffect] = []
        membership.setLifecycle(.draining, now: now.instant, effects: &words)
        follow(words, now, &outbox, &effects)
        effects.append(.log(.drainStarted(slices: census.engaged)))
        return ""
    }

    private mutating func cancelDrain(
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) -> String {
        guard drain?.state == .running, case .running = phase else { return "the node is not being drained" }
        if var task = drain {
            task.state = .cancelled
            keepFinished(task)
        }
        drain = nil
        var words: [MembershipEffect] = []
        membership.setLifecycle(.up, now: now.instant, effects: &words)
        follow(words, now, &outbox, &effects)
        effects.append(.log(.drainCancelled))
        return ""
    }

    /// Keeps a drain that has ended, for whoever asks for its result.
    mutating func keepFinished(_ task: DrainTask) {
        finishedDrains.append(task)
        if finishedDrains.count > Self.finishedDrainsMax { finishedDrains.removeFirst() }
    }

    /// A member is gone that was being drained: it left because it was done, or it was lost on the way.
    mutating func noteEndOfDrain(of index: Int, _ now: Now) {
        guard let record = peers[index].record, record.lifecycle == .draining else { return }
        let hasLeft = membership.tombstones.contains { $0.id == record.id && $0.lifecycle == .left }
        let report = peers[index].report
        var task = DrainTask(
            id: "drain-" + record.name,
            node: record.name,
            total: Int(report.drainTotal),
            sentBytesBefore: report.sentBytes,
            progressAt: now.instant
        )
        task.state = hasLeft ? .done : .failed
        task.left = hasLeft ? 0 : Int(report.drainLeft)
        keepFinished(task)
    }

    private mutating func advanceDrain(_ now: Now, _ outbox: inout Outbox, _ effects: inout [ControlEffect]) {
        guard var task = drain else { return }
        let left = census(now).engaged
        if left != task.left { task.progressAt = now.instant }
        task.left = left
        task.blocked = ""
        if left > 0, now.instant.milliseconds(since: task.progressAt) >= 10_000 {
            let unreachable = peers.indices.filter {
                $0 > 1 && !peers[$0].isGone && peers[$0].record?.isTombstone == false && !isReachable($0)
            }
            task.blocked =
                unreachable.isEmpty
                ? "no slice moved for 10 s"
                : "cannot reach " + unreachable.map { peers[$0].name }.joined(separator: ", ")
        }
        drain = task
        guard left == 0 || configuration.ablations.contains(.drainHandsOver) else { return }
        drain?.state = .done
        effects.append(.log(.drained))
        refreshReport()
        ping(only: nil, now.instant, &outbox)
        close(isLeaving: true, now, &effects)
    }

    // MARK: - Stop

    /// Begins an orderly end: slices go to in-sync copies, nothing is copied.
    package mutating func stop(now: Now, outbox: inout Outbox, effects: inout [ControlEffect]) {
        guard case .running = phase else { return }
        phase = .stopping(until: now.instant.advanced(byMilliseconds: configuration.stopMilliseconds))
        effects.append(.log(.handingOver(slices: census(now).held)))
        for index in peers.indices where index > 1 && peers[index].isControlConnected && !peers[index].isGone {
            outbox.send(.stopping, to: PeerNumber(UInt32(index)))
        }
        advanceLifecycle(now, &outbox, &effects)
    }

    private mutating func close(isLeaving: Bool, _ now: Now, _ effects: inout [ControlEffect]) {
        phase = .closing(
            isLeaving: isLeaving,
            until: now.instant.advanced(byMilliseconds: configuration.closeMilliseconds)
        )
        effects.append(.closeClients)
    }

    /// No client is connected any more.
    package mutating func clientsClosed(now: Now, outbox: inout Outbox, effects: inout [ControlEffect]) {
        guard case .closing(let isLeaving, _) = phase else { return }
        sayFarewell(leaving: isLeaving, now, &outbox, &effects)
    }

    private mutating func sayFarewell(
        leaving: Bool,
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) {
        // Writes that still wait for copies are answered before the node lets go.
        phase = .farewell(until: now.instant.advanced(byMilliseconds: 300))
        for index in peers.indices where index > 1 && peers[index].isControlConnected && !peers[index].isGone {
            outbox.send(.release, to: PeerNumber(UInt32(index)))
        }
        var words: [MembershipEffect] = []
        if leaving {
            membership.setLifecycle(.left, now: now.instant, effects: &words)
        } else {
            membership.announceDown(now: now.instant, effects: &words)
        }
        follow(words, now, &outbox, &effects)
        refreshLease(now, &effects)
    }

    /// Asks another node, or this one, for something. The answer comes in `orderResults` under the returned number.
    package mutating func order(
        _ order: NodeOrder,
        node name: String,
        now: Now,
        outbox: inout Outbox,
        effects: inout [ControlEffect]
    ) -> UInt64? {
        guard let index = member(called: name) else { return nil }
        orderCounter += 1
        if index == Int(Self.own.value) {
            orderResults.append((orderCounter, carryOut(order, now, &outbox, &effects)))
        } else if peers[index].isControlConnected {
            orders[orderCounter] = (
                PeerNumber(UInt32(index)), now.instant.advanced(byMilliseconds: 5000)
            )
            outbox.send(.order(id: orderCounter, order), to: PeerNumber(UInt32(index)))
        } else if peers[index].record?.liveness == .down {
            orderResults.append((orderCounter, "\(peers[index].name) is down: start it again, or forget it"))
        } else {
            orderResults.append((orderCounter, "\(peers[index].name) cannot be reached from here"))
        }
        return orderCounter
    }

    /// The present life of the member with that name, id or address; tombstones are no members.
    private func member(called name: String) -> Int? {
        peers.indices.first {
            $0 > 0 && !peers[$0].isGone && peers[$0].record?.isTombstone == false && matches(name, $0)
        }
    }

    private func matches(_ name: String, _ index: Int) -> Bool {
        guard let record = peers[index].record else { return false }
        return record.name == name || record.id.description == name || record.client.description == name
            || record.cluster.description == name || record.admin.description == name
    }

    // MARK: - Who is gone for good

    /// The operator's word that a member which is down will not return: it is no member any more, counts towards no
    /// majority, and what only it had is lost. All members hear of it. A process that still runs in that life stops
    /// when it hears of it; a new life joins like a newcomer.
    package mutating func forget(
        node name: String,
        now: Now,
        outbox: inout Outbox,
        effects: inout [ControlEffect]
    ) -> OrderOutcome {
        guard case .joined = membership.phase else {
            return .refused("the node that was asked is not part of a cluster: ask one that is")
        }
        guard let index = member(called: name), let record = peers[index].record else { return .unknownNode }
        if index == Int(Self.own.value) {
            return .refused("\(record.name) is the node that was asked, and lives: drain it to remove it")
        }
        var words: [MembershipEffect] = []
        switch membership.forget(record.id, now: now.instant, effects: &words) {
        case .unknown: return .unknownNode
        case .refusedLiving:
            return .refused(
                record.liveness == .suspect
                    ? "\(record.name) is suspect and may still live: wait until it is down or alive again"
                    : "\(record.name) is \(record.liveness): drain it, or end its process and wait until it is down"
            )
        case .forgotten:
            follow(words, now, &outbox, &effects)
            return .accepted
        }
    }

    /// The operator's word that the seeds which are silent will not return: this node forms a cluster with those that
    /// answer, if any. A second one, where a cluster lives that this node does not reach.
    package mutating func form(now: Now, outbox: inout Outbox, effects: inout [ControlEffect]) -> OrderOutcome {
        switch membership.phase {
        case .joined:
            return .refused("\(membership.ownRecord.name) is part of a cluster already: nothing is to be formed")
        case .ended: return .refused("the node is about to end")
        case .seeking: break
        }
        var words: [MembershipEffect] = []
        guard membership.formWithoutMajority(now: now.instant, effects: &words) else {
            return .refused(
                "a member of a living cluster answers: wait until \(membership.ownRecord.name) has joined it"
            )
        }
        follow(words, now, &outbox, &effects)
        return .accepted
    }

    /// The operator's word that who is gone may leave the ring: brakes are each node's own, so all are told.
    package mutating func releaseBrake(
        now: Now,
        outbox: inout Outbox,
        effects: inout [ControlEffect]
    ) -> BrakeRelease {
        var release = BrakeRelease(told: [membership.ownRecord.name])
        _ = carryOut(.releaseBrake, now, &outbox, &effects)
        for index in peers.indices where index > 1 && !peers[index].isGone {
            guard let record = peers[index].record, record.isLiving else { continue }
            if peers[index].isControlConnected {
                orderCounter += 1
                outbox.send(.order(id: orderCounter, .releaseBrake), to: PeerNumber(UInt32(index)))
                release.told.append(record.name)
            } else {
                release.unreachable.append(record.name)
            }
        }
        release.told.sort()
        release.unreachable.sort()
        return release
    }

    // MARK: - Status

    func storeStatistics() -> StoreStatistics {
        var statistics = StoreStatistics()
        shards.withEach { statistics.add($0.store.statistics) }
        return statistics
    }

    private func sentBytes() -> UInt64 {
        var bytes: UInt64 = 0
        shards.withEach { bytes += $0.counters.snapshotBytes }
        return bytes
    }

    func census(_ now: Now) -> ShardPlane.Census {
        var census = ShardPlane.Census()
        shards.withEach { $0.count(topology: topology, copiesWanted: topology.copies, into: &census) }
        return census
    }

    /// Renews what this node tells the others about itself.
    mutating func refreshReport() {
        var census = ShardPlane.Census()
        shards.withEach { $0.count(topology: topology, copiesWanted: topology.copies, into: &census) }
        let statistics = storeStatistics()
        var report = NodeReport()
        report.primaries = UInt32(census.held)
        report.copies = UInt32(census.copies)
        report.settled = UInt32(census.settled)
        report.moving = UInt32(census.moving)
        report.short = UInt32(census.short)
        report.items = UInt64(statistics.items)
        report.bytes = UInt64(statistics.bytes)
        report.sentBytes = sentBytes()
        if let drain {
            report.drainTotal = UInt32(drain.total)
            report.drainLeft = UInt32(drain.left)
            report.sentBytes -= min(report.sentBytes, drain.sentBytesBefore)
            report.blocked = drain.blocked
        }
        peers[Int(Self.own.value)].report = report
    }

    /// The cluster as this node knows it.
    package mutating func snapshot(now: Now) -> ClusterSnapshot {
        refreshReport()
        var members: [MemberView] = []
        var totals = (settled: 0, moving: 0, short: 0)
        var placeOf: [PeerNumber: Int] = [:]
        for (place, number) in ringNumbers.enumerated() { placeOf[number] = place }
        for index in peers.indices where index > 0 && !peers[index].isGone {
            guard let record = peers[index].record, !record.isTombstone else { continue }
            let report = peers[index].report
            let number = PeerNumber(UInt32(index))
            let isOwn = number == Self.own
            if isOwn || record.isLiving {
                totals.settled += Int(report.settled)
                totals.moving += Int(report.moving)
                totals.short += Int(report.short)
            }
            let place = placeOf[number]
            members.append(
                MemberView(
                    record: isOwn ? membership.ownRecord : record,
                    report: report,
                    number: number,
                    isOwn: isOwn,
                    wantedPrimaries: place.map { ring.primaries(of: $0) } ?? 0,
                    wantedCopies: place.map { ring.copies(of: $0) } ?? 0
                )
            )
        }
        members.sort { $0.record.name < $1.record.name }
        let unavailable = table.holders.count { holder in
            holder == .none || (holder != Self.own && isAway(Int(holder.value), now.instant))
        }
        var reasons: [String] = []
        if case .seeking(let seeking) = membership.phase {
            reasons.append(Self.text(of: seeking))
        } else {
            switch membership.ownRecord.lifecycle {
            case .joining: reasons.append("joining: learning slices")
            case .draining: reasons.append("draining")
            case .left: reasons.append("left")
            case .up: break
            }
            if leaseUntil <= now.instant { reasons.append("no serving lease: no majority of members answers") }
            if unavailable > 0 { reasons.append("\(unavailable) slices have no holder") }
        }
        if case .running = phase {} else { reasons.append("stopping") }
        return ClusterSnapshot(
            ringHash: ring.hash,
            ringSize: ring.members.count,
            settled: totals.settled,
            moving: totals.moving,
            short: totals.short,
            unavailable: unavailable,
            members: members,
            drains: finishedDrains + (drain.map { [$0] } ?? []),
            isSafe: isSafe,
            hasLease: leaseUntil > now.instant,
            phase: membership.phase,
            lifecycle: membership.ownRecord.lifecycle,
            isReady: reasons.isEmpty,
            notReadyBecause: reasons,
            outcomes: outcome,
            brake: brake.engagement,
            brakeLeftMilliseconds: brake.engagement?.until?.milliseconds(since: now.instant),
            membership: membership.statistics,
            streamedCount: membership.streamedCount,
            journal: journal,
            keyRing: keyRingView()
        )
    }

    /// Which seeds a node waits for, in words.
    static func text(of seeking: MembershipSeeking) -> String {
        var unresolved: [String] = []
        var silent: [String] = []
        var foreign: [String] = []
        for contact in seeking.contacts {
            switch contact.answer {
            case .unresolved: unresolved.append(contact.label)
            case .silent: silent.append(contact.label)
            case .foreign(let name): foreign.append("\(contact.label) belongs to the cluster \(name)")
            case .itself, .seeking, .joined: break
            }
        }
        // Who is not in the list can only join.
        var text =
            seeking.majority > 0
            ? "waiting for seeds: \(seeking.agreeing) of \(seeking.majority) needed agree"
            : "waiting for seeds: none is part of this cluster"
        for line in foreign { text += "; " + line }
        if !unresolved.isEmpty { text += "; no address for " + unresolved.joined(separator: ", ") }
        if !silent.isEmpty { text += "; no answer from " + silent.joined(separator: ", ") }
        return text
    }

    /// Whether clients may come: a settled member with a lease, in a cluster whose slices are held.
    package func mayOpen(now: Now) -> Bool {
        guard case .running = phase, case .joined = membership.phase, leaseUntil > now.instant,
            membership.ownRecord.lifecycle != .joining
        else { return false }
        return !table.holders.contains(.none)
    }
}
