package import ClusterCore

/// Spoils bytes: cuts them short, changes, inserts and repeats some, puts the front of one before the end of another, or
/// draws them at random.
package struct ByteMutator: Sendable {
    /// What is spoiled.
    private let corpus: [[UInt8]]
    private let bytesMax: Int

    /// - Parameters:
    ///   - corpus: not empty.
    ///   - bytesMax: longer results are cut.
    package init(corpus: [[UInt8]], bytesMax: Int) {
        precondition(!corpus.isEmpty, "there is nothing to spoil")
        self.corpus = corpus
        self.bytesMax = bytesMax
    }

    package func next(using random: inout Xoshiro256) -> [UInt8] {
        var bytes = pick(&random)
        switch Int.random(in: 0..<16, using: &random) {
        case 0: bytes = Self.draw(Int.random(in: 0...256, using: &random), &random)
        case 1: break
        case 2, 3: bytes.removeLast(Int.random(in: 0...bytes.count, using: &random))
        case 4, 5, 6:
            let other = pick(&random)
            let cut = Int.random(in: 0...bytes.count, using: &random)
            let from = Bool.random(using: &random) ? cut : Int.random(in: 0...other.count, using: &random)
            bytes = Array(bytes[..<cut] + other.dropFirst(from))
        default:
            for _ in 0..<Int.random(in: 1...6, using: &random) { spoil(&bytes, &random) }
        }
        return Array(bytes.prefix(bytesMax))
    }

    private func pick(_ random: inout Xoshiro256) -> [UInt8] { corpus.randomElement(using: &random) ?? [] }

    private func spoil(_ bytes: inout [UInt8], _ random: inout Xoshiro256) {
        guard !bytes.isEmpty else { return }
        // What tells what a thing is, most of all its length, stands in front.
        let end = Bool.random(using: &random) ? bytes.count : min(bytes.count, 80)
        let place = Int.random(in: 0..<end, using: &random)
        switch Int.random(in: 0..<6, using: &random) {
        case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 1: bytes[place] = [0, 1, 0x7f, 0x80, 0xfe, 0xff].randomElement(using: &random) ?? 0
        case 2:
            // The ends of the range of a whole integer.
            let width = [2, 4, 8].randomElement(using: &random) ?? 2
            let byte: UInt8 = Bool.random(using: &random) ? 0xff : 0
            for index in place..<min(place + width, bytes.count) { bytes[index] = byte }
        case 3: bytes.insert(contentsOf: Self.draw(Int.random(in: 1...16, using: &random), &random), at: place)
        case 4: bytes.removeSubrange(place..<min(bytes.count, place + Int.random(in: 1...16, using: &random)))
        default:
            let piece = bytes[place..<min(bytes.count, place + Int.random(in: 1...64, using: &random))]
            bytes.insert(contentsOf: piece, at: place)
        }
    }

    private static func draw(_ count: Int, _ random: inout Xoshiro256) -> [UInt8] {
        (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
    }
}
