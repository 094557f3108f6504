package import ClusterCore
import HashRing
package import Membership
package import PeerProtocol
package import Replication
package import Sealing

// The control plane of a node: one thread, one value.
//
//   gossip ──▶ Membership ──▶ ring, voters ──▶ Topology ──▶ workers
//   pings ───▶ ServingLease, Witness, SuccessorLease ──▶ until when this node serves, whom its writes wait for
//   silence ─▶ claims, recorded by a majority ──▶ shards take slices over, or start them empty
//   ring ────▶ the walk: shards teach wanted owners, hand over, dismiss
//
// It decides what concerns whole nodes and tells the shards; what concerns one slice is a shard's own (`ShardPlane`).
// It owns no socket, no clock and no lock: the shell brings events and a `now`, and carries out the effects.

/// Settings of the control plane.
package struct ControlConfiguration: Sendable {
    package var replication = ReplicationConfiguration()
    /// How long after a member went down its slices are copied elsewhere.
    package var fillDelayMilliseconds: UInt64 = 30_000
    /// How long removals from the ring wait where many members go at once; 0: not at all.
    package var brakeMilliseconds: UInt64 = 30_000
    /// How many workers, hence connections of the data lane to every member.
    package var workers = 1
    /// How often deadlines are looked at.
    package var tickMilliseconds: UInt64 = 10
    /// How often held slices are walked towards the ring while something moves.
    package var walkMilliseconds: UInt64 = 5
    /// A turn that comes so much too late was a pause of the process.
    package var stallMilliseconds: UInt64 = 150
    /// How long claims wait for answers before they are made again.
    package var claimMilliseconds: UInt64 = 300
    /// How often slices that nobody holds are looked for.
    package var emptyLookMilliseconds: UInt64 = 50
    /// How often copies without a holder are looked for; one is left when it is found twice.
    package var orphanLookMilliseconds: UInt64 = 2500
    /// How long who handed a slice over waits for the new holder's claim before it takes the slice back.
    package var releasedMilliseconds: UInt64 = 500
    /// How long a holder that a claim was made over tries to be recorded again, refused by all, before it gives up.
    package var suspendedMilliseconds: UInt64 = 5000
    /// How long a member waits for a majority that cannot come, since too many others have forgotten what they recorded,
    /// before it gives up all that it holds.
    package var renounceMilliseconds: UInt64 = 10_000
    /// How long members must stand still before slices that nobody holds are started.
    package var settleMilliseconds: UInt64 = 500
    /// How long a stop hands slices over before it ends anyway.
    package var stopMilliseconds: UInt64 = 10_000
    /// How long clients have to finish what they sent before their connections are closed anyway.
    package var closeMilliseconds: UInt64 = 5000
    /// How many membership events are kept for operators; the oldest goes.
    package var membershipEventsMax = 256
    /// Settings that should be equal on all nodes, as `name=value` with spaces between, for examinations to compare; at
    /// most 255 bytes.
    package var comparedSettings = ""
    /// Whether gossip goes by UDP, and over TCP only where that does not pass.
    package var usesDatagrams = true
    /// How long an examination waits for answers.
    package var examinationMilliseconds: UInt64 = 1000
    /// How often it asks again who has not shown everything.
    package var examinationRoundMilliseconds: UInt64 = 200
    /// Wall clocks that are further apart are worth a finding.
    package var clockDistanceMaxMilliseconds: UInt64 = 1000
    /// Rules that are switched off; none in a node.
    package var ablations: ControlAblations = []

    package init() {}
}

/// What the shell has to do after a call.
package enum ControlEffect {
    case datagram([UInt8], to: Endpoint)
    /// Gossip over TCP: on the connection on which some came from there, or one of its own.
    case stream([UInt8], to: Endpoint)
    /// Look a name up, and answer with `resolved`.
    case resolve(HostAndPort)
    /// Exchange membership over TCP with whoever is there.
    case pull(from: Endpoint)
    /// Workers read this from now on, and connections follow its peers.
    case publish(Topology)
    /// Until when this node may serve.
    case lease(until: Instant)
    case log(ControlEvent)
    /// Keep for the next start.
    case remember(sawThree: Bool, peers: [Endpoint])
    /// The node cannot go on; the text says why and what to do.
    case fail(String)
    /// Take no more clients, and close connections between requests; `clientsClosed` says that it is done.
    case closeClients
    /// Stopped or drained: the process ends with 0.
    case finished
    /// Keep these cluster keys for the next start, and answer with `stored` once they are on disk.
    case storeKeys(KeyRing)
    /// Seal with these cluster keys from now on.
    case useKeys(KeyRing)
}

/// What is worth a line in the log.
package enum ControlEvent: Sendable {
    case membership(MembershipEvent)
    case formed
    case joinedExisting
    case up
    /// The seeds have not answered as they must; the text says which.
    case seeking(String)
    case leaseGained
    case leaseLost
    case ringChanged(hash: UInt64, members: Int)
    case excluding(name: String)
    case excluded(name: String)
    case tookOver(name: String, slices: Int)
    case startedEmpty(slices: Int)
    /// It gave up all that it had of so many slices, since the members of those names have forgotten what they recorded.
    case renounced(members: [String], slices: Int)
    case drainStarted(slices: Int)
    case drainCancelled
    case drained
    case handingOver(slices: Int)
    case stalled(milliseconds: UInt64)
    case unprovable(name: String, slices: Int)
}

package struct ControlPlane {
    /// What is known of one life of a member.
    struct Peer {
        var reference: MemberReference
        /// Nil once the member is gone or was never more than a name in another's table.
        var record: MemberRecord?
        /// A later life of the same node exists, or it left: this one serves nothing any more.
        var isGone = false
        /// This life left or was forgotten: its vote was given back, and is not missed when the node comes again.
        var isVoteReturned = false
        /// It said that it stops: it is given nothing any more.
        var isStopping = false
        /// It has stopped: it serves nothing and claims nothing.
        var isReleased = false
        var isControlConnected = false
        /// Data lanes that work, one bit a worker.
        var dataLanes: UInt64 = 0
        var promise: SuccessorLease
        /// The newest promise that this peer gave this node: its session, and when it was asked for.
        var grant: (session: UInt64, askedAt: Instant)?
        /// This node gave the peer's promises back: copies of the peer's prove nothing by what they had before this,
        /// which is when the next promise came.
        var provesFrom = Instant(nanoseconds: 0)
        var report = NodeReport()
        var downSince: Instant?
        /// Since when this life has been a name in others' tables only.
        var unknownSince: Instant?
        /// When its slices became free, for those who would start them empty.
        var freeSince: Instant?
        var nextTablePull = Instant(nanoseconds: 0)
        var nextHoldingsPull = Instant(nanoseconds: 0)
        var digestDifferences = 0
        /// The cluster keys that it said it has, the one that it seals with first.
        var keys: [ClusterKeyID]?
        /// It helped to replace this node: its answers prolong no lease before its table has been read.
        var mustReadTable = false

        var name: String { record?.name ?? hexadecimal(reference.id.high) }
    }

    enum Phase {
        /// Part of the cluster or on the way there.
        case running
        /// Gives its holdings to in-sync copies. Goes to `closing`.
        case stopping(until: Instant)
        /// Has nothing to give any more; clients are being let go. Goes to `farewell`.
        case closing(isLeaving: Bool, until: Instant)
        /// Everything is handed over; the others are being told.
        case farewell(until: Instant)
        case finished
    }

    package let configuration: ControlConfiguration
    package let shards: ShardTable
    var membership: Membership
    var random: Xoshiro256
    /// By number; 0 is nobody, 1 is this node.
    var peers: [Peer]
    var numbers: [MemberReference: PeerNumber] = [:]
    static let own = PeerNumber(1)

    var lease: ServingLease
    var witness: Witness
    package internal(set) var leaseUntil = Instant(nanoseconds: 0)
    var table = HolderTable()
    /// The table has been compared with a majority's since this node started.
    var tableSources: Set<PeerNumber> = []
    var claims: [PendingClaim] = []
    var claimCounter: UInt64 = 0
    /// Slices whose holder this node is and must be recorded as again, with the epoch to claim.
    var suspended: [Int: UInt32] = [:]
    var reclaimAt = Instant(nanoseconds: 0)
    var suspendedSince: [Int: Instant] = [:]
    /// Since when no majority can come, and the greatest epoch that was known then; nil where one can.
    var hopelessSince: (at: Instant, epoch: UInt32)?
    /// Lives that have forgotten what their members' earlier lives recorded, where this node has given up all that those
    /// might have recorded against: they count against no majority here.
    var renounced: Set<MemberReference> = []
    /// Claims that were given up in this turn.
    var withdrawn: [SliceEpoch] = []

    var ring = Ring(members: [], replicas: 0)
    var ringNumbers: [PeerNumber] = []
    var wanted: [PeerNumber] = []
    var ringPace: RingPace<[RingMember]>
    package internal(set) var brake: RingBrake
    package internal(set) var topology: Topology
    var isTopologyDirty = true
    var publishAt = Instant(nanoseconds: 0)
    var publishedChanges: UInt64 = 0
    var membersChangedAt: Instant

    var phase = Phase.running
    var drain: DrainTask?
    var drainCounter: UInt64 = 0
    /// Drains of this node and of others that have ended, newest last.
    var finishedDrains: [DrainTask] = []
    static let finishedDrainsMax = 16
    var nextSeekingNote: Instant
    /// Orders that this node gave to others and that are not answered yet.
    var orders: [UInt64: (peer: PeerNumber, until: Instant)] = [:]
    var orderCounter: UInt64 = 0
    /// Answers to orders, for the shell.
    package var orderResults: [(id: UInt64, refusal: String)] = []

    var nextPing: Instant
    var nextTick: Instant
    var nextWalk: Instant
    var nextEmptyLook: Instant
    var nextReconciliation: Instant
    /// What the shards and the table were when all agreed, or nothing could be started: nobody needs to look again
    /// before one of them changes.
    var reconciledAt: RecordState?
    var emptyAt: RecordState?

    /// Rises with every change of what the shards serve and of what the table records.
    struct RecordState: Equatable {
        var shards: UInt64
        var table: UInt64
    }
    var nextOrphanLook: Instant
    /// Copies that the last look found without a holder that knows them.
    var orphans: [Orphan: Int] = [:]
    var outcome = Outcomes()
    var journal: MembershipJournal
    /// Nil where the cluster has no key.
    var keyRing: KeyRing?
    /// A ring that is being stored.
    var storingRing: KeyRing?
    /// Waits for answers; nil where none runs.
    var examination: RunningExamination?
    /// Done, for the shell.
    var finishedExamination: Examination?
    private var isStopped = false

    /// Counts since the start.
    package struct Outcomes: Sendable {
        package var takeovers: UInt64 = 0
        package var exclusions: UInt64 = 0
        package var unprovable: UInt64 = 0
        /// How often it gave up all that it held, to end a standstill.
        package var renounced: UInt64 = 0
        package var claimsMade: UInt64 = 0
        package var claimsFailed: UInt64 = 0
        package var ringChanges: UInt64 = 0
        /// Changes of the ring's members that became one with a later change.
        package var ringChangesCoalesced: UInt64 = 0
        package var leasesLost: UInt64 = 0
        package var stalls: UInt64 = 0
    }

    /// `own` is the node's record, joining and alive, with a generation that is on disk.
    package init(
        configuration: ControlConfiguration,
        membership: MembershipConfiguration,
        own: MemberRecord,
        seeds: [HostAndPort],
        remembered: [Endpoint],
        shards: ShardTable,
        now: Instant,
        randomSeed: UInt64
    ) {
        self.configuration = configuration
        self.shards = shards
        journal = MembershipJournal(entriesMax: configuration.membershipEventsMax)
        brake = RingBrake(milliseconds: configuration.brakeMilliseconds)
        var membership = membership
        membership.ringAbsenceMilliseconds = configuration.fillDelayMilliseconds
        self.membership = Membership(
            configuration: membership,
            own: own,
            seeds: seeds,
            remembered: remembered,
            now: now,
            randomSeed: randomSeed
        )
        random = Xoshiro256(seed: randomSeed ^ 0x636f_6e74_726f_6c00)
        let promise = SuccessorLease(
            promiseEndedMilliseconds: configuration.replication.promiseEndedMilliseconds
        )
        let nobody = Peer(
            reference: MemberReference(id: NodeID(high: 0, low: 0), generation: 0),
            record: nil,
            promise: promise
        )
        let reference = MemberReference(id: own.id, generation: own.generation)
        peers = [nobody, Peer(reference: reference, record: own, promise: promise)]
        numbers[reference] = Self.own
        lease = ServingLease(
            own: Self.own,
            lengthMilliseconds: configuration.replication.servingLeaseMilliseconds
        )
        witness = Witness(now: now)
        membersChangedAt = now
        nextPing = now
        nextTick = now
        nextWalk = now
        ringPace = RingPace(now: now)
        nextSeekingNote = now.advanced(byMilliseconds: 1000)
        nextEmptyLook = now
        nextReconciliation = now
        nextOrphanLook = now
        topology = Topology(
            version: 0,
            own: Self.own,
            ringHash: 0,
            peers: [],
            holders: table.holders,
            epochs: table.epochs,
            copies: 1,
            wanted: Array(repeating: .none, count: Slice.count)
        )
    }

    // MARK: - Events

    /// Gossip; `isStreamed`: over TCP. `ageNanoseconds`: how long it had lain in the socket.
    package mutating func receive(
        datagram: UnsafeRawBufferPointer,
        from endpoint: Endpoint,
        isStreamed: Bool = false,
        ageNanoseconds: UInt64 = 0,
        now: Now,
        outbox: inout Outbox,
        effects: inout [ControlEffect]
    ) {
        var words: [MembershipEffect] = []
        membership.receive(
            datagram,
            from: endpoint,
            isStreamed: isStreamed,
            ageNanoseconds: ageNanoseconds,
            now: now.instant,
            effects: &words
        )
        follow(words, now, &outbox, &effects)
    }

    package mutating func resolved(
        _ seed: HostAndPort,
        to addresses: [Endpoint],
        now: Now,
        outbox: inout Outbox,
        effects: inout [ControlEffect]
    ) {
        var words: [MembershipEffect] = []
        membership.resolved(seed, to: addresses, now: now.instant, effects: &words)
        follow(words, now, &outbox, &effects)
    }

    /// The bytes that begin a membership exchange over TCP.
    package func exchangeRequest(now: Instant) -> [UInt8] { membership.exchangeRequest(now: now) }

    /// The other side's part of a membership exchange; returns the answer, empty where none is due.
    package mutating func exchange(
        with bytes: UnsafeRawBufferPointer,
        now: Now,
        outbox: inout Outbox,
        effects: inout [ControlEffect]
    ) -> [UInt8] {
        var words: [MembershipEffect] = []
        let answer = membership.exchange(with: bytes, now: now.instant, effects: &words)
        follow(words, now, &outbox, &effects)
        return answer
    }

    /// A connection that this node opened to a member works, or works no longer.
    package mutating func connection(
        to peer: PeerNumber,
        lane: Hello.Lane,
        worker: UInt8,
        isUp: Bool,
        now: Now,
        outbox: inout Outbox,
        effects: inout [ControlEffect]
    ) {
        guard peer != .none, Int(peer.value) < peers.count, peer != Self.own else { return }
        let index = Int(peer.value)
        let wasReachable = isReachable(index)
        switch lane {
        case .control: peers[index].isControlConnected = isUp
        case .data:
            let bit = UInt64(1) << UInt64(worker & 63)
            if isUp { peers[index].dataLanes |= bit } else { peers[index].dataLanes &= ~bit }
        case .exchange, .gossip: return
        }
        let isReachable = isReachable(index)
        if isReachable { peers[index].promise.reachable() }
        if wasReachable, !isReachable {
            // What was on the way is lost: the peer must learn again before it counts.
            peers[index].promise.broken()
            if let record = peers[index].record {
                var words: [MembershipEffect] = []
                membership.reportUnreachable(record.id, now: now.instant, effects: &words)
                follow(words, now, &outbox, &effects)
            }
        } else if isReachable, !wasReachable, let record = peers[index].record {
            membership.reportReachable(record.id, now: now.instant)
        }
        tellShards(of: index)
        if wasReachable, !isReachable { exclude(now, &outbox, &effects) }
        if lane == .control, isUp {
            ping(only: peer, now.instant, &outbox)
            sendKeys(to: index, &outbox)
        }
    }

    /// A connection that the peer opened to a thread of this node has ended, or begins.
    ///
    /// Between the two the peer may have said that it gave up a copy, and nobody heard: no copy there counts before it
    /// has learned again.
    package mutating func interruption(
        from peer: PeerNumber,
        now: Now,
        outbox: inout Outbox,
        effects: inout [ControlEffect]
    ) {
        guard peer != .none, Int(peer.value) < peers.count, peer != Self.own else { return }
        let index = Int(peer.value)
        guard peers[index].promise.isGranting || peers[index].promise.isExcluding else { return }
        peers[index].promise.broken()
        tellShards(of: index)
        exclude(now, &outbox, &effects)
    }

    /// A word from a shard.
    package mutating func receive(
        _ signal: Outbox.Signal,
        now: Now,
        outbox: inout Outbox,
        effects: inout [ControlEffect]
    ) {
        switch signal {
        case .handedOver(let entry, let from):
            claimHandedOver(entry, from: from, now, &outbox, &effects)
        case .returned(let entry):
            claimAgain(entry)
        case .lost:
            break
        case .promised(let peer):
            guard Int(peer.value) < peers.count else { return }
            peers[Int(peer.value)].promise.promised(now: now.instant)
        }
    }

    /// A control frame from a member; `link` is the connection that it came on, where the shell can answer on it.
    package mutating func receive(
        _ message: ControlMessage,
        from peer: PeerNumber,
        link: UInt32? = nil,
        now: Now,
        outbox: inout Outbox,
        effects: inout [ControlEffect]
    ) {
        guard peer != .none, peer != Self.own, Int(peer.value) < peers.count else { return }
        let index = Int(peer.value)
        guard !peers[index].isGone else { return }
        switch message {
        case .offer(let slice, _, let stream):
            if case .running = phase {
                forwardToShard(message, slice, peer, now, &outbox)
            } else {
                outbox.send(.refusal(slice: slice, stream: stream, epoch: 0), to: peer)
            }
        case .learn(let slice, _, _), .refusal(let slice, _, _), .adopt(let slice, _, _, _, _, _):
            forwardToShard(message, slice, peer, now, &outbox)
        case .claim(let claim): answer(claim, from: peer, now, &outbox, &effects)
        case .claimReply(let reply):
            receive(reply, from: peer, now, &outbox, &effects)
            sayWithdrawn(&outbox)
        case .withdraw(let entries):
            for entry in entries { table.withdraw(slice: entry.slice, epoch: entry.epoch, holder: peer) }
        case .leasePing(let number, let holdings, let report):
            receivePing(number, holdings, report, from: peer, now, &outbox)
        case .leasePong(let number, let fence, let session):
            receivePong(number, fence, session, from: peer, now, &outbox, &effects)
        case .promiseRecall(let session):
            // Whoever asks waits for this node no longer, come what may: were these promises kept, it would only have
            // to wait until they end.
            peers[index].grant = nil
            peers[index].provesFrom = .distantFuture
            outbox.send(.promiseReturn(session: session), to: peer)
        case .promiseReturn(let session):
            peers[index].promise.returned(session: session)
            exclude(now, &outbox, &effects)
        case .holdingsPull:
            var entries: [SliceEpoch] = []
            shards.withEach { $0.holdings { entries.append($0) } }
            outbox.send(.holdings(entries, claimed: openClaims()), to: peer)
        case .holdings(let entries, let claimed):
            receiveHoldings(entries, claimed, from: peer, now, &outbox, &effects)
        case .tablePull:
            sendTable(to: peer, &outbox)
            witness.unfence(peer)
        case .table(let members, let epochs, let holders):
            receiveTable(members, epochs, holders, from: peer, now, &outbox, &effects)
        case .stopping:
            peers[index].isStopping = true
            tellShards(of: index)
        case .release:
            peers[index].isReleased = true
            peers[index].freeSince = now.instant
            peers[index].promise.broken()
            tellShards(of: index)
            exclude(now, &outbox, &effects)
            takeOverFromSilent(now, &outbox, &effects)
        case .order(let id, let order):
            let refusal = carryOut(order, now, &outbox, &effects)
            outbox.send(.orderReply(id: id, refusal: refusal), to: peer)
        case .orderReply(let id, let refusal):
            if orders.removeValue(forKey: id) != nil { orderResults.append((id, refusal)) }
        case .keyRing(let ring): receive(ring, from: peer, &outbox, &effects)
        case .examine(let number, let round):
            answerExamination(number, round, from: peer, link: link, now, &outbox, &effects)
        case .examined(let reply): receive(reply, from: peer, now)
        }
        publishIfDue(now, &effects)
    }

    private func forwardToShard(
        _ message: ControlMessage,
        _ slice: Int,
        _ peer: PeerNumber,
        _ now: Now,
        _ outbox: inout Outbox
    ) {
        let context = context(now)
        let index = shards.index(of: slice)
        let shard = shards.lock(index)
        shard.pointee.receive(message, from: peer, context: context, outbox: &outbox)
        shards.unlock(index)
    }

    /// The number of the member that a connection's first frame names; nobody where it is not known yet.
    package func number(of hello: Hello) -> PeerNumber {
        guard let number = numbers[MemberReference(id: hello.node, generation: hello.generation)],
            !peers[Int(number.value)].isGone, peers[Int(number.value)].record != nil
        else { return .none }
        return number
    }

    func context(_ now: Now) -> Context { Context(now: now, leaseUntil: leaseUntil) }

    // MARK: - Time

    package var nextDeadline: Instant {
        if case .finished = phase { return .distantFuture }
        var next = min(membership.nextDeadline, nextTick, nextPing)
        if let examination { next = min(next, examination.nextRound) }
        if isTopologyDirty || table.changes != publishedChanges { next = min(next, publishAt) }
        return next
    }

    package mutating func advance(to now: Now, outbox: inout Outbox, effects: inout [ControlEffect]) {
        if case .finished = phase { return }
        let lateness = now.instant.milliseconds(since: nextTick)
        if lateness >= configuration.stallMilliseconds {
            // The process stood still: what others sent meanwhile may lie unread, so nobody is called silent for it.
            witness.wokeUp(now: now.instant)
            outcome.stalls += 1
            effects.append(.log(.stalled(milliseconds: lateness)))
        }
        var words: [MembershipEffect] = []
        membership.advance(to: now.instant, effects: &words)
        follow(words, now, &outbox, &effects)
        if nextPing <= now.instant {
            nextPing = now.instant.advanced(byMilliseconds: configuration.replication.pingMilliseconds)
            refreshReport()
            ping(only: nil, now.instant, &outbox)
        }
        if let examination, examination.nextRound <= now.instant { advanceExamination(now, &outbox, &effects) }
        if nextTick <= now.instant {
            nextTick = now.instant.advanced(byMilliseconds: configuration.tickMilliseconds)
            refreshLease(now, &effects)
            tick(now, &outbox, &effects)
        }
        publishIfDue(now, &effects)
    }

    private mutating func tick(_ now: Now, _ outbox: inout Outbox, _ effects: inout [ControlEffect]) {
        var lateness = ShardPlane.Lateness()
        let context = context(now)
        shards.withEach {
            $0.advance(
                context: context,
                writeDeadlineMilliseconds: configuration.replication.writeDeadlineMilliseconds,
                lateness: &lateness,
                outbox: &outbox
            )
        }
        for index in peers.indices where index > 1 {
            if lateness.late.contains(PeerNumber(UInt32(index))) {
                if peers[index].promise.isGranting {
                    peers[index].promise.late()
                    effects.append(.log(.excluding(name: peers[index].name)))
                }
            } else if peers[index].promise.isExcluding {
                peers[index].promise.caughtUp()
                tellShards(of: index)
            }
        }
        exclude(now, &outbox, &effects)
        refreshRing(now, &effects)
        retireUnknown(now, &outbox)
        takeOverFromSilent(now, &outbox, &effects)
        renounceWithoutHope(now, &outbox, &effects)
        takeBack(now)
        reconcileOwnRecord(now)
        leaveOrphans(now, &outbox)
        startEmpty(now, &outbox, &effects)
        reclaim(now, &outbox, &effects)
        advanceClaims(now, &outbox, &effects)
        sayWithdrawn(&outbox)
        if nextWalk <= now.instant { walk(now, &outbox) }
        noteSeeking(now, &effects)
        advanceLifecycle(now, &outbox, &effects)
        for (id, order) in orders where order.until <= now.instant || peers[Int(order.peer.value)].isGone {
            orders[id] = nil
            orderResults.append((id, "\(peers[Int(order.peer.value)].name) did not answer"))
        }
    }

    private mutating func walk(_ now: Now, _ outbox: inout Outbox) {
        guard case .running = phase else { return }
        nextWalk = now.instant.advanced(byMilliseconds: configuration.walkMilliseconds)
        let context = context(now)
        var budget = configuration.replication.learnersMax
        shards.withEach { budget -= $0.learnerCount }
        guard budget > 0 else { return }
        shards.withEach { $0.walk(topology: topology, budget: &budget, context: context, outbox: &outbox) }
    }

    /// A node that waits for its seeds says so, now and then.
    private mutating func noteSeeking(_ now: Now, _ effects: inout [ControlEffect]) {
        guard nextSeekingNote <= now.instant, case .seeking(let seeking) = membership.phase else { return }
        nextSeekingNote = now.instant.advanced(byMilliseconds: 10_000)
        effects.append(.log(.seeking(Self.text(of: seeking))))
    }

    // MARK: - Membership's words

    mutating func follow(
        _ words: [MembershipEffect],
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) {
        for word in words {
            switch word {
            case .send(let bytes, let endpoint): effects.append(.datagram(bytes, to: endpoint))
            case .stream(let bytes, let endpoint): effects.append(.stream(bytes, to: endpoint))
            case .resolve(let seed): effects.append(.resolve(seed))
            case .pull(let endpoint): effects.append(.pull(from: endpoint))
            case .changed: refreshMembers(now, &outbox, &effects)
            case .event(let event):
                note(event, now, &effects)
            case .stop(let reason):
                guard !isStopped else { continue }
                isStopped = true
                effects.append(.fail(reason.description))
            case .formed: effects.append(.log(.formed))
            case .joinedExisting: effects.append(.log(.joinedExisting))
            }
        }
    }

    /// Keeps an event for operators, and logs it.
    mutating func note(_ event: MembershipEvent, _ now: Now, _ effects: inout [ControlEffect]) {
        journal.append(event, unixMilliseconds: now.unixMilliseconds)
        effects.append(.log(.membership(event)))
    }
}
