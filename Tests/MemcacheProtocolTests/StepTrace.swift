import MemcacheProtocol
import Testing

/// What a parser made of some bytes, in words: one line a step, neighbouring skips added up, waiting left out.
struct StepTrace {
    private(set) var lines: [String] = []
    private(set) var isClosed = false
    private var parser: RequestParser
    private var pending: [UInt8] = []
    private var skipped = 0

    init(itemBytesMax: Int = ProtocolLimits.itemBytesMax, keysLineBytesMax: Int = ProtocolLimits.keysLineBytesMax) {
        parser = RequestParser(itemBytesMax: itemBytesMax, keysLineBytesMax: keysLineBytesMax)
    }

    /// The trace of `bytes`, cut at the given offsets, which rise.
    static func of(_ bytes: [UInt8], cutAt cuts: [Int] = [], itemBytesMax: Int = 1_048_576) -> [String] {
        var trace = StepTrace(itemBytesMax: itemBytesMax)
        var start = 0
        for cut in cuts + [bytes.count] {
            trace.receive(bytes[start..<cut])
            start = cut
        }
        return trace.finished()
    }

    /// Behaves as a connection does: keeps what is not consumed and asks until nothing is left to do.
    mutating func receive(_ chunk: ArraySlice<UInt8>) {
        if isClosed { return }
        pending.append(contentsOf: chunk)
        var offset = 0
        var isWaiting = false
        while !isWaiting, !isClosed {
            let consumed = pending[offset...].withUnsafeBytes { bytes -> Int? in
                let step = parser.next(bytes)
                return note(step, bytes)
            }
            if let consumed { offset += consumed } else { isWaiting = true }
        }
        pending.removeFirst(offset)
    }

    /// All lines, and what is left over.
    func finished() -> [String] {
        var all = lines
        if skipped > 0 { all.append("skip \(skipped)") }
        if !pending.isEmpty, !isClosed { all.append("pending \(pending.count)") }
        return all
    }

    private mutating func note(_ step: ParseStep, _ bytes: UnsafeRawBufferPointer) -> Int? {
        switch step {
        case .skip(let consumed):
            #expect((1...bytes.count).contains(consumed))
            skipped += consumed
            return consumed
        case .needMore(let hint):
            #expect(hint == 0 || hint > bytes.count)
            return nil
        case .close:
            add("close")
            isClosed = true
            return nil
        case .request(let request, let consumed):
            #expect((1...bytes.count).contains(consumed))
            add(describe(request, bytes))
            return consumed
        case .refused(let error, let quiet, let consumed):
            #expect((1...bytes.count).contains(consumed))
            add("\(error)\(quiet ? " quiet" : "")")
            return consumed
        case .refusedStore(let request, let error, let consumed):
            #expect((1...bytes.count).contains(consumed))
            #expect(request.command == .set)
            add("\(error)\(request.quiet ? " quiet" : "") delete \(text(request.key(in: bytes)))")
            return consumed
        }
    }

    private mutating func add(_ line: String) {
        if skipped > 0 {
            lines.append("skip \(skipped)")
            skipped = 0
        }
        lines.append(line)
    }
}

/// Bytes as text, control bytes and those above ASCII as `\xx`.
func text(_ bytes: UnsafeRawBufferPointer) -> String {
    var text = ""
    for byte in bytes {
        if (0x21...0x7e).contains(byte) || byte == 0x20 {
            text.unicodeScalars.append(Unicode.Scalar(byte))
        } else {
            text += "\\" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }
    }
    return text.count > 60 ? "\(text.prefix(3))...(\(bytes.count))" : text
}

private func describe(_ request: Request, _ bytes: UnsafeRawBufferPointer) -> String {
    let name = "\(request.command)\(request.quiet ? " quiet" : "")"
    switch request.command {
    case .get, .gets, .gat, .gats:
        let keys = request.keys(in: bytes).map { text($0) }
        #expect(keys.count == request.keyCount)
        #expect(keys.first == text(request.key(in: bytes)))
        let exptime = request.command == .gat || request.command == .gats ? " \(request.exptime)" : ""
        return "\(name)\(exptime) [\(keys.joined(separator: ","))]"
    case .set, .add, .replace, .append, .prepend, .cas:
        let unique = request.command == .cas ? " unique \(request.unique)" : ""
        return "\(name) \(text(request.key(in: bytes))) flags \(request.flags) exptime \(request.exptime)\(unique)"
            + " <\(text(request.value(in: bytes)))>"
    case .increment, .decrement:
        return "\(name) \(text(request.key(in: bytes))) \(request.delta)"
    case .touch:
        return "\(name) \(text(request.key(in: bytes))) \(request.exptime)"
    case .delete:
        return "\(name) \(text(request.key(in: bytes)))"
    case .flushAll:
        return "\(name) \(request.exptime)"
    case .verbosity, .cacheMemoryLimit:
        return "\(name) \(request.delta)"
    case .stats, .crawler, .shutdown:
        return "\(name) <\(text(request.arguments(in: bytes)))>"
    case .version, .quit, .refreshCertificates:
        return name
    }
}
