import ClusterCore

/// A check whether the id's higher generation, heard of from others, has a living holder.
struct TwinCheck: Sendable {
    var generation: UInt64
    var deadline: Instant
}

extension Membership {
    /// Takes one piece of news from a member.
    mutating func learn(
        _ entry: GossipEntry,
        from sender: NodeID,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        switch entry {
        case .record(let record, let ageSeconds):
            if record.id == own.id {
                hearOfOneself(record, ageSeconds: ageSeconds, now: now, effects: &effects)
            } else if stage == .joined {
                merge(record, ageSeconds: ageSeconds, from: sender, now: now, effects: &effects)
            }
        case .suspicion(let subject, let generation, let incarnation, let accuser):
            if subject == own.id {
                guard generation == own.generation else { return }
                var record = own
                record.incarnation = incarnation
                record.liveness = .suspect
                hearOfOneself(record, ageSeconds: 0, now: now, effects: &effects)
                return
            }
            guard stage == .joined, accuser != own.id, let index = table.index(of: subject) else { return }
            var record = table.peers[index].record
            guard record.generation == generation, record.incarnation == incarnation else { return }
            if record.liveness == .alive {
                record.liveness = .suspect
                apply(record, at: index, by: accuser, now: now, effects: &effects)
            }
            if table.edit(index, { $0.suspicion?.add(accuser) }) == true {
                forward(subject, accuser: accuser, now: now)
                if table.peers[index].suspicion?.isFull == true { statistics.suspicionsConfirmed &+= 1 }
                // A second opinion at once: it confirms within a probe, or it refutes.
                // In a large cluster by some only, three times as many as are needed.
                let wanted = 3 * (configuration.suspicionConfirmations + 1)
                if Int.random(in: 0..<aliveCount, using: &random) < wanted {
                    startProbe(of: subject, now: now, effects: &effects)
                }
            }
        }
    }

    /// Merges a record of another member into the table.
    mutating func merge(
        _ record: MemberRecord,
        ageSeconds: UInt32 = 0,
        from sender: NodeID,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        precondition(record.id != own.id, "the own record is the owner's")
        let left = configuration.tombstoneMilliseconds / 1000
        guard let index = table.index(of: record.id) else {
            if record.isTombstone && UInt64(ageSeconds) >= left { return }
            guard table.peers.count + 1 < configuration.recordsMax else {
                statistics.recordsRefused &+= 1
                return
            }
            insert(record, ageSeconds: ageSeconds, now: now, effects: &effects)
            return
        }
        let known = table.peers[index].record
        var merged = known.merged(with: record, ablations: configuration.ablations)
        if merged == known { return }
        if configuration.ablations.contains(.evidenceAboutTheDead), !known.isLiving, !merged.isLiving,
            merged.generation == known.generation
        {
            return
        }
        if merged.liveness == .down, known.liveness == .alive, merged.generation == known.generation,
            sender != record.id, !merged.isTombstone
        {
            // Others have given up whom this node does not even suspect: after a split, whole sides come in like that.
            // The subject is asked, with the verdict aboard, and has a probe's time to refute before it counts.
            if table.peers[index].verdict == nil {
                let deadline = now.advanced(byMilliseconds: configuration.probeEndMilliseconds)
                let verdict = Verdict(record: merged, ageSeconds: ageSeconds, deadline: deadline)
                table.edit(index) { $0.verdict = verdict }
                probes.removeAll { $0.subject == record.id }
                startProbe(of: record.id, now: now, effects: &effects)
            }
            guard merged.incarnation == known.incarnation else { return }
            merged.liveness = .alive
            if merged == known { return }
        }
        apply(merged, at: index, by: sender, now: now, ageSeconds: ageSeconds, effects: &effects)
        // That it is suspect is on its way as an accusation.
        var told = known
        told.liveness = .suspect
        if merged != told { forward(record.id, now: now) }
        checkName(merged, now: now, effects: &effects)
    }

    private mutating func insert(
        _ record: MemberRecord,
        ageSeconds: UInt32,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        let index = table.insert(record)
        newMembers += 1
        if !record.isTombstone { joinSettle?.restart(now) }
        settle(index, ageSeconds: ageSeconds, now: now)
        hasChanged = true
        scheduleProbe(of: record.id)
        if !record.isTombstone { effects.append(.event(.joined(record))) }
        evictTombstones()
        forward(record.id, now: now)
        checkName(record, now: now, effects: &effects)
    }

    /// Puts a merged record in place of the known one, with all that follows from the step.
    mutating func apply(
        _ record: MemberRecord,
        at index: Int,
        by sender: NodeID?,
        now: Instant,
        ageSeconds: UInt32 = 0,
        effects: inout [MembershipEffect]
    ) {
        let known = table.peers[index].record
        table.replaceRecord(at: index, with: record)
        hasChanged = true
        let isRestart = record.generation != known.generation
        if isRestart {
            newMembers += 1
            joinSettle?.restart(now)
            table.edit(index) {
                $0.outbox = nil
                $0.tried = nil
                $0.pulled = nil
                $0.isInside = false
            }
            probes.removeAll { $0.subject == record.id }
        }
        let isNewEvidence = isRestart || record.incarnation != known.incarnation
        if isNewEvidence { table.edit(index) { $0.lost = nil } }
        if isNewEvidence || record.liveness != known.liveness { table.edit(index) { $0.suspicion = nil } }
        if let verdict = table.peers[index].verdict,
            isRestart || record.incarnation > verdict.record.incarnation || !record.isLiving
        {
            table.edit(index) { $0.verdict = nil }
        }
        settle(index, ageSeconds: ageSeconds, now: now)
        if record.isTombstone {
            if !known.isTombstone || isRestart {
                effects.append(
                    .event(
                        record.lifecycle == .left
                            ? .left(record.id, name: record.name) : .forgotten(record.id, name: record.name)
                    )
                )
            }
            evictTombstones()
            return
        }
        if known.isTombstone || !known.isLiving { scheduleProbe(of: record.id) }
        if isRestart { effects.append(.event(.joined(record))) }
        if record.liveness == .suspect, isNewEvidence || known.liveness != .suspect {
            effects.append(.event(.suspected(record.id, name: record.name, by: sender)))
        } else if record.liveness == .down, isNewEvidence || known.liveness != .down {
            effects.append(.event(.down(record.id, name: record.name)))
        } else if record.liveness == .alive, known.liveness != .alive, !isRestart {
            effects.append(.event(.refuted(record.id, name: record.name)))
            if known.liveness == .down { damping.othersReturnedAt = now }
        }
        if record.isDamped != known.isDamped, !isRestart {
            effects.append(
                .event(
                    record.isDamped
                        ? .damped(record.id, name: record.name) : .undamped(record.id, name: record.name)
                )
            )
        }
    }

    /// What a record's state demands of what is kept beside it.
    private mutating func settle(_ index: Int, ageSeconds: UInt32, now: Instant) {
        let total = configuration.tombstoneMilliseconds
        let left = max(1, total - min(total, UInt64(ageSeconds) * 1000))
        let age = min(now.nanoseconds, UInt64(ageSeconds) * 1_000_000_000)
        let lost = Instant(nanoseconds: now.nanoseconds - age)
        table.edit(index) { peer in
            if peer.record.isTombstone {
                peer.suspicion = nil
                peer.verdict = nil
                // One that goes still has to acknowledge nothing; what waits for it is dropped.
                peer.outbox = nil
                if peer.expires == nil { peer.expires = now.advanced(byMilliseconds: left) }
                return
            }
            peer.expires = nil
            switch peer.record.liveness {
            case .alive, .forgotten: peer.lost = nil
            case .suspect:
                peer.lost = nil
                if peer.suspicion == nil { peer.suspicion = Suspicion(since: now) }
            case .down:
                if peer.lost == nil { peer.lost = lost }
                peer.outbox = nil
            }
        }
    }

    private mutating func evictTombstones() {
        while table.tombstoneCount > configuration.tombstonesMax {
            var oldest: (index: Int, expires: Instant)?
            for (index, peer) in table.peers.enumerated() {
                if let expires = peer.expires, expires < oldest?.expires ?? .distantFuture { oldest = (index, expires) }
            }
            guard let oldest else { return }
            // What was to be told of it goes too: the queue holds nothing that the table lacks.
            let id = table.peers[oldest.index].record.id
            gossip.removeAll { $0.id == id }
            table.remove(at: oldest.index)
        }
    }

    // MARK: The own record, from others

    /// Others' word about this node: refuted where it accuses, and the end where it is final.
    private mutating func hearOfOneself(
        _ record: MemberRecord,
        ageSeconds: UInt32,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        if record.sawThree && !own.sawThree {
            own.sawThree = true
            hasChanged = true
        }
        if record.generation > own.generation {
            checkTwin(record, now: now, effects: &effects)
            return
        }
        guard record.generation == own.generation, stage == .joined || record.isTombstone else { return }
        if record.liveness == .forgotten || record.lifecycle == .left {
            stop(.forgotten, effects: &effects)
            return
        }
        if configuration.ablations.contains(.refutation) { return }
        let isAccused = record.liveness != .alive && record.incarnation >= own.incarnation
        let isAhead =
            record.incarnation > own.incarnation
            || (record.incarnation == own.incarnation && record.sequence > own.sequence)
        guard isAccused || isAhead else { return }
        let word = OwnWord(record, ageSeconds: ageSeconds)
        if let due = answerDue(now) {
            damping.collect(word, due)
        } else {
            answer(word, now: now, effects: &effects)
        }
    }

    /// Raises the own incarnation above what others said of this node.
    mutating func answer(_ word: OwnWord, now: Instant, effects: inout [MembershipEffect]) {
        guard word.incarnation < .max, word.sequence < .max, own.sequence < .max else {
            stop(.generationBehind(seen: own.generation), effects: &effects)
            return
        }
        own.incarnation = max(own.incarnation, word.incarnation) + 1
        own.sequence = max(own.sequence, word.sequence)
        if word.liveness == .down { dampIfAway(ageSeconds: word.ageSeconds, now: now, effects: &effects) }
        hasChanged = true
        if word.liveness != .alive {
            statistics.refutations &+= 1
            worsenHealth(by: 1)
            effects.append(.event(.refutedOwn(word.liveness)))
        }
        // Who gave this node up has perhaps been given up itself, by this side of a split.
        tell(own.id, includingDown: word.liveness == .down, now: now)
    }

    /// Datagrams under the own id: an echo, a younger twin, or an older one.
    mutating func receiveFromOwnID(
        _ datagram: GossipDatagram,
        from endpoint: Endpoint,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        if datagram.senderGeneration > own.generation {
            stop(.olderTwin(at: endpoint), effects: &effects)
        } else if datagram.senderGeneration < own.generation {
            send(
                .update(sequence: 0),
                to: endpoint,
                target: own.id,
                entries: [.record(own, ageSeconds: 0)],
                effects: &effects
            )
        } else if case .hello(let hello) = datagram.message {
            contacts.markSelf(nonce: hello.nonce)
            if stage == .seeking { evaluateFormation(now, effects: &effects) }
        }
    }

    private mutating func checkTwin(
        _ record: MemberRecord,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        if let twin, twin.generation >= record.generation { return }
        let wait = Suspicion.leastMilliseconds(members: table.memberCount + 1, configuration: configuration)
        twin = TwinCheck(generation: record.generation, deadline: now.advanced(byMilliseconds: wait))
        // A ping under the own id: a younger twin answers it, with its generation; an echo proves nothing.
        if record.cluster != own.cluster {
            let probe = GossipProbe(
                sequence: makeSequence(),
                hash: 0
            )
            send(.ping(probe), to: record.cluster, target: own.id, effects: &effects)
        }
    }

    mutating func advanceTwin(to now: Instant, effects: inout [MembershipEffect]) {
        guard let twin, twin.deadline <= now, stage == .seeking || stage == .joined else { return }
        self.twin = nil
        stop(.generationBehind(seen: twin.generation), effects: &effects)
    }

    // MARK: Names

    /// One name, one living member. A settled member keeps it before a joining one, then the lower id.
    private mutating func checkName(
        _ record: MemberRecord,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        guard record.name == own.name, record.isLiving else { return }
        let otherIsSettled = record.lifecycle != .joining
        let ownIsSettled = own.lifecycle != .joining
        if otherIsSettled == ownIsSettled ? record.id < own.id : otherIsSettled {
            stop(.nameTaken(own.name, by: record.id, at: record.cluster), effects: &effects)
        }
    }

    /// Whether a newcomer may have its name; a `down` holder is forgotten for it.
    mutating func admitName(
        of newcomer: MemberRecord,
        now: Instant,
        effects: inout [MembershipEffect]
    ) -> NodeID? {
        if newcomer.name == own.name { return own.id }
        let holders = table.indices {
            $0.record.name == newcomer.name && $0.record.id != newcomer.id && !$0.record.isTombstone
        }.map { table.peers[$0].record }
        if let living = holders.first(where: \.isLiving) { return living.id }
        for holder in holders {
            if let index = table.index(of: holder.id) { markForgotten(index, now: now, effects: &effects) }
        }
        return nil
    }

    mutating func markForgotten(_ index: Int, now: Instant, effects: inout [MembershipEffect]) {
        var record = table.peers[index].record
        record.liveness = .forgotten
        apply(record, at: index, by: own.id, now: now, effects: &effects)
        tell(record.id, now: now)
    }
}
