import ClusterCore
import Glibc

extension Shard {
    /// What goes into an item; the value in two parts. Neither may lie in this shard.
    struct Content {
        var hash: UInt64
        var key: UnsafeRawBufferPointer
        var first: UnsafeRawBufferPointer
        var second = UnsafeRawBufferPointer(start: nil, count: 0)
        var flags: UInt32
        var expiry: UInt32
        var version: UInt64
        var unique: UInt64

        var valueBytes: Int { first.count &+ second.count }

        var draft: RecordDraft {
            RecordDraft(
                key: key,
                first: first,
                second: second,
                flags: flags,
                expiry: expiry,
                version: version,
                unique: unique
            )
        }
    }

    /// Stores an item in the place of what has its key; `old` is the slot of that, item or tombstone. False, and the
    /// old item may be gone, where there is no room. Items may be evicted and moved: no slot is valid after it.
    mutating func write(_ content: Content, over old: SlotPointer?, now: Now) -> Bool {
        let row = row(of: content.hash)
        row.pointee.newest = max(row.pointee.newest, content.version)
        let draft = content.draft
        let bytes = draft.byteCount
        guard bytes <= layout.recordBytesMax else { return writeChunks(content, over: old, now: now) }
        if let old, rewrite(old, draft, bytes, content.hash, now) {
            counters.totalItems &+= 1
            return true
        }
        return place(draft, hash: content.hash, over: old, now: now)
    }

    /// Overwrites an item where it lies, if the new one fits and dies as the old one does.
    private mutating func rewrite(
        _ slot: SlotPointer,
        _ draft: RecordDraft,
        _ bytes: Int,
        _ hash: UInt64,
        _ now: Now
    ) -> Bool {
        let record = segments.record(Slot.location(slot.pointee))
        guard record.kind == .item, !record.isChunked, (record.expiry == 0) == (draft.expiry == 0) else { return false }
        let oldBytes = record.byteCount
        guard bytes <= oldBytes else { return false }
        record.write(draft, unixSeconds: now.unixSeconds)
        if bytes < oldBytes {
            Record(record.raw + bytes).fill(byteCount: oldBytes &- bytes)
            let segment = segments.segment(of: Slot.location(slot.pointee))
            segments.rows[Int(segment)].live &-= UInt32(truncatingIfNeeded: oldBytes &- bytes)
            replace(hash, bytes, for: oldBytes)
        }
        return true
    }

    /// Appends an item in one record, and lets the index point to it.
    private mutating func place(_ draft: RecordDraft, hash: UInt64, over old: SlotPointer?, now: Now) -> Bool {
        let bytes = draft.byteCount
        var pool = Slot.Kind.small
        if let old, !Slot.isTombstone(old.pointee) {
            // An overwrite is no read: the item keeps its pool and its frequency.
            if Slot.isMain(old.pointee) { pool = .main }
        } else if counters.evictions > 0, ghosts.remove(hash) {
            pool = .main
            counters.ghostHits &+= 1
        }
        if old == nil { makeRoomInIndex(hash, now: now) }
        guard makeRoom(bytes, pool: pool, expiry: draft.expiry, now: now) else { return false }
        // What was there may have moved, or left, meanwhile.
        let slot = locate(hash, draft.key)
        if slot == nil, index.isFull(hash) { return false }
        guard let location = append(bytes, pool: pool, expiry: draft.expiry, now: now) else { return false }
        segments.record(location).write(draft, unixSeconds: now.unixSeconds)
        counters.totalItems &+= 1
        guard let slot, !Slot.isTombstone(slot.pointee) else {
            if let slot { unlink(slot, hash) }
            link(hash, pool, location, bytes)
            return true
        }
        let before = slot.pointee
        replace(hash, bytes, for: self.bytes(of: segments.record(Slot.location(before))))
        slot.pointee = Slot.moved(before, kind: pool, frequency: Slot.frequency(before), location: location)
        release(Slot.location(before), withChunks: true)
        return true
    }

    /// Puts a new item into the index and all sums.
    private mutating func link(_ hash: UInt64, _ pool: Slot.Kind, _ location: UInt64, _ bytes: Int) {
        index.insert(hash, kind: pool, frequency: 0, location: location)
        itemCount &+= 1
        itemBytes &+= bytes
        let row = row(of: hash)
        row.pointee.count &+= 1
        row.pointee.bytes &+= UInt64(bytes)
    }

    /// An item takes other bytes than before.
    private mutating func replace(_ hash: UInt64, _ bytes: Int, for oldBytes: Int) {
        itemBytes &+= bytes &- oldBytes
        let row = row(of: hash)
        row.pointee.bytes = row.pointee.bytes &+ UInt64(bytes) &- UInt64(oldBytes)
    }

    // MARK: Large values

    /// Stores a value in chunks and a head. The old item leaves first: there need not be room for both.
    private mutating func writeChunks(_ content: Content, over old: SlotPointer?, now: Now) -> Bool {
        let chunkCount = (content.valueBytes + layout.chunkBytes - 1) / layout.chunkBytes
        let tableBytes = Record.tableHeaderBytes + chunkCount * Record.tableEntryBytes
        let headBytes = Record.headerBytes + 12 + content.key.count + tableBytes
        // Four chunks fill a segment; the head, and what is left of an open segment, may take another two.
        let segmentsWanted = (chunkCount + 3) / 4 + 2
        guard headBytes <= layout.segmentBytes, segmentsWanted <= segmentsForItems else { return false }
        var wasMain = false
        var hasReplaced = false
        if let old {
            if !Slot.isTombstone(old.pointee) {
                wasMain = Slot.isMain(old.pointee)
                hasReplaced = true
                unlink(old, content.hash)
            }
        } else if counters.evictions > 0, ghosts.remove(content.hash) {
            wasMain = true
            counters.ghostHits &+= 1
        }
        let pool: Slot.Kind = wasMain ? .main : .small
        makeRoomInIndex(content.hash, now: now)
        guard makeFree(segmentsWanted, now: now) else {
            if hasReplaced { counters.evictions &+= 1 }
            return false
        }
        return withUnsafeTemporaryAllocation(byteCount: tableBytes, alignment: 8) { table in
            table.storeBytes(of: UInt32(truncatingIfNeeded: content.valueBytes), as: UInt32.self)
            var bytes = 0
            for chunk in 0..<chunkCount {
                let start = chunk * layout.chunkBytes
                let count = min(layout.chunkBytes, content.valueBytes - start)
                let chunkBytes = Record.round(ChunkRecord.headerBytes + count)
                guard
                    let location = append(chunkBytes, pool: pool, expiry: content.expiry, now: now)
                else { preconditionFailure("no room for chunk \(chunk) of \(chunkCount), though it was made") }
                let record = ChunkRecord(segments.record(location).raw)
                record.write(partBytes: count, index: chunk, hash: content.hash)
                Self.copy(content, from: start, count: count, to: record.raw + ChunkRecord.headerBytes)
                table.storeBytes(
                    of: location,
                    toByteOffset: Record.tableHeaderBytes + chunk * Record.tableEntryBytes,
                    as: UInt64.self
                )
                bytes += chunkBytes
            }
            var draft = content.draft
            draft.first = UnsafeRawBufferPointer(table)
            draft.second = UnsafeRawBufferPointer(start: nil, count: 0)
            draft.isChunked = true
            let head = draft.byteCount
            guard let location = append(head, pool: pool, expiry: content.expiry, now: now) else {
                preconditionFailure("no room for the head of \(chunkCount) chunks, though it was made")
            }
            segments.record(location).write(draft, unixSeconds: now.unixSeconds)
            // A tombstone of the key is still there.
            if let slot = locate(content.hash, content.key) { unlink(slot, content.hash) }
            guard !index.isFull(content.hash) else {
                release(location, withChunks: true)
                return false
            }
            counters.totalItems &+= 1
            link(content.hash, pool, location, head + bytes)
            return true
        }
    }

    /// Copies a part of a value that is in two parts.
    private static func copy(_ content: Content, from start: Int, count: Int, to target: UnsafeMutableRawPointer) {
        let first = max(0, min(count, content.first.count - start))
        if first > 0, let base = content.first.baseAddress { memcpy(target, base + start, first) }
        if count > first, let base = content.second.baseAddress {
            memcpy(target + first, base + max(0, start - content.first.count), count - first)
        }
    }

    // MARK: Touching

    /// Gives an item another expiry and version; its CAS unique stays. The first time the unique needs a place of its
    /// own, and the record is written anew. False where there is no room.
    mutating func touch(_ slot: SlotPointer, _ hash: UInt64, expiry: UInt32, version: UInt64, now: Now) -> Bool {
        let record = segments.record(Slot.location(slot.pointee))
        let row = row(of: hash)
        row.pointee.newest = max(row.pointee.newest, version)
        // An item that expires must not lie among those that never do, whose segments nobody looks at.
        if record.hasUnique, (record.expiry == 0) == (expiry == 0) {
            record.version = version
            record.expiry = expiry
            return true
        }
        // Making room may move the item, and drop it: so its key is copied, and it is looked for again.
        return withUnsafeTemporaryAllocation(byteCount: max(1, record.keyBytes), alignment: 1) { copy in
            if let start = copy.baseAddress { memcpy(start, record.keyStart, record.keyBytes) }
            let key = UnsafeRawBufferPointer(rebasing: copy[..<record.keyBytes])
            let pool: Slot.Kind = Slot.isMain(slot.pointee) ? .main : .small
            let bytesMax = record.byteCount + 8
            guard makeRoom(bytesMax, pool: pool, expiry: expiry, now: now), let slot = locate(hash, key) else {
                return false
            }
            let old = segments.record(Slot.location(slot.pointee))
            let draft = RecordDraft(
                key: key,
                first: old.body,
                flags: old.flags,
                expiry: expiry,
                version: version,
                unique: old.unique,
                isChunked: old.isChunked
            )
            let bytes = draft.byteCount
            guard let location = append(bytes, pool: pool, expiry: expiry, now: now) else { return false }
            let fresh = segments.record(location)
            fresh.write(draft, unixSeconds: now.unixSeconds)
            if old.isFetched { fresh.noteAccess(now.unixSeconds) }
            replace(hash, bytes, for: old.byteCount)
            let before = slot.pointee
            slot.pointee = Slot.moved(before, kind: pool, frequency: Slot.frequency(before), location: location)
            // The chunks stay where they are.
            release(Slot.location(before), withChunks: false)
            return true
        }
    }
}
