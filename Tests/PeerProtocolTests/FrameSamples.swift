import ClusterCore
import Glibc
import Sealing
import Testing

@testable import PeerProtocol

/// Random frames of every kind.
enum FrameSamples {
    static func bytes(_ counts: ClosedRange<Int>, _ random: inout Xoshiro256) -> [UInt8] {
        (0..<Int.random(in: counts, using: &random)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    }

    static func text(_ most: Int, _ random: inout Xoshiro256) -> String {
        String(
            (0..<Int.random(in: 0...most, using: &random)).map { _ in "aZ 09-é".randomElement(using: &random) ?? "a" }
        )
    }

    static func slice(_ random: inout Xoshiro256) -> Int {
        Int.random(in: 0..<Slice.count, using: &random)
    }

    static func epoch(_ random: inout Xoshiro256) -> UInt32 {
        UInt32.random(in: 0...SliceEpoch.epochMax, using: &random)
    }

    static func version(_ random: inout Xoshiro256) -> UInt64 { random.next() >> 1 }

    static func member(_ random: inout Xoshiro256) -> MemberReference {
        MemberReference(id: NodeID(using: &random), generation: random.next())
    }

    static func entries(_ random: inout Xoshiro256) -> [SliceEpoch] {
        (0..<Int.random(in: 0...20, using: &random)).map { _ in
            SliceEpoch(slice: slice(&random), epoch: epoch(&random))
        }
    }

    static func report(_ random: inout Xoshiro256) -> NodeReport {
        var report = NodeReport()
        report.primaries = UInt32(truncatingIfNeeded: random.next())
        report.copies = UInt32(truncatingIfNeeded: random.next())
        report.settled = UInt32(truncatingIfNeeded: random.next())
        report.moving = UInt32(truncatingIfNeeded: random.next())
        report.short = UInt32(truncatingIfNeeded: random.next())
        report.items = random.next()
        report.bytes = random.next()
        report.drainTotal = UInt32(truncatingIfNeeded: random.next())
        report.drainLeft = UInt32(truncatingIfNeeded: random.next())
        report.sentBytes = random.next()
        report.blocked = text(90, &random)
        return report
    }

    static func verdict(_ random: inout Xoshiro256) -> ClaimReply.Verdict {
        switch Int.random(in: 0..<4, using: &random) {
        case 0: .accepted
        case 1: .rejected(epoch: epoch(&random), holder: nil)
        case 2: .rejected(epoch: epoch(&random), holder: member(&random))
        default: .candidate
        }
    }

    static func table(_ random: inout Xoshiro256) -> ControlMessage {
        let members = (0..<Int.random(in: 0...5, using: &random)).map { _ in member(&random) }
        return .table(
            members: members,
            epochs: (0..<Slice.count).map { _ in epoch(&random) },
            holders: (0..<Slice.count).map { _ in UInt16.random(in: 0...UInt16(members.count), using: &random) }
        )
    }

    static func keyRing(_ random: inout Xoshiro256) -> KeyRing {
        var ring = KeyRing(ClusterKey(using: &random))
        let old = ring.primary
        for _ in 0..<Int.random(in: 0...3, using: &random) {
            let key = ClusterKey(using: &random)
            try? ring.install(key)
            try? ring.use(key.id)
        }
        if ring.primary != old { try? ring.remove(old) }
        return ring
    }

    /// A message of each case, several where a case has variants; the table, which is large, comes last.
    static func messages(_ random: inout Xoshiro256) -> [ControlMessage] {
        let grounds: [Claim.Ground] = [.handedOver, .silent(member(&random)), .empty, .held]
        let orders: [NodeOrder] = [.drain, .drainByForce, .undrain, .releaseBrake]
        let inventory = (0..<Int.random(in: 0...30, using: &random)).map { _ in
            InventoryEntry(hash: random.next(), version: random.next())
        }
        return [
            .offer(slice: slice(&random), epoch: epoch(&random), stream: random.next()),
            .learn(slice: slice(&random), stream: random.next(), inventory: inventory),
            .refusal(slice: slice(&random), stream: random.next(), epoch: epoch(&random)),
            .adopt(
                slice: slice(&random),
                epoch: epoch(&random),
                stream: random.next(),
                session: random.next(),
                previousEpoch: epoch(&random),
                position: version(&random)
            ),
            .claimReply(
                ClaimReply(
                    id: random.next(),
                    ageMilliseconds: UInt32(truncatingIfNeeded: random.next()),
                    verdicts: (0..<Int.random(in: 0...20, using: &random)).map { _ in verdict(&random) }
                )
            ),
            .withdraw(entries(&random)),
            .leasePing(number: random.next(), holdings: random.next(), report: report(&random)),
            .leasePong(number: random.next(), fence: random.next(), session: random.next()),
            .promiseRecall(session: random.next()),
            .promiseReturn(session: random.next()),
            .holdingsPull,
            .holdings(entries(&random), claimed: entries(&random)),
            .tablePull,
            .stopping,
            .release,
            .orderReply(id: random.next(), refusal: text(90, &random)),
            .keyRing(keyRing(&random)),
            .examine(number: random.next(), round: UInt8(truncatingIfNeeded: random.next())),
            .examined(
                ExaminationReply(
                    number: random.next(),
                    round: UInt8(truncatingIfNeeded: random.next()),
                    unixMilliseconds: random.next(),
                    hasHeardDatagrams: Bool.random(using: &random),
                    usesDatagrams: Bool.random(using: &random),
                    isConnected: Bool.random(using: &random),
                    settings: text(90, &random)
                )
            ),
        ] + grounds.map { .claim(Claim(id: random.next(), ground: $0, entries: entries(&random))) }
            + orders.map { .order(id: random.next(), $0) } + [table(&random)]
    }

    static func hello(_ random: inout Xoshiro256) -> Hello {
        Hello(
            clusterName: text(40, &random),
            node: NodeID(using: &random),
            generation: random.next(),
            lane: [.control, .data, .exchange].randomElement(using: &random) ?? .data,
            worker: UInt8(truncatingIfNeeded: random.next())
        )
    }

    /// The frames of all families but the table, as bytes.
    static func frames(_ random: inout Xoshiro256) -> [[UInt8]] {
        var all = messages(&random).dropLast().map(encoded)
        var hello = ByteBuffer()
        self.hello(&random).append(to: &hello)
        all.append(hello.array())
        for verb in RequestFrame.Verb.allCases { all.append(request(verb, &random)) }
        var acknowledgement = ByteBuffer()
        AcknowledgementFrame(
            slice: slice(&random),
            stream: random.next(),
            sequence: random.next(),
            position: version(&random)
        ).append(to: &acknowledgement)
        all.append(acknowledgement.array())
        bytes(0...60, &random).withUnsafeBytes { value in
            var response = ByteBuffer()
            ResponseFrame(
                id: random.next(),
                status: ReplyStatus(rawValue: UInt8.random(in: 1...16, using: &random)) ?? .hit,
                number: random.next(),
                flags: UInt32(truncatingIfNeeded: random.next()),
                value: value
            ).append(to: &response)
            all.append(response.array())
        }
        let hashes = (0..<Int.random(in: 0...20, using: &random)).map { _ in random.next() }
        var accesses = ByteBuffer()
        AccessesFrame.append(hashes[...], to: &accesses)
        all.append(accesses.array())
        for kind in 1...9 { all.append(entry(EntryFrame.Kind(rawValue: UInt8(kind)) ?? .stored, &random)) }
        return all
    }

    static func encoded(_ message: ControlMessage) -> [UInt8] {
        var buffer = ByteBuffer()
        message.append(to: &buffer)
        return buffer.array()
    }

    static func request(_ verb: RequestFrame.Verb, _ random: inout Xoshiro256) -> [UInt8] {
        let key = verb == .flush ? [] : bytes(1...250, &random)
        let value = bytes(0...60, &random)
        return key.withUnsafeBytes { key in
            value.withUnsafeBytes { value in
                var buffer = ByteBuffer()
                RequestFrame(
                    id: random.next(),
                    ringHash: random.next(),
                    epoch: UInt32(truncatingIfNeeded: random.next()),
                    verb: verb,
                    flags: UInt32(truncatingIfNeeded: random.next()),
                    exptime: Int64(bitPattern: random.next()),
                    unique: verb == .flush ? UInt64(slice(&random)) : random.next(),
                    delta: random.next(),
                    key: key,
                    value: value
                ).append(to: &buffer)
                return buffer.array()
            }
        }
    }

    /// Appends a random item.
    static func appendItem(to buffer: inout ByteBuffer, _ random: inout Xoshiro256) {
        let isTombstone = Bool.random(using: &random)
        let key = bytes(1...250, &random)
        let value = isTombstone ? [] : bytes(0...60, &random)
        key.withUnsafeBytes { key in
            value.withUnsafeBytes { value in
                WireItem(
                    version: version(&random),
                    unique: version(&random),
                    expiry: UInt32(truncatingIfNeeded: random.next()),
                    flags: UInt32(truncatingIfNeeded: random.next()),
                    isTombstone: isTombstone,
                    key: key,
                    value: value
                ).append(to: &buffer)
            }
        }
    }

    static func entry(_ kind: EntryFrame.Kind, _ random: inout Xoshiro256) -> [UInt8] {
        var buffer = ByteBuffer()
        let start = EntryFrame.begin(
            slice: slice(&random),
            stream: random.next(),
            sequence: random.next(),
            position: version(&random),
            sum: random.next(),
            kind: kind,
            in: &buffer
        )
        switch kind {
        case .stored: appendItem(to: &buffer, &random)
        case .snapshotEnd:
            SliceMarks(
                newest: version(&random),
                floor: version(&random),
                flushVersion: version(&random),
                flushAt: random.next()
            ).append(to: &buffer)
        default: buffer.append(bytes(0...40, &random))
        }
        Frame.end(start, in: &buffer)
        return buffer.array()
    }
}

/// Reads a whole frame and everything in it, and writes it again; what every receiver does, in one place.
func rewritten(_ kind: Frame.Kind, _ body: UnsafeRawBufferPointer) throws(MalformedBytes) -> [UInt8] {
    var buffer = ByteBuffer()
    switch kind {
    case .hello: try Hello(body).append(to: &buffer)
    case .request: try RequestFrame(body).append(to: &buffer)
    case .response: try ResponseFrame(body).append(to: &buffer)
    case .acknowledgement: try AcknowledgementFrame(body).append(to: &buffer)
    case .entry:
        let entry = try EntryFrame(body)
        let start = EntryFrame.begin(
            slice: entry.slice,
            stream: entry.stream,
            sequence: entry.sequence,
            position: entry.position,
            sum: entry.sum,
            kind: entry.kind,
            in: &buffer
        )
        var reader = ByteReader(entry.payload)
        switch entry.kind {
        case .stored: try WireItem(&reader).append(to: &buffer)
        case .snapshotEnd: try SliceMarks(&reader).append(to: &buffer)
        default: break
        }
        buffer.append(try reader.rest())
        Frame.end(start, in: &buffer)
    case .accesses:
        let frame = try AccessesFrame(body)
        let hashes = (0..<frame.count).map { frame[$0] }
        AccessesFrame.append(hashes[...], to: &buffer)
    case .exchange, .exchangeReply, .merge:
        let start = Frame.begin(kind, in: &buffer)
        buffer.append(body)
        Frame.end(start, in: &buffer)
    default:
        guard let message = try ControlMessage(kind, body) else { throw MalformedBytes() }
        message.append(to: &buffer)
    }
    return buffer.array()
}

/// Memory that ends where an unreadable page begins: one byte read too far ends the process.
final class GuardedMemory {
    private let base: UnsafeMutableRawPointer
    private let capacity: Int
    private let page = Int(getpagesize())

    init(capacity: Int) throws {
        self.capacity = (capacity + page - 1) / page * page
        let mapped = mmap(nil, self.capacity + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        base = try #require(mapped != MAP_FAILED ? mapped : nil, "no memory for the guarded bytes")
        try #require(mprotect(base + self.capacity, page, PROT_NONE) == 0)
    }

    deinit {
        munmap(base, capacity + page)
    }

    /// Runs `body` on a copy of the bytes whose last one lies before the unreadable page.
    func with<Result, Failure: Error>(
        _ bytes: [UInt8],
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        precondition(bytes.count <= capacity, "\(bytes.count) bytes in \(capacity)")
        let start = base + (capacity - bytes.count)
        bytes.withUnsafeBytes { source in
            if let from = source.baseAddress { start.copyMemory(from: from, byteCount: source.count) }
        }
        return try body(UnsafeRawBufferPointer(start: start, count: bytes.count))
    }
}
