import ClusterCore
import Testing

@testable import Sealing

@Suite struct ReplayWindowTests {
    @Test(arguments: 1...200)
    func `the window knows what a set knows`(_ seed: Int) {
        var random = Xoshiro256(seed: UInt64(seed))
        let start = UInt64.random(in: 0...1 << 40, using: &random)
        var window = ReplayWindow(after: start)
        var seen: Set<UInt64> = []
        var highest = start
        for _ in 0..<2000 {
            let low = max(highest, 200) - 200
            let number = UInt64.random(in: low...(highest + UInt64.random(in: 1...200, using: &random)), using: &random)
            let isLate = number <= highest && highest - number >= ReplayWindow.width
            let expected = number > start && !isLate && !seen.contains(number)
            #expect(window.isFresh(number) == expected, "seed \(seed), \(number) at \(highest)")
            if expected {
                window.note(number)
                seen.insert(number)
                highest = max(highest, number)
            }
        }
    }
}
