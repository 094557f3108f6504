import ClusterCore
import Membership
import PeerProtocol
package import Replication

// Pings and what hangs on them: this node's serving lease, the promises between holders and copies, and what every
// member knows of the others' silence.

extension ControlPlane {
    mutating func ping(only peer: PeerNumber?, _ now: Instant, _ outbox: inout Outbox) {
        let number = lease.ping(now: now)
        var holdings: UInt64 = 0
        shards.withEach { $0.holdings { holdings &+= HolderTable.digest(slice: $0.slice, epoch: $0.epoch) } }
        let report = peers[Int(Self.own.value)].report
        for index in peers.indices where index > 1 && peers[index].isControlConnected && !peers[index].isGone {
            let target = PeerNumber(UInt32(index))
            guard peer == nil || peer == target else { continue }
            outbox.send(.leasePing(number: number, holdings: holdings, report: report), to: target)
        }
    }

    mutating func receivePing(
        _ number: UInt64,
        _ holdings: UInt64,
        _ report: NodeReport,
        from peer: PeerNumber,
        _ now: Now,
        _ outbox: inout Outbox
    ) {
        let index = Int(peer.value)
        witness.hear(peer, now: now.instant)
        peers[index].report = report
        let session = isReachable(index) ? peers[index].promise.grant(now: now.instant) : 0
        outbox.send(.leasePong(number: number, fence: witness.fence(of: peer), session: session), to: peer)
        if let recalled = peers[index].promise.recalledSession {
            outbox.send(.promiseRecall(session: recalled), to: peer)
        }
        // Twice different: not merely news on its way.
        if table.digest(of: peer) == holdings {
            peers[index].digestDifferences = 0
        } else {
            peers[index].digestDifferences += 1
            if peers[index].digestDifferences >= 2, peers[index].nextHoldingsPull <= now.instant {
                peers[index].nextHoldingsPull = now.instant.advanced(byMilliseconds: 1000)
                outbox.send(.holdingsPull, to: peer)
            }
        }
    }

    mutating func receivePong(
        _ number: UInt64,
        _ fence: UInt64,
        _ session: UInt64,
        from peer: PeerNumber,
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) {
        let index = Int(peer.value)
        if fence != 0 || peers[index].mustReadTable {
            // Slices of this node were given to others meanwhile: it must know which before the answer counts.
            peers[index].mustReadTable = true
            pullTable(from: peer, now.instant, &outbox)
            return
        }
        guard let askedAt = lease.pong(from: peer, number: number) else { return }
        if session != 0 {
            peers[index].grant = (session, askedAt)
            // Given after the holder went on without this node's copies: what is handed over from here on counts again.
            if peers[index].provesFrom == .distantFuture { peers[index].provesFrom = now.instant }
        }
        refreshLease(now, &effects)
    }

    mutating func pullTable(from peer: PeerNumber, _ now: Instant, _ outbox: inout Outbox) {
        let index = Int(peer.value)
        guard peers[index].isControlConnected, peers[index].nextTablePull <= now else { return }
        peers[index].nextTablePull = now.advanced(byMilliseconds: 100)
        outbox.send(.tablePull, to: peer)
    }

    mutating func refreshLease(_ now: Now, _ effects: inout [ControlEffect]) {
        let wasValid = leaseUntil > now.instant
        var until = Instant(nanoseconds: 0)
        if case .joined = membership.phase {
            switch phase {
            case .running, .stopping, .closing: until = lease.validUntil(quorum: quorum(now.instant))
            case .farewell, .finished: break
            }
        }
        guard until != leaseUntil else { return }
        // A lease that ended and comes back is told apart from one that was prolonged.
        let isValid = until > now.instant
        leaseUntil = until
        effects.append(.lease(until: until))
        if isValid, !wasValid { effects.append(.log(.leaseGained)) }
        if !isValid, wasValid {
            outcome.leasesLost += 1
            effects.append(.log(.leaseLost))
        }
    }

    // MARK: - Promises to copies

    /// A member to which no promises are given at the moment, though copies there still count.
    package var excludedSoon: PeerNumber? {
        peers.indices.first { $0 > 1 && peers[$0].promise.isExcluding }.map { PeerNumber(UInt32($0)) }
    }

    /// Drops peers whose last promise has ended from every in-sync set.
    mutating func exclude(_ now: Now, _ outbox: inout Outbox, _ effects: inout [ControlEffect]) {
        for index in peers.indices where index > 1 && peers[index].promise.isExcluding {
            let peer = PeerNumber(UInt32(index))
            tellShards(of: index)
            var isRequired = false
            shards.withEach { isRequired = isRequired || $0.requires(peer) }
            let isCertain = peers[index].isGone || peers[index].isReleased || !isRequired
            guard peers[index].promise.exclude(now: now.instant, isCertain: isCertain) else { continue }
            let context = context(now)
            shards.withEach { $0.dropStreams(to: peer, context: context, outbox: &outbox) }
            if isRequired {
                outcome.exclusions += 1
                effects.append(.log(.excluded(name: peers[index].name)))
            }
            if isReachable(index) { peers[index].promise.reachable() }
            tellShards(of: index)
        }
    }

    // MARK: - Tables

    func sendTable(to peer: PeerNumber, _ outbox: inout Outbox) {
        var members: [MemberReference] = []
        var places: [PeerNumber: UInt16] = [:]
        var holders: [UInt16] = []
        holders.reserveCapacity(Slice.count)
        for holder in table.holders {
            if holder == .none {
                holders.append(0)
            } else if let place = places[holder] {
                holders.append(place)
            } else {
                members.append(peers[Int(holder.value)].reference)
                let place = UInt16(members.count)
                places[holder] = place
                holders.append(place)
            }
        }
        outbox.send(.table(members: members, epochs: table.epochs, holders: holders), to: peer)
    }

    mutating func receiveTable(
        _ members: [MemberReference],
        _ epochs: [UInt32],
        _ holders: [UInt16],
        from peer: PeerNumber,
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) {
        let known = members.map { number(for: $0) }
        // An epoch without a holder is a claim that was given up: it tells nothing.
        for slice in 0..<Slice.count where epochs[slice] > 0 && holders[slice] != 0 {
            let holder = known[Int(holders[slice]) - 1]
            learn(
                SliceEpoch(slice: slice, epoch: epochs[slice]),
                holder: holder,
                isCertain: false,
                now,
                &outbox,
                &effects
            )
        }
        peers[Int(peer.value)].mustReadTable = false
        tableSources.insert(peer)
    }

    /// Slices that this node claims and does not serve so far, or has let go of and may take back.
    func openClaims() -> [SliceEpoch] {
        var open = suspended
        shards.withEach { $0.released { entry, _, _ in open[entry.slice] = entry.epoch } }
        for claim in claims {
            for entry in claim.entries where !entry.isSettled { open[entry.entry.slice] = entry.entry.epoch }
        }
        return open.keys.sorted().map { SliceEpoch(slice: $0, epoch: open[$0] ?? 0) }
    }

    /// A peer's own word on what it holds: all of it.
    mutating func receiveHoldings(
        _ entries: [SliceEpoch],
        _ claimed: [SliceEpoch],
        from peer: PeerNumber,
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) {
        var named: [Bool] = Array(repeating: false, count: Slice.count)
        for entry in entries {
            named[entry.slice] = true
            learn(entry, holder: peer, isCertain: true, now, &outbox, &effects)
        }
        for entry in claimed { named[entry.slice] = true }
        for slice in 0..<Slice.count where table.holders[slice] == peer && !named[slice] {
            table.clear(slice: slice)
        }
    }

    /// Somebody is said to hold a slice. `isCertain`: by itself.
    mutating func learn(
        _ entry: SliceEpoch,
        holder: PeerNumber,
        isCertain: Bool,
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) {
        if holder != .none, holder != Self.own, isCertain, entry.epoch == table.epochs[entry.slice],
            table.holders[entry.slice] == Self.own, heldEpoch(entry.slice) == entry.epoch
        {
            // Both sides of a split came to the same epoch; the greater id goes on. Who only claims gives way: a majority
            // has recorded the other.
            let isServed = shards.withShard(shards.index(of: entry.slice)) { $0.serves(entry) }
            guard !isServed || peers[Int(holder.value)].reference > peers[Int(Self.own.value)].reference else { return }
        }
        if !isCertain, holder != Self.own, table.holders[entry.slice] == Self.own, isSafe,
            let held = heldEpoch(entry.slice), held <= entry.epoch
        {
            // A claim, which may have been confirmed, or may have failed: the majority decides.
            demote(entry, holder: holder, isCertain: false, now, &outbox)
            return
        }
        let recorded = table.holders[entry.slice]
        if !isCertain, isSafe, recorded != .none, recorded != Self.own, recorded != holder,
            table.isVouchedFor(entry.slice), !isSilent(Int(recorded.value), now.instant)
        {
            // Hearsay of a claim, which may have failed. Where it replaced a holder that this member agreed to and
            // heard lately, the claimant would find itself recorded here at its next try, and nobody would ask
            // whether that holder has fallen silent. Who was confirmed will say so itself.
            return
        }
        let hasChanged =
            isCertain
            ? table.correct(slice: entry.slice, epoch: entry.epoch, holder: holder)
            : table.record(slice: entry.slice, epoch: entry.epoch, holder: holder, isVote: false)
        guard hasChanged, holder != Self.own else { return }
        demote(entry, holder: holder, isCertain: isCertain, now, &outbox)
    }

    func heldEpoch(_ slice: Int) -> UInt32? {
        shards.withShard(shards.index(of: slice)) { $0.heldEpoch(slice) }
    }

    /// Another node holds the slice in that epoch, or claims it: this one does not serve it, if it did.
    mutating func demote(
        _ entry: SliceEpoch,
        holder: PeerNumber,
        isCertain: Bool,
        _ now: Now,
        _ outbox: inout Outbox
    ) {
        let index = shards.index(of: entry.slice)
        let shard = shards.lock(index)
        if !isCertain, isSafe, shard.pointee.mayBeSuspended(entry.slice) {
            if let again = shard.pointee.suspend(entry) {
                claimAgain(again)
            }
        } else if let held = shard.pointee.heldEpoch(entry.slice), held <= entry.epoch {
            let target = isSafe || holder == .none ? nil : holder
            shard.pointee.demote(entry, mergingTo: target, outbox: &outbox)
            suspendedSince[entry.slice] = nil
        }
        shards.unlock(index)
    }
}
