package import CacheNode
package import ClusterCore
import PeerProtocol
import Reactor
import Replication
package import Sealing
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
    private let sealing: Mutex<Sealing>

    private struct Sealing {
        var ring: KeyRing?
        var figures = SealingFigures()
        /// What a log line was written about.
        var said: Set<Refusal> = []
        /// Refusals that the control loop has to tell of.
        var unsaid: [Refusal] = []
    }

    /// Who was refused, and why.
    struct Refusal: Hashable {
        var cause: SealingRefusal
        var address: IPAddress
    }

    /// Of so many addresses and causes at most the log says that they were refused.
    static let refusalsSaidMax = 256

    init(configuration: RuntimeConfiguration, shards: ShardTable, workers: [WorkerPort], control: ControlPort) {
        self.configuration = configuration
        self.shards = shards
        self.workers = workers
        self.control = control
        self.startedAt = SystemClock.monotonic()
        sealing = Mutex(Sealing(ring: configuration.keyRing))
    }

    // MARK: - Keys

    /// One side of a new sealed connection; nil where the node has no key.
    func sealer(_ role: LinkSealer.Role) -> LinkSealer? {
        guard let ring = sealing.withLock({ $0.ring }) else { return nil }
        var random = SystemRandomNumberGenerator()
        let secret = (0..<32).map { _ in UInt8.random(in: 0...255, using: &random) }
        return LinkSealer(role, ring: ring, clusterName: configuration.clusterName, secret: secret)
    }

    /// New connections rest on these keys, and old ones go over to them.
    func adopt(_ ring: KeyRing) {
        sealing.withLock { $0.ring = ring }
        for worker in workers { worker.post(.keys(ring)) }
    }

    /// Counts somebody who was refused; the log says it once.
    func refused(_ cause: SealingRefusal, at endpoint: Endpoint, isDatagram: Bool = false) {
        sealing.withLock { state in
            if !isDatagram { state.figures.connectionsRefused[cause, default: 0] += 1 }
            // These come about among members as well, when one has restarted or packets overtake each other.
            if cause == .replayed || cause == .outdated { return }
            let refusal = Refusal(cause: cause, address: endpoint.address)
            if state.said.count < Self.refusalsSaidMax, state.said.insert(refusal).inserted {
                state.unsaid.append(refusal)
            }
        }
    }

    /// What the log has not said yet.
    func takeUnsaid() -> [Refusal] {
        sealing.withLock { state in
            defer { state.unsaid = [] }
            return state.unsaid
        }
    }

    func note(_ statistics: SealingStatistics, sessions: Int) {
        sealing.withLock {
            $0.figures.gossip = statistics
            $0.figures.sessions = sessions
        }
    }

    /// Counts of sealing; nil where the node has no key.
    package var sealingFigures: SealingFigures? { sealing.withLock { $0.ring == nil ? nil : $0.figures } }
}

/// What became of sealed packets and connections.
package struct SealingFigures: Sendable {
    package var gossip = SealingStatistics()
    /// Starts of other nodes with which this one exchanges packets.
    package var sessions = 0
    /// Connections between nodes that were refused, by cause.
    package var connectionsRefused: [SealingRefusal: UInt64] = [:]
}

/// How other threads reach a worker.
final class WorkerPort: Sendable {
    enum Message: Sendable {
        /// A client's connection.
        case client(Int32)
        /// A connection of the data lane that a member's worker opened; the bytes came behind its first frame.
        case link(Int32, PeerNumber, worker: UInt8, [UInt8], SealedConnection.Handed?)
        /// Connections go over to these keys.
        case keys(KeyRing)
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
        /// A connection that a member opened to a worker has ended, or begins.
        case interruption(from: PeerNumber)
        /// An administrator's question; the answer is given from the control thread.
        case ask(@Sendable (inout ControlPlane, Now) -> Void)
        /// A drain, its way back, and the answer.
        case order(NodeOrder, node: String, reply: @Sendable (OrderOutcome) -> Void)
        /// The word that a member will not return, and the answer.
        case forget(node: String, reply: @Sendable (OrderOutcome) -> Void)
        /// The word to form a cluster without a majority of the seeds, and the answer.
        case form(reply: @Sendable (OrderOutcome) -> Void)
        /// A change of the cluster keys, and the answer.
        case keys(KeyRingChange, reply: @Sendable (OrderOutcome) -> Void)
        /// The key ring is on disk.
        case stored(KeyRing)
        /// The word that removals from the ring wait no longer, and who was told.
        case releaseBrake(reply: @Sendable (BrakeRelease) -> Void)
        /// The wish to examine all members; nil where the node has stopped.
        case examine(reply: @Sendable (Examination?) -> Void)
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
