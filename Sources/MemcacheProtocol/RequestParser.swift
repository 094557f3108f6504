// Memcached's text protocol: bytes of a client in, requests out; answers in, bytes for a client out.
//
// The grammar is small, but it lives in the habits of a single server. What clients depend on is the order in which
// that server checks a line, which refusals swallow the data block behind it, what noreply silences and what it does
// not, and the words of every error. A parser written from the protocol's description alone gets each of these wrong
// somewhere and then reads a value as commands. So this target follows memcached 1.6.45 check by check; its tests are
// tables of bytes and what follows from them.
//
// The simple way, to split a line into an array of strings, allocates several times per request, and a cache answers a
// pipelined get in less time than that takes. Here a request is a flat struct of numbers and offsets into the
// connection's buffer. Nothing is copied: the key is hashed where it was received, the value is copied once, into the
// store.
//
// The parser itself keeps framing alone. It asks for a whole line, and for a storage command also for the whole block,
// and is otherwise a function of the bytes at the front. That makes it indifferent to how the network cut them:
//
//      first ──0x80──▶ closed                          (binary is refused as long as it is not spoken)
//        │
//        ▼           no newline, block incomplete: need more
//      lines ◀────────────────────────────────────────────┐
//        │ refused, block declared        swallowed       │
//        ├───────────────────────▶ block ─────────────────┘
//        └── line too long, HTTP ─▶ closed
//
// Source: memcached's doc/protocol.txt, and the server itself beside it.

import Glibc

/// Finds the requests in what one client sends. One per connection.
///
/// The caller keeps what it received and has not consumed, and passes all of it each time. Requests come out the same
/// however the bytes arrive.
public struct RequestParser: Sendable {
    private enum Phase {
        /// Nothing was received yet: goes to `text` or `closed`.
        case first
        /// Goes to `closed` on a line that closes.
        case text
        /// For ever.
        case closed
    }

    private let itemBytesMax: Int
    private let keysLineBytesMax: Int
    private var phase = Phase.first
    /// How many bytes at the front are known to hold no newline.
    private var scannedCount = 0
    /// How many bytes the request at the front needs; 0 if its line is not read yet.
    private var wantedCount = 0
    /// How many bytes of a refused data block are still to come.
    private var swallowCount = 0

    /// - Parameters:
    ///   - itemBytesMax: The largest item, in bytes, with memcached's overhead; a larger one is refused before its
    ///     value is read. A connection's buffer grows to this and a line.
    ///   - keysLineBytesMax: The longest line of get and gets, in bytes.
    public init(
        itemBytesMax: Int = ProtocolLimits.itemBytesMax,
        keysLineBytesMax: Int = ProtocolLimits.keysLineBytesMax
    ) {
        precondition(itemBytesMax > 0, "an item of \(itemBytesMax) bytes holds nothing")
        precondition(keysLineBytesMax >= ProtocolLimits.lineBytesMax, "a get line is no shorter than others")
        self.itemBytesMax = itemBytesMax
        self.keysLineBytesMax = keysLineBytesMax
    }

    /// Parses at the front of `bytes`: everything that was received and not yet consumed.
    public mutating func next(_ bytes: UnsafeRawBufferPointer) -> ParseStep {
        if phase == .closed { return .close }
        guard let base = bytes.baseAddress, !bytes.isEmpty else { return .needMore(hint: wantedCount) }
        if swallowCount > 0 {
            let consumed = min(swallowCount, bytes.count)
            swallowCount &-= consumed
            return .skip(consumed: consumed)
        }
        if bytes.count < wantedCount { return .needMore(hint: wantedCount) }
        wantedCount = 0
        if phase == .first {
            if bytes[0] == 0x80 { return close() }
            phase = .text
        }

        let searchStart = min(scannedCount, bytes.count)
        guard let newline = memchr(base + searchStart, 0x0a, bytes.count &- searchStart) else {
            scannedCount = bytes.count
            return isLineTooLong(bytes, lineCount: bytes.count) ? close() : .needMore(hint: 0)
        }
        let lineCount = UnsafeRawPointer(newline) - base
        if isLineTooLong(bytes, lineCount: lineCount) { return close() }
        scannedCount = 0
        let consumed = lineCount &+ 1
        // memcached wants four bytes before it looks at them.
        if consumed < 4 { return .refused(.badCommandLine, quiet: false, consumed: consumed) }
        let end = bytes[lineCount &- 1] == 0x0d ? lineCount &- 1 : lineCount
        return parseLine(bytes, end: end, consumed: consumed)
    }

    /// Has the parser begin anew at the start of a request that it has returned already: the caller consumes less than
    /// the step said, and passes the request's bytes again.
    public mutating func rewind() {
        phase = .text
        scannedCount = 0
        wantedCount = 0
        swallowCount = 0
    }

    private mutating func close() -> ParseStep {
        phase = .closed
        return .close
    }

    /// Counts the bytes before the newline, whether it has come or not, so that a line closes the connection or does
    /// not however it arrived.
    private func isLineTooLong(_ bytes: UnsafeRawBufferPointer, lineCount: Int) -> Bool {
        if lineCount <= ProtocolLimits.lineBytesMax { return false }
        if lineCount > keysLineBytesMax { return true }
        var start = 0
        while bytes[start] == 0x20 {
            start &+= 1
            if start > ProtocolLimits.leadingSpacesMax { return true }
        }
        let line = LineCursor(bytes, from: 0, to: lineCount)
        let text = LineCursor.Token(start: start, end: lineCount)
        return !line.starts(text, "get ") && !line.starts(text, "gets ")
    }

    // MARK: Commands

    private mutating func parseLine(_ bytes: UnsafeRawBufferPointer, end: Int, consumed: Int) -> ParseStep {
        var line = LineCursor(bytes, from: 0, to: end)
        guard bytes[0] != 0x20, let name = line.next() else { return unknown(line, consumed: consumed) }
        guard let command = Self.command(name, in: line) else {
            if line.equals(name, "watch") { return .refused(.watchNotAllowed, quiet: false, consumed: consumed) }
            return unknown(line, consumed: consumed)
        }
        switch command {
        case .get, .gets:
            return parseKeys(&line, into: Request(command), consumed: consumed)
        case .set, .add, .replace, .append, .prepend, .cas:
            return parseStore(&line, command, bytes, consumed: consumed)
        case .gat, .gats:
            return parseGetAndTouch(&line, command, consumed: consumed)
        case .increment, .decrement:
            return parseDelta(&line, command, consumed: consumed)
        case .touch:
            return parseTouch(&line, consumed: consumed)
        case .delete:
            return parseDelete(&line, consumed: consumed)
        case .flushAll:
            return parseFlush(&line, consumed: consumed)
        case .verbosity:
            return parseVerbosity(&line, consumed: consumed)
        case .cacheMemoryLimit:
            return parseMemoryLimit(&line, consumed: consumed)
        case .stats, .crawler, .shutdown:
            var request = Request(command)
            let arguments = line.rest
            request.argumentsOffset = arguments.start
            request.argumentsLength = arguments.count
            return .request(request, consumed: consumed)
        case .version, .quit, .refreshCertificates:
            return .request(Request(command), consumed: consumed)
        }
    }

    private static func command(_ name: LineCursor.Token, in line: LineCursor) -> Request.Command? {
        switch name.count {
        case 3:
            if line.equals(name, "get") { return .get }
            if line.equals(name, "set") { return .set }
            if line.equals(name, "add") { return .add }
            if line.equals(name, "cas") { return .cas }
            if line.equals(name, "gat") { return .gat }
        case 4:
            if line.equals(name, "gets") { return .gets }
            if line.equals(name, "incr") { return .increment }
            if line.equals(name, "decr") { return .decrement }
            if line.equals(name, "gats") { return .gats }
            if line.equals(name, "quit") { return .quit }
        case 5:
            if line.equals(name, "touch") { return .touch }
            if line.equals(name, "stats") { return .stats }
        case 6:
            if line.equals(name, "delete") { return .delete }
            if line.equals(name, "append") { return .append }
        case 7:
            if line.equals(name, "replace") { return .replace }
            if line.equals(name, "prepend") { return .prepend }
            if line.equals(name, "version") { return .version }
        case 8:
            if line.equals(name, "shutdown") { return .shutdown }
        case 9:
            if line.equals(name, "flush_all") { return .flushAll }
            if line.equals(name, "verbosity") { return .verbosity }
        case 11:
            if line.equals(name, "lru_crawler") { return .crawler }
        case 13:
            if line.equals(name, "refresh_certs") { return .refreshCertificates }
        case 14:
            if line.equals(name, "cache_memlimit") { return .cacheMemoryLimit }
        default:
            break
        }
        return nil
    }

    private mutating func unknown(_ line: LineCursor, consumed: Int) -> ParseStep {
        // A browser, or a page that makes one send commands as the body of a POST.
        if let last = line.last, line.starts(last, "HTTP/") { return close() }
        return .refused(.unknownCommand, quiet: line.endsInNoreply(behind: 0), consumed: consumed)
    }

    // MARK: Retrieval

    /// One key too long refuses the line as a whole; `noreply` is a key like others.
    private func parseKeys(_ line: inout LineCursor, into empty: Request, consumed: Int) -> ParseStep {
        var request = empty
        guard let first = line.next() else { return badLine(consumed) }
        if first.count > ProtocolLimits.keyBytesMax { return badLine(consumed) }
        var last = first
        var count = 1
        while let key = line.next() {
            if key.count > ProtocolLimits.keyBytesMax { return badLine(consumed) }
            last = key
            count &+= 1
        }
        request.keyOffset = first.start
        request.keyLength = first.count
        request.keysOffset = first.start
        request.keysLength = last.end &- first.start
        request.keyCount = count
        return .request(request, consumed: consumed)
    }

    private func parseGetAndTouch(_ line: inout LineCursor, _ command: Request.Command, consumed: Int) -> ParseStep {
        guard let exptime = line.next() else { return badLine(consumed) }
        if line.rest.count == 0 { return badLine(consumed) }
        guard let seconds = DecimalNumber.strictSigned32(line.bytes(of: exptime)) else {
            return .refused(.invalidExptime, quiet: false, consumed: consumed)
        }
        var request = Request(command)
        request.exptime = Int64(seconds)
        return parseKeys(&line, into: request, consumed: consumed)
    }

    // MARK: Storage

    /// The order of the checks decides what becomes of the data block, see the steps.
    private mutating func parseStore(
        _ line: inout LineCursor,
        _ command: Request.Command,
        _ bytes: UnsafeRawBufferPointer,
        consumed: Int
    ) -> ParseStep {
        // 1. Without a length nothing can be skipped: what follows is read as commands, and noreply does not count.
        guard let key = line.next(), let flags = line.next(), let exptime = line.next(), let length = line.next(),
            let declared = DecimalNumber.strictSigned32(line.bytes(of: length)),
            declared >= 0, Int(declared) <= ProtocolLimits.valueBytesMax
        else { return badLine(consumed) }
        let valueLength = Int(declared)

        // 2. From here on the block is skipped, and noreply silences the error.
        var request = Request(command)
        request.quiet = line.endsInNoreply(behind: length.end)
        guard key.count <= ProtocolLimits.keyBytesMax,
            let flagBits = DecimalNumber.lenientUnsigned32(line.bytes(of: flags)),
            let seconds = DecimalNumber.lenientSigned32(line.bytes(of: exptime))
        else { return refuseBlock(.badCommandLine, request, valueLength, consumed: consumed) }
        if command == .cas {
            guard let unique = line.next(), let number = DecimalNumber.strictUnsigned64(line.bytes(of: unique)) else {
                return refuseBlock(.badCommandLine, request, valueLength, consumed: consumed)
            }
            request.unique = number
        }
        request.keyOffset = key.start
        request.keyLength = key.count
        request.keyCount = 1
        request.flags = flagBits
        request.exptime = Int64(seconds)
        request.valueOffset = consumed
        request.valueLength = valueLength

        // 3. A set that cannot be stored must not leave the value that it meant to replace.
        if ProtocolLimits.itemOverheadBytes &+ key.count &+ valueLength > itemBytesMax {
            if command != .set { return refuseBlock(.objectTooLarge, request, valueLength, consumed: consumed) }
            swallowCount = valueLength &+ 2
            return .refusedStore(request, .objectTooLarge, consumed: consumed)
        }

        // 4. The block, which ends in exactly a line end. If not, it is dropped and what follows is read as commands.
        let blockEnd = consumed &+ valueLength
        let whole = blockEnd &+ 2
        if bytes.count < whole {
            wantedCount = whole
            return .needMore(hint: whole)
        }
        if bytes[blockEnd] != 0x0d || bytes[blockEnd &+ 1] != 0x0a {
            return .refused(.badDataChunk, quiet: request.quiet, consumed: whole)
        }
        return .request(request, consumed: whole)
    }

    private mutating func refuseBlock(
        _ error: ErrorReply,
        _ request: Request,
        _ valueLength: Int,
        consumed: Int
    ) -> ParseStep {
        swallowCount = valueLength &+ 2
        return .refused(error, quiet: request.quiet, consumed: consumed)
    }

    // MARK: Other commands with a key

    private func parseDelta(_ line: inout LineCursor, _ command: Request.Command, consumed: Int) -> ParseStep {
        guard let key = line.next(), let delta = line.next() else { return badLine(consumed) }
        let quiet = line.endsInNoreply(behind: key.end)
        if key.count > ProtocolLimits.keyBytesMax { return badLine(consumed, quiet: quiet) }
        guard let number = DecimalNumber.strictUnsigned64(line.bytes(of: delta)) else {
            return .refused(.invalidDelta, quiet: quiet, consumed: consumed)
        }
        var request = Self.request(command, key: key, quiet: quiet)
        request.delta = number
        return .request(request, consumed: consumed)
    }

    private func parseTouch(_ line: inout LineCursor, consumed: Int) -> ParseStep {
        guard let key = line.next(), let exptime = line.next() else { return badLine(consumed) }
        let quiet = line.endsInNoreply(behind: key.end)
        if key.count > ProtocolLimits.keyBytesMax { return badLine(consumed, quiet: quiet) }
        guard let seconds = DecimalNumber.strictSigned32(line.bytes(of: exptime)) else {
            return .refused(.invalidExptime, quiet: quiet, consumed: consumed)
        }
        var request = Self.request(.touch, key: key, quiet: quiet)
        request.exptime = Int64(seconds)
        return .request(request, consumed: consumed)
    }

    /// Old clients send a time after the key, which is ignored with all else that follows.
    private func parseDelete(_ line: inout LineCursor, consumed: Int) -> ParseStep {
        guard let key = line.next() else { return badLine(consumed) }
        let quiet = line.endsInNoreply(behind: key.end)
        if key.count > ProtocolLimits.keyBytesMax { return badLine(consumed, quiet: quiet) }
        return .request(Self.request(.delete, key: key, quiet: quiet), consumed: consumed)
    }

    private static func request(_ command: Request.Command, key: LineCursor.Token, quiet: Bool) -> Request {
        var request = Request(command)
        request.quiet = quiet
        request.keyOffset = key.start
        request.keyLength = key.count
        request.keyCount = 1
        return request
    }

    // MARK: Commands without a key

    private func parseFlush(_ line: inout LineCursor, consumed: Int) -> ParseStep {
        var request = Request(.flushAll)
        request.quiet = line.endsInNoreply(behind: 0)
        let last = line.last
        guard let delay = line.next() else { return .request(request, consumed: consumed) }
        // A noreply that is the only argument is not the delay.
        if request.quiet, delay.start == last?.start { return .request(request, consumed: consumed) }
        guard let seconds = DecimalNumber.lenientSigned32(line.bytes(of: delay)) else {
            return .refused(.invalidExptime, quiet: request.quiet, consumed: consumed)
        }
        request.exptime = Int64(seconds)
        return .request(request, consumed: consumed)
    }

    private func parseVerbosity(_ line: inout LineCursor, consumed: Int) -> ParseStep {
        guard let level = line.next() else { return badLine(consumed) }
        var request = Request(.verbosity)
        request.quiet = line.endsInNoreply(behind: 0)
        guard let number = DecimalNumber.lenientUnsigned32(line.bytes(of: level)) else {
            return badLine(consumed, quiet: request.quiet)
        }
        request.delta = UInt64(number)
        return .request(request, consumed: consumed)
    }

    private func parseMemoryLimit(_ line: inout LineCursor, consumed: Int) -> ParseStep {
        var request = Request(.cacheMemoryLimit)
        request.quiet = line.endsInNoreply(behind: 0)
        guard let limit = line.next(), let megabytes = DecimalNumber.lenientUnsigned64(line.bytes(of: limit)) else {
            return .refused(.unknownCommand, quiet: request.quiet, consumed: consumed)
        }
        if megabytes < ProtocolLimits.memoryLimitMegabytesMin {
            return .refused(.memoryLimitTooSmall, quiet: request.quiet, consumed: consumed)
        }
        if megabytes > ProtocolLimits.memoryLimitMegabytesMax {
            return .refused(.memoryLimitInBytes, quiet: request.quiet, consumed: consumed)
        }
        request.delta = megabytes
        return .request(request, consumed: consumed)
    }

    private func badLine(_ consumed: Int, quiet: Bool = false) -> ParseStep {
        .refused(.badCommandLine, quiet: quiet, consumed: consumed)
    }
}
