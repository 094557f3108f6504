import CacheNode
import ClusterCore
import Reactor

/// One client's socket: reads into a session, writes what the session has, closes between requests.
///
/// Watched by edges, once for its whole life: the loop says what is new, and the connection remembers what it has left
/// undone. So nothing is asked of the kernel but to read and to send, and whoever is not read costs no wake-ups.
///
/// An idle connection has no buffers. Requests are read into the worker's buffer, and what came in part moves to one
/// that is lent; so is the room for answers.
final class ClientConnection: EventHandler {
    /// Bytes taken from the kernel at once. Larger pipelines are taken in parts, so that connections stay fair.
    static let readBytesMax = 64 * 1024

    let descriptor: Int32
    /// The worker outlives its connections: it closes them before it ends.
    private let worker: Unmanaged<Worker>
    var registration: Registration?
    let session: ClientSession
    /// What has come and is not taken yet. In memory of its own, see `ClientSession.State`.
    private let input: UnsafeMutablePointer<ByteBuffer>
    private(set) var isClosed = false
    /// The kernel may have something to be read.
    private var isReadable = false
    /// The kernel took less than was there; it says when it has room again.
    private var isBlocked = false
    /// The client has closed its side, and all it sent has been read.
    private var isAtEnd = false
    /// The worker looks at it at the end of this turn.
    var isTouched = false
    /// The worker lets it go on at the start of the next turn.
    var goesOn = false
    /// Where the worker's list has it.
    var position = -1
    /// When the client last said something, in nanoseconds of the monotonic clock.
    private(set) var activeAt: UInt64

    init(descriptor: Int32, itemBytesMax: Int, worker: Worker) {
        self.descriptor = descriptor
        self.worker = .passUnretained(worker)
        session = ClientSession(token: 0, itemBytesMax: itemBytesMax)
        input = .allocate(capacity: 1)
        input.initialize(to: ByteBuffer(capacity: 0))
        activeAt = worker.loop.now.instant.nanoseconds
        super.init()
        session.token = Int(bitPattern: Unmanaged.passUnretained(self).toOpaque())
    }

    deinit {
        input.deinitialize(count: 1)
        input.deallocate()
    }

    /// The connection of a session that is not gone.
    static func of(_ session: ClientSession) -> ClientConnection? {
        guard !session.isGone, let address = UnsafeRawPointer(bitPattern: session.token) else { return nil }
        // A session that is not gone has its connection, which set the token and marks the session when it closes.
        return Unmanaged<ClientConnection>.fromOpaque(address).takeUnretainedValue()
    }

    override func ready(_ events: Ready) {
        worker._withUnsafeGuaranteedRef { ready(events, $0) }
    }

    private func ready(_ events: Ready, _ worker: Worker) {
        guard !isClosed else { return }
        if events.contains(.error) || (events.contains(.hangup) && !events.contains(.readable)) {
            worker.close(self)
            return
        }
        if events.contains(.readable) || events.contains(.peerClosed) {
            isReadable = true
            if mayRead { read(worker, isClosing: events.contains(.peerClosed)) }
        }
        if isBlocked, events.contains(.writable), !isClosed {
            isBlocked = false
            worker.touch(self)
        }
    }

    private var mayRead: Bool { !isAtEnd && !isBlocked && session.mayRead }

    /// One read, and as much of it as the session takes.
    private func read(_ worker: Worker, isClosing: Bool) {
        let isFresh = input.pointee.isEmpty
        let buffer = isFresh ? worker.input : input
        if isFresh {
            worker.prepareInput()
        } else {
            worker.equip(&input.pointee)
        }
        let start = isFresh ? buffer.pointee.count : 0
        switch Socket.receive(descriptor, into: &buffer.pointee, max: Self.readBytesMax) {
        case .bytes(let count):
            // Less than there was room for: that was all, unless the end is behind it.
            isReadable = count == Self.readBytesMax || isClosing
            activeAt = worker.loop.now.instant.nanoseconds
            worker.countRead(count)
            if isFresh, worker.gather(UnsafeRawBufferPointer(rebasing: buffer.pointee.bytes[start...]), session) {
                worker.touch(self)
            } else {
                take(buffer, from: start, isFresh: isFresh, worker)
            }
        case .wouldBlock: isReadable = false
        case .closed:
            // What was asked before is still answered.
            isAtEnd = true
            worker.touch(self)
        case .failed: worker.close(self)
        }
    }

    /// Gives the session what is there from `start` on, as far as it takes it, and keeps the rest.
    private func take(_ buffer: UnsafeMutablePointer<ByteBuffer>, from start: Int, isFresh: Bool, _ worker: Worker) {
        let bytes = UnsafeRawBufferPointer(rebasing: buffer.pointee.bytes[start...])
        let consumed = worker.receive(bytes, session)
        let isAll = consumed == bytes.count
        if isFresh {
            if !isAll {
                worker.equip(&input.pointee)
                input.pointee.append(UnsafeRawBufferPointer(rebasing: bytes[consumed...]))
            }
            buffer.pointee.truncate(to: start)
        } else if isAll {
            input.pointee.removeAll()
            worker.reclaim(&input.pointee)
        } else if consumed > 0 {
            input.pointee.removeFirst(consumed)
        }
        worker.touch(self)
    }

    /// Goes on with what was left in the turn before: input that waits, then the kernel's.
    func goOn(_ worker: Worker) {
        guard !isClosed else { return }
        if session.wantsResume {
            take(input, from: 0, isFresh: false, worker)
        } else if isReadable, mayRead {
            read(worker, isClosing: true)
        }
    }

    /// One send; then the session goes on at the next turn, if there is something.
    func flush(isStopping: Bool, _ worker: Worker) {
        guard !isClosed, !isBlocked else { return }
        if !session.output.isEmpty {
            let before = session.output.unsentBytes
            let sent = Socket.send(descriptor, from: &session.output)
            worker.countWritten(before - session.output.unsentBytes)
            switch sent {
            case .all: worker.reclaim(session)
            case .wouldBlock: isBlocked = true
            case .failed:
                worker.close(self)
                return
            }
        }
        if isBlocked {
            // An answer that is too slow to leave is given up by `idleTimeout` or by the kernel's keep-alive.
            if session.wantsResume, session.hasRoom { worker.goOnLater(self) }
            return
        }
        // A request that has come only in part is not taken yet: the client sees a closed connection between
        // requests, as after an idle time-out.
        if session.isIdle, !session.wantsResume, session.isClosing || isAtEnd || isStopping {
            worker.close(self)
            return
        }
        // Without room it waits for other nodes; their answers have it looked at again.
        if session.wantsResume ? session.hasRoom : isReadable && mayRead { worker.goOnLater(self) }
    }

    /// Takes back what only a busy connection needs, if it has been silent since before `limit`.
    func trim(silentSince limit: UInt64) {
        if activeAt < limit { session.trim() }
    }

    /// Closes a client that has been silent since before `limit`, in nanoseconds, and owes nothing but to read.
    func close(silentSince limit: UInt64, _ worker: Worker) {
        guard !isClosed, activeAt < limit, session.isIdle || isBlocked else { return }
        worker.countIdleTimeout()
        worker.close(self)
    }

    func close() {
        guard !isClosed else { return }
        isClosed = true
        session.isGone = true
        if let registration { worker._withUnsafeGuaranteedRef { $0.loop.remove(registration) } }
        Socket.close(descriptor)
        input.pointee.removeAll(shrinkingTo: 0)
        session.output.removeAll()
    }
}
