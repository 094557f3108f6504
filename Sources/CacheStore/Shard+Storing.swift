import ClusterCore
import Glibc

extension Shard {
    /// What goes into an item; the value in two parts, one of which may lie in the item that is replaced.
    struct Content {
        var hash: UInt64
        var key: UnsafeRawBufferPointer
        var first: UnsafeRawBufferPointer
        var second = UnsafeRawBufferPointer(start: nil, count: 0)
        var flags: UInt32
        var expiry: UInt32
        var version: UInt64
        var unique: UInt64

        var charge: Int { Item.charge(keyBytes: key.count, valueBytes: first.count &+ second.count) }
    }

    /// Stores an item in the place of `old`, the item or tombstone of that key, if there is one. Returns nil, with
    /// `old` still there, where there is no room.
    mutating func write(
        _ content: Content,
        over old: ItemPointer?,
        in state: UnsafeMutablePointer<SliceState>,
        now: Now
    ) -> ItemPointer? {
        let charge = content.charge
        if let old, !old.isTombstone, old.charge == charge {
            old.writeValue(content.first, content.second)
            fill(old, with: content, in: state)
            return old
        }
        if old == nil { grow(state, now: now) }
        guard let item = makeItem(charge: charge, over: old, in: state, now: now) else { return nil }
        let enteredMain = (old == nil || old?.isTombstone == true) && ghosts.remove(content.hash)
        item.initialize(
            to: Item(
                next: nil,
                newer: nil,
                older: nil,
                version: 0,
                unique: 0,
                hash: content.hash,
                expiry: 0,
                flags: 0,
                valueBytes: 0,
                keyBytes: UInt8(truncatingIfNeeded: content.key.count),
                kind: enteredMain ? .main : .small,
                frequency: 0,
                isFetched: false
            )
        )
        if let start = content.key.baseAddress { memcpy(item.keyStart, start, content.key.count) }
        item.writeValue(content.first, content.second)
        if enteredMain { counters.ghostHits &+= 1 }
        if let old, !old.isTombstone {
            // An overwrite is no read: the item keeps its place and its frequency.
            item.pointee.kind = old.pointee.kind
            item.pointee.frequency = old.pointee.frequency
            state.pointee.unlink(old, replacement: item)
            if old.pointee.kind == .main { main.replace(old, by: item) } else { small.replace(old, by: item) }
            state.pointee.row.bytes &+= UInt64(charge)
            state.pointee.row.bytes &-= UInt64(old.charge)
            release(old)
        } else {
            if let old { discard(old, in: state) }
            state.pointee.link(item)
            if enteredMain { main.append(item) } else { small.append(item) }
            state.pointee.row.count &+= 1
            state.pointee.row.bytes &+= UInt64(charge)
        }
        fill(item, with: content, in: state)
        return item
    }

    private mutating func fill(
        _ item: ItemPointer,
        with content: Content,
        in state: UnsafeMutablePointer<SliceState>
    ) {
        item.pointee.flags = content.flags
        item.pointee.expiry = content.expiry
        item.pointee.version = content.version
        item.pointee.unique = content.unique
        item.pointee.isFetched = false
        state.pointee.row.newest = max(state.pointee.row.newest, content.version)
        counters.totalItems &+= 1
    }

    /// A block for a new item or tombstone, its bytes counted; evicts what is in the way, but not `old`, whose bytes
    /// are soon to be free.
    private mutating func makeItem(
        charge: Int,
        over old: ItemPointer?,
        in state: UnsafeMutablePointer<SliceState>,
        now: Now
    ) -> ItemPointer? {
        // An insertion must find a table, however small.
        if state.pointee.table == nil { return nil }
        pinned = old
        defer { pinned = nil }
        guard makeRoom(charge &- (old?.charge ?? 0), now: now), let raw = malloc(Block.capacity(charge: charge)) else {
            return nil
        }
        usedBytes &+= charge
        return raw.bindMemory(to: Item.self, capacity: 1)
    }

    /// Takes the next step of a slice's growing table, or begins to grow one that is full.
    mutating func grow(_ state: UnsafeMutablePointer<SliceState>, now: Now) {
        if state.pointee.larger != nil {
            discountTable(state.pointee.migrate(SliceState.migrationStep))
        } else if state.pointee.table == nil {
            state.pointee.table = makeTable(bits: SliceState.bitsMin, now: now)
            if state.pointee.table != nil { state.pointee.bits = SliceState.bitsMin }
        } else if state.pointee.isFull {
            state.pointee.larger = makeTable(bits: state.pointee.bits + 1, now: now)
        }
    }

    private mutating func makeTable(bits: UInt8, now: Now) -> SliceState.Table? {
        let charge = SliceState.tableCharge(bits: bits)
        guard makeRoom(charge, now: now), let table = SliceState.makeTable(bits: bits) else { return nil }
        usedBytes &+= charge
        permanentBytes &+= charge
        return table
    }

    /// Counts bytes of a table that was freed.
    mutating func discountTable(_ bytes: Int) {
        usedBytes &-= bytes
        permanentBytes &-= bytes
    }

    // MARK: Tombstones

    /// Removes `old`, the item or tombstone of the key, if there is one, and leaves a tombstone. Where there is no room
    /// for one, the slice's floor takes its part.
    mutating func leaveTombstone(
        hash: UInt64,
        key: UnsafeRawBufferPointer,
        version: UInt64,
        over old: ItemPointer?,
        in state: UnsafeMutablePointer<SliceState>,
        now: Now
    ) {
        state.pointee.row.newest = max(state.pointee.row.newest, version)
        if let old { discard(old, in: state) }
        // A flush has said as much already.
        if version <= state.pointee.row.flushVersion(now: now) { return }
        grow(state, now: now)
        let charge = Item.charge(keyBytes: key.count, valueBytes: 0)
        guard let tombstone = makeItem(charge: charge, over: nil, in: state, now: now) else {
            raiseFloor(of: state, to: version)
            return
        }
        tombstone.initialize(
            to: Item(
                next: nil,
                newer: nil,
                older: nil,
                version: version,
                unique: 0,
                hash: hash,
                expiry: monotonicSeconds(now),
                flags: 0,
                valueBytes: 0,
                keyBytes: UInt8(truncatingIfNeeded: key.count),
                kind: .tombstone,
                frequency: 0,
                isFetched: false
            )
        )
        if let start = key.baseAddress { memcpy(tombstone.keyStart, start, key.count) }
        state.pointee.link(tombstone)
        tombstones.append(tombstone)
        while tombstones.bytes > configuration.tombstoneBytesMax, let oldest = tombstones.oldest {
            dropTombstone(oldest, now: now)
        }
    }

    /// Drops a tombstone; one that was still needed raises the floor of its slice.
    mutating func dropTombstone(_ tombstone: ItemPointer, now: Now) {
        let state = state(hash: tombstone.pointee.hash)
        if !mayLeave(tombstone, in: state, now: now) { raiseFloor(of: state, to: tombstone.pointee.version) }
        discard(tombstone, in: state)
    }

    func mayLeave(_ tombstone: ItemPointer, in state: UnsafeMutablePointer<SliceState>, now: Now) -> Bool {
        if tombstone.pointee.version <= state.pointee.row.flushVersion(now: now) { return true }
        return !state.pointee.row.tombstonesHeld && age(of: tombstone, now: now) >= configuration.tombstoneSeconds
    }

    /// Seconds since the burial.
    func age(of tombstone: ItemPointer, now: Now) -> UInt32 {
        let seconds = monotonicSeconds(now)
        return seconds > tombstone.pointee.expiry ? seconds - tombstone.pointee.expiry : 0
    }

    private func monotonicSeconds(_ now: Now) -> UInt32 {
        UInt32(truncatingIfNeeded: now.instant.nanoseconds / 1_000_000_000)
    }

    private mutating func raiseFloor(of state: UnsafeMutablePointer<SliceState>, to version: UInt64) {
        counters.floorRaises &+= 1
        state.pointee.row.floor = max(state.pointee.row.floor, version)
    }
}
