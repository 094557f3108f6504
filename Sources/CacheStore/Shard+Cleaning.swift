import ClusterCore
import Glibc

/// The cleaning of one segment, which goes on over several calls.
struct Cleaning {
    enum Purpose {
        /// Its time has come: what was touched since moves on.
        case expired
        /// It is thin: what lives moves on as it is.
        case compact
        /// S3-FIFO: what was read moves to main, the rest leaves.
        case evict
    }

    var segment: UInt32
    var offset = 0
    var purpose: Purpose
}

extension Shard {
    /// Below this part of a segment that lives, in hundredths, it is compacted rather than others evicted.
    private static let thinBelow = 75
    /// The small pool's share of the items' segments: one part in this many.
    private static let smallShare = 10
    /// Records that are looked up together, so that their cache misses overlap.
    private static let batchMax = 16
    /// Bytes that weigh as much as a record, dead or alive, for the length of a step.
    private static let bytesPerUnit = 512

    /// Cleans a few records: about `limit` of them, fewer where they are large, and on until so many bytes of the segment
    /// are passed. Begins a segment if none is under way, and ends with it.
    mutating func clean(limit: Int, passing bytes: Int = 0, now: Now) {
        if cleaning == nil { cleaning = nextCleaning(now) }
        guard let start = cleaning?.offset else { return }
        var left = limit
        while let current = cleaning, left > 0 || current.offset &- start < bytes {
            left -= cleanBatch(isForced: false, limit: left > 0 ? left : limit, now: now)
        }
    }

    /// Cleans a batch of records; returns what they weigh, and 0 where there is nothing to clean.
    mutating func cleanSome(isForced: Bool, now: Now) -> Int {
        if cleaning == nil { cleaning = nextCleaning(now) }
        return cleaning == nil ? 0 : cleanBatch(isForced: isForced, limit: .max, now: now)
    }

    /// Which segment to clean: one that is expired, one that is thin, or the oldest of the pool that has too much.
    private mutating func nextCleaning(_ now: Now) -> Cleaning? {
        var thinnest = SegmentTable.none
        var thinnestLive = UInt32(layout.segmentBytes / 100 * Self.thinBelow)
        let isDue = now.unixSeconds >= earliestExpiry
        for segment in 0..<segments.touchedCount {
            let row = segments.rows + segment
            guard row.pointee.role == .small || row.pointee.role == .main else { continue }
            if isDue, row.pointee.expiry <= now.unixSeconds { return begin(UInt32(segment), .expired) }
            if row.pointee.live < thinnestLive, !row.pointee.isOpen {
                thinnestLive = row.pointee.live
                thinnest = UInt32(segment)
            }
        }
        if thinnest != SegmentTable.none { return begin(thinnest, .compact) }
        let itemSegments = segments.small.count + segments.main.count
        let isSmallFull = segments.small.count * Self.smallShare > itemSegments
        if isSmallFull || segments.main.oldest == SegmentTable.none {
            return segments.small.oldest == SegmentTable.none ? nil : begin(segments.small.oldest, .evict)
        }
        return begin(segments.main.oldest, .evict)
    }

    private mutating func begin(_ segment: UInt32, _ purpose: Cleaning.Purpose) -> Cleaning {
        // Closing a segment that holds nothing would free it.
        cleaning = Cleaning(segment: segment, purpose: purpose)
        if segments.rows[Int(segment)].isOpen { close(segment) }
        return Cleaning(segment: segment, purpose: purpose)
    }

    /// Begins to clean a segment whose time has come, if there is one and nothing else is under way.
    mutating func beginExpired(_ now: Now) {
        guard cleaning == nil, now.unixSeconds >= earliestExpiry else { return }
        var earliest = UInt32.max
        for segment in 0..<segments.touchedCount {
            let row = segments.rows + segment
            guard row.pointee.role == .small || row.pointee.role == .main, row.pointee.used > 0 else { continue }
            if row.pointee.expiry <= now.unixSeconds {
                cleaning = begin(UInt32(segment), .expired)
                return
            }
            earliest = min(earliest, row.pointee.expiry)
        }
        earliestExpiry = earliest
    }

    /// A record of the segment that is cleaned, and what the index is asked for it.
    private struct Work {
        var location: UInt64
        var hash: UInt64
        var bytes: Int
        var isChunk: Bool
    }

    /// Cleans up to a batch of records; returns what they weigh, at least 1.
    private mutating func cleanBatch(isForced: Bool, limit: Int, now: Now) -> Int {
        guard var current = cleaning else { return 1 }
        let row = segments.rows + Int(current.segment)
        var weight = 1
        withUnsafeTemporaryAllocation(of: Work.self, capacity: Self.batchMax) { batch in
            var count = 0
            var offset = current.offset
            let end = Int(row.pointee.used)
            var visited: UInt64 = 0
            while offset < end, count < Self.batchMax, weight < limit {
                let location = segments.location(segment: current.segment, offset: offset)
                let record = segments.record(location)
                let bytes = record.byteCount
                precondition(bytes > 0, "a record of no length at \(offset) of segment \(current.segment)")
                offset &+= bytes
                visited &+= 1
                weight &+= 1
                switch record.kind {
                case .filler: continue
                case .chunk:
                    let hash = ChunkRecord(record.raw).hash
                    batch[count] = Work(location: location, hash: hash, bytes: bytes, isChunk: true)
                case .item, .tombstone:
                    batch[count] = Work(location: location, hash: hash(record.key), bytes: bytes, isChunk: false)
                }
                index.prefetch(batch[count].hash)
                weight &+= bytes / Self.bytesPerUnit
                count &+= 1
            }
            current.offset = offset
            cleaning = current
            visitedRecords &+= visited
            for position in 0..<count {
                let work = batch[position]
                // An earlier one of the batch may have taken this one with it: the chunks of a value leave together.
                let record = segments.record(work.location)
                if record.kind == .filler { continue }
                if work.isChunk {
                    cleanChunk(work, current.purpose, isForced, now)
                } else {
                    cleanItem(work, record, current.purpose, isForced, now)
                }
            }
            if offset >= end {
                cleaning = nil
                segments.rows[Int(current.segment)].isOpen = false
                free(current.segment)
            }
        }
        return weight
    }

    private mutating func cleanItem(
        _ work: Work,
        _ record: Record,
        _ purpose: Cleaning.Purpose,
        _ isForced: Bool,
        _ now: Now
    ) {
        guard let slot = index.slot(work.hash, location: work.location) else {
            preconditionFailure("an item at \(work.location) is not in the index")
        }
        if isDead(record, work.hash, now) {
            reap(slot, work.hash, now)
            return
        }
        let isMain = Slot.isMain(slot.pointee)
        let frequency = Slot.frequency(slot.pointee)
        switch purpose {
        case .expired, .compact:
            if move(work, expiry: record.expiry, to: isMain ? .main : .small, slot, frequency, now) { return }
        case .evict:
            let isRead = frequency >= (isMain ? 1 : configuration.promotionHits)
            if isRead, !isForced, move(work, expiry: record.expiry, to: .main, slot, isMain ? frequency - 1 : 0, now) {
                return
            }
        }
        evict(slot, work.hash)
    }

    /// A chunk stays as long as its item does; where the item goes, all of it goes.
    private mutating func cleanChunk(_ work: Work, _ purpose: Cleaning.Purpose, _ isForced: Bool, _ now: Now) {
        let part = ChunkRecord(segments.record(work.location).raw).index
        let found = index.first(work.hash) { slot in
            let head = segments.record(Slot.location(slot))
            return head.isChunked && part < head.chunkCount && head.chunkLocation(part) == work.location
        }
        guard let slot = found else { preconditionFailure("a chunk at \(work.location) belongs to no item") }
        let head = segments.record(Slot.location(slot.pointee))
        if isDead(head, work.hash, now) {
            reap(slot, work.hash, now)
            return
        }
        let isMain = Slot.isMain(slot.pointee)
        var pool: Slot.Kind = isMain ? .main : .small
        if purpose == .evict {
            // The head's account is settled when the head's own segment is cleaned.
            let isMainSegment = segments.rows[Int(segments.segment(of: work.location))].role == .main
            let isRead = Slot.frequency(slot.pointee) >= (isMain ? 1 : configuration.promotionHits)
            guard !isForced, isRead || isMain && !isMainSegment else {
                evict(slot, work.hash)
                return
            }
            pool = .main
        }
        guard let location = moveBytes(work, expiry: head.expiry, to: pool, now) else {
            evict(slot, work.hash)
            return
        }
        head.setChunkLocation(part, location)
        leave(work)
    }

    /// Moves an item to a pool; false where no room is left.
    private mutating func move(
        _ work: Work,
        expiry: UInt32,
        to pool: Slot.Kind,
        _ slot: SlotPointer,
        _ frequency: UInt8,
        _ now: Now
    ) -> Bool {
        guard let location = moveBytes(work, expiry: expiry, to: pool, now) else { return false }
        slot.pointee = Slot.moved(slot.pointee, kind: pool, frequency: frequency, location: location)
        leave(work)
        return true
    }

    private mutating func moveBytes(_ work: Work, expiry: UInt32, to pool: Slot.Kind, _ now: Now) -> UInt64? {
        guard let location = append(work.bytes, pool: pool, expiry: expiry, now: now) else { return nil }
        memcpy(segments.record(location).raw, segments.record(work.location).raw, work.bytes)
        counters.movedBytes &+= UInt64(work.bytes)
        return location
    }

    /// A record has moved away: what it leaves in the segment is nothing.
    private func leave(_ work: Work) {
        segments.record(work.location).fill(byteCount: work.bytes)
        segments.rows[Int(segments.segment(of: work.location))].live &-= UInt32(truncatingIfNeeded: work.bytes)
    }

    /// Drops an item for want of memory. What leaves the small pool is remembered for a while.
    mutating func evict(_ slot: SlotPointer, _ hash: UInt64) {
        if !Slot.isMain(slot.pointee) { ghosts.insert(hash) }
        countEviction(segments.record(Slot.location(slot.pointee)))
        unlink(slot, hash)
    }

    mutating func countEviction(_ record: Record) {
        counters.evictions &+= 1
        if !record.isFetched { counters.evictedUnfetched &+= 1 }
    }
}
