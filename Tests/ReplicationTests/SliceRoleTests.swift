import ClusterCore
import Testing

@testable import Replication

@Suite struct SliceRoleTests {
    private func stream(_ state: OutStream.State, acknowledged: UInt64) -> OutStream {
        OutStream(peer: PeerNumber(2), id: 1, state: state, acknowledgedPosition: acknowledged)
    }

    @Test func `clients wait for copies that are in sync or adopted, and for no other`() {
        let now = Instant(nanoseconds: 1)
        var holder = Holder(epoch: 1, phase: .stable, position: 9)
        #expect(holder.acknowledgedPosition == .max)
        holder.streams = [
            stream(.offered(until: now), acknowledged: 0),
            stream(.copying(cursor: 0, inventory: [:], awaiting: 0), acknowledged: 1),
            stream(.finishing(last: 3), acknowledged: 2),
        ]
        #expect(holder.acknowledgedPosition == .max)
        holder.streams.append(stream(.inSync, acknowledged: 8))
        #expect(holder.acknowledgedPosition == 8)
        holder.streams.append(stream(.adopting(since: now), acknowledged: 7))
        #expect(holder.acknowledgedPosition == 7)
    }

    @Test func `what a stream's states mean`() {
        let now = Instant(nanoseconds: 1)
        let states: [OutStream.State] = [
            .offered(until: now), .copying(cursor: 0, inventory: [:], awaiting: 0), .finishing(last: 1), .inSync,
            .adopting(since: now),
        ]
        let streams = states.map { stream($0, acknowledged: 0) }
        #expect(streams.map(\.isRequired) == [false, false, false, true, true])
        #expect(streams.map(\.isFlowing) == [false, true, true, true, true])
        #expect(streams.map(\.isLearning) == [true, true, true, false, false])
        #expect(streams.map(\.isInSync) == [false, false, false, true, false])
        #expect(streams.map(\.isTimed) == [true, false, true, false, true])
    }

    @Test func `a role is changed in place`() {
        var role = SliceRole.holder(Holder(epoch: 1, phase: .stable, position: 0))
        role.holder.position += 5
        role.holder.epoch = 2
        #expect(role.holder.position == 5)
        #expect(role.isHolder)
        role = .copy(
            Copy(holder: PeerNumber(2), epoch: 2, stream: 3, position: 5, state: .learned(at: Instant(nanoseconds: 0)))
        )
        role.copy.applied = 4
        #expect(role.copy.applied == 4)
        #expect(!role.isHolder)
    }
}
