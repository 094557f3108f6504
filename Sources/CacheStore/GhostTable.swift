import Glibc

/// Remembers which keys were evicted of late, without the keys: 16 bits of hash each.
///
/// Sets of seven fingerprints and a hand that walks around: within a set the oldest is overwritten. A false match (one
/// store in 9,000) puts an item into the main queue early, which costs nothing but a little of the policy's wit.
struct GhostTable: ~Copyable {
    private let words: UnsafeMutablePointer<UInt16>
    private let setCount: Int

    private static let setWords = 8

    /// 1/128 of the memory, 3,600 ghosts a megabyte: about one for each item of 290 bytes.
    private static func setCount(memoryBytes: Int) -> Int { max(1, memoryBytes / 128 / 16) }

    /// What the ghosts of a shard cost, in bytes.
    static func charge(memoryBytes: Int) -> Int { Block.charge(setCount(memoryBytes: memoryBytes) * 16) }

    init(memoryBytes: Int) {
        setCount = Self.setCount(memoryBytes: memoryBytes)
        guard let raw = calloc(setCount, 16) else {
            preconditionFailure("no memory for \(setCount) sets of ghosts")
        }
        words = raw.bindMemory(to: UInt16.self, capacity: setCount * Self.setWords)
    }

    deinit {
        free(words)
    }

    /// Bits that neither choose a shard's slice nor its first buckets choose set and fingerprint.
    @inline(__always)
    private func locate(_ hash: UInt64) -> (set: UnsafeMutablePointer<UInt16>, fingerprint: UInt16) {
        let index = ((hash & 0xffff_ffff) &* UInt64(setCount)) &>> 32
        let fingerprint = UInt16(truncatingIfNeeded: hash &>> 32)
        return (words + Int(index) * Self.setWords, fingerprint == 0 ? 1 : fingerprint)
    }

    mutating func insert(_ hash: UInt64) {
        let (set, fingerprint) = locate(hash)
        let hand = Int(set[7])
        set[hand] = fingerprint
        set[7] = hand == 6 ? 0 : UInt16(hand &+ 1)
    }

    /// Whether the hash was there; it is forgotten.
    mutating func remove(_ hash: UInt64) -> Bool {
        let (set, fingerprint) = locate(hash)
        for index in 0..<7 where set[index] == fingerprint {
            set[index] = 0
            return true
        }
        return false
    }
}
