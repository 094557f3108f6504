import ClusterCore
import MemcacheProtocol
import PeerProtocol
import Replication

// From a client's bytes to requests.

extension DataPlane {
    /// Takes what a client sent, as far as it can be taken now. `bytes` is everything received and not yet taken.
    /// Returns how many bytes are done with; the session's output has the answers that are ready.
    package mutating func receive(
        _ bytes: UnsafeRawBufferPointer,
        session: ClientSession,
        context: Context,
        outbox: inout Outbox
    ) -> Int {
        var consumed = 0
        session.wantsResume = false
        session.waitsForRequest = false
        if session.dump != nil { advanceDump(session, context) }
        while !session.isClosing, session.dump == nil {
            guard session.hasRoom else {
                session.wantsResume = true
                break
            }
            guard requests.count < configuration.requestsMax else {
                session.waitsForRequest = true
                starved.append(session)
                break
            }
            let rest = UnsafeRawBufferPointer(rebasing: bytes[consumed...])
            let parserBefore = session.parser
            switch session.parser.next(rest) {
            case .needMore:
                return consumed
            case .skip(let count):
                consumed += count
            case .refused(let error, let quiet, let count):
                consumed += count
                if error == .objectTooLarge { counters.tooLarge += 1 }
                if !quiet { session.write { ResponseWriter.error(error, to: &$0) } }
            case .refusedStore(let request, let error, let count):
                let key = request.key(in: rest)
                let hash = KeyHash.hash(key)
                if session.mustWait(for: Slice.index(of: hash)) {
                    session.parser = parserBefore
                    session.waitsForRequest = true
                    return consumed
                }
                consumed += count
                counters.tooLarge += 1
                submit(
                    frame(.discard, key: key),
                    hash: hash,
                    format: .refusal(error, quiet: request.quiet),
                    session: session,
                    context: context,
                    outbox: &outbox
                )
            case .request(let request, let count):
                if mustWait(request, rest, session) {
                    session.parser = parserBefore
                    session.waitsForRequest = true
                    return consumed
                }
                consumed += count
                run(request, rest, session, context, &outbox)
                if session.dump != nil { advanceDump(session, context) }
            case .close:
                session.isClosing = true
                return bytes.count
            }
        }
        return consumed
    }

    private func mustWait(_ request: Request, _ bytes: UnsafeRawBufferPointer, _ session: ClientSession) -> Bool {
        guard session.outstandingCount > 0 else { return false }
        if request.command == .flushAll { return true }
        if request.keyCount > 1 {
            for key in request.keys(in: bytes) where session.mustWait(for: Slice.index(of: KeyHash.hash(key))) {
                return true
            }
            return false
        }
        guard request.keyLength > 0 else { return false }
        return session.mustWait(for: Slice.index(of: KeyHash.hash(request.key(in: bytes))))
    }

    private func frame(
        _ verb: RequestFrame.Verb,
        key: UnsafeRawBufferPointer,
        request: Request? = nil,
        value: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
    ) -> RequestFrame {
        RequestFrame(
            id: 0,
            ringHash: 0,
            epoch: 0,
            verb: verb,
            flags: request?.flags ?? 0,
            exptime: request?.exptime ?? 0,
            unique: request?.unique ?? 0,
            delta: request?.delta ?? 0,
            key: key,
            value: value
        )
    }

    private mutating func run(
        _ request: Request,
        _ bytes: UnsafeRawBufferPointer,
        _ session: ClientSession,
        _ context: Context,
        _ outbox: inout Outbox
    ) {
        switch request.command {
        case .get, .gets, .gat, .gats:
            let touches = request.command == .gat || request.command == .gats
            let format = ReplyFormat.value(
                withUnique: request.command == .gets || request.command == .gats,
                touches: touches
            )
            for key in request.keys(in: bytes) {
                submit(
                    frame(touches ? .getAndTouch : .get, key: key, request: request),
                    hash: KeyHash.hash(key),
                    format: format,
                    session: session,
                    context: context,
                    outbox: &outbox
                )
            }
            session.write { ResponseWriter.status(.end, to: &$0) }
        case .set: store(.set, request, bytes, session, context, &outbox)
        case .add: store(.add, request, bytes, session, context, &outbox)
        case .replace: store(.replace, request, bytes, session, context, &outbox)
        case .append: store(.append, request, bytes, session, context, &outbox)
        case .prepend: store(.prepend, request, bytes, session, context, &outbox)
        case .cas: store(.compareAndSet, request, bytes, session, context, &outbox)
        case .increment, .decrement:
            let isIncrement = request.command == .increment
            let format = ReplyFormat.arithmetic(isIncrement: isIncrement, quiet: request.quiet)
            one(isIncrement ? .increment : .decrement, format, request, bytes, session, context, &outbox)
        case .touch: one(.touch, .touch(quiet: request.quiet), request, bytes, session, context, &outbox)
        case .delete: one(.delete, .delete(quiet: request.quiet), request, bytes, session, context, &outbox)
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
                    answersPending: !session.places.isEmpty
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

    private mutating func store(
        _ verb: RequestFrame.Verb,
        _ request: Request,
        _ bytes: UnsafeRawBufferPointer,
        _ session: ClientSession,
        _ context: Context,
        _ outbox: inout Outbox
    ) {
        let key = request.key(in: bytes)
        submit(
            frame(verb, key: key, request: request, value: request.value(in: bytes)),
            hash: KeyHash.hash(key),
            format: .store(verb, quiet: request.quiet),
            session: session,
            context: context,
            outbox: &outbox
        )
    }

    private mutating func one(
        _ verb: RequestFrame.Verb,
        _ format: ReplyFormat,
        _ request: Request,
        _ bytes: UnsafeRawBufferPointer,
        _ session: ClientSession,
        _ context: Context,
        _ outbox: inout Outbox
    ) {
        let key = request.key(in: bytes)
        submit(
            frame(verb, key: key, request: request),
            hash: KeyHash.hash(key),
            format: format,
            session: session,
            context: context,
            outbox: &outbox
        )
    }

    /// Every slice is flushed by its holder; the answer waits for all of them.
    private mutating func flush(
        _ request: Request,
        _ session: ClientSession,
        _ context: Context,
        _ outbox: inout Outbox
    ) {
        counters.flushes += 1
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
        case .value(_, let touches):
            if reply.status == .hit {
                counters.getHits += 1
                if touches { counters.touchHits += 1 }
            } else {
                counters.getMisses += 1
                if touches { counters.touchMisses += 1 }
            }
        case .store(let verb, _):
            counters.sets += 1
            if reply.status == .outOfMemory { counters.noMemory += 1 }
            guard verb == .compareAndSet else { return }
            switch reply.status {
            case .stored: counters.casHits += 1
            case .exists: counters.casBadValue += 1
            case .notFound: counters.casMisses += 1
            default: break
            }
        case .delete:
            if reply.status == .deleted { counters.deleteHits += 1 } else { counters.deleteMisses += 1 }
        case .touch:
            if reply.status == .touched { counters.touchHits += 1 } else { counters.touchMisses += 1 }
        case .arithmetic(let isIncrement, _):
            switch (reply.status, isIncrement) {
            case (.number, true): counters.incrementHits += 1
            case (.number, false): counters.decrementHits += 1
            case (.notFound, true): counters.incrementMisses += 1
            case (.notFound, false): counters.decrementMisses += 1
            default: break
            }
        case .refusal, .flush:
            break
        }
    }
}
