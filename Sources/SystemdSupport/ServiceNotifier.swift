private import CSystemd
private import Glibc

// What systemd is told, and how the journal is written.
//
// `ServiceNotifier` sends states to the socket that the service manager names in NOTIFY_SOCKET (sd_notify(3)).
// `LogOutput` chooses where messages go: to the journal, field by field, if standard error is the journal's own
// stream; else to standard error, one line a message. Both kinds pass `LogWriter`: a bounded queue and one thread,
// because the journal's socket and a full pipe block their caller, and a loop must not wait for its log.

/// Tells the service manager how the service is; does nothing where there is none.
///
/// Sends are small datagrams to a local socket; they block at most while the service manager's queue is full.
package struct ServiceNotifier: Sendable {
    /// Whether a service manager listens.
    package let isActive: Bool
    /// The time within which `watchdog()` must be called again, in microseconds: half of it is a good interval. Nil
    /// where no watchdog is set.
    package let watchdogMicroseconds: UInt64?

    /// Looks at the process's environment (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`).
    package init() {
        isActive = getenv("NOTIFY_SOCKET") != nil
        var interval: UInt64 = 0
        let isWatched = sd_watchdog_enabled(0, &interval) > 0
        watchdogMicroseconds = isActive && isWatched && interval > 0 ? interval : nil
    }

    /// The node takes part: its member and admin ports are open.
    package func ready(status: String) {
        send([("READY", "1"), ("STATUS", status)])
    }

    /// One line for `systemctl status`.
    package func status(_ status: String) {
        send([("STATUS", status)])
    }

    /// The node begins to stop; the first thing to say on SIGTERM.
    package func stopping(status: String) {
        send([("STOPPING", "1"), ("STATUS", status)])
    }

    /// The loops turn.
    package func watchdog() {
        send([("WATCHDOG", "1")])
    }

    /// Start or stop takes longer: the service manager waits at least that long from now. Send it only while
    /// something moves, or a stalled stop is never ended.
    package func extendTimeout(microseconds: UInt64, status: String) {
        send([("EXTEND_TIMEOUT_USEC", String(microseconds)), ("STATUS", status)])
    }

    private func send(_ assignments: [(name: String, value: String)]) {
        guard isActive else { return }
        // A failed send is not worth a word: there is nobody else to tell, and the next one may arrive.
        _ = sd_notify(0, Self.encode(assignments))
    }

    /// One assignment a line. Line breaks in values become spaces, or a status could set other variables.
    static func encode(_ assignments: [(name: String, value: String)]) -> String {
        assignments.map { name, value in
            "\(name)=" + String(value.map { $0.isNewline || $0 == "\0" ? " " : $0 })
        }.joined(separator: "\n")
    }
}
