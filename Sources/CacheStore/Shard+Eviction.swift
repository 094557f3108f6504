import ClusterCore

extension Shard {
    /// How many items one eviction may spare and move before it takes the next in line regardless, so that a queue full
    /// of items that were all read delays nobody for long.
    private static let sparedMax = 256
    /// The small queue's share of the items' bytes: one part in this many.
    private static let smallShare = 10

    /// Evicts until `bytes` more fit; false, with nothing evicted in vain, where they never can.
    mutating func makeRoom(_ bytes: Int, now: Now) -> Bool {
        if usedBytes &+ bytes <= configuration.memoryBytes { return true }
        let stuck = permanentBytes &+ (pinned?.charge ?? 0) &+ (limbo?.charge ?? 0)
        if stuck &+ bytes > configuration.memoryBytes { return false }
        while usedBytes &+ bytes > configuration.memoryBytes {
            if !evict(now: now) { return false }
        }
        return true
    }

    /// Drops one item by S3-FIFO, or, where there are only tombstones, the oldest of these.
    private mutating func evict(now: Now) -> Bool {
        var spared = 0
        while let victim = nextVictim() {
            let state = state(hash: victim.pointee.hash)
            if isDead(victim, in: state, now: now) {
                reap(victim, in: state, now: now)
                return true
            }
            let isSmall = victim.pointee.kind == .small
            let bar = isSmall ? configuration.promotionHits : 1
            if victim.pointee.frequency >= bar, spared < Self.sparedMax {
                spared &+= 1
                if isSmall {
                    small.remove(victim)
                    victim.pointee.kind = .main
                    victim.pointee.frequency = 0
                } else {
                    main.remove(victim)
                    victim.pointee.frequency &-= 1
                }
                main.append(victim)
                continue
            }
            if isSmall { ghosts.insert(victim.pointee.hash) }
            counters.evictions &+= 1
            if !victim.pointee.isFetched { counters.evictedUnfetched &+= 1 }
            discard(victim, in: state)
            return true
        }
        guard let tombstone = unpinnedOldest(of: tombstones) else { return false }
        dropTombstone(tombstone, now: now)
        return true
    }

    private func nextVictim() -> ItemPointer? {
        let isSmallFull = small.bytes > (small.bytes &+ main.bytes) / Self.smallShare
        let (preferred, other) = isSmallFull ? (small, main) : (main, small)
        return unpinnedOldest(of: preferred) ?? unpinnedOldest(of: other)
    }

    private func unpinnedOldest(of queue: ItemQueue) -> ItemPointer? {
        guard let oldest = queue.oldest else { return nil }
        return oldest == pinned ? oldest.pointee.newer : oldest
    }
}
