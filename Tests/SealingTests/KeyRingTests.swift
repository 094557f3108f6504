import ClusterCore
import Sealing
import Testing

@Suite struct KeyRingTests {
    static func key(_ number: UInt8) -> ClusterKey {
        ClusterKey(material: [UInt8](repeating: number, count: 32))!
    }

    @Test func `a key's id is fixed, and says itself`() throws {
        // SHA-256 of "henge cluster key" and 32 zero bytes, by another program (sha256sum).
        #expect(Self.key(0).id.description == "8da761fb")
        #expect(ClusterKeyID(Self.key(7).id.description) == Self.key(7).id)
        #expect(ClusterKeyID("+1234567") == nil)
        #expect(ClusterKey(material: [1, 2, 3]) == nil)
    }

    @Test func `a rotation goes through install, use and remove`() throws {
        var ring = KeyRing(Self.key(1))
        try ring.install(Self.key(2))
        #expect(ring.primary == Self.key(1).id)
        #expect(throws: KeyRingError.isPrimary(Self.key(1).id)) { try ring.remove(Self.key(1).id) }
        try ring.use(Self.key(2).id)
        try ring.remove(Self.key(1).id)
        #expect(ring.ids == [Self.key(2).id])
        #expect(throws: KeyRingError.wasRemoved(Self.key(1).id)) { try ring.install(Self.key(1)) }
        #expect(throws: KeyRingError.isUnknown(Self.key(1).id)) { try ring.use(Self.key(1).id) }
    }

    @Test func `no more keys than the limit`() throws {
        var ring = KeyRing(Self.key(1))
        for number in 2...UInt8(KeyRing.keysMax) { try ring.install(Self.key(number)) }
        #expect(throws: KeyRingError.isFull) { try ring.install(Self.key(100)) }
    }

    /// Rings as operators on several sides of splits would make them.
    private static func anyRing(_ random: inout Xoshiro256) -> KeyRing {
        var ring = KeyRing(key(1))
        for _ in 0..<Int.random(in: 0...6, using: &random) {
            let number = key(UInt8.random(in: 1...4, using: &random))
            switch Int.random(in: 0..<3, using: &random) {
            case 0: try? ring.install(number)
            case 1: try? ring.use(number.id)
            default: try? ring.remove(number.id)
            }
        }
        return ring
    }

    @Test(arguments: 1...300)
    func `merging knows no order`(_ seed: Int) {
        var random = Xoshiro256(seed: UInt64(seed))
        let (a, b, c) = (Self.anyRing(&random), Self.anyRing(&random), Self.anyRing(&random))
        func merged(_ rings: KeyRing...) -> KeyRing {
            var result = rings[0]
            for ring in rings.dropFirst() { result.merge(ring) }
            return result
        }
        let (ab, bc) = (merged(a, b), merged(b, c))
        #expect(merged(a, b) == merged(b, a))
        #expect(merged(a, a) == a)
        #expect(merged(ab, ab) == ab)
        #expect(merged(ab, a) == ab)
        // Associative where no key was removed while it came into use elsewhere; there, meeting again settles it.
        #expect(merged(merged(ab, c), merged(a, bc)) == merged(merged(a, bc), merged(ab, c)))
        #expect(merged(a, b)[merged(a, b).primary] != nil)
    }

    @Test func `a key in use on one side survives its removal on the other`() throws {
        var one = KeyRing(Self.key(1))
        try one.install(Self.key(2))
        var other = one
        try one.remove(Self.key(2).id)
        try other.use(Self.key(2).id)
        try other.use(Self.key(1).id)
        try other.use(Self.key(2).id)
        one.merge(other)
        other.merge(one)
        #expect(one == other)
        #expect(one.primary == Self.key(2).id)
    }

    @Test(arguments: 1...100)
    func `what is written is read again, and what is cut off is refused`(_ seed: Int) throws {
        var random = Xoshiro256(seed: UInt64(seed))
        let ring = Self.anyRing(&random)
        let bytes = ring.encoded
        #expect(bytes.count <= KeyRing.encodedBytesMax)
        #expect(try bytes.withUnsafeBytes { try KeyRing(encoded: $0) } == ring)
        let end = Int.random(in: 0..<bytes.count, using: &random)
        #expect(throws: MalformedBytes.self) {
            _ = try Array(bytes[..<end]).withUnsafeBytes { try KeyRing(encoded: $0) }
        }
    }
}
