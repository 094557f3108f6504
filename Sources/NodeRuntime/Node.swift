package import CacheNode
import CacheStore
package import ClusterCore
import Glibc
import Membership
package import PeerProtocol
package import Reactor
import Replication
import Sealing
import Synchronization

/// Whoever runs a node hears of it here, from the control thread.
package protocol NodeObserver: AnyObject, Sendable {
    func log(_ event: NodeEvent)
    func remember(sawThree: Bool, peers: [Endpoint])
    /// Writes the cluster keys to disk, and says whether they are there; from any thread.
    func store(_ keyRing: [UInt8], done: @escaping @Sendable (Bool) -> Void)
    func clientsOpened()
    /// An orderly end has begun.
    func stopping()
    /// A second signal: the process must end now.
    func endsAtOnce()
}

/// What is worth a line in the log.
package enum NodeEvent: Sendable {
    case control(ControlEvent)
    case drainRefused(String)
    /// Connections wait to be accepted: descriptors or memory have run out.
    case acceptPaused(String)
    /// Fewer descriptors may be open than the allowed connections need.
    case fewDescriptors(limit: Int, wanted: Int)
    /// Somebody who is no member of the cluster, or has other keys, sent packets or called.
    case refused(String, from: String)
}

/// A node on its threads.
package final class Node: Sendable {
    package let shared: SharedState
    private let workers: [ThreadHandle]
    private let control: ThreadHandle
    private let outcome: Outcome

    /// Descriptors beside those of clients: links, listeners, files, HTTP.
    private static let descriptorsReserved = 1024

    private final class Outcome: Sendable {
        struct State {
            var isEnded = false
            var failure: String?
            /// The cluster as the node saw it last.
            var last: ClusterSnapshot?
            var waiting: [@Sendable () -> Void] = []
        }

        let state = Mutex(State())

        func end(_ failure: String?, last: ClusterSnapshot?) {
            let waiting = state.withLock { state in
                state.isEnded = true
                state.failure = failure
                state.last = last
                defer { state.waiting = [] }
                return state.waiting
            }
            for body in waiting { body() }
        }
    }

    /// Something that is made on one thread and handed to another, once, before that thread starts.
    private final class Parcel<Content>: @unchecked Sendable {
        let content: Content

        init(_ content: consuming Content) {
            self.content = content
        }
    }

    /// Opens the sockets and starts the threads. Throws where a port is in use or a thread cannot be started.
    package init(_ configuration: RuntimeConfiguration, observer: any NodeObserver) throws(SystemError) {
        SignalWatcher.ignoreBrokenPipes()
        let wanted = configuration.connectionsMax + Self.descriptorsReserved
        let limit = Descriptors.raiseLimit(to: wanted)
        if limit < wanted { observer.log(.fewDescriptors(limit: limit, wanted: wanted)) }
        let datagrams = configuration.gossip == .tcp ? nil : try Socket.bindDatagrams(to: configuration.clusterListen)
        let listener = try Socket.listen(on: configuration.clusterListen)
        // The client port is opened when the node may serve; that it can be opened shows now.
        for endpoint in configuration.clientListen { Socket.close(try Socket.listen(on: endpoint)) }

        var loops: [EventLoop] = []
        for _ in 0..<configuration.workers { loops.append(try EventLoop()) }
        let controlLoop = try EventLoop()
        let shards = ShardTable(
            count: configuration.shards,
            store: StoreConfiguration(
                memoryBytes: configuration.memoryBytes,
                itemBytesMax: configuration.itemBytesMax
            ),
            configuration: configuration.control.replication,
            locks: RuntimeLocks(count: configuration.shards)
        )
        let shared = SharedState(
            configuration: configuration,
            shards: shards,
            workers: loops.map { WorkerPort(waker: $0.waker) },
            control: ControlPort(waker: controlLoop.waker)
        )
        var plane = ControlPlane(
            configuration: configuration.control,
            membership: configuration.membership,
            own: configuration.own,
            seeds: configuration.seeds,
            remembered: configuration.remembered,
            shards: shards,
            now: SystemClock.monotonic(),
            randomSeed: configuration.randomSeed
        )
        if let ring = configuration.keyRing { plane.begin(with: ring) }
        let topology = plane.topology
        var workers: [ThreadHandle] = []
        for (index, loop) in loops.enumerated() {
            let parcel = Parcel(loop)
            workers.append(
                try ThreadHandle(name: "henge-worker-\(index)") {
                    Worker(index: UInt16(index), loop: parcel.content, shared: shared, topology: topology).run()
                }
            )
        }
        let outcome = Outcome()
        let parcel = Parcel((loop: controlLoop, plane: plane))
        control = try ThreadHandle(name: "henge-control") {
            let loop = parcel.content.loop
            do throws(SystemError) {
                let control = try ControlLoop(
                    loop: loop,
                    shared: shared,
                    plane: parcel.content.plane,
                    datagrams: datagrams,
                    clusterListener: listener,
                    observer: observer
                )
                let signals = try SignalWatcher(on: loop) { signal in
                    if signal != .hangUp { shared.control.post(.stop(signal)) }
                }
                let failure = control.run()
                signals.cancel()
                outcome.end(failure, last: control.lastSnapshot())
                control.answerRemaining()
            } catch {
                outcome.end("\(error)", last: nil)
            }
        }
        self.shared = shared
        self.workers = workers
        self.outcome = outcome
    }

    /// Returns when the node has ended: why it failed, or nil for an orderly end.
    package func ended() async -> String? {
        await withCheckedContinuation { continuation in
            let isEnded = outcome.state.withLock { state in
                if state.isEnded { return true }
                state.waiting.append { continuation.resume() }
                return false
            }
            if isEnded { continuation.resume() }
        }
        return outcome.state.withLock { $0.failure }
    }

    /// Posts to the control loop unless it has ended; returns whether it was posted.
    private func post(_ message: ControlPort.Message) -> Bool {
        outcome.state.withLock { state in
            guard !state.isEnded else { return false }
            shared.control.post(message)
            return true
        }
    }

    // MARK: - For administrators

    /// The cluster as this node knows it, or knew it when it ended; nil where it ended before it began.
    package func snapshot() async -> ClusterSnapshot? {
        await withCheckedContinuation { continuation in
            let isPosted = post(.ask { plane, now in continuation.resume(returning: plane.snapshot(now: now)) })
            if !isPosted { continuation.resume(returning: outcome.state.withLock { $0.last }) }
        }
    }

    /// Where a key lives; nil where the node has ended.
    package func placement(of key: String) async -> KeyPlacement? {
        await withCheckedContinuation { continuation in
            let isPosted = post(.ask { plane, _ in continuation.resume(returning: plane.placement(of: key)) })
            if !isPosted { continuation.resume(returning: nil) }
        }
    }

    /// Carries an operator's order to a member.
    package func order(_ order: NodeOrder, node: String) async -> OrderOutcome {
        await withCheckedContinuation { continuation in
            let isPosted = post(.order(order, node: node) { continuation.resume(returning: $0) })
            if !isPosted { continuation.resume(returning: .refused("the node has stopped")) }
        }
    }

    /// Has the cluster forget a member that is down.
    package func forget(node: String) async -> OrderOutcome {
        await withCheckedContinuation { continuation in
            let isPosted = post(.forget(node: node) { continuation.resume(returning: $0) })
            if !isPosted { continuation.resume(returning: .refused("the node has stopped")) }
        }
    }

    /// Has the node form a cluster without a majority of its seeds.
    package func form() async -> OrderOutcome {
        await withCheckedContinuation { continuation in
            let isPosted = post(.form { continuation.resume(returning: $0) })
            if !isPosted { continuation.resume(returning: .refused("the node has stopped")) }
        }
    }

    /// Changes the cluster keys. Accepted: the change is being stored, and then goes to the other members.
    package func change(_ change: KeyRingChange) async -> OrderOutcome {
        await withCheckedContinuation { continuation in
            let isPosted = post(.keys(change) { continuation.resume(returning: $0) })
            if !isPosted { continuation.resume(returning: .refused("the node has stopped")) }
        }
    }

    /// Has removals from the ring wait no longer, on all members that can be reached; tells nobody once it has stopped.
    package func releaseBrake() async -> BrakeRelease {
        await withCheckedContinuation { continuation in
            let isPosted = post(.releaseBrake { continuation.resume(returning: $0) })
            if !isPosted { continuation.resume(returning: BrakeRelease()) }
        }
    }

    /// Examines all members, which takes a second at most; nil where the node has ended.
    package func examine() async -> Examination? {
        await withCheckedContinuation { continuation in
            let isPosted = post(.examine { continuation.resume(returning: $0) })
            if !isPosted { continuation.resume(returning: nil) }
        }
    }

    /// Whether every loop has turned lately. The control loop turns every few milliseconds; a worker that has nothing
    /// to do sleeps, so it is woken and asked again.
    package func isLively() async -> Bool {
        let began = SystemClock.monotonic()
        for worker in shared.workers { worker.waker.wake() }
        while SystemClock.monotonic().milliseconds(since: began) < 2000 {
            let control = Instant(nanoseconds: shared.controlTurnedAt.load(ordering: .relaxed))
            let isControlAlive = began.milliseconds(since: control) < 2000
            let areWorkersAlive = shared.workers.allSatisfy {
                $0.turnedAt.load(ordering: .relaxed) >= began.nanoseconds
            }
            if isControlAlive, areWorkersAlive { return true }
            try? await Task.sleep(nanoseconds: 5_000_000)
        }
        return false
    }
}
