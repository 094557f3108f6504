import ClusterCore
import MembershipSimulation
import Testing

@testable import Membership

extension MemberTable {
    /// Whether what is kept beside the members is what a look at all of them finds.
    fileprivate var isConsistent: Bool {
        let members = peers.filter { !$0.record.isTombstone }
        return peers.map(\.record.id) == peers.map(\.record.id).sorted()
            && pending
                == indices { $0.outbox != nil || $0.suspicion != nil || $0.verdict != nil }
            && firstExpiry == peers.compactMap(\.expires).min() ?? .distantFuture
            && hashSum == members.reduce(0) { $0 &+ $1.record.hash }
            && memberCount == members.count
            && bucketSums
                == (0..<MemberTable.bucketCount).map { bucket in
                    let inside = members.filter { MemberTable.bucket(of: $0.record.id) == bucket }
                    return UInt32(truncatingIfNeeded: inside.reduce(0) { $0 &+ $1.record.hash })
                }
            && upCount == members.count { $0.record.lifecycle == .up && $0.record.isLiving }
            && aliveCount == members.count { $0.record.liveness == .alive }
    }
}

@Suite struct `The member table` {
    @Test(arguments: 1...5 as ClosedRange<UInt64>)
    func `what it keeps beside the members is what a look at all of them finds`(seed: UInt64) {
        var random = Xoshiro256(seed: seed)
        var table = MemberTable()
        for _ in 0..<2000 {
            let index = table.peers.isEmpty ? 0 : Int.random(in: table.peers.indices, using: &random)
            switch Int.random(in: 0..<8, using: &random) {
            case 0 where table.peers.count < 40: _ = table.insert(Samples.record(&random))
            case _ where table.peers.isEmpty: continue
            case 1: table.replaceRecord(at: index, with: Samples.record(&random, id: table.peers[index].record.id))
            case 2 where table.peers.count > 20: table.remove(at: index)
            default:
                let instant = Instant(nanoseconds: UInt64.random(in: 0...9, using: &random))
                let field = Int.random(in: 0..<4, using: &random)
                let isThere = Bool.random(using: &random)
                table.edit(index) {
                    switch field {
                    case 0: $0.outbox = isThere ? Outbox(next: instant) : nil
                    case 1: $0.suspicion = isThere ? Suspicion(since: instant) : nil
                    case 2: $0.verdict = isThere ? Verdict(record: $0.record, ageSeconds: 0, deadline: instant) : nil
                    default: $0.expires = isThere ? instant : nil
                    }
                }
            }
            #expect(table.isConsistent, "seed \(seed)")
            if !table.isConsistent { return }
        }
    }

    @Test func `it holds while members crash, leave and come back`() {
        var simulator = GossipSimulator.cluster(40, seedCount: 3, seed: 41)
        for step in 0..<60 {
            let index = step * 7 % 40
            if step % 3 == 0, simulator.nodes[index].membership?.ownRecord.lifecycle == .up {
                simulator.call(index) { $0.setLifecycle(.left, now: $1, effects: &$2) }
            } else if simulator.nodes[index].membership == nil {
                simulator.start(index)
            } else if step % 3 == 1 {
                simulator.crash(index)
            }
            simulator.run(milliseconds: 700)
            for node in simulator.nodes {
                guard let table = node.membership?.table else { continue }
                #expect(table.isConsistent, "step \(step)")
            }
        }
    }
}
