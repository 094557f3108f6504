import ClusterCore
import Testing

@testable import PeerProtocol

@Suite struct RequestAndEntryTests {
    private func body(_ frame: [UInt8]) -> [UInt8] { Array(frame[Frame.headerBytes...]) }

    private func requestBody(_ verb: UInt8, keyLength: UInt8, key: Int, unique: UInt64 = 0) -> [UInt8] {
        var buffer = ByteBuffer()
        buffer.appendInteger(UInt64(1))
        buffer.appendInteger(UInt64(2))
        buffer.appendInteger(UInt32(3))
        buffer.append(verb)
        buffer.appendInteger(UInt32(4))
        buffer.appendInteger(Int64(-5))
        buffer.appendInteger(unique)
        buffer.appendInteger(UInt64(7))
        buffer.append(keyLength)
        buffer.append([UInt8](repeating: 0x6b, count: key))
        return buffer.array()
    }

    private func isRequest(_ bytes: [UInt8]) -> Bool {
        bytes.withUnsafeBytes { (try? RequestFrame($0)) != nil }
    }

    @Test func `a key has 1 to 250 bytes, except in a flush`() {
        let get = RequestFrame.Verb.get.rawValue
        #expect(isRequest(requestBody(get, keyLength: 1, key: 1)))
        #expect(isRequest(requestBody(get, keyLength: 250, key: 250)))
        #expect(!isRequest(requestBody(get, keyLength: 251, key: 251)))
        #expect(!isRequest(requestBody(get, keyLength: 255, key: 255)))
        #expect(!isRequest(requestBody(get, keyLength: 0, key: 0)))
        #expect(!isRequest(requestBody(get, keyLength: 10, key: 9)))
        #expect(isRequest(requestBody(RequestFrame.Verb.flush.rawValue, keyLength: 0, key: 0)))
    }

    @Test func `a flush names a slice that exists`() {
        let flush = RequestFrame.Verb.flush.rawValue
        #expect(isRequest(requestBody(flush, keyLength: 0, key: 0, unique: UInt64(Slice.count - 1))))
        #expect(!isRequest(requestBody(flush, keyLength: 0, key: 0, unique: UInt64(Slice.count))))
        #expect(!isRequest(requestBody(flush, keyLength: 0, key: 0, unique: .max)))
    }

    @Test func `verbs that do not exist are malformed`() {
        let known = Set(RequestFrame.Verb.allCases.map(\.rawValue))
        for verb in 0...255 as ClosedRange<UInt8> {
            #expect(isRequest(requestBody(verb, keyLength: 1, key: 1)) == known.contains(verb), "verb \(verb)")
        }
    }

    @Test func `what is not repeatable is what a second time would change`() {
        let once = RequestFrame.Verb.allCases.filter { !$0.isRepeatable }
        #expect(once == [.add, .replace, .append, .prepend, .compareAndSet, .increment, .decrement])
        #expect(RequestFrame.Verb.allCases.filter(\.isRead) == [.get])
    }

    @Test func `a retry patches the number, the ring and the epoch in place`() throws {
        var random = Xoshiro256(seed: 1)
        for verb in RequestFrame.Verb.allCases {
            var frame = FrameSamples.request(verb, &random)
            frame.withUnsafeMutableBytes {
                $0.storeBytes(of: 0x1111, toByteOffset: RequestFrame.idOffset, as: UInt64.self)
                $0.storeBytes(of: 0x2222, toByteOffset: RequestFrame.ringHashOffset, as: UInt64.self)
                $0.storeBytes(of: 0x3333, toByteOffset: RequestFrame.epochOffset, as: UInt32.self)
            }
            try body(frame).withUnsafeBytes { raw in
                let request = try RequestFrame(raw)
                #expect(request.id == 0x1111)
                #expect(request.ringHash == 0x2222)
                #expect(request.epoch == 0x3333)
                #expect(request.verb == verb)
            }
        }
    }

    @Test func `a request's slice is its key's, or the one a flush names`() throws {
        var random = Xoshiro256(seed: 2)
        for verb in RequestFrame.Verb.allCases {
            try body(FrameSamples.request(verb, &random)).withUnsafeBytes { raw in
                let request = try RequestFrame(raw)
                let expected = verb == .flush ? Int(request.unique) : Slice.index(of: KeyHash.hash(request.key))
                #expect(request.slice == expected)
            }
        }
    }

    @Test func `statuses that do not exist are malformed`() {
        for status in 0...255 as ClosedRange<UInt8> {
            var buffer = ByteBuffer()
            buffer.appendInteger(UInt64(1))
            buffer.append(status)
            buffer.appendInteger(UInt64(2))
            buffer.appendInteger(UInt32(3))
            let isResponse = (try? ResponseFrame(buffer.bytes)) != nil
            #expect(isResponse == (1...16).contains(status), "status \(status)")
        }
    }

    private func isItem(
        _ version: UInt64,
        _ unique: UInt64,
        keyLength: UInt8,
        key: Int,
        valueLength: UInt32,
        value: Int
    )
        -> Bool
    {
        var buffer = ByteBuffer()
        buffer.appendInteger(version)
        buffer.appendInteger(unique)
        buffer.appendInteger(UInt32(0))
        buffer.appendInteger(UInt32(0))
        buffer.append(0)
        buffer.append(keyLength)
        buffer.appendInteger(valueLength)
        buffer.append([UInt8](repeating: 1, count: key + value))
        var reader = ByteReader(buffer.bytes)
        return (try? WireItem(&reader)) != nil && reader.remaining == 0
    }

    @Test func `an item's lengths and versions are checked`() {
        #expect(isItem(1, 1, keyLength: 3, key: 3, valueLength: 4, value: 4))
        #expect(isItem(.max >> 1, .max >> 1, keyLength: 250, key: 250, valueLength: 0, value: 0))
        #expect(!isItem(.max, 1, keyLength: 3, key: 3, valueLength: 0, value: 0))
        #expect(!isItem(1, 1 << 63, keyLength: 3, key: 3, valueLength: 0, value: 0))
        #expect(!isItem(1, 1, keyLength: 0, key: 0, valueLength: 0, value: 0))
        #expect(!isItem(1, 1, keyLength: 251, key: 251, valueLength: 0, value: 0))
        #expect(!isItem(1, 1, keyLength: 3, key: 3, valueLength: 5, value: 4))
        #expect(!isItem(1, 1, keyLength: 3, key: 3, valueLength: .max, value: 4))
    }

    private func isEntry(slice: UInt16, kind: UInt8, position: UInt64) -> Bool {
        var buffer = ByteBuffer()
        buffer.appendInteger(slice)
        buffer.appendInteger(UInt64(1))
        buffer.appendInteger(UInt64(2))
        buffer.appendInteger(position)
        buffer.appendInteger(UInt64(7))
        buffer.append(kind)
        return (try? EntryFrame(buffer.bytes)) != nil
    }

    @Test func `an entry's slice, kind and position are checked`() {
        #expect(isEntry(slice: UInt16(Slice.count - 1), kind: 1, position: .max >> 1))
        #expect(!isEntry(slice: UInt16(Slice.count), kind: 1, position: 0))
        #expect(!isEntry(slice: .max, kind: 1, position: 0))
        #expect(!isEntry(slice: 0, kind: 1, position: 1 << 63))
        for kind in 0...255 as ClosedRange<UInt8> {
            #expect(isEntry(slice: 0, kind: kind, position: 0) == (1...9).contains(kind), "kind \(kind)")
        }
    }

    @Test(arguments: [0, 1, 2])
    func `marks that leave no room for a later version are malformed`(_ field: Int) throws {
        for (value, isAllowed) in [(UInt64.max >> 1, true), (1 << 63, false), (.max, false)] {
            var buffer = ByteBuffer()
            SliceMarks(
                newest: field == 0 ? value : 1,
                floor: field == 1 ? value : 1,
                flushVersion: field == 2 ? value : 1,
                flushAt: 1
            ).append(to: &buffer)
            var reader = ByteReader(buffer.bytes)
            #expect(((try? SliceMarks(&reader)) != nil) == isAllowed, "\(value)")
        }
    }

    @Test func `a hello of another protocol version is malformed`() throws {
        var random = Xoshiro256(seed: 3)
        var buffer = ByteBuffer()
        let hello = FrameSamples.hello(&random)
        hello.append(to: &buffer)
        let frame = buffer.array()
        let copy = try body(frame).withUnsafeBytes { try Hello($0) }
        #expect(copy == hello)
        for version in [0, Frame.version - 1, Frame.version + 1, .max] as [UInt16] {
            var other = body(frame)
            other[0] = UInt8(truncatingIfNeeded: version)
            other[1] = UInt8(truncatingIfNeeded: version >> 8)
            #expect(throws: MalformedBytes.self, "\(version)") { try other.withUnsafeBytes { _ = try Hello($0) } }
        }
        var lane = body(frame)
        lane[lane.count - 2] = 4
        #expect(throws: MalformedBytes.self) { try lane.withUnsafeBytes { _ = try Hello($0) } }
    }
}
