package import CacheNode
import CacheStore
import ClusterCore
import Membership
package import PeerProtocol
import Replication

// What befalls machines: start, crash, pause, orderly ends, and what befalls the network between them.

extension World {
    /// Starts the process of a machine: a new generation, nothing in memory.
    package func start(_ index: Int) {
        let node = nodes[index]
        if node.process?.isAlive == true { return }
        node.isPoweredOff = false
        node.generation += 1
        monitor.forgotten.remove(index)
        var replication = ReplicationConfiguration()
        replication.replicas = options.replicas
        replication.partition = options.partition
        var configuration = ControlConfiguration()
        configuration.replication = replication
        configuration.workers = options.workers
        configuration.fillDelayMilliseconds = options.fillDelayMilliseconds
        configuration.ablations = options.ablations
        var membership = MembershipConfiguration()
        membership.clusterName = Self.clusterName
        let shards = ShardTable(
            count: 4,
            store: StoreConfiguration(memoryBytes: 16 * 1024 * 1024),
            configuration: replication,
            locks: nil
        )
        let own = MemberRecord(
            id: node.id,
            generation: node.generation,
            name: node.name,
            client: Endpoint(node.endpoint.address, port: 11_211),
            cluster: node.endpoint,
            admin: Endpoint(node.endpoint.address, port: 11_411),
            memoryBytes: 16 * 1024 * 1024,
            sawThree: node.sawThree
        )
        let seeds = nodes.prefix(min(3, options.nodes)).map {
            HostAndPort(host: $0.index == 1 ? $0.name : $0.endpoint.address.description, port: 11_311)
        }
        let control = ControlPlane(
            configuration: configuration,
            membership: membership,
            own: own,
            seeds: Array(seeds),
            remembered: node.remembered,
            shards: shards,
            now: node.instant(at: time),
            randomSeed: random.next()
        )
        let process = Process(
            node: node,
            number: processes.count,
            generation: node.generation,
            shards: shards,
            control: control
        )
        for worker in 0..<options.workers {
            process.workers.append(
                WorkerBox(
                    plane: DataPlane(
                        worker: UInt16(worker),
                        shards: shards,
                        configuration: DataPlaneConfiguration(),
                        topology: process.control.topology
                    )
                )
            )
        }
        for thread in 0...options.workers { process.threads.append(SimulatedThread(index: thread)) }
        processes.append(process)
        node.process = process
        log("\(node.name) starts in generation \(node.generation)")
        for thread in process.threads { finishTurn(process, thread) }
        release()
    }

    /// The process is gone at once. With the power off, nobody tells its peers.
    package func crash(_ index: Int, isPowerLoss: Bool = false) {
        guard let process = nodes[index].process, process.isAlive else { return }
        log("\(nodes[index].name) \(isPowerLoss ? "loses its power" : "crashes")")
        nodes[index].isPoweredOff = isPowerLoss
        monitor.impaired.insert(index)
        monitor.crashed.insert(index)
        end(process, isOrderly: !isPowerLoss)
    }

    /// The kernel closes what the process had open.
    func end(_ process: Process, isOrderly: Bool) {
        guard process.isAlive else { return }
        process.isAlive = false
        process.isPaused = false
        process.backlog = []
        if process.node.process === process { process.node.process = nil }
        for connection in connections {
            if connection.opener === process, connection.atOpener.isOpen {
                connection.atOpener.isOpen = false
                if isOrderly { sayClosed(connection, toOpener: false) }
            }
            if connection.acceptor === process, connection.atAcceptor.isOpen {
                connection.atAcceptor.isOpen = false
                if isOrderly { sayClosed(connection, toOpener: true) }
            }
        }
        for client in process.clients { client.lose(history, at: time) }
        process.clients = []
    }

    /// SIGSTOP.
    package func pause(_ index: Int) {
        guard let process = nodes[index].process, process.isAlive, !process.isPaused else { return }
        log("\(nodes[index].name) is paused")
        monitor.impaired.insert(index)
        process.isPaused = true
    }

    /// SIGCONT.
    package func resume(_ index: Int) {
        guard let process = nodes[index].process, process.isPaused else { return }
        log("\(nodes[index].name) goes on")
        process.isPaused = false
        let backlog = process.backlog
        process.backlog = []
        // What waits comes in its order, within the next moments; threads run side by side.
        for kind in backlog {
            if case .wake = kind { continue }
            queue.schedule(kind, at: time + 1000)
        }
        for thread in process.threads {
            thread.wakeAt = time + 1000
            queue.schedule(.wake(process, thread: thread.index), at: time + 1000)
        }
    }

    /// Cuts the network between two groups, both ways.
    package func partition(_ left: [Int], _ right: [Int]) {
        log("the network splits: \(left.map { nodes[$0].name }) from \(right.map { nodes[$0].name })")
        for a in left {
            for b in right {
                network.block(a, b)
                network.block(b, a)
            }
        }
        for index in left.count < right.count ? left : right { monitor.impaired.insert(index) }
    }

    /// Cuts one direction.
    package func cut(from: Int, to: Int) {
        log("nothing goes from \(nodes[from].name) to \(nodes[to].name)")
        network.block(from, to)
        monitor.impaired.insert(from)
        monitor.impaired.insert(to)
    }

    /// Of all packets, on datagrams and connections, so many thousandths are lost from now on.
    package func loseOfAll(_ thousandths: UInt64) {
        log("of all packets \(thousandths) in a thousand are lost")
        network.lossThousandths = thousandths
        network.linkLossThousandths = thousandths
        // Copies are late and left out everywhere, one after the other.
        monitor.impaired.formUnion(nodes.indices)
    }

    /// Whatever is sent comes up to so many milliseconds late; datagrams out of order, and one in ten twice.
    package func delayAll(_ milliseconds: UInt64) {
        log("the network delays by up to \(milliseconds) ms")
        network.delayMicroseconds = 1000...(milliseconds * 1000)
        network.duplicateThousandths = 100
    }

    package func heal() {
        log("the network is whole")
        network.delayMicroseconds = Network.usualDelayMicroseconds
        network.duplicateThousandths = Network.usualDuplicateThousandths
        network.unblockAll()
        network.lossThousandths = 5
        network.linkLossThousandths = 0
        network.slowOneIn = 200
        release()
    }

    /// Resets every connection between two machines.
    package func resetConnections(_ left: Int, _ right: Int) {
        log("connections between \(nodes[left].name) and \(nodes[right].name) are reset")
        // What each has of the other proves nothing until it has learned again.
        monitor.impaired.insert(left)
        monitor.impaired.insert(right)
        for connection in connections {
            let opener = connection.opener.node.index
            guard (opener == left && connection.target == right) || (opener == right && connection.target == left)
            else { continue }
            // Both ends hear of it on their own.
            if connection.atOpener.isOpen { schedule(.closed(connection, toOpener: true), after: 1000) }
            if connection.atAcceptor.isOpen {
                schedule(.closed(connection, toOpener: false), after: network.delay(using: &random))
            }
        }
    }

    /// An operator's word to a node.
    package func order(_ order: NodeOrder, _ index: Int) {
        guard let process = nodes[index].process, process.isAlive else { return }
        let thread = process.threads[0]
        let refusal = process.control.carryOut(order, now(process), &thread.outbox, &process.effects)
        log("\(nodes[index].name) is told: \(order)\(refusal.isEmpty ? "" : ", and refuses: \(refusal)")")
        if !refusal.isEmpty { monitor.refusals.append(refusal) }
        finishTurn(process, thread)
    }

    /// An operator's word to one node that another will not return.
    @discardableResult
    package func forget(_ index: Int, at asked: Int) -> OrderOutcome {
        guard let process = nodes[asked].process, process.isAlive else { return .refused("nobody is there") }
        let thread = process.threads[0]
        let outcome = process.control.forget(
            node: nodes[index].name,
            now: now(process),
            outbox: &thread.outbox,
            effects: &process.effects
        )
        log("\(nodes[asked].name) is told to forget \(nodes[index].name): \(outcome)")
        if outcome == .accepted { monitor.forgotten.insert(index) }
        finishTurn(process, thread)
        return outcome
    }

    /// An operator's word to one node that who is down leaves the ring; who was told, nil where no brake was on there.
    @discardableResult
    package func releaseBrake(at asked: Int) -> BrakeRelease? {
        guard let process = nodes[asked].process, process.isAlive else { return nil }
        let isOn = process.control.brake.engagement != nil
        let thread = process.threads[0]
        let release = process.control.releaseBrake(
            now: now(process),
            outbox: &thread.outbox,
            effects: &process.effects
        )
        log("\(nodes[asked].name) is told to release the brake: \(release)")
        finishTurn(process, thread)
        return isOn ? release : nil
    }

    /// SIGTERM: hands over what it holds and ends.
    package func stop(_ index: Int) {
        guard let process = nodes[index].process, process.isAlive else { return }
        log("\(nodes[index].name) is told to stop")
        // Nothing is copied at a stop: what has no copy then is gone with the node.
        monitor.impaired.insert(index)
        let thread = process.threads[0]
        process.control.stop(now: now(process), outbox: &thread.outbox, effects: &process.effects)
        finishTurn(process, thread)
    }

    package func isAlive(_ index: Int) -> Bool { nodes[index].process?.isAlive == true }

    // MARK: - Clients of a node

    func refreshClients(_ process: Process) {
        if process.isClosing {
            guard process.clients.isEmpty else { return }
            process.isClosing = false
            process.control.clientsClosed(
                now: now(process),
                outbox: &process.threads[0].outbox,
                effects: &process.effects
            )
            return
        }
        guard !process.isOpen, !process.drainFinished, process.control.mayOpen(now: now(process)) else { return }
        process.isOpen = true
        log("\(process.node.name) takes clients")
    }

    func closeIdleClients(_ process: Process, _ thread: SimulatedThread) {
        process.drainFinished = true
        for client in process.clients where client.thread == thread.index && client.isIdle { client.disconnect() }
    }
}
