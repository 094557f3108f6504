/// A key of a command that waits for its answer. The keys of a multi-get follow each other.
struct Pending {
    enum Kind: UInt8 {
        case get
        case set
    }

    var key: UInt64
    /// When the command was due (open loop) or written (closed loop), in nanoseconds.
    var stamp: UInt64
    /// In the first of a command: how many keys it has.
    var count: UInt32
    var kind: Kind
}

/// One connection's state, in raw memory of its worker.
struct Connection {
    let descriptor: Int32
    var parser: ReplyParser
    /// A ring of `mask + 1` entries: keys whose answers are still to come.
    let pending: UnsafeMutablePointer<Pending>
    let mask: Int
    var head = 0
    var pendingCount = 0
    /// How many keys of the command at the head have been passed by its answer.
    var passed = 0
    /// Commands in flight.
    var inFlight = 0
    /// Keys that missed and are to be set: room for a batch.
    let missed: UnsafeMutablePointer<UInt64>
    var missedCount = 0
    /// What the kernel did not take, and how much of it has been sent since.
    var unsent: UnsafeMutableRawPointer?
    var unsentBytes = 0
    var unsentOffset = 0
    var unsentCapacity = 0

    init(descriptor: Int32, keysMax: Int) {
        var capacity = 16
        while capacity < keysMax { capacity *= 2 }
        self.descriptor = descriptor
        parser = ReplyParser()
        pending = .allocate(capacity: capacity)
        mask = capacity - 1
        missed = .allocate(capacity: capacity)
    }

    mutating func deallocate() {
        parser.deallocate()
        pending.deallocate()
        missed.deallocate()
        unsent?.deallocate()
    }

    @inline(__always)
    mutating func push(_ entry: Pending) {
        pending.advanced(by: (head &+ pendingCount) & mask).initialize(to: entry)
        pendingCount &+= 1
    }

    @inline(__always)
    func entry(_ index: Int) -> UnsafeMutablePointer<Pending> {
        pending.advanced(by: (head &+ index) & mask)
    }

    /// Whether the ring has room for another command of that many keys.
    @inline(__always)
    func hasRoom(keys: Int) -> Bool { pendingCount &+ keys <= mask }
}
