public import ClusterCore

// What concerns a slice as a whole, and what must be done now and then; all in bounded steps.
extension Shard {
    /// Kills everything in a slice at or below `version`: dead for readers at once, swept by `advance`. A delayed flush
    /// stays as it is; `scheduleFlush` with 0 cancels it.
    public mutating func flush(slice: Int, version: UInt64) {
        flush(state(slice: slice), version: version)
    }

    /// At that time everything in the slice with a version of at most T << 16 dies; 0 cancels, a newer call replaces.
    public mutating func scheduleFlush(slice: Int, atUnixMilliseconds time: UInt64) {
        // Versions end below 2^63, times before that are all that can be due.
        state(slice: slice).pointee.row.flushAt = min(time, (1 << 47) - 1)
    }

    /// Puts a delayed flush into effect if it is due; a holder does so before it stamps a version.
    public mutating func settle(slice: Int, now: Now) {
        settle(state(slice: slice), now: now)
    }

    @inline(__always)
    mutating func settle(_ state: UnsafeMutablePointer<SliceState>, now: Now) {
        let time = state.pointee.row.flushAt
        if time == 0 || now.unixMilliseconds < time { return }
        state.pointee.row.flushAt = 0
        flush(state, version: time << 16)
    }

    private mutating func flush(_ state: UnsafeMutablePointer<SliceState>, version: UInt64) {
        state.pointee.row.flushVersion = max(state.pointee.row.flushVersion, version)
        state.pointee.row.newest = max(state.pointee.row.newest, version)
        if state.pointee.nodes == 0 { return }
        // What the sweep has passed in this slice must be passed again.
        if state == states + sweepIndex { sweepPlace = 0 }
        if !state.pointee.isSweepPending {
            state.pointee.isSweepPending = true
            sweepsPending &+= 1
        }
    }

    /// Forgets all items and tombstones of a slice without a trace, at most `limit` items and buckets a call; true when
    /// the slice is empty. The row keeps its versions.
    public mutating func drop(slice: Int, limit: Int) -> Bool {
        releaseLimbo()
        let state = state(slice: slice)
        var left = limit
        while left > 0, state.pointee.nodes > 0 {
            let place = state.pointee.dropPlace
            while left > 0, let item = state.pointee.bucket(at: place)?.pointee {
                discard(item, in: state)
                left &-= 1
            }
            if left > 0 {
                state.pointee.dropPlace = state.pointee.nextPlace(after: place)
                left &-= 1
            }
        }
        guard state.pointee.nodes == 0 else { return false }
        state.pointee.dropPlace = 0
        if state.pointee.larger == nil { discountTable(state.pointee.shrink()) }
        return true
    }

    /// Housekeeping: drops tombstones that are old enough, frees expired and flushed items, lets tables grow and
    /// shrink. `budget` is how many items and buckets to look at; a call that covers the whole shard ends early.
    public mutating func advance(now: Now, budget: Int) {
        releaseLimbo()
        advanceTombstones(now: now, limit: max(1, budget / 4))
        sweep(now: now, budget: budget)
    }

    private mutating func advanceTombstones(now: Now, limit: Int) {
        var left = limit
        while left > 0, let tombstone = tombstoneCursor ?? tombstones.oldest {
            left &-= 1
            let next = tombstone.pointee.newer
            let age = age(of: tombstone, now: now)
            let state = state(hash: tombstone.pointee.hash)
            if age >= configuration.tombstoneSecondsMax || mayLeave(tombstone, in: state, now: now) {
                dropTombstone(tombstone, now: now)
            } else if age < configuration.tombstoneSeconds {
                // All that follow are younger.
                tombstoneCursor = nil
                return
            }
            tombstoneCursor = next
            if next == nil { return }
        }
    }

    /// Goes around all slices; while a flush has left dead items, only those slices are looked at.
    private mutating func sweep(now: Now, budget: Int) {
        // Passing an empty or skipped slice costs little, so sixteen of them count as one item.
        var left = budget << 4
        var slicesLeft = slices.count
        while left > 0, slicesLeft > 0 {
            let state = states + sweepIndex
            if sweepPlace == 0 {
                settle(state, now: now)
                left &-= 1
            }
            if state.pointee.table != nil, sweepsPending == 0 || state.pointee.isSweepPending {
                if state.pointee.larger != nil {
                    discountTable(state.pointee.migrate(SliceState.migrationStep))
                    left &-= SliceState.migrationStep << 4
                }
                left &-= sweepBucket(of: state, at: sweepPlace, now: now) << 4
                sweepPlace = state.pointee.nextPlace(after: sweepPlace)
                if sweepPlace != 0 { continue }
                if state.pointee.isSparse {
                    left &-= (1 << Int(state.pointee.bits)) << 1
                    discountTable(state.pointee.shrink())
                }
            }
            if state.pointee.isSweepPending {
                state.pointee.isSweepPending = false
                sweepsPending &-= 1
            }
            sweepPlace = 0
            sweepIndex &+= 1
            if sweepIndex == slices.count { sweepIndex = 0 }
            slicesLeft &-= 1
        }
    }

    /// Frees the dead of one bucket; returns how many nodes were looked at, and one for the bucket.
    private mutating func sweepBucket(
        of state: UnsafeMutablePointer<SliceState>,
        at place: UInt64,
        now: Now
    ) -> Int {
        var seen = 1
        var node = state.pointee.bucket(at: place)?.pointee
        while let item = node {
            node = item.pointee.next
            seen &+= 1
            if isDead(item, in: state, now: now) { reap(item, in: state, now: now) }
        }
        return seen
    }
}
