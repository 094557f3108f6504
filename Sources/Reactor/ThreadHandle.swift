import CLinux
import Glibc
import Synchronization

/// A named thread of the process.
package final class ThreadHandle: Sendable {
    private let thread: pthread_t
    private let isJoined = Atomic<Bool>(false)

    /// Starts a thread that runs `body` and ends with it. Of `name`, tools like `top -H` show 15 bytes.
    ///
    /// `body` may carry along what only the new thread will use, an `EventLoop` for instance. Throws where the system
    /// has no room for another thread.
    package init(name: String, body: sending @escaping () -> Void) throws(SystemError) {
        let start = Unmanaged.passRetained(Start(name: name, body: body))
        var thread = pthread_t()
        let code = pthread_create(
            &thread,
            nil,
            { argument in
                // pthread_create passes on the pointer that it was given, which nobody else takes.
                guard let argument else { return nil }
                let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                clinux_name_thread(start.name)
                start.body()
                return nil
            },
            start.toOpaque()
        )
        guard code == 0 else {
            start.release()
            throw SystemError(.startThread(name), code)
        }
        self.thread = thread
    }

    /// Waits until the thread has ended. Once only, and not from the thread itself.
    package func join() {
        precondition(!isJoined.exchange(true, ordering: .relaxed), "a thread is joined once")
        let code = pthread_join(thread, nil)
        precondition(code == 0, "cannot join a thread (errno \(code))")
    }

    /// A thread that nobody joined runs on by itself.
    deinit {
        if !isJoined.load(ordering: .relaxed) { pthread_detach(thread) }
    }

    private final class Start {
        let name: String
        let body: () -> Void

        init(name: String, body: @escaping () -> Void) {
            self.name = name
            self.body = body
        }
    }
}
