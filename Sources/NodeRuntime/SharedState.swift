package import CacheNode
package import ClusterCore
import PeerProtocol
import Reactor
import Replication
import Synchronization

/// What the threads of a node share: mailboxes, the lease, counters. Everything here may be used from any thread.
package final class SharedState: Sendable {
    package let configuration: RuntimeConfiguration
    package let shards: ShardTable
    let workers: [WorkerPort]
    let control: ControlPort
    /// Until when the node may serve, in nanoseconds of the monotonic clock.
    let leaseUntil = Atomic<UInt64>(0)
    /// Client connections that are open.
    let connections = Atomic<Int>(0)
    let connectionsTotal = Atomic<UInt64>(0)
    let connectionsRejected = Atomic<UInt64>(0)
    let acceptPauses = Atomic<UInt64>(0)
    /// Connections closed because their clients were silent for too long.
    let idleTimeouts = Atomic<UInt64>(0)
    let bytesRead = Atomic<UInt64>(0)
    let bytesWritten = Atomic<UInt64>(0)
    /// Connections closed because the node was paused in the middle of answering.
    let staleTurns = Atomic<UInt64>(0)
    /// When the control loop last turned, for `/livez`.
    let controlTurnedAt = Atomic<UInt64>(0)
    package let startedAt: Instant

    init(configuration: RuntimeConfiguration, shards: ShardTable, workers: [WorkerPort], control: ControlPort) {
        self.configuration = configuration
        self.shards = shards
        self.workers = workers
        self.control = control
        self.startedAt = SystemClock.monotonic()
    }
}

/// How other threads reach a worker.
final class WorkerPort: Sendable {
    enum Message: Sendable {
        /// A client's connection.
        case client(Int32)
        /// A member's connection of the data lane; the bytes came behind its first frame.
        case link(Int32, PeerNumber, [UInt8])
        case topology(Topology)
        case complete([CompletionMessage])
        case resetCounters
        /// No new clients; open connections close when they are idle.
        case drainClients
        case stop
    }

    let mailbox = Mailbox<Message>(messagesMax: 1 << 20)
    let waker: Waker
    /// The worker's counters, as of its last turn.
    let counters = CounterSlot()
    let turnedAt = Atomic<UInt64>(0)
    /// Client connections that the worker has, or is about to get.
    let connections = Atomic<Int>(0)

    init(waker: Waker) {
        self.waker = waker
    }

    func post(_ message: Message) {
        let posting = mailbox.post(message)
        precondition(posting != .full, "a worker's mailbox is full: it has not turned for very long")
        if posting.needsWake { waker.wake() }
    }
}

/// An answer for a request that another thread owns.
struct CompletionMessage: Sendable {
    var origin: Origin
    var reply: Reply
}

/// How other threads reach the control loop.
final class ControlPort: Sendable {
    enum Message: Sendable {
        case signals([Outbox.Signal])
        case connection(peer: PeerNumber, worker: UInt8, isUp: Bool)
        /// An administrator's question; the answer is given from the control thread.
        case ask(@Sendable (inout ControlPlane, Now) -> Void)
        /// A drain, its way back, and the answer.
        case order(NodeOrder, node: String, reply: @Sendable (OrderOutcome) -> Void)
        /// The word that a member will not return, and the answer.
        case forget(node: String, reply: @Sendable (OrderOutcome) -> Void)
        /// The word to form a cluster without a majority of the seeds, and the answer.
        case form(reply: @Sendable (OrderOutcome) -> Void)
        /// The word that removals from the ring wait no longer, and who was told.
        case releaseBrake(reply: @Sendable (BrakeRelease) -> Void)
        case stop(ProcessSignal)
    }

    let mailbox = Mailbox<Message>(messagesMax: 1 << 20)
    let waker: Waker

    init(waker: Waker) {
        self.waker = waker
    }

    func post(_ message: Message) {
        let posting = mailbox.post(message)
        precondition(posting != .full, "the control loop's mailbox is full: it has not turned for very long")
        if posting.needsWake { waker.wake() }
    }
}

/// One worker's counters behind a lock of their own.
final class CounterSlot: Sendable {
    private let value = Mutex(CommandCounters())

    func store(_ counters: CommandCounters) {
        value.withLock { $0 = counters }
    }

    func load() -> CommandCounters {
        value.withLock { $0 }
    }
}

/// The runtime's locks, one for each shard.
final class RuntimeLocks: ShardLocks {
    private let locks: LockArray

    init(count: Int) {
        locks = LockArray(count: count)
    }

    func lock(_ shard: Int) { locks.lock(shard) }
    func unlock(_ shard: Int) { locks.unlock(shard) }
}
