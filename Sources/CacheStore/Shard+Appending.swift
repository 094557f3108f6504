import ClusterCore

// Open segments: where records are appended.
extension Shard {
    /// Segments that cleaning may use and stores may not: what it moves must go somewhere.
    private static let reserve = 2
    /// Below this many free segments each store cleans a little.
    private static let lowWater = 4
    /// What a store cleans then, see `clean`.
    private static let cleaningStep = 24
    /// How many bytes one store may have moved without winning a segment, before items leave that were read.
    private static let movedInVainMax = 4 << 20
    /// One part in this many of all segments may be open for items that expire.
    private static let openShare = 16

    private var openMax: Int { max(3, segments.count / Self.openShare) }

    private func openSlot(_ pool: Slot.Kind, _ timeClass: Int) -> Int {
        (pool == .main ? TimeClass.count : 0) &+ timeClass
    }

    @inline(__always)
    private func hasRoom(_ segment: UInt32, _ bytes: Int) -> Bool {
        segment != SegmentTable.none && Int(segments.rows[Int(segment)].used) &+ bytes <= layout.segmentBytes
    }

    /// Makes sure that a record of that size can be appended to a pool, at once and without cleaning. False where
    /// there is no room to be made. Items may be evicted and moved.
    mutating func makeRoom(_ bytes: Int, pool: Slot.Kind, timeClass: Int, now: Now) -> Bool {
        if segments.freeCount < Self.lowWater { clean(limit: Self.cleaningStep, now: now) }
        if hasRoom(open[openSlot(pool, timeClass)], bytes) { return true }
        return makeFree(1, now: now)
    }

    /// Makes sure that the index has room for another slot of a hash. Where the page can grow no more, one of its items
    /// leaves.
    mutating func makeRoomInIndex(_ hash: UInt64, now: Now) {
        guard index.needsWork(hash) else { return }
        if index.needsSegment(hash), segments.freeCount <= Self.reserve { _ = makeFree(1, now: now) }
        if index.work(hash, segments: &segments) { return }
        while index.isFull(hash) {
            let position = index.position(hash)
            let page = index.page(at: position)
            if page.pointee.slotCount == 0 { return }
            evictFrom(page)
        }
    }

    /// Drops the least read item of a page.
    private mutating func evictFrom(_ page: PagePointer) {
        var victim: SlotPointer?
        var best = UInt8.max
        index.forEachSlot(of: page, tags: 0...UInt64.max >> Slot.tagShift) { slot in
            let rank = Slot.isTombstone(slot.pointee) ? 4 : Slot.frequency(slot.pointee)
            if rank < best {
                best = rank
                victim = slot
            }
        }
        guard let victim else { preconditionFailure("a full page has no slot") }
        let key = segments.record(Slot.location(victim.pointee)).key
        if Slot.isTombstone(victim.pointee) {
            dropTombstone(victim, hash(key), mayLeave: false)
        } else {
            countEviction(segments.record(Slot.location(victim.pointee)))
            unlink(victim, hash(key))
        }
    }

    /// Cleans until that many segments are free beyond the reserve; false where that cannot be.
    mutating func makeFree(_ count: Int, now: Now) -> Bool {
        let wanted = count + (segments.count < 32 ? 1 : Self.reserve)
        var stalled = 0
        let stallsMax = max(3, Self.movedInVainMax >> layout.segmentShift)
        while segments.freeCount < wanted {
            let before = segments.freeCount
            // Where all items were read, moving them wins nothing: then they go without a look.
            guard
                cleanSegment(isForced: stalled >= stallsMax, now: now) || shrinkIndex()
                    || dropOldestTombstones(now: now)
            else {
                return false
            }
            stalled = segments.freeCount > before ? 0 : stalled + 1
            if stalled > stallsMax + segments.count { return false }
        }
        return true
    }

    /// The most segments that all items together can have while the index is as it is.
    var segmentsForItems: Int {
        segments.count - Self.reserve - segments.index.count - 1
    }

    /// Takes bytes at the end of the pool's open segment for a time class, or of a fresh one. Nil where no segment is
    /// free; `makeRoom` sees to that before.
    mutating func append(_ bytes: Int, pool: Slot.Kind, timeClass: Int, expiry: UInt32) -> UInt64? {
        var slot = openSlot(pool, timeClass)
        if !hasRoom(open[slot], bytes) {
            if open[slot] == SegmentTable.none, timeClass != 0, openCount >= openMax,
                let neighbour = nearestOpen(pool, timeClass)
            {
                slot = neighbour
            }
            if !hasRoom(open[slot], bytes) {
                if open[slot] != SegmentTable.none { close(open[slot]) }
                slot = openSlot(pool, timeClass)
                guard let segment = segments.take(pool == .main ? .main : .small) else {
                    return appendAnywhere(bytes, pool: pool, expiry: expiry)
                }
                let row = segments.rows + Int(segment)
                row.pointee.timeClass = UInt8(timeClass)
                row.pointee.isOpen = true
                open[slot] = segment
                openCount += 1
            }
        }
        return append(bytes, to: open[slot], expiry: expiry)
    }

    private mutating func append(_ bytes: Int, to segment: UInt32, expiry: UInt32) -> UInt64 {
        let row = segments.rows + Int(segment)
        let offset = Int(row.pointee.used)
        row.pointee.used &+= UInt32(truncatingIfNeeded: bytes)
        row.pointee.live &+= UInt32(truncatingIfNeeded: bytes)
        let end = expiry == 0 ? .max : expiry
        if end > row.pointee.expiry { row.pointee.expiry = end }
        if end < earliestExpiry { earliestExpiry = end }
        return segments.location(segment: segment, offset: offset)
    }

    /// The open segment of the pool whose class is nearest; items that never expire keep to themselves.
    private func nearestOpen(_ pool: Slot.Kind, _ timeClass: Int) -> Int? {
        for distance in 1..<TimeClass.count {
            if timeClass + distance < TimeClass.count {
                let slot = openSlot(pool, timeClass + distance)
                if open[slot] != SegmentTable.none { return slot }
            }
            if timeClass - distance > 0 {
                let slot = openSlot(pool, timeClass - distance)
                if open[slot] != SegmentTable.none { return slot }
            }
        }
        return nil
    }

    /// Cleaning has used up the reserve: any open segment of the pool will do.
    private mutating func appendAnywhere(_ bytes: Int, pool: Slot.Kind, expiry: UInt32) -> UInt64? {
        for timeClass in 0..<TimeClass.count {
            let segment = open[openSlot(pool, timeClass)]
            if hasRoom(segment, bytes) { return append(bytes, to: segment, expiry: expiry) }
        }
        return nil
    }

    /// Nothing more is appended to a segment.
    mutating func close(_ segment: UInt32) {
        let row = segments.rows + Int(segment)
        precondition(row.pointee.isOpen, "segment \(segment) is not open")
        row.pointee.isOpen = false
        if row.pointee.role == .tombstones {
            openTombstones = SegmentTable.none
        } else {
            let slot = openSlot(row.pointee.role == .main ? .main : .small, Int(row.pointee.timeClass))
            precondition(open[slot] == segment, "segment \(segment) is not where it was opened")
            open[slot] = SegmentTable.none
            openCount -= 1
        }
        if row.pointee.live == 0, cleaning?.segment != segment { free(segment) }
    }
}
