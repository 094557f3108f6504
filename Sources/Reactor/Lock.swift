import CLinux
import Glibc

#if !HENGE_TSAN
public import Synchronization
#endif

// The project's one kind of lock.
//
// Problem: every request takes the lock of a shard, for about a microsecond, and hardly ever finds it taken.
//
// Simple idea that costs: a mutex that remembers its sleepers must ask for them when it is given back, with a second
// atomic exchange. Measured uncontended in a process of several threads (lock, count, unlock; x86-64, two cores):
// pthread mutex 11 to 12 ns, one word with a second exchange 10 to 13 ns.
//
// Idea used: a lock is one word, alone on its cache line, 0 for free and 1 for held, and giving it back is a plain
// store: 5 to 9 ns. Nobody is woken. Whoever finds it held spins for a microsecond or two, then gives up its processor
// some times, so that a holder that lost its own gets one, and then sleeps for 50 microseconds at a time, so that even
// a holder of lower priority finishes. That suits a leaf lock held for a microsecond, and nothing that waits while it
// holds it; the lock is not fair.
//
// Thread sanitizer knows pthread mutexes, who holds them and in which order they are taken, and names them in its
// reports. So builds with `-DHENGE_TSAN` put one into the same line.

/// Where one lock lives. Copies are the same lock.
@usableFromInline
struct LockLine {
    @usableFromInline static let bytes = 64

    /// How often a waiter looks before it gives up its processor: a microsecond or two.
    private static let spinsMax = 64
    /// How often it gives up its processor before it sleeps: a holder without a processor gets one by then, unless the
    /// waiter has the higher priority.
    private static let yieldsMax = 64
    private static let sleepNanoseconds = 50_000

    @usableFromInline let address: UnsafeMutableRawPointer

    @usableFromInline
    init(_ address: UnsafeMutableRawPointer) {
        self.address = address
    }

    #if HENGE_TSAN
    private var mutex: UnsafeMutablePointer<pthread_mutex_t> {
        address.assumingMemoryBound(to: pthread_mutex_t.self)
    }

    func initialize() {
        address.bindMemory(to: pthread_mutex_t.self, capacity: 1).initialize(to: pthread_mutex_t())
        let code = pthread_mutex_init(mutex, nil)
        precondition(code == 0, "cannot make a mutex (errno \(code))")
    }

    func destroy() {
        pthread_mutex_destroy(mutex)
    }

    @usableFromInline
    func lock() {
        pthread_mutex_lock(mutex)
    }

    @usableFromInline
    func unlock() {
        pthread_mutex_unlock(mutex)
    }

    @usableFromInline
    func tryLock() -> Bool {
        pthread_mutex_trylock(mutex) == 0
    }
    #else
    @usableFromInline var word: UnsafeMutablePointer<Atomic<UInt32>> {
        address.assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    func initialize() {
        address.bindMemory(to: Atomic<UInt32>.self, capacity: 1).initialize(to: Atomic(0))
    }

    func destroy() {
        precondition(word.pointee.load(ordering: .relaxed) == 0, "a lock went away while it was held")
        word.deinitialize(count: 1)
    }

    @inlinable
    func lock() {
        if !word.pointee.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged { wait() }
    }

    @inlinable
    func unlock() {
        word.pointee.store(0, ordering: .releasing)
    }

    @inlinable
    func tryLock() -> Bool {
        word.pointee.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged
    }

    @usableFromInline
    @inline(never)
    func wait() {
        var attempt = 0
        while true {
            // Reading leaves the line with its holder; only a free lock is worth an exchange.
            if word.pointee.load(ordering: .relaxed) == 0, tryLock() { return }
            attempt += 1
            if attempt < Self.spinsMax {
                clinux_spin_hint()
            } else if attempt < Self.spinsMax + Self.yieldsMax {
                sched_yield()
            } else {
                var pause = timespec(tv_sec: 0, tv_nsec: Self.sleepNanoseconds)
                nanosleep(&pause, nil)
            }
        }
    }
    #endif
}

/// One lock. A leaf: nothing is called, awaited or locked while it is held.
///
/// Not recursive. `lock` and `unlock` come from the same thread. `@unchecked Sendable`: the only stored property is a
/// constant address, and what lies there is read and written by atomic operations (or by pthread's) alone.
public final class Lock: @unchecked Sendable {
    @usableFromInline let line: LockLine

    public init() {
        line = LockLine(.allocate(byteCount: LockLine.bytes, alignment: LockLine.bytes))
        line.initialize()
    }

    deinit {
        line.destroy()
        line.address.deallocate()
    }

    /// Waits until the lock is free and takes it.
    @inlinable
    public func lock() { line.lock() }

    /// Gives the lock back.
    @inlinable
    public func unlock() { line.unlock() }

    /// Takes the lock if it is free; whether it did.
    @inlinable
    public func tryLock() -> Bool { line.tryLock() }
}

/// Many locks side by side, each on a cache line of its own, so that neighbours do not slow each other: one for each
/// shard of a store.
///
/// `@unchecked Sendable`: stored are a constant address and a constant count, and what lies there is read and written
/// by atomic operations (or by pthread's) alone.
public final class LockArray: @unchecked Sendable {
    public let count: Int
    @usableFromInline let base: UnsafeMutableRawPointer

    public init(count: Int) {
        precondition(count > 0, "an array of \(count) locks")
        self.count = count
        base = .allocate(byteCount: count * LockLine.bytes, alignment: LockLine.bytes)
        for index in 0..<count { LockLine(base + index * LockLine.bytes).initialize() }
    }

    deinit {
        for index in 0..<count { LockLine(base + index * LockLine.bytes).destroy() }
        base.deallocate()
    }

    @inlinable
    func line(_ index: Int) -> LockLine {
        precondition(index >= 0 && index < count, "no lock of that number")
        return LockLine(base + index &* LockLine.bytes)
    }

    /// Waits until the lock is free and takes it.
    @inlinable
    public func lock(_ index: Int) { line(index).lock() }

    /// Gives the lock back.
    @inlinable
    public func unlock(_ index: Int) { line(index).unlock() }

    /// Takes the lock if it is free; whether it did.
    @inlinable
    public func tryLock(_ index: Int) -> Bool { line(index).tryLock() }
}
