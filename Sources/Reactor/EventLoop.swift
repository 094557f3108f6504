import CLinux
public import ClusterCore
import Glibc

// One small event loop a thread, on epoll.
//
// Problem: a cache request costs a few microseconds, nearly all of them in the kernel. What a general-purpose
// networking library adds on top (pipelines, futures, promises, an allocation an event) is as much again.
//
// Simple idea that fails: call back on each event and write each reply at once. A hundred pipelined requests make a
// hundred writes, and work that belongs together (replies to one client, frames to one node) leaves in pieces.
//
// Idea used: a loop of turns. One `epoll_wait` brings a batch of events; handlers read and put their replies into
// buffers; then `turn` is called once, flushes what gathered, looks at mailboxes and timers, and returns the next
// deadline. There is one timer, the deadline: the machines above fold theirs with `min`.
//
// An event names its slot and the slot's generation (as in SwiftNIO's Selector): a handler may remove another one
// whose event is already in the batch, and the descriptor's number may be in use again at once; the old event then
// carries an old generation and is dropped.
//
// Waking from other threads goes through `Waker`. In its steady state the loop allocates nothing and counts no
// references: a handler that is removed while events are dispatched, perhaps by itself, lives on until that is over.

/// A descriptor's place in a loop. Only the loop that gave it out understands it.
@frozen
public struct Registration: Hashable, Sendable {
    /// The slot in the low half, the slot's generation in the high half.
    @usableFromInline let token: UInt64

    init(slot: Int, generation: UInt32) {
        self.token = UInt64(generation) << 32 | UInt64(UInt32(slot))
    }

    init(token: UInt64) {
        self.token = token
    }

    var slot: Int { Int(token & 0xffff_ffff) }
    var generation: UInt32 { UInt32(token >> 32) }
}

/// Waits for descriptors, deadlines and wake-ups, and runs handlers on one thread.
///
/// Used from its own thread only; `waker` is what other threads hold. May be made on one thread and sent to another.
public final class EventLoop {
    /// Events taken from the kernel at once; more wait for the next turn, so that `turn` is not starved.
    public static let eventsPerTurnMax = 256
    /// Default of how many descriptors a loop watches at most.
    public static let registrationsMaxDefault = 1 << 20

    private struct Slot {
        /// Retained by the loop while it is set.
        var handler: Unmanaged<EventHandler>?
        var descriptor: Int32
        var interest: Interest
        var generation: UInt32
        /// The next free slot while this one is free, -1 at the end of the list.
        var nextFree: Int
    }

    private struct Table {
        var slots: UnsafeMutablePointer<Slot>
        var capacity = 64
        var count = 0
        var firstFree = -1
    }

    /// The waker's token: no slot has this number.
    private static let wakerToken = UInt64.max

    /// Wakes and stops the loop from any thread.
    public let waker: Waker
    /// The clocks as this turn read them.
    public private(set) var now: Now
    /// Events that were dropped because their registration had been removed in the same turn.
    package private(set) var staleEvents: UInt64 = 0
    /// How many descriptors are watched.
    package private(set) var registrationCount = 0

    private let epoll: Int32
    private let registrationsMax: Int
    private let events: UnsafeMutablePointer<clinux_event>
    /// In memory of its own: a stored property of a class is checked for overlapping accesses each time.
    private let table: UnsafeMutablePointer<Table>
    private var isRunning = false
    private var isDispatching = false
    /// Handlers that were removed while events are dispatched.
    private var departed: [EventHandler] = []

    /// Beyond `registrationsMax` watched descriptors `add` throws. Throws where descriptors or memory are short.
    public init(registrationsMax: Int = EventLoop.registrationsMaxDefault) throws(SystemError) {
        let waker = try Waker()
        let epoll = clinux_epoll_create()
        guard epoll >= 0 else { throw .last(.other("create an event loop")) }
        // Edge-triggered: each write to the eventfd is an event of its own, and nobody has to read it.
        guard clinux_epoll_add_edge(epoll, waker.descriptor, Self.wakerToken) == 0 else {
            let error = SystemError.last(.other("watch an event loop's waker"))
            Glibc.close(epoll)
            throw error
        }
        self.waker = waker
        self.epoll = epoll
        self.registrationsMax = registrationsMax
        self.events = .allocate(capacity: Self.eventsPerTurnMax)
        self.table = .allocate(capacity: 1)
        self.table.initialize(to: Table(slots: .allocate(capacity: 64)))
        self.now = SystemClock.read()
    }

    deinit {
        for index in 0..<slotCount { slots[index].handler?.release() }
        slots.deallocate()
        table.deallocate()
        events.deallocate()
        Glibc.close(epoll)
    }

    private var slots: UnsafeMutablePointer<Slot> {
        get { table.pointee.slots }
        set { table.pointee.slots = newValue }
    }

    private var slotCapacity: Int {
        get { table.pointee.capacity }
        set { table.pointee.capacity = newValue }
    }

    private var slotCount: Int {
        get { table.pointee.count }
        set { table.pointee.count = newValue }
    }

    private var firstFree: Int {
        get { table.pointee.firstFree }
        set { table.pointee.firstFree = newValue }
    }

    /// Runs until `stop`. The first turn comes at once; each later one when there were events, a wake-up, or the
    /// deadline that the turn before returned has passed (by less than two milliseconds on an idle machine; a deadline
    /// in the past means "again at once").
    public func run(turn: (Now) -> Instant) {
        precondition(!isRunning, "an event loop runs once at a time, not from its own handlers")
        isRunning = true
        defer { isRunning = false }
        var deadline = Instant(nanoseconds: 0)
        while true {
            dispatch(wait(until: deadline))
            deadline = turn(now)
            if waker.isStopped { return }
        }
    }

    /// Watches a descriptor, level-triggered, and keeps `handler` until the registration is removed: a handler that
    /// keeps the loop must be removed, or neither goes away.
    ///
    /// Throws where the loop or the kernel has no room for another one, or the descriptor cannot be watched (a file).
    public func add(
        _ descriptor: Int32,
        interest: Interest,
        handler: EventHandler
    ) throws(SystemError) -> Registration {
        guard registrationCount < registrationsMax else {
            throw SystemError(.other("watch more than \(registrationsMax) descriptors in one event loop"), EMFILE)
        }
        let index = freeSlot()
        let registration = Registration(slot: index, generation: slots[index].generation)
        guard clinux_epoll_add(epoll, descriptor, interest.rawValue, registration.token) == 0 else {
            throw .last(.other("watch descriptor \(descriptor)"))
        }
        firstFree = slots[index].nextFree
        slots[index].handler = .passRetained(handler)
        slots[index].descriptor = descriptor
        slots[index].interest = interest
        registrationCount += 1
        return registration
    }

    /// Changes what the handler hears of; free where nothing changes. The registration must not have been removed.
    public func change(_ registration: Registration, interest: Interest) {
        let index = registration.slot
        precondition(isCurrent(registration), "changed a registration that was removed")
        if slots[index].interest == interest { return }
        slots[index].interest = interest
        let descriptor = slots[index].descriptor
        let result = clinux_epoll_change(epoll, descriptor, interest.rawValue, registration.token)
        precondition(result == 0, "descriptor \(descriptor) was closed while watched (errno \(errno))")
    }

    /// Forgets a descriptor and its handler, which hears nothing more, not even of events already taken from the
    /// kernel. To be called before the descriptor is closed. Removing twice does nothing.
    public func remove(_ registration: Registration) {
        guard isCurrent(registration) else { return }
        let index = registration.slot
        let descriptor = slots[index].descriptor
        let result = clinux_epoll_remove(epoll, descriptor)
        precondition(result == 0, "descriptor \(descriptor) was closed before it was removed (errno \(errno))")
        // The handler's end may call back into the loop, so it goes when the slot is in order again.
        let handler = slots[index].handler.take()?.takeRetainedValue()
        slots[index].generation &+= 1
        slots[index].nextFree = firstFree
        firstFree = index
        registrationCount -= 1
        if isDispatching, let handler { departed.append(handler) }
        withExtendedLifetime(handler) {}
    }

    /// Reads the clocks again, for a handler that took long.
    @discardableResult
    public func readClock() -> Now {
        now = SystemClock.read()
        return now
    }

    /// The monotonic clock as it is now, for whoever must know how long the turn has taken.
    public func readMonotonicClock() -> Instant { SystemClock.monotonic() }

    /// Has `run` return after the current turn, for good. Other threads call it on `waker`.
    public func stop() {
        waker.stop()
    }

    /// Waits for events until the deadline and reads the clocks; the number of events.
    private func wait(until deadline: Instant) -> Int {
        // A waker that was called since the last turn began leaves a note instead of a write: no sleep then.
        var timeout = milliseconds(until: deadline)
        if timeout != 0, !waker.prepareToSleep() { timeout = 0 }
        let count = clinux_epoll_wait(epoll, events, Int32(Self.eventsPerTurnMax), timeout)
        precondition(count >= 0 || errno == EINTR, "epoll_wait failed with errno \(errno)")
        waker.wokeUp()
        now = SystemClock.read()
        return max(Int(count), 0)
    }

    /// What `epoll_wait` takes: -1 for ever, 0 not at all. Rounded up, so that a deadline has passed when it returns.
    private func milliseconds(until deadline: Instant) -> Int32 {
        if deadline == .distantFuture { return -1 }
        if deadline <= now.instant { return 0 }
        // Handlers and the turn took time since `now` was read.
        let left = deadline.nanoseconds(since: SystemClock.monotonic())
        return Int32(clamping: left / 1_000_000 + (left % 1_000_000 == 0 ? 0 : 1))
    }

    private func dispatch(_ count: Int) {
        isDispatching = true
        for position in 0..<count {
            let token = events[position].token
            if token == Self.wakerToken { continue }
            let registration = Registration(token: token)
            guard isCurrent(registration), let handler = slots[registration.slot].handler else {
                staleEvents &+= 1
                continue
            }
            let ready = Ready(rawValue: events[position].events)
            // The loop's own reference, or the one in `departed`, keeps it alive.
            handler._withUnsafeGuaranteedRef { $0.ready(ready) }
        }
        isDispatching = false
        if !departed.isEmpty { departed.removeAll(keepingCapacity: true) }
    }

    private func isCurrent(_ registration: Registration) -> Bool {
        let index = registration.slot
        precondition(index < slotCount, "slot \(index) belongs to another event loop")
        return slots[index].generation == registration.generation && slots[index].handler != nil
    }

    /// The first free slot, which stays free until it is taken off the list.
    private func freeSlot() -> Int {
        if firstFree >= 0 { return firstFree }
        if slotCount == slotCapacity {
            let replacement = UnsafeMutablePointer<Slot>.allocate(capacity: slotCapacity * 2)
            replacement.moveInitialize(from: slots, count: slotCount)
            slots.deallocate()
            slots = replacement
            slotCapacity *= 2
        }
        let slot = Slot(handler: nil, descriptor: -1, interest: [], generation: 0, nextFree: -1)
        (slots + slotCount).initialize(to: slot)
        firstFree = slotCount
        slotCount += 1
        return firstFree
    }
}
