public import ClusterCore

/// Walks the items of a slice page by page. Holds copies of what finds them, so that the shard may change meanwhile, as
/// long as nothing is put into its index.
private struct SliceWalk {
    typealias Entry = (hash: UInt64, slot: SlotPointer)

    let slice: Int
    let index: HashIndex
    let segments: SegmentTable
    let hash: @Sendable (UnsafeRawBufferPointer) -> UInt64

    /// The bits of a hash below its slice.
    static let placeBits: UInt64 = 50

    /// Hands out the items and tombstones of the page at a cursor, from the cursor on, in the order of their hashes.
    /// Returns the cursor of the next page; nil at the end of the slice.
    func page(from cursor: UInt64, _ body: (UnsafeMutableBufferPointer<Entry>) -> Void) -> UInt64? {
        let first = UInt64(slice) << Self.placeBits
        let start = index.position(first | cursor)
        let last = index.position(first | (1 << Self.placeBits - 1))
        let page = index.page(at: start)
        let end = index.range(of: page).end
        let isLast = end == 0 || end > last
        if page.pointee.count > 0 {
            let tags = index.tag(start)...index.tag(isLast ? last : end - 1)
            withUnsafeTemporaryAllocation(of: Entry.self, capacity: Int(page.pointee.count)) { buffer in
                var count = 0
                index.forEachSlot(of: page, tags: tags) { slot in
                    let hash = hash(segments.record(Slot.location(slot.pointee)).key)
                    guard Slice.index(of: hash) == slice, hash & (1 << Self.placeBits - 1) >= cursor else { return }
                    buffer[count] = (hash, slot)
                    count += 1
                }
                var entries = UnsafeMutableBufferPointer(rebasing: buffer[..<count])
                entries.sort { $0.hash < $1.hash }
                body(entries)
            }
        }
        return isLast ? nil : index.hash(at: end) & (1 << Self.placeBits - 1)
    }
}

// What concerns a slice as a whole.
extension Shard {
    private func walk(_ slice: Int) -> SliceWalk {
        precondition(slices.contains(slice), "slice \(slice) is not in \(slices)")
        return SliceWalk(slice: slice, index: index, segments: segments, hash: hash)
    }

    /// Visits the items and tombstones of a slice in the order of their hashes, from a cursor: 0, or what an earlier
    /// call returned. Skips expired and flushed ones, counts no access.
    ///
    /// Ends when the visitor returns false (that item has been visited) or the slice ends; nil is the end. An item
    /// that is present throughout is visited exactly once, whatever happens between the calls. Items of one and the
    /// same hash are visited together, even if the visitor returned false on the first of them.
    public func scan(slice: Int, from cursor: UInt64, now: Now, _ visit: (ItemView) -> Bool) -> UInt64? {
        let walk = walk(slice)
        var next = cursor < 1 << SliceWalk.placeBits ? cursor : nil
        while let from = next {
            var stoppedAt: UInt64?
            next = walk.page(from: from) { entries in
                for (hash, slot) in entries {
                    if let stoppedAt, hash != stoppedAt { return }
                    let record = segments.record(Slot.location(slot.pointee))
                    if isDead(record, hash, now) { continue }
                    if !visit(view(record, slot.pointee, hash)) { stoppedAt = hash }
                }
            }
            if let stoppedAt {
                let place = stoppedAt & (1 << SliceWalk.placeBits - 1) + 1
                return place < 1 << SliceWalk.placeBits ? place : nil
            }
        }
        return nil
    }

    /// Kills everything in a slice at or below `version`: dead for readers at once, swept by `advance`. A delayed flush
    /// stays as it is; `scheduleFlush` with 0 cancels it.
    public mutating func flush(slice: Int, version: UInt64) {
        flush(row(slice), version: version)
    }

    /// At that time everything in the slice with a version of at most T << 16 dies; 0 cancels, a newer call replaces.
    public mutating func scheduleFlush(slice: Int, atUnixMilliseconds time: UInt64) {
        // Versions end below 2^63, times before that are all that can be due.
        let time = min(time, 1 << 47 - 1)
        row(slice).pointee.flushAt = time
        if time != 0 { earliestFlush = min(earliestFlush, time) }
    }

    /// Puts a delayed flush into effect if it is due; a holder does so before it stamps a version.
    public mutating func settle(slice: Int, now: Now) {
        settle(row(slice), now: now)
    }

    @inline(__always)
    mutating func settle(_ row: UnsafeMutablePointer<SliceRow>, now: Now) {
        let time = row.pointee.flushAt
        if time == 0 || now.unixMilliseconds < time { return }
        row.pointee.flushAt = 0
        flush(row, version: time << 16)
    }

    private mutating func flush(_ row: UnsafeMutablePointer<SliceRow>, version: UInt64) {
        row.pointee.flushVersion = max(row.pointee.flushVersion, version)
        row.pointee.newest = max(row.pointee.newest, version)
        highestFlush = max(highestFlush, version)
        if row.pointee.count == 0, row.pointee.tombstones == 0 { return }
        // What the sweep has passed in this slice must be passed again.
        if row == rows + sweepIndex { sweepCursor = 0 }
        if !row.pointee.isSweepPending {
            row.pointee.isSweepPending = true
            sweepsPending &+= 1
        }
    }

    /// Forgets all items and tombstones of a slice without a trace, at most `limit` of them a call; true when the slice
    /// is empty. The row keeps its versions.
    public mutating func drop(slice: Int, limit: Int) -> Bool {
        releaseLimbo()
        let walk = walk(slice)
        let row = row(slice)
        var left = limit
        var next: UInt64? = 0
        while let from = next, left > 0, row.pointee.count > 0 || row.pointee.tombstones > 0 {
            next = walk.page(from: from) { entries in
                for (hash, slot) in entries.prefix(left) {
                    unlink(slot, hash)
                    left -= 1
                }
            }
        }
        return row.pointee.count == 0 && row.pointee.tombstones == 0
    }

    // MARK: Housekeeping

    /// Housekeeping in bounded steps: drops tombstones that are old enough, frees expired and flushed items, lets the
    /// index shrink. `budget` is about how many items to look at.
    public mutating func advance(now: Now, budget: Int) {
        releaseLimbo()
        advanceTombstones(now: now, limit: max(1, budget / 4))
        if now.unixMilliseconds >= earliestFlush { settleAll(now) }
        if sweepsPending > 0 { sweep(now: now, budget: budget) }
        if now.unixSeconds >= earliestExpiry {
            beginExpired(now)
            if cleaning != nil { clean(limit: budget, now: now) }
        }
        closeDeadSegments()
        advanceShrinking(pages: max(1, budget / 64))
    }

    private mutating func settleAll(_ now: Now) {
        earliestFlush = .max
        for row in rows..<(rows + slices.count) {
            settle(row, now: now)
            if row.pointee.flushAt != 0 { earliestFlush = min(earliestFlush, row.pointee.flushAt) }
        }
    }

    /// Goes around the slices that a flush has left dead items in.
    private mutating func sweep(now: Now, budget: Int) {
        var left = budget
        while left > 0, sweepsPending > 0 {
            let row = rows + sweepIndex
            if row.pointee.isSweepPending {
                let walk = walk(slices.lowerBound + sweepIndex)
                var last: UInt64?
                var isCut = false
                left -= 1
                let next = walk.page(from: sweepCursor) { entries in
                    for (hash, slot) in entries {
                        // Items of one hash go together: a cursor cannot part them.
                        if left <= 0, hash != last {
                            isCut = true
                            return
                        }
                        if isDead(segments.record(Slot.location(slot.pointee)), hash, now) { reap(slot, hash, now) }
                        last = hash
                        left -= 1
                    }
                }
                if isCut {
                    if let last { sweepCursor = last & (1 << SliceWalk.placeBits - 1) + 1 }
                    return
                }
                if let next {
                    sweepCursor = next
                    continue
                }
                row.pointee.isSweepPending = false
                sweepsPending -= 1
            }
            sweepCursor = 0
            sweepIndex = sweepIndex + 1 == slices.count ? 0 : sweepIndex + 1
        }
    }

    /// Open segments in which nothing lives would wait for their next item for ever.
    private mutating func closeDeadSegments() {
        if tombstoneCount == 0, openTombstones != SegmentTable.none { close(openTombstones) }
        guard itemCount == 0 || segments.freeCount == 0 else { return }
        for pool in 0..<2 {
            closeIfDead(open[pool].lasting)
            for index in (0..<open[pool].windows.count).reversed() { closeIfDead(open[pool].windows[index].segment) }
        }
    }

    private mutating func closeIfDead(_ segment: UInt32) {
        if segment != SegmentTable.none, segments.rows[Int(segment)].live == 0 { close(segment) }
    }

    /// Lets pages that are too large give extents back, and empties an index segment where that wins one.
    private mutating func advanceShrinking(pages: Int) {
        for _ in 0..<pages {
            if shrinkCursor >= index.pageCount {
                shrinkCursor = 0
                sparseSegment = index.sparseSegment(segments) ?? SegmentTable.none
            }
            lookAtPage(shrinkCursor)
            shrinkCursor += 1
        }
    }

    private mutating func lookAtPage(_ page: Int) {
        _ = index.shrink(page, segments: &segments)
        if sparseSegment != SegmentTable.none, segments.rows[Int(sparseSegment)].role == .index {
            index.evacuate(sparseSegment, page: page, segments: &segments)
        }
    }

    /// All of the shrinking at once, when nothing else is left to free; whether a segment became free.
    mutating func shrinkIndex() -> Bool {
        let free = segments.freeCount
        for page in 0..<index.pageCount { _ = index.shrink(page, segments: &segments) }
        sparseSegment = index.sparseSegment(segments) ?? SegmentTable.none
        if sparseSegment != SegmentTable.none { for page in 0..<index.pageCount { lookAtPage(page) } }
        return segments.freeCount > free
    }

    /// Whether a value of that size can ever be stored.
    func mayHold(valueBytes: Int) -> Bool {
        if valueBytes <= layout.recordBytesMax / 2 { return true }
        let chunkCount = (valueBytes + layout.chunkBytes - 1) / layout.chunkBytes
        let tableBytes = Record.tableHeaderBytes + chunkCount * Record.tableEntryBytes
        return (chunkCount + 3) / 4 + 2 <= segmentsForItems
            && tableBytes + Record.headerBytes + 12 + StoreConfiguration.keyBytesMax <= layout.segmentBytes
    }
}
