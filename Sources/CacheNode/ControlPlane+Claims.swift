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
    /// Since when the old holder has been silent at the earliest, by this node's clock: the latest that any of those
    /// who recorded the claim heard of it.
    var heardUntil: Instant
    var sentAt: Instant
    var until: Instant

    var isSettled: Bool { entries.allSatisfy(\.isSettled) }
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
        let claim = Claim(id: claimCounter, ground: ground, entries: entries)
        let voters = Array(quorum(now.instant).voters.prefix(Self.votersMax))
        var pending = PendingClaim(
            claim: claim,
            holder: holder,
            voters: voters,
            entries: entries.map { PendingClaim.Entry(entry: $0) },
            heardUntil: Instant(nanoseconds: 0),
            sentAt: now.instant,
            until: now.instant.advanced(byMilliseconds: configuration.claimMilliseconds)
        )
        // This node is a member like the others: it may record its own claims, or know better.
        let reply = verdicts(on: claim, from: Self.own, now, &outbox)
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
        pending.heardUntil = max(pending.heardUntil, heard)
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
        if case .empty = pending.claim.ground {
            // Whoever might have a copy must have said that it has none: all but those that are known to be down.
            for (place, voter) in pending.voters.enumerated() where pending.answered & (1 << UInt64(place)) == 0 {
                guard let record = peers[Int(voter.value)].record else { continue }
                if record.liveness != .down, !peers[Int(voter.value)].isReleased { return }
            }
        }
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
            claims[index].entries[place].isSettled = true
            let entry = pending.entries[place].entry
            let shardIndex = shards.index(of: entry.slice)
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
                var isProven = false
                shard.pointee.candidates(of: entry.slice) { state in
                    isProven = proves(state, holder: pending.holder, until: pending.heardUntil)
                }
                if isProven {
                    isProven = shard.pointee.takeOver(
                        entry,
                        from: pending.holder,
                        // Whoever is silent itself would hold up the first writes for nothing.
                        others: topology.wantedOwners(of: entry.slice).filter {
                            $0 != Self.own && $0 != .none && !isSilent(Int($0.value), now.instant)
                        },
                        context: context,
                        outbox: &outbox
                    )
                }
                shards.unlock(shardIndex)
                if isProven {
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
            guard let from = [asked, since].compactMap({ $0 }).max() else { return false }
            return from.advanced(byMilliseconds: promise) >= leaseEnd
        case .released(let at):
            return at.advanced(byMilliseconds: promise) >= leaseEnd
        case .learning, .learned:
            return false
        }
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
            outbox.send(.withdraw(withdrawn), to: PeerNumber(UInt32(index)))
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
            claims.remove(at: index)
            for entry in open { fail(entry, of: ground, &outbox) }
            if case .held = ground.ground { suspended += open }
        }
    }

    // MARK: - Grounds

    /// Claims again what was claimed over this node, until a majority agrees or somebody is known to hold it.
    mutating func reclaim(_ now: Now, _ outbox: inout Outbox, _ effects: inout [ControlEffect]) {
        guard !suspended.isEmpty, reclaimAt <= now.instant, leaseUntil > now.instant else { return }
        // Two nodes that claim against each other must not keep step.
        reclaimAt = now.instant.advanced(byMilliseconds: UInt64.random(in: 20...120, using: &random))
        var entries: [SliceEpoch] = []
        var named: [Bool] = Array(repeating: false, count: Slice.count)
        for entry in suspended where !named[entry.slice] {
            guard shards.withShard(shards.index(of: entry.slice), { $0.isSuspended(entry) }) else {
                suspendedSince[entry.slice] = nil
                continue
            }
            named[entry.slice] = true
            let since = suspendedSince[entry.slice] ?? now.instant
            suspendedSince[entry.slice] = since
            if now.instant.milliseconds(since: since) >= configuration.suspendedMilliseconds {
                // Nobody holds the slice and no majority knows this holder any more: it starts empty somewhere.
                shards.withShard(shards.index(of: entry.slice)) { $0.abandon(entry.slice, outbox: &outbox) }
                suspendedSince[entry.slice] = nil
                continue
            }
            entries.append(entry)
        }
        suspended = []
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
            let grant = peers[index].grant
            shards.withEach { shard in
                shard.candidates(
                    for: holder,
                    isProven: { state in
                        switch state {
                        case .inSync(let session, let since): grant?.session == session || since != nil
                        case .released: true
                        case .learning, .learned: false
                        }
                    }
                ) { entries.append($0) }
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

    /// A copy that missed a change of holder hears nothing any more: the later holder does not know of it. It proves
    /// nothing either, and would keep a drain from its end. Twice in a row, so that news on its way is no ground.
    mutating func leaveOrphans(_ now: Now) {
        guard nextOrphanLook <= now.instant, case .joined = membership.phase else { return }
        nextOrphanLook = now.instant.advanced(byMilliseconds: configuration.orphanLookMilliseconds)
        var found: Set<SliceEpoch> = []
        shards.withEach { shard in
            shard.copies { entry in
                let holder = table.holders[entry.slice]
                guard table.epochs[entry.slice] > entry.epoch, holder != .none, holder != Self.own,
                    !isSilent(Int(holder.value), now.instant)
                else { return }
                found.insert(entry)
            }
        }
        for entry in found where orphans.contains(entry) {
            shards.withShard(shards.index(of: entry.slice)) { $0.leaveCopy(entry) }
        }
        orphans = found
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
            let first = owners.first { owner in
                owner != .none && (owner == Self.own || peers[Int(owner.value)].record?.isLiving == true)
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
        if entry.epoch == known, recorded == peer { return .accepted }
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
                let isCandidate = shards.withShard(shards.index(of: entry.slice)) { shard in
                    shard.isCandidate(entry.slice) { holder, state in
                        let silence = witness.silenceMilliseconds(of: holder, now: now.instant)
                        let heard = Instant(
                            nanoseconds: now.instant.nanoseconds
                                - min(now.instant.nanoseconds, silence * 1_000_000)
                        )
                        return proves(state, holder: holder, until: heard)
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
