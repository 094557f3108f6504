import CLinux
import ClusterCore
import Glibc
import Histogram
import Reactor

/// One thread's share of a load: its connections, its chance, its buffers.
///
/// All of it is raw memory or plain values: a request allocates nothing and counts no references.
struct Worker {
    /// Longer latencies are counted as this, in nanoseconds: an hour.
    static let latencyNanosecondsMax: UInt64 = 3_600_000_000_000

    private static let receiveBytes = 256 << 10
    private static let eventsMax = 64
    private static let readable: UInt32 = 0x1
    private static let writable: UInt32 = 0x4

    /// What went wrong; the first of it ends the phase.
    private(set) var fault: String?
    /// What the server refused first.
    private(set) var firstRefusal: String?
    private(set) var counts = LoadCounts()
    /// Latency from when a request was due, and how late the generator itself was; open loop only.
    private(set) var latency: Histogram<UInt64>
    private(set) var lateness: Histogram<UInt64>
    /// How many items that were set die in a second of the Unix clock, from `deathsFrom` on.
    private(set) var deaths: [UInt64]
    private(set) var deathsFrom: UInt64 = 0
    /// How long the phase took, in nanoseconds, and what of it this thread had a processor.
    private(set) var elapsedNanoseconds: UInt64 = 0
    private(set) var processorNanoseconds: UInt64 = 0

    private let epoll: Int32
    private let connections: UnsafeMutablePointer<Connection>
    private let connectionCount: Int
    private let events: UnsafeMutablePointer<clinux_event>
    private let received: UnsafeMutableRawPointer
    private let batch: UnsafeMutableRawPointer
    private let batchCapacity: Int
    private let filling: UnsafeMutableRawPointer
    private let fillingBytes: Int

    // What the phase does.
    private var keys: KeyStream
    private var sizes: SizeTable.Lookup
    private var chance: Chance
    private let wire: Wire
    private let keyBytes: Int
    private let depth: Int
    private var keysPerGet = 1
    /// A draw below this is a get; all are where it is the greatest number.
    private var getThreshold: UInt64 = .max
    private var isLookAside = false
    private var isTimed = false
    private var timeToLive: TimeToLive?
    private var toleratesRefusals = false
    private var commandsLeft: UInt64 = .max
    private var deadline: UInt64 = .max
    private var isStopping = false
    private var busyConnections = 0
    private var now: UInt64 = 0
    private var unixSeconds: UInt64 = 0

    /// Connects. `keysMax` is what a connection may have in flight, in keys; `batchBytes` what one send may hold.
    init(plan: LoadPlan, endpoints: [Endpoint], keysMax: Int, batchBytes: Int, valueBytesMax: Int) throws(LoadError) {
        epoll = clinux_epoll_create()
        guard epoll >= 0 else { throw LoadError("cannot create an epoll: \(SystemError.describe(errno))") }
        connectionCount = endpoints.count
        connections = .allocate(capacity: endpoints.count)
        events = .allocate(capacity: Self.eventsMax)
        received = .allocate(byteCount: Self.receiveBytes, alignment: 64)
        batchCapacity = batchBytes
        batch = .allocate(byteCount: batchBytes, alignment: 64)
        fillingBytes = valueBytesMax
        filling = .allocate(byteCount: valueBytesMax + 8, alignment: 64)
        var noise = Chance(seed: 20)
        for index in 0..<(valueBytesMax + 8) {
            filling.storeBytes(of: UInt8(truncatingIfNeeded: noise.next() >> 32), toByteOffset: index, as: UInt8.self)
        }
        latency = Histogram(highestTrackableValue: Self.latencyNanosecondsMax)
        lateness = Histogram(highestTrackableValue: Self.latencyNanosecondsMax)
        deaths = []
        keys = KeyStream(plan.keys)
        sizes = plan.sizes.lookup
        chance = Chance(seed: plan.seed)
        wire = plan.wire
        keyBytes = plan.keyBytes
        depth = plan.depth
        for (index, endpoint) in endpoints.enumerated() {
            let descriptor = try Self.connect(to: endpoint)
            connections.advanced(by: index).initialize(to: Connection(descriptor: descriptor, keysMax: keysMax))
            guard clinux_epoll_add(epoll, descriptor, Self.readable, UInt64(index)) == 0 else {
                throw LoadError("cannot watch a connection: \(SystemError.describe(errno))")
            }
        }
    }

    /// Closes the connections and gives all memory back.
    mutating func close() {
        for index in 0..<connectionCount {
            Socket.close(connections[index].descriptor)
            connections[index].deallocate()
        }
        Socket.close(epoll)
        connections.deallocate()
        events.deallocate()
        received.deallocate()
        batch.deallocate()
        filling.deallocate()
    }

    private static func connect(to endpoint: Endpoint) throws(LoadError) -> Int32 {
        do throws(SystemError) {
            let descriptor = try Socket.connect(to: endpoint)
            var wait = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            guard poll(&wait, 1, 10_000) == 1 else { throw SystemError(.connect(endpoint), ETIMEDOUT) }
            try Socket.connectResult(descriptor, to: endpoint)
            try Socket.setNoDelay(descriptor)
            return descriptor
        } catch {
            throw LoadError("\(error)")
        }
    }

    // MARK: A phase

    /// Runs one phase to its end: every command that was sent is answered, or `fault` says why not. `share` of the
    /// plan's commands and of its rate are this thread's.
    mutating func run(_ plan: LoadPlan, keys stream: KeyStream, seed: UInt64, commands: UInt64?, share: Double) {
        keys = stream
        sizes = plan.sizes.lookup
        chance = Chance(seed: seed)
        keysPerGet = plan.keysPerGet
        getThreshold = plan.getShare >= 1 ? .max : UInt64(plan.getShare * 0x1p64)
        isLookAside = plan.isLookAside
        timeToLive = plan.timeToLive
        toleratesRefusals = plan.toleratesRefusals
        commandsLeft = commands ?? .max
        counts = LoadCounts()
        latency.reset()
        lateness.reset()
        firstRefusal = nil
        isStopping = false
        busyConnections = 0
        isTimed = plan.ratePerSecond != nil
        if timeToLive != nil {
            deathsFrom = Self.unixTime()
            deaths = [UInt64](repeating: 0, count: Int(TimeToLive.secondsMax) + 86_400)
        }
        let processorStart = Self.clock(CLOCK_THREAD_CPUTIME_ID)
        let start = Self.clock(CLOCK_MONOTONIC)
        now = start
        unixSeconds = Self.unixTime()
        deadline = plan.durationNanoseconds.map { start &+ $0 } ?? .max
        if let rate = plan.ratePerSecond {
            openLoop(ArrivalSchedule(start: start, perSecond: rate * share, seed: seed &+ 1))
        } else {
            closedLoop()
        }
        elapsedNanoseconds = Self.clock(CLOCK_MONOTONIC) &- start
        processorNanoseconds = Self.clock(CLOCK_THREAD_CPUTIME_ID) &- processorStart
    }

    static func clock(_ id: clockid_t) -> UInt64 {
        var time = timespec()
        clock_gettime(id, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }

    private static func unixTime() -> UInt64 { clock(CLOCK_REALTIME) / 1_000_000_000 }

    /// How many of the items that this phase set are not dead yet.
    func itemsAlive() -> UInt64 {
        let passed = Int(truncatingIfNeeded: Self.unixTime() &- deathsFrom)
        return deaths.dropFirst(passed + 1).reduce(0, +)
    }

    private mutating func closedLoop() {
        for index in 0..<connectionCount {
            sendNext(connections + index)
            if fault != nil { return }
        }
        var lastEvent = now
        while busyConnections > 0, fault == nil {
            let count = clinux_epoll_wait(epoll, events, Int32(Self.eventsMax), 1000)
            now = Self.clock(CLOCK_MONOTONIC)
            if now >= deadline { isStopping = true }
            if timeToLive != nil { unixSeconds = Self.unixTime() }
            if count > 0 {
                lastEvent = now
                handle(Int(count))
            } else if now &- lastEvent > LoadPlan.silenceNanosecondsMax {
                fail("no reply for \((now - lastEvent) / 1_000_000_000) s")
            }
        }
    }

    /// Sends what is due when it is due. What cannot be sent, because a connection has all it may have in flight, waits,
    /// and the time that counts stays the one at which it was due.
    private mutating func openLoop(_ arrivals: ArrivalSchedule) {
        var arrivals = arrivals
        var turn = 0
        var lastEvent = now
        while fault == nil {
            now = Self.clock(CLOCK_MONOTONIC)
            if now >= deadline || commandsLeft == 0 || keys.isAtEnd { isStopping = true }
            if isStopping, busyConnections == 0 { break }
            if timeToLive != nil { unixSeconds = Self.unixTime() }
            while !isStopping, arrivals.next <= now {
                var tried = 0
                while tried < connectionCount, !connections[turn].hasRoom(keys: keysPerGet) {
                    turn = turn &+ 1 == connectionCount ? 0 : turn &+ 1
                    tried &+= 1
                }
                if tried == connectionCount { break }
                let connection = connections + turn
                let end = writeCommand(connection, to: batch, stamp: arrivals.next)
                lateness.record(now &- arrivals.next)
                send(connection, batch, end - batch)
                turn = turn &+ 1 == connectionCount ? 0 : turn &+ 1
                arrivals.advance()
                if commandsLeft == 0 || keys.isAtEnd || fault != nil { break }
            }
            // A sleep of the kernel is a millisecond at least, so only longer gaps are slept through.
            let gap = arrivals.next > now ? arrivals.next &- now : 0
            let milliseconds = isStopping ? 10 : gap > 2_000_000 ? Int32(min(gap / 1_000_000 - 1, 100)) : 0
            let count = clinux_epoll_wait(epoll, events, Int32(Self.eventsMax), milliseconds)
            if count > 0 {
                now = Self.clock(CLOCK_MONOTONIC)
                lastEvent = now
                handle(Int(count))
            } else if busyConnections > 0, now &- lastEvent > LoadPlan.silenceNanosecondsMax {
                fail("no reply for \((now - lastEvent) / 1_000_000_000) s")
            } else if busyConnections == 0 {
                lastEvent = now
            }
        }
    }

    @inline(__always)
    private mutating func handle(_ count: Int) {
        for index in 0..<count {
            let event = events[index]
            let connection = connections + Int(truncatingIfNeeded: event.token)
            if event.events & Self.writable != 0, connection.pointee.unsentBytes > 0 { sendRest(connection) }
            if event.events & ~Self.writable != 0 { receive(connection) }
            if fault != nil { return }
        }
    }

    private mutating func fail(_ text: String) {
        if fault == nil { fault = text }
    }

    // MARK: Sending

    /// Sends the next batch of a connection that has nothing in flight: sets of what missed, else fresh commands.
    @inline(__always)
    private mutating func sendNext(_ connection: UnsafeMutablePointer<Connection>) {
        var end = batch
        if connection.pointee.missedCount > 0 {
            // Between gets and their sets a trace must not stop, or the misses before the end would count double.
            for index in 0..<connection.pointee.missedCount {
                end = writeSet(connection, connection.pointee.missed[index], to: end, stamp: now)
            }
            connection.pointee.missedCount = 0
        } else {
            var room = depth
            while room > 0, commandsLeft > 0, !isStopping, !keys.isAtEnd {
                if keys.isTrace, isInFlight(connection, keys.peek()) { break }
                end = writeCommand(connection, to: end, stamp: now)
                room &-= 1
            }
        }
        if end > batch { send(connection, batch, end - batch) }
    }

    /// Whether a key is asked for in the batch already: in a recorded order its second request must see the first.
    private func isInFlight(_ connection: UnsafeMutablePointer<Connection>, _ key: UInt64) -> Bool {
        for index in 0..<connection.pointee.pendingCount where connection.pointee.entry(index).pointee.key == key {
            return true
        }
        return false
    }

    /// Writes a command that chance and plan choose; where it ends.
    @inline(__always)
    private mutating func writeCommand(
        _ connection: UnsafeMutablePointer<Connection>,
        to start: UnsafeMutableRawPointer,
        stamp: UInt64
    ) -> UnsafeMutableRawPointer {
        commandsLeft &-= 1
        if getThreshold != .max, chance.next() >= getThreshold {
            let key = keys.draw(&chance)
            return writeSet(connection, key, to: start, stamp: stamp)
        }
        var end = start
        let first = connection.pointee.pendingCount
        var count = 0
        if wire == .meta {
            let key = keys.draw(&chance)
            end.storeBytes(of: UInt32(0x0020_676d).littleEndian, as: UInt32.self)  // mg and a space
            end = KeyText.write(key, bytes: keyBytes, to: end + 3)
            end.storeBytes(of: UInt32(0x0a0d_7620).littleEndian, as: UInt32.self)  // a space, v, line end
            connection.pointee.push(Pending(key: key, stamp: stamp, count: 1, kind: .get))
            end += 4
        } else {
            end.storeBytes(of: UInt32(0x0074_6567).littleEndian, as: UInt32.self)  // get
            end += 3
            repeat {
                let key = keys.draw(&chance)
                end.storeBytes(of: 0x20, as: UInt8.self)
                end = KeyText.write(key, bytes: keyBytes, to: end + 1)
                connection.pointee.push(Pending(key: key, stamp: stamp, count: 1, kind: .get))
                count &+= 1
            } while count < keysPerGet && !keys.isAtEnd
            connection.pointee.entry(first).pointee.count = UInt32(truncatingIfNeeded: count)
            end.storeBytes(of: UInt16(0x0a0d).littleEndian, as: UInt16.self)
            end += 2
        }
        begin(connection)
        return end
    }

    @inline(__always)
    private mutating func begin(_ connection: UnsafeMutablePointer<Connection>) {
        if connection.pointee.inFlight == 0 { busyConnections &+= 1 }
        connection.pointee.inFlight &+= 1
    }

    private mutating func writeSet(
        _ connection: UnsafeMutablePointer<Connection>,
        _ key: UInt64,
        to start: UnsafeMutableRawPointer,
        stamp: UInt64
    ) -> UnsafeMutableRawPointer {
        let size = sizes.size(of: key)
        var expiry: UInt64 = 0
        if let timeToLive {
            let seconds = timeToLive.draw(&chance)
            // As a date, so that the second of its death is known whatever the server's clock counts from.
            expiry = unixSeconds &+ seconds
            let index = Int(truncatingIfNeeded: expiry &- deathsFrom)
            if index < deaths.count { deaths[index] &+= 1 }
        }
        var end = start
        if wire == .meta {
            end.storeBytes(of: UInt32(0x0020_736d).littleEndian, as: UInt32.self)  // ms and a space
            end = KeyText.write(key, bytes: keyBytes, to: end + 3)
            end.storeBytes(of: 0x20, as: UInt8.self)
            end = KeyText.writeDecimal(UInt64(size), to: end + 1)
            if expiry != 0 {
                end.storeBytes(of: UInt16(0x5420).littleEndian, as: UInt16.self)  // a space, T
                end = KeyText.writeDecimal(expiry, to: end + 2)
            }
        } else {
            end.storeBytes(of: UInt32(0x2074_6573).littleEndian, as: UInt32.self)  // set and a space
            end = KeyText.write(key, bytes: keyBytes, to: end + 4)
            end.storeBytes(of: UInt32(0x0020_3020).littleEndian, as: UInt32.self)  // flags 0 between spaces
            end = KeyText.writeDecimal(expiry, to: end + 3)
            end.storeBytes(of: 0x20, as: UInt8.self)
            end = KeyText.writeDecimal(UInt64(size), to: end + 1)
        }
        end.storeBytes(of: UInt16(0x0a0d).littleEndian, as: UInt16.self)
        end += 2
        end.copyMemory(from: filling, byteCount: size)
        if size >= 8 { end.storeBytes(of: KeyText.tail(key), as: UInt64.self) }
        end += size
        end.storeBytes(of: UInt16(0x0a0d).littleEndian, as: UInt16.self)
        end += 2
        connection.pointee.push(Pending(key: key, stamp: stamp, count: 1, kind: .set))
        begin(connection)
        return end
    }

    @inline(__always)
    private mutating func send(
        _ connection: UnsafeMutablePointer<Connection>,
        _ bytes: UnsafeMutableRawPointer,
        _ count: Int
    ) {
        precondition(count <= batchCapacity, "a batch of \(count) bytes in a buffer of \(batchCapacity)")
        counts.sentBytes &+= UInt64(truncatingIfNeeded: count)
        var sent = 0
        if connection.pointee.unsentBytes == 0 {
            sent = Glibc.send(connection.pointee.descriptor, bytes, count, Int32(MSG_NOSIGNAL))
            if sent == count { return }
            if sent < 0 {
                guard errno == EAGAIN || errno == EINTR else {
                    return fail("cannot send: \(SystemError.describe(errno))")
                }
                sent = 0
            }
        }
        keepUnsent(connection, bytes + sent, count - sent)
    }

    @inline(never)
    private mutating func keepUnsent(
        _ connection: UnsafeMutablePointer<Connection>,
        _ bytes: UnsafeMutableRawPointer,
        _ count: Int
    ) {
        let held = connection.pointee.unsentBytes
        let offset = connection.pointee.unsentOffset
        if offset + held + count > connection.pointee.unsentCapacity {
            let capacity = max(2 * (held + count), 65_536)
            let replacement = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 64)
            if let old = connection.pointee.unsent {
                replacement.copyMemory(from: old + offset, byteCount: held)
                old.deallocate()
            }
            connection.pointee.unsent = replacement
            connection.pointee.unsentCapacity = capacity
            connection.pointee.unsentOffset = 0
        }
        if let memory = connection.pointee.unsent {
            (memory + connection.pointee.unsentOffset + held).copyMemory(from: bytes, byteCount: count)
        }
        connection.pointee.unsentBytes = held + count
        if held == 0 { watch(connection, Self.readable | Self.writable) }
    }

    private mutating func watch(_ connection: UnsafeMutablePointer<Connection>, _ interest: UInt32) {
        let token = UInt64(connection - connections)
        if clinux_epoll_change(epoll, connection.pointee.descriptor, interest, token) != 0 {
            fail("cannot watch a connection: \(SystemError.describe(errno))")
        }
    }

    @inline(never)
    private mutating func sendRest(_ connection: UnsafeMutablePointer<Connection>) {
        guard let memory = connection.pointee.unsent else { return }
        let sent = Glibc.send(
            connection.pointee.descriptor,
            memory + connection.pointee.unsentOffset,
            connection.pointee.unsentBytes,
            Int32(MSG_NOSIGNAL)
        )
        guard sent >= 0 else {
            if errno != EAGAIN, errno != EINTR { fail("cannot send: \(SystemError.describe(errno))") }
            return
        }
        connection.pointee.unsentOffset += sent
        connection.pointee.unsentBytes -= sent
        if connection.pointee.unsentBytes == 0 {
            connection.pointee.unsentOffset = 0
            watch(connection, Self.readable)
        }
    }

    // MARK: Receiving

    @inline(__always)
    private mutating func receive(_ connection: UnsafeMutablePointer<Connection>) {
        let count = recv(connection.pointee.descriptor, received, Self.receiveBytes, 0)
        guard count > 0 else {
            if count == 0 { return fail("the server closed a connection") }
            if errno == EAGAIN || errno == EINTR { return }
            return fail("cannot receive: \(SystemError.describe(errno))")
        }
        counts.receivedBytes &+= UInt64(truncatingIfNeeded: count)
        var position = UnsafeRawPointer(received)
        let end = position + count
        while true {
            switch connection.pointee.parser.next(&position, end: end) {
            case .needsMore:
                if connection.pointee.inFlight == 0 {
                    if connection.pointee.parser.isWithinReply { return fail("a reply that nothing asked for") }
                    if !isTimed { sendNext(connection) }
                }
                return
            case .value: value(connection)
            case .end: finishGet(connection)
            case .stored: finishSet(connection)
            case .refused: refuse(connection)
            case .malformed: malformed(connection)
            }
            if fault != nil { return }
        }
    }

    /// A value came: for the key at the head, or for a later key of the same command.
    @inline(__always)
    private mutating func value(_ connection: UnsafeMutablePointer<Connection>) {
        let parser = connection.pointee.parser
        let first = connection.pointee.entry(0)
        guard connection.pointee.pendingCount > 0, first.pointee.kind == .get else {
            return fail("a value where none was asked for")
        }
        let keyCount = Int(first.pointee.count)
        while connection.pointee.passed < keyCount {
            let key = connection.pointee.entry(connection.pointee.passed).pointee.key
            connection.pointee.passed &+= 1
            let tail = KeyText.tail(key)
            if wire == .text, parser.keyTail != tail || parser.keyBytes != keyBytes {
                miss(connection, key)
                continue
            }
            let size = sizes.size(of: key)
            guard parser.valueBytes == size else {
                return fail("key \(key) has \(parser.valueBytes) bytes instead of \(size)")
            }
            guard size < 8 || parser.valueHead == tail else { return fail("key \(key) has the value of another key") }
            counts.hits &+= 1
            if wire == .meta { finish(connection, keyCount: 1) }
            return
        }
        fail("a value whose key was not asked for")
    }

    @inline(__always)
    private mutating func miss(_ connection: UnsafeMutablePointer<Connection>, _ key: UInt64) {
        counts.misses &+= 1
        if isLookAside {
            connection.pointee.missed.advanced(by: connection.pointee.missedCount).initialize(to: key)
            connection.pointee.missedCount &+= 1
        }
    }

    /// The answer to a get is complete: keys that it did not name have missed.
    @inline(__always)
    private mutating func finishGet(_ connection: UnsafeMutablePointer<Connection>) {
        let first = connection.pointee.entry(0)
        guard connection.pointee.pendingCount > 0, first.pointee.kind == .get else {
            return fail("the end of a get where none was asked for")
        }
        let keyCount = Int(first.pointee.count)
        while connection.pointee.passed < keyCount {
            miss(connection, connection.pointee.entry(connection.pointee.passed).pointee.key)
            connection.pointee.passed &+= 1
        }
        finish(connection, keyCount: keyCount)
    }

    @inline(__always)
    private mutating func finish(_ connection: UnsafeMutablePointer<Connection>, keyCount: Int) {
        counts.commands &+= 1
        let entry = connection.pointee.entry(0).pointee
        if entry.kind == .get { counts.gets &+= UInt64(truncatingIfNeeded: keyCount) }
        if isTimed {
            latency.record(min(now > entry.stamp ? now &- entry.stamp : 0, Self.latencyNanosecondsMax))
        }
        connection.pointee.head = (connection.pointee.head &+ keyCount) & connection.pointee.mask
        connection.pointee.pendingCount &-= keyCount
        connection.pointee.passed = 0
        connection.pointee.inFlight &-= 1
        if connection.pointee.inFlight == 0 { busyConnections &-= 1 }
    }

    @inline(__always)
    private mutating func finishSet(_ connection: UnsafeMutablePointer<Connection>) {
        let first = connection.pointee.entry(0)
        guard connection.pointee.pendingCount > 0, first.pointee.kind == .set else {
            return fail("a set was answered where none was asked for")
        }
        counts.sets &+= 1
        counts.storedBytes &+= UInt64(truncatingIfNeeded: sizes.size(of: first.pointee.key))
        finish(connection, keyCount: 1)
    }

    @inline(never)
    private mutating func refuse(_ connection: UnsafeMutablePointer<Connection>) {
        let text = Self.words(connection.pointee.parser.text)
        guard connection.pointee.pendingCount > 0 else { return fail("the server said, unasked: \(text)") }
        counts.refusals &+= 1
        if firstRefusal == nil { firstRefusal = text }
        if !toleratesRefusals { return fail("the server refused a command: \(text)") }
        let keyCount = Int(connection.pointee.entry(0).pointee.count)
        finish(connection, keyCount: keyCount)
    }

    @inline(never)
    private mutating func malformed(_ connection: UnsafeMutablePointer<Connection>) {
        fail("no reply of the protocol: \(Self.words(connection.pointee.parser.text))")
    }

    private static func words(_ bytes: UnsafeRawBufferPointer) -> String {
        let text = String(decoding: bytes, as: UTF8.self)
        return String(text.filter { !$0.isNewline }.prefix(100))
    }
}
