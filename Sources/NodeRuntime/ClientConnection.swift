import CacheNode
import ClusterCore
import Reactor

/// One client's socket: reads into a session, writes what the session has, closes between requests.
final class ClientConnection: EventHandler {
    /// Bytes taken from the kernel at once. Larger pipelines are taken in parts, so that connections stay fair.
    static let readBytesMax = 64 * 1024

    let descriptor: Int32
    private unowned let worker: Worker
    var registration: Registration?
    let session: ClientSession
    private var input = ByteBuffer(capacity: 2048)
    private var output = TransmitBuffer(capacity: 2048)
    private(set) var isClosed = false
    /// The client has closed its side, or the kernel reports an end.
    private var isAtEnd = false

    init(descriptor: Int32, session: ClientSession, worker: Worker) {
        self.descriptor = descriptor
        self.session = session
        self.worker = worker
    }

    func ready(_ events: Ready) {
        guard !isClosed else { return }
        if events.contains(.error) || (events.contains(.hangup) && !events.contains(.readable)) {
            worker.close(self)
            return
        }
        if events.contains(.readable) { read() }
        if events.contains(.writable), !isClosed { worker.touch(self) }
    }

    private func read() {
        switch Socket.receive(descriptor, into: &input, max: Self.readBytesMax) {
        case .bytes(let count):
            worker.countRead(count)
            process()
        case .wouldBlock: break
        case .closed:
            // What was asked before is still answered.
            isAtEnd = true
            worker.touch(self)
        case .failed: worker.close(self)
        }
    }

    /// Gives the session what is there, as far as it takes it.
    func process() {
        guard !isClosed, !input.isEmpty || session.wantsResume else { return }
        let consumed = worker.receive(input.bytes, session)
        if consumed == input.count {
            input.removeAll(shrinkingTo: 64 * 1024)
        } else if consumed > 0 {
            input.removeFirst(consumed)
        }
        worker.touch(self)
    }

    /// One send, then the session goes on if it was waiting for room.
    func flush(isStopping: Bool) {
        guard !isClosed, let registration else { return }
        if !session.output.isEmpty {
            output.buffer.append(session.output.bytes)
            session.output.removeAll(shrinkingTo: 64 * 1024)
        }
        let before = output.unsentBytes
        let sent = Socket.send(descriptor, from: &output)
        worker.countWritten(before - output.unsentBytes)
        if case .failed = sent {
            worker.close(self)
            return
        }
        if output.isEmpty {
            if session.wantsResume, session.hasRoom { process() }
            let isIdle = session.isIdle && output.isEmpty
            // A request that has come only in part is not taken yet: the client sees a closed connection between
            // requests, as after an idle time-out.
            if isIdle, session.isClosing || isAtEnd || isStopping {
                worker.close(self)
                return
            }
        }
        var interest: Interest = output.isEmpty ? [] : .writable
        if !isAtEnd, !session.wantsResume, !session.waitsForRequest, !session.isClosing,
            output.unsentBytes < ClientSession.outputBytesMax
        {
            interest.insert(.readable)
        }
        worker.loop.change(registration, interest: interest)
    }

    /// Drops answers of a turn in which this node turned out to have been asleep.
    func abandon() {
        worker.close(self)
    }

    func close() {
        guard !isClosed else { return }
        isClosed = true
        session.isGone = true
        if let registration { worker.loop.remove(registration) }
        Socket.close(descriptor)
    }
}
