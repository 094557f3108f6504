import ClusterCore

// Open segments: where records are appended.
extension Shard {
    /// Segments that cleaning may use and stores may not: what it moves must go somewhere.
    private static let reserve = 2
    /// Below this many free segments each store cleans a little.
    private static let lowWater = 4
    /// How many records a store cleans then, see `clean`.
    static let cleaningStep = 24
    /// So many times the bytes that it stores it passes at least, so that stores of any size stay ahead.
    static let passedPerByte = 3
    /// How many records a store may look at without winning a segment, before items leave that were read.
    static let cleanedInVainMax = 4096
    /// One part in this many of all segments may be open for items that expire, and at least a few.
    private static let openShare = 16
    private static let openMin = 3

    /// How many segments may be open for items that expire in a shard of so many.
    static func openLimit(segmentCount: Int) -> Int { max(openMin, segmentCount / openShare) }

    /// How many segments may be open for items that expire. Each open one is half empty on the average; where fewer are
    /// open, windows are wider, and what is expired waits longer. The square root of twice the segments that hold such
    /// items makes the two losses equal.
    private var openMax: Int {
        let balanced = Int(Double(2 &* expiringCount).squareRoot())
        return min(max(Self.openMin, balanced), Self.openLimit(segmentCount: segments.count))
    }

    private func openPlace(_ pool: Slot.Kind) -> UnsafeMutablePointer<OpenSegments> { open + (pool == .main ? 1 : 0) }

    @inline(__always)
    private func hasRoom(_ segment: UInt32, _ bytes: Int) -> Bool {
        segment != SegmentTable.none && Int(segments.rows[Int(segment)].used) &+ bytes <= layout.segmentBytes
    }

    /// The window of a pool for an item that expires then; nil where it should have a fresh one.
    @inline(__always)
    private func window(_ pool: Slot.Kind, _ expiry: UInt32, _ now: Now) -> Int? {
        openPlace(pool).pointee.windows.index(for: expiry, now: now.unixSeconds, mayAdd: openCount < openMax)
    }

    /// Whether the open segment for an item that expires then has that much room.
    private func hasRoom(_ bytes: Int, pool: Slot.Kind, expiry: UInt32, now: Now) -> Bool {
        let open = openPlace(pool)
        if expiry == 0 { return hasRoom(open.pointee.lasting, bytes) }
        guard let index = window(pool, expiry, now) else { return false }
        return hasRoom(open.pointee.windows[index].segment, bytes)
    }

    /// Makes sure that a record of that size can be appended to a pool, at once and without cleaning. False where
    /// there is no room to be made. Items may be evicted and moved.
    mutating func makeRoom(_ bytes: Int, pool: Slot.Kind, expiry: UInt32, now: Now) -> Bool {
        if segments.freeCount < Self.lowWater {
            clean(limit: Self.cleaningStep, passing: Self.passedPerByte &* bytes, now: now)
        }
        if segments.freeCount > Self.reserve || hasRoom(bytes, pool: pool, expiry: expiry, now: now) {
            return true
        }
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
        // Beyond this even the dropping of items does not help.
        let hopeless = Self.cleanedInVainMax + segments.count * layout.segmentBytes / Record.headerBytes
        var inVain = 0
        var best = segments.freeCount
        while segments.freeCount < wanted {
            // Where all items were read, moving them wins nothing: then they go without a look.
            let weight = cleanSome(isForced: inVain >= Self.cleanedInVainMax, now: now)
            if weight == 0, !shrinkIndex(), !dropOldestTombstones(now: now) { return false }
            inVain += weight
            // What moves takes a segment before its own becomes free: that is none won.
            if segments.freeCount > best {
                best = segments.freeCount
                inVain = 0
            }
            if inVain > hopeless { return false }
        }
        return true
    }

    /// The most segments that all items together can have while the index is as it is.
    var segmentsForItems: Int {
        segments.count - Self.reserve - segments.index.count - 1
    }

    /// Takes bytes at the end of the pool's open segment for an expiry, or of a fresh one. Nil where no segment is free;
    /// `makeRoom` sees to that before.
    mutating func append(_ bytes: Int, pool: Slot.Kind, expiry: UInt32, now: Now) -> UInt64? {
        let open = openPlace(pool)
        if expiry == 0 {
            if hasRoom(open.pointee.lasting, bytes) { return append(bytes, to: open.pointee.lasting, expiry: expiry) }
            if open.pointee.lasting != SegmentTable.none { close(open.pointee.lasting) }
        } else if let index = windowWithRoom(bytes, pool: pool, expiry: expiry, now: now) {
            open.pointee.windows.widen(index, to: expiry)
            return append(bytes, to: open.pointee.windows[index].segment, expiry: expiry)
        }
        guard let segment = segments.take(pool == .main ? .main : .small) else {
            return appendAnywhere(bytes, pool: pool, expiry: expiry)
        }
        let row = segments.rows + Int(segment)
        row.pointee.isOpen = true
        if expiry == 0 {
            open.pointee.lasting = segment
        } else {
            open.pointee.windows.insert(segment, at: expiry)
            openCount &+= 1
            row.pointee.isExpiring = true
            expiringCount &+= 1
        }
        return append(bytes, to: segment, expiry: expiry)
    }

    /// The window for an item that expires then, if its segment has room; where it is full, it is closed, and what is
    /// beside it may do.
    private mutating func windowWithRoom(_ bytes: Int, pool: Slot.Kind, expiry: UInt32, now: Now) -> Int? {
        let open = openPlace(pool)
        guard let index = window(pool, expiry, now) else { return nil }
        let segment = open.pointee.windows[index].segment
        if hasRoom(segment, bytes) { return index }
        close(segment)
        guard let other = window(pool, expiry, now), hasRoom(open.pointee.windows[other].segment, bytes) else {
            return nil
        }
        return other
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

    /// Cleaning has used up the reserve: any open segment of the pool will do.
    private mutating func appendAnywhere(_ bytes: Int, pool: Slot.Kind, expiry: UInt32) -> UInt64? {
        let open = openPlace(pool).pointee
        if hasRoom(open.lasting, bytes) { return append(bytes, to: open.lasting, expiry: expiry) }
        for index in 0..<open.windows.count where hasRoom(open.windows[index].segment, bytes) {
            return append(bytes, to: open.windows[index].segment, expiry: expiry)
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
            let open = openPlace(row.pointee.role == .main ? .main : .small)
            if let index = open.pointee.windows.index(of: segment) {
                open.pointee.windows.remove(index)
                openCount -= 1
            } else {
                precondition(open.pointee.lasting == segment, "segment \(segment) is not where it was opened")
                open.pointee.lasting = SegmentTable.none
            }
        }
        if row.pointee.live == 0, cleaning?.segment != segment { free(segment) }
    }
}
