import ClusterCore
import Sealing
import Testing

@Suite struct LinkSealerTests {
    private static func secret(_ number: UInt8) -> [UInt8] { [UInt8](repeating: number, count: 32) }

    private static func sealer(
        _ role: LinkSealer.Role,
        _ ring: KeyRing = KeyRing(KeyRingTests.key(1)),
        name: String = "henge"
    ) -> LinkSealer {
        LinkSealer(role, ring: ring, clusterName: name, secret: secret(role == .caller ? 11 : 12))
    }

    private struct Opened {
        var plain: [UInt8]
        var answer: [UInt8]
    }

    private static func open(_ sealer: inout LinkSealer, _ bytes: [UInt8]) throws -> Opened {
        var input = ByteBuffer()
        input.append(bytes)
        var plain = ByteBuffer()
        var answer = ByteBuffer()
        try sealer.open(&input, into: &plain, answer: &answer)
        return Opened(plain: plain.array(), answer: answer.array())
    }

    private static func seal(_ sealer: inout LinkSealer, _ bytes: [UInt8]) -> [UInt8] {
        var output = ByteBuffer()
        bytes.withUnsafeBytes { sealer.seal($0, into: &output) }
        return output.array()
    }

    /// Both sides of a connection that is established.
    private static func pair() throws -> (caller: LinkSealer, called: LinkSealer) {
        var caller = sealer(.caller)
        var called = sealer(.called)
        let answer = try open(&called, caller.greeting).answer
        _ = try open(&caller, answer)
        return (caller, called)
    }

    @Test func `both sides read each other, in pieces of any size`() throws {
        var (caller, called) = try Self.pair()
        #expect(caller.keyID == KeyRingTests.key(1).id && called.keyID == KeyRingTests.key(1).id)
        let text = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 * 7) }
        let sealed = Self.seal(&caller, text)
        #expect(sealed.count > text.count)
        var random = Xoshiro256(seed: 3)
        var input = ByteBuffer()
        var plain = ByteBuffer()
        var answer = ByteBuffer()
        var offset = 0
        while offset < sealed.count {
            let end = min(sealed.count, offset + Int.random(in: 1...9000, using: &random))
            input.append(Array(sealed[offset..<end]))
            try called.open(&input, into: &plain, answer: &answer)
            offset = end
        }
        #expect(plain.array() == text)
        #expect(try Self.open(&caller, Self.seal(&called, [1, 2, 3])).plain == [1, 2, 3])
    }

    @Test func `a record that is changed, repeated or left out is refused`() throws {
        let (caller, called) = try Self.pair()
        var sending = caller
        let first = Self.seal(&sending, [1, 2, 3])
        let second = Self.seal(&sending, [4, 5, 6])
        for index in 0..<first.count {
            var changed = first
            changed[index] ^= 0x10
            var receiving = called
            // A length that grew waits for more; nothing else than an error, or nothing, may come of it.
            let opened = try? Self.open(&receiving, changed)
            #expect(opened == nil || opened?.plain == [], "byte \(index)")
        }
        var receiving = called
        #expect(try Self.open(&receiving, first).plain == [1, 2, 3])
        #expect(throws: LinkSealingError(.forged)) { try Self.open(&receiving, first) }
        receiving = called
        #expect(throws: LinkSealingError(.forged)) { try Self.open(&receiving, second) }
    }

    @Test func `who lacks the key, or has it for another cluster, is refused by cause`() throws {
        var called = Self.sealer(.called)
        let stranger = Self.sealer(.caller, KeyRing(KeyRingTests.key(9)))
        #expect(throws: LinkSealingError(.unknownKey)) { try Self.open(&called, stranger.greeting) }
        let foreign = Self.sealer(.caller, name: "other")
        #expect(throws: LinkSealingError(.foreignCluster)) { try Self.open(&called, foreign.greeting) }
        #expect(throws: LinkSealingError(.plain)) { try Self.open(&called, [5, 0, 0, 0, 1]) }
        // One who names the key without having it gets through the handshake and not through the first record.
        var liar = Self.sealer(.caller, KeyRing(KeyRingTests.key(9)))
        var greeting = liar.greeting
        greeting.replaceSubrange(40..<44, with: Self.sealer(.caller).greeting[40..<44])
        let answer = try Self.open(&called, greeting).answer
        #expect(throws: LinkSealingError(.unknownKey)) { try Self.open(&liar, answer) }
    }

    @Test func `the newest key that both have is taken`() throws {
        var newer = KeyRing(KeyRingTests.key(1))
        try newer.install(KeyRingTests.key(2))
        try newer.use(KeyRingTests.key(2).id)
        var caller = Self.sealer(.caller, newer)
        var called = Self.sealer(.called)
        _ = try Self.open(&caller, try Self.open(&called, caller.greeting).answer)
        #expect(caller.keyID == KeyRingTests.key(1).id)
        caller = Self.sealer(.caller, newer)
        called = Self.sealer(.called, newer)
        _ = try Self.open(&caller, try Self.open(&called, caller.greeting).answer)
        #expect(called.keyID == KeyRingTests.key(2).id)
    }

    @Test func `a connection goes over to another key in use, each direction by itself`() throws {
        var (caller, called) = try Self.pair()
        var ring = KeyRing(KeyRingTests.key(1))
        try ring.install(KeyRingTests.key(2))
        var output = ByteBuffer()
        called.adopt(ring, into: &output)
        caller.adopt(ring, into: &output)
        #expect(output.array() == [], "installing a key changes no connection")
        let before = Self.seal(&caller, [1])
        try ring.use(KeyRingTests.key(2).id)
        caller.adopt(ring, into: &output)
        let change = output.array()
        let after = Self.seal(&caller, [2])
        #expect(try Self.open(&called, before + change + after).plain == [1, 2])
        #expect(called.keyID == KeyRingTests.key(2).id)
        #expect(caller.keyID == KeyRingTests.key(1).id)
        #expect(try Self.open(&caller, Self.seal(&called, [3])).plain == [3])
        output.removeAll()
        called.adopt(ring, into: &output)
        #expect(try Self.open(&caller, output.array() + Self.seal(&called, [4])).plain == [4])
        #expect(caller.keyID == KeyRingTests.key(2).id)
    }

    @Test func `a side that lacks the other's new key ends the connection`() throws {
        var (caller, called) = try Self.pair()
        var ring = KeyRing(KeyRingTests.key(1))
        try ring.install(KeyRingTests.key(2))
        try ring.use(KeyRingTests.key(2).id)
        var output = ByteBuffer()
        caller.adopt(ring, into: &output)
        #expect(throws: LinkSealingError(.unknownKey)) { try Self.open(&called, output.array()) }
    }

    @Test func `a replayed connection proves nothing`() throws {
        var (caller, _) = try Self.pair()
        let recorded = Self.sealer(.caller).greeting
        let record = Self.seal(&caller, [1, 2, 3])
        var later = LinkSealer(
            .called,
            ring: KeyRing(KeyRingTests.key(1)),
            clusterName: "henge",
            secret: Self.secret(99)
        )
        #expect(throws: LinkSealingError(.forged)) { try Self.open(&later, recorded + record) }
    }
}
