extension Shard {
    /// Says that the index entry of a hash is wanted soon. May do nothing.
    public func prefetchIndex(hash: UInt64) {}

    /// Says that the item of a hash, whose index entry is near by now, is wanted soon. May do nothing.
    public func prefetchItem(hash: UInt64) {}
}
