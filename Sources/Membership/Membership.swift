// Who is in the cluster, and who is well.
//
// The problem: every node must know every other, must notice within seconds that one died, must not be talked into
// that by a sick third, and must find the same answer as all others, with no node in charge. Heartbeats from all to all
// cost the square of the members, and a heartbeat that is missed by one convicts a node that all others hear.
//
// The idea is SWIM (Das, Gupta, Motivala, 2002): each node probes one other per interval, round-robin in an order of
// its own; who does not answer directly is probed through others; who answers nobody is *suspected*, and may refute
// that with a higher incarnation before it is given up. From Lifeguard (Dadgar, Phillips, Currey, 2017): an accusation
// convicts quickly only with independent confirmations, and a node that has reason to doubt its own health probes
// slower. Measured lateness adds to that: a node that stood still blames nobody for what it slept through.
//
// What is known of a member is a record, and records merge (`MemberRecord.merged(with:)`): the owner's statement and
// the others' verdict apart, each by maximum. So the order in which news arrives does not matter, and nodes whose
// hashes over all records are equal know the same. Every ping and ack carries that hash; a difference leads to a pull
// at once, both ways. In a small cluster the origin of an update tells it to all directly, until acknowledged; in a
// large one it travels by gossip. Pulls repair whatever either way loses; in a large cluster they carry the hash by 128
// parts of the id space (`MemberTable.bucketSums`), and only the parts that differ come back.
//
// No call looks at all members, but where much has changed: the table counts as it changes (`MemberTable.pending`,
// `firstExpiry`, `aliveCount`), and whom to gossip to is drawn blindly. A datagram costs the same among 10 and 1,000.
//
// This is a value: datagrams, connections and time come in by calls, what is to be done goes out as effects. Call
// `advance` when `nextDeadline` has come, and look at `nextDeadline` again after every call. On waking late, hand in
// the datagrams that wait before `advance`.

package import ClusterCore

package struct Membership: Sendable {
    /// Where the node stands; the ways out are those of `MembershipPhase`.
    enum Stage: Sendable {
        case seeking
        case joined
        /// Says farewell until all have heard it; takes no news any more.
        case leaving
        /// Stopped: neither sends nor learns.
        case stopped
    }

    let configuration: MembershipConfiguration
    let clusterTag: UInt64
    let started: Instant
    var random: Xoshiro256
    var stage: Stage = .seeking
    var table = MemberTable()
    var contacts: SeedContacts
    /// The node's own record; its liveness is `alive` until it says farewell.
    var own: MemberRecord { didSet { ownHash = own.isTombstone ? 0 : own.hash } }
    private(set) var ownHash: UInt64

    /// Counts since the start.
    package internal(set) var statistics = MembershipStatistics()

    // Joining.
    var joinPull: StatePull?
    var joinSettle: JoinSettle?
    var twin: TwinCheck?

    // Probing.
    /// Doubt in oneself: 0 is well; stretches probes.
    package internal(set) var health = 0
    var probes: [Probe] = []
    var relays: [Relay] = []
    var probeOrder: [NodeID] = []
    var nextProbe: Instant
    var nextDownProbe: Instant
    var nextSequence: UInt32

    // The ring.
    var damping = FlapDamping()

    // Dissemination.
    var gossip: [GossipItem] = []
    var nextGossip: Instant
    var nextFullExchange: Instant
    /// Bytes of news that may go out.
    var gossipPace: RateLimit
    /// Off from when very much news waits until none does: then all have changed, and must be told at once.
    var isGossipPaced = true
    var pullLimit: RateLimit
    var pullAnswerLimit: RateLimit
    /// Addresses of foreign clusters' nodes that were logged, the last ones.
    var foreignLogged: [Endpoint] = []

    /// Where UDP does not pass.
    var streamed = StreamedEndpoints()
    /// Questions whether UDP passes, the oldest first.
    var trials: [DatagramTrial] = []

    // Within one call.
    /// Where the datagram came from that is being answered, and whether over TCP: the answer goes back that way.
    var answering: (endpoint: Endpoint, isStreamed: Bool)?
    /// When the datagram arrived that is being read.
    var arrived: Instant
    /// How old the last datagram was whose age is evidence of a slow node, and when it was read.
    var oldInbox: (ageNanoseconds: UInt64, readAt: Instant)?
    /// Being slow counts against the own health from here on, once per probe interval.
    var slownessCountsFrom: Instant
    /// The longest that a deadline had to wait since the last `advance`, in nanoseconds.
    var latenessNanoseconds: UInt64 = 0
    var hasChanged = false
    private var lastHash: UInt64 = 0
    /// When the hash changed last.
    var hashChanged: Instant
    /// Counts members that were unknown, or known in a lower generation.
    var newMembers: UInt64 = 0
    /// When there is something to do about a member; counts unless `table.isPendingChanged`.
    private var pendingDeadline = Instant.distantFuture

    /// - Parameters:
    ///   - own: the node's record, `joining` and `alive`; its generation must be on disk.
    ///   - seeds: where to look for the cluster. With none, and nothing remembered, the node forms one of its own.
    ///   - remembered: cluster endpoints of the members that an earlier start knew.
    package init(
        configuration: MembershipConfiguration,
        own: MemberRecord,
        seeds: [HostAndPort],
        remembered: [Endpoint] = [],
        now: Instant,
        randomSeed: UInt64
    ) {
        precondition(own.lifecycle == .joining && own.liveness == .alive, "a node starts joining and alive")
        precondition(!own.cluster.address.isUnspecified, "a node advertises an address at which others reach it")
        self.configuration = configuration
        self.clusterTag = GossipDatagram.tag(ofCluster: configuration.clusterName)
        self.own = own
        self.ownHash = own.hash
        self.random = Xoshiro256(seed: randomSeed)
        self.started = now
        self.hashChanged = now
        self.arrived = now
        self.slownessCountsFrom = now
        self.contacts = SeedContacts(
            seeds: seeds,
            remembered: remembered,
            own: own.cluster,
            limit: configuration.contactsMax,
            firstNonce: UInt32.random(in: 1...UInt32.max / 2, using: &random),
            now: now
        )
        self.nextSequence = UInt32.random(in: 1...1_000_000, using: &random)
        self.nextProbe = now
        self.nextDownProbe = now
        self.nextGossip = .distantFuture
        self.nextFullExchange = now
        self.gossipPace = RateLimit(
            perSecond: configuration.gossipBytesPerSecond,
            burst: configuration.gossipBytesBurst,
            now: now
        )
        self.pullLimit = RateLimit(
            perSecond: configuration.pullsPerSecond,
            burst: configuration.pullsBurst,
            now: now
        )
        self.pullAnswerLimit = RateLimit(
            perSecond: configuration.pullAnswersPerSecond,
            burst: configuration.pullAnswersBurst,
            now: now
        )
    }

    // MARK: What there is to know

    /// All members by id, this node included: `down` ones too, tombstones not.
    package var members: [MemberRecord] {
        var result = table.peers.compactMap { $0.record.isTombstone ? nil : $0.record }
        if !own.isTombstone {
            result.insert(own, at: result.firstIndex { $0.id > own.id } ?? result.endIndex)
        }
        return result
    }

    /// The records of members that left or were forgotten, as far as they are kept, by id.
    package var tombstones: [MemberRecord] { table.peers.map(\.record).filter(\.isTombstone) }

    /// What is known of one member, this node and tombstones included.
    package func record(of id: NodeID) -> MemberRecord? { id == own.id ? own : table[id]?.record }

    /// The own record.
    package var ownRecord: MemberRecord { own }

    /// The sum of the hashes of all members' records: equal where the same is known. Tombstones are not in it, since
    /// nodes forget them at slightly different times.
    package var hash: UInt64 { table.hashSum &+ ownHash }

    /// How many members are up and not given up, this node included: as many as are in the ring.
    package var upCount: Int { table.upCount + (own.lifecycle == .up && own.isLiving ? 1 : 0) }

    /// Whether any owner has ever said that it saw three members up.
    package var sawThree: Bool { own.sawThree || table.peers.contains { $0.record.sawThree } }

    /// The seeds by their addresses, and what was heard there last.
    package var seedContacts: [MembershipSeeking.Contact] {
        var result = seeking.contacts.filter { contact in
            guard let endpoint = contact.endpoint else { return true }
            return contacts.seeds.contains { $0.addresses?.contains(endpoint) == true }
        }
        for index in result.indices where result[index].answer == .silent {
            let name = contacts.contacts.first { $0.endpoint == result[index].endpoint }?.memberName
            if let name { result[index].answer = .joined(name: name) }
        }
        return result
    }

    /// Addresses of others to which gossip goes over TCP, since UDP does not pass.
    package var streamedCount: Int { streamed.count }

    package var phase: MembershipPhase {
        switch stage {
        case .seeking: .seeking(seeking)
        case .joined: .joined
        case .leaving, .stopped: .ended
        }
    }

    /// When `advance` has something to do.
    package var nextDeadline: Instant {
        var deadline = Instant.distantFuture
        func fold(_ other: Instant) { deadline = min(deadline, other) }
        switch stage {
        case .stopped: return .distantFuture
        case .leaving:
            for index in table.pending { if let next = table.peers[index].outbox?.next { fold(next) } }
            return deadline
        case .seeking:
            fold(contacts.nextDeadline)
            if let joinPull { fold(joinPull.deadline) }
            if let twin { fold(twin.deadline) }
            let patience = formationDeadline
            if let evaluated = contacts.evaluated {
                if patience > evaluated { fold(patience) }
            } else {
                fold(started)
            }
            return deadline
        case .joined: break
        }
        fold(nextProbe)
        fold(nextDownProbe)
        fold(nextFullExchange)
        fold(contacts.nextLostRetry)
        if !gossip.isEmpty { fold(nextGossip) }
        if let joinSettle { fold(joinSettle.deadline(configuration)) }
        if let twin { fold(twin.deadline) }
        if let until = damping.until { fold(until) }
        if let word = damping.word { fold(word.due) }
        for probe in probes { fold(probe.next) }
        for relay in relays { fold(relay.nackAt ?? relay.endsAt) }
        fold(table.firstExpiry)
        fold(table.isPendingChanged ? foundPendingDeadline : pendingDeadline)
        return deadline
    }

    private var foundPendingDeadline: Instant {
        var deadline = Instant.distantFuture
        let opinions = opinionCount
        for index in table.pending {
            if let next = table.peers[index].outbox?.next { deadline = min(deadline, next) }
            if let next = table.peers[index].verdict?.deadline { deadline = min(deadline, next) }
            if let suspicion = table.peers[index].suspicion {
                deadline = min(deadline, self.deadline(of: suspicion, opinions: opinions))
            }
        }
        return deadline
    }

    // MARK: What comes in

    /// Takes a datagram; what does not decode, is of another cluster or meant for another node is counted and dropped.
    ///
    /// - Parameters:
    ///   - isStreamed: it came over TCP.
    ///   - ageNanoseconds: how long it had lain in the inbox, which tells what arrived in time from what did not, and
    ///     whether this node is slow. 0 where that is not known.
    package mutating func receive(
        _ bytes: UnsafeRawBufferPointer,
        from endpoint: Endpoint,
        isStreamed: Bool = false,
        ageNanoseconds: UInt64 = 0,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        guard stage != .stopped else { return }
        answering = (endpoint, isStreamed)
        defer { answering = nil }
        arrived = Instant(nanoseconds: now.nanoseconds - min(ageNanoseconds, now.nanoseconds))
        noteLateness(now)
        statistics.datagramsReceived &+= 1
        guard let datagram = try? GossipDatagram(decoding: bytes, leavingOut: { table.holds($0, hash: $1) }) else {
            statistics.malformed &+= 1
            return
        }
        if datagram.clusterTag != clusterTag, !configuration.ablations.contains(.clusterName) {
            statistics.foreignCluster &+= 1
            receiveForeign(datagram, from: endpoint, effects: &effects)
            return
        }
        if let target = datagram.target, target != own.id {
            statistics.wrongTarget &+= 1
            return
        }
        noteInboxAge(ageNanoseconds, now: now)
        noteWay(of: datagram, from: endpoint, isStreamed: isStreamed, now: now, effects: &effects)
        receive(datagram, from: endpoint, now: now, effects: &effects)
        finish(now, effects: &effects)
    }

    /// Whether a datagram answers something that went by UDP as well, and in time: what a node reads after a pause comes
    /// all at once, over TCP too, and shows nothing.
    private func isAnswerToBoth(_ datagram: GossipDatagram) -> Bool {
        switch datagram.message {
        case .ack(let probe): probes.contains { $0.sequence == probe.sequence && $0.subject == datagram.sender }
        case .helloReply: true
        default: false
        }
    }

    /// Learns from the way that a datagram took.
    private mutating func noteWay(
        of datagram: GossipDatagram,
        from endpoint: Endpoint,
        isStreamed: Bool,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        let name = table[datagram.sender]?.record.name
        if isStreamed {
            statistics.streamsReceived &+= 1
            if isAnswerToBoth(datagram), streamed.noteStreamed(endpoint, now: now) {
                effects.append(.event(.datagramsBlocked(name: name, at: endpoint)))
            }
        } else {
            if !trials.isEmpty { noteTrials(of: datagram, now: now) }
            if datagram.message.isAnswer, streamed.notePassed(endpoint) {
                effects.append(.event(.datagramsPass(name: name, at: endpoint)))
            }
        }
    }

    private mutating func receive(
        _ datagram: GossipDatagram,
        from endpoint: Endpoint,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        if datagram.sender == own.id {
            receiveFromOwnID(datagram, from: endpoint, now: now, effects: &effects)
            return
        }
        if stage == .leaving {
            if case .updated(let sequence, _) = datagram.message { updated(by: datagram.sender, sequence: sequence) }
            return
        }
        if let index = table.index(of: datagram.sender) {
            if !table.peers[index].isInside, datagram.message.isOfMember { table.edit(index) { $0.isInside = true } }
            let record = table.peers[index].record
            if record.generation == datagram.senderGeneration {
                if record.isTombstone || record.liveness == .down {
                    tellOfItsEnd(index, at: endpoint, now: now, effects: &effects)
                }
            } else if record.generation > datagram.senderGeneration {
                // An older twin, or one whose generation is lost; it decides which when it hears of the newer record.
                tellOfItsEnd(index, at: endpoint, now: now, effects: &effects)
            }
        }
        for entry in datagram.entries {
            guard stage == .seeking || stage == .joined else { return }
            learn(entry, from: datagram.sender, now: now, effects: &effects)
        }
        guard stage == .seeking || stage == .joined else { return }
        switch datagram.message {
        case .ping(let probe):
            let ack = GossipProbe(sequence: probe.sequence, hash: gossipedHash)
            send(.ack(ack), to: endpoint, target: datagram.sender, effects: &effects)
            compare(probe.hash, with: datagram.sender, at: endpoint, now: now, effects: &effects)
        case .ack(let probe):
            acknowledge(probe.sequence, from: datagram.sender, now: now, effects: &effects)
            compare(probe.hash, with: datagram.sender, at: endpoint, now: now, effects: &effects)
        case .pingRequest(let sequence, let subject):
            relay(
                to: subject,
                requester: datagram.sender,
                requesterEndpoint: endpoint,
                sequence: sequence,
                now: now,
                effects: &effects
            )
        case .indirectAck(let sequence):
            indirectlyAcknowledge(sequence, by: datagram.sender)
        case .nack(let sequence):
            for index in probes.indices where probes[index].sequence == sequence {
                probes[index].helpers.removeAll { $0 == datagram.sender }
            }
        case .update(let sequence):
            if stage == .joined, sequence != 0 {
                send(.updated(sequence: sequence, hash: hash), to: endpoint, target: datagram.sender, effects: &effects)
            }
        case .updated(let sequence, let hash):
            updated(by: datagram.sender, sequence: sequence)
            compare(hash, with: datagram.sender, at: endpoint, now: now, effects: &effects)
        case .pull(let nonce, let hash, let sums):
            if stage == .joined {
                answerPull(
                    nonce: nonce,
                    theirs: (hash, sums),
                    to: endpoint,
                    target: datagram.sender,
                    now: now,
                    effects: &effects
                )
            }
        case .state(let nonce, let part, let parts, _):
            receiveState(
                nonce: nonce,
                part: part,
                parts: parts,
                entries: datagram.entries,
                from: datagram.sender,
                at: endpoint,
                now: now,
                effects: &effects
            )
        case .hello(let hello):
            receiveHello(hello, from: datagram.sender, at: endpoint, isReply: false, now: now, effects: &effects)
        case .helloReply(let hello):
            receiveHello(hello, from: datagram.sender, at: endpoint, isReply: true, now: now, effects: &effects)
        case .form(let generation):
            receiveForm(generation: generation, from: datagram.sender, now: now, effects: &effects)
        case .refuse(let refusal):
            receiveRefusal(refusal, from: endpoint, effects: &effects)
        case .exchangeRequest, .exchangeReply:
            statistics.malformed &+= 1
        }
    }

    /// Does what is due. Late by more than a quarter of the probe interval, it first takes back all blame that it laid
    /// while it could not listen.
    package mutating func advance(to now: Instant, effects: inout [MembershipEffect]) {
        guard stage != .stopped else { return }
        noteLateness(now)
        if stage == .joined {
            let milliseconds = latenessNanoseconds / 1_000_000
            if milliseconds > configuration.probeIntervalMilliseconds / 4 {
                recoverFromStall(milliseconds: milliseconds, now: now, effects: &effects)
            }
            advanceRelays(to: now, effects: &effects)
            advanceProbes(to: now, effects: &effects)
            advanceConvictions(to: now, effects: &effects)
            advanceLostSeeds(to: now, effects: &effects)
            advanceDamping(to: now, effects: &effects)
            advanceDissemination(to: now, effects: &effects)
        } else if stage == .seeking {
            advanceSeeking(to: now, effects: &effects)
        }
        advanceTwin(to: now, effects: &effects)
        latenessNanoseconds = 0
        finish(now, effects: &effects)
        precondition(nextDeadline > now, "advance leaves no work behind")
    }

    mutating func noteLateness(_ now: Instant) {
        if configuration.ablations.contains(.ownSlowness) { return }
        latenessNanoseconds = max(latenessNanoseconds, now.nanoseconds(since: nextDeadline))
    }

    /// What ends every call: news goes out, hashes are looked at.
    mutating func finish(_ now: Instant, effects: inout [MembershipEffect]) {
        if stage == .joined || stage == .leaving { flushOutboxes(now, effects: &effects) }
        if hash != lastHash {
            lastHash = hash
            hashChanged = now
        }
        if table.isPendingChanged {
            pendingDeadline = foundPendingDeadline
            table.isPendingChanged = false
        }
        if hasChanged {
            hasChanged = false
            if stage != .seeking { effects.append(.changed) }
        }
    }

    // MARK: Sending

    /// The hash as pings carry it: 0 while the node has nothing to compare.
    var gossipedHash: UInt64 { stage == .joined ? hash : 0 }

    mutating func send(
        _ message: GossipMessage,
        to endpoint: Endpoint,
        target: NodeID?,
        entries: [GossipEntry] = [],
        effects: inout [MembershipEffect]
    ) {
        let datagram = GossipDatagram(
            clusterTag: clusterTag,
            sender: own.id,
            senderGeneration: own.generation,
            target: target,
            message: message,
            entries: entries
        )
        let bytes = datagram.encoded()
        precondition(bytes.count <= configuration.datagramBytesMax, "a datagram of \(bytes.count) bytes")
        emit(bytes, to: endpoint, effects: &effects)
        // Whether UDP passes again shows in an answer to a ping.
        if case .ping = message, streamed.contains(endpoint) {
            statistics.datagramsSent &+= 1
            effects.append(.send(bytes, to: endpoint))
        }
    }

    private mutating func emit(_ bytes: [UInt8], to endpoint: Endpoint, effects: inout [MembershipEffect]) {
        statistics.bytesSent &+= UInt64(bytes.count)
        let isAnswer = answering?.endpoint == endpoint
        if isAnswer ? answering?.isStreamed == true : streamed.contains(endpoint) {
            statistics.streamsSent &+= 1
            effects.append(.stream(bytes, to: endpoint))
        } else {
            statistics.datagramsSent &+= 1
            effects.append(.send(bytes, to: endpoint))
        }
    }

    /// Sends a member a message by UDP, also where that is known not to pass.
    mutating func sendByDatagram(_ message: GossipMessage, to record: MemberRecord, effects: inout [MembershipEffect]) {
        let datagram = GossipDatagram(
            clusterTag: clusterTag,
            sender: own.id,
            senderGeneration: own.generation,
            target: record.id,
            message: message
        )
        let bytes = datagram.encoded()
        statistics.datagramsSent &+= 1
        statistics.bytesSent &+= UInt64(bytes.count)
        effects.append(.send(bytes, to: record.cluster))
    }

    /// Sends a message over TCP, beside whatever went by UDP.
    mutating func stream(
        _ message: GossipMessage,
        to endpoint: Endpoint,
        target: NodeID?,
        effects: inout [MembershipEffect]
    ) {
        guard !streamed.contains(endpoint) else { return }
        let datagram = GossipDatagram(
            clusterTag: clusterTag,
            sender: own.id,
            senderGeneration: own.generation,
            target: target,
            message: message
        )
        statistics.streamsSent &+= 1
        effects.append(.stream(datagram.encoded(), to: endpoint))
    }

    /// Sends one message to several members; it is encoded once.
    mutating func sendAlike(
        _ message: GossipMessage,
        to indices: [Int],
        entries: [GossipEntry],
        effects: inout [MembershipEffect]
    ) {
        guard let first = indices.first else { return }
        let datagram = GossipDatagram(
            clusterTag: clusterTag,
            sender: own.id,
            senderGeneration: own.generation,
            target: table.peers[first].record.id,
            message: message,
            entries: entries
        )
        var bytes = datagram.encoded()
        precondition(bytes.count <= configuration.datagramBytesMax, "a datagram of \(bytes.count) bytes")
        for index in indices {
            GossipDatagram.readdress(&bytes, to: table.peers[index].record.id)
            emit(bytes, to: table.peers[index].record.cluster, effects: &effects)
        }
    }

    mutating func makeSequence() -> UInt32 {
        nextSequence = nextSequence == .max ? 1 : nextSequence + 1
        return nextSequence
    }

    mutating func stop(_ reason: MembershipStopReason, effects: inout [MembershipEffect]) {
        guard stage != .stopped else { return }
        stage = .stopped
        effects.append(.stop(reason))
    }

    func entry(for peer: Peer, now: Instant) -> GossipEntry {
        var age: UInt32 = 0
        if let expires = peer.expires {
            let left = expires.milliseconds(since: now)
            age = UInt32(
                clamping: (configuration.tombstoneMilliseconds - min(left, configuration.tombstoneMilliseconds)) / 1000
            )
        } else if let lost = peer.lost {
            age = UInt32(clamping: now.milliseconds(since: lost) / 1000)
        }
        return .record(peer.record, ageSeconds: age)
    }

    /// A whole number of milliseconds drawn from the upper half of `milliseconds`.
    mutating func jittered(_ milliseconds: UInt64) -> UInt64 {
        UInt64.random(in: (milliseconds - milliseconds / 2)...milliseconds, using: &random)
    }
}
