import CacheStore
package import ClusterCore
import DequeModule
package import PeerProtocol
package import Replication

// What the control plane asks of a shard: changes of role that concern many slices, the walk towards the ring, and the
// clock's turn.

extension ShardPlane {
    // MARK: - Peers

    /// Tells what the promises to a peer are worth, and whether every connection to it works.
    package mutating func setPeer(_ peer: PeerNumber, reference: MemberReference, session: UInt64, isReachable: Bool) {
        if peers[peer] == nil { revision += 1 }
        if peers[peer]?.isReachable != isReachable { attendToWaiting() }
        peers[peer] = PeerState(session: session, isReachable: isReachable)
        references[peer] = reference
    }

    /// A peer's life is over: nothing can come from it and nothing waits for it.
    package mutating func forgetPeer(_ peer: PeerNumber, context: Context, outbox: inout Outbox) {
        dropStreams(to: peer, context: context, outbox: &outbox)
        peers[peer] = nil
        copyCounts[peer.value] = copyCounts[peer.value].flatMap { $0 == 0 ? nil : $0 }
        revision += 1
        references[peer] = nil
    }

    /// The last promise to a peer has ended: it counts nowhere any more, and what waited for it alone is answered.
    package mutating func dropStreams(to peer: PeerNumber, context: Context, outbox: inout Outbox) {
        for local in roles.indices {
            guard case .holder(let holder) = roles[local], let index = holder.stream(to: peer) else { continue }
            roles[local].holder.streams.remove(at: index)
            if case .draining(let to, _) = holder.phase, to == peer { abortCutOver(local) }
            refreshService(local)
            complete(slices.lowerBound + local, context: context, outbox: &outbox)
            finishCutOver(local, context: context, outbox: &outbox)
        }
    }

    /// Whether some write could have to wait for the peer.
    package func requires(_ peer: PeerNumber) -> Bool {
        for role in roles {
            if case .holder(let holder) = role, let index = holder.stream(to: peer), holder.streams[index].isRequired {
                return true
            }
        }
        return false
    }

    // MARK: - Claims

    /// A majority recorded this node as the slice's holder.
    package mutating func confirm(_ entry: SliceEpoch) {
        let local = entry.slice - slices.lowerBound
        guard case .holder(let holder) = roles[local], holder.epoch == entry.epoch, case .claiming = holder.phase else {
            return
        }
        roles[local].holder.phase = .stable
        refreshService(local)
    }

    /// Slices of a silent holder for which this node has an in-sync copy that `isProven` accepts: by the session of
    /// the promises it is in sync under, or by the moment since which the holder has had to wait for it.
    package func candidates(
        for holder: PeerNumber,
        isProven: (Copy.State) -> Bool,
        _ visit: (SliceEpoch) -> Void
    ) {
        guard copyCounts[holder.value, default: 0] > 0 else { return }
        for local in 0..<slices.count where copyHolders[local] == holder.value {
            guard case .copy(let copy) = roles[local], isProven(copy.state) else { continue }
            visit(SliceEpoch(slice: slices.lowerBound + local, epoch: copy.epoch))
        }
    }

    /// Visits the state of this node's copy of the slice, where it has one.
    package func candidates(of slice: Int, _ visit: (Copy.State) -> Void) {
        if case .copy(let copy) = roles[slice - slices.lowerBound] { visit(copy.state) }
    }

    /// Whether this node has a copy of the slice, of this epoch or a later one, that could still be proven in sync with
    /// its holder.
    package func isCandidate(_ slice: Int, from epoch: UInt32, isProven: (PeerNumber, Copy.State) -> Bool) -> Bool {
        guard case .copy(let copy) = roles[slice - slices.lowerBound], copy.epoch >= epoch else { return false }
        return isProven(copy.holder, copy.state)
    }

    /// This node's in-sync copy becomes the slice's holder: its claim was recorded by a majority, and it was in sync
    /// when the old holder's lease ended. Those of the `others` whose copies are where this one is stay in sync.
    /// Returns false where the copy has changed since the claim was made.
    package mutating func takeOver(
        _ entry: SliceEpoch,
        from holder: PeerNumber,
        others: [PeerNumber],
        context: Context,
        outbox: inout Outbox
    ) -> Bool {
        let local = entry.slice - slices.lowerBound
        guard case .copy(let copy) = roles[local], copy.holder == holder, copy.epoch < entry.epoch else { return false }
        switch copy.state {
        case .inSync, .released: break
        case .learning, .learned: return false
        }
        earlyCount -= copy.early.count
        roles[local] = .holder(Holder(epoch: entry.epoch, phase: .stable, position: copy.position))
        for peer in others where peers[peer]?.isReachable == true {
            adopt(entry.slice, peer, previousEpoch: copy.epoch, context: context, outbox: &outbox)
        }
        counters.takenOver += 1
        refreshService(local)
        return true
    }

    /// Nobody has the slice: it starts with nothing, and nothing at or below now can ever be seen in it.
    package mutating func startEmpty(_ entry: SliceEpoch, context: Context, outbox: inout Outbox) {
        let local = entry.slice - slices.lowerBound
        // It was handed over meanwhile.
        if case .holder = roles[local] { return }
        leave(local)
        let row = store.row(entry.slice)
        let floor = max(context.now.unixMilliseconds << 16, row.pointee.newest)
        row.pointee.newest = floor
        row.pointee.floor = floor
        store.flush(slice: entry.slice, version: floor)
        dropping.removeAll { $0 == entry.slice }
        roles[local] = .holder(Holder(epoch: entry.epoch, phase: .stable, position: 0))
        counters.startedEmpty += 1
        refreshService(local)
    }

    /// Somebody else holds the slice in a later epoch. With `mergingTo` the content goes there, item by item, since
    /// both sides of a split served.
    package mutating func demote(_ entry: SliceEpoch, mergingTo peer: PeerNumber?, outbox: inout Outbox) {
        let local = entry.slice - slices.lowerBound
        guard case .holder(let holder) = roles[local], holder.epoch <= entry.epoch else { return }
        let hasServed = if case .claiming = holder.phase { false } else { true }
        abandon(entry.slice, outbox: &outbox)
        counters.demoted += 1
        if let peer, hasServed { merging.append(Merge(slice: entry.slice, cursor: 0, to: peer)) }
    }

    /// What this node is for the slice, for a reader of a simulated run.
    package func describeRole(_ slice: Int) -> String {
        switch roles[slice - slices.lowerBound] {
        case .outside: "outside"
        case .holder(let holder): "holder in \(holder.epoch), \(holder.phase), \(holder.streams.count) streams"
        case .copy(let copy): "copy of \(copy.holder.value) in \(copy.epoch), \(copy.state)"
        }
    }

    /// Whom the slice's holder counts as in sync, for a reader of a simulated run.
    package func inSyncPeers(_ slice: Int) -> [PeerNumber] {
        guard case .holder(let holder) = roles[slice - slices.lowerBound] else { return [] }
        return holder.streams.filter(\.isInSync).map(\.peer)
    }

    /// Whether this node is the slice's holder and not on its way to become it.
    package func mayBeSuspended(_ slice: Int) -> Bool {
        guard case .holder(let holder) = roles[slice - slices.lowerBound] else { return false }
        if case .claiming = holder.phase { return false }
        return true
    }

    /// Somebody claimed a served slice in a later epoch, and may have been confirmed there: nothing is served before a
    /// majority has recorded this node above that epoch. Returns the epoch to claim; nil where there is nothing to
    /// suspend.
    package mutating func suspend(_ entry: SliceEpoch) -> SliceEpoch? {
        let local = entry.slice - slices.lowerBound
        guard case .holder(let holder) = roles[local], entry.epoch >= holder.epoch else { return nil }
        switch holder.phase {
        case .claiming: return nil
        case .suspended(let claim) where claim > entry.epoch: return nil
        case .stable, .draining, .suspended: break
        }
        roles[local].holder.phase = .suspended(claim: entry.epoch + 1)
        counters.suspended += 1
        refreshService(local)
        return SliceEpoch(slice: entry.slice, epoch: entry.epoch + 1)
    }

    /// Whether the slice waits to be claimed in that epoch.
    package func isSuspended(_ entry: SliceEpoch) -> Bool {
        guard case .holder(let holder) = roles[entry.slice - slices.lowerBound],
            case .suspended(let claim) = holder.phase
        else { return false }
        return claim == entry.epoch
    }

    /// Whether a claim after a cut over is open.
    package func isClaiming(_ entry: SliceEpoch) -> Bool {
        guard case .holder(let holder) = roles[entry.slice - slices.lowerBound], holder.epoch == entry.epoch,
            case .claiming = holder.phase
        else { return false }
        return true
    }

    /// A majority has recorded the holder again. Copies follow into the new epoch: one that stayed in the old could not
    /// be claimed from a holder that is recorded in a later one, nor told from one that a later holder does not know.
    package mutating func resume(_ entry: SliceEpoch, context: Context, outbox: inout Outbox) {
        guard isSuspended(entry) else { return }
        let local = entry.slice - slices.lowerBound
        let previousEpoch = roles[local].holder.epoch
        let copies = roles[local].holder.streams.filter(\.isRequired)
        roles[local].holder.epoch = entry.epoch
        roles[local].holder.phase = .stable
        // Learners begin again, in the new epoch.
        roles[local].holder.streams = []
        for copy in copies {
            sendAdoption(
                entry.slice,
                copy.peer,
                previousEpoch: previousEpoch,
                acknowledgedPosition: copy.acknowledgedPosition,
                context: context,
                outbox: &outbox
            )
        }
        refreshService(local)
        complete(entry.slice, context: context, outbox: &outbox)
    }

    /// Visits the slices that were handed over to a holder who has not been heard of as such, with the epoch of the new
    /// holder, who it is, and when this node let go.
    package func released(_ visit: (SliceEpoch, PeerNumber, Instant) -> Void) {
        guard timedCount > 0 else { return }
        for local in 0..<slices.count where timed[local] != 0 {
            guard case .copy(let copy) = roles[local], case .released(let since) = copy.state else { continue }
            visit(SliceEpoch(slice: slices.lowerBound + local, epoch: copy.epoch), copy.holder, since)
        }
    }

    /// The cut over led nowhere: this node holds what it handed over, once a majority has recorded it above the epoch
    /// that it gave away. Returns the epoch to claim; nil where there is nothing to take back.
    package mutating func takeBack(_ entry: SliceEpoch) -> SliceEpoch? {
        let local = entry.slice - slices.lowerBound
        guard case .copy(let copy) = roles[local], copy.epoch == entry.epoch, case .released = copy.state else {
            return nil
        }
        earlyCount -= copy.early.count
        let again = SliceEpoch(slice: entry.slice, epoch: copy.epoch + 1)
        roles[local] = .holder(
            Holder(epoch: copy.epoch, phase: .suspended(claim: again.epoch), position: copy.position)
        )
        counters.suspended += 1
        refreshService(local)
        return again
    }

    /// The claim that made this node the slice's coming holder failed.
    package mutating func abandonClaim(_ entry: SliceEpoch, outbox: inout Outbox) {
        let local = entry.slice - slices.lowerBound
        guard case .holder(let holder) = roles[local], holder.epoch == entry.epoch, case .claiming = holder.phase else {
            return
        }
        abandon(entry.slice, outbox: &outbox)
    }

    /// Gives up a holder's role: what waits is answered "unknown".
    mutating func abandon(_ slice: Int, outbox: inout Outbox) {
        let local = slice - slices.lowerBound
        while let write = roles[local].holder.pending.popFirst() {
            pendingCount -= 1
            counters.lostWrites += 1
            outbox.completions.append(Outbox.Completion(origin: write.origin, reply: Reply(.unknown)))
        }
        roles[local] = .outside
        refreshService(local)
        outbox.signals.append(.lost(slice: slice))
    }

    /// Gives up every role; the content stays as a base. Returns how many there were.
    package mutating func renounce(outbox: inout Outbox) -> Int {
        var count = 0
        for local in 0..<slices.count {
            switch roles[local] {
            case .outside: continue
            case .holder: abandon(slices.lowerBound + local, outbox: &outbox)
            case .copy(let copy): leaveCopy(slices.lowerBound + local, of: copy.holder, outbox: &outbox)
            }
            count += 1
        }
        return count
    }

    // MARK: - The walk

    /// The ring has changed: every slice is looked at again.
    package mutating func ringChanged() {
        unsettled.update(repeating: Attention.due.rawValue, count: slices.count)
        hasUnsettled = true
    }

    /// A peer can be reached again, or no longer: slices that wait for news are looked at again.
    private mutating func attendToWaiting() {
        for local in 0..<slices.count where unsettled[local] == Attention.waiting.rawValue {
            unsettled[local] = Attention.due.rawValue
            hasUnsettled = true
        }
    }

    /// Brings held slices towards the ring: wanted owners learn, the first of them takes over, surplus copies go.
    /// `budget` is how many more slices may be learned at a time.
    package mutating func walk(
        topology: Topology,
        budget: inout Int,
        context: Context,
        outbox: inout Outbox
    ) {
        guard context.mayServe, hasUnsettled else { return }
        var local = walkCursor
        var isAnyLeft = false
        for _ in 0..<slices.count {
            defer { local = local + 1 == slices.count ? 0 : local + 1 }
            guard unsettled[local] == Attention.due.rawValue else { continue }
            defer { isAnyLeft = isAnyLeft || unsettled[local] == Attention.due.rawValue }
            guard case .holder(let holder) = roles[local] else {
                unsettled[local] = Attention.settled.rawValue
                continue
            }
            guard case .stable = holder.phase else { continue }
            walk(local, holder, topology, &budget, context, &outbox)
            if budget <= 0 {
                walkCursor = local + 1 == slices.count ? 0 : local + 1
                return
            }
        }
        hasUnsettled = isAnyLeft
    }

    private mutating func walk(
        _ local: Int,
        _ holder: Holder,
        _ topology: Topology,
        _ budget: inout Int,
        _ context: Context,
        _ outbox: inout Outbox
    ) {
        let slice = slices.lowerBound + local
        let wanted = topology.wantedOwners(of: slice)
        var isComplete = true
        var isLearning = false
        var isDeferred = false
        for peer in wanted where peer != topology.own && peer != .none {
            if let index = holder.stream(to: peer) {
                if holder.streams[index].isInSync { continue }
                isComplete = false
                isLearning = true
                continue
            }
            isComplete = false
            guard peers[peer]?.isReachable == true else { continue }
            guard budget > 0, holder.retryAt <= context.now.instant else {
                isDeferred = true
                continue
            }
            streamCounter += 1
            let until = context.now.instant.advanced(byMilliseconds: 1000)
            roles[local].holder.streams.append(
                OutStream(peer: peer, id: streamCounter, state: .offered(until: until), acknowledgedPosition: 0)
            )
            budget -= 1
            isLearning = true
            refreshService(local)
            outbox.send(.offer(slice: slice, epoch: holder.epoch, stream: streamCounter), to: peer)
        }
        if !isDeferred { unsettled[local] = Attention.waiting.rawValue }
        if isLearning { return }
        if let first = wanted.first, first != topology.own, first != .none {
            // The wanted primary takes over as soon as it is in sync; every other wanted owner that can be reached is.
            if let index = holder.stream(to: first), holder.streams[index].isInSync, peers[first]?.isReachable == true {
                beginCutOver(slice, to: first, context: context, outbox: &outbox)
            }
            return
        }
        guard isComplete, wanted.first == topology.own else { return }
        if dismissSurplus(local, wanted, &outbox) { return }
        unsettled[local] = Attention.settled.rawValue
    }

    /// Ends the streams of copies that the ring does not want. Returns whether there was one.
    private mutating func dismissSurplus(
        _ local: Int,
        _ wanted: ArraySlice<PeerNumber>,
        _ outbox: inout Outbox
    ) -> Bool {
        let slice = slices.lowerBound + local
        var found = false
        var index = 0
        while index < roles[local].holder.streams.count {
            let stream = roles[local].holder.streams[index]
            if wanted.contains(stream.peer) {
                index += 1
                continue
            }
            found = true
            emit(slice, stream: index, kind: .dismiss, outbox: &outbox) { _ in }
            roles[local].holder.streams.remove(at: index)
        }
        if found { refreshService(local) }
        return found
    }

    /// Hands every slice to an in-sync copy, for a stop that copies nothing. Returns how many slices are still held.
    package mutating func handOverAll(context: Context, outbox: inout Outbox) -> Int {
        var held = 0
        for local in roles.indices {
            guard case .holder(let holder) = roles[local] else { continue }
            guard
                let stream = holder.streams.first(where: { $0.isInSync && peers[$0.peer]?.isReachable == true })
            else { continue }
            held += 1
            if case .stable = holder.phase {
                beginCutOver(slices.lowerBound + local, to: stream.peer, context: context, outbox: &outbox)
            }
        }
        return held
    }

    // MARK: - Time

    /// What the turn of the clock found.
    package struct Lateness {
        /// Peers for which a write has waited longer than its deadline.
        package var late: Set<PeerNumber> = []

        package init() {}
    }

    /// Deadlines, retries, and housekeeping in bounded steps.
    package mutating func advance(
        context: Context,
        writeDeadlineMilliseconds: UInt64,
        lateness: inout Lateness,
        outbox: inout Outbox
    ) {
        var index = 0
        while index < waiting.count {
            let slice = waiting[index]
            complete(slice, context: context, outbox: &outbox)
            guard case .holder(let holder) = roles[slice - slices.lowerBound], let first = holder.pending.first else {
                waiting.swapAt(index, waiting.count - 1)
                waiting.removeLast()
                continue
            }
            if first.since.advanced(byMilliseconds: writeDeadlineMilliseconds) <= context.now.instant {
                for stream in holder.streams
                where stream.isRequired && stream.acknowledgedPosition < first.position {
                    lateness.late.insert(stream.peer)
                }
            }
            index += 1
        }
        advanceDeadlines(context, writeDeadlineMilliseconds, &lateness, &outbox)
        advanceMerges(context, &outbox)
        advanceDrops()
        tellAccesses(context.now.instant, &outbox)
        store.advance(now: context.now, budget: 256)
    }

    private mutating func advanceDeadlines(
        _ context: Context,
        _ writeDeadlineMilliseconds: UInt64,
        _ lateness: inout Lateness,
        _ outbox: inout Outbox
    ) {
        guard timedCount > 0 else { return }
        for local in 0..<slices.count where timed[local] != 0 {
            guard case .holder(let holder) = roles[local] else { continue }
            if case .draining(_, let deadline) = holder.phase {
                finishCutOver(local, context: context, outbox: &outbox)
                if case .holder = roles[local], deadline <= context.now.instant { abortCutOver(local) }
                continue
            }
            for stream in holder.streams {
                switch stream.state {
                case .offered(let until) where until <= context.now.instant:
                    roles[local].holder.streams.removeAll { $0.id == stream.id }
                    refreshService(local)
                case .adopting(let since)
                where since.advanced(byMilliseconds: writeDeadlineMilliseconds) <= context.now.instant:
                    lateness.late.insert(stream.peer)
                case .finishing(let last) where stream.acknowledged >= last:
                    // All was acknowledged while the peer could not be reached. Not the walk's work: learners that wait
                    // for this use up its budget.
                    if let index = roles[local].holder.stream(to: stream.peer) {
                        enterSync(slices.lowerBound + local, stream: index, outbox: &outbox)
                    }
                default:
                    break
                }
            }
        }
    }

    /// Sends what a split's loser has, a bounded part at a time.
    private mutating func advanceMerges(_ context: Context, _ outbox: inout Outbox) {
        guard var merge = merging.last else { return }
        guard peers[merge.to] != nil else {
            merging.removeLast()
            return
        }
        var batch = ByteBuffer(capacity: 4096)
        let next = store.scan(slice: merge.slice, from: merge.cursor, now: context.now) { item in
            item.append(to: &batch)
            return batch.count < configuration.snapshotBytesMax
        }
        if !batch.isEmpty {
            outbox.send(to: .peer(merge.to)) {
                let start = Frame.begin(.merge, in: &$0)
                $0.appendInteger(UInt16(truncatingIfNeeded: merge.slice))
                $0.append(batch.bytes)
                Frame.end(start, in: &$0)
            }
        }
        if let next {
            merge.cursor = next
            merging[merging.count - 1] = merge
        } else {
            merging.removeLast()
        }
    }

    /// Items of a split's other side: newer ones win, a deletion wins a tie.
    package mutating func receiveMerge(
        _ body: UnsafeRawBufferPointer,
        context: Context,
        outbox: inout Outbox
    ) throws(MalformedBytes) {
        var reader = ByteReader(body)
        let slice = try reader.slice()
        let local = slice - slices.lowerBound
        while reader.remaining > 0 {
            let item = try WireItem(&reader)
            let hash = KeyHash.hash(item.key)
            guard Slice.index(of: hash) == slice else { throw MalformedBytes() }
            guard case .holder = roles[local] else { continue }
            let row = store.row(slice).pointee
            guard item.version > row.floor, item.version > row.flushVersion else { continue }
            if let known = store.peek(hash: hash, key: item.key, now: context.now) {
                guard item.version > known.version || (item.version == known.version && item.isTombstone) else {
                    continue
                }
            }
            let now = context.now
            if item.isTombstone {
                store.bury(hash: hash, key: item.key, version: item.version, now: now)
            } else {
                guard store.put(item.view(hash: hash), now: now) else { continue }
            }
            _ = emit(slice, hash: hash, version: item.version, outbox: &outbox) { _, buffer in
                if item.isTombstone {
                    buffer.appendInteger(item.version)
                    buffer.append(item.key)
                    return .removed
                }
                item.append(to: &buffer)
                return .stored
            }
        }
    }

    private mutating func advanceDrops() {
        guard let slice = dropping.last else { return }
        guard case .outside = roles[slice - slices.lowerBound] else {
            dropping.removeLast()
            return
        }
        if store.drop(slice: slice, limit: 512) { dropping.removeLast() }
    }

    // MARK: - What operators see

    /// Counts of this shard's slices and items.
    package struct Census: Sendable {
        package var held = 0
        package var copies = 0
        package var settled = 0
        package var moving = 0
        package var short = 0
        /// Slices for which this node is anything at all, or still has content to give away.
        package var engaged = 0

        package init() {}

        mutating func add(_ other: Census) {
            held += other.held
            copies += other.copies
            settled += other.settled
            moving += other.moving
            short += other.short
            engaged += other.engaged
        }
    }

    /// Adds this shard's counts. `copiesWanted` is how many owners a slice can have at the moment.
    package mutating func count(topology: Topology, copiesWanted: Int, into census: inout Census) {
        census.engaged += merging.count
        if let last = lastCensus, last.revision == revision, last.topology == topology.version,
            last.copiesWanted == copiesWanted
        {
            census.add(last.census)
            return
        }
        let fresh = self.census(topology, copiesWanted)
        lastCensus = (revision, topology.version, copiesWanted, fresh)
        census.add(fresh)
    }

    private func census(_ topology: Topology, _ copiesWanted: Int) -> Census {
        var census = Census()
        for local in roles.indices {
            switch roles[local] {
            case .outside:
                break
            case .copy(let copy):
                census.engaged += 1
                switch copy.state {
                case .inSync: census.copies += 1
                case .learning, .learned, .released: break
                }
            case .holder(let holder):
                census.engaged += 1
                guard holder.phase.isServing else { continue }
                census.held += 1
                census.copies += 1
                let inSync = holder.streams.reduce(into: 0) { $0 += $1.isInSync ? 1 : 0 }
                let learning = holder.streams.contains { $0.isLearning }
                if inSync + 1 < copiesWanted { census.short += 1 }
                let wanted = topology.wantedOwners(of: slices.lowerBound + local)
                let isMoving =
                    learning || (wanted.first != topology.own && wanted.first.map { peers[$0] != nil } ?? false)
                if isMoving {
                    census.moving += 1
                } else if inSync + 1 >= copiesWanted {
                    census.settled += 1
                }
            }
        }
        return census
    }

    /// Visits every slice that this node has a copy of.
    package func copies(_ visit: (Int, Copy) -> Void) {
        for local in 0..<slices.count where copyHolders[local] != 0 {
            guard case .copy(let copy) = roles[local] else { continue }
            visit(slices.lowerBound + local, copy)
        }
    }

    /// Gives up a copy whose holder is none any more, by all that is known here, or that proves nothing. Its content
    /// stays as a base. A holder that counts on it all the same must not go on doing so, and is told.
    package mutating func leaveCopy(_ slice: Int, of holder: PeerNumber, outbox: inout Outbox) {
        let local = slice - slices.lowerBound
        guard case .copy(let copy) = roles[local], copy.holder == holder else { return }
        leave(local)
        if case .released = copy.state { return }
        outbox.send(.refusal(slice: slice, stream: copy.stream, epoch: copy.epoch), to: holder)
    }

    /// Visits every slice that this node serves, with its epoch.
    package func holdings(_ visit: (SliceEpoch) -> Void) {
        for local in 0..<slices.count where servedEpochs[local] != 0 {
            visit(SliceEpoch(slice: slices.lowerBound + local, epoch: servedEpochs[local]))
        }
    }

    /// Visits every slice that this node serves, or has a claim on from a cut over.
    package func claims(_ visit: (Int) -> Void) {
        for local in 0..<slices.count {
            if servedEpochs[local] == 0 {
                guard case .holder = roles[local] else { continue }
            }
            visit(slices.lowerBound + local)
        }
    }

    /// Whether this node serves the slice in that epoch.
    package func serves(_ entry: SliceEpoch) -> Bool {
        servedEpochs[entry.slice - slices.lowerBound] == entry.epoch && entry.epoch != 0
    }

    /// The epoch in which this node serves or claims the slice; nil where it does not.
    package func heldEpoch(_ slice: Int) -> UInt32? {
        guard case .holder(let holder) = roles[slice - slices.lowerBound] else { return nil }
        return holder.epoch
    }

    /// Whether this node has the slice as the ring wants it: as its holder, or as an in-sync copy.
    package func isSettledHere(_ slice: Int, asHolder: Bool) -> Bool {
        switch roles[slice - slices.lowerBound] {
        case .outside: return false
        case .holder(let holder): return holder.phase.isServing
        case .copy(let copy):
            if case .inSync = copy.state { return !asHolder }
            return false
        }
    }

    /// How many in-sync copies the slice has beside its holder; nil where this node is not the holder.
    package func inSyncCount(_ slice: Int) -> Int? {
        guard case .holder(let holder) = roles[slice - slices.lowerBound] else { return nil }
        return holder.streams.reduce(into: 0) { $0 += $1.isInSync ? 1 : 0 }
    }
}

extension Holder.Phase {
    /// Whether the holder answers at least reads.
    var isServing: Bool {
        switch self {
        case .claiming, .suspended: false
        case .stable, .draining: true
        }
    }
}
