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
        let row = row(of: item.hash)
        settle(row, now: now)
        row.pointee.newest = max(row.pointee.newest, item.version)
        let isDead = item.version <= row.pointee.flushVersion || item.expiry != 0 && now.unixSeconds >= item.expiry
        if !isDead, item.key.count <= StoreConfiguration.keyBytesMax, item.value.count <= configuration.itemBytesMax,
            mayHold(valueBytes: item.value.count), let value = item.value.whole
        {
            let content = Content(
                hash: item.hash,
                key: item.key,
                first: value,
                flags: item.flags,
                expiry: item.expiry,
                version: item.version,
                unique: item.unique
            )
            if write(content, over: locate(item.hash, item.key), now: now) {
                if item.frequency > 0 { raiseFrequency(item) }
                return true
            }
        }
        if let slot = locate(item.hash, item.key) { unlink(slot, item.hash) }
        return isDead
    }

    /// An item that comes from another node brings along how often it was read there.
    private func raiseFrequency(_ item: ItemView) {
        guard let slot = locate(item.hash, item.key), Slot.frequency(slot.pointee) < item.frequency else { return }
        let kind: Slot.Kind = Slot.isMain(slot.pointee) ? .main : .small
        let frequency = min(item.frequency, Slot.frequencyMax)
        slot.pointee = Slot.moved(
            slot.pointee,
            kind: kind,
            frequency: frequency,
            location: Slot.location(slot.pointee)
        )
    }

    /// Removes a key and leaves a tombstone of that version, also where the key is absent.
    public mutating func bury(hash: UInt64, key: UnsafeRawBufferPointer, version: UInt64, now: Now) {
        releaseLimbo()
        settle(row(of: hash), now: now)
        guard key.count <= StoreConfiguration.keyBytesMax else { return }
        leaveTombstone(hash: hash, key: key, version: version, over: locate(hash, key), now: now)
    }

    /// Removes a key, item or tombstone, without a trace.
    public mutating func remove(hash: UInt64, key: UnsafeRawBufferPointer) {
        releaseLimbo()
        if let slot = locate(hash, key) { unlink(slot, hash) }
    }

    // MARK: Accesses

    // A copy sees no reads. From writes alone it would evict what is hot, and be a cold start at every takeover; so the
    // holder tells it of each change of an item's frequency, in batches.

    @inline(__always)
    mutating func recordAccess(_ hash: UInt64) {
        guard accessCount < Self.accessesMax else {
            counters.accessesDropped &+= 1
            return
        }
        accesses[accessCount] = hash
        accessCount &+= 1
    }

    /// How many accesses wait to be taken.
    public var recordedAccessCount: Int { accessCount }

    /// Hands out the hashes of the items whose frequency has risen since the last call, in order, and forgets them.
    public mutating func takeAccesses(_ body: (UnsafeBufferPointer<UInt64>) -> Void) {
        body(UnsafeBufferPointer(start: accesses, count: accessCount))
        accessCount = 0
    }

    /// Counts a read that the holder of the item has told of. What has the same bits of hash is taken for the item,
    /// which is wrong once in some thousand times and does no harm.
    public mutating func noteAccess(hash: UInt64) {
        precondition(slices.contains(Slice.index(of: hash)), "slice \(Slice.index(of: hash)) is not in \(slices)")
        let found = index.first(hash) { !Slot.isTombstone($0) }
        guard let slot = found, Slot.frequency(slot.pointee) < Slot.frequencyMax else { return }
        slot.pointee &+= 1 &<< Slot.frequencyShift
    }
}
