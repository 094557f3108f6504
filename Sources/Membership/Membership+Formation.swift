package import ClusterCore

// How nodes that were started with one list become one cluster, with no node in charge.
//
// A node says hello to every seed and every peer that it remembers. If one that answers is part of a cluster, the node
// pulls its state and is part of it too. If none is, and a majority of the list, this node included, answers each other
// with the same list and the same settings, the node declares itself `up` and tells the majority to do likewise. Two
// majorities of one list share a node, so groups that formed apart find each other through it and merge like two sides
// of a split. A node that is not in the list only joins; a node that lacks a majority waits, for ever if need be: two
// clusters under one name are worse than none.

extension Membership {
    /// When silent seeds no longer hold a majority up.
    var formationDeadline: Instant {
        // Who remembers peers is more probably a late part of a living cluster than of a fresh one.
        let patience = configuration.formationPatienceMilliseconds * (contacts.hasRemembered ? 3 : 1)
        return started.advanced(byMilliseconds: patience)
    }

    /// Takes the addresses of a seed, none where the look-up failed.
    package mutating func resolved(
        _ seed: HostAndPort,
        to addresses: [Endpoint],
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        guard stage == .seeking || stage == .joined else { return }
        noteLateness(now)
        contacts.resolved(seed, to: addresses, now: now)
        if stage == .seeking { advanceSeeking(to: now, effects: &effects) }
        finish(now, effects: &effects)
    }

    /// The operator's word: form a cluster with those that answer, without a majority. Returns whether it did; a node
    /// that is part of a cluster, or that has found one, does not.
    package mutating func formWithoutMajority(now: Instant, effects: inout [MembershipEffect]) -> Bool {
        // A member that answered once and is silent now holds nobody up: it may be among those that are gone for good.
        guard stage == .seeking, joinPull == nil,
            !contacts.contacts.contains(where: { $0.answer?.joined == true && isFresh($0.answer, now: now) })
        else { return false }
        found(with: agreeing(now).map(\.record), now: now, effects: &effects)
        finish(now, effects: &effects)
        return true
    }

    // MARK: Seeking

    mutating func advanceSeeking(to now: Instant, effects: inout [MembershipEffect]) {
        for index in contacts.seeds.indices where contacts.seeds[index].nextResolve <= now {
            resolveSeed(index, now: now, effects: &effects)
        }
        if let pull = joinPull, pull.deadline <= now {
            if pull.tries < 4 {
                joinPull?.tries += 1
                joinPull?.received = 0
                joinPull?.entries = []
                joinPull?.deadline = now.advanced(byMilliseconds: configuration.seedRetryMilliseconds)
                send(
                    .pull(nonce: pull.nonce, hash: 0, sums: []),
                    to: pull.endpoint,
                    target: pull.peer,
                    effects: &effects
                )
            } else {
                joinPull = nil
            }
        }
        for index in contacts.contacts.indices where contacts.contacts[index].nextTry <= now {
            callContact(index, now: now, effects: &effects)
        }
        evaluateFormation(now, effects: &effects)
    }

    private mutating func resolveSeed(_ index: Int, now: Instant, effects: inout [MembershipEffect]) {
        let isResolved = contacts.seeds[index].addresses?.isEmpty == false
        let wait = isResolved ? configuration.seedRetryMostMilliseconds : configuration.seedRetryMilliseconds * 4
        contacts.scheduleResolve(index, at: now.advanced(byMilliseconds: max(1, jittered(wait))))
        effects.append(.resolve(contacts.seeds[index].host))
    }

    private mutating func callContact(_ index: Int, now: Instant, effects: inout [MembershipEffect]) {
        let contact = contacts.contacts[index]
        if contact.isSelf {
            contacts.contacts[index].nextTry = .distantFuture
            return
        }
        let backoff: UInt64
        if isFresh(contact.answer, now: now) {
            // It answers: asked steadily, for its view changes while it seeks.
            backoff = configuration.seedRetryMilliseconds * (contact.answer?.joined == true ? 1 : 4)
        } else if contact.backoffMilliseconds == 0 {
            backoff = configuration.seedRetryMilliseconds
        } else {
            backoff = min(contact.backoffMilliseconds * 2, configuration.seedRetryMostMilliseconds)
        }
        contacts.contacts[index].backoffMilliseconds = backoff
        contacts.contacts[index].nextTry = now.advanced(byMilliseconds: max(1, jittered(backoff)))
        sendHello(to: contact.endpoint, nonce: contact.nonce, seesReceiver: contact.answer != nil, effects: &effects)
        // Silent for a while: UDP may be what does not pass.
        if backoff > configuration.seedRetryMilliseconds * 2 {
            let hello = makeHello(nonce: contact.nonce, seesReceiver: contact.answer != nil)
            stream(.hello(hello), to: contact.endpoint, target: nil, effects: &effects)
        }
    }

    private func isFresh(_ answer: SeedAnswer?, now: Instant) -> Bool {
        guard let answer else { return false }
        return now.milliseconds(since: answer.at) < configuration.seedRetryMostMilliseconds
    }

    private func makeHello(nonce: UInt32, seesReceiver: Bool) -> GossipHello {
        GossipHello(
            nonce: nonce,
            joined: stage == .joined,
            seesReceiver: seesReceiver,
            hash: gossipedHash,
            seedListHash: contacts.listHash,
            clusterName: configuration.clusterName,
            settings: configuration.settings,
            record: own
        )
    }

    private mutating func sendHello(
        to endpoint: Endpoint,
        nonce: UInt32,
        seesReceiver: Bool,
        effects: inout [MembershipEffect]
    ) {
        send(
            .hello(makeHello(nonce: nonce, seesReceiver: seesReceiver)),
            to: endpoint,
            target: nil,
            effects: &effects
        )
    }

    // MARK: Hellos

    mutating func receiveHello(
        _ hello: GossipHello,
        from sender: NodeID,
        at endpoint: Endpoint,
        isReply: Bool,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        guard hello.record.id == sender,
            hello.clusterName == configuration.clusterName || configuration.ablations.contains(.clusterName)
        else {
            statistics.malformed &+= 1
            return
        }
        if stage == .joined {
            receiveHelloAsMember(hello, at: endpoint, isReply: isReply, now: now, effects: &effects)
            return
        }
        guard !hello.record.isTombstone else { return }
        if hello.record.name == own.name, !hello.joined, own.id > sender {
            // Of two that seek under one name the lower id keeps it. A cluster decides by itself whom it refuses.
            stop(.nameTaken(own.name, by: sender, at: endpoint), effects: &effects)
            return
        }
        if isReply {
            note(answer: hello, at: endpoint, now: now, effects: &effects)
        } else {
            noteCall(hello, at: endpoint, now: now)
            let isSeen = contacts.contacts.contains { $0.answer?.record.id == sender }
            if hello.nonce != 0 {
                send(
                    .helloReply(makeHello(nonce: hello.nonce, seesReceiver: isSeen)),
                    to: endpoint,
                    target: sender,
                    effects: &effects
                )
            }
        }
        if hello.joined, hello.record.configurationHash == own.configurationHash {
            // Not itself, if the member there has yet to admit it: a reply is an admission, a call only an invitation.
            if isReply {
                beginJoining(sender, at: endpoint, effects: &effects, now: now)
            } else if joinPull == nil {
                sendHello(to: endpoint, nonce: contacts.invitationNonce, seesReceiver: true, effects: &effects)
            }
        }
        for index in contacts.contacts.indices where contacts.contacts[index].nextTry <= now {
            callContact(index, now: now, effects: &effects)
        }
        evaluateFormation(now, effects: &effects)
    }

    private mutating func note(
        answer hello: GossipHello,
        at endpoint: Endpoint,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        guard let index = contacts.contacts.firstIndex(where: { $0.nonce == hello.nonce }) else { return }
        let known = contacts.contacts[index].answer
        let isNews = known?.record.id != hello.record.id || known?.record.generation != hello.record.generation
        contacts.contacts[index].foreignCluster = nil
        contacts.contacts[index].answer = SeedAnswer(
            record: hello.record,
            at: now,
            joined: hello.joined,
            seesMe: hello.seesReceiver,
            seedListHash: hello.seedListHash
        )
        guard isNews else { return }
        // It has to learn at once that it was heard, and all others that the list reads otherwise now.
        for other in contacts.contacts.indices where contacts.contacts[other].answer != nil {
            contacts.contacts[other].nextTry = min(
                contacts.contacts[other].nextTry,
                now.advanced(byMilliseconds: 10)
            )
        }
        if hello.record.configurationHash != own.configurationHash {
            let difference = MembershipConfiguration.difference(own: configuration.settings, other: hello.settings)
            effects.append(
                .event(.configurationDiffers(name: hello.record.name, at: endpoint, difference: difference))
            )
        }
    }

    /// A call shows that somebody is there, and what it sees; that this node reaches it is proven by answers only.
    private mutating func noteCall(_ hello: GossipHello, at endpoint: Endpoint, now: Instant) {
        var isContact = false
        for index in contacts.contacts.indices {
            let contact = contacts.contacts[index]
            if let answer = contact.answer, answer.record.id == hello.record.id {
                isContact = true
                contacts.contacts[index].answer?.joined = hello.joined
                contacts.contacts[index].answer?.seesMe = hello.seesReceiver
                contacts.contacts[index].answer?.seedListHash = hello.seedListHash
                if answer.record.generation != hello.record.generation {
                    contacts.contacts[index].answer = nil
                    contacts.contacts[index].nextTry = now
                }
            } else if contact.endpoint == endpoint || contact.endpoint == hello.record.cluster {
                isContact = true
                contacts.contacts[index].nextTry = now
                contacts.contacts[index].backoffMilliseconds = 0
            }
        }
        if !isContact { contacts.wait(endpoint) }
    }

    // MARK: Forming

    /// The seeds, or the remembered peers where there are no others, that would form a cluster with this node.
    private func agreeing(_ now: Instant) -> [SeedAnswer] {
        let byMemory = contacts.isAloneInList
        let listHash = contacts.listHash
        var result: [SeedAnswer] = []
        for contact in contacts.contacts where byMemory || contact.isSeed {
            guard !contact.isSelf, let answer = contact.answer, isFresh(answer, now: now), answer.seesMe,
                !answer.joined, answer.record.configurationHash == own.configurationHash,
                byMemory || answer.seedListHash == listHash,
                !result.contains(where: { $0.record.id == answer.record.id })
            else { continue }
            result.append(answer)
        }
        return result
    }

    /// How many nodes the list has, and whether this node is one of them.
    private var listSize: (total: Int, hasSelf: Bool) {
        if contacts.isAloneInList {
            return (contacts.contacts.count { !$0.isSelf } + 1, true)
        }
        let hasSelf = contacts.contacts.contains { $0.isSelf && $0.isSeed }
        return (contacts.list.count + contacts.unresolvedCount, hasSelf)
    }

    mutating func evaluateFormation(_ now: Instant, effects: inout [MembershipEffect]) {
        guard stage == .seeking else { return }
        contacts.evaluated = now
        guard joinPull == nil else { return }
        let size = listSize
        guard size.hasSelf,
            !contacts.contacts.contains(where: { $0.answer?.joined == true && isFresh($0.answer, now: now) })
        else { return }
        let others = agreeing(now)
        guard others.count + 1 >= size.total / 2 + 1 || configuration.ablations.contains(.majorityToForm) else {
            return
        }
        let isComplete =
            contacts.unresolvedCount == 0
            && contacts.contacts.allSatisfy { $0.isSelf || ($0.answer?.seesMe == true && isFresh($0.answer, now: now)) }
        guard isComplete || now >= formationDeadline else { return }
        found(with: others.map(\.record), now: now, effects: &effects)
    }

    private mutating func found(with others: [MemberRecord], now: Instant, effects: inout [MembershipEffect]) {
        stage = .joined
        own.lifecycle = .up
        own.sequence += 1
        startTimers(now)
        hasChanged = true
        effects.append(.formed)
        for record in others { merge(record, from: record.id, now: now, effects: &effects) }
        for record in others {
            send(
                .form(generation: record.generation),
                to: record.cluster,
                target: record.id,
                entries: [.record(own, ageSeconds: 0)],
                effects: &effects
            )
        }
        tell(own.id, now: now)
        inviteWaiting(effects: &effects)
    }

    /// A node that sees a majority, this one in it, has formed the cluster.
    mutating func receiveForm(
        generation: UInt64,
        from sender: NodeID,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        guard stage == .seeking, generation == own.generation, joinPull == nil,
            let founder = contacts.contacts.first(where: { $0.answer?.record.id == sender })?.answer?.record,
            founder.configurationHash == own.configurationHash
        else { return }
        var others = agreeing(now).map(\.record)
        if !others.contains(where: { $0.id == sender }) { others.append(founder) }
        found(with: others, now: now, effects: &effects)
    }

    private mutating func inviteWaiting(effects: inout [MembershipEffect]) {
        for endpoint in contacts.takeWaiting() {
            sendHello(to: endpoint, nonce: 0, seesReceiver: false, effects: &effects)
        }
        for contact in contacts.contacts where !contact.isSelf {
            // Seeds that are on their way themselves need not wait for their own next try.
            if let record = contact.answer?.record, table[record.id] == nil {
                sendHello(to: contact.endpoint, nonce: 0, seesReceiver: true, effects: &effects)
            }
        }
    }

    private mutating func startTimers(_ now: Instant) {
        // Spread over the interval: nodes that form together do not probe together.
        nextProbe = now.advanced(
            byMilliseconds: UInt64.random(in: 1...configuration.probeIntervalMilliseconds, using: &random)
        )
        nextDownProbe = now.advanced(byMilliseconds: jittered(configuration.downProbeIntervalMilliseconds))
        nextFullExchange = now.advanced(byMilliseconds: jittered(configuration.fullExchangeIntervalMilliseconds))
        contacts.nextLostRetry = now.advanced(byMilliseconds: jittered(configuration.lostSeedRetryMilliseconds))
        latenessNanoseconds = 0
    }

    // MARK: Joining

    private mutating func beginJoining(
        _ peer: NodeID,
        at endpoint: Endpoint,
        effects: inout [MembershipEffect],
        now: Instant
    ) {
        guard joinPull == nil else { return }
        let nonce = makeSequence()
        joinPull = StatePull(
            peer: peer,
            endpoint: endpoint,
            nonce: nonce,
            deadline: now.advanced(byMilliseconds: configuration.seedRetryMilliseconds)
        )
        send(.pull(nonce: nonce, hash: 0, sums: []), to: endpoint, target: peer, effects: &effects)
    }

    mutating func receiveState(
        nonce: UInt32,
        part: UInt8,
        parts: UInt8,
        entries: [GossipEntry],
        from sender: NodeID,
        at endpoint: Endpoint,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        // A member has merged the entries before; a seeking node keeps them until its first state is whole.
        guard stage == .seeking, let pull = joinPull, pull.peer == sender, pull.nonce == nonce else {
            if stage == .joined, parts == 0, let peer = table[sender] {
                effects.append(.pull(from: peer.record.cluster))
            }
            return
        }
        if parts == 0 {
            if case .record(let other, _)? = entries.first {
                guard pull.redirects < configuration.joinRedirectsMax else { return }
                joinPull = nil
                beginJoining(other.id, at: other.cluster, effects: &effects, now: now)
                joinPull?.redirects = pull.redirects + 1
                return
            }
            effects.append(.pull(from: endpoint))
            joinPull?.deadline = now.advanced(byMilliseconds: configuration.seedRetryMostMilliseconds)
            return
        }
        let bit: UInt64 = 1 << UInt64(part)
        guard pull.received & bit == 0 else { return }
        joinPull?.received |= bit
        joinPull?.entries += entries
        guard let joinPull, joinPull.received.nonzeroBitCount == Int(parts) else { return }
        enter(with: joinPull.entries, from: sender, now: now, effects: &effects)
    }

    /// The first whole state is here: the node is part of the cluster and tells all members of itself.
    mutating func enter(
        with entries: [GossipEntry],
        from sender: NodeID,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        stage = .joined
        joinPull = nil
        startTimers(now)
        joinSettle = JoinSettle(now: now)
        hasChanged = true
        for entry in entries where stage == .joined { learn(entry, from: sender, now: now, effects: &effects) }
        // The others know the settled members already.
        gossip.removeAll { table[$0.id]?.record.lifecycle == .up }
        tell(own.id, now: now)
        inviteWaiting(effects: &effects)
    }

    // MARK: As a member

    private mutating func receiveHelloAsMember(
        _ hello: GossipHello,
        at endpoint: Endpoint,
        isReply: Bool,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        let record = hello.record
        let isJoiner = !hello.joined
        if isReply, !isJoiner { contacts.noteMember(nonce: hello.nonce, name: record.name) }
        if isReply && isJoiner {
            // It seeks: it is told where the cluster is, and comes by itself.
            sendHello(to: endpoint, nonce: 0, seesReceiver: true, effects: &effects)
            return
        }
        if record.configurationHash != own.configurationHash {
            let difference = MembershipConfiguration.difference(own: configuration.settings, other: hello.settings)
            effects.append(.event(.configurationDiffers(name: record.name, at: endpoint, difference: difference)))
            if isJoiner {
                refuse(
                    .configuration,
                    detail: configuration.settings,
                    holder: own.id,
                    hello: hello,
                    at: endpoint,
                    effects: &effects
                )
                return
            }
        }
        if let known = table[record.id]?.record, known.isTombstone, known.generation >= record.generation {
            refuse(.forgotten, detail: "", holder: own.id, hello: hello, at: endpoint, effects: &effects)
            return
        }
        if isJoiner, let holder = admitName(of: record, now: now, effects: &effects) {
            effects.append(.event(.rejectedName(record.name, at: endpoint)))
            refuse(.nameTaken, detail: record.name, holder: holder, hello: hello, at: endpoint, effects: &effects)
            return
        }
        merge(record, from: record.id, now: now, effects: &effects)
        guard stage == .joined else { return }
        if !isReply && hello.nonce != 0 {
            send(
                .helloReply(makeHello(nonce: hello.nonce, seesReceiver: true)),
                to: endpoint,
                target: record.id,
                effects: &effects
            )
        }
        compare(hello.hash, with: record.id, at: endpoint, now: now, effects: &effects)
    }

    private mutating func refuse(
        _ reason: GossipRefusal.Reason,
        detail: String,
        holder: NodeID,
        hello: GossipHello,
        at endpoint: Endpoint,
        effects: inout [MembershipEffect]
    ) {
        let refusal = GossipRefusal(nonce: hello.nonce, reason: reason, detail: detail, holder: holder)
        send(.refuse(refusal), to: endpoint, target: hello.record.id, effects: &effects)
    }

    mutating func receiveRefusal(
        _ refusal: GossipRefusal,
        from endpoint: Endpoint,
        effects: inout [MembershipEffect]
    ) {
        // An answer to a hello of this node, and only while it seeks: nobody is talked out of a cluster.
        let isAnswer =
            refusal.nonce == contacts.invitationNonce || contacts.contacts.contains { $0.nonce == refusal.nonce }
        guard stage == .seeking, isAnswer else { return }
        switch refusal.reason {
        case .configuration:
            let difference = MembershipConfiguration.difference(own: configuration.settings, other: refusal.detail)
            stop(.configurationDiffers(difference: difference, at: endpoint), effects: &effects)
        case .nameTaken: stop(.nameTaken(own.name, by: refusal.holder, at: endpoint), effects: &effects)
        case .forgotten: stop(.forgotten, effects: &effects)
        case .foreignCluster: break
        }
    }

    /// Another cluster's datagram changes nothing; a hello is refused with the name, so that the other side can log it.
    mutating func receiveForeign(
        _ datagram: GossipDatagram,
        from endpoint: Endpoint,
        effects: inout [MembershipEffect]
    ) {
        guard stage == .seeking || stage == .joined else { return }
        switch datagram.message {
        case .hello(let hello):
            logForeign(hello.clusterName, at: endpoint, effects: &effects)
            let refusal = GossipRefusal(
                nonce: hello.nonce,
                reason: .foreignCluster,
                detail: configuration.clusterName,
                holder: own.id
            )
            send(.refuse(refusal), to: endpoint, target: datagram.sender, effects: &effects)
        case .refuse(let refusal) where refusal.reason == .foreignCluster && datagram.target == own.id:
            guard let index = contacts.contacts.firstIndex(where: { $0.nonce == refusal.nonce }) else { return }
            if contacts.contacts[index].foreignCluster != refusal.detail {
                contacts.contacts[index].foreignCluster = refusal.detail
                logForeign(refusal.detail, at: endpoint, effects: &effects)
            }
        default: break
        }
    }

    /// One line per address, as long as it is among the last.
    private mutating func logForeign(_ name: String, at endpoint: Endpoint, effects: inout [MembershipEffect]) {
        if foreignLogged.contains(endpoint) { return }
        if foreignLogged.count >= configuration.contactsMax { foreignLogged.removeFirst() }
        foreignLogged.append(endpoint)
        effects.append(.event(.rejectedCluster(name: name, at: endpoint)))
    }

    /// A member calls the seeds that it does not count among the living: over them, the sides of a split meet again.
    mutating func advanceLostSeeds(to now: Instant, effects: inout [MembershipEffect]) {
        guard contacts.nextLostRetry <= now else { return }
        contacts.nextLostRetry = now.advanced(
            byMilliseconds: max(1, jittered(configuration.lostSeedRetryMilliseconds))
        )
        let living = livingOthers
        if living.isEmpty {
            for index in contacts.seeds.indices where contacts.seeds[index].nextResolve != .distantFuture {
                resolveSeed(index, now: now, effects: &effects)
            }
        }
        let alive = aliveCount
        let most = configuration.lostSeedTriesMax
        guard Int.random(in: 0..<max(alive, 1), using: &random) < most else { return }
        let lost = contacts.contacts.filter { contact in
            !contact.isSelf && (contact.isSeed || living.isEmpty)
                && !living.contains {
                    let record = table.peers[$0].record
                    return record.cluster == contact.endpoint || record.id == contact.answer?.record.id
                }
        }
        for contact in lost.shuffled(using: &random).prefix(most) {
            sendHello(to: contact.endpoint, nonce: contact.nonce, seesReceiver: true, effects: &effects)
        }
    }

    // MARK: What the seeking node can say

    var seeking: MembershipSeeking {
        let now = contacts.evaluated ?? started
        let agreed = agreeing(now)
        var result: [MembershipSeeking.Contact] = []
        for seed in contacts.seeds where seed.addresses?.isEmpty ?? true {
            result.append(.init(label: seed.host.description, endpoint: nil, answer: .unresolved))
        }
        for contact in contacts.contacts {
            let answer: MembershipSeeking.Answer
            if contact.isSelf {
                answer = .itself
            } else if let name = contact.foreignCluster {
                answer = .foreign(clusterName: name)
            } else if let given = contact.answer, isFresh(given, now: now) {
                answer =
                    given.joined
                    ? .joined(name: given.record.name)
                    : .seeking(
                        name: given.record.name,
                        agrees: agreed.contains { $0.record.id == given.record.id }
                    )
            } else {
                answer = .silent
            }
            let seed = contacts.seeds.first { $0.addresses?.contains(contact.endpoint) == true }
            result.append(
                .init(
                    label: seed?.host.description ?? contact.endpoint.description,
                    endpoint: contact.endpoint,
                    answer: answer
                )
            )
        }
        let size = listSize
        return MembershipSeeking(
            contacts: result,
            majority: size.hasSelf ? size.total / 2 + 1 : 0,
            agreeing: agreed.count + (size.hasSelf ? 1 : 0)
        )
    }
}
