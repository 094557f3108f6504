private import CSystemd
private import Dispatch
private import Glibc
private import Synchronization

/// Writes messages on a thread of its own, in order. What does not fit into the queue is dropped and counted.
package final class LogWriter: Sendable {
    /// Where messages go.
    package enum Destination: Hashable, Sendable {
        /// The journal, field by field.
        case journal
        /// A descriptor, one line a message.
        case descriptor(Int32, LineStyle)
    }

    /// How a line looks.
    package enum LineStyle: Hashable, Sendable {
        case logfmt
        case readable(colour: Bool)
    }

    /// How many messages may wait by default.
    package static let queuedMax = 4096

    private let destination: Destination
    private let limit: Int
    private let queue = DispatchQueue(label: "henge.log", qos: .utility)
    private let queued = Atomic<Int>(0)
    private let dropped = Atomic<Int>(0)

    package init(_ destination: Destination, queuedMax: Int = LogWriter.queuedMax) {
        self.destination = destination
        limit = queuedMax
    }

    /// Messages that found the queue full.
    package var droppedCount: Int { dropped.load(ordering: .relaxed) }

    /// Queues a message.
    package func write(_ record: LogRecord) {
        guard queued.add(1, ordering: .relaxed).newValue <= limit else {
            queued.subtract(1, ordering: .relaxed)
            dropped.add(1, ordering: .relaxed)
            return
        }
        queue.async {
            self.send(record)
            self.queued.subtract(1, ordering: .relaxed)
        }
    }

    /// Waits until all that was queued is written: before the process ends.
    package func flush() {
        queue.sync {}
    }

    private func send(_ record: LogRecord) {
        switch destination {
        case .journal: Self.sendToJournal(JournalFields.encode(record))
        case .descriptor(let descriptor, .logfmt): Self.write(LogLine.logfmt(record), to: descriptor)
        case .descriptor(let descriptor, .readable(let colour)):
            Self.write(LogLine.readable(record, colour: colour), to: descriptor)
        }
    }

    /// All fields lie in one buffer, whose address is valid only inside the closure.
    private static func sendToJournal(_ fields: [[UInt8]]) {
        var bytes = Array(fields.joined())
        bytes.withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            var offset = 0
            let parts = fields.map { field in
                defer { offset += field.count }
                return iovec(iov_base: base + offset, iov_len: field.count)
            }
            _ = sd_journal_sendv(parts, Int32(parts.count))
        }
    }

    private static func write(_ line: [UInt8], to descriptor: Int32) {
        line.withUnsafeBytes { buffer in
            var rest = buffer[...]
            while !rest.isEmpty {
                let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                if count > 0 {
                    rest = rest.dropFirst(count)
                } else if errno != EINTR {
                    return  // nobody reads the log any more: there is nobody to tell
                }
            }
        }
    }
}
