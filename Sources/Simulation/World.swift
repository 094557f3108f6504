// A cluster of whole nodes in one thread and virtual time, from one seed.
//
// What runs in each node is the production code: control plane, shards, data planes, sessions, membership, and every
// frame is encoded and decoded. This target is what the shell is in a real node, with a network, clocks and machines
// that fail on command. Nothing here reads a clock or draws randomness but from the seed, so a run repeats exactly:
// `trace` is a hash over all that happened, and must be equal for equal seeds.
//
// The way of testing is FoundationDB's (Zhou et al., 2021); the judge is `History`, which knows what clients saw.

package import CacheNode
import CacheStore
import ClusterCore
import Membership
import PeerProtocol
package import Replication

/// What is fixed for a run.
package struct WorldOptions: Sendable {
    package var seed: UInt64
    package var nodes = 5
    package var replicas = 1
    package var workers = 1
    package var partition = PartitionPolicy.safe
    package var clients = 8
    package var skewMilliseconds: Int64 = 5000
    package var fillDelayMilliseconds: UInt64 = 5000
    /// Rules that no node keeps.
    package var ablations: ControlAblations = []
    /// Called with a line for each event that a reader of the run wants to see.
    package var isLogging = false
    /// So many received frames of each kind are kept, the first ones.
    package var samplesPerKind: UInt64 = 0

    package init(seed: UInt64) {
        self.seed = seed
    }
}

package final class World {
    package let options: WorldOptions
    var random: Xoshiro256
    /// Nanoseconds since the start.
    package internal(set) var time: UInt64 = 0
    var queue = EventQueue()
    var network = Network()
    var nodes: [SimulatedNode] = []
    var processes: [Process] = []
    var connections: [Connection] = []
    private var connectionCounter: UInt32 = 0
    package internal(set) var trace: UInt64 = 0
    package internal(set) var events: UInt64 = 0
    /// What went wrong, in the order in which it was found.
    package internal(set) var failures: [String] = []
    package internal(set) var lines: [String] = []
    /// Prints each line as it comes, if set.
    package var onLine: ((String) -> Void)?
    let history = History()
    var clients: [Client] = []
    /// How many frames of each kind were received.
    var frames: [UInt64] = Array(repeating: 0, count: 256)
    /// Whole frames as they were received.
    var samples: [[UInt8]] = []
    var isWorkloadRunning = false
    var monitor = Monitor()

    package init(_ options: WorldOptions) {
        self.options = options
        random = Xoshiro256(seed: options.seed)
        for _ in 0..<options.nodes { addNode() }
        for index in 0..<options.clients { clients.append(Client(index: index, seed: random.next())) }
        history.onFailure = { [unowned self] text in fail(text) }
        schedule(.check, after: 20_000_000)
    }

    /// Processes, their connections and their clients know each other, and would keep each other.
    deinit {
        for node in nodes { node.process = nil }
        for process in processes {
            process.threads = []
            process.clients = []
        }
    }

    /// Another machine; its number.
    @discardableResult
    package func addNode() -> Int {
        nodes.append(SimulatedNode(index: nodes.count, random: &random, maximumSkew: options.skewMilliseconds))
        return nodes.count - 1
    }

    func fail(_ text: String) {
        guard failures.count < 20 else { return }
        failures.append(text)
        log("FAILURE " + text)
    }

    func log(_ text: @autoclosure () -> String) {
        guard options.isLogging else { return }
        let milliseconds = time / 1_000_000
        let fraction = String(time / 1000 % 1000)
        let padded = String(repeating: "0", count: 3 - fraction.count) + fraction
        let line = "\(milliseconds).\(padded) \(text())"
        if let onLine { onLine(line) } else { lines.append(line) }
    }

    func schedule(_ kind: Event.Kind, after delay: UInt64) {
        queue.schedule(kind, at: time + delay)
    }

    // MARK: - Running

    /// Lets virtual time pass.
    package func run(milliseconds: UInt64) {
        let end = time + milliseconds * 1_000_000
        while let next = queue.nextTime, next <= end { step() }
        time = end
    }

    /// Runs until `condition`, which is looked at every 50 ms; false where the time is over before.
    func run(atMostMilliseconds limit: UInt64, until condition: () -> Bool) -> Bool {
        let end = time + limit * 1_000_000
        while !condition() {
            if time >= end { return false }
            run(milliseconds: 50)
        }
        return true
    }

    private func step() {
        guard let event = queue.next() else { return }
        time = event.time
        events += 1
        dispatch(event.kind)
    }

    private func note(_ kind: UInt64, _ first: UInt64, _ second: UInt64 = 0) {
        trace = KeyHash.fold(trace ^ KeyHash.secretOfTrace, kind &+ KeyHash.mix(first ^ KeyHash.mix(second ^ time)))
    }

    private func dispatch(_ kind: Event.Kind) {
        switch kind {
        case .datagram(let from, let index, let bytes, let isStreamed):
            guard let process = nodes[index].process, isRunning(process, kind) else { return }
            note(1, UInt64(index), KeyHash.hash(bytes))
            bytes.withUnsafeBytes {
                process.control.receive(
                    datagram: $0,
                    from: from,
                    isStreamed: isStreamed,
                    now: now(process),
                    outbox: &process.threads[0].outbox,
                    effects: &process.effects
                )
            }
            finishTurn(process, process.threads[0])
        case .called(let connection): arrive(connection, kind)
        case .segment(let connection, let toOpener, let bytes): receive(connection, toOpener, bytes, kind)
        case .closed(let connection, let toOpener): hearClose(connection, toOpener, kind)
        case .gaveUp(let connection, let atOpener): giveUp(connection, atOpener, kind)
        case .wake(let process, let thread):
            // A wake that was moved forward is void.
            guard process.threads[thread].wakeAt == time, isRunning(process, kind) else { return }
            note(3, UInt64(process.number), UInt64(thread))
            wake(process, process.threads[thread])
        case .post(let process, let thread, let message):
            guard isRunning(process, kind) else { return }
            note(4, UInt64(process.number), UInt64(thread))
            take(message, process, process.threads[thread])
        case .exchange(let process, let bytes, let caller):
            guard isRunning(process, kind) else { return }
            let answer = bytes.withUnsafeBytes {
                process.control.exchange(
                    with: $0,
                    now: now(process),
                    outbox: &process.threads[0].outbox,
                    effects: &process.effects
                )
            }
            finishTurn(process, process.threads[0])
            if let caller, !answer.isEmpty, !network.isBlocked(process.node.index, caller.node.index) {
                schedule(
                    .exchange(caller, bytes: answer, answerTo: nil),
                    after: network.delay(using: &random)
                )
            }
        case .clientInput(let client, let life):
            guard client.life == life, let process = client.process, isRunning(process, kind) else { return }
            note(5, UInt64(client.index), UInt64(life))
            feed(client)
        case .clientTurn(let client): turn(client)
        case .check:
            schedule(.check, after: 20_000_000)
            checkInvariants()
        }
    }

    /// Whether the process takes events now. One that is paused gets them when it goes on.
    private func isRunning(_ process: Process, _ kind: Event.Kind) -> Bool {
        guard process.isAlive else { return false }
        guard process.isPaused else { return true }
        process.backlog.append(kind)
        return false
    }

    func now(_ process: Process) -> Now { process.node.now(at: time) }

    func context(_ process: Process) -> Context {
        Context(now: now(process), leaseUntil: process.control.leaseUntil)
    }

    // MARK: - Turns

    private func wake(_ process: Process, _ thread: SimulatedThread) {
        thread.wakeAt = nil
        if thread.index == 0 {
            if process.control.nextDeadline <= now(process).instant {
                thread.outbox.congested = congested(thread)
                process.control.advance(to: now(process), outbox: &thread.outbox, effects: &process.effects)
            }
            refreshClients(process)
        } else {
            process.workers[thread.index - 1].plane.advance(context: context(process), outbox: &thread.outbox)
        }
        connect(process, thread)
        finishTurn(process, thread)
    }

    private func take(_ message: ThreadMessage, _ process: Process, _ thread: SimulatedThread) {
        switch message {
        case .topology(let topology):
            process.workers[thread.index - 1].plane.adopt(
                topology,
                context: context(process),
                outbox: &thread.outbox
            )
            adopt(topology, process, thread)
        case .complete(let completions):
            for completion in completions {
                process.workers[thread.index - 1].plane.complete(
                    completion,
                    context: context(process),
                    outbox: &thread.outbox
                )
            }
        case .signals(let signals):
            for signal in signals {
                process.control.receive(
                    signal,
                    now: now(process),
                    outbox: &thread.outbox,
                    effects: &process.effects
                )
            }
        case .connection(let peer, let worker, let isUp):
            process.control.connection(
                to: peer,
                lane: .data,
                worker: worker,
                isUp: isUp,
                now: now(process),
                outbox: &thread.outbox,
                effects: &process.effects
            )
        case .interruption(let peer):
            process.control.interruption(
                from: peer,
                now: now(process),
                outbox: &thread.outbox,
                effects: &process.effects
            )
        case .drainClients:
            closeIdleClients(process, thread)
        }
        finishTurn(process, thread)
    }

    private func post(_ message: ThreadMessage, to thread: Int, of process: Process) {
        let delay =
            UInt64.random(in: 0..<100, using: &random) == 0
            ? UInt64.random(in: 100_000...3_000_000, using: &random) : UInt64.random(in: 2000...60_000, using: &random)
        let at = max(time + delay, process.threads[thread].lastPost)
        process.threads[thread].lastPost = at
        queue.schedule(.post(process, thread: thread, message), at: at)
    }

    /// Carries out what a turn wants done, and sets the next wake.
    func finishTurn(_ process: Process, _ thread: SimulatedThread) {
        if thread.index == 0 { deliverControl(process, thread) } else { deliverWorker(process, thread) }
        guard process.isAlive else { return }
        flush(process, thread)
        schedule(process, thread)
    }

    private func schedule(_ process: Process, _ thread: SimulatedThread) {
        var next: UInt64
        if thread.index == 0 {
            next = process.node.time(of: process.control.nextDeadline)
            if process.isClosing || !process.isOpen { next = min(next, time + 20_000_000) }
        } else {
            next = process.node.time(of: process.workers[thread.index - 1].plane.nextDeadline)
        }
        next = min(next, nextConnect(process, thread))
        guard next != .max else { return }
        // An event loop cannot turn in no time.
        next = max(next, time + 1000)
        if let wakeAt = thread.wakeAt, wakeAt <= next { return }
        thread.wakeAt = next
        queue.schedule(.wake(process, thread: thread.index), at: next)
    }

    private func deliverControl(_ process: Process, _ thread: SimulatedThread) {
        while process.isAlive, !thread.outbox.isEmpty || !process.effects.isEmpty {
            let list = process.effects
            process.effects.removeAll(keepingCapacity: true)
            for effect in list { carryOut(effect, process, thread) }
            guard process.isAlive else { return }
            let (completions, signals) = send(process, thread)
            post(completions, from: 0, process)
            for signal in signals {
                process.control.receive(
                    signal,
                    now: now(process),
                    outbox: &thread.outbox,
                    effects: &process.effects
                )
            }
        }
    }

    private func deliverWorker(_ process: Process, _ thread: SimulatedThread) {
        let worker = process.workers[thread.index - 1]
        while true {
            while !thread.outbox.isEmpty {
                let (completions, signals) = send(process, thread)
                if !signals.isEmpty { post(.signals(signals), to: 0, of: process) }
                for completion in completions where Int(completion.origin.worker) == thread.index - 1 {
                    worker.plane.complete(completion, context: context(process), outbox: &thread.outbox)
                }
                post(completions, from: thread.index, process)
            }
            let touched = worker.plane.takeTouched()
            if touched.isEmpty { return }
            for session in touched {
                if let client = process.clients.first(where: { $0.session === session }) { collect(client) }
            }
        }
    }

    /// Puts the frames of an outbox into their connections; returns the rest of it.
    private func send(
        _ process: Process,
        _ thread: SimulatedThread
    ) -> (completions: [Outbox.Completion], signals: [Outbox.Signal]) {
        for send in thread.outbox.sends {
            let connection: Connection?
            switch send.target {
            case .peer(let peer): connection = thread.outgoing[peer].flatMap { $0.isUp ? $0 : nil }
            case .link(let number): connection = thread.links[number]
            }
            guard let connection else { continue }
            let bytes = UnsafeRawBufferPointer(rebasing: thread.outbox.bytes.bytes[send.start..<send.end])
            append(bytes, to: connection, process, thread)
        }
        let rest = (thread.outbox.completions, thread.outbox.signals)
        thread.outbox.removeAll()
        return rest
    }

    private func post(_ completions: [Outbox.Completion], from thread: Int, _ process: Process) {
        for index in process.workers.indices where index != thread - 1 {
            let theirs = completions.filter { Int($0.origin.worker) == index }
            if !theirs.isEmpty { post(.complete(theirs), to: index + 1, of: process) }
        }
    }

    private func carryOut(_ effect: ControlEffect, _ process: Process, _ thread: SimulatedThread) {
        switch effect {
        case .datagram(let bytes, let endpoint): sendDatagram(bytes, to: endpoint, from: process)
        case .stream(let bytes, let endpoint):
            guard let target = nodes.firstIndex(where: { $0.endpoint == endpoint }),
                nodes[target].process?.isAlive == true, !network.isBlocked(process.node.index, target),
                !network.isBlocked(target, process.node.index)
            else { return }
            schedule(
                .datagram(from: process.node.endpoint, node: target, bytes: bytes, isStreamed: true),
                after: 2 * network.delay(using: &random)
            )
        case .resolve(let seed):
            process.control.resolved(
                seed,
                to: nodes.filter { $0.name == seed.host }.map(\.endpoint),
                now: now(process),
                outbox: &thread.outbox,
                effects: &process.effects
            )
        case .pull(let endpoint):
            guard let target = nodes.first(where: { $0.endpoint == endpoint })?.process, target.isAlive,
                !network.isBlocked(process.node.index, target.node.index)
            else { return }
            let request = process.control.exchangeRequest(now: now(process).instant)
            schedule(
                .exchange(target, bytes: request, answerTo: process),
                after: 2 * network.delay(using: &random)
            )
        case .publish(let topology):
            adopt(topology, process, thread)
            for index in process.workers.indices { post(.topology(topology), to: index + 1, of: process) }
        case .lease: break
        case .log(let event):
            log("\(process.node.name) \(describe(event))")
            observe(event, process)
        case .storeKeys, .useKeys: preconditionFailure("simulated nodes have no cluster keys")
        case .remember(let sawThree, let peers):
            process.node.sawThree = process.node.sawThree || sawThree
            process.node.remembered = peers
        case .fail(let reason):
            log("\(process.node.name) cannot go on: \(reason)")
            if !monitor.forgotten.contains(process.node.index) { fail("\(process.node.name) ended: \(reason)") }
            end(process, isOrderly: true)
        case .closeClients:
            process.isClosing = true
            process.isOpen = false
            for index in process.workers.indices { post(.drainClients, to: index + 1, of: process) }
        case .finished:
            log("\(process.node.name) has finished")
            end(process, isOrderly: true)
        }
    }

    private func sendDatagram(_ bytes: [UInt8], to endpoint: Endpoint, from process: Process) {
        guard let target = nodes.firstIndex(where: { $0.endpoint == endpoint }) else { return }
        let source = process.node.index
        guard !network.isBlocked(source, target) else { return }
        if UInt64.random(in: 0..<1000, using: &random) < network.lossThousandths { return }
        let event = Event.Kind.datagram(from: process.node.endpoint, node: target, bytes: bytes, isStreamed: false)
        schedule(event, after: network.delay(using: &random))
        if UInt64.random(in: 0..<1000, using: &random) < network.duplicateThousandths {
            schedule(event, after: network.delay(using: &random) * 4)
        }
    }

    // MARK: - Connections

    func newConnection(_ process: Process, _ thread: SimulatedThread, peer: PeerNumber, target: Int) -> Connection {
        connectionCounter += 1
        let connection = Connection(
            id: connectionCounter,
            opener: process,
            openerThread: thread.index,
            peer: peer,
            target: target
        )
        connections.append(connection)
        return connection
    }

    private func describe(_ event: ControlEvent) -> String {
        switch event {
        case .membership(let event): "membership \(event)".split(separator: "(", maxSplits: 1).joined(separator: "(")
        default: "\(event)"
        }
    }
}

extension KeyHash {
    fileprivate static var secretOfTrace: UInt64 { 0x51_4d_53_7e_a5_c3_99_17 }
}
