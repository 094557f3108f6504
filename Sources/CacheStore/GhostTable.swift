/// Remembers which keys were evicted of late, without the keys: 16 bits of hash each.
///
/// Sets of seven fingerprints and a hand that walks around: within a set the oldest is overwritten. A false match (one
/// store in 9,000) puts an item into the main pool early, which costs nothing but a little of the policy's wit.
struct GhostTable {
    private let words: UnsafeMutablePointer<UInt16>
    private let setCount: Int

    private static let setWords = 8
    static let setBytes = setWords * 2

    /// `memory` holds `setCount` sets, zeroed.
    init(memory: UnsafeMutableRawPointer, setCount: Int) {
        self.setCount = setCount
        words = memory.bindMemory(to: UInt16.self, capacity: setCount * Self.setWords)
    }

    /// Bits that neither choose a slice nor a bucket choose set and fingerprint.
    @inline(__always)
    private func locate(_ hash: UInt64) -> (set: UnsafeMutablePointer<UInt16>, fingerprint: UInt16) {
        let mixed = hash &* 0x9e37_79b9_7f4a_7c15
        let index = ((mixed & 0xffff_ffff) &* UInt64(setCount)) &>> 32
        let fingerprint = UInt16(truncatingIfNeeded: mixed &>> 32)
        return (words + Int(index) * Self.setWords, fingerprint == 0 ? 1 : fingerprint)
    }

    /// The line that `insert` and `remove` of a hash read.
    func line(_ hash: UInt64) -> UnsafeRawPointer { UnsafeRawPointer(locate(hash).set) }

    func insert(_ hash: UInt64) {
        let (set, fingerprint) = locate(hash)
        let hand = Int(set[7])
        set[hand] = fingerprint
        set[7] = hand == 6 ? 0 : UInt16(hand &+ 1)
    }

    /// Whether the hash was there; it is forgotten.
    func remove(_ hash: UInt64) -> Bool {
        let (set, fingerprint) = locate(hash)
        for index in 0..<7 where set[index] == fingerprint {
            set[index] = 0
            return true
        }
        return false
    }
}
