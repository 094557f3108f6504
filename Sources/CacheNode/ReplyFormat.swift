import CacheStore
import ClusterCore
import MemcacheProtocol
import PeerProtocol

/// An answer whose bytes lie elsewhere.
struct ReplyView {
    var status: ReplyStatus
    var number: UInt64
    var flags: UInt32
    var value: ItemValue

    init(
        _ status: ReplyStatus,
        number: UInt64 = 0,
        flags: UInt32 = 0,
        value: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
    ) {
        self.status = status
        self.number = number
        self.flags = flags
        self.value = ItemValue(value)
    }

    init(_ outcome: Outcome) {
        switch outcome {
        case .hit(let item), .touched(let item?):
            self.init(.hit, number: item.unique, flags: item.flags)
            value = item.value
        default:
            self.init(outcome.status, number: outcome.number)
        }
    }
}

/// How the answer to one request is written in the text protocol.
enum ReplyFormat {
    /// One key of a get, gets, gat or gats: the item, or nothing; behind the last key the line that ends the answers.
    case value(withUnique: Bool, touches: Bool, ends: Bool)
    case store(RequestFrame.Verb, quiet: Bool)
    /// A set that was refused; the line says why, and the old value goes.
    case refusal(ErrorReply, quiet: Bool)
    case delete(quiet: Bool)
    case touch(quiet: Bool)
    case arithmetic(isIncrement: Bool, quiet: Bool)
    /// One slice of a flush_all; the last one answers for all.
    case flush(FlushProgress)

    /// Whether the answer has a place in the session's row.
    var isWritten: Bool {
        switch self {
        case .value: true
        case .store(_, let quiet), .refusal(_, let quiet), .delete(let quiet), .touch(let quiet),
            .arithmetic(_, let quiet):
            !quiet
        // Every slice has a place: the row's order makes the last one come last.
        case .flush(let progress): !progress.quiet
        }
    }

    func write(_ key: UnsafeRawBufferPointer, _ reply: ReplyView, timedOut: Bool, to buffer: inout ByteBuffer) {
        writeOutcome(key, reply, timedOut: timedOut, to: &buffer)
        if case .value(_, _, ends: true) = self { ResponseWriter.status(.end, to: &buffer) }
    }

    private func writeOutcome(
        _ key: UnsafeRawBufferPointer,
        _ reply: ReplyView,
        timedOut: Bool,
        to buffer: inout ByteBuffer
    ) {
        if case .flush(let progress) = self {
            progress.finished(isFailure: reply.status != .flushed)
            guard progress.remaining == 0 else { return }
            if progress.hasFailed {
                ResponseWriter.serverError("some slices could not be flushed; try again", to: &buffer)
            } else {
                ResponseWriter.status(.ok, to: &buffer)
            }
            return
        }
        if case .refusal(let error, _) = self {
            ResponseWriter.error(error, to: &buffer)
            return
        }
        switch reply.status {
        case .hit:
            guard case .value(let withUnique, _, _) = self else { return }
            _ = buffer.reserve(key.count &+ reply.value.count &+ 64)
            ResponseWriter.valueHeader(
                key: key,
                flags: reply.flags,
                valueLength: reply.value.count,
                unique: withUnique ? reply.number : nil,
                to: &buffer
            )
            reply.value.append(to: &buffer)
            buffer.append("\r\n")
        case .miss: break
        case .stored: ResponseWriter.status(.stored, to: &buffer)
        case .notStored: ResponseWriter.status(.notStored, to: &buffer)
        case .exists: ResponseWriter.status(.exists, to: &buffer)
        case .notFound: ResponseWriter.status(.notFound, to: &buffer)
        case .deleted: ResponseWriter.status(.deleted, to: &buffer)
        case .touched: ResponseWriter.status(.touched, to: &buffer)
        case .number: ResponseWriter.number(reply.number, to: &buffer)
        case .nonNumeric: ResponseWriter.error(.nonNumericValue, to: &buffer)
        case .tooLarge: ResponseWriter.error(.objectTooLarge, to: &buffer)
        case .outOfMemory:
            if case .arithmetic = self {
                ResponseWriter.error(.outOfMemoryIncrementing, to: &buffer)
            } else {
                ResponseWriter.error(.outOfMemoryStoring, to: &buffer)
            }
        case .flushed: break
        case .notHolder, .unknown:
            // Inside a multi-get an error line would be taken for another key's answer; a miss is always safe.
            if case .value = self { return }
            if timedOut {
                ResponseWriter.serverError("no node holds this key now; try again", to: &buffer)
            } else {
                ResponseWriter.serverError("a node was lost; the command may have taken effect", to: &buffer)
            }
        case .busy:
            if case .value = self { return }
            ResponseWriter.serverError("busy; try again", to: &buffer)
        }
    }
}

/// A flush_all on its way through all slices.
final class FlushProgress {
    private(set) var remaining: Int
    private(set) var hasFailed = false
    let quiet: Bool

    init(slices: Int, quiet: Bool) {
        remaining = slices
        self.quiet = quiet
    }

    func finished(isFailure: Bool) {
        remaining -= 1
        hasFailed = hasFailed || isFailure
    }
}
