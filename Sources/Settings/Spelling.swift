/// Guesses what a mistyped word was meant to be.
package enum Spelling {
    /// The longest word that is compared, in bytes; longer ones are no typing errors.
    private static let wordBytesMax = 64

    /// The candidate nearest to `word`, nil where none is near: at most two typing errors, or a third of the word's
    /// length. The first of equals.
    package static func nearest(to word: String, among candidates: some Sequence<String>) -> String? {
        guard word.utf8.count <= wordBytesMax else { return nil }
        var best: (distance: Int, candidate: String)?
        for candidate in candidates {
            let distance = distance(Array(word.lowercased().utf8), Array(candidate.lowercased().utf8))
            if distance < best?.distance ?? Int.max { best = (distance, candidate) }
        }
        guard let best, best.distance <= max(2, word.utf8.count / 3), best.distance < word.utf8.count else {
            return nil
        }
        return best.candidate
    }

    /// How many bytes must be inserted, removed, replaced or swapped with their neighbour to turn one into the other
    /// ("optimal string alignment").
    static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
        var beforeLast: [Int] = []
        var last = Array(0...right.count)
        for (row, a) in left.enumerated() {
            var current = [row + 1]
            for (column, b) in right.enumerated() {
                var cost = min(last[column] + (a == b ? 0 : 1), last[column + 1] + 1, current[column] + 1)
                if row > 0, column > 0, a == right[column - 1], left[row - 1] == b {
                    cost = min(cost, beforeLast[column - 1] + 1)
                }
                current.append(cost)
            }
            beforeLast = last
            last = current
        }
        return last[right.count]
    }
}
