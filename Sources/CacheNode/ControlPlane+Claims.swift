import ClusterCore
import HashRing
import Membership
import PeerProtocol
import Replication

// Becoming a slice's holder: after a cut over, after the holder fell silent, or where nobody is left.
//
// A claim is recorded by members one by one; with a majority it is confirmed. A member records nobody over a holder
// that it heard less than a lease ago, so a confirmed claim proves that the old holder's lease has ended.

/// Claims of this node that were made together and are not settled.
struct PendingClaim {
    /// One slice of it.
    struct Entry {
        var entry: SliceEpoch
        /// Who recorded it, one bit a place in `voters`.
        var votes: UInt64 = 0
        var isSettled = false
    }

    var claim: Claim
    /// The silent holder; nobody for other grounds.
    var holder: PeerNumber
    var voters: [PeerNumber]
    var entries: [Entry]
    /// Voters that have answered, one bit each.
    var answered: UInt64 = 0
    /// When each of the voters heard the old holder last, by this node's clock; zero for those that have not answered.
    var heard: [Instant]
    var sentAt: Instant
    var until: Instant

    var isSettled: Bool { entries.allSatisfy(\.isSettled) }

    /// When the old holder was heard last, as far as its lease can tell: of the majorities among those who recorded the
    /// entry, each of which bounds the lease by itself, the one that heard it least. Nil where they are too few.
    func heard(of entry: Entry, quorum: Quorum) -> Instant? {
        var times: [Instant] = []
        for (place, voter) in voters.enumerated()
        where entry.votes & (1 << UInt64(place)) != 0 && quorum.voters.contains(voter) {
            times.append(heard[place])
        }
        guard quorum.needed > 0, times.count >= quorum.needed else { return nil }
        return times.sorted()[quorum.needed - 1]
    }
}

/// A copy as one look found it, and how far it was.
struct Orphan: Hashable {
    var slice: Int
    var epoch: UInt32
    var stream: UInt64
    var applied: UInt64
}

extension ControlPlane {
    // MARK: - Claiming

    /// The most voters that a claim counts; a cluster has fewer.
    static var votersMax: Int { 64 }

    private mutating func propose(
        _ ground: Claim.Ground,
        holder: PeerNumber,
        _ entries: [SliceEpoch],
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) {
        claimCounter += 1
        outcome.claimsMade += 1
        let voters = Array(quorum(now.instant).voters.prefix(Self.votersMax))
        // This node is a member like the others: it may record its own claims, or know better.
        var claim = Claim(id: claimCounter, ground: ground, entries: entries)
        var reply = verdicts(on: claim, from: Self.own, now, &outbox)
        let isAsked = reply.verdicts.map { $0 != .candidate }
        if isAsked.contains(false) {
            claim.entries = zip(entries, isAsked).filter(\.1).map(\.0)
            reply.verdicts.removeAll { $0 == .candidate }
            guard !claim.entries.isEmpty else { return }
        }
        var pending = PendingClaim(
            claim: claim,
            holder: holder,
            voters: voters,
            entries: claim.entries.map { PendingClaim.Entry(entry: $0) },
            heard: Array(repeating: Instant(nanoseconds: 0), count: voters.count),
            sentAt: now.instant,
            until: now.instant.advanced(byMilliseconds: configuration.claimMilliseconds)
        )
        count(reply, from: Self.own, in: &pending, now.instant)
        for index in peers.indices where index > 1 && peers[index].isControlConnected && !peers[index].isGone {
            outbox.send(.claim(claim), to: PeerNumber(UInt32(index)))
        }
        claims.append(pending)
        settle(claims.count - 1, now, &outbox, &effects)
    }

    private func count(
        _ reply: ClaimReply,
        from peer: PeerNumber,
        in pending: inout PendingClaim,
        _ now: Instant
    ) {
        guard let place = pending.voters.firstIndex(of: peer), reply.verdicts.count == pending.entries.count else {
            return
        }
        let bit = UInt64(1) << UInt64(place)
        pending.answered |= bit
        let age = UInt64(reply.ageMilliseconds) * 1_000_000
        let heard = Instant(nanoseconds: now.nanoseconds > age ? now.nanoseconds - age : 0)
        pending.heard[place] = max(pending.heard[place], heard)
        for index in pending.entries.indices where reply.verdicts[index] == .accepted {
            pending.entries[index].votes |= bit
        }
    }

    mutating func receive(
        _ reply: ClaimReply,
        from peer: PeerNumber,
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) {
        guard let index = claims.firstIndex(where: { $0.claim.id == reply.id }),
            reply.verdicts.count == claims[index].entries.count
        else { return }
        count(reply, from: peer, in: &claims[index], now.instant)
        for (place, verdict) in reply.verdicts.enumerated() where !claims[index].entries[place].isSettled {
            let entry = claims[index].entries[place].entry
            switch verdict {
            case .accepted:
                continue
            case .candidate:
                // Another node has a copy that it can prove: it is the one to claim.
                fail(entry, of: claims[index].claim, &outbox)
                claims[index].entries[place].isSettled = true
            case .rejected(let epoch, let reference):
                // The old holder has let go: this node gives up on a later holder's own word alone.
                if case .handedOver = claims[index].claim.ground { continue }
                let holder = reference.map { number(for: $0) } ?? .none
                if epoch > entry.epoch || (epoch == entry.epoch && holder != Self.own) {
                    if case .held = claims[index].claim.ground {
                        claims[index].entries[place].isSettled = true
                        fail(entry, of: claims[index].claim, &outbox)
                        demote(
                            SliceEpoch(slice: entry.slice, epoch: epoch),
                            holder: holder,
                            isCertain: false,
                            now,
                            &outbox
                        )
                        continue
                    }
                    fail(entry, of: claims[index].claim, &outbox)
                    claims[index].entries[place].isSettled = true
                    learn(
                        SliceEpoch(slice: entry.slice, epoch: epoch),
                        holder: holder,
                        isCertain: false,
                        now,
                        &outbox,
                        &effects
                    )
                }
            }
        }
        settle(index, now, &outbox, &effects)
    }

    /// Acts on what a majority has recorded.
    private mutating func settle(
        _ index: Int,
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) {
        let pending = claims[index]
        let quorum = quorum(now.instant)
        let isComplete = isComplete(pending)
        // Whoever might have a copy must have said that it has none.
        if case .empty = pending.claim.ground, !isComplete { return }
        let context = context(now)
        var taken = 0
        var unproven = 0
        for place in pending.entries.indices where !pending.entries[place].isSettled {
            let votes = pending.entries[place].votes
            let isMet = quorum.isMet { voter in
                guard let bit = pending.voters.firstIndex(of: voter) else { return false }
                return votes & (1 << UInt64(bit)) != 0
            }
            guard isMet else { continue }
            let entry = pending.entries[place].entry
            let shardIndex = shards.index(of: entry.slice)
            if case .silent = pending.claim.ground {
                var isProven = false
                if let heard = pending.heard(of: pending.entries[place], quorum: quorum) {
                    shards.withShard(shardIndex) { shard in
                        shard.candidates(of: entry.slice) {
                            isProven = proves($0, holder: pending.holder, until: heard)
                        }
                    }
                }
                if !isProven {
                    // Who has not answered may have heard less of the holder.
                    guard isComplete || pending.until <= now.instant else { continue }
                    claims[index].entries[place].isSettled = true
                    fail(entry, of: pending.claim, &outbox)
                    if isComplete {
                        unproven += 1
                        leaveUnproven(entry.slice, of: pending.holder, &outbox)
                    }
                    continue
                }
            }
            claims[index].entries[place].isSettled = true
            switch pending.claim.ground {
            case .handedOver:
                shards.withShard(shardIndex) { $0.confirm(entry) }
            case .held:
                let shard = shards.lock(shardIndex)
                shard.pointee.resume(entry, context: context, outbox: &outbox)
                suspendedSince[entry.slice] = nil
                shards.unlock(shardIndex)
            case .silent:
                let shard = shards.lock(shardIndex)
                let isTaken = shard.pointee.takeOver(
                    entry,
                    from: pending.holder,
                    // Whoever is silent itself would hold up the first writes for nothing.
                    others: topology.wantedOwners(of: entry.slice).filter {
                        $0 != Self.own && $0 != .none && !isSilent(Int($0.value), now.instant)
                    },
                    context: context,
                    outbox: &outbox
                )
                shards.unlock(shardIndex)
                if isTaken {
                    taken += 1
                } else {
                    unproven += 1
                    fail(entry, of: pending.claim, &outbox)
                }
            case .empty:
                guard heldEpoch(entry.slice) == nil else { continue }
                let shard = shards.lock(shardIndex)
                shard.pointee.startEmpty(entry, context: context, outbox: &outbox)
                shards.unlock(shardIndex)
                taken += 1
            }
        }
        let name = peers[Int(pending.holder.value)].name
        if taken > 0 {
            outcome.takeovers += UInt64(taken)
            if case .empty = pending.claim.ground {
                effects.append(.log(.startedEmpty(slices: taken)))
            } else {
                effects.append(.log(.tookOver(name: name, slices: taken)))
            }
        }
        if unproven > 0 {
            outcome.unprovable += UInt64(unproven)
            effects.append(.log(.unprovable(name: name, slices: unproven)))
        }
    }

    /// Whether a copy missed nothing that its holder acknowledged: the holder had promised to wait for it beyond the
    /// end of its own lease, which began no later than `heard`.
    private func proves(_ state: Copy.State, holder: PeerNumber, until heard: Instant) -> Bool {
        let leaseEnd = heard.advanced(
            byMilliseconds: configuration.replication.servingLeaseMilliseconds
                * (1000 + configuration.replication.driftThousandths) / 1000
        )
        let promise = configuration.replication.inSyncLeaseMilliseconds
        switch state {
        case .inSync(let session, let since):
            let grant = peers[Int(holder.value)].grant
            let asked = grant?.session == session ? grant?.askedAt : nil
            let adopted = since.flatMap { $0 >= peers[Int(holder.value)].provesFrom ? $0 : nil }
            guard let from = [asked, adopted].compactMap({ $0 }).max() else { return false }
            return from.advanced(byMilliseconds: promise) >= leaseEnd
        case .released(let at):
            return at >= peers[Int(holder.value)].provesFrom && at.advanced(byMilliseconds: promise) >= leaseEnd
        case .learning, .learned:
            return false
        }
    }

    /// Whether what others heard of a silent holder could prove the copy. It is claimed until they have said so, or not.
    private func mayBeProven(_ state: Copy.State, holder: PeerNumber) -> Bool {
        proves(state, holder: holder, until: Instant(nanoseconds: 0))
    }

    /// Whether all have answered but those that are known to be down.
    private func isComplete(_ pending: PendingClaim) -> Bool {
        for (place, voter) in pending.voters.enumerated() where pending.answered & (1 << UInt64(place)) == 0 {
            guard let record = peers[Int(voter.value)].record else { continue }
            if record.liveness != .down, !peers[Int(voter.value)].isReleased { return false }
        }
        return true
    }

    /// All have said when they heard of the silent holder, and that proves no copy of the slice here: it is none any
    /// more, claims nothing, and keeps nobody from starting the slice empty. Its content stays as a base.
    private func leaveUnproven(_ slice: Int, of holder: PeerNumber, _ outbox: inout Outbox) {
        let index = shards.index(of: slice)
        let shard = shards.lock(index)
        shard.pointee.leaveCopy(slice, of: holder, outbox: &outbox)
        shards.unlock(index)
    }

    private mutating func fail(_ entry: SliceEpoch, of claim: Claim, _ outbox: inout Outbox) {
        outcome.claimsFailed += 1
        // Two claims can name one epoch, over a cut over and over a suspension: what one of them won stands.
        if shards.withShard(shards.index(of: entry.slice), { $0.serves(entry) }) { return }
        if case .handedOver = claim.ground {
            let index = shards.index(of: entry.slice)
            let shard = shards.lock(index)
            shard.pointee.abandonClaim(entry, outbox: &outbox)
            shards.unlock(index)
        }
        // Meanwhile another claim may have brought this node the slice in the same epoch.
        if let held = heldEpoch(entry.slice), held >= entry.epoch { return }
        table.withdraw(slice: entry.slice, epoch: entry.epoch, holder: Self.own)
        withdrawn.append(entry)
    }

    /// Tells all what was given up in this turn.
    mutating func sayWithdrawn(_ outbox: inout Outbox) {
        guard !withdrawn.isEmpty else { return }
        for index in peers.indices where index > 1 && peers[index].isControlConnected && !peers[index].isGone {
            // A slice may be named more than once, a frame names as many as there are.
            for start in stride(from: 0, to: withdrawn.count, by: Slice.count) {
                let part = withdrawn[start..<min(start + Slice.count, withdrawn.count)]
                outbox.send(.withdraw(Array(part)), to: PeerNumber(UInt32(index)))
            }
        }
        withdrawn = []
    }

    mutating func advanceClaims(_ now: Now, _ outbox: inout Outbox, _ effects: inout [ControlEffect]) {
        var index = 0
        while index < claims.count {
            settle(index, now, &outbox, &effects)
            if claims[index].isSettled {
                claims.remove(at: index)
                continue
            }
            guard claims[index].until <= now.instant else {
                index += 1
                continue
            }
            if case .handedOver = claims[index].claim.ground {
                // What was lost meanwhile is claimed no longer.
                for place in claims[index].entries.indices {
                    let entry = claims[index].entries[place].entry
                    let isOpen = shards.withShard(shards.index(of: entry.slice)) { $0.isClaiming(entry) }
                    if !isOpen { claims[index].entries[place].isSettled = true }
                }
                if claims[index].isSettled { continue }
            }
            if case .handedOver = claims[index].claim.ground {
                // The old holder has let go: nobody but this node can go on, so it keeps asking.
                claims[index].until = now.instant.advanced(byMilliseconds: configuration.claimMilliseconds)
                let claim = claims[index].claim
                for peer in peers.indices where peer > 1 && peers[peer].isControlConnected && !peers[peer].isGone {
                    outbox.send(.claim(claim), to: PeerNumber(UInt32(peer)))
                }
                index += 1
                continue
            }
            let open = claims[index].entries.filter { !$0.isSettled }.map(\.entry)
            let ground = claims[index].claim
            if case .held = ground.ground {
                // Whoever has not answered may still be the one who makes the majority.
                let isRefused = isComplete(claims[index])
                for entry in open {
                    suspendedSince[entry.slice] = isRefused ? suspendedSince[entry.slice] ?? now.instant : nil
                }
            }
            claims.remove(at: index)
            for entry in open { fail(entry, of: ground, &outbox) }
            if case .held = ground.ground { for entry in open { claimAgain(entry) } }
        }
    }

    // MARK: - Grounds

    /// A slice waits for this node to be recorded in that epoch, or a later one.
    mutating func claimAgain(_ entry: SliceEpoch) {
        suspended[entry.slice] = max(suspended[entry.slice] ?? 0, entry.epoch)
    }

    /// Claims again what was claimed over this node, until a majority agrees or somebody is known to hold it.
    mutating func reclaim(_ now: Now, _ outbox: inout Outbox, _ effects: inout [ControlEffect]) {
        guard !suspended.isEmpty, reclaimAt <= now.instant, leaseUntil > now.instant else { return }
        // Two nodes that claim against each other must not keep step.
        reclaimAt = now.instant.advanced(byMilliseconds: UInt64.random(in: 20...120, using: &random))
        var entries: [SliceEpoch] = []
        for slice in suspended.keys.sorted() {
            let entry = SliceEpoch(slice: slice, epoch: suspended[slice] ?? 0)
            guard shards.withShard(shards.index(of: entry.slice), { $0.isSuspended(entry) }) else {
                suspendedSince[entry.slice] = nil
                continue
            }
            if let since = suspendedSince[entry.slice],
                now.instant.milliseconds(since: since) >= configuration.suspendedMilliseconds
            {
                // Nobody holds the slice and no majority knows this holder any more: it starts empty somewhere.
                shards.withShard(shards.index(of: entry.slice)) { $0.abandon(entry.slice, outbox: &outbox) }
                suspendedSince[entry.slice] = nil
                continue
            }
            entries.append(entry)
        }
        suspended = [:]
        if !entries.isEmpty { propose(.held, holder: .none, entries, now, &outbox, &effects) }
    }

    mutating func claimHandedOver(
        _ entry: SliceEpoch,
        from: PeerNumber,
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) {
        propose(.handedOver, holder: from, [entry], now, &outbox, &effects)
    }

    /// Claims again what was handed over to somebody who has not claimed it: the last entry may be lost with its
    /// connection. Either a majority records the other first, or this node in a later epoch.
    mutating func takeBack(_ now: Now) {
        guard case .joined = membership.phase, leaseUntil > now.instant else { return }
        var overdue: [SliceEpoch] = []
        shards.withEach { shard in
            shard.released { entry, holder, since in
                let isOver = now.instant.milliseconds(since: since) >= configuration.releasedMilliseconds
                let recorded = table.holders[entry.slice]
                guard isOver || !isReachable(Int(holder.value)), table.epochs[entry.slice] < entry.epoch,
                    recorded == Self.own || recorded == .none
                else { return }
                overdue.append(entry)
            }
        }
        guard !overdue.isEmpty else { return }
        let isClaimed = Set(claims.flatMap { $0.entries.filter { !$0.isSettled }.map(\.entry.slice) })
        for entry in overdue where !isClaimed.contains(entry.slice) {
            // A member agrees only where it still records this node, itself included.
            _ = table.correct(slice: entry.slice, epoch: entry.epoch - 1, holder: Self.own)
            let again = shards.withShard(shards.index(of: entry.slice)) { $0.takeBack(entry) }
            if let again { claimAgain(again) }
        }
    }

    /// Whether a life of a member certainly serves nothing any more, as far as this node can tell by itself.
    func isSilent(_ index: Int, _ now: Instant) -> Bool {
        if peers[index].isGone || peers[index].isReleased { return true }
        let silence = witness.silenceMilliseconds(of: PeerNumber(UInt32(index)), now: now)
        return silence >= configuration.replication.leaseEndedMilliseconds
    }

    /// Claims slices of holders that fell silent, where this node has a copy that may prove itself.
    mutating func takeOverFromSilent(_ now: Now, _ outbox: inout Outbox, _ effects: inout [ControlEffect]) {
        // Without a lease there is no majority that would agree, and whoever recorded the claim would disturb the holder.
        guard case .joined = membership.phase, case .running = phase, leaseUntil > now.instant else { return }
        for index in peers.indices where index > 1 {
            let holder = PeerNumber(UInt32(index))
            guard isSilent(index, now.instant), !claims.contains(where: { $0.holder == holder }) else { continue }
            var entries: [SliceEpoch] = []
            shards.withEach { shard in
                shard.candidates(for: holder, isProven: { mayBeProven($0, holder: holder) }) { entries.append($0) }
            }
            entries = entries.compactMap { entry in
                let known = table.epochs[entry.slice]
                let recorded = table.holders[entry.slice]
                if known > entry.epoch, recorded != .none { return nil }
                return SliceEpoch(slice: entry.slice, epoch: max(known, entry.epoch) + 1)
            }
            guard !entries.isEmpty else { continue }
            propose(.silent(peers[index].reference), holder: holder, entries, now, &outbox, &effects)
        }
    }

    /// What this node serves, and what it does not, is known best here: claims that crossed each other may have left
    /// its own record saying something else, which no other node's word would mend.
    mutating func reconcileOwnRecord(_ now: Now) {
        guard nextReconciliation <= now.instant else { return }
        nextReconciliation = now.instant.advanced(byMilliseconds: configuration.emptyLookMilliseconds)
        let open = openClaims()
        let state = recordState
        // Without open claims, all that is compared below is what it was.
        if open.isEmpty, state == reconciledAt { return }
        defer { reconciledAt = open.isEmpty && recordState == state ? state : nil }
        var named: [Bool] = Array(repeating: false, count: Slice.count)
        var served: [SliceEpoch] = []
        shards.withEach { shard in
            shard.claims { named[$0] = true }
            shard.holdings { served.append($0) }
        }
        for entry in open { named[entry.slice] = true }
        for entry in served where table.holders[entry.slice] != Self.own {
            _ = table.correct(slice: entry.slice, epoch: entry.epoch, holder: Self.own)
        }
        for slice in 0..<Slice.count where table.holders[slice] == Self.own && !named[slice] {
            table.withdraw(slice: slice, epoch: table.epochs[slice], holder: Self.own)
        }
    }

    private var recordState: RecordState {
        var revisions: UInt64 = 0
        shards.withEach { revisions &+= $0.revision }
        return RecordState(shards: revisions, table: table.changes)
    }

    /// Gives up copies that no holder counts on, by all that is known here: they prove nothing and would keep a drain
    /// from its end. Twice in a row and without a word from the holder in between, so that news on its way is no ground.
    mutating func leaveOrphans(_ now: Now, _ outbox: inout Outbox) {
        guard nextOrphanLook <= now.instant, case .joined = membership.phase else { return }
        nextOrphanLook = now.instant.advanced(byMilliseconds: configuration.orphanLookMilliseconds)
        var found: [Orphan: Int] = [:]
        var left: [(slice: Int, holder: PeerNumber)] = []
        shards.withEach { shard in
            shard.copies { slice, copy in
                guard let patience = orphanPatience(slice, copy, now.instant) else { return }
                let orphan = Orphan(slice: slice, epoch: copy.epoch, stream: copy.stream, applied: copy.applied)
                let looks = orphans[orphan, default: 0] + 1
                found[orphan] = looks
                if looks >= patience { left.append((slice, copy.holder)) }
            }
        }
        for (slice, holder) in left {
            let index = shards.index(of: slice)
            let shard = shards.lock(index)
            shard.pointee.leaveCopy(slice, of: holder, outbox: &outbox)
            shards.unlock(index)
        }
        orphans = found
    }

    /// In how many looks a copy must be found to be left; nil for one that some holder may count on.
    private func orphanPatience(_ slice: Int, _ copy: Copy, _ now: Instant) -> Int? {
        let recorded = table.holders[slice]
        if recorded != .none, recorded != copy.holder, table.epochs[slice] > copy.epoch {
            // It missed a change of holder, and the later holder does not know of it.
            return recorded == Self.own || isSilent(Int(recorded.value), now) ? nil : 2
        }
        guard !isSilent(Int(copy.holder.value), now) else { return nil }
        // The holder lives and has lost the slice; the copy keeps others from starting it. That takes longer, for the
        // holder may still come back into the tables.
        let lost = 2 + Int(configuration.suspendedMilliseconds / configuration.orphanLookMilliseconds)
        if recorded == .none { return lost }
        switch copy.state {
        case .inSync(let session, _):
            // Recorded here is somebody of an earlier epoch still, whose life may be over.
            if recorded != copy.holder { return lost }
            // The holder gave up waiting for this node since, and the ring wants no copy here that it would send anew.
            return peers[Int(copy.holder.value)].grant.map { $0.session > session ? 2 : nil } ?? nil
        case .learning, .learned:
            // Nothing has come since the last look: the holder has ended it, and the word was lost.
            return 3
        case .released:
            // It was claimed, and the claimant would have adopted this copy, or sent it anew, were it to be one.
            return table.epochs[slice] >= copy.epoch ? 6 : nil
        }
    }

    /// Starts slices with nothing, where this node is the first owner that is there and nobody else has a copy.
    mutating func startEmpty(_ now: Now, _ outbox: inout Outbox, _ effects: inout [ControlEffect]) {
        guard case .joined = membership.phase, case .running = phase, membership.ownRecord.lifecycle == .up,
            leaseUntil > now.instant, nextEmptyLook <= now.instant,
            now.instant.milliseconds(since: membersChangedAt) >= configuration.settleMilliseconds
        else { return }
        let hasOpenClaim = claims.contains { if case .empty = $0.claim.ground { true } else { false } }
        guard !hasOpenClaim, !wanted.isEmpty else { return }
        nextEmptyLook = now.instant.advanced(byMilliseconds: configuration.emptyLookMilliseconds)
        let state = recordState
        // Every slice is held here, or by somebody who is not given up.
        if state == emptyAt, !peers.indices.contains(where: { isAbandoned($0, now.instant) }) { return }
        var held: [Bool] = Array(repeating: false, count: Slice.count)
        shards.withEach { $0.claims { held[$0] = true } }
        var entries: [SliceEpoch] = []
        let copies = max(ring.copies, 1)
        emptyAt = state
        for slice in 0..<Slice.count {
            let holder = table.holders[slice]
            guard !held[slice] else { continue }
            if holder == .none || holder == Self.own { emptyAt = nil }
            guard holder == .none || holder == Self.own || isAbandoned(Int(holder.value), now.instant) else { continue }
            let owners = wanted[(slice * copies)..<((slice + 1) * copies)]
            // A joiner starts nothing, and would not be up before somebody has given it this slice.
            let first = owners.first { owner in
                guard owner != .none, owner != Self.own else { return owner == Self.own }
                guard let record = peers[Int(owner.value)].record else { return false }
                return record.isLiving && record.lifecycle == .up
            }
            guard (first ?? standIn(for: slice)) == Self.own else { continue }
            entries.append(SliceEpoch(slice: slice, epoch: table.epochs[slice] + 1))
        }
        guard !entries.isEmpty else { return }
        propose(.empty, holder: .none, entries, now, &outbox, &effects)
    }

    /// Who starts a slice of which every owner is away: one of those who are there, the same for everybody, until the
    /// ring is made anew without the absent.
    private func standIn(for slice: Int) -> PeerNumber {
        let living = ringNumbers.filter { number in
            guard number != .none, let record = peers[Int(number.value)].record else { return false }
            return record.lifecycle == .up && (number == Self.own || record.isLiving)
        }
        return living.isEmpty ? .none : living[slice % living.count]
    }

    /// Whether a holder is gone for so long that whoever could prove a copy would have claimed.
    private func isAbandoned(_ index: Int, _ now: Instant) -> Bool {
        if let freeSince = peers[index].freeSince { return now.milliseconds(since: freeSince) >= 1000 }
        if let unknownSince = peers[index].unknownSince { return now.milliseconds(since: unknownSince) >= 5000 }
        guard let downSince = peers[index].downSince else { return false }
        return now.milliseconds(since: downSince) >= 1000
            && witness.silenceMilliseconds(of: PeerNumber(UInt32(index)), now: now)
                >= configuration.replication.leaseEndedMilliseconds
    }

    // MARK: - Giving up

    /// Epochs go on at the next multiple of this, where others' memory of them is lost: that is beyond all that they can
    /// have recorded in one life.
    private static var epochsSkipped: UInt32 { 1 << 16 }

    /// Ends a standstill that nobody else could end.
    ///
    /// Where more members have restarted at once than are left, those who are left cannot tell what the others had
    /// recorded, and the restarted are not settled before somebody serves. While one of them is away it may come back
    /// with what it knows. Once all are there, nothing can be learned any more: whatever was recorded without this node
    /// was recorded for a life that is over, or for one of those who are left and give up as well. So this node gives up
    /// all that it holds, and the slices start empty. Misses, never an old value.
    mutating func renounceWithoutHope(_ now: Now, _ outbox: inout Outbox, _ effects: inout [ControlEffect]) {
        guard isSafe, case .joined = membership.phase, case .running = phase,
            membership.ownRecord.lifecycle != .joining, leaseUntil <= now.instant
        else {
            hopelessSince = nil
            return
        }
        let quorum = quorum(now.instant)
        guard quorum.needed > quorum.voters.count else {
            hopelessSince = nil
            return
        }
        let absent = absentVoters()
        let others = absent + quorum.voters.filter { $0 != Self.own }.map { Int($0.value) }
        guard others.allSatisfy({ isReachable($0) && peers[$0].record?.liveness == .alive }) else {
            hopelessSince = nil
            return
        }
        let since = hopelessSince ?? (now.instant, table.epochs.max() ?? 0)
        hopelessSince = since
        guard now.instant.milliseconds(since: since.at) >= configuration.renounceMilliseconds else { return }
        hopelessSince = nil
        for claim in claims {
            for entry in claim.entries where !entry.isSettled { fail(entry.entry, of: claim.claim, &outbox) }
        }
        claims = []
        suspended = [:]
        suspendedSince = [:]
        renounced.formUnion(absent.map { peers[$0].reference })
        var slices = 0
        shards.withEach { slices += $0.renounce(outbox: &outbox) }
        // Nor is it known how far the epochs had come. Who is left and gave up earlier has skipped as many.
        let first = (since.epoch / Self.epochsSkipped + 1) * Self.epochsSkipped
        for slice in 0..<Slice.count where table.epochs[slice] < first {
            table.record(slice: slice, epoch: first, holder: .none, isVote: true)
        }
        outcome.renounced += 1
        effects.append(.log(.renounced(members: absent.map { peers[$0].name }.sorted(), slices: slices)))
    }

    // MARK: - Answering

    mutating func answer(
        _ claim: Claim,
        from peer: PeerNumber,
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) {
        outbox.send(.claimReply(verdicts(on: claim, from: peer, now, &outbox)), to: peer)
    }

    /// Records what may be recorded, and says what not.
    private mutating func verdicts(
        on claim: Claim,
        from peer: PeerNumber,
        _ now: Now,
        _ outbox: inout Outbox
    ) -> ClaimReply {
        var silent = PeerNumber.none
        var age: UInt64 = 0
        if case .silent(let reference) = claim.ground {
            silent = number(for: reference)
            age = silenceForClaims(Int(silent.value), now.instant)
        }
        var verdicts: [ClaimReply.Verdict] = []
        verdicts.reserveCapacity(claim.entries.count)
        for entry in claim.entries {
            verdicts.append(verdict(on: entry, claim.ground, silent: silent, from: peer, now, &outbox))
        }
        return ClaimReply(id: claim.id, ageMilliseconds: UInt32(clamping: age), verdicts: verdicts)
    }

    private func silenceForClaims(_ index: Int, _ now: Instant) -> UInt64 {
        witness.silenceMilliseconds(of: PeerNumber(UInt32(index)), now: now)
    }

    private mutating func verdict(
        on entry: SliceEpoch,
        _ ground: Claim.Ground,
        silent: PeerNumber,
        from peer: PeerNumber,
        _ now: Now,
        _ outbox: inout Outbox
    ) -> ClaimReply.Verdict {
        let known = table.epochs[entry.slice]
        let recorded = table.holders[entry.slice]
        let reference: MemberReference? = recorded == .none ? nil : peers[Int(recorded.value)].reference
        if entry.epoch == known, recorded == peer {
            // Hearsay may have recorded it, which asks nobody whether the old holder is silent.
            if silent != .none, silent != Self.own, silent != peer, !peers[Int(silent.value)].isGone {
                guard isSilent(Int(silent.value), now.instant) else {
                    return .rejected(epoch: known, holder: reference)
                }
                witness.fence(silent)
            }
            return .accepted
        }
        guard entry.epoch > known || (entry.epoch == known && recorded == .none) else {
            return .rejected(epoch: known, holder: reference)
        }
        if case .handedOver = ground {
            // The old holder itself has let go.
        } else if case .held = ground {
            // Only who is recorded here goes on: over anybody else's record it might have missed writes.
            guard recorded == peer else { return .rejected(epoch: known, holder: reference) }
        } else {
            // Nobody is replaced whom this member heard lately, neither the holder that is named nor the one known.
            for holder in [silent, recorded] where holder != .none && holder != peer {
                if holder == Self.own {
                    guard leaseUntil > now.instant, let held = heldEpoch(entry.slice) else { continue }
                    return .rejected(epoch: held, holder: peers[Int(Self.own.value)].reference)
                }
                guard isSilent(Int(holder.value), now.instant) else {
                    return .rejected(epoch: known, holder: reference)
                }
            }
            if case .empty = ground {
                // Who serves the slice, or is about to, knows better than any record.
                if peer != Self.own, heldEpoch(entry.slice) != nil { return .candidate }
                // A copy that would never be claimed (see `takeOverFromSilent`) must not keep the slice without a holder.
                let epoch = recorded == .none ? 0 : known
                let isCandidate = shards.withShard(shards.index(of: entry.slice)) { shard in
                    shard.isCandidate(entry.slice, from: epoch) { holder, state in
                        // It may be taken back.
                        if case .released = state { return true }
                        // Who claims lost the slice itself, and says so: nobody would claim that copy.
                        if holder == peer { return false }
                        if isSilent(Int(holder.value), now.instant) { return mayBeProven(state, holder: holder) }
                        let silence = witness.silenceMilliseconds(of: holder, now: now.instant) * 1_000_000
                        let heard = now.instant.nanoseconds - min(now.instant.nanoseconds, silence)
                        return proves(state, holder: holder, until: Instant(nanoseconds: heard))
                    }
                }
                if isCandidate { return .candidate }
            }
            for holder in [silent, recorded] where holder != .none && holder != Self.own && holder != peer {
                if !peers[Int(holder.value)].isGone { witness.fence(holder) }
            }
        }
        table.record(slice: entry.slice, epoch: entry.epoch, holder: peer, isVote: true)
        if peer != Self.own { demote(entry, holder: peer, isCertain: false, now, &outbox) }
        return .accepted
    }
}
