public import ClusterCore

// What a copy (successor, learner) does: it takes results, unconditionally and in the order of the stream.
extension Shard {
    /// Stores an item, or leaves a tombstone, as the holder has it, whatever was there before. The bytes of `item` must
    /// not lie in this shard.
    ///
    /// False: there is no room, or the item is over a limit of this shard; then the old value of that key is gone. An
    /// item that is already expired or flushed here counts as stored, and the key is gone as well.
    public mutating func put(_ item: ItemView, now: Now) -> Bool {
        if item.isTombstone {
            bury(hash: item.hash, key: item.key, version: item.version, now: now)
            return true
        }
        releaseLimbo()
        let state = state(hash: item.hash)
        settle(state, now: now)
        state.pointee.row.newest = max(state.pointee.row.newest, item.version)
        let old = state.pointee.locate(hash: item.hash, key: item.key)
        let isDead =
            item.version <= state.pointee.row.flushVersion || item.expiry != 0 && now.unixSeconds >= item.expiry
        if !isDead, item.key.count <= StoreConfiguration.keyBytesMax, item.value.count <= configuration.itemBytesMax {
            let content = Content(
                hash: item.hash,
                key: item.key,
                first: item.value,
                flags: item.flags,
                expiry: item.expiry,
                version: item.version,
                unique: item.unique
            )
            if write(content, over: old, in: state, now: now) != nil { return true }
        }
        if let old { discard(old, in: state) }
        return isDead
    }

    /// Removes a key and leaves a tombstone of that version, also where the key is absent.
    public mutating func bury(hash: UInt64, key: UnsafeRawBufferPointer, version: UInt64, now: Now) {
        releaseLimbo()
        let state = state(hash: hash)
        settle(state, now: now)
        guard key.count <= StoreConfiguration.keyBytesMax else { return }
        let old = state.pointee.locate(hash: hash, key: key)
        leaveTombstone(hash: hash, key: key, version: version, over: old, in: state, now: now)
    }

    /// Removes a key, item or tombstone, without a trace.
    public mutating func remove(hash: UInt64, key: UnsafeRawBufferPointer) {
        releaseLimbo()
        let state = state(hash: hash)
        if let item = state.pointee.locate(hash: hash, key: key) { discard(item, in: state) }
    }
}
