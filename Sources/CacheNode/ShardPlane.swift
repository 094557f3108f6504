package import CacheStore
package import ClusterCore
import MemcacheProtocol
package import PeerProtocol
package import Replication

// A shard of a node: a contiguous range of slices, their items, and what this node is for each of them.
//
// The shard is the unit that one lock protects. A write is decided, stamped, stored and put into its slice's streams
// under one hold of that lock, so that the order of a stream is the order of the writes. Everything that moves a slice
// (learning, cut over, takeover) is a change of its role here; what concerns whole nodes (leases, claims, exclusion)
// is the control plane's, which tells the shards.

/// What a call needs to know of the moment.
package struct Context: Sendable {
    package var now: Now
    /// Until when this node may serve.
    package var leaseUntil: Instant

    package init(now: Now, leaseUntil: Instant) {
        self.now = now
        self.leaseUntil = leaseUntil
    }

    package var mayServe: Bool { now.instant < leaseUntil }
}

/// What became of a request.
package enum Execution {
    /// Decided; a view in the outcome is valid until the shard changes.
    case done(Outcome)
    /// Taken effect here; the answer follows as a completion when the copies have it.
    case pending
    /// This node does not serve the slice now; it may know who does.
    case elsewhere(PeerNumber)
    /// Too many writes wait for copies.
    case busy
    /// The slice's flush has taken effect.
    case flushed
}

package struct ShardPlane: ~Copyable {
    /// How a slice is served; read first by every request.
    enum Service: UInt8 {
        case none = 0
        case reads = 1
        /// Reads and writes; nobody has to be told.
        case alone = 2
        /// Reads and writes, which go into streams.
        case replicated = 3
    }

    package let slices: Range<Int>
    package let configuration: ReplicationConfiguration
    package var store: Shard
    var roles: [SliceRole]
    let service: UnsafeMutablePointer<UInt8>
    /// What the walk has to do for a slice.
    enum Attention: UInt8 {
        /// Nothing: the slice is as the ring wants it, or not held here.
        case settled = 0
        /// Look: its role, a stream or the ring changed, or something is to be tried again.
        case due = 1
        /// Nothing before a stream of the slice goes on, or a peer can be reached again.
        case waiting = 2
    }

    /// An `Attention` for each slice.
    let unsettled: UnsafeMutablePointer<UInt8>
    /// Whether any slice is due, or could be; what looks at all slices at every turn of the clock looks here first.
    var hasUnsettled = false
    /// 1 for each slice with a deadline: a cut over, an offer, an adoption.
    let timed: UnsafeMutablePointer<UInt8>
    var timedCount = 0
    /// What is read of all slices often, beside the roles that it follows from: the epoch in which each is served (0:
    /// not), whose copy it is (0: nobody's), and how many learners it teaches.
    let servedEpochs: UnsafeMutablePointer<UInt32>
    let copyHolders: UnsafeMutablePointer<UInt32>
    let learnerCounts: UnsafeMutablePointer<UInt8>
    /// 1 for each slice that is served here and has a copy elsewhere which takes its writes; and how many there are.
    let copied: UnsafeMutablePointer<UInt8>
    var copiedCount = 0
    /// When reads that copies were not told of yet are told, however few.
    var accessesDueAt = Instant(nanoseconds: 0)
    /// How many slices are copies of each peer's.
    var copyCounts: [UInt32: Int] = [:]
    /// How many learners all slices teach.
    package internal(set) var learnerCount = 0
    /// Rises with every change of a role or a stream, and so with all that a census would show.
    var revision: UInt64 = 1
    var lastCensus: (revision: UInt64, topology: UInt64, copiesWanted: Int, census: Census)?
    /// What is known of each peer: the session of the promises to it, and whether every connection to it works.
    var peers: [PeerNumber: PeerState] = [:]
    /// Slices whose writes wait for copies; a slice may have left already.
    var waiting: [Int] = []
    /// How many writes wait.
    package internal(set) var pendingCount = 0
    /// Entries held back because an earlier one is missing.
    var earlyCount = 0
    /// Slices whose content nobody may see again and which are emptied step by step.
    var dropping: [Int] = []
    /// Slices whose content goes to another side's holder after a split.
    var merging: [Merge] = []
    var streamCounter: UInt64
    /// Where the walk over held slices goes on.
    var walkCursor = 0
    package var counters = Counters()

    struct PeerState {
        var session: UInt64
        var isReachable: Bool
    }

    struct Merge {
        var slice: Int
        var cursor: UInt64
        var to: PeerNumber
    }

    package struct Counters: Sendable {
        package var handedOver: UInt64 = 0
        package var takenOver: UInt64 = 0
        package var startedEmpty: UInt64 = 0
        package var learned: UInt64 = 0
        package var cutOversAborted: UInt64 = 0
        package var demoted: UInt64 = 0
        package var suspended: UInt64 = 0
        package var snapshotBytes: UInt64 = 0
        package var refusals: UInt64 = 0
        /// Streams that this node refused since it had applied other writes than the holder had sent.
        package var sumMismatches: UInt64 = 0
        package var earlyOverflows: UInt64 = 0
        package var lostWrites: UInt64 = 0
        /// Reads that a copy was told of; one for each copy.
        package var accessesSent: UInt64 = 0
        /// Reads that this node was told of as the copy of the slice.
        package var accessesReceived: UInt64 = 0
        /// Reads that this node was told of and is no copy for, or of another holder.
        package var accessesIgnored: UInt64 = 0
        /// Reads that a copy was not told of: it could not be reached, or too much waited on the way to it. The store
        /// counts those of which nobody was told.
        package var accessesDropped: UInt64 = 0
        package var longestPauseNanoseconds: UInt64 = 0

        package init() {}

        /// Adds another shard's counts.
        package mutating func add(_ other: Counters) {
            handedOver += other.handedOver
            takenOver += other.takenOver
            startedEmpty += other.startedEmpty
            learned += other.learned
            cutOversAborted += other.cutOversAborted
            demoted += other.demoted
            suspended += other.suspended
            snapshotBytes += other.snapshotBytes
            refusals += other.refusals
            sumMismatches += other.sumMismatches
            earlyOverflows += other.earlyOverflows
            lostWrites += other.lostWrites
            accessesSent += other.accessesSent
            accessesReceived += other.accessesReceived
            accessesIgnored += other.accessesIgnored
            accessesDropped += other.accessesDropped
            longestPauseNanoseconds = max(longestPauseNanoseconds, other.longestPauseNanoseconds)
        }
    }

    package init(
        index: Int,
        slices: Range<Int>,
        store: StoreConfiguration,
        configuration: ReplicationConfiguration
    ) {
        self.slices = slices
        self.configuration = configuration
        self.store = Shard(slices: slices, configuration: store)
        self.roles = Array(repeating: .outside, count: slices.count)
        self.service = UnsafeMutablePointer<UInt8>.allocate(capacity: slices.count)
        self.service.initialize(repeating: Service.none.rawValue, count: slices.count)
        self.unsettled = UnsafeMutablePointer<UInt8>.allocate(capacity: slices.count)
        self.unsettled.initialize(repeating: 0, count: slices.count)
        self.timed = UnsafeMutablePointer<UInt8>.allocate(capacity: slices.count)
        self.timed.initialize(repeating: 0, count: slices.count)
        self.servedEpochs = UnsafeMutablePointer<UInt32>.allocate(capacity: slices.count)
        self.servedEpochs.initialize(repeating: 0, count: slices.count)
        self.copyHolders = UnsafeMutablePointer<UInt32>.allocate(capacity: slices.count)
        self.copyHolders.initialize(repeating: 0, count: slices.count)
        self.copied = UnsafeMutablePointer<UInt8>.allocate(capacity: slices.count)
        self.copied.initialize(repeating: 0, count: slices.count)
        self.learnerCounts = UnsafeMutablePointer<UInt8>.allocate(capacity: slices.count)
        self.learnerCounts.initialize(repeating: 0, count: slices.count)
        self.streamCounter = UInt64(index + 1) << 48
    }

    deinit {
        learnerCounts.deallocate()
        copied.deallocate()
        copyHolders.deallocate()
        servedEpochs.deallocate()
        timed.deallocate()
        unsettled.deallocate()
        service.deallocate()
    }

    // MARK: - Requests

    /// Whether a plain read of the slice may be answered from here.
    @inline(__always)
    func mayRead(_ slice: Int, _ context: Context) -> Bool {
        service[slice &- slices.lowerBound] != Service.none.rawValue && context.mayServe
    }

    /// The epoch in which this node serves the slice, where it does and the request was sent in an earlier one; else 0.
    ///
    /// A write may have lain on a connection through a split, or a pause, while whoever sent it asked another holder
    /// and heard that it was done. Carried out now, it would undo what came after it. Reads that nobody waits for any
    /// more do no harm.
    func laterEpoch(than frame: RequestFrame, slice: Int) -> UInt32 {
        guard frame.verb != .get else { return 0 }
        let served = servedEpochs[slice - slices.lowerBound]
        return served > frame.epoch ? served : 0
    }

    /// Runs a request on the slice that it concerns. `frame.key` and `frame.value` need to live for the call only.
    package mutating func execute(
        _ frame: RequestFrame,
        hash: UInt64,
        origin: Origin,
        context: Context,
        outbox: inout Outbox
    ) -> Execution {
        let slice = frame.verb == .flush ? frame.slice : Slice.index(of: hash)
        let local = slice - slices.lowerBound
        let level = service[local]
        guard level != Service.none.rawValue, context.mayServe else { return .elsewhere(hint(local)) }
        if frame.verb == .get {
            guard let item = store.find(hash: hash, key: frame.key, now: context.now) else { return .done(.miss) }
            return .done(.hit(item))
        }
        guard level != Service.reads.rawValue else { return .elsewhere(.none) }
        guard pendingCount < configuration.pendingWritesMax else { return .busy }
        store.settle(slice: slice, now: context.now)
        let version = stamp(slice, context.now)
        if frame.verb == .flush { return flush(slice, frame, version, origin, context, &outbox) }

        let expiry = Exptime.absoluteSeconds(frame.exptime, now: context.now.unixSeconds)
        let absoluteSeconds: UInt32 = if case .at(let seconds) = expiry { seconds } else { 0 }
        let operation = Operation(
            frame.verb.operation,
            hash: hash,
            key: frame.key,
            value: frame.value,
            flags: frame.flags,
            expiry: absoluteSeconds,
            isExpired: expiry == .past,
            unique: frame.unique,
            delta: frame.delta
        )
        let (outcome, change) = store.apply(operation, version: version, now: context.now)
        guard change != .none, level == Service.replicated.rawValue else { return .done(outcome) }
        let isWaited = emit(slice, hash: hash, version: version, outbox: &outbox) { store, buffer in
            // A stored item whose expiry is this very second is gone again already.
            if change == .stored, let item = store.peek(hash: hash, key: frame.key, now: context.now) {
                item.append(to: &buffer)
                return .stored
            }
            buffer.appendInteger(version)
            buffer.append(frame.key)
            return .removed
        }
        guard isWaited else { return .done(outcome) }
        suspend(slice, Reply(outcome), origin, context.now.instant)
        return .pending
    }

    private mutating func flush(
        _ slice: Int,
        _ frame: RequestFrame,
        _ version: UInt64,
        _ origin: Origin,
        _ context: Context,
        _ outbox: inout Outbox
    ) -> Execution {
        let expiry = Exptime.absoluteSeconds(frame.exptime, now: context.now.unixSeconds)
        // A moment that has passed, and no moment at all, flush at once.
        let due: UInt64? = if case .at(let seconds) = expiry { UInt64(seconds) * 1000 } else { nil }
        if let due {
            store.scheduleFlush(slice: slice, atUnixMilliseconds: due)
        } else {
            store.flush(slice: slice, version: version)
        }
        guard service[slice - slices.lowerBound] == Service.replicated.rawValue else { return .flushed }
        let isWaited = emit(slice, hash: 0, version: due ?? version, outbox: &outbox) { _, buffer in
            buffer.appendInteger(due ?? version)
            return due == nil ? .flush : .flushAt
        }
        guard isWaited else { return .flushed }
        suspend(slice, Reply(.flushed), origin, context.now.instant)
        return .pending
    }

    /// The version of a write: later than everything that the slice has seen, and by the clock where that is later.
    private func stamp(_ slice: Int, _ now: Now) -> UInt64 {
        let row = store.row(slice)
        return max(
            now.unixMilliseconds << 16,
            row.pointee.newest + 1,
            row.pointee.floor + 1,
            row.pointee.flushVersion + 1
        )
    }

    private mutating func suspend(_ slice: Int, _ reply: Reply, _ origin: Origin, _ now: Instant) {
        let local = slice - slices.lowerBound
        if roles[local].holder.pending.isEmpty { waiting.append(slice) }
        let position = roles[local].holder.position
        roles[local].holder.pending.append(PendingWrite(position: position, origin: origin, reply: reply, since: now))
        pendingCount += 1
    }

    /// Who serves the slice, where its role tells.
    private func hint(_ local: Int) -> PeerNumber {
        if case .copy(let copy) = roles[local] { copy.holder } else { .none }
    }

    // MARK: - Streams, the holder's side

    /// Puts one write into every flowing stream of the slice. Returns whether a client's answer waits for one of them.
    ///
    /// `hash` is 0 where the write is of no single key; `version` is the number that stands first in the payload.
    mutating func emit(
        _ slice: Int,
        hash: UInt64,
        version: UInt64,
        outbox: inout Outbox,
        _ write: (borrowing Shard, inout ByteBuffer) -> EntryFrame.Kind
    ) -> Bool {
        Self.emit(
            slice,
            of: &roles[slice - slices.lowerBound].holder,
            (hash, version),
            store,
            outbox: &outbox,
            write
        )
    }

    /// Takes the holder's state out of its slice's role once, and not for every word of it.
    private static func emit(
        _ slice: Int,
        of holder: inout Holder,
        _ written: (hash: UInt64, version: UInt64),
        _ store: borrowing Shard,
        outbox: inout Outbox,
        _ write: (borrowing Shard, inout ByteBuffer) -> EntryFrame.Kind
    ) -> Bool {
        holder.position += 1
        var isWaited = false
        // The payload is written once, into the first frame; the others copy it. What differs stands before it.
        var payload: Range<Int>?
        var kind = EntryFrame.Kind.stored
        for index in holder.streams.indices {
            guard holder.streams[index].isFlowing else { continue }
            let sequence = holder.streams[index].next
            holder.streams[index].next += 1
            isWaited = isWaited || holder.streams[index].isRequired
            outbox.send(to: .peer(holder.streams[index].peer)) { buffer in
                let start = EntryFrame.begin(
                    slice: slice,
                    stream: holder.streams[index].id,
                    sequence: sequence,
                    position: holder.position,
                    sum: holder.streams[index].sum.value,
                    kind: kind,
                    in: &buffer
                )
                if let payload {
                    buffer.appendOwn(payload)
                } else {
                    let first = buffer.count
                    kind = write(store, &buffer)
                    EntryFrame.replaceKind(kind, before: first, in: &buffer)
                    payload = first..<buffer.count
                }
                Frame.end(start, in: &buffer)
            }
            holder.streams[index].sum.add(kind, hash: written.hash, version: written.version)
        }
        return isWaited
    }

    /// Puts one entry into one stream, without a change of position. Returns its number.
    @discardableResult
    mutating func emit(
        _ slice: Int,
        stream index: Int,
        kind: EntryFrame.Kind,
        outbox: inout Outbox,
        _ write: (inout ByteBuffer) -> Void
    ) -> UInt64 {
        let local = slice - slices.lowerBound
        let stream = roles[local].holder.streams[index]
        let position = roles[local].holder.position
        roles[local].holder.streams[index].next += 1
        outbox.send(to: .peer(stream.peer)) {
            let start = EntryFrame.begin(
                slice: slice,
                stream: stream.id,
                sequence: stream.next,
                position: position,
                sum: stream.sum.value,
                kind: kind,
                in: &$0
            )
            write(&$0)
            Frame.end(start, in: &$0)
        }
        return stream.next
    }

    /// A copy has applied a prefix of its stream.
    package mutating func receive(
        _ acknowledgement: AcknowledgementFrame,
        from peer: PeerNumber,
        context: Context,
        outbox: inout Outbox
    ) {
        let slice = acknowledgement.slice
        let local = slice - slices.lowerBound
        guard case .holder = roles[local],
            let (index, state) = Self.take(acknowledgement, from: peer, in: &roles[local].holder)
        else { return }
        switch state {
        case .copying(_, _, let awaiting) where acknowledgement.sequence >= awaiting:
            sendSnapshot(slice, stream: index, context: context, outbox: &outbox)
        case .finishing(let last) where acknowledgement.sequence >= last:
            enterSync(slice, stream: index, outbox: &outbox)
        case .adopting:
            roles[local].holder.streams[index].state = .inSync
            refreshService(local)
        default:
            break
        }
        complete(slice, context: context, outbox: &outbox)
        finishCutOver(local, context: context, outbox: &outbox)
    }

    /// Notes what a copy has applied. Returns which stream that was, and its state; nil where it is none of the
    /// holder's.
    private static func take(
        _ acknowledgement: AcknowledgementFrame,
        from peer: PeerNumber,
        in holder: inout Holder
    ) -> (index: Int, state: OutStream.State)? {
        guard let index = holder.stream(to: peer), holder.streams[index].id == acknowledgement.stream else {
            return nil
        }
        holder.streams[index].acknowledged = max(holder.streams[index].acknowledged, acknowledgement.sequence)
        holder.streams[index].acknowledgedPosition = max(
            holder.streams[index].acknowledgedPosition,
            acknowledgement.position
        )
        return (index, holder.streams[index].state)
    }

    mutating func enterSync(_ slice: Int, stream index: Int, outbox: inout Outbox) {
        let local = slice - slices.lowerBound
        let peer = roles[local].holder.streams[index].peer
        guard let state = peers[peer], state.isReachable else { return }
        roles[local].holder.streams[index].state = .inSync
        if outbox.signals.last != .promised(peer) { outbox.signals.append(.promised(peer)) }
        emit(slice, stream: index, kind: .inSync, outbox: &outbox) { $0.appendInteger(state.session) }
        refreshService(local)
    }

    /// Answers what every copy that counts has. Only under a valid lease: or an answer could come after a takeover.
    mutating func complete(_ slice: Int, context: Context, outbox: inout Outbox) {
        let local = slice - slices.lowerBound
        guard context.mayServe, case .holder = roles[local] else { return }
        pendingCount -= Self.complete(&roles[local].holder, &counters, context: context, outbox: &outbox)
    }

    /// Returns how many writes were answered.
    private static func complete(
        _ holder: inout Holder,
        _ counters: inout Counters,
        context: Context,
        outbox: inout Outbox
    ) -> Int {
        guard !holder.pending.isEmpty, holder.phase.isServing else { return 0 }
        let acknowledged = holder.acknowledgedPosition
        var count = 0
        while let position = holder.pending.first?.position, position <= acknowledged {
            let first = holder.pending.removeFirst()
            count += 1
            counters.longestPauseNanoseconds = max(
                counters.longestPauseNanoseconds,
                context.now.instant.nanoseconds(since: first.since)
            )
            outbox.completions.append(Outbox.Completion(origin: first.origin, reply: first.reply))
        }
        return count
    }

    /// The next batch of a slice's content, or its end.
    private mutating func sendSnapshot(_ slice: Int, stream index: Int, context: Context, outbox: inout Outbox) {
        let local = slice - slices.lowerBound
        guard case .copying(let cursor, let inventory, _) = roles[local].holder.streams[index].state else { return }
        var batch = ByteBuffer(capacity: 1024)
        let limit = configuration.snapshotBytesMax
        let next = store.scan(slice: slice, from: cursor, now: context.now) { item in
            if inventory[item.hash] == item.version, !item.isTombstone {
                batch.append(1)
                batch.appendInteger(item.hash)
            } else {
                batch.append(0)
                item.append(to: &batch)
            }
            return batch.count < limit
        }
        counters.snapshotBytes += UInt64(batch.count)
        if !batch.isEmpty {
            let sequence = emit(slice, stream: index, kind: .snapshot, outbox: &outbox) { $0.append(batch.bytes) }
            if let next {
                roles[local].holder.streams[index].state = .copying(
                    cursor: next,
                    inventory: inventory,
                    awaiting: sequence
                )
                return
            }
        }
        precondition(next == nil, "a scan of slice \(slice) stopped without an item")
        let marks = marks(of: slice)
        let last = emit(slice, stream: index, kind: .snapshotEnd, outbox: &outbox) { marks.append(to: &$0) }
        roles[local].holder.streams[index].state = .finishing(last: last)
        refreshService(local)
    }

    func marks(of slice: Int) -> SliceMarks {
        let row = store.row(slice).pointee
        return SliceMarks(
            newest: row.newest,
            floor: row.floor,
            flushVersion: row.flushVersion,
            flushAt: row.flushAt
        )
    }

    private mutating func set(_ marks: SliceMarks, of slice: Int) {
        let row = store.row(slice)
        row.pointee.newest = max(row.pointee.newest, marks.newest)
        row.pointee.floor = max(row.pointee.floor, marks.floor)
        if marks.flushVersion > row.pointee.flushVersion { store.flush(slice: slice, version: marks.flushVersion) }
        store.scheduleFlush(slice: slice, atUnixMilliseconds: marks.flushAt)
    }

    /// Derives from a slice's role how it is served, and what else is kept beside it; after every change of role or
    /// stream.
    mutating func refreshService(_ local: Int) {
        let level: Service
        var servedEpoch: UInt32 = 0
        var copyHolder: UInt32 = 0
        var learners = 0
        var isTimed = false
        var isCopied = false
        switch roles[local] {
        case .outside:
            level = .none
        case .copy(let copy):
            level = .none
            copyHolder = copy.holder.value
            if case .released = copy.state { isTimed = true }
        case .holder(let holder):
            learners = holder.streams.reduce(into: 0) { $0 += $1.isLearning ? 1 : 0 }
            if holder.phase.isServing { servedEpoch = holder.epoch }
            isTimed = holder.streams.contains { $0.isTimed }
            isCopied = holder.phase.isServing && holder.streams.contains { $0.isFlowing }
            if case .draining = holder.phase { isTimed = true }
            switch holder.phase {
            case .claiming, .suspended: level = .none
            case .draining: level = .reads
            case .stable:
                if holder.streams.contains(where: { if case .adopting = $0.state { true } else { false } }) {
                    level = .reads
                } else {
                    level = holder.streams.isEmpty ? .alone : .replicated
                }
            }
        }
        service[local] = level.rawValue
        servedEpochs[local] = servedEpoch
        if copyHolders[local] != copyHolder {
            if copyHolders[local] != 0 { copyCounts[copyHolders[local], default: 0] -= 1 }
            if copyHolder != 0 { copyCounts[copyHolder, default: 0] += 1 }
            copyHolders[local] = copyHolder
        }
        timedCount += (isTimed ? 1 : 0) - Int(timed[local])
        timed[local] = isTimed ? 1 : 0
        learnerCount += learners - Int(learnerCounts[local])
        learnerCounts[local] = UInt8(clamping: learners)
        setCopied(local, isCopied)
        unsettled[local] = Attention.due.rawValue
        hasUnsettled = true
        revision += 1
    }

    // MARK: - Streams, the copy's side

    /// An entry of a slice's stream from its holder. `target` is where the acknowledgement goes.
    package mutating func receive(
        _ entry: EntryFrame,
        body: UnsafeRawBufferPointer,
        from peer: PeerNumber,
        target: Outbox.Target,
        context: Context,
        outbox: inout Outbox
    ) throws(MalformedBytes) {
        let slice = entry.slice
        let local = slice - slices.lowerBound
        guard case .copy(let copy) = roles[local], copy.holder == peer, copy.stream == entry.stream else {
            counters.refusals += 1
            let epoch = epoch(local)
            outbox.send(to: target) {
                ControlMessage.refusal(slice: slice, stream: entry.stream, epoch: epoch).append(to: &$0)
            }
            return
        }
        if entry.sequence > copy.applied + 1 {
            if copy.early.contains(where: { $0.sequence == entry.sequence }) { return }
            guard earlyCount < configuration.earlyEntriesMax else {
                counters.earlyOverflows += 1
                refuseStream(local, target, &outbox)
                return
            }
            earlyCount += 1
            roles[local].copy.early.append((entry.sequence, Array(body)))
            return
        }
        if entry.sequence == copy.applied + 1 {
            guard try apply(entry, context: context, outbox: &outbox) else {
                refuseMismatch(local, target, &outbox)
                return
            }
            while case .copy(let copy) = roles[local], copy.stream == entry.stream,
                let index = copy.early.firstIndex(where: { $0.sequence == copy.applied + 1 })
            {
                let early = roles[local].copy.early.remove(at: index).body
                earlyCount -= 1
                let result = early.withUnsafeBytes { raw -> Result<Bool, MalformedBytes> in
                    do throws(MalformedBytes) {
                        return .success(try apply(try EntryFrame(raw), context: context, outbox: &outbox))
                    } catch {
                        return .failure(error)
                    }
                }
                guard try result.get() else {
                    refuseMismatch(local, target, &outbox)
                    return
                }
            }
        }
        guard case .copy(let after) = roles[local], after.stream == entry.stream else { return }
        outbox.send(to: target) {
            AcknowledgementFrame(
                slice: slice,
                stream: after.stream,
                sequence: after.applied,
                position: after.position
            ).append(to: &$0)
        }
    }

    private mutating func refuseStream(_ local: Int, _ target: Outbox.Target, _ outbox: inout Outbox) {
        let slice = slices.lowerBound + local
        let copy = roles[local].copy
        leave(local)
        outbox.send(to: target) {
            ControlMessage.refusal(slice: slice, stream: copy.stream, epoch: copy.epoch).append(to: &$0)
        }
    }

    /// This copy has not applied what the holder sent: it is none, and nothing that it has of the slice can be trusted.
    private mutating func refuseMismatch(_ local: Int, _ target: Outbox.Target, _ outbox: inout Outbox) {
        counters.sumMismatches += 1
        refuseStream(local, target, &outbox)
        dropping.append(slices.lowerBound + local)
    }

    /// Carries out the next entry of the stream; false, and nothing done, where this copy has applied other writes before
    /// it than the holder sent.
    private mutating func apply(
        _ entry: EntryFrame,
        context: Context,
        outbox: inout Outbox
    ) throws(MalformedBytes) -> Bool {
        let slice = entry.slice
        let local = slice - slices.lowerBound
        guard entry.sum == roles[local].copy.sum.value else { return false }
        /// The key and version of a write.
        var written: (hash: UInt64, version: UInt64)?
        var reader = ByteReader(entry.payload)
        switch entry.kind {
        case .stored:
            let item = try WireItem(&reader)
            written = (put(item, slice: slice, now: context.now), item.version)
        case .removed:
            let version = try reader.version()
            let key = try reader.rest()
            guard !key.isEmpty, key.count <= RequestFrame.keyBytesMax else { throw MalformedBytes() }
            let hash = KeyHash.hash(key)
            guard Slice.index(of: hash) == slice else { throw MalformedBytes() }
            store.bury(hash: hash, key: key, version: version, now: context.now)
            written = (hash, version)
        case .flush:
            let version = try reader.version()
            store.flush(slice: slice, version: version)
            written = (0, version)
        case .flushAt:
            let due = try reader.integer(UInt64.self)
            store.scheduleFlush(slice: slice, atUnixMilliseconds: due)
            written = (0, due)
        case .snapshot:
            while reader.remaining > 0 {
                if try reader.integer(UInt8.self) == 1 {
                    confirm(local, try reader.integer(UInt64.self))
                } else {
                    let item = try WireItem(&reader)
                    confirm(local, put(item, slice: slice, now: context.now))
                }
            }
        case .snapshotEnd:
            let marks = try SliceMarks(&reader)
            guard case .learning(let confirmed) = roles[local].copy.state else { throw MalformedBytes() }
            removeAll(of: slice, except: confirmed, now: context.now)
            set(marks, of: slice)
            roles[local].copy.state = .learned(at: context.now.instant)
            counters.learned += 1
        case .inSync:
            // The holder enters this copy when it hears that everything was learned, hence after that moment.
            var since: Instant?
            if case .learned(let at) = roles[local].copy.state { since = at }
            roles[local].copy.state = .inSync(session: try reader.integer(), since: since)
            revision += 1
        case .handOver:
            let epoch = try reader.epoch()
            guard epoch > roles[local].copy.epoch else { throw MalformedBytes() }
            let marks = try SliceMarks(&reader)
            var others: [MemberReference] = []
            while reader.remaining > 0 { others.append(try reader.member()) }
            set(marks, of: slice)
            takeHandOver(slice, epoch: epoch, others: others, position: entry.position, context: context, &outbox)
            return true
        case .dismiss:
            outbox.send(to: .peer(roles[local].copy.holder)) {
                AcknowledgementFrame(
                    slice: slice,
                    stream: entry.stream,
                    sequence: entry.sequence,
                    position: entry.position
                ).append(to: &$0)
            }
            leave(local)
            dropping.append(slice)
            return true
        }
        roles[local].copy.applied = entry.sequence
        roles[local].copy.position = entry.position
        if let written {
            roles[local].copy.sum.add(entry.kind, hash: written.hash, version: written.version)
            // A key that the stream names is as the holder has it, whatever the base says.
            if entry.kind == .stored || entry.kind == .removed { confirm(local, written.hash) }
        }
        return true
    }

    /// Stores what the holder has, unless it is of another slice; the hash of its key.
    private mutating func put(_ item: WireItem, slice: Int, now: Now) -> UInt64 {
        let hash = KeyHash.hash(item.key)
        guard Slice.index(of: hash) == slice else { return hash }
        if item.isTombstone {
            store.bury(hash: hash, key: item.key, version: item.version, now: now)
        } else {
            // Without room the old value is gone, which is a miss and therefore safe.
            _ = store.put(item.view(hash: hash), now: now)
        }
        return hash
    }

    private mutating func confirm(_ local: Int, _ hash: UInt64) {
        guard case .learning(var confirmed) = roles[local].copy.state else { return }
        roles[local].copy.state = .learned(at: Instant(nanoseconds: 0))
        confirmed.insert(hash)
        roles[local].copy.state = .learning(confirmed: confirmed)
    }

    /// Drops what the holder does not have.
    private mutating func removeAll(of slice: Int, except confirmed: Set<UInt64>, now: Now) {
        var surplus: [(hash: UInt64, key: [UInt8])] = []
        var cursor: UInt64? = 0
        while let position = cursor {
            cursor = store.scan(slice: slice, from: position, now: now) { item in
                if !confirmed.contains(item.hash) { surplus.append((item.hash, Array(item.key))) }
                return true
            }
        }
        for item in surplus {
            item.key.withUnsafeBytes { store.remove(hash: item.hash, key: $0) }
        }
    }

    /// The epoch of this node's role; 0 outside.
    func epoch(_ local: Int) -> UInt32 {
        switch roles[local] {
        case .outside: 0
        case .holder(let holder): holder.epoch
        case .copy(let copy): copy.epoch
        }
    }

    /// The slice has no role here any more; its content stays as a base.
    mutating func leave(_ local: Int) {
        if case .copy(let copy) = roles[local] { earlyCount -= copy.early.count }
        roles[local] = .outside
        refreshService(local)
    }

    // MARK: - Learning and adopting, both sides

    /// Control frames that concern one slice.
    package mutating func receive(
        _ message: ControlMessage,
        from peer: PeerNumber,
        context: Context,
        outbox: inout Outbox
    ) {
        switch message {
        case .offer(let slice, let epoch, let stream):
            receiveOffer(slice, epoch, stream, peer, context, &outbox)
        case .learn(let slice, let stream, let inventory):
            let local = slice - slices.lowerBound
            guard case .holder(let holder) = roles[local], let index = holder.stream(to: peer),
                holder.streams[index].id == stream, case .offered = holder.streams[index].state
            else {
                // The offer is over; the peer must not learn for ever.
                outbox.send(.refusal(slice: slice, stream: stream, epoch: epoch(local)), to: peer)
                return
            }
            var known: [UInt64: UInt64] = [:]
            for entry in inventory { known[entry.hash] = entry.version }
            // 0 as the number of the awaited batch: nothing is awaited yet.
            roles[local].holder.streams[index].state = .copying(cursor: 0, inventory: known, awaiting: 0)
            refreshService(local)
            sendSnapshot(slice, stream: index, context: context, outbox: &outbox)
        case .refusal(let slice, let stream, _):
            let local = slice - slices.lowerBound
            if case .copy(let copy) = roles[local], case .released = copy.state, copy.holder == peer,
                copy.stream == stream
            {
                // The last entry was refused: nobody holds the slice but this node, once a majority has recorded it.
                if let again = takeBack(SliceEpoch(slice: slice, epoch: copy.epoch)) {
                    outbox.signals.append(.returned(again))
                }
                return
            }
            if case .copy(let copy) = roles[local], case .learning = copy.state, copy.holder == peer,
                copy.stream == stream
            {
                leave(local)
                return
            }
            guard case .holder(let holder) = roles[local], let index = holder.stream(to: peer),
                holder.streams[index].id == stream
            else { return }
            counters.refusals += 1
            // The peer says itself that it is no copy in this stream: nothing of it needs to be waited for. Where it has
            // taken the slice over instead, this node has no lease any more, and answers nothing that waited.
            roles[local].holder.streams.remove(at: index)
            roles[local].holder.retryAt = context.now.instant.advanced(byMilliseconds: 100)
            if case .draining(let to, _) = holder.phase, to == peer { abortCutOver(local) }
            refreshService(local)
            complete(slice, context: context, outbox: &outbox)
        case .adopt(let slice, let epoch, let stream, let session, let previousEpoch, let position):
            let local = slice - slices.lowerBound
            if case .copy(let copy) = roles[local], copy.position == position {
                let isEqual: Bool
                var since: Instant?
                switch copy.state {
                case .inSync: isEqual = copy.epoch == previousEpoch
                case .released(let at):
                    isEqual = copy.epoch == epoch && copy.holder == peer
                    since = at
                case .learning, .learned: isEqual = false
                }
                if isEqual {
                    earlyCount -= copy.early.count
                    roles[local] = .copy(
                        Copy(
                            holder: peer,
                            epoch: epoch,
                            stream: stream,
                            position: position,
                            state: .inSync(session: session, since: since)
                        )
                    )
                    refreshService(local)
                    outbox.send(to: .peer(peer)) {
                        AcknowledgementFrame(slice: slice, stream: stream, sequence: 0, position: position)
                            .append(to: &$0)
                    }
                    return
                }
            }
            // An in-sync copy of an epoch that is over proves nothing any more.
            if case .copy(let copy) = roles[local], copy.epoch < epoch { leave(local) }
            outbox.send(.refusal(slice: slice, stream: stream, epoch: self.epoch(local)), to: peer)
        default:
            preconditionFailure("not a message about one slice: \(message)")
        }
    }

    private mutating func receiveOffer(
        _ slice: Int,
        _ epoch: UInt32,
        _ stream: UInt64,
        _ peer: PeerNumber,
        _ context: Context,
        _ outbox: inout Outbox
    ) {
        let local = slice - slices.lowerBound
        let known = self.epoch(local)
        // A connection that was given up may bring its last frames after those of the next one: this offer is over.
        if case .copy(let copy) = roles[local], copy.holder == peer, copy.stream >= stream { return }
        guard epoch >= known, !merging.contains(where: { $0.slice == slice }) else {
            outbox.send(.refusal(slice: slice, stream: stream, epoch: known), to: peer)
            return
        }
        if case .holder(let holder) = roles[local] {
            // A holder of a later epoch speaks: this one has been replaced without knowing it. Or one that was confirmed
            // in the epoch that this one only claims.
            let isClaiming = if case .claiming = holder.phase { true } else { false }
            guard epoch > holder.epoch || isClaiming else {
                outbox.send(.refusal(slice: slice, stream: stream, epoch: known), to: peer)
                return
            }
            abandon(slice, outbox: &outbox)
        }
        if case .copy(let copy) = roles[local] { earlyCount -= copy.early.count }
        dropping.removeAll { $0 == slice }
        var inventory: [InventoryEntry] = []
        var isComplete = true
        var cursor: UInt64? = 0
        while let position = cursor, isComplete {
            cursor = store.scan(slice: slice, from: position, now: context.now) { item in
                if !item.isTombstone {
                    inventory.append(InventoryEntry(hash: item.hash, version: item.version))
                    isComplete = inventory.count <= configuration.inventoryMax
                }
                return isComplete
            }
        }
        if !isComplete { inventory = [] }
        roles[local] = .copy(
            Copy(holder: peer, epoch: epoch, stream: stream, position: 0, state: .learning(confirmed: []))
        )
        refreshService(local)
        outbox.send(.learn(slice: slice, stream: stream, inventory: inventory), to: peer)
    }

    // MARK: - Cut over

    mutating func abortCutOver(_ local: Int) {
        guard case .draining = roles[local].holder.phase else { return }
        roles[local].holder.phase = .stable
        counters.cutOversAborted += 1
        refreshService(local)
    }

    /// Begins to hand the slice to an in-sync copy: writes wait from now on.
    mutating func beginCutOver(_ slice: Int, to peer: PeerNumber, context: Context, outbox: inout Outbox) {
        let local = slice - slices.lowerBound
        roles[local].holder.phase = .draining(
            to: peer,
            deadline: context.now.instant.advanced(byMilliseconds: configuration.cutOverMilliseconds)
        )
        refreshService(local)
        finishCutOver(local, context: context, outbox: &outbox)
    }

    /// Hands over once nothing waits: the last entry of this epoch. From here on this node is a copy.
    mutating func finishCutOver(_ local: Int, context: Context, outbox: inout Outbox) {
        let slice = slices.lowerBound + local
        guard case .holder(let holder) = roles[local], case .draining(let to, _) = holder.phase, holder.pending.isEmpty,
            let index = holder.stream(to: to),
            holder.streams[index].isInSync, holder.acknowledgedPosition >= holder.position, context.mayServe
        else { return }
        var others: [MemberReference] = []
        for stream in holder.streams where stream.isInSync && stream.peer != to {
            if let reference = references[stream.peer] { others.append(reference) }
        }
        let marks = marks(of: slice)
        emit(slice, stream: index, kind: .handOver, outbox: &outbox) { buffer in
            buffer.appendInteger(holder.epoch + 1)
            marks.append(to: &buffer)
            for other in others { buffer.append(other) }
        }
        counters.handedOver += 1
        roles[local] = .copy(
            Copy(
                holder: to,
                epoch: holder.epoch + 1,
                stream: holder.streams[index].id,
                position: holder.position,
                state: .released(at: context.now.instant)
            )
        )
        refreshService(local)
        outbox.signals.append(.lost(slice: slice))
    }

    /// The other end of a cut over: this node is to hold the slice once a majority knows.
    private mutating func takeHandOver(
        _ slice: Int,
        epoch: UInt32,
        others: [MemberReference],
        position: UInt64,
        context: Context,
        _ outbox: inout Outbox
    ) {
        let local = slice - slices.lowerBound
        let from = roles[local].copy.holder
        earlyCount -= roles[local].copy.early.count
        roles[local] = .holder(Holder(epoch: epoch, phase: .claiming, position: position))
        var adopted: [PeerNumber] = [from]
        for other in others {
            if let peer = references.first(where: { $0.value == other })?.key { adopted.append(peer) }
        }
        for peer in adopted {
            adopt(slice, peer, previousEpoch: epoch - 1, context: context, outbox: &outbox)
        }
        refreshService(local)
        outbox.signals.append(.handedOver(SliceEpoch(slice: slice, epoch: epoch), from: from))
    }

    /// Goes on with a copy that was in sync with the holder before: its answers are waited for from now on.
    mutating func adopt(
        _ slice: Int,
        _ peer: PeerNumber,
        previousEpoch: UInt32,
        context: Context,
        outbox: inout Outbox
    ) {
        sendAdoption(
            slice,
            peer,
            previousEpoch: previousEpoch,
            acknowledgedPosition: roles[slice - slices.lowerBound].holder.position,
            context: context,
            outbox: &outbox
        )
        outbox.signals.append(.promised(peer))
    }

    /// `acknowledgedPosition` is how far the copy is known to be.
    mutating func sendAdoption(
        _ slice: Int,
        _ peer: PeerNumber,
        previousEpoch: UInt32,
        acknowledgedPosition: UInt64,
        context: Context,
        outbox: inout Outbox
    ) {
        let local = slice - slices.lowerBound
        let epoch = roles[local].holder.epoch
        let position = roles[local].holder.position
        streamCounter += 1
        let stream = OutStream(
            peer: peer,
            id: streamCounter,
            state: .adopting(since: context.now.instant),
            acknowledgedPosition: acknowledgedPosition
        )
        roles[local].holder.streams.append(stream)
        outbox.send(
            .adopt(
                slice: slice,
                epoch: epoch,
                stream: stream.id,
                session: peers[peer]?.session ?? 0,
                previousEpoch: previousEpoch,
                position: position
            ),
            to: peer
        )
    }

    /// A number for each life of a member, to name copies in a cut over.
    package var references: [PeerNumber: MemberReference] = [:]
}
