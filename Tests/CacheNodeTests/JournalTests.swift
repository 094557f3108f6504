import ClusterCore
import Membership
import Testing

@testable import CacheNode

@Suite struct JournalTests {
    private func down(_ number: UInt64) -> MembershipEvent { .down(NodeID(high: 0, low: number), name: "n\(number)") }

    @Test func `the last events are kept in their order, the dropped ones counted`() {
        var journal = MembershipJournal(entriesMax: 3)
        #expect(journal.entries.isEmpty && journal.dropped == 0)
        for number in 1...8 as ClosedRange<UInt64> {
            journal.append(down(number), unixMilliseconds: 1000 + number)
            let oldest = number > 3 ? number - 2 : 1
            #expect(journal.entries.map(\.number) == Array(oldest...number))
            #expect(journal.entries.map(\.event) == (oldest...number).map(down))
            #expect(journal.entries.last?.unixMilliseconds == 1000 + number)
            #expect(journal.dropped == oldest - 1 && journal.total == number)
        }
    }

    @Test func `every kind is counted by itself, dropped ones included`() {
        var journal = MembershipJournal(entriesMax: 1)
        for number in 1...4 as ClosedRange<UInt64> { journal.append(down(number), unixMilliseconds: 0) }
        journal.append(.stalled(milliseconds: 9), unixMilliseconds: 0)
        for kind in MembershipEvent.Kind.allCases {
            #expect(journal.count(of: kind) == (kind == .down ? 4 : kind == .stalled ? 1 : 0))
        }
    }
}
