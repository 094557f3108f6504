import ClusterCore
import HashRing
import Membership
import PeerProtocol
import Replication

// Who is there, who should own what, and what of it the workers are told.

extension ControlPlane {
    /// The member list changed: numbers, voters and ring follow.
    mutating func refreshMembers(_ now: Now, _ outbox: inout Outbox, _ effects: inout [ControlEffect]) {
        var living: Set<PeerNumber> = []
        for record in membership.members {
            let reference = MemberReference(id: record.id, generation: record.generation)
            let number = number(for: reference)
            living.insert(number)
            let index = Int(number.value)
            guard !peers[index].isGone else { continue }
            peers[index].record = record
            peers[index].unknownSince = nil
            if record.liveness == .down {
                if peers[index].downSince == nil { peers[index].downSince = now.instant }
            } else {
                peers[index].downSince = nil
            }
        }
        for index in peers.indices where index > 1 && peers[index].record != nil && !peers[index].isGone {
            guard !living.contains(PeerNumber(UInt32(index))) else { continue }
            retire(index, now, &outbox)
        }
        // A later life of a node ends the earlier ones, known by name only though they may be.
        for index in peers.indices where index > 1 && !peers[index].isGone {
            let reference = peers[index].reference
            let isOutdated = membership.members.contains {
                $0.id == reference.id && $0.generation > reference.generation
            }
            if isOutdated { retire(index, now, &outbox) }
        }
        let upCount = membership.members.count { $0.lifecycle == .up && $0.isLiving }
        // Said of itself by a settled member only: it tells one that comes back, whose vote is missed, from a newcomer.
        if upCount >= 3, membership.ownRecord.lifecycle == .up, !membership.ownRecord.sawThree {
            var words: [MembershipEffect] = []
            membership.setSawThree(now: now.instant, effects: &words)
            follow(words.filter { $0 != .changed }, now, &outbox, &effects)
        }
        membersChangedAt = now.instant
        for index in peers.indices where index > 1 { tellShards(of: index) }
        refreshRing(now, &effects)
        refreshLease(now, &effects)
        isTopologyDirty = true
        effects.append(
            .remember(
                sawThree: membership.ownRecord.sawThree,
                peers: membership.members.filter { $0.id != membership.ownRecord.id }.map(\.cluster)
            )
        )
    }

    /// The number of a life of a member, known or new.
    mutating func number(for reference: MemberReference) -> PeerNumber {
        if let number = numbers[reference] { return number }
        let number = PeerNumber(UInt32(peers.count))
        numbers[reference] = number
        peers.append(
            Peer(
                reference: reference,
                record: nil,
                promise: SuccessorLease(
                    promiseEndedMilliseconds: configuration.replication.promiseEndedMilliseconds
                )
            )
        )
        return number
    }

    /// Lives that are known from tables alone: those of members that came back since are over, and the others age.
    mutating func retireUnknown(_ now: Now, _ outbox: inout Outbox) {
        for index in peers.indices where index > 1 && peers[index].record == nil && !peers[index].isGone {
            guard peers[index].unknownSince == nil else { continue }
            peers[index].unknownSince = now.instant
            let reference = peers[index].reference
            let isOutdated = membership.members.contains {
                $0.id == reference.id && $0.generation > reference.generation
            }
            if isOutdated { retire(index, now, &outbox) }
        }
    }

    /// That life of the member is over.
    private mutating func retire(_ index: Int, _ now: Now, _ outbox: inout Outbox) {
        noteEndOfDrain(of: index, now)
        peers[index].isGone = true
        let reference = peers[index].reference
        renounced.remove(reference)
        peers[index].isVoteReturned = membership.tombstones.contains {
            $0.id == reference.id && $0.generation == reference.generation
        }
        peers[index].isControlConnected = false
        peers[index].dataLanes = 0
        peers[index].freeSince = peers[index].freeSince ?? now.instant
        let peer = PeerNumber(UInt32(index))
        lease.forget(peer)
        witness.unfence(peer)
        let context = context(now)
        shards.withEach { $0.forgetPeer(peer, context: context, outbox: &outbox) }
        tableSources.remove(peer)
    }

    /// Whether everything can be sent to the peer.
    func isReachable(_ index: Int) -> Bool {
        let lanes = configuration.workers >= 64 ? UInt64.max : (UInt64(1) << UInt64(configuration.workers)) - 1
        return peers[index].isControlConnected && peers[index].dataLanes & lanes == lanes
            && !peers[index].isGone && !peers[index].isReleased
    }

    func tellShards(of index: Int) {
        guard index > 1, !peers[index].isGone, peers[index].record != nil else { return }
        let peer = peers[index]
        let canLearn =
            isReachable(index) && peer.promise.isGranting && !peer.isStopping && peer.record?.liveness != .down
        shards.withEach {
            $0.setPeer(
                PeerNumber(UInt32(index)),
                reference: peer.reference,
                session: peer.promise.session,
                isReachable: canLearn
            )
        }
    }

    // MARK: - Votes

    /// Whether the side without a majority stops.
    var isSafe: Bool {
        switch configuration.replication.partition {
        case .safe: true
        case .available: false
        case .auto: membership.sawThree
        }
    }

    /// Who votes, and how many are needed.
    ///
    /// Settled members vote, whether they are up or down. One that has been settled and comes back has forgotten what it
    /// recorded and has no vote before it has learned; until then those who are left must be so many that every
    /// majority of all of them, those who forgot included, has a member among them: of n, n less a majority and one.
    /// `available` goes on with those who are heard.
    func quorum(_ now: Instant) -> Quorum {
        var voters: [PeerNumber] = []
        let absent = absentVoters().count
        for index in peers.indices where index > 0 && !peers[index].isGone {
            guard let record = peers[index].record, !record.isTombstone else { continue }
            let number = PeerNumber(UInt32(index))
            switch record.lifecycle {
            case .up, .draining: voters.append(number)
            case .joining, .left: break
            }
        }
        if isSafe {
            let needed = max(voters.count / 2 + 1, (voters.count + absent + 1) / 2)
            return Quorum(voters: voters, needed: needed)
        }
        let patience = configuration.replication.promiseEndedMilliseconds
        voters.removeAll {
            $0 != Self.own
                && (peers[Int($0.value)].isReleased || witness.silenceMilliseconds(of: $0, now: now) >= patience)
        }
        return Quorum(voters: voters, needed: voters.count / 2 + 1)
    }

    /// The places of members that came back and have no vote so far.
    func absentVoters() -> [Int] {
        peers.indices.filter { index in
            guard index > 1, !peers[index].isGone, let record = peers[index].record, !record.isTombstone,
                record.lifecycle == .joining, record.sawThree, !renounced.contains(peers[index].reference)
            else { return false }
            return !peers.contains { $0.isVoteReturned && $0.reference.id == record.id }
        }
    }

    // MARK: - Ring

    mutating func refreshRing(_ now: Now, _ effects: inout [ControlEffect]) {
        advanceBrake(now, &effects)
        var fresh: [RingMember] = []
        var freshNumbers: [PeerNumber] = []
        for record in ringRecords(isBraked: brake.engagement != nil, now) {
            guard let number = numbers[MemberReference(id: record.id, generation: record.generation)],
                !peers[Int(number.value)].isGone
            else { continue }
            fresh.append(RingMember(id: record.id, weight: record.weight, zone: record.zone))
            freshNumbers.append(number)
        }
        if configuration.ablations.contains(.ringByID) { freshNumbers.sort { $0.value < $1.value } }
        defer { outcome.ringChangesCoalesced = ringPace.coalesced }
        if fresh == ring.members {
            ringPace.settle()
            // A restarted member is the same in the ring, under another number.
            if freshNumbers != ringNumbers { adoptRing(ring, freshNumbers, now, &effects) }
            return
        }
        let (old, new) = (Set(ring.members), Set(fresh))
        let differences = max(new.subtracting(old).count, old.subtracting(new).count)
        guard ringPace.isDue(fresh, differences: differences, now: now.instant) else { return }
        outcome.ringChanges += 1
        adoptRing(
            Ring(members: fresh, replicas: configuration.replication.replicas),
            freshNumbers,
            now,
            &effects
        )
        effects.append(.log(.ringChanged(hash: ring.hash, members: fresh.count)))
    }

    /// The records of those that the ring is to be made of, by id.
    private func ringRecords(isBraked: Bool, _ now: Now) -> [MemberRecord] {
        let records = membership.ringMembers(now: now.instant) { id in isBraked && isInRing(id) }
        let own = membership.ownRecord.id
        if case .joined = membership.phase, case .running = phase { return records }
        return records.filter { $0.id != own }
    }

    private func isInRing(_ id: NodeID) -> Bool {
        var low = 0
        var high = ring.members.count
        while low < high {
            let middle = (low + high) / 2
            if ring.members[middle].id < id { low = middle + 1 } else { high = middle }
        }
        return low < ring.members.count && ring.members[low].id == id
    }

    private mutating func adoptRing(
        _ ring: Ring,
        _ numbers: [PeerNumber],
        _ now: Now,
        _ effects: inout [ControlEffect]
    ) {
        self.ring = ring
        ringNumbers = numbers
        let copies = max(ring.copies, 1)
        var wanted: [PeerNumber] = Array(repeating: .none, count: Slice.count * copies)
        if !numbers.isEmpty {
            for slice in 0..<Slice.count {
                for (place, owner) in ring.owners(of: slice).enumerated() {
                    wanted[slice * copies + place] = numbers[Int(owner)]
                }
            }
        }
        self.wanted = wanted
        membersChangedAt = now.instant
        isTopologyDirty = true
        publishAt = now.instant
        publishIfDue(now, &effects)
        shards.withEach { $0.ringChanged() }
    }

    /// Looks whether so many are gone, or this node is so unwell, that nobody is taken out of the ring for now.
    private mutating func advanceBrake(_ now: Now, _ effects: inout [ControlEffect]) {
        var found: [RingBrake.Trouble] = []
        for (place, member) in ring.members.enumerated() {
            let index = Int(ringNumbers[place].value)
            // Who said that it stops goes by its own word.
            guard index != Int(Self.own.value), !peers[index].isGone, !peers[index].isStopping,
                !peers[index].isReleased, let record = membership.record(of: member.id), record.lifecycle == .up,
                record.liveness == .suspect || record.liveness == .down
            else { continue }
            found.append(RingBrake.Trouble(record, since: membership.downSince(member.id) ?? now.instant))
        }
        var isRemovalDue = false
        if !found.isEmpty {
            var kept = ringRecords(isBraked: false, now).map(\.id)[...]
            for trouble in found {
                kept = kept.drop { $0 < trouble.id }
                if kept.first != trouble.id { isRemovalDue = true }
            }
        }
        let event = brake.advance(
            found: found,
            ringSize: ring.members.count,
            isUnwell: membership.isUnwell,
            isRemovalDue: isRemovalDue,
            windowMilliseconds: 2 * membership.suspicionMilliseconds,
            now: now.instant
        )
        if let event { note(event, now, &effects) }
    }

    // MARK: - Topology

    mutating func publishIfDue(_ now: Now, _ effects: inout [ControlEffect]) {
        guard isTopologyDirty || table.changes != publishedChanges, publishAt <= now.instant else { return }
        var shown: [Topology.Peer] = []
        for index in peers.indices where index > 0 && !peers[index].isGone {
            guard let record = peers[index].record, !record.isTombstone else { continue }
            shown.append(
                Topology.Peer(
                    number: PeerNumber(UInt32(index)),
                    reference: peers[index].reference,
                    name: record.name,
                    cluster: record.cluster
                )
            )
        }
        let copies = max(ring.copies, 1)
        topology = Topology(
            version: topology.version + 1,
            own: Self.own,
            ringHash: ring.hash,
            peers: shown,
            holders: table.holders,
            epochs: table.epochs,
            copies: copies,
            wanted: wanted.isEmpty ? Array(repeating: .none, count: Slice.count * copies) : wanted
        )
        isTopologyDirty = false
        publishedChanges = table.changes
        // Changes come in bursts while slices move; workers lose at most a hop by being a little behind.
        publishAt = now.instant.advanced(byMilliseconds: 2)
        effects.append(.publish(topology))
    }
}
