import Glibc
import Logging
import Testing

@testable import SystemdSupport

/// A datagram socket as the service manager has it; closed and removed at the end.
private final class FakeManager {
    let path: String
    private let descriptor: Int32

    init(path: String) throws {
        self.path = path
        unlink(path)
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let bound = withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        try #require(bound == 0)
    }

    deinit {
        close(descriptor)
        unlink(path)
    }

    /// The next datagram; nil where none waits.
    func receive() -> String? {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        return count < 0 ? nil : String(decoding: buffer[..<count], as: UTF8.self)
    }
}

/// The environment belongs to the whole process: one test at a time.
@Suite(.serialized) struct ServiceTests {
    @Test func `states arrive at the service manager`() throws {
        let manager = try FakeManager(path: "/tmp/henge-notify-\(getpid())")
        setenv("NOTIFY_SOCKET", manager.path, 1)
        setenv("WATCHDOG_USEC", "20000000", 1)
        setenv("WATCHDOG_PID", String(getpid()), 1)
        defer { for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] { unsetenv(name) } }
        let notifier = ServiceNotifier()
        #expect(notifier.isActive)
        #expect(notifier.watchdogMicroseconds == 20_000_000)
        notifier.ready(status: "3/3 nodes, lease ok")
        #expect(manager.receive() == "READY=1\nSTATUS=3/3 nodes, lease ok")
        notifier.status("draining 62 %\nREADY=1")
        #expect(manager.receive() == "STATUS=draining 62 % READY=1")
        notifier.watchdog()
        #expect(manager.receive() == "WATCHDOG=1")
        notifier.extendTimeout(microseconds: 30_000_000, status: "draining")
        #expect(manager.receive() == "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=draining")
        notifier.stopping(status: "handing over")
        #expect(manager.receive() == "STOPPING=1\nSTATUS=handing over")
        #expect(manager.receive() == nil)
    }

    @Test func `without a service manager nothing happens`() {
        unsetenv("NOTIFY_SOCKET")
        let notifier = ServiceNotifier()
        #expect(!notifier.isActive && notifier.watchdogMicroseconds == nil)
        notifier.ready(status: "nobody hears")
    }

    @Test func `a watchdog for another process is not ours`() {
        setenv("NOTIFY_SOCKET", "/nowhere", 1)
        setenv("WATCHDOG_USEC", "20000000", 1)
        setenv("WATCHDOG_PID", "1", 1)
        defer { for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] { unsetenv(name) } }
        #expect(ServiceNotifier().watchdogMicroseconds == nil)
    }
}

@Suite struct OutputTests {
    @Test func `only the journal's own stream counts as the journal`() throws {
        var status = stat()
        try #require(fstat(0, &status) == 0)
        #expect(LogOutput.isJournal(descriptor: 0, stream: "\(status.st_dev):\(status.st_ino)"))
        #expect(!LogOutput.isJournal(descriptor: 0, stream: "\(status.st_dev):\(status.st_ino + 1)"))
        for stream in [nil, "", "1", "a:b", "1:2:3"] as [String?] {
            #expect(!LogOutput.isJournal(descriptor: 0, stream: stream))
        }
        #expect(!LogOutput.isJournal(descriptor: -1, stream: "0:0"))
    }

    @Test func `messages arrive in order, with metadata of handler and event`() throws {
        var ends: [Int32] = [0, 0]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        let writer = LogWriter(.descriptor(ends[1], .logfmt))
        var logger = Logger(label: "t") { QueuedLogHandler(label: $0, level: .info, writer: writer) }
        logger[metadataKey: "node"] = "n1"
        logger.debug("hidden")
        for index in 0..<20 { logger.info("line", metadata: ["i": "\(index)"]) }
        writer.flush()
        var buffer = [UInt8](repeating: 0, count: 16384)
        let count = read(ends[0], &buffer, buffer.count)
        let lines = String(decoding: buffer[..<max(count, 0)], as: UTF8.self).split(separator: "\n")
        #expect(lines.count == 20)
        for (index, line) in lines.enumerated() { #expect(line.hasSuffix("msg=\"line\" i=\(index) node=n1")) }
        #expect(writer.droppedCount == 0)
    }

    @Test func `a full queue drops and counts`() throws {
        var ends: [Int32] = [0, 0]
        try #require(pipe(&ends) == 0)
        // Nobody reads, so the pipe fills and the writer's thread stands still.
        let writer = LogWriter(.descriptor(ends[1], .logfmt), queuedMax: 4)
        let logger = Logger(label: "t") { QueuedLogHandler(label: $0, level: .info, writer: writer) }
        let long = String(repeating: "x", count: LogLine.bytesMax)
        for _ in 0..<200 { logger.info("\(long)") }
        #expect(writer.droppedCount >= 100)
        // With the reader gone, writes fail instead of waiting, and the queue empties.
        signal(SIGPIPE, SIG_IGN)
        close(ends[0])
        writer.flush()
        close(ends[1])
    }
}
