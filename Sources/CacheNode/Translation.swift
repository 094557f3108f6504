import CacheStore
import ClusterCore
import MemcacheProtocol
import PeerProtocol
import Replication

// The one place where the words of the wire and the words of the store meet.

extension RequestFrame.Verb {
    /// The store's operation for a verb that concerns one key.
    var operation: Operation.Kind {
        switch self {
        case .get: .get
        case .getAndTouch: .getAndTouch
        case .set: .set
        case .add: .add
        case .replace: .replace
        case .append: .append
        case .prepend: .prepend
        case .compareAndSet: .compareAndSet
        case .increment: .increment
        case .decrement: .decrement
        case .touch: .touch
        case .delete, .discard: .delete
        case .flush: preconditionFailure("a flush concerns a slice, not a key")
        }
    }
}

extension Reply {
    /// An outcome with bytes of its own.
    init(_ outcome: Outcome) {
        switch outcome {
        case .hit(let item), .touched(let item?):
            self.init(.hit, number: item.unique, flags: item.flags, value: item.value.array)
        default:
            self.init(outcome.status, number: outcome.number)
        }
    }
}

extension Outcome {
    var status: ReplyStatus {
        switch self {
        case .hit, .touched(.some): .hit
        case .miss: .miss
        case .stored: .stored
        case .notStored: .notStored
        case .exists: .exists
        case .notFound: .notFound
        case .deleted: .deleted
        case .touched(nil): .touched
        case .number: .number
        case .nonNumeric: .nonNumeric
        case .tooLarge: .tooLarge
        case .outOfMemory: .outOfMemory
        }
    }

    var number: UInt64 {
        switch self {
        case .hit(let item), .touched(let item?): item.unique
        case .stored(let unique): unique
        case .number(let value, _): value
        case .miss, .notStored, .exists, .notFound, .deleted, .touched(nil), .nonNumeric, .tooLarge, .outOfMemory: 0
        }
    }
}

extension ItemView {
    /// Writes the item as it travels.
    func append(to buffer: inout ByteBuffer) {
        value.withBytes { value in
            WireItem(
                version: version,
                unique: unique,
                expiry: expiry,
                flags: flags,
                frequency: frequency,
                isTombstone: isTombstone,
                key: key,
                value: value
            ).append(to: &buffer)
        }
    }

    /// Appends the item as the answer to a get of its key.
    @inline(__always)
    func write(key: UnsafeRawBufferPointer, withUnique: Bool, to buffer: inout ByteBuffer) {
        _ = buffer.reserve(key.count &+ value.count &+ 64)
        ResponseWriter.valueHeader(
            key: key,
            flags: flags,
            valueLength: value.count,
            unique: withUnique ? unique : nil,
            to: &buffer
        )
        value.append(to: &buffer)
        buffer.append("\r\n")
    }
}

extension WireItem {

    /// The item as the store takes it; the bytes stay where they are.
    func view(hash: UInt64) -> ItemView {
        ItemView(
            key: key,
            value: value,
            flags: flags,
            expiry: expiry,
            version: version,
            unique: unique,
            hash: hash,
            frequency: frequency,
            isTombstone: isTombstone
        )
    }
}
