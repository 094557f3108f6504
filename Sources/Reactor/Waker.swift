import CLinux
import Glibc
import Synchronization

/// Wakes an event loop from any thread.
///
/// A wake-up of a loop that is awake costs one atomic exchange; of a loop that sleeps, one write to an eventfd by the
/// first who calls, however many call. One word holds the state:
///
///     awake ──wake()──▶ notified      the loop will look before it sleeps; no system call
///     awake ──sleeps──▶ asleep ──wake()──▶ notified      this one writes
///     asleep, notified ──the loop wakes up──▶ awake
///
/// The loop goes to `awake` before it looks at mailboxes, so what was posted before `wake()` is seen: either the
/// exchange of the loop comes after that of the waker, or the next sleep does not happen. A write can arrive after the
/// loop has woken for another reason; it costs a turn without work.
public final class Waker: Sendable {
    private enum State {
        static let awake: UInt8 = 0
        static let notified: UInt8 = 1
        static let asleep: UInt8 = 2
    }

    private let state = Atomic<UInt8>(State.awake)
    private let stopped = Atomic<Bool>(false)
    /// The eventfd; open as long as anybody could call `wake`.
    let descriptor: Int32

    init() throws(SystemError) {
        descriptor = clinux_eventfd_create()
        guard descriptor >= 0 else { throw .last(.other("create an event loop's waker")) }
    }

    deinit {
        Glibc.close(descriptor)
    }

    /// Has the loop take a turn soon. To be called after whatever the loop is to see.
    public func wake() {
        if state.exchange(State.notified, ordering: .acquiringAndReleasing) == State.asleep {
            _ = clinux_eventfd_add_one(descriptor)
        }
    }

    /// Has the loop's `run` return after a turn, now and whenever it is called again.
    public func stop() {
        stopped.store(true, ordering: .releasing)
        wake()
    }

    /// Whether `stop` was called.
    public var isStopped: Bool { stopped.load(ordering: .acquiring) }

    /// Called by the loop before it waits; false where it must not, because somebody called `wake`.
    package func prepareToSleep() -> Bool {
        state.compareExchange(expected: State.awake, desired: State.asleep, ordering: .acquiringAndReleasing).exchanged
    }

    /// Called by the loop after it waited, before it looks at anything that others leave for it.
    package func wokeUp() {
        _ = state.exchange(State.awake, ordering: .acquiringAndReleasing)
    }

    /// How many writes nobody has read, and forgets them; the loop itself never reads. For tests.
    package func takeWriteCount() -> UInt64 {
        clinux_eventfd_take(descriptor)
    }
}
