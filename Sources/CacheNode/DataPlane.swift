import CacheStore
package import ClusterCore
import MemcacheProtocol
package import PeerProtocol
package import Replication

// A worker's part of the node: clients' requests on their way to the slice's holder and back.
//
//   client bytes ─▶ ClientSession ─▶ route by topology ─┬─▶ own shard ──────────────┬─▶ answer in the client's order
//                                                       ├─▶ another node ─▶ response ┤
//                                                       └─▶ parked: nobody serves it ┘   (tried again, then given up)
//
// A request that leaves the call stack lives in one table until it is answered. Being wrong about who holds a slice
// costs a hop: the asked node says who does. While nobody serves a slice (a cut over, a crash that is not yet certain)
// requests wait here; a read that waited too long is a miss, a write an error.

/// Counters of one worker, in memcached's terms: where the client is connected.
package struct CommandCounters: Hashable, Sendable {
    package var getHits: UInt64 = 0
    package var getMisses: UInt64 = 0
    package var touchHits: UInt64 = 0
    package var touchMisses: UInt64 = 0
    package var sets: UInt64 = 0
    package var deleteHits: UInt64 = 0
    package var deleteMisses: UInt64 = 0
    package var incrementHits: UInt64 = 0
    package var incrementMisses: UInt64 = 0
    package var decrementHits: UInt64 = 0
    package var decrementMisses: UInt64 = 0
    package var casHits: UInt64 = 0
    package var casMisses: UInt64 = 0
    package var casBadValue: UInt64 = 0
    package var flushes: UInt64 = 0
    package var tooLarge: UInt64 = 0
    package var noMemory: UInt64 = 0
    package var forwarded: UInt64 = 0
    package var parked: UInt64 = 0
    package var timedOut: UInt64 = 0
    package var ambiguous: UInt64 = 0
    package var served: UInt64 = 0
    /// Of those, writes that were sent in an epoch that is over, and refused.
    package var outdated: UInt64 = 0

    package init() {}

    package mutating func add(_ other: CommandCounters) {
        getHits += other.getHits
        getMisses += other.getMisses
        touchHits += other.touchHits
        touchMisses += other.touchMisses
        sets += other.sets
        deleteHits += other.deleteHits
        deleteMisses += other.deleteMisses
        incrementHits += other.incrementHits
        incrementMisses += other.incrementMisses
        decrementHits += other.decrementHits
        decrementMisses += other.decrementMisses
        casHits += other.casHits
        casMisses += other.casMisses
        casBadValue += other.casBadValue
        flushes += other.flushes
        tooLarge += other.tooLarge
        noMemory += other.noMemory
        forwarded += other.forwarded
        parked += other.parked
        timedOut += other.timedOut
        ambiguous += other.ambiguous
        served += other.served
        outdated += other.outdated
    }
}

/// Bounds of a worker.
package struct DataPlaneConfiguration: Sendable {
    package var itemBytesMax = 1024 * 1024
    /// How long a request may wait for a holder before it is given up.
    package var requestMilliseconds: UInt64 = 5000
    /// How often parked requests are tried again.
    package var retryMilliseconds: UInt64 = 2
    /// Requests of one worker that wait for other nodes; beyond it sessions stop reading.
    package var requestsMax = 65_536

    package init() {}
}

package struct DataPlane: ~Copyable {
    package let worker: UInt16
    package let shards: ShardTable
    package let configuration: DataPlaneConfiguration
    package private(set) var topology: Topology
    /// 1 for each slice that this node holds by the topology: what every request looks at.
    let isOwn: UnsafeMutablePointer<UInt8>
    /// The keys of a batch of requests between their parsing and their execution.
    let batch: UnsafeMutablePointer<BatchKey>
    /// In memory of its own, as in `ClientSession.State`.
    let gathered: UnsafeMutablePointer<GatheredKeys>
    /// For each shard, the first key of the batch in it; -1 where there is none.
    let batchHeads: UnsafeMutablePointer<Int32>
    /// Buffers for sessions that have something to say.
    private var buffers = BufferPool()
    /// Members to which this worker has a connection that works.
    private var connected = PeerMarks()
    var requests = RequestTable()
    private var parked: [UInt64] = []
    private var retryAt = Instant.distantFuture
    private var timeoutCheckAt = Instant.distantFuture
    /// Counts of this worker, in memory of its own; see `ClientSession.State`.
    let counts: UnsafeMutablePointer<CommandCounters>
    /// Sessions that wait because too many requests are under way.
    var starved: [ClientSession] = []
    /// Sessions that have new output, or input that can be taken again; the shell empties it after each turn.
    package var touched: [ClientSession] = []
    /// Answers `stats` with what only the shell and the control plane know.
    package var statistics: (any StatisticsSource)?

    package init(worker: UInt16, shards: ShardTable, configuration: DataPlaneConfiguration, topology: Topology) {
        self.worker = worker
        self.shards = shards
        self.configuration = configuration
        self.topology = topology
        isOwn = .allocate(capacity: Slice.count)
        isOwn.initialize(repeating: 0, count: Slice.count)
        batch = .allocate(capacity: BatchKey.countMax)
        gathered = .allocate(capacity: 1)
        gathered.initialize(to: GatheredKeys())
        batchHeads = .allocate(capacity: shards.count)
        batchHeads.initialize(repeating: -1, count: shards.count)
        counts = .allocate(capacity: 1)
        counts.initialize(to: CommandCounters())
        markOwn()
    }

    deinit {
        counts.deallocate()
        batchHeads.deallocate()
        gathered.pointee.deallocate()
        gathered.deallocate()
        batch.deallocate()
        isOwn.deallocate()
    }

    /// What clients of this worker asked for so far.
    package internal(set) var counters: CommandCounters {
        get { counts.pointee }
        nonmutating set { counts.pointee = newValue }
    }

    private func markOwn() {
        for slice in 0..<Slice.count { isOwn[slice] = topology.holders[slice] == topology.own ? 1 : 0 }
    }

    /// Lends a session room for its answers.
    mutating func equip(_ session: ClientSession) {
        buffers.equip(&session.state.pointee.output.buffer)
    }

    /// Takes back the room of a session that has said all. The shell calls it after it has sent.
    package mutating func reclaim(_ session: ClientSession) {
        guard session.state.pointee.output.isEmpty, session.state.pointee.output.buffer.capacityBytes > 0 else {
            return
        }
        buffers.reclaim(&session.state.pointee.output.buffer)
    }

    /// Lends a connection a buffer for requests that have come in part, if it has none.
    package mutating func equip(_ input: inout ByteBuffer) { buffers.equip(&input) }

    /// Takes an empty buffer of a connection back.
    package mutating func reclaim(_ input: inout ByteBuffer) {
        if input.capacityBytes > 0 { buffers.reclaim(&input) }
    }

    // MARK: - The shell's news

    /// A new topology: whoever waits for a node that holds the slice no longer is sent on.
    package mutating func adopt(_ topology: Topology, context: Context, outbox: inout Outbox) {
        guard topology.version != self.topology.version else { return }
        executeGathered(context: context, outbox: &outbox)
        self.topology = topology
        markOwn()
        retry(context: context, outbox: &outbox)
        for id in requests.identifiers {
            guard let request = requests[id], case .forwarded(let peer) = request.state else { continue }
            guard topology.holders[request.slice] != peer, topology.holders[request.slice] != .none else { continue }
            // The node that was asked lost the slice and has not said so: it is gone, or it sleeps.
            guard topology.peer(peer) == nil || !connected.contains(peer) || request.isOverdue(context.now.instant)
            else { continue }
            lost(id, context: context, outbox: &outbox)
        }
    }

    package mutating func connected(to peer: PeerNumber, context: Context, outbox: inout Outbox) {
        connected.insert(peer)
        retry(context: context, outbox: &outbox)
    }

    /// The connection to a member broke: what was on it has an unknown fate.
    package mutating func disconnected(from peer: PeerNumber, context: Context, outbox: inout Outbox) {
        connected.remove(peer)
        for id in requests.identifiers {
            guard let request = requests[id], case .forwarded(peer) = request.state else { continue }
            lost(id, context: context, outbox: &outbox)
        }
    }

    package func isConnected(to peer: PeerNumber) -> Bool { connected.contains(peer) }

    /// Requests that wait for copies, other nodes or a holder.
    package var requestCount: Int { requests.count }

    // MARK: - Requests from clients

    /// Sends one request on its way. The answer is written by `format` into the session's row.
    mutating func submit(
        _ frame: RequestFrame,
        hash: UInt64,
        format: ReplyFormat,
        session: ClientSession,
        context: Context,
        outbox: inout Outbox
    ) {
        let slice = frame.verb == .flush ? frame.slice : Slice.index(of: hash)
        guard isOwn[slice] != 0 else {
            let id = add(frame, slice, format, session, .parked, context)
            began(id)
            forward(id, to: topology.holders[slice], context: context, outbox: &outbox)
            return
        }
        let id = requests.nextIdentifier
        let index = shards.index(of: slice)
        let shard = shards.lock(index)
        let execution = shard.pointee.execute(
            frame,
            hash: hash,
            origin: Origin(worker: worker, link: 0, id: id),
            context: context,
            outbox: &outbox
        )
        settle(execution, index, id, frame, slice, format, session, context, &outbox)
    }

    /// Does what follows from an execution on this node, and gives the lock of the shard back.
    mutating func settle(
        _ execution: Execution,
        _ index: Int,
        _ id: UInt64,
        _ frame: RequestFrame,
        _ slice: Int,
        _ format: ReplyFormat,
        _ session: ClientSession,
        _ context: Context,
        _ outbox: inout Outbox
    ) {
        switch execution {
        case .done(let outcome):
            // The outcome may point into the shard.
            respond(frame.key, ReplyView(outcome), format, session)
            shards.unlock(index)
        case .flushed:
            shards.unlock(index)
            respond(frame.key, ReplyView(.flushed), format, session)
        case .busy:
            shards.unlock(index)
            respond(frame.key, ReplyView(.busy), format, session)
        case .pending:
            shards.unlock(index)
            let added = add(frame, slice, format, session, .executing, context)
            precondition(added == id, "request \(added) was executed as \(id)")
        case .elsewhere(let hint):
            shards.unlock(index)
            let id = add(frame, slice, format, session, .parked, context)
            began(id)
            forward(id, to: hint, context: context, outbox: &outbox)
        }
    }

    mutating func add(
        _ frame: RequestFrame,
        _ slice: Int,
        _ format: ReplyFormat,
        _ session: ClientSession,
        _ state: RequestState,
        _ context: Context
    ) -> UInt64 {
        let place = format.isWritten ? session.reserve() : nil
        if timeoutCheckAt == .distantFuture { timeoutCheckAt = context.now.instant.advanced(byMilliseconds: 100) }
        let request = PendingRequest(
            session: session,
            place: place,
            format: format,
            slice: slice,
            verb: frame.verb,
            state: state,
            since: context.now.instant,
            deadline: context.now.instant.advanced(byMilliseconds: configuration.requestMilliseconds)
        )
        if case .executing = state {
            // The answer needs the key at most.
            return requests.insert(
                request,
                frame: RequestFrame(id: 0, ringHash: 0, epoch: 0, verb: frame.verb, key: frame.key)
            )
        }
        return requests.insert(request, frame: frame)
    }

    /// Counts a write that leaves this node, for the order of its session.
    mutating func began(_ id: UInt64) {
        guard let request = requests[id], !request.verb.isRead else { return }
        request.session._withUnsafeGuaranteedRef { $0.began(request.slice) }
        requests[id]?.isOrdered = true
    }

    /// Sends a request to the node that is said to hold its slice, or parks it.
    mutating func forward(_ id: UInt64, to peer: PeerNumber, context: Context, outbox: inout Outbox) {
        guard let request = requests[id] else { return }
        guard peer != .none, peer != topology.own, connected.contains(peer) else {
            park(id, context.now.instant)
            return
        }
        // A new number for every try: a late answer to an earlier one finds nothing.
        let fresh = requests.renumber(id)
        requests[fresh]?.state = .forwarded(to: peer)
        requests[fresh]?.sentAt = context.now.instant
        let bytes = request.bytes
        bytes.storeBytes(of: fresh.littleEndian, toByteOffset: RequestFrame.idOffset, as: UInt64.self)
        bytes.storeBytes(of: topology.ringHash.littleEndian, toByteOffset: RequestFrame.ringHashOffset, as: UInt64.self)
        bytes.storeBytes(
            of: max(topology.epochs[request.slice], request.epoch).littleEndian,
            toByteOffset: RequestFrame.epochOffset,
            as: UInt32.self
        )
        counts.pointee.forwarded += 1
        outbox.send(to: .peer(peer)) { $0.append(UnsafeRawBufferPointer(bytes)) }
    }

    private mutating func park(_ id: UInt64, _ now: Instant) {
        requests[id]?.state = .parked
        requests[id]?.attempts = 0
        parked.append(id)
        counts.pointee.parked += 1
        retryAt = min(retryAt, now.advanced(byMilliseconds: configuration.retryMilliseconds))
    }

    /// What was asked may or may not have happened.
    private mutating func lost(_ id: UInt64, context: Context, outbox: inout Outbox) {
        guard let request = requests[id] else { return }
        if request.verb.isRepeatable {
            park(id, context.now.instant)
        } else {
            counts.pointee.ambiguous += 1
            finish(id, ReplyView(.unknown))
        }
    }

    /// Tries every parked request again, oldest first.
    private mutating func retry(context: Context, outbox: inout Outbox) {
        let waiting = parked
        parked.removeAll(keepingCapacity: true)
        retryAt = .distantFuture
        for id in waiting {
            guard let request = requests[id], case .parked = request.state else { continue }
            if request.deadline <= context.now.instant {
                counts.pointee.timedOut += 1
                finish(id, ReplyView(request.verb.isRead ? .miss : .unknown), timedOut: true)
                continue
            }
            dispatch(id, request, context: context, outbox: &outbox)
        }
    }

    /// One try of a request that is in the table.
    private mutating func dispatch(
        _ id: UInt64,
        _ request: PendingRequest,
        context: Context,
        outbox: inout Outbox
    ) {
        let holder = topology.holders[request.slice]
        guard holder == topology.own else {
            forward(id, to: holder, context: context, outbox: &outbox)
            return
        }
        executeHere(id, request, context: context, outbox: &outbox)
    }

    private mutating func executeHere(
        _ id: UInt64,
        _ request: PendingRequest,
        context: Context,
        outbox: inout Outbox
    ) {
        let body = UnsafeRawBufferPointer(rebasing: request.bytes[Frame.headerBytes...])
        guard let frame = try? RequestFrame(body) else {
            preconditionFailure("an own request cannot be read back")
        }
        let hash = KeyHash.hash(frame.key)
        let index = shards.index(of: request.slice)
        let shard = shards.lock(index)
        let execution = shard.pointee.execute(
            frame,
            hash: hash,
            origin: Origin(worker: worker, link: 0, id: id),
            context: context,
            outbox: &outbox
        )
        switch execution {
        case .done(let outcome):
            finish(id, ReplyView(outcome))
            shards.unlock(index)
        case .flushed:
            shards.unlock(index)
            finish(id, ReplyView(.flushed))
        case .busy:
            shards.unlock(index)
            finish(id, ReplyView(.busy))
        case .pending:
            shards.unlock(index)
            requests[id]?.state = .executing
        case .elsewhere(let hint):
            shards.unlock(index)
            forward(id, to: hint, context: context, outbox: &outbox)
        }
    }

    // MARK: - Answers

    /// A write that waited for its copies is through, or lost.
    package mutating func complete(_ completion: Outbox.Completion, context: Context, outbox: inout Outbox) {
        if completion.origin.link != 0 {
            outbox.send(to: .link(completion.origin.link)) { buffer in
                completion.reply.value.withUnsafeBytes { value in
                    ResponseFrame(
                        id: completion.origin.id,
                        status: completion.reply.status,
                        number: completion.reply.number,
                        flags: completion.reply.flags,
                        value: value
                    ).append(to: &buffer)
                }
            }
            return
        }
        completion.reply.value.withUnsafeBytes { value in
            finish(
                completion.origin.id,
                ReplyView(
                    completion.reply.status,
                    number: completion.reply.number,
                    flags: completion.reply.flags,
                    value: value
                )
            )
        }
    }

    /// A response from another node.
    package mutating func receive(
        _ response: ResponseFrame,
        from peer: PeerNumber,
        context: Context,
        outbox: inout Outbox
    ) {
        guard let request = requests[response.id], case .forwarded(peer) = request.state else { return }
        switch response.status {
        case .notHolder:
            requests[response.id]?.attempts += 1
            let hint = holder(namedIn: response.value)
            if hint == peer, response.number > UInt64(request.epoch), let epoch = UInt32(exactly: response.number) {
                // It serves the slice, in an epoch that this node did not know.
                requests[response.id]?.epoch = epoch
                forward(response.id, to: peer, context: context, outbox: &outbox)
            } else if request.attempts == 0, hint != .none, hint != peer {
                if hint == topology.own {
                    executeHere(response.id, request, context: context, outbox: &outbox)
                } else {
                    forward(response.id, to: hint, context: context, outbox: &outbox)
                }
            } else {
                park(response.id, context.now.instant)
            }
        case .unknown:
            lost(response.id, context: context, outbox: &outbox)
        default:
            finish(
                response.id,
                ReplyView(response.status, number: response.number, flags: response.flags, value: response.value)
            )
        }
    }

    private func holder(namedIn value: UnsafeRawBufferPointer) -> PeerNumber {
        var reader = ByteReader(value)
        guard let reference = try? reader.member() else { return .none }
        return topology.number(of: reference) ?? .none
    }

    /// Answers a request of the table and forgets it.
    private mutating func finish(_ id: UInt64, _ reply: ReplyView, timedOut: Bool = false) {
        guard let request = requests.remove(id) else { return }
        let session = request.session.takeRetainedValue()
        if request.isOrdered { session.ended(request.slice) }
        count(reply, request.format)
        if let place = request.place, !session.isGone {
            equip(session)
            session.fill(place) { request.format.write(request.key, reply, timedOut: timedOut, to: &$0) }
        }
        resume(session)
        while requests.count < configuration.requestsMax, let waiting = starved.popLast() { resume(waiting) }
    }

    /// Has the shell look at a session: there may be output, or input that can be taken now.
    private mutating func resume(_ session: ClientSession) {
        if session.waitsForRequest {
            session.waitsForRequest = false
            session.wantsResume = true
        }
        touch(session)
    }

    mutating func respond(
        _ key: UnsafeRawBufferPointer,
        _ reply: ReplyView,
        _ format: ReplyFormat,
        _ session: ClientSession
    ) {
        count(reply, format)
        guard format.isWritten else { return }
        session.write { format.write(key, reply, timedOut: false, to: &$0) }
    }

    mutating func touch(_ session: ClientSession) {
        guard !session.isListed else { return }
        session.isListed = true
        touched.append(session)
    }

    /// The sessions that the shell must look at; each is listed once.
    package mutating func takeTouched() -> [ClientSession] {
        guard !touched.isEmpty else { return [] }
        for session in touched { session.isListed = false }
        defer { touched = [] }
        return touched
    }

    /// Takes the first of the sessions that the shell must look at; nil where there is none.
    package mutating func takeNextTouched() -> ClientSession? {
        guard let session = touched.popLast() else { return nil }
        session.isListed = false
        return session
    }

    // MARK: - Requests from other nodes

    /// A request that another node forwarded. `link` is where the response goes.
    package mutating func receive(
        _ frame: RequestFrame,
        link: UInt32,
        context: Context,
        outbox: inout Outbox
    ) {
        counts.pointee.served += 1
        let hash = KeyHash.hash(frame.key)
        let slice = frame.slice
        let index = shards.index(of: slice)
        let shard = shards.lock(index)
        defer { shards.unlock(index) }
        let later = shard.pointee.laterEpoch(than: frame, slice: slice)
        if later > 0 {
            counts.pointee.outdated += 1
            refuse(frame, link, named: topology.own, epoch: later, &outbox)
            return
        }
        let execution = shard.pointee.execute(
            frame,
            hash: hash,
            origin: Origin(worker: worker, link: link, id: frame.id),
            context: context,
            outbox: &outbox
        )
        switch execution {
        case .done(let outcome):
            let reply = ReplyView(outcome)
            outbox.send(to: .link(link)) { buffer in
                reply.value.withBytes { value in
                    ResponseFrame(
                        id: frame.id,
                        status: reply.status,
                        number: reply.number,
                        flags: reply.flags,
                        value: value
                    ).append(to: &buffer)
                }
            }
        case .flushed:
            outbox.send(to: .link(link)) { ResponseFrame(id: frame.id, status: .flushed).append(to: &$0) }
        case .busy:
            outbox.send(to: .link(link)) { ResponseFrame(id: frame.id, status: .busy).append(to: &$0) }
        case .pending:
            break
        case .elsewhere(let hint):
            let known = hint == .none ? topology.holders[slice] : hint
            refuse(frame, link, named: known == topology.own ? .none : known, epoch: topology.epochs[slice], &outbox)
        }
    }

    /// Tells another node whom to ask, and in which epoch: this node itself, where the request is of an earlier one.
    private func refuse(
        _ frame: RequestFrame,
        _ link: UInt32,
        named peer: PeerNumber,
        epoch: UInt32,
        _ outbox: inout Outbox
    ) {
        var name = ByteBuffer(capacity: 32)
        if peer != .none, let peer = topology.peer(peer) { name.append(peer.reference) }
        outbox.send(to: .link(link)) {
            ResponseFrame(id: frame.id, status: .notHolder, number: UInt64(epoch), value: name.bytes).append(to: &$0)
        }
    }

    // MARK: - Time

    /// When `advance` has something to do.
    package var nextDeadline: Instant { min(retryAt, timeoutCheckAt) }

    package mutating func advance(context: Context, outbox: inout Outbox) {
        if retryAt <= context.now.instant { retry(context: context, outbox: &outbox) }
        guard timeoutCheckAt <= context.now.instant else { return }
        for id in requests.identifiers {
            guard let request = requests[id] else { continue }
            if request.deadline <= context.now.instant {
                counts.pointee.timedOut += 1
                // What was executed here, or asked elsewhere, may have taken effect: a late answer finds nothing.
                let isParked = if case .parked = request.state { true } else { false }
                finish(id, ReplyView(request.verb.isRead ? .miss : .unknown), timedOut: isParked)
            } else if case .forwarded(let peer) = request.state, request.isOverdue(context.now.instant),
                topology.holders[request.slice] != peer
            {
                lost(id, context: context, outbox: &outbox)
            }
        }
        timeoutCheckAt = requests.isEmpty ? .distantFuture : context.now.instant.advanced(byMilliseconds: 100)
    }
}
