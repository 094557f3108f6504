import ClusterCore

// What deletes leave: a key and a version, in segments of their own, in the order of burial.
extension Shard {
    /// Removes `old`, the item or tombstone of the key, if there is one, and leaves a tombstone. Where there is no room
    /// for one, the slice's floor takes its part. No slot is valid after it.
    mutating func leaveTombstone(
        hash: UInt64,
        key: UnsafeRawBufferPointer,
        version: UInt64,
        over old: SlotPointer?,
        now: Now
    ) {
        let row = row(of: hash)
        row.pointee.newest = max(row.pointee.newest, version)
        if let old { unlink(old, hash) }
        // A flush has said as much already.
        if version <= row.pointee.flushVersion(now: now) { return }
        let draft = RecordDraft(
            key: key,
            first: UnsafeRawBufferPointer(start: nil, count: 0),
            expiry: monotonicSeconds(now),
            version: version,
            isTombstone: true
        )
        makeRoomInIndex(hash, now: now)
        guard !index.isFull(hash), let location = appendTombstone(draft.byteCount, now: now) else {
            raiseFloor(of: hash, to: version)
            return
        }
        segments.record(location).write(draft, unixSeconds: 0)
        index.insert(hash, kind: .tombstone, frequency: 0, location: location)
        tombstoneCount &+= 1
        tombstoneBytes &+= draft.byteCount
        row.pointee.tombstones &+= 1
        while tombstoneBytes > configuration.tombstoneBytesMax, dropOldestTombstone(now: now) {}
        // Single ones that must stay may keep many segments from being free.
        let segmentsMax = 2 * configuration.tombstoneBytesMax / layout.segmentBytes + 2
        while segments.tombstones.count > segmentsMax, dropOldestTombstones(now: now) {}
    }

    private mutating func appendTombstone(_ bytes: Int, now: Now) -> UInt64? {
        let isOpen = openTombstones != SegmentTable.none
        if !isOpen || Int(segments.rows[Int(openTombstones)].used) + bytes > layout.segmentBytes {
            if isOpen { close(openTombstones) }
            guard makeFree(1, now: now), let segment = segments.take(.tombstones) else { return nil }
            segments.rows[Int(segment)].isOpen = true
            openTombstones = segment
        }
        let row = segments.rows + Int(openTombstones)
        let offset = Int(row.pointee.used)
        row.pointee.used &+= UInt32(truncatingIfNeeded: bytes)
        row.pointee.live &+= UInt32(truncatingIfNeeded: bytes)
        return segments.location(segment: openTombstones, offset: offset)
    }

    /// Drops a tombstone; one that was still needed raises the floor of its slice.
    mutating func dropTombstone(_ slot: SlotPointer, _ hash: UInt64, mayLeave: Bool) {
        if !mayLeave { raiseFloor(of: hash, to: segments.record(Slot.location(slot.pointee)).version) }
        unlink(slot, hash)
    }

    private func mayLeave(_ record: Record, _ hash: UInt64, _ now: Now) -> Bool {
        let row = row(of: hash)
        if record.version <= row.pointee.flushVersion(now: now) { return true }
        return !row.pointee.tombstonesHeld && age(of: record, now) >= configuration.tombstoneSeconds
    }

    /// Seconds since the burial.
    private func age(of record: Record, _ now: Now) -> UInt32 {
        let seconds = monotonicSeconds(now)
        return seconds > record.expiry ? seconds - record.expiry : 0
    }

    private func monotonicSeconds(_ now: Now) -> UInt32 {
        UInt32(truncatingIfNeeded: now.instant.nanoseconds / 1_000_000_000)
    }

    private mutating func raiseFloor(of hash: UInt64, to version: UInt64) {
        counters.floorRaises &+= 1
        let row = row(of: hash)
        row.pointee.floor = max(row.pointee.floor, version)
    }

    /// The tombstone at a location, and its slot.
    private func slot(_ record: Record, _ location: UInt64) -> (slot: SlotPointer, hash: UInt64) {
        let hash = hash(record.key)
        guard let slot = index.slot(hash, location: location) else {
            preconditionFailure("a tombstone at \(location) is not in the index")
        }
        return (slot, hash)
    }

    /// Drops the oldest tombstone; false where there is none.
    private mutating func dropOldestTombstone(now: Now) -> Bool {
        let segment = segments.tombstones.oldest
        guard segment != SegmentTable.none else { return false }
        let row = segments.rows + Int(segment)
        // `expiry` of a tombstones' segment counts the bytes at its start that are known to be dead.
        while row.pointee.expiry < row.pointee.used {
            let location = segments.location(segment: segment, offset: Int(row.pointee.expiry))
            let record = segments.record(location)
            row.pointee.expiry &+= UInt32(truncatingIfNeeded: record.byteCount)
            if record.kind == .filler { continue }
            let (slot, hash) = slot(record, location)
            dropTombstone(slot, hash, mayLeave: mayLeave(record, hash, now))
            return true
        }
        // Nothing lives in it, and it is open, or it would have been free.
        close(segment)
        return segments.tombstones.oldest != SegmentTable.none
    }

    /// Drops all of the oldest segment of tombstones; false where there is none.
    mutating func dropOldestTombstones(now: Now) -> Bool {
        let segment = segments.tombstones.oldest
        guard segment != SegmentTable.none else { return false }
        let free = segments.freeCount
        while segments.freeCount == free, segments.tombstones.oldest == segment, dropOldestTombstone(now: now) {}
        if segments.freeCount == free, segment == openTombstones { close(segment) }
        return segments.freeCount > free
    }

    /// Looks at some tombstones, the oldest first, and drops those that may leave.
    mutating func advanceTombstones(now: Now, limit: Int) {
        var left = limit
        var (segment, offset) = tombstoneCursor ?? (segments.tombstones.oldest, 0)
        while left > 0, segment != SegmentTable.none {
            left -= 1
            let row = segments.rows + Int(segment)
            let next = row.pointee.next
            guard offset < Int(row.pointee.used) else {
                (segment, offset) = (next, 0)
                continue
            }
            let location = segments.location(segment: segment, offset: offset)
            let record = segments.record(location)
            offset += record.byteCount
            if record.kind == .filler { continue }
            let (slot, hash) = slot(record, location)
            let age = age(of: record, now)
            let mayLeave = mayLeave(record, hash, now)
            if mayLeave || age >= configuration.tombstoneSecondsMax {
                dropTombstone(slot, hash, mayLeave: mayLeave)
                if segments.rows[Int(segment)].role != .tombstones { (segment, offset) = (next, 0) }
            } else if age < configuration.tombstoneSeconds {
                // All that follow are younger.
                segment = SegmentTable.none
            }
        }
        tombstoneCursor = segment == SegmentTable.none ? nil : (segment, offset)
    }
}
