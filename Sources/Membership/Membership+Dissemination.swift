package import ClusterCore

/// News on its way through a large cluster.
struct GossipItem: Sendable {
    var id: NodeID
    var transmits: Int
}

/// A joiner's first state, part by part.
struct StatePull: Sendable {
    var peer: NodeID
    var endpoint: Endpoint
    var nonce: UInt32
    /// One bit a part.
    var received: UInt64 = 0
    var entries: [GossipEntry] = []
    var tries = 1
    var deadline: Instant
}

/// A joiner's wait until its view has held.
struct JoinSettle: Sendable {
    var since: Instant
    let started: Instant
    /// Up to two members whose hash was equal since then.
    var agreed: [NodeID] = []

    init(now: Instant) {
        since = now
        started = now
    }

    mutating func restart(_ now: Instant) {
        since = now
        agreed = []
    }

    func deadline(_ configuration: MembershipConfiguration) -> Instant {
        let most = started.advanced(byMilliseconds: configuration.joinSettleMostMilliseconds)
        return agreed.isEmpty ? most : min(most, since.advanced(byMilliseconds: configuration.joinSettleMilliseconds))
    }
}

extension Membership {
    /// Own news, or a verdict of this node: to all at once in a small cluster, by gossip in a large one.
    ///
    /// `isFarewell`: to all at once in any cluster. Who ends cannot stay for the rounds that gossip takes, and must know
    /// who has heard it.
    mutating func tell(_ id: NodeID, includingDown: Bool = false, isFarewell: Bool = false, now: Instant) {
        guard stage == .joined || stage == .leaving else { return }
        guard isFarewell || table.memberCount < configuration.directMembersMax else {
            enqueueGossip(id, now: now)
            return
        }
        for index in table.peers.indices {
            let record = table.peers[index].record
            // The subject of a tombstone hears of it too, so that it ends.
            guard record.isLiving || (includingDown && record.liveness == .down && !record.isTombstone) else {
                continue
            }
            if table.peers[index].outbox == nil { table.peers[index].outbox = Outbox(next: now) }
            table.peers[index].outbox?.add(id, now: now)
        }
    }

    /// Others' news: travels on in a large cluster; in a small one its origin tells all.
    mutating func forward(_ id: NodeID, now: Instant) {
        if table.memberCount >= configuration.directMembersMax { enqueueGossip(id, now: now) }
    }

    private mutating func enqueueGossip(_ id: NodeID, now: Instant) {
        // A tombstone may have had to go as soon as it came.
        guard id == own.id || table.index(of: id) != nil else { return }
        let rounds = (log10Thousandths(table.memberCount + 2) + 999) / 1000
        let transmits = max(configuration.gossipTransmitsMin, 4 * Int(rounds))
        gossip.removeAll { $0.id == id }
        if gossip.isEmpty { nextGossip = now.advanced(byMilliseconds: 1) }
        gossip.append(GossipItem(id: id, transmits: transmits))
    }

    /// What there is to say of a member: its record, and who accuses it.
    private func entries(about id: NodeID, now: Instant) -> [GossipEntry] {
        if id == own.id { return [.record(own, ageSeconds: 0)] }
        guard let peer = table[id] else { return [] }
        var entries = [entry(for: peer, now: now)]
        if let suspicion = peer.suspicion {
            for accuser in suspicion.accusers {
                entries.append(
                    .suspicion(
                        subject: id,
                        generation: peer.record.generation,
                        incarnation: peer.record.incarnation,
                        accuser: accuser
                    )
                )
            }
        }
        return entries
    }

    /// Room for entries in a datagram whose body has a fixed part of at most 16 bytes.
    private var entryBytesMax: Int { configuration.datagramBytesMax - GossipDatagram.headerBytes - 16 }

    mutating func flushOutboxes(_ now: Instant, effects: inout [MembershipEffect]) {
        for index in table.peers.indices {
            guard let next = table.peers[index].outbox?.next, next <= now, var outbox = table.peers[index].outbox else {
                continue
            }
            if outbox.tries >= configuration.updateTriesMax {
                // The hashes in pings have to repair it now.
                statistics.updatesAbandoned &+= 1
                table.peers[index].outbox = nil
                continue
            }
            if outbox.tries > 0 { statistics.updatesRetried &+= 1 }
            var packed: [GossipEntry] = []
            var bytes = 0
            var count = 0
            for id in outbox.ids {
                let about = entries(about: id, now: now)
                let size = about.reduce(0) { $0 + $1.encodedBytes }
                if bytes + size > entryBytesMax { break }
                bytes += size
                packed += about
                count += 1
            }
            outbox.tries += 1
            outbox.inFlight = count
            outbox.sequence = makeSequence()
            outbox.next = now.advanced(byMilliseconds: configuration.updateRetryMilliseconds)
            table.peers[index].outbox = outbox
            let record = table.peers[index].record
            send(
                .update(sequence: outbox.sequence),
                to: record.cluster,
                target: record.id,
                entries: packed,
                effects: &effects
            )
        }
    }

    mutating func updated(by id: NodeID, sequence: UInt32) {
        guard let index = table.index(of: id), var outbox = table.peers[index].outbox, outbox.sequence == sequence,
            sequence != 0
        else { return }
        outbox.ids.removeFirst(outbox.inFlight)
        outbox.inFlight = 0
        outbox.tries = 0
        outbox.sequence = 0
        // What did not fit goes out at once: `flushOutboxes` ends every call.
        outbox.next = Instant(nanoseconds: 0)
        table.peers[index].outbox = outbox.ids.isEmpty ? nil : outbox
    }

    /// A datagram from a member that is held for gone: it is told so, once per probe interval, and will refute or end.
    mutating func tellOfItsEnd(
        _ index: Int,
        at endpoint: Endpoint,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        if let tried = table.peers[index].tried,
            now.milliseconds(since: tried) < configuration.probeIntervalMilliseconds
        {
            return
        }
        table.peers[index].tried = now
        let peer = table.peers[index]
        send(
            .update(sequence: 0),
            to: endpoint,
            target: peer.record.id,
            entries: [entry(for: peer, now: now)],
            effects: &effects
        )
    }

    mutating func advanceDissemination(to now: Instant, effects: inout [MembershipEffect]) {
        if !gossip.isEmpty, nextGossip <= now {
            nextGossip = now.advanced(byMilliseconds: configuration.gossipIntervalMilliseconds)
            sendGossip(now, effects: &effects)
        }
        if nextFullExchange <= now {
            // Stretched in large clusters, where a state is large.
            let stretch = UInt64(max(1, (table.memberCount + 1) / 128))
            nextFullExchange = now.advanced(
                byMilliseconds: jittered(configuration.fullExchangeIntervalMilliseconds * stretch)
            )
            if let index = livingOthers.randomElement(using: &random) {
                let record = table.peers[index].record
                pull(from: record.id, at: record.cluster, effects: &effects)
            }
        }
        if let joinSettle, joinSettle.deadline(configuration) <= now {
            let wanted = min(2, livingOthers.count)
            let isLate =
                joinSettle.started.advanced(byMilliseconds: configuration.joinSettleMostMilliseconds) <= now
            if joinSettle.agreed.count >= wanted || isLate {
                self.joinSettle = nil
                effects.append(.joinedExisting)
            } else {
                // One agrees, the second has not been heard yet: ask it.
                self.joinSettle?.since = now
                let others = livingOthers.map { table.peers[$0].record.id }.filter { !joinSettle.agreed.contains($0) }
                if let id = others.randomElement(using: &random) {
                    startProbe(of: id, now: now, effects: &effects)
                }
            }
        }
    }

    private mutating func sendGossip(_ now: Instant, effects: inout [MembershipEffect]) {
        // Fresh news first; ties by id, so that nothing depends on how the sort treats equals.
        gossip.sort { $0.transmits != $1.transmits ? $0.transmits > $1.transmits : $0.id < $1.id }
        var packed: [GossipEntry] = []
        var bytes = 0
        var sent = 0
        for item in gossip {
            let about = entries(about: item.id, now: now)
            let size = about.reduce(0) { $0 + $1.encodedBytes }
            if bytes + size > entryBytesMax { break }
            bytes += size
            packed += about
            sent += 1
        }
        let receivers = livingOthers.shuffled(using: &random).prefix(configuration.gossipFanout)
        for index in receivers {
            send(
                .update(sequence: 0),
                to: table.peers[index].record.cluster,
                target: table.peers[index].record.id,
                entries: packed,
                effects: &effects
            )
        }
        for index in 0..<sent { gossip[index].transmits -= receivers.count }
        gossip.removeAll { $0.transmits <= 0 }
        if receivers.isEmpty { gossip.removeAll() }
    }

    // MARK: Pulls

    /// Looks at another's hash; a difference is pulled at once, the same one again once per second and peer.
    mutating func compare(
        _ theirs: UInt64,
        with id: NodeID,
        at endpoint: Endpoint,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        guard stage == .joined, theirs != 0 else { return }
        if theirs == hash {
            if joinSettle != nil, joinSettle?.agreed.contains(id) == false, (joinSettle?.agreed.count ?? 0) < 2 {
                joinSettle?.agreed.append(id)
            }
            return
        }
        let difference = KeyHash.fold(theirs ^ KeyHash.seed, hash | 1)
        let index = table.index(of: id)
        if let index, let pulled = table.peers[index].pulled {
            let wait =
                pulled.difference == difference
                ? configuration.pullPeerIntervalMilliseconds : configuration.pullNewDifferenceMilliseconds
            if now.milliseconds(since: pulled.at) < wait {
                statistics.pullsSuppressed &+= 1
                return
            }
        }
        guard pullLimit.take(now) else {
            statistics.pullsSuppressed &+= 1
            return
        }
        if let index { table.peers[index].pulled = (now, difference) }
        pull(from: id, at: endpoint, effects: &effects)
    }

    mutating func pull(from id: NodeID, at endpoint: Endpoint, effects: inout [MembershipEffect]) {
        statistics.pulls &+= 1
        if stateDatagrams > configuration.stateDatagramsMax, let peer = table[id] {
            effects.append(.pull(from: peer.record.cluster))
        } else {
            send(.pull(nonce: 0, hash: gossipedHash), to: endpoint, target: id, effects: &effects)
        }
    }

    /// How many datagrams the whole state takes.
    private var stateDatagrams: Int {
        let perDatagram = max(1, entryBytesMax / GossipEntry.bytesMax)
        // Below this, even records of full length fit; above, they are measured.
        if table.peers.count < perDatagram * configuration.stateDatagramsMax { return 1 }
        return packedState(Instant(nanoseconds: 0)).count
    }

    private func packedState(_ now: Instant) -> [[GossipEntry]] {
        var parts: [[GossipEntry]] = [[]]
        var bytes = 0
        func add(_ entry: GossipEntry) {
            let size = entry.encodedBytes
            if bytes + size > entryBytesMax {
                parts.append([])
                bytes = 0
            }
            bytes += size
            parts[parts.count - 1].append(entry)
        }
        add(.record(own, ageSeconds: 0))
        for peer in table.peers { add(entry(for: peer, now: now)) }
        return parts
    }

    mutating func sendState(
        nonce: UInt32,
        to endpoint: Endpoint,
        target: NodeID,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        let parts = packedState(now)
        guard parts.count <= configuration.stateDatagramsMax else {
            send(.state(nonce: nonce, part: 0, parts: 0, hash: hash), to: endpoint, target: target, effects: &effects)
            return
        }
        for (part, entries) in parts.enumerated() {
            send(
                .state(nonce: nonce, part: UInt8(part), parts: UInt8(parts.count), hash: hash),
                to: endpoint,
                target: target,
                entries: entries,
                effects: &effects
            )
        }
    }

    // MARK: Exchange over TCP

    /// What to send on the connection that `.pull(from:)` asked for: this node's whole state.
    package func exchangeRequest(now: Instant) -> [UInt8] {
        encodedExchange(.exchangeRequest(hash: gossipedHash), target: nil, now: now)
    }

    /// Takes what came over TCP: answers a request with this node's whole state, takes an answer and returns nothing.
    /// Returns nothing for what does not decode or belongs to another cluster.
    package mutating func exchange(
        with bytes: UnsafeRawBufferPointer,
        now: Instant,
        effects: inout [MembershipEffect]
    ) -> [UInt8] {
        guard stage == .joined || stage == .seeking else { return [] }
        noteLateness(now)
        guard let datagram = try? GossipDatagram(decoding: bytes) else {
            statistics.malformed &+= 1
            return []
        }
        guard datagram.clusterTag == clusterTag else {
            statistics.foreignCluster &+= 1
            return []
        }
        guard datagram.target == nil || datagram.target == own.id, datagram.sender != own.id else {
            statistics.wrongTarget &+= 1
            return []
        }
        var answer: [UInt8] = []
        switch datagram.message {
        case .exchangeRequest:
            learn(all: datagram, now: now, effects: &effects)
            if stage == .joined {
                answer = encodedExchange(.exchangeReply(hash: hash), target: datagram.sender, now: now)
            }
        case .exchangeReply:
            if stage == .seeking {
                // Only who was asked brings a seeking node into a cluster.
                guard let joinPull, joinPull.peer == datagram.sender else { return [] }
                enter(with: datagram.entries, from: datagram.sender, now: now, effects: &effects)
            } else {
                learn(all: datagram, now: now, effects: &effects)
            }
        default:
            statistics.malformed &+= 1
        }
        finish(now, effects: &effects)
        return answer
    }

    private mutating func learn(all datagram: GossipDatagram, now: Instant, effects: inout [MembershipEffect]) {
        for entry in datagram.entries where stage == .joined {
            learn(entry, from: datagram.sender, now: now, effects: &effects)
        }
    }

    private func encodedExchange(_ message: GossipMessage, target: NodeID?, now: Instant) -> [UInt8] {
        let entries = stage == .joined ? packedState(now).flatMap(\.self) : []
        return GossipDatagram(
            clusterTag: clusterTag,
            sender: own.id,
            senderGeneration: own.generation,
            target: target,
            message: message,
            entries: entries
        ).encoded()
    }
}
