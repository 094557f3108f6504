import ClusterCore
import MemcacheProtocol
import PeerProtocol
import Replication

// From a client's bytes to requests, and for what this node holds, to answers in the same call.
//
// The simple way, one request at a time, waits for memory twice a request: for the line of the index, then for the
// item. So requests are taken in batches: parse and hash up to `BatchKey.countMax` keys, ask for all their index lines,
// then for all their items, then execute them in order. Meanwhile the lines arrive side by side (`DataPlane+Batch`).
//
// What one client may take of a turn is bounded, by keys and by bytes of answers; the rest waits for the next turn, so
// that others come in between. A multi-get that meets the bound is answered in part and goes on there.

extension DataPlane {
    /// How many keys of one client are looked up in a turn, at most. More is fewer turns for deep pipelines, and
    /// longer waits for everybody else: a key costs about half a microsecond.
    package static let keysPerTurnMax = 1024

    /// Takes what a client sent, as far as it can be taken now. `bytes` is everything received and not yet taken.
    /// Returns how many bytes are done with; the session's output has the answers that are ready.
    package mutating func receive(
        _ bytes: UnsafeRawBufferPointer,
        session: ClientSession,
        context: Context,
        outbox: inout Outbox
    ) -> Int {
        executeGathered(context: context, outbox: &outbox)
        let state = session.state
        state.pointee.wantsResume = false
        state.pointee.waitsForRequest = false
        equip(session)
        if session.dump != nil { advanceDump(session, context) }
        var consumed = 0
        var keysLeft = Self.keysPerTurnMax
        while !state.pointee.isClosing, session.dump == nil {
            guard state.pointee.hasRoom, keysLeft > 0 else {
                state.pointee.wantsResume = true
                break
            }
            guard requests.count < configuration.requestsMax else {
                starve(session)
                break
            }
            let filled = fillBatch(bytes, from: consumed, session)
            let executed = filled.count == 0 ? 0 : executeBatch(filled.count, session, context, &outbox)
            keysLeft -= executed
            if executed < filled.count {
                stop(before: executed, state)
                return batch[executed].start
            }
            state.pointee.remainder = filled.remainder
            consumed = filled.consumed
            switch filled.step {
            case nil: break
            case .needMore: return consumed
            case .skip(let count):
                consumed += count
            case .refused(let error, let quiet, let count):
                consumed += count
                if error == .objectTooLarge { counts.pointee.tooLarge += 1 }
                if !quiet { session.write { ResponseWriter.error(error, to: &$0) } }
            case .refusedStore(let request, let error, let count):
                let rest = UnsafeRawBufferPointer(rebasing: bytes[consumed...])
                let key = request.key(in: rest)
                let hash = KeyHash.hash(key)
                if session.mustWait(for: Slice.index(of: hash)) {
                    state.pointee.parser.rewind()
                    state.pointee.waitsForRequest = true
                    return consumed
                }
                consumed += count
                counts.pointee.tooLarge += 1
                submit(
                    RequestFrame(id: 0, ringHash: 0, epoch: 0, verb: .discard, key: key),
                    hash: hash,
                    format: .refusal(error, quiet: request.quiet),
                    session: session,
                    context: context,
                    outbox: &outbox
                )
            case .request(let request, let count):
                if request.command == .flushAll, state.pointee.outstandingCount > 0 {
                    state.pointee.parser.rewind()
                    state.pointee.waitsForRequest = true
                    return consumed
                }
                let rest = UnsafeRawBufferPointer(rebasing: bytes[consumed...])
                consumed += count
                run(request, rest, session, context, &outbox)
                if session.dump != nil { advanceDump(session, context) }
            case .close:
                state.pointee.isClosing = true
                return bytes.count
            }
        }
        return consumed
    }

    /// The session goes on when one of the requests under way has ended.
    mutating func starve(_ session: ClientSession) {
        session.waitsForRequest = true
        starved.append(session)
    }

    /// Leaves the batch at one of its keys; the session's next call begins there.
    private func stop(before index: Int, _ state: UnsafeMutablePointer<ClientSession.State>) {
        let key = batch + index
        state.pointee.parser.rewind()
        if key.pointee.isFirst {
            state.pointee.remainder = ClientSession.Remainder()
        } else {
            state.pointee.remainder = ClientSession.Remainder(
                command: key.pointee.command,
                exptime: key.pointee.frame.exptime,
                keyOffset: key.pointee.keyOffset - key.pointee.start,
                keysEnd: key.pointee.keysEnd - key.pointee.start,
                length: key.pointee.end - key.pointee.start
            )
        }
    }

    /// Runs a request that is not about keys.
    private mutating func run(
        _ request: Request,
        _ bytes: UnsafeRawBufferPointer,
        _ session: ClientSession,
        _ context: Context,
        _ outbox: inout Outbox
    ) {
        switch request.command {
        case .get, .gets, .gat, .gats, .set, .add, .replace, .append, .prepend, .cas, .increment, .decrement, .touch,
            .delete:
            preconditionFailure("\(request.command) goes by the batch")
        case .flushAll: flush(request, session, context, &outbox)
        case .version: session.write { ResponseWriter.status(.version, to: &$0) }
        case .verbosity, .cacheMemoryLimit:
            // Accepted and without effect: the log's level and the memory are the operator's.
            if !request.quiet { session.write { ResponseWriter.status(.ok, to: &$0) } }
        case .stats:
            let query = StatsQuery(arguments: request.arguments(in: bytes), dumpsAllowed: true)
            answerStatistics(query, session, context)
        case .crawler:
            answerCrawler(
                CrawlerQuery(
                    arguments: request.arguments(in: bytes),
                    dumpsAllowed: true,
                    answersPending: session.hasPlaces
                ),
                session,
                context
            )
        case .shutdown:
            if case .refused(let error) = ShutdownMode(arguments: request.arguments(in: bytes), enabled: false) {
                session.write { ResponseWriter.error(error, to: &$0) }
            }
        case .refreshCertificates: session.write { ResponseWriter.error(.unknownCommand, to: &$0) }
        case .quit: session.isClosing = true
        }
    }

    /// Every slice is flushed by its holder; the answer waits for all of them.
    private mutating func flush(
        _ request: Request,
        _ session: ClientSession,
        _ context: Context,
        _ outbox: inout Outbox
    ) {
        counts.pointee.flushes += 1
        let progress = FlushProgress(slices: Slice.count, quiet: request.quiet)
        // A delay is made absolute once, or the slices would be flushed at different moments.
        var exptime = request.exptime
        if case .at(let seconds) = Exptime.absoluteSeconds(exptime, now: context.now.unixSeconds) {
            exptime = Int64(seconds)
        }
        let noKey = UnsafeRawBufferPointer(start: nil, count: 0)
        for slice in 0..<Slice.count {
            submit(
                RequestFrame(
                    id: 0,
                    ringHash: 0,
                    epoch: 0,
                    verb: .flush,
                    exptime: exptime,
                    unique: UInt64(slice),
                    key: noKey
                ),
                hash: 0,
                format: .flush(progress),
                session: session,
                context: context,
                outbox: &outbox
            )
        }
    }

    // MARK: - Counting

    mutating func count(_ reply: ReplyView, _ format: ReplyFormat) {
        switch format {
        case .value(_, let touches, _):
            if reply.status == .hit {
                counts.pointee.getHits += 1
                if touches { counts.pointee.touchHits += 1 }
            } else {
                counts.pointee.getMisses += 1
                if touches { counts.pointee.touchMisses += 1 }
            }
        case .store(let verb, _):
            counts.pointee.sets += 1
            if reply.status == .outOfMemory { counts.pointee.noMemory += 1 }
            guard verb == .compareAndSet else { return }
            switch reply.status {
            case .stored: counts.pointee.casHits += 1
            case .exists: counts.pointee.casBadValue += 1
            case .notFound: counts.pointee.casMisses += 1
            default: break
            }
        case .delete:
            if reply.status == .deleted { counts.pointee.deleteHits += 1 } else { counts.pointee.deleteMisses += 1 }
        case .touch:
            if reply.status == .touched { counts.pointee.touchHits += 1 } else { counts.pointee.touchMisses += 1 }
        case .arithmetic(let isIncrement, _):
            switch (reply.status, isIncrement) {
            case (.number, true): counts.pointee.incrementHits += 1
            case (.number, false): counts.pointee.decrementHits += 1
            case (.notFound, true): counts.pointee.incrementMisses += 1
            case (.notFound, false): counts.pointee.decrementMisses += 1
            default: break
            }
        case .refusal, .flush:
            break
        }
    }
}
