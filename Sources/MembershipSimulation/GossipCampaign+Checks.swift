import ClusterCore
import Membership

extension GossipCampaign {
    // MARK: What always holds

    /// Looks at all nodes, and sees to those that have stopped.
    mutating func look() {
        for finding in simulator.takeFindings() {
            switch finding {
            case .strangerHeard(let text): breach(.strangerHeard, text)
            case .evidenceLost(let text): breach(.knowledgeFell, text)
            }
        }
        for observer in simulator.nodes.indices where simulator.nodes[observer].isRunning {
            if observer <= twin { lookAtKnowledge(of: observer) }
            lookForForeigners(observer)
            lookAtLoad(of: observer)
        }
        lookAtJoins()
        for index in simulator.nodes.indices { attend(to: index) }
    }

    private mutating func lookAtKnowledge(of observer: Int) {
        for member in members {
            guard let record = simulator.view(of: member, by: observer) else { continue }
            let before = known[observer][member]
            known[observer][member] = record
            // Most of the time nothing has happened, and the own record is the owner's.
            if before == record || observer == member || (observer == twin && twinOf == member) { continue }
            if let before {
                if before.merged(with: record) != record {
                    breach(.knowledgeFell, "node \(observer) knows less of node \(member) than before")
                }
                if before.isTombstone, !record.isTombstone {
                    if record.generation <= before.generation {
                        breach(.tombstoneUndone, "node \(observer) has node \(member) back in its generation")
                    } else {
                        outcome.reached.insert(.returned)
                    }
                }
            }
            if record.generation > highest[member] {
                breach(.ownerOutrun, "node \(observer) knows a generation of node \(member) that never was")
            }
        }
        // A look after a look may find the same record outrun, when its owner falls back.
        for member in members where member != observer {
            guard let record = known[observer][member], !restored.contains(member) else { continue }
            for slot in [member, twinOf == member ? twin : member] {
                guard let own = simulator.nodes[slot].membership?.ownRecord, own.generation == record.generation,
                    slot != observer, record.incarnation > own.incarnation || record.sequence > own.sequence
                else { continue }
                breach(.ownerOutrun, "node \(observer) knows more of node \(member) than that says of itself")
            }
        }
    }

    /// Two clusters with different names know nothing of each other.
    private mutating func lookForForeigners(_ observer: Int) {
        let others = observer > twin ? 0..<foreignFounder : foreignFounder..<simulator.nodes.count
        for other in others where simulator.view(of: other, by: observer) != nil {
            breach(.clustersMixed, "node \(observer) has node \(other) of another cluster in its list")
        }
    }

    private mutating func lookAtLoad(of observer: Int) {
        guard let membership = simulator.nodes[observer].membership else { return }
        let load = membership.load
        // Each of them has one id, but the twin.
        let ids = members.count
        // Its record, and accusations.
        let pieces = simulator.nodes[observer].configuration.suspicionConfirmations + 2
        if load.records > ids || load.gossipQueued > ids || load.gossipPiecesMax > pieces || load.outboxMax > ids + 1 {
            breach(.outOfBounds, "node \(observer) keeps too much: \(load)")
        }
        if membership.statistics.foreignCluster > 0 { outcome.reached.insert(.foreign) }
        if membership.statistics.malformed > 0 { outcome.reached.insert(.malformed) }
    }

    /// Every cluster of one list has a majority of it, so any two share a seed.
    mutating func lookAtFormation() {
        let seeds = 0..<min(count, 3)
        var views: [(node: Int, seeds: [Int])] = []
        for node in 0..<count where simulator.nodes[node].membership?.phase == .joined {
            views.append((node, seeds.filter { simulator.view(of: $0, by: node) != nil }))
        }
        guard let first = views.first else { return }
        for view in views {
            for other in [first] + views.suffix(3) where !view.seeds.contains(where: { other.seeds.contains($0) }) {
                breach(.clustersMixed, "nodes \(view.node) and \(other.node) are in two clusters of one list")
                return
            }
        }
        let founders = (0..<min(count, 16)).filter { simulator.nodes[$0].formedCount > 0 }
        for founder in founders {
            for other in founders where other != founder && simulator.view(of: other, by: founder) == nil {
                outcome.reached.insert(.groupsMeet)
            }
        }
    }

    private mutating func lookAtJoins() {
        let joined = members.reduce(0) { $0 + simulator.nodes[$1].joinedCount }
        defer { joinedBefore = joined }
        guard joined > joinedBefore, let observer = members.first(where: { simulator.nodes[$0].isRunning }) else {
            return
        }
        for index in members where simulator.nodes[index].membership == nil && simulator.nodes[index].life > 0 {
            if simulator.view(of: index, by: observer)?.isLiving == true { outcome.reached.insert(.joinDuringCrash) }
        }
    }

    /// A node that has stopped by itself: right for one of two twins and for one whose generation is lost, wrong for
    /// all others.
    private mutating func attend(to index: Int) {
        guard let reason = simulator.nodes[index].stopReason, simulator.nodes[index].membership != nil else { return }
        log("node \(index) stops: \(reason)")
        let isCollision: Bool
        switch reason {
        case .olderTwin, .generationBehind: isCollision = true
        case .forgotten: isCollision = false
        case .nameTaken, .configurationDiffers: isCollision = false
        }
        if restored.contains(index), isCollision || reason == .forgotten {
            // Whoever looks after it starts it above what was seen.
            outcome.reached.insert(.collision)
            crash(index)
            start(index)
        } else if isCollision, index == twin || twinned.contains(index) {
            outcome.reached.insert(.collision)
            crash(index)
        } else {
            breach(.wrongView, "node \(index) stopped: \(reason)")
            crash(index)
        }
    }

    // MARK: What holds in the end

    mutating func judge() {
        let running = members.filter { simulator.nodes[$0].isRunning }
        for index in running {
            if let statistics = simulator.nodes[index].membership?.statistics { count(statistics) }
        }
        for index in members where !goneForGood.contains(index) && (index < count) && !running.contains(index) {
            breach(.wrongView, "node \(index) does not run in the end")
        }
        let isAgreed = outcome.agreedAfter != nil
        if !isAgreed { breach(.noAgreement, "the members do not agree a minute after the last fault") }
        for observer in running {
            for index in members where simulator.nodes[index].life > 0 && index != observer {
                let record = simulator.view(of: index, by: observer)
                if running.contains(index) {
                    if record?.lifecycle != .up || record?.liveness != .alive {
                        breach(.wrongView, "node \(observer) does not have node \(index) up, which lives")
                    }
                } else if record?.isLiving == true {
                    breach(.wrongView, "node \(observer) has node \(index) for living, which does not run")
                }
                // Whoever heard it is there still: all others must have heard of it by now.
                if let farewell = farewells[index], farewell.isHeard, goneForGood.contains(index),
                    farewell.witnesses.contains(where: { isStill($0.index, inLife: $0.life) }),
                    let record, !record.isTombstone,
                    // A twin that lived elsewhere in a later generation has not left.
                    record.generation <= simulator.nodes[index].record.generation
                {
                    breach(.ghost, "node \(observer) has node \(index) for a member, which left and was heard")
                }
            }
        }
        // Half a minute is enough for every split to be met again.
        if let lastSplit, simulator.now.milliseconds(since: lastSplit) < 90_000 {
            if isAgreed { outcome.reached.insert(.split) } else { breach(.splitStayed, "a split has not healed") }
        }
        if simulator.longestDatagram > simulator.nodes[0].configuration.datagramBytesMax {
            breach(.outOfBounds, "a datagram of \(simulator.longestDatagram) bytes")
        }
    }

    private func isStill(_ index: Int, inLife life: Int) -> Bool {
        simulator.nodes[index].isRunning && simulator.nodes[index].life == life
    }

    mutating func count(_ statistics: MembershipStatistics) {
        if statistics.refutations > 0 { outcome.reached.insert(.refutation) }
        if statistics.suspicionsConfirmed > 0 { outcome.reached.insert(.confirmation) }
        if statistics.pulls > 0 { outcome.reached.insert(.pull) }
        if statistics.stalls > 0 { outcome.reached.insert(.stall) }
    }
}
