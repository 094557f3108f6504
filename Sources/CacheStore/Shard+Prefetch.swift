import ClusterCore

// Several keys at once: their cache misses overlap where each is asked for before the first is needed.
extension Shard {
    /// Asks for the bucket of a hash.
    public func prefetchIndex(hash: UInt64) {
        if let line = index.line(hash) { Prefetch.read(line) }
    }

    /// Asks for what a write of a hash reads beside its bucket: the slice's row, and the ghosts where there are any.
    public func prefetchWrite(hash: UInt64) {
        Prefetch.read(rows + (Slice.index(of: hash) &- slices.lowerBound))
        if counters.evictions > 0 { Prefetch.read(ghosts.line(hash)) }
    }

    /// Asks for the item of a hash; best some time after `prefetchIndex`.
    public func prefetchItem(hash: UInt64) {
        let position = index.position(hash)
        let page = index.page(at: position)
        if page.pointee.extentCount == 0 { return }
        let tag = index.tag(position)
        // Only the first bucket: what has spilled is one in some, and its bucket would be a miss of its own.
        let bucket = index.bucket(index.bucketIndex(tag, in: page), of: page)
        for slotIndex in 0..<HashIndex.bucketSlots {
            let slot = bucket[slotIndex]
            guard slot &>> Slot.tagShift == tag, slot != 0 else { continue }
            let record = UnsafeRawPointer(segments.record(Slot.location(slot)).raw)
            Prefetch.read(record)
            Prefetch.read(record + 64)
            Prefetch.read(record + 128)
            return
        }
    }
}
