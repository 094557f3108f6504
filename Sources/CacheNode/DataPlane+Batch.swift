import CacheStore
import ClusterCore
import MemcacheProtocol
import PeerProtocol
import Replication

/// One key of a batch of requests.
///
/// Flat and trivial: a batch is an array in raw memory that is written over and over.
struct BatchKey {
    /// How many keys are in a batch, at most. More hides more of the memory's latency and pushes more out of the
    /// nearest cache; beyond a few dozen the processor has no more lines under way.
    static let countMax = 48

    /// The request as the shard takes it; key and value lie in the client's bytes.
    var frame: RequestFrame
    var hash: UInt64
    /// Where the request starts and ends in the client's bytes, where this key starts, and where the last key ends.
    var start: Int
    var end: Int
    var keyOffset: Int
    var keysEnd: Int
    var slice: Int32
    /// The shard that holds the slice here; -1 where another node holds it.
    var shard: Int32
    /// The next key of the batch in the same shard; -1 at the end.
    var next: Int32
    var command: Request.Command
    /// Whether it is the first, and the last key of its request.
    var isFirst: Bool
    var isLast: Bool
    var quiet: Bool

    /// How the answer is written.
    var format: ReplyFormat {
        switch command {
        case .get: .value(withUnique: false, touches: false, ends: isLast)
        case .gets: .value(withUnique: true, touches: false, ends: isLast)
        case .gat: .value(withUnique: false, touches: true, ends: isLast)
        case .gats: .value(withUnique: true, touches: true, ends: isLast)
        case .increment: .arithmetic(isIncrement: true, quiet: quiet)
        case .decrement: .arithmetic(isIncrement: false, quiet: quiet)
        case .touch: .touch(quiet: quiet)
        case .delete: .delete(quiet: quiet)
        default: .store(frame.verb, quiet: quiet)
        }
    }
}

extension BatchKey {
    /// A request of another node, of which only the memory matters that it will read.
    init(frame: RequestFrame, hash: UInt64) {
        self.init(
            frame: frame,
            hash: hash,
            start: 0,
            end: 0,
            keyOffset: 0,
            keysEnd: 0,
            slice: 0,
            shard: 0,
            next: -1,
            command: .get,
            isFirst: true,
            isLast: true,
            quiet: false
        )
    }
}

/// Requests of several clients, one of each, between their parsing and their execution.
struct GatheredKeys {
    let keys = UnsafeMutablePointer<BatchKey>.allocate(capacity: BatchKey.countMax)
    /// Whose each is.
    let sessions = UnsafeMutablePointer<Unmanaged<ClientSession>>.allocate(capacity: BatchKey.countMax)
    var count = 0

    func deallocate() {
        keys.deallocate()
        sessions.deallocate()
    }
}

extension Request.Command {
    /// What the holder of a key is asked to do; nil for a command that is not about keys.
    @inline(__always)
    var verb: RequestFrame.Verb? {
        switch self {
        case .get, .gets: .get
        case .gat, .gats: .getAndTouch
        case .set: .set
        case .add: .add
        case .replace: .replace
        case .append: .append
        case .prepend: .prepend
        case .cas: .compareAndSet
        case .increment: .increment
        case .decrement: .decrement
        case .touch: .touch
        case .delete: .delete
        case .flushAll, .version, .verbosity, .stats, .quit, .shutdown, .cacheMemoryLimit, .crawler,
            .refreshCertificates:
            nil
        }
    }
}

extension DataPlane {
    /// What `fillBatch` found.
    struct Filled {
        /// How many keys are in the batch.
        var count: Int
        /// How many of the client's bytes are done with once the batch is executed.
        var consumed: Int
        /// Where a multi-get goes on that did not fit.
        var remainder: ClientSession.Remainder
        /// What the parser said behind the last request of the batch; nil where the batch is full.
        var step: ParseStep?
    }

    /// Parses requests about keys into the batch, hashes the keys, and says what stands behind them.
    mutating func fillBatch(_ bytes: UnsafeRawBufferPointer, from start: Int, _ session: ClientSession) -> Filled {
        let state = session.state
        var filled = Filled(count: 0, consumed: start, remainder: ClientSession.Remainder(), step: nil)
        if state.pointee.remainder.length > 0 {
            enter(state.pointee.remainder, bytes, isStart: false, &filled)
        }
        while filled.count < BatchKey.countMax {
            let offset = filled.consumed
            let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
            let step = state.pointee.parser.next(rest)
            guard case .request(let request, let length) = step, let verb = request.command.verb else {
                filled.step = step
                break
            }
            if request.keyCount > 1 {
                let keys = ClientSession.Remainder(
                    command: request.command,
                    exptime: request.exptime,
                    keyOffset: request.keyOffset,
                    keysEnd: request.keysEnd,
                    length: length
                )
                enter(keys, bytes, isStart: true, &filled)
                continue
            }
            enter(request, verb, rest, at: offset, length: length, batch + filled.count)
            filled.count &+= 1
            filled.consumed = offset &+ length
        }
        return filled
    }

    /// Writes a request about one key into a place of a batch. `bytes` starts with the request, and is `offset` bytes
    /// behind the start of what the client sent.
    @inline(__always)
    private func enter(
        _ request: Request,
        _ verb: RequestFrame.Verb,
        _ bytes: UnsafeRawBufferPointer,
        at offset: Int,
        length: Int,
        _ entry: UnsafeMutablePointer<BatchKey>
    ) {
        let key = request.key(in: bytes)
        entry.initialize(
            to: BatchKey(
                frame: RequestFrame(
                    id: 0,
                    ringHash: 0,
                    epoch: 0,
                    verb: verb,
                    flags: request.flags,
                    exptime: request.exptime,
                    unique: request.unique,
                    delta: request.delta,
                    key: key,
                    value: request.value(in: bytes)
                ),
                hash: KeyHash.hash(key),
                start: offset,
                end: offset &+ length,
                keyOffset: offset &+ request.keyOffset,
                keysEnd: 0,
                slice: 0,
                shard: 0,
                next: -1,
                command: request.command,
                isFirst: true,
                isLast: true,
                quiet: request.quiet
            )
        )
        place(entry)
    }

    /// Puts keys of a multi-get into the batch, as far as there is room. Its request starts at `filled.consumed`.
    private func enter(
        _ keys: ClientSession.Remainder,
        _ bytes: UnsafeRawBufferPointer,
        isStart: Bool,
        _ filled: inout Filled
    ) {
        let start = filled.consumed
        let base = UnsafeRawBufferPointer(rebasing: bytes[start...])
        var iterator = KeyIterator(UnsafeRawBufferPointer(rebasing: base[keys.keyOffset..<keys.keysEnd]))
        let verb: RequestFrame.Verb = keys.command == .gat || keys.command == .gats ? .getAndTouch : .get
        var isFirst = isStart
        var key = iterator.next()
        while let current = key {
            // The key lies in the bytes.
            let offset = base.baseAddress.map { start &+ (current.baseAddress.unsafelyUnwrapped - $0) } ?? start
            guard filled.count < BatchKey.countMax else {
                filled.remainder = keys
                filled.remainder.keyOffset = offset &- start
                return
            }
            key = iterator.next()
            let entry = batch + filled.count
            entry.initialize(
                to: BatchKey(
                    frame: RequestFrame(
                        id: 0,
                        ringHash: 0,
                        epoch: 0,
                        verb: verb,
                        exptime: keys.exptime,
                        key: current
                    ),
                    hash: KeyHash.hash(current),
                    start: start,
                    end: start &+ keys.length,
                    keyOffset: offset,
                    keysEnd: start &+ keys.keysEnd,
                    slice: 0,
                    shard: 0,
                    next: -1,
                    command: keys.command,
                    isFirst: isFirst,
                    isLast: key == nil,
                    quiet: false
                )
            )
            place(entry)
            isFirst = false
            filled.count &+= 1
        }
        filled.consumed = start &+ keys.length
    }

    /// Finds out where a key of the batch belongs.
    @inline(__always)
    private func place(_ entry: UnsafeMutablePointer<BatchKey>) {
        let slice = Slice.index(of: entry.pointee.hash)
        entry.pointee.slice = Int32(truncatingIfNeeded: slice)
        entry.pointee.shard = isOwn[slice] == 0 ? -1 : Int32(truncatingIfNeeded: shards.index(of: slice))
    }

    /// Asks for the memory that the batch will read: the pages' headers first, then all index lines, then all items, so
    /// that the lines of different keys arrive side by side. One hold of a lock for each shard and pass.
    private func prefetch(_ keys: UnsafeMutablePointer<BatchKey>, _ count: Int) {
        var used: UInt64 = 0
        for index in (0..<count).reversed() {
            let entry = keys + index
            let shard = Int(entry.pointee.shard)
            guard shard >= 0 else { continue }
            entry.pointee.next = batchHeads[shard]
            batchHeads[shard] = Int32(truncatingIfNeeded: index)
            used |= 1 &<< UInt64(truncatingIfNeeded: shard)
        }
        if used == 0 { return }
        pass(keys, used) { $0.store.prefetchPage(hash: $1.pointee.hash) }
        pass(keys, used) {
            $0.store.prefetchIndex(hash: $1.pointee.hash)
            if $1.pointee.frame.verb != .get { $0.store.prefetchWrite(hash: $1.pointee.hash) }
        }
        pass(keys, used) { $0.store.prefetchItem(hash: $1.pointee.hash) }
        for index in 0..<count where keys[index].shard >= 0 { batchHeads[Int(keys[index].shard)] = -1 }
    }

    /// Calls `body` for each key of each of the used shards, under the shard's lock.
    @inline(__always)
    private func pass(
        _ keys: UnsafeMutablePointer<BatchKey>,
        _ used: UInt64,
        _ body: (inout ShardPlane, UnsafeMutablePointer<BatchKey>) -> Void
    ) {
        // Shards beyond 64 share a bit; whoever has no keys is passed over.
        for shard in 0..<shards.count where used & (1 &<< UInt64(truncatingIfNeeded: shard)) != 0 {
            var index = batchHeads[shard]
            guard index >= 0 else { continue }
            let plane = shards.lock(shard)
            while index >= 0 {
                body(&plane.pointee, keys + Int(index))
                index = keys[Int(index)].next
            }
            shards.unlock(shard)
        }
    }

    /// Asks for the memory that requests of another node will read, for as many as a batch has. `bytes` are frames as
    /// they came; what is malformed or cut short is left to whoever takes them.
    package func prefetchRequests(in bytes: UnsafeRawBufferPointer) {
        var count = 0
        var rest = bytes
        while count < BatchKey.countMax, let (kind, body, consumed) = try? Frame.next(in: rest) {
            rest = UnsafeRawBufferPointer(rebasing: rest[consumed...])
            guard kind == .request, let frame = try? RequestFrame(body), frame.verb != .flush else { continue }
            let hash = KeyHash.hash(frame.key)
            (batch + count).initialize(to: BatchKey(frame: frame, hash: hash))
            place(batch + count)
            count &+= 1
        }
        if count > 1 { prefetch(batch, count) }
    }

    /// Runs the keys of the batch in order and writes their answers. Returns how many; where it stops before the end,
    /// the session says what it waits for.
    mutating func executeBatch(
        _ count: Int,
        _ session: ClientSession,
        _ context: Context,
        _ outbox: inout Outbox
    ) -> Int {
        if count > 1 { prefetch(batch, count) }
        for index in 0..<count where !execute(batch + index, session, context, &outbox) { return index }
        return count
    }

    /// Runs one key and writes its answer. False where the session must wait first; it says for what.
    @inline(__always)
    private mutating func execute(
        _ entry: UnsafeMutablePointer<BatchKey>,
        _ session: ClientSession,
        _ context: Context,
        _ outbox: inout Outbox
    ) -> Bool {
        let state = session.state
        guard state.pointee.hasRoom else {
            state.pointee.wantsResume = true
            return false
        }
        guard requests.count < configuration.requestsMax else {
            starve(session)
            return false
        }
        if state.pointee.outstandingCount > 0, session.mustWait(for: Int(entry.pointee.slice)) {
            state.pointee.waitsForRequest = true
            return false
        }
        if entry.pointee.shard >= 0, entry.pointee.frame.verb == .get, !session.hasPlaces {
            get(entry, session, context, &outbox)
        } else if entry.pointee.shard >= 0 {
            executeHere(entry, session, context, &outbox)
        } else {
            submit(
                entry.pointee.frame,
                hash: entry.pointee.hash,
                format: entry.pointee.format,
                session: session,
                context: context,
                outbox: &outbox
            )
        }
        return true
    }

    // MARK: - One request of each of several clients

    /// Takes what a client sent if that is one whole request about one key with nothing of the client's before it, to
    /// be executed with other clients' in `executeGathered`: with one request in flight a client's own batch is one
    /// key, and every line of memory would be waited for.
    ///
    /// False where it is something else, or where no more can be gathered: then it is for `receive`. Until
    /// `executeGathered`, which `receive` calls too, `bytes` must stay where they are and the session must not go.
    package mutating func gather(_ bytes: UnsafeRawBufferPointer, _ session: ClientSession) -> Bool {
        let state = session.state
        guard gathered.pointee.count < BatchKey.countMax, state.pointee.isAtRest, session.dump == nil,
            // Each may become a request that waits for another node.
            requests.count &+ gathered.pointee.count < configuration.requestsMax
        else { return false }
        // What is not taken is parsed again by `receive`, so the parser must not have seen it.
        var parser = state.pointee.parser
        guard case .request(let request, let length) = parser.next(bytes), length == bytes.count,
            request.keyCount <= 1, let verb = request.command.verb
        else { return false }
        state.pointee.parser = parser
        let index = gathered.pointee.count
        enter(request, verb, bytes, at: 0, length: length, gathered.pointee.keys + index)
        gathered.pointee.sessions[index] = .passUnretained(session)
        gathered.pointee.count = index &+ 1
        return true
    }

    /// How many requests wait for `executeGathered`.
    package var gatheredCount: Int { gathered.pointee.count }

    /// Executes what was gathered, in that order; the sessions' outputs have the answers that are ready.
    package mutating func executeGathered(context: Context, outbox: inout Outbox) {
        let count = gathered.pointee.count
        if count == 0 { return }
        gathered.pointee.count = 0
        if count > 1 { prefetch(gathered.pointee.keys, count) }
        for index in 0..<count {
            gathered.pointee.sessions[index]._withUnsafeGuaranteedRef { session in
                if session.isGone { return }
                equip(session)
                let isExecuted = execute(gathered.pointee.keys + index, session, context, &outbox)
                precondition(isExecuted, "a session at rest had to wait")
            }
        }
    }

    /// A plain get of a slice that this node holds, with nothing before it that waits: the answer goes from the item
    /// to the output.
    @inline(__always)
    private mutating func get(
        _ entry: UnsafeMutablePointer<BatchKey>,
        _ session: ClientSession,
        _ context: Context,
        _ outbox: inout Outbox
    ) {
        let index = Int(entry.pointee.shard)
        let shard = shards.lock(index)
        guard shard.pointee.mayRead(Int(entry.pointee.slice), context) else {
            shards.unlock(index)
            executeHere(entry, session, context, &outbox)
            return
        }
        let key = entry.pointee.frame.key
        if let item = shard.pointee.store.find(hash: entry.pointee.hash, key: key, now: context.now) {
            item.write(
                key: key,
                withUnique: entry.pointee.command == .gets,
                to: &session.state.pointee.output.buffer
            )
            shards.unlock(index)
            counts.pointee.getHits &+= 1
        } else {
            shards.unlock(index)
            counts.pointee.getMisses &+= 1
        }
        if entry.pointee.isLast { ResponseWriter.status(.end, to: &session.state.pointee.output.buffer) }
    }

    /// A request about a slice that this node holds by its topology.
    private mutating func executeHere(
        _ entry: UnsafeMutablePointer<BatchKey>,
        _ session: ClientSession,
        _ context: Context,
        _ outbox: inout Outbox
    ) {
        let index = Int(entry.pointee.shard)
        let id = requests.nextIdentifier
        let shard = shards.lock(index)
        let execution = shard.pointee.execute(
            entry.pointee.frame,
            hash: entry.pointee.hash,
            origin: Origin(worker: worker, link: 0, id: id),
            context: context,
            outbox: &outbox
        )
        if case .done(.stored) = execution {
            shards.unlock(index)
            counts.pointee.sets &+= 1
            if entry.pointee.command == .cas { counts.pointee.casHits &+= 1 }
            guard !entry.pointee.quiet else { return }
            if session.hasPlaces {
                session.write { ResponseWriter.status(.stored, to: &$0) }
            } else {
                ResponseWriter.status(.stored, to: &session.state.pointee.output.buffer)
            }
            return
        }
        settle(
            execution,
            index,
            id,
            entry.pointee.frame,
            Int(entry.pointee.slice),
            entry.pointee.format,
            session,
            context,
            &outbox
        )
    }
}
