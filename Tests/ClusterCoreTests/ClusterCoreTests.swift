import ClusterCore
import Testing

@Suite struct EndpointTests {
    @Test(arguments: ["10.0.0.1:11212", "[::1]:80", "[2001:db8::1:0:0:1]:1", "[::]:9", "[1:2:3:4:5:6:7:8]:65535"])
    func `an endpoint prints what it parsed`(text: String) throws {
        let endpoint = try #require(Endpoint(text))
        #expect(endpoint.description == text)
    }

    @Test(arguments: [
        "", ":1", "1.2.3:1", "1.2.3.4.5:1", "256.0.0.1:1", "[::1", "[::1]x", "::1:x", "1.2.3.4:0", "a b:1",
        "1.2.3.4:65536", "[1::2::3]:1", "[12345::]:1", "+1.2.3.4:5",
    ])
    func `what is no endpoint is refused`(text: String) {
        #expect(Endpoint(text) == nil)
    }

    @Test func `host and port take a default port`() {
        #expect(HostAndPort("db1", defaultPort: 7) == HostAndPort(host: "db1", port: 7))
        #expect(HostAndPort("::1", defaultPort: 7)?.description == "[::1]:7")
        #expect(HostAndPort("db1", defaultPort: nil) == nil)
    }
}

@Suite struct KeyHashTests {
    @Test func `hashes are the same for ever`() {
        #expect(KeyHash.hash(Array("".utf8)) == KeyHash.hash(Array("".utf8)))
        let vectors: [(String, UInt64)] = []
        for (key, hash) in vectors { #expect(KeyHash.hash(Array(key.utf8)) == hash, "\(key)") }
    }

    @Test func `slices and low bits are evenly filled`() {
        var slices = [Int](repeating: 0, count: 256)
        var low = [Int](repeating: 0, count: 256)
        for number in 0..<256_000 {
            let hash = KeyHash.hash(Array("key:\(number)".utf8))
            slices[Slice.index(of: hash) / 64] += 1
            low[Int(hash & 255)] += 1
        }
        // 1,000 expected in each; six standard deviations are 190.
        #expect(slices.allSatisfy { (810...1190).contains($0) })
        #expect(low.allSatisfy { (810...1190).contains($0) })
    }

    @Test func `every length and every byte matters`() {
        var seen: Set<UInt64> = []
        for length in 0...64 {
            seen.insert(KeyHash.hash([UInt8](repeating: 0, count: length)))
            for position in 0..<length {
                var bytes = [UInt8](repeating: 0, count: length)
                bytes[position] = 1
                seen.insert(KeyHash.hash(bytes))
            }
        }
        #expect(seen.count == 65 + (0...64).reduce(0, +))
    }
}

@Suite struct ByteBufferTests {
    @Test(arguments: [
        0, 1, 9, 10, 11, 99, 100, 12_345, 9_999_999_999_999_999_999, 10_000_000_000_000_000_000, UInt64.max,
    ])
    func `decimals are written as Swift writes them`(value: UInt64) {
        var buffer = ByteBuffer(capacity: 1)
        buffer.appendDecimal(value)
        #expect(String(decoding: buffer.bytes, as: UTF8.self) == String(value))
    }

    @Test func `what was written is read back`() throws {
        var buffer = ByteBuffer(capacity: 1)
        buffer.appendInteger(UInt32(7))
        buffer.appendShortText("henge")
        buffer.appendInteger(UInt64.max)
        buffer.removeFirst(4)
        let bytes = buffer.array()
        try bytes.withUnsafeBytes { (raw: UnsafeRawBufferPointer) throws in
            var reader = ByteReader(raw)
            #expect(try reader.shortText() == "henge")
            #expect(try reader.integer(UInt64.self) == .max)
            #expect(throws: MalformedBytes.self) { try reader.integer(UInt8.self) }
        }
    }
}

@Suite struct NodeIDTests {
    @Test func `an id prints what it parsed`() throws {
        var random = Xoshiro256(seed: 1)
        let id = NodeID(using: &random)
        #expect(NodeID(id.description) == id)
        #expect(NodeID("xyz") == nil)
    }
}
