package import ClusterCore

/// News on its way through a large cluster: a member's record, or that somebody accuses it.
struct GossipItem: Sendable {
    var id: NodeID
    /// Nil where the record is the news. An accusation goes by itself: with all that is known of the accused, each of
    /// those that follow the first would cost a hundred bytes more, and go as many times.
    var accuser: NodeID?
    /// How many times it is told from here.
    var transmits: Int
    /// When it came up.
    var since: Instant
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
    /// How many members have sent it on to another.
    var redirects = 0
    var deadline: Instant
}

/// A joiner's wait until it knows whom the others know.
struct JoinSettle: Sendable {
    /// When the last member came up that was unknown.
    var since: Instant
    let started: Instant
    /// Up to two members whose hash was equal since then, or whose whole state named nobody unknown. That others go up
    /// meanwhile, or come under suspicion, keeps hashes apart for seconds where many start at once, and matters not.
    private(set) var agreed: [NodeID] = []

    init(now: Instant) {
        since = now
        started = now
    }

    mutating func restart(_ now: Instant) {
        since = now
        agreed = []
    }

    mutating func agree(_ id: NodeID) {
        if agreed.count < 2, !agreed.contains(id) { agreed.append(id) }
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
    /// `accuser`: where the news is that this member accuses the other.
    mutating func tell(
        _ id: NodeID,
        accuser: NodeID? = nil,
        includingDown: Bool = false,
        isFarewell: Bool = false,
        now: Instant
    ) {
        guard stage == .joined || stage == .leaving else { return }
        guard isFarewell || table.memberCount < configuration.directMembersMax else {
            enqueueGossip(id, accuser: accuser, now: now)
            return
        }
        for index in table.peers.indices {
            let record = table.peers[index].record
            // The subject of a tombstone hears of it too, so that it ends.
            guard record.isLiving || (includingDown && record.liveness == .down && !record.isTombstone) else {
                continue
            }
            table.edit(index) {
                if $0.outbox == nil { $0.outbox = Outbox(next: now) }
                $0.outbox?.add(id, now: now)
            }
        }
    }

    /// Others' news: travels on in a large cluster; in a small one its origin tells all.
    mutating func forward(_ id: NodeID, accuser: NodeID? = nil, now: Instant) {
        if table.memberCount >= configuration.directMembersMax { enqueueGossip(id, accuser: accuser, now: now) }
    }

    private mutating func enqueueGossip(_ id: NodeID, accuser: NodeID?, now: Instant) {
        // A tombstone may have had to go as soon as it came.
        guard id == own.id || table.index(of: id) != nil else { return }
        let rounds = (log10Thousandths(table.memberCount + 2) + 999) / 1000
        let transmits = max(configuration.gossipTransmitsMin, 4 * Int(rounds))
        let accusers = table[id]?.suspicion?.accusers ?? []
        // Those after the last that shortens the suspicion tell nobody anything.
        if let accuser, !accusers.prefix(configuration.suspicionConfirmations + 1).contains(accuser) { return }
        gossip.removeAll { item in
            guard item.id == id else { return false }
            return item.accuser == accuser || item.accuser.map { !accusers.contains($0) } ?? false
        }
        if gossip.isEmpty {
            nextGossip = now.advanced(byMilliseconds: 1)
            isGossipPaced = true
        }
        gossip.append(GossipItem(id: id, accuser: accuser, transmits: transmits, since: now))
    }

    /// What there is to say of a member: its record, and who accuses it.
    private func entries(about id: NodeID, now: Instant) -> [GossipEntry] {
        if id == own.id { return [.record(own, ageSeconds: 0)] }
        guard let peer = table[id] else { return [] }
        var entries = [entry(for: peer, now: now)]
        if let suspicion = peer.suspicion {
            entries += suspicion.accusers.map { accusation(of: peer.record, by: $0) }
        }
        return entries
    }

    private func accusation(of record: MemberRecord, by accuser: NodeID) -> GossipEntry {
        .suspicion(
            subject: record.id,
            generation: record.generation,
            incarnation: record.incarnation,
            accuser: accuser
        )
    }

    /// What a piece of news says; nothing where it is none any more.
    private func entries(of item: GossipItem, now: Instant) -> [GossipEntry] {
        if item.id == own.id { return [.record(own, ageSeconds: 0)] }
        guard let peer = table[item.id] else { return [] }
        guard let accuser = item.accuser else { return [entry(for: peer, now: now)] }
        guard peer.suspicion?.accusers.contains(accuser) == true else { return [] }
        return [accusation(of: peer.record, by: accuser)]
    }

    /// Room for entries in a datagram whose body has a fixed part of at most 16 bytes.
    private var entryBytesMax: Int { configuration.datagramBytesMax - GossipDatagram.headerBytes - 16 }

    mutating func flushOutboxes(_ now: Instant, effects: inout [MembershipEffect]) {
        for index in table.pending {
            guard let next = table.peers[index].outbox?.next, next <= now, var outbox = table.peers[index].outbox else {
                continue
            }
            if outbox.tries >= configuration.updateTriesMax {
                // The hashes in pings have to repair it now.
                statistics.updatesAbandoned &+= 1
                table.edit(index) { $0.outbox = nil }
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
            table.edit(index) { $0.outbox = outbox }
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
        table.edit(index) { $0.outbox = outbox.ids.isEmpty ? nil : outbox }
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
        table.edit(index) { $0.tried = now }
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
            if let index = randomLivingOthers(1).first {
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

    /// For each so many pieces of news that wait, one more datagram goes out.
    private static let gossipItemsPerDatagram = 32
    /// What a datagram costs beside its entries: the headers of UDP and IPv4, its own, and the sequence number.
    private static let packetBytes = 28 + GossipDatagram.headerBytes + 4

    /// Drops news that waits for its turn although all have it: the hash has not changed for ten rounds, and another
    /// member's is the same. After a mass start, the queue would keep every member sending for a minute.
    private mutating func dropSpreadNews(_ now: Instant) {
        let wait = 10 * configuration.gossipIntervalMilliseconds
        guard !gossip.isEmpty, now.milliseconds(since: hashChanged) >= wait else { return }
        gossip.removeAll { now.milliseconds(since: $0.since) >= wait }
    }

    private mutating func sendGossip(_ now: Instant, effects: inout [MembershipEffect]) {
        // Fresh news first; ties by id, so that nothing depends on how the sort treats equals.
        gossip.sort {
            if $0.transmits != $1.transmits { return $0.transmits > $1.transmits }
            if $0.id != $1.id { return $0.id < $1.id }
            guard let mine = $0.accuser, let theirs = $1.accuser else { return $0.accuser == nil && $1.accuser != nil }
            return mine < theirs
        }
        var receivers = randomLivingOthers(configuration.gossipFanout)
        if receivers.isEmpty { gossip.removeAll() }
        // One datagram, as a rule; more where very many change at once, as when all start.
        let datagrams = min(configuration.gossipDatagramsMax, 1 + gossip.count / Self.gossipItemsPerDatagram)
        if gossip.count > min(configuration.pacedGossipItemsMax, table.memberCount / 3) { isGossipPaced = false }
        var next = 0
        for _ in 0..<datagrams where next < gossip.count {
            var packed: [GossipEntry] = []
            var bytes = 0
            var end = next
            while end < gossip.count {
                let about = entries(of: gossip[end], now: now)
                let size = about.reduce(0) { $0 + $1.encodedBytes }
                if bytes + size > entryBytesMax { break }
                bytes += size
                packed += about
                end += 1
            }
            if isGossipPaced {
                let cost = UInt64(Self.packetBytes + bytes)
                let count = min(receivers.count, Int(gossipPace.refill(now) / cost))
                if count < receivers.count { statistics.gossipHeldBack &+= 1 }
                receivers.removeLast(receivers.count - count)
                if count == 0 { break }
                gossipPace.take(UInt64(count) * cost)
            }
            for index in next..<end { gossip[index].transmits -= receivers.count }
            next = end
            if !packed.isEmpty { sendAlike(.update(sequence: 0), to: receivers, entries: packed, effects: &effects) }
        }
        gossip.removeAll { $0.transmits <= 0 }
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
            joinSettle?.agree(id)
            dropSpreadNews(now)
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
        if let index { table.edit(index) { $0.pulled = (now, difference) } }
        pull(from: id, at: endpoint, effects: &effects)
    }

    mutating func pull(from id: NodeID, at endpoint: Endpoint, effects: inout [MembershipEffect]) {
        statistics.pulls &+= 1
        // In a small cluster the sums would be as long as the state.
        let sums = stage == .joined && table.memberCount >= configuration.directMembersMax ? bucketSums : []
        send(.pull(nonce: 0, hash: gossipedHash, sums: sums), to: endpoint, target: id, effects: &effects)
    }

    /// The hash by parts of the id space.
    private var bucketSums: [UInt32] {
        var sums = table.bucketSums
        sums[MemberTable.bucket(of: own.id)] &+= UInt32(truncatingIfNeeded: ownHash)
        return sums
    }

    /// Answers a pull: with the state, or where it lies apart from the asker's.
    mutating func answerPull(
        nonce: UInt32,
        theirs: (hash: UInt64, sums: [UInt32]),
        to endpoint: Endpoint,
        target: NodeID,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        // The backstop's question, most times: a member that knows the same.
        if nonce == 0, theirs.hash == hash { return }
        guard pullAnswerLimit.take(now) else {
            if nonce != 0 { sendOn(nonce: nonce, joiner: target, at: endpoint, effects: &effects) }
            return
        }
        if nonce != 0, let index = table.index(of: target) { table.edit(index) { $0.isInside = true } }
        var differing: [Bool]?
        if theirs.sums.count == MemberTable.bucketCount {
            let isDifferent = zip(bucketSums, theirs.sums).map { $0 != $1 }
            guard isDifferent.contains(true) else { return }
            differing = isDifferent
        }
        sendState(nonce: nonce, buckets: differing, to: endpoint, target: target, now: now, effects: &effects)
        compare(theirs.hash, with: target, at: endpoint, now: now, effects: &effects)
    }

    /// Names a joiner another member that can hand it the state: many that start at once shall not wait for the few
    /// seeds.
    private mutating func sendOn(
        nonce: UInt32,
        joiner: NodeID,
        at endpoint: Endpoint,
        effects: inout [MembershipEffect]
    ) {
        // Blindly, and not for long: where few can, the joiner tries again later.
        for _ in 0..<16 where !table.peers.isEmpty {
            let index = Int.random(in: table.peers.indices, using: &random)
            let record = table.peers[index].record
            guard record.isLiving, record.id != joiner, table.peers[index].isInside || record.lifecycle != .joining
            else {
                continue
            }
            send(
                .state(nonce: nonce, part: 0, parts: 0, hash: hash),
                to: endpoint,
                target: joiner,
                entries: [.record(record, ageSeconds: 0)],
                effects: &effects
            )
            return
        }
    }

    private func packedState(_ now: Instant, buckets: [Bool]? = nil) -> [[GossipEntry]] {
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
        func isWanted(_ id: NodeID) -> Bool { buckets?[MemberTable.bucket(of: id)] ?? true }
        if isWanted(own.id) { add(.record(own, ageSeconds: 0)) }
        for index in table.peers.indices where isWanted(table.peers[index].record.id) {
            add(entry(for: table.peers[index], now: now))
        }
        return parts
    }

    private mutating func sendState(
        nonce: UInt32,
        buckets: [Bool]?,
        to endpoint: Endpoint,
        target: NodeID,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        let parts = packedState(now, buckets: buckets)
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
        guard let datagram = try? GossipDatagram(decoding: bytes, leavingOut: { table.holds($0, hash: $1) }) else {
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
        let before = newMembers
        for entry in datagram.entries where stage == .joined {
            learn(entry, from: datagram.sender, now: now, effects: &effects)
        }
        // Who still seeks has no state to tell.
        let isWhole =
            switch datagram.message {
            case .exchangeRequest(let hash), .exchangeReply(let hash): hash != 0
            default: false
            }
        if isWhole, newMembers == before { joinSettle?.agree(datagram.sender) }
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
