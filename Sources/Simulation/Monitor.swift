import CacheNode
import ClusterCore
import Membership
import PeerProtocol
import Replication

/// What is counted in a run, and what the faults so far excuse.
struct Monitor {
    var answers: UInt64 = 0
    var errors: UInt64 = 0
    var misses: UInt64 = 0
    var unanswered: UInt64 = 0
    var refusals: [String] = []
    /// Nodes that were hurt since all was well last.
    var impaired: Set<Int> = []
    var crashed: Set<Int> = []
    /// What was written up to here may be missing.
    var excusedUntil: UInt64 = 0
    /// More nodes are hurt than there are copies beside the holder.
    var isLossAllowed = false
    /// Nodes that were forgotten in their present life, whose processes end when they hear of it.
    var forgotten: Set<Int> = []
    /// The highest epoch in which each slice was ever served.
    var served: [UInt32] = Array(repeating: 0, count: Slice.count)
    /// For each slice who served it at the last look.
    var holder: [Int32] = []
    var looks: UInt64 = 0
    /// For each ring that a node had, by its hash: a hash of all its owners, and who had it.
    var rings: [UInt64: (owners: UInt64, node: String)] = [:]
    /// The version of each process's topology at the last look, by the process's number.
    var topologies: [Int: UInt64] = [:]
}

extension World {
    var isSafe: Bool { options.partition == .safe }

    /// Looks at all nodes at once.
    func checkInvariants() {
        if monitor.impaired.count > options.replicas { monitor.isLossAllowed = true }
        if monitor.isLossAllowed { monitor.excusedUntil = time }
        monitor.looks += 1
        guard isSafe, monitor.looks.isMultiple(of: 2) else { return }
        var holders: [Int32] = Array(repeating: -1, count: Slice.count)
        var served = monitor.served
        var problem: String?
        for (index, node) in nodes.enumerated() {
            guard let process = node.process, process.isAlive, !process.isPaused,
                process.control.leaseUntil > now(process).instant
            else { continue }
            process.shards.withEach { shard in
                if shard.counters.sumMismatches > 0, problem == nil {
                    problem = "STREAM SUM: \(node.name) applied other writes than it was sent"
                }
                shard.holdings { entry in
                    if holders[entry.slice] >= 0, problem == nil {
                        problem =
                            "TWO HOLDERS: slice \(entry.slice) is served by \(nodes[Int(holders[entry.slice])].name)"
                            + " and \(node.name) (epoch \(entry.epoch))"
                    }
                    holders[entry.slice] = Int32(index)
                    if entry.epoch < served[entry.slice], problem == nil {
                        problem =
                            "EPOCH FELL: \(node.name) serves slice \(entry.slice) in epoch \(entry.epoch)"
                            + " after \(served[entry.slice])"
                    }
                    served[entry.slice] = max(served[entry.slice], entry.epoch)
                }
            }
        }
        monitor.served = served
        problem = problem ?? unequalRing()
        if let problem { fail(problem) }
    }

    /// Two nodes whose rings have one hash and other owners.
    private func unequalRing() -> String? {
        for process in nodes.compactMap(\.process) where process.isAlive {
            let topology = process.control.topology
            guard monitor.topologies[process.number] != topology.version else { continue }
            let ids = topology.wanted.compactMap { topology.peer($0)?.reference.id }
            // A member whose life is over here is about to be replaced.
            guard ids.count == topology.wanted.count else { continue }
            monitor.topologies[process.number] = topology.version
            let owners = ids.reduce(0) { KeyHash.fold($0 ^ $1.low, $1.high | 1) }
            if let known = monitor.rings[topology.ringHash] {
                guard known.owners == owners else {
                    return "A6: \(process.node.name) and \(known.node) have one ring hash and other owners"
                }
            } else {
                monitor.rings[topology.ringHash] = (owners, process.node.name)
            }
        }
        return nil
    }

    func observe(_ event: ControlEvent, _ process: Process) {
        switch event {
        case .drained:
            process.drainFinished = true
            checkDrain(process)
        default: break
        }
    }

    /// A drain that says that it is done: every slice has its full set elsewhere.
    private func checkDrain(_ process: Process) {
        var full: [Bool] = Array(repeating: false, count: Slice.count)
        let others = nodes.compactMap(\.process).filter { $0.isAlive && $0 !== process }
        let wanted = min(options.replicas, others.count - 1)
        for other in others {
            other.shards.withEach { shard in
                shard.holdings { entry in
                    if (shard.inSyncCount(entry.slice) ?? 0) >= wanted { full[entry.slice] = true }
                }
            }
        }
        let lacking = full.count { !$0 }
        if lacking > 0, monitor.impaired.isEmpty {
            fail("A9: the drain of \(process.node.name) is done, but \(lacking) slices are not full elsewhere")
        }
    }

    // MARK: - All is well

    /// Nil where the cluster is as the ring wants it; else what is not.
    package func unrest() -> String? {
        let alive = nodes.compactMap(\.process).filter(\.isAlive)
        guard !alive.isEmpty else { return "nobody is there" }
        var ring: UInt64?
        var held = 0
        for process in alive {
            if process.isPaused { return "\(process.node.name) is paused" }
            let snapshot = process.control.snapshot(now: now(process))
            guard case .joined = snapshot.phase else { return "\(process.node.name) has not joined" }
            guard snapshot.lifecycle == .up else { return "\(process.node.name) is \(snapshot.lifecycle)" }
            guard snapshot.hasLease else { return "\(process.node.name) has no lease" }
            if let peer = process.control.excludedSoon {
                let name = process.control.topology.peer(peer)?.name ?? "a former member"
                return "\(process.node.name) is about to exclude \(name)"
            }
            if let ring, ring != snapshot.ringHash { return "\(process.node.name) has another ring" }
            ring = snapshot.ringHash
            if let damped = snapshot.members.first(where: \.record.isDamped) {
                return "\(damped.record.name) is damped"
            }
            let living = snapshot.members.count { $0.record.isLiving }
            if living != alive.count { return "\(process.node.name) sees \(living) of \(alive.count) members" }
            var census = ShardPlane.Census()
            process.shards.withEach {
                $0.count(
                    topology: process.control.topology,
                    copiesWanted: process.control.topology.copies,
                    into: &census
                )
            }
            if census.settled != census.held {
                return
                    "\(process.node.name): of \(census.held) slices \(census.settled) settled, \(census.moving) moving,"
                    + " \(census.short) short"
            }
            held += census.held
        }
        if held != Slice.count { return "\(held) slices are held" }
        return disagreement(alive) ?? missingCopy(alive)
    }

    /// A holder that waits for a copy which is none: without the holder, all that it acknowledged would be lost.
    private func missingCopy(_ alive: [Process]) -> String? {
        for process in alive {
            let topology = process.control.topology
            var missing: (slice: Int, at: Process)?
            process.shards.withEach { shard in
                shard.holdings { entry in
                    for peer in shard.inSyncPeers(entry.slice) where missing == nil {
                        guard let reference = topology.peer(peer)?.reference,
                            let other = alive.first(where: {
                                $0.node.id == reference.id && $0.generation == reference.generation
                            })
                        else { continue }
                        let isCopy = other.shards.withShard(other.shards.index(of: entry.slice)) {
                            $0.isSettledHere(entry.slice, asHolder: false)
                        }
                        if !isCopy { missing = (entry.slice, other) }
                    }
                }
            }
            if let (slice, other) = missing {
                let role = other.shards.withShard(other.shards.index(of: slice)) { $0.describeRole(slice) }
                return "\(process.node.name) counts on a copy of slice \(slice) at \(other.node.name), which is \(role)"
            }
        }
        return nil
    }

    /// Who believes in a wrong holder.
    private func disagreement(_ alive: [Process]) -> String? {
        var holders: [MemberReference?] = Array(repeating: nil, count: Slice.count)
        for process in alive {
            let own = MemberReference(id: process.node.id, generation: process.generation)
            process.shards.withEach { $0.holdings { holders[$0.slice] = own } }
        }
        for process in alive {
            let topology = process.control.topology
            var wrong = 0
            for slice in 0..<Slice.count {
                let number = topology.holders[slice]
                if topology.peer(number)?.reference != holders[slice] { wrong += 1 }
            }
            if wrong > 0 { return "\(process.node.name) is wrong about the holders of \(wrong) slices" }
        }
        return nil
    }

    /// Logs what every node is for the first slices that nobody serves, or that keep a node from its end.
    private func describeBare() {
        let alive = nodes.compactMap(\.process)
        var held: [Bool] = Array(repeating: false, count: Slice.count)
        for process in alive { process.shards.withEach { shard in shard.holdings { held[$0.slice] = true } } }
        for process in alive where process.control.snapshot(now: now(process)).lifecycle == .draining {
            let engaged = held.indices.filter { slice in
                process.shards.withShard(process.shards.index(of: slice)) { $0.describeRole(slice) != "outside" }
            }
            log("\(process.node.name) is draining, and still something for \(engaged.count) slices")
            for slice in engaged.prefix(2) { describe(slice, alive) }
        }
        for slice in held.indices.filter({ !held[$0] }).prefix(3) {
            log("nobody serves slice \(slice)")
            describe(slice, alive)
        }
    }

    private func describe(_ slice: Int, _ alive: [Process]) {
        log("slice \(slice)")
        for process in alive {
            let topology = process.control.topology
            let role = process.shards.withShard(process.shards.index(of: slice)) { $0.describeRole(slice) }
            let holder = topology.peer(topology.holders[slice])?.name ?? "\(topology.holders[slice].value)"
            log("    \(process.node.name): \(role); recorded: \(topology.epochs[slice]) \(holder)")
        }
    }

    /// Waits until all is well; a failure where that takes longer than `limit` milliseconds.
    package func settle(within limit: UInt64) {
        var last: String?
        let isDone = run(atMostMilliseconds: limit) {
            last = unrest()
            return last == nil
        }
        guard isDone else {
            fail("NOT SETTLED after \(limit) ms: \(last ?? "")")
            describeBare()
            return
        }
        log("all is well")
        monitor.impaired = []
        monitor.crashed = []
        if monitor.isLossAllowed { monitor.excusedUntil = time }
        monitor.isLossAllowed = false
    }
}
