/// What came of a message that was put into a mailbox.
public enum Posting: Hashable, Sendable {
    /// The mailbox was empty before: wake whoever reads it.
    case first
    /// Others wait already, and whoever posted the first of them wakes the reader.
    case queued
    /// The mailbox is at its limit; the message was not taken.
    case full

    /// Whether the poster is to wake the reader.
    @inlinable
    public var needsWake: Bool { self == .first }
}

/// Messages from many threads to one.
///
/// A lock around an array that the reader swaps for an empty one: no allocation once both arrays have grown, one
/// short critical section a message. Order is kept for each poster.
///
/// `@unchecked Sendable`: `pending` is touched only between `lock` and `unlock`, everything else is constant, and
/// messages are Sendable.
public final class Mailbox<Message: Sendable>: @unchecked Sendable {
    /// How many messages may wait. More is memory; fewer is refusals while the reader is busy.
    public let messagesMax: Int
    @usableFromInline let lock = Lock()
    @usableFromInline var pending: [Message] = []

    public init(messagesMax: Int = 65_536) {
        precondition(messagesMax > 0, "a mailbox for \(messagesMax) messages")
        self.messagesMax = messagesMax
    }

    /// Leaves a message, from any thread. The caller wakes the reader where the result says so.
    @inlinable
    public func post(_ message: consuming Message) -> Posting {
        lock.lock()
        defer { lock.unlock() }
        let count = pending.count
        if count >= messagesMax { return .full }
        pending.append(message)
        return count == 0 ? .first : .queued
    }

    /// Takes all messages, oldest first.
    @inlinable
    public func drain() -> [Message] {
        var messages: [Message] = []
        drain(into: &messages)
        return messages
    }

    /// Replaces the contents of `messages` by all messages, oldest first. A reader that passes the same array each
    /// time makes the two arrays take turns, and nothing is allocated.
    @inlinable
    public func drain(into messages: inout [Message]) {
        messages.removeAll(keepingCapacity: true)
        lock.lock()
        swap(&messages, &pending)
        lock.unlock()
    }
}
