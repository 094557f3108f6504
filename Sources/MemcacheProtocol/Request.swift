/// One request of a text client: numbers, and offsets into the bytes that were given to the parser.
///
/// Holds nothing that is counted or allocated. The offsets are good for as long as those bytes are.
public struct Request: Sendable {
    /// What is asked. Unknown commands never become a request.
    public enum Command: UInt8, Sendable, CaseIterable {
        case get
        case gets
        /// Get and touch.
        case gat
        case gats
        case set
        case add
        case replace
        case append
        case prepend
        case cas
        case increment
        case decrement
        case touch
        case delete
        case flushAll
        case version
        case verbosity
        /// Its arguments are read by `StatsQuery`.
        case stats
        case quit
        /// Its argument is read by `ShutdownMode`.
        case shutdown
        /// The megabytes are in `delta`.
        case cacheMemoryLimit
        /// Its arguments are read by `CrawlerQuery`.
        case crawler
        case refreshCertificates
    }

    public var command: Command
    /// `noreply`: neither success nor error is answered. Never true for get, gets, gat, gats, version and stats.
    public var quiet = false
    /// Where the key starts; of several, the first.
    public var keyOffset = 0
    /// 1 to 250, or 0 for a command without key.
    public var keyLength = 0
    /// The part of the line that holds all keys of get, gets, gat and gats; `KeyIterator` walks it.
    public var keysOffset = 0
    public var keysLength = 0
    /// How many keys; 0 for a command without key. Each is valid.
    public var keyCount = 0
    /// The client flags of a storage command.
    public var flags: UInt32 = 0
    /// As the protocol gave it, sign-extended from 32 bits; `Exptime` reads it. flush_all: its delay, 0 if absent.
    public var exptime: Int64 = 0
    /// The CAS unique of cas; 0 matches no item.
    public var unique: UInt64 = 0
    /// The number of incr and decr, the level of verbosity, the megabytes of cache_memlimit.
    public var delta: UInt64 = 0
    /// Where the value of a storage command starts.
    public var valueOffset = 0
    /// How long it is, in bytes, without its line end. Of a store refused for its size: what was declared.
    public var valueLength = 0
    /// The rest of the line of stats, lru_crawler and shutdown, trailing spaces cut off.
    public var argumentsOffset = 0
    public var argumentsLength = 0

    @inlinable
    init(_ command: Command) {
        self.command = command
    }

    /// The first or only key. `bytes` are those that the parser was given, as with the following.
    @inlinable
    public func key(in bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[keyOffset..<(keyOffset &+ keyLength)])
    }

    /// All keys of get, gets, gat and gats, in order.
    @inlinable
    public func keys(in bytes: UnsafeRawBufferPointer) -> KeyIterator {
        KeyIterator(UnsafeRawBufferPointer(rebasing: bytes[keysOffset..<(keysOffset &+ keysLength)]))
    }

    /// Where the part of the line that holds all keys ends, as an offset.
    @inlinable
    public var keysEnd: Int { keysOffset &+ keysLength }

    /// The value of a storage command.
    @inlinable
    public func value(in bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[valueOffset..<(valueOffset &+ valueLength)])
    }

    /// The arguments of stats, lru_crawler and shutdown.
    public func arguments(in bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[argumentsOffset..<(argumentsOffset &+ argumentsLength)])
    }
}

/// Walks the keys of a multi-get, in the order of the request.
public struct KeyIterator: IteratorProtocol, Sequence {
    @usableFromInline var rest: LineCursor

    /// `line` is the part that holds the keys and nothing else; the keys point into it.
    @inlinable
    public init(_ line: UnsafeRawBufferPointer) {
        rest = LineCursor(line, from: 0, to: line.count)
    }

    @inlinable
    public mutating func next() -> UnsafeRawBufferPointer? {
        guard let token = rest.next() else { return nil }
        return rest.bytes(of: token)
    }
}
