import ClusterCore
import Testing

@testable import PeerProtocol

@Suite struct FrameTests {
    /// The whole frame at the front, and what it says of itself.
    private func whole(_ bytes: [UInt8]) throws -> (kind: Frame.Kind, consumed: Int)? {
        try bytes.withUnsafeBytes { raw in
            guard let (kind, body, consumed) = try Frame.next(in: raw) else { return nil }
            #expect(body.count == consumed - Frame.headerBytes)
            return (kind, consumed)
        }
    }

    @Test func `every frame is read as it was written`() throws {
        for seed in 1...50 as ClosedRange<UInt64> {
            var random = Xoshiro256(seed: seed)
            for frame in FrameSamples.frames(&random) {
                let copy = try frame.withUnsafeBytes { raw in
                    let (kind, body, _) = try #require(try Frame.next(in: raw), "seed \(seed)")
                    return try rewritten(kind, body)
                }
                #expect(copy == frame, "seed \(seed)")
            }
        }
    }

    @Test func `the samples have a frame of every kind that this module reads`() throws {
        var random = Xoshiro256(seed: 1)
        var kinds: Set<UInt8> = [Frame.Kind.table.rawValue]
        for frame in FrameSamples.frames(&random) { kinds.insert(frame[4]) }
        let foreign: Set<UInt8> = [
            Frame.Kind.exchange.rawValue, Frame.Kind.exchangeReply.rawValue, Frame.Kind.merge.rawValue,
            Frame.Kind.gossip.rawValue,
        ]
        #expect(kinds.union(foreign) == Set(Frame.Kind.allCases.map(\.rawValue)))
    }

    @Test func `a frame that is not whole wants more, at every split`() throws {
        var random = Xoshiro256(seed: 2)
        for frame in FrameSamples.frames(&random) {
            for end in 0..<frame.count { #expect(try whole(Array(frame[..<end])) == nil) }
            #expect(try whole(frame)?.consumed == frame.count)
            // What follows is not touched.
            let behind = frame + FrameSamples.bytes(1...9, &random)
            #expect(try whole(behind)?.consumed == frame.count)
        }
    }

    @Test func `frames are found one after the other, however the bytes arrive`() throws {
        var random = Xoshiro256(seed: 3)
        let frames = FrameSamples.frames(&random)
        let stream = frames.flatMap { $0 }
        for step in [1, 2, 3, 7, 64, 1000, stream.count] {
            var held: [UInt8] = []
            var found: [[UInt8]] = []
            for start in stride(from: 0, to: stream.count, by: step) {
                held += stream[start..<min(start + step, stream.count)]
                while let (_, consumed) = try whole(held) {
                    found.append(Array(held[..<consumed]))
                    held.removeFirst(consumed)
                }
            }
            #expect(found == frames, "in pieces of \(step)")
            #expect(held.isEmpty)
        }
    }

    @Test(arguments: [0, UInt32(Frame.bodyBytesMax) + 1, .max])
    func `a length out of range is malformed`(_ length: UInt32) {
        var buffer = ByteBuffer()
        buffer.appendInteger(length)
        buffer.append(Frame.Kind.release.rawValue)
        #expect(throws: MalformedBytes.self) { _ = try Frame.next(in: buffer.bytes) }
    }

    @Test func `the longest length is waited for`() throws {
        var buffer = ByteBuffer()
        buffer.appendInteger(UInt32(Frame.bodyBytesMax))
        buffer.append(Frame.Kind.merge.rawValue)
        #expect(try Frame.next(in: buffer.bytes) == nil)
    }

    @Test func `an unknown kind is malformed before its body is there`() {
        let known = Set(Frame.Kind.allCases.map(\.rawValue))
        for kind in 0...255 as ClosedRange<UInt8> where !known.contains(kind) {
            let bytes: [UInt8] = [100, 0, 0, 0, kind]
            #expect(throws: MalformedBytes.self) { _ = try whole(bytes) }
        }
    }

    @Test func `a body that is cut short is malformed, or a shorter text`() {
        var random = Xoshiro256(seed: 4)
        for frame in FrameSamples.frames(&random) {
            guard let kind = Frame.Kind(rawValue: frame[4]) else { continue }
            let body = Array(frame[Frame.headerBytes...])
            for count in 0..<body.count {
                let copy = Array(body[..<count]).withUnsafeBytes { try? rewritten(kind, $0) }
                switch kind {
                // These end in bytes without a length of their own.
                case .request, .response, .entry, .orderReply, .learn:
                    if let copy { #expect(Array(copy[Frame.headerBytes...]) == Array(body[..<count])) }
                // Whole hashes fewer are a shorter list.
                case .accesses:
                    #expect((copy != nil) == (count % AccessesFrame.hashBytes == 0), "\(count) of \(body.count) bytes")
                    if let copy { #expect(Array(copy[Frame.headerBytes...]) == Array(body[..<count])) }
                default:
                    #expect(copy == nil, "\(kind) of \(count) of \(body.count) bytes")
                }
            }
        }
    }

    @Test func `a body with a byte too much is malformed`() {
        var random = Xoshiro256(seed: 5)
        for frame in FrameSamples.frames(&random) {
            guard let kind = Frame.Kind(rawValue: frame[4]) else { continue }
            switch kind {
            case .request, .response, .entry, .orderReply: continue
            default: break
            }
            let body = frame[Frame.headerBytes...] + [0]
            #expect(throws: MalformedBytes.self, "\(kind)") {
                try Array(body).withUnsafeBytes { _ = try rewritten(kind, $0) }
            }
        }
    }

    @Test func `a list of accesses has whole hashes, and not too many`() throws {
        for count in [0, 1, AccessesFrame.countMax] {
            let hashes = (0..<UInt64(count)).map { $0 &* 0x9e37_79b9_7f4a_7c15 }
            var buffer = ByteBuffer()
            AccessesFrame.append(hashes[...], to: &buffer)
            try buffer.array().withUnsafeBytes { raw in
                let (kind, body, _) = try #require(try Frame.next(in: raw))
                #expect(kind == .accesses)
                let frame = try AccessesFrame(body)
                #expect((0..<frame.count).map { frame[$0] } == hashes)
            }
        }
        for count in [1, 7, 9, AccessesFrame.countMax * 8 + 1, AccessesFrame.countMax * 8 + 8] {
            let body = [UInt8](repeating: 1, count: count)
            #expect(throws: MalformedBytes.self, "\(count) bytes") {
                try body.withUnsafeBytes { _ = try AccessesFrame($0) }
            }
        }
    }

    @Test func `no mutation of a frame traps or reads beyond it`() throws {
        let seed: UInt64 = 6
        var random = Xoshiro256(seed: seed)
        var samples: [[UInt8]] = []
        for _ in 0..<5 { samples += FrameSamples.frames(&random) }
        let memory = try GuardedMemory(capacity: 1 << 17)
        var read = 0
        for round in 0..<50_000 {
            var bytes = samples[Int.random(in: 0..<samples.count, using: &random)]
            mutate(&bytes, &random)
            let first = memory.with(bytes) { raw -> [UInt8]? in
                guard let (kind, body, consumed) = try? Frame.next(in: raw) else { return nil }
                #expect(consumed <= raw.count, "seed \(seed), round \(round)")
                return try? rewritten(kind, body)
            }
            guard let first else { continue }
            read += 1
            // What was taken can be said again, and is the same then.
            let second = memory.with(first) { raw -> [UInt8]? in
                guard let (kind, body, _) = try? Frame.next(in: raw) else { return nil }
                return try? rewritten(kind, body)
            }
            #expect(second == first, "seed \(seed), round \(round)")
        }
        #expect(read > 5000, "mutations must leave enough that can be read")
    }

    @Test func `no mutation of a table traps or reads beyond it`() throws {
        let seed: UInt64 = 7
        var random = Xoshiro256(seed: seed)
        let sample = FrameSamples.encoded(FrameSamples.table(&random))
        let memory = try GuardedMemory(capacity: 1 << 18)
        for _ in 0..<100 {
            var bytes = sample
            mutate(&bytes, &random)
            memory.with(bytes) { raw in
                guard let (kind, body, _) = try? Frame.next(in: raw) else { return }
                _ = try? rewritten(kind, body)
            }
        }
    }

    /// Changes, cuts, grows or repeats; sometimes sets the length right again, so that the body is looked at.
    private func mutate(_ bytes: inout [UInt8], _ random: inout Xoshiro256) {
        for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
            let at = Int.random(in: 0..<bytes.count, using: &random)
            switch Int.random(in: 0..<6, using: &random) {
            case 0: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            case 1: bytes[at] = [0, 1, 0x7f, 0x80, 0xff].randomElement(using: &random) ?? 0
            case 2: bytes.removeSubrange(at...)
            case 3: bytes.insert(contentsOf: FrameSamples.bytes(1...20, &random), at: at)
            case 4: bytes.remove(at: at)
            default: bytes[at] = UInt8(truncatingIfNeeded: random.next())
            }
        }
        guard bytes.count >= Frame.headerBytes, Int.random(in: 0..<4, using: &random) > 0 else { return }
        let length = UInt32(bytes.count - 4)
        for index in 0..<4 { bytes[index] = UInt8(truncatingIfNeeded: length >> (8 * UInt32(index))) }
    }
}
