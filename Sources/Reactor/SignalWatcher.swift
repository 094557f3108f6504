import CLinux
import Glibc
import Synchronization

/// A signal that an operator or the service manager sends.
package enum ProcessSignal: Hashable, Sendable, CaseIterable {
    /// SIGTERM: stop in an orderly way.
    case terminate
    /// SIGINT: the same, from a terminal.
    case interrupt
    /// SIGHUP: read the settings again.
    case hangUp

    /// The signal's number.
    package var number: Int32 {
        switch self {
        case .terminate: SIGTERM
        case .interrupt: SIGINT
        case .hangUp: SIGHUP
        }
    }
}

/// Turns signals into events of a loop.
///
/// By a handler that writes into a pipe, not by signalfd: that needs the signals blocked in every thread of the
/// process, those that libraries started before us included, and one thread that was missed ends the process.
///
/// One at a time in a process.
package final class SignalWatcher: EventHandler {
    private static let isActive = Atomic<Bool>(false)

    private let loop: EventLoop
    private let received: (ProcessSignal) -> Void
    private let pipe: Int32
    private var registration: Registration?

    /// Starts to watch all of `ProcessSignal`; each calls `received` on the loop's thread. The loop keeps the watcher
    /// until `cancel`. Throws where another one is active (EBUSY) or descriptors have run out.
    package init(on loop: EventLoop, received: @escaping (ProcessSignal) -> Void) throws(SystemError) {
        let operation = SystemError.Operation.other("watch signals")
        guard !Self.isActive.exchange(true, ordering: .acquiringAndReleasing) else {
            throw SystemError(operation, EBUSY)
        }
        let pipe = clinux_signal_pipe()
        guard pipe >= 0 else {
            let error = SystemError.last(operation)
            Self.isActive.store(false, ordering: .releasing)
            throw error
        }
        self.loop = loop
        self.received = received
        self.pipe = pipe
        super.init()
        // Signals to a watcher before this one are not ours.
        takeSignals { _ in }
        do throws(SystemError) {
            registration = try loop.add(pipe, interest: .readable, handler: self)
        } catch {
            Self.isActive.store(false, ordering: .releasing)
            throw error
        }
        for signal in ProcessSignal.allCases {
            let result = clinux_signal_watch(signal.number)
            precondition(result == 0, "cannot watch signal \(signal.number) (errno \(errno))")
        }
    }

    /// Has the process ignore SIGPIPE: a write to a connection that the peer closed is an error, not the end. For the
    /// whole process and for good; libraries that write to sockets need it, `Socket.send` does not.
    package static func ignoreBrokenPipes() {
        let result = clinux_signal_ignore_pipe()
        precondition(result == 0, "cannot ignore SIGPIPE (errno \(errno))")
    }

    /// Stops watching and has the signals do what they did before.
    package func cancel() {
        guard let registration else { return }
        self.registration = nil
        for signal in ProcessSignal.allCases {
            let result = clinux_signal_restore(signal.number)
            precondition(result == 0, "cannot restore signal \(signal.number) (errno \(errno))")
        }
        loop.remove(registration)
        Self.isActive.store(false, ordering: .releasing)
    }

    package override func ready(_ events: Ready) {
        takeSignals { if registration != nil { received($0) } }
    }

    /// Reads the pipe until it is empty.
    private func takeSignals(_ body: (ProcessSignal) -> Void) {
        while true {
            var number: UInt8 = 0
            let count = read(pipe, &number, 1)
            if count < 0 && errno == EINTR { continue }
            guard count == 1 else { return }
            if let signal = ProcessSignal.allCases.first(where: { $0.number == Int32(number) }) { body(signal) }
        }
    }
}
