/// Finds a short list of faults that breaks the same invariant as a whole plan (Zeller and Hildebrandt: "Simplifying
/// and isolating failure-inducing input", 2002, with complements only).
package struct GossipShrinker {
    package struct Result: Sendable {
        /// The numbers of the plan's steps that are enough.
        package var steps: [Int]
        package var runs: Int
    }

    private let runsMax: Int
    private var runs = 0

    package init(runsMax: Int = 200) { self.runsMax = runsMax }

    /// Shrinks the steps `0..<count`; `isBroken` runs the steps that it is given, and is deterministic.
    package mutating func shrink(_ count: Int, isBroken: ([Int]) -> Bool) -> Result {
        var steps = Array(0..<count)
        var parts = 2
        while !steps.isEmpty, runs < runsMax {
            let size = max(1, (steps.count + parts - 1) / parts)
            var isSmaller = false
            for start in stride(from: 0, to: steps.count, by: size) where runs < runsMax {
                var rest = steps
                rest.removeSubrange(start..<min(start + size, steps.count))
                runs += 1
                if isBroken(rest) {
                    steps = rest
                    isSmaller = true
                    break
                }
            }
            if isSmaller {
                parts = max(2, parts - 1)
            } else if size == 1 {
                break
            } else {
                parts = min(steps.count, parts * 2)
            }
        }
        return Result(steps: steps, runs: runs)
    }
}
