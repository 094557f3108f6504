import ClusterCore

// Several keys at once: their cache misses overlap where each is asked for before the first is needed.
extension Shard {
    /// Asks for the header of the page of a hash: where its buckets are.
    public func prefetchPage(hash: UInt64) { Prefetch.read(index.page(at: index.position(hash))) }

    /// Asks for the bucket of a hash; best some time after `prefetchPage`.
    public func prefetchIndex(hash: UInt64) {
        index.prefetch(hash)
    }

    /// Asks for what a write of a hash reads beside its bucket: the slice's row, and the ghosts where there are any.
    public func prefetchWrite(hash: UInt64) {
        Prefetch.read(rows + (Slice.index(of: hash) &- slices.lowerBound))
        if counters.evictions > 0 { Prefetch.read(ghosts.line(hash)) }
    }

    /// Asks for the item of a hash; best some time after `prefetchIndex`.
    public func prefetchItem(hash: UInt64) {
        guard let slot = index.likelySlot(hash) else { return }
        let record = UnsafeRawPointer(segments.record(Slot.location(slot)).raw)
        Prefetch.read(record)
        Prefetch.read(record + 64)
        Prefetch.read(record + 128)
    }
}
