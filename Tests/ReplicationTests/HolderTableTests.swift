import ClusterCore
import Testing

@testable import Replication

@Suite struct HolderTableTests {
    private let a = PeerNumber(1)
    private let b = PeerNumber(2)
    private let c = PeerNumber(3)

    private func expect(_ table: HolderTable, _ epoch: UInt32, _ holder: PeerNumber, _ comment: Comment? = nil) {
        #expect(table.epochs[5] == epoch, comment)
        #expect(table.holders[5] == holder, comment)
    }

    @Test func `a later epoch replaces, an older one changes nothing`() {
        var table = HolderTable()
        expect(table, 0, .none)
        #expect(table.record(slice: 5, epoch: 3, holder: a, isVote: true) == true)
        expect(table, 3, a)
        let before = table.changes
        #expect(table.record(slice: 5, epoch: 2, holder: b, isVote: true) == false)
        expect(table, 3, a)
        #expect(table.changes == before)
        #expect(table.record(slice: 5, epoch: 4, holder: b, isVote: true) == true)
        expect(table, 4, b)
    }

    @Test func `a vote and the holder's own word vouch for a record, another's table does not`() {
        var table = HolderTable()
        #expect(!table.isVouchedFor(5))
        table.record(slice: 5, epoch: 1, holder: a, isVote: false)
        #expect(!table.isVouchedFor(5))
        table.record(slice: 5, epoch: 2, holder: b, isVote: true)
        #expect(table.isVouchedFor(5))
        #expect(table.record(slice: 5, epoch: 1, holder: c, isVote: false) == false)
        #expect(table.isVouchedFor(5), "what changed nothing takes nothing back")
        table.record(slice: 5, epoch: 3, holder: c, isVote: false)
        #expect(!table.isVouchedFor(5))
        #expect(table.correct(slice: 5, epoch: 4, holder: a) == true)
        #expect(table.isVouchedFor(5))
    }

    @Test func `in the same epoch a known holder stays`() {
        var table = HolderTable()
        table.record(slice: 5, epoch: 3, holder: a, isVote: true)
        #expect(table.record(slice: 5, epoch: 3, holder: b, isVote: true) == false)
        #expect(table.record(slice: 5, epoch: 3, holder: .none, isVote: true) == false)
        expect(table, 3, a)
        table.clear(slice: 5)
        expect(table, 3, .none)
        #expect(table.record(slice: 5, epoch: 3, holder: b, isVote: true) == true)
        expect(table, 3, b)
    }

    @Test func `a holder's own word corrects the same epoch`() {
        var table = HolderTable()
        table.record(slice: 5, epoch: 3, holder: a, isVote: true)
        #expect(table.correct(slice: 5, epoch: 3, holder: b) == true)
        expect(table, 3, b)
        #expect(table.correct(slice: 5, epoch: 3, holder: b) == false)
        #expect(table.correct(slice: 5, epoch: 2, holder: c) == false)
        expect(table, 3, b)
        #expect(table.correct(slice: 5, epoch: 4, holder: c) == true)
        expect(table, 4, c)
    }

    @Test func `a later epoch that nobody serves in does not speak against a holder's own word`() {
        var table = HolderTable()
        table.record(slice: 5, epoch: 3, holder: a, isVote: true)
        table.record(slice: 5, epoch: 7, holder: b, isVote: true)
        table.clear(slice: 5)
        expect(table, 7, .none)
        #expect(table.correct(slice: 5, epoch: 3, holder: a) == true)
        expect(table, 3, a)
    }

    @Test func `a claim that is given up leaves what stood before`() {
        var table = HolderTable()
        table.record(slice: 5, epoch: 3, holder: a, isVote: true)
        table.record(slice: 5, epoch: 4, holder: b, isVote: true)
        table.withdraw(slice: 5, epoch: 4, holder: b)
        expect(table, 3, a)
        // Twice is once.
        table.withdraw(slice: 5, epoch: 4, holder: b)
        expect(table, 3, a)
    }

    @Test func `only the claim that is named is given up`() {
        var table = HolderTable()
        table.record(slice: 5, epoch: 4, holder: b, isVote: true)
        table.withdraw(slice: 5, epoch: 4, holder: a)
        table.withdraw(slice: 5, epoch: 3, holder: b)
        expect(table, 4, b)
    }

    @Test func `a claim that is given up after another one replaced it does not come back`() {
        var table = HolderTable()
        table.record(slice: 5, epoch: 3, holder: a, isVote: true)
        table.record(slice: 5, epoch: 4, holder: b, isVote: true)
        table.record(slice: 5, epoch: 5, holder: c, isVote: true)
        table.withdraw(slice: 5, epoch: 4, holder: b)
        expect(table, 5, c)
        table.withdraw(slice: 5, epoch: 5, holder: c)
        expect(table, 3, a, "what stood before both stands again")
    }

    @Test(arguments: [[4, 5, 6], [6, 5, 4], [5, 4, 6], [5, 6, 4], [4, 6, 5], [6, 4, 5]] as [[UInt32]])
    func `claims one over the other leave what stood before the first, in whatever order they are given up`(
        order: [UInt32]
    ) {
        var table = HolderTable()
        table.record(slice: 5, epoch: 3, holder: a, isVote: true)
        for epoch in 4...6 as ClosedRange<UInt32> { table.record(slice: 5, epoch: epoch, holder: b, isVote: true) }
        for (index, epoch) in order.enumerated() {
            let left = order.suffix(from: index).max() ?? 0
            expect(table, left, b)
            table.withdraw(slice: 5, epoch: epoch, holder: b)
        }
        expect(table, 3, a)
    }

    @Test func `of very many claims one over the other the oldest is forgotten`() {
        var table = HolderTable()
        table.record(slice: 5, epoch: 1, holder: a, isVote: true)
        for epoch in 2...40 as ClosedRange<UInt32> { table.record(slice: 5, epoch: epoch, holder: b, isVote: true) }
        for epoch in (31...40 as ClosedRange<UInt32>).reversed() {
            expect(table, epoch, b)
            table.withdraw(slice: 5, epoch: epoch, holder: b)
        }
        #expect(table.holders[5] == .none, "\(table.epochs[5])")
    }

    @Test func `nothing stands again behind a holder's own word`() {
        var table = HolderTable()
        table.record(slice: 5, epoch: 3, holder: a, isVote: true)
        #expect(table.correct(slice: 5, epoch: 4, holder: b) == true)
        table.withdraw(slice: 5, epoch: 4, holder: b)
        expect(table, 4, .none)
    }

    @Test func `digests are the sums over what a peer holds`() {
        for seed in 1...20 as ClosedRange<UInt64> {
            var random = Xoshiro256(seed: seed)
            var table = HolderTable()
            var changes = table.changes
            for _ in 0..<2000 {
                let slice = Int.random(in: 0..<40, using: &random) * 400
                let epoch = UInt32.random(in: 0...12, using: &random)
                let holder = PeerNumber(UInt32.random(in: 0...4, using: &random))
                let before = (table.epochs[slice], table.holders[slice])
                var isReported = true
                switch Int.random(in: 0..<8, using: &random) {
                case 0, 1, 2: isReported = table.record(slice: slice, epoch: epoch, holder: holder, isVote: true)
                case 3, 4: isReported = table.correct(slice: slice, epoch: epoch, holder: holder)
                case 5, 6: table.withdraw(slice: slice, epoch: table.epochs[slice], holder: table.holders[slice])
                default: table.clear(slice: slice)
                }
                let hasChanged = before != (table.epochs[slice], table.holders[slice])
                #expect(isReported || !hasChanged, "seed \(seed)")
                #expect(!hasChanged || table.changes > changes, "seed \(seed)")
                changes = table.changes
            }
            for peer in (1...5 as ClosedRange<UInt32>).map({ PeerNumber($0) }) {
                var sum: UInt64 = 0
                for slice in 0..<Slice.count where table.holders[slice] == peer {
                    sum &+= HolderTable.digest(slice: slice, epoch: table.epochs[slice])
                }
                #expect(table.digest(of: peer) == sum, "seed \(seed), peer \(peer)")
            }
        }
    }

    @Test func `digests of other slices and epochs differ`() {
        var seen: Set<UInt64> = []
        for slice in 0..<100 {
            for epoch in 1...100 as ClosedRange<UInt32> { seen.insert(HolderTable.digest(slice: slice, epoch: epoch)) }
        }
        #expect(seen.count == 10_000)
    }
}
