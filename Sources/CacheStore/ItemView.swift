/// A borrowed look at one item: its bytes lie in the shard, or in a message, and are valid until the next mutation of
/// whoever owns them. Reads (`find`, `peek`, `scan`) are no mutations.
public struct ItemView {
    public var key: UnsafeRawBufferPointer
    /// Empty for a tombstone.
    public var value: UnsafeRawBufferPointer
    /// The client's flags, opaque.
    public var flags: UInt32
    /// Absolute Unix seconds from which the item is dead; 0 is never.
    public var expiry: UInt32
    /// The stamp of the last change of the item.
    public var version: UInt64
    /// The CAS unique: the version of the last change of the content, which a touch keeps.
    public var unique: UInt64
    /// The hash of the key.
    public var hash: UInt64
    /// Says that the key was deleted at `version`.
    public var isTombstone: Bool

    @inlinable
    public init(
        key: UnsafeRawBufferPointer,
        value: UnsafeRawBufferPointer,
        flags: UInt32 = 0,
        expiry: UInt32 = 0,
        version: UInt64,
        unique: UInt64,
        hash: UInt64,
        isTombstone: Bool = false
    ) {
        self.key = key
        self.value = value
        self.flags = flags
        self.expiry = expiry
        self.version = version
        self.unique = unique
        self.hash = hash
        self.isTombstone = isTombstone
    }
}
