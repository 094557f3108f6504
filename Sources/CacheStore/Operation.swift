/// What a holder is asked to do with one key.
public struct Operation {
    /// The verbs of memcached.
    public enum Kind: UInt8, Sendable {
        case get = 1
        case getAndTouch
        case set
        case add
        case replace
        case append
        case prepend
        case compareAndSet
        case increment
        case decrement
        case touch
        case delete
    }

    public var kind: Kind
    /// The hash of the key; its top bits name the slice.
    public var hash: UInt64
    /// At most `StoreConfiguration.keyBytesMax` bytes.
    public var key: UnsafeRawBufferPointer
    /// The value to store, append or prepend.
    public var value: UnsafeRawBufferPointer
    /// For set, add, replace and compareAndSet.
    public var flags: UInt32
    /// Absolute Unix seconds, 0 never; for set, add, replace, compareAndSet, touch and getAndTouch.
    public var expiry: UInt32
    /// The expiry lay in the past: a store is a delete that answers `stored`, a touch or getAndTouch kills the item.
    public var isExpired: Bool
    /// The CAS unique that compareAndSet demands; 0 matches nothing.
    public var unique: UInt64
    /// By how much increment and decrement change the number.
    public var delta: UInt64

    @inlinable
    public init(
        _ kind: Kind,
        hash: UInt64,
        key: UnsafeRawBufferPointer,
        value: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0),
        flags: UInt32 = 0,
        expiry: UInt32 = 0,
        isExpired: Bool = false,
        unique: UInt64 = 0,
        delta: UInt64 = 0
    ) {
        self.kind = kind
        self.hash = hash
        self.key = key
        self.value = value
        self.flags = flags
        self.expiry = expiry
        self.isExpired = isExpired
        self.unique = unique
        self.delta = delta
    }
}

/// How an operation ended, for the client.
public enum Outcome {
    /// get found the item.
    case hit(ItemView)
    /// get or getAndTouch found nothing.
    case miss
    /// The value is stored (or, with a past expiry, was stored and is gone); its CAS unique.
    case stored(unique: UInt64)
    /// A condition of add, replace, append or prepend failed, or the joined value was too large.
    case notStored
    /// compareAndSet found another unique.
    case exists
    /// compareAndSet, increment, decrement, touch or delete found nothing.
    case notFound
    /// delete removed the item.
    case deleted
    /// touch (nil) or getAndTouch (the item, with its new expiry, or as it was if that lay in the past).
    case touched(ItemView?)
    /// The new number and the item's CAS unique.
    case number(UInt64, unique: UInt64)
    /// The value to increment or decrement is not a number.
    case nonNumeric
    /// The value or key is over its limit. A refused set has removed the old value.
    case tooLarge
    /// The shard cannot hold the item at all. A refused set has removed the old value.
    case outOfMemory
}

/// What successors must be told after an operation.
public enum Change: UInt8, Sendable {
    /// Nothing.
    case none
    /// The item, as `peek` returns it now.
    case stored
    /// The key is gone at the operation's version.
    case removed
}
