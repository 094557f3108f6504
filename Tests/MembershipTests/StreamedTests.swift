import ClusterCore
import Testing

@testable import Membership
@testable import MembershipSimulation

/// Where UDP does not pass and TCP does.
@Suite struct StreamedTests {
    /// Hands what one node sends to the other, by TCP only or by both ways, and returns what UDP would have carried.
    private struct Pair {
        var nodes: [Membership] = []
        var now = Instant(nanoseconds: 1_000_000_000)
        var isUDPOpen = true
        /// Nothing is read by node 1; it waits, as for a process that stands still.
        var waiting: [(bytes: [UInt8], isStreamed: Bool)]?
        var events: [[MembershipEvent]] = [[], []]

        init() {
            for index in 0..<2 {
                let record = MemberRecord(
                    id: NodeID(high: 0, low: UInt64(index + 1)),
                    generation: 1,
                    name: "n\(index)",
                    client: GossipSimulator.endpoint(index),
                    cluster: GossipSimulator.endpoint(index),
                    admin: GossipSimulator.endpoint(index)
                )
                nodes.append(
                    Membership(
                        configuration: .init(),
                        own: record,
                        seeds: [GossipSimulator.seed(0)],
                        now: now,
                        randomSeed: UInt64(index + 7)
                    )
                )
            }
        }

        mutating func carryOut(_ effects: [MembershipEffect], of index: Int) {
            for effect in effects {
                switch effect {
                case .send(let bytes, let to): if isUDPOpen { deliver(bytes, to, from: index, isStreamed: false) }
                case .stream(let bytes, let to): deliver(bytes, to, from: index, isStreamed: true)
                case .resolve(let host):
                    call(index) { $0.resolved(host, to: [GossipSimulator.endpoint(0)], now: $1, effects: &$2) }
                case .joinedExisting, .formed: call(index) { $0.setLifecycle(.up, now: $1, effects: &$2) }
                case .event(let event): events[index].append(event)
                case .pull, .changed, .stop: break
                }
            }
        }

        private mutating func deliver(_ bytes: [UInt8], _ to: Endpoint, from: Int, isStreamed: Bool) {
            let index = to == GossipSimulator.endpoint(0) ? 0 : 1
            if index == 1, waiting != nil {
                waiting?.append((bytes, isStreamed))
                return
            }
            receive(bytes, at: index, from: from, isStreamed: isStreamed)
        }

        private mutating func receive(_ bytes: [UInt8], at index: Int, from: Int, isStreamed: Bool) {
            call(index) { node, now, effects in
                bytes.withUnsafeBytes {
                    node.receive(
                        $0,
                        from: GossipSimulator.endpoint(from),
                        isStreamed: isStreamed,
                        now: now,
                        effects: &effects
                    )
                }
            }
        }

        mutating func goOn() {
            let inbox = waiting ?? []
            waiting = nil
            for (bytes, isStreamed) in inbox.sorted(by: { $0.isStreamed && !$1.isStreamed }) {
                receive(bytes, at: 1, from: 0, isStreamed: isStreamed)
            }
        }

        mutating func call(
            _ index: Int,
            _ body: (inout Membership, Instant, inout [MembershipEffect]) -> Void
        ) {
            var effects: [MembershipEffect] = []
            body(&nodes[index], now, &effects)
            carryOut(effects, of: index)
        }

        mutating func run(seconds: UInt64) {
            let end = now.advanced(byMilliseconds: seconds * 1000)
            while now < end {
                now = now.advanced(byMilliseconds: 5)
                for index in 0..<2 where index == 0 || waiting == nil {
                    if nodes[index].nextDeadline <= now { call(index) { $0.advance(to: $1, effects: &$2) } }
                }
            }
        }

        var bothUp: Bool {
            nodes.allSatisfy { $0.members.count { $0.lifecycle == .up && $0.liveness == .alive } == 2 }
        }

        func count(_ kind: MembershipEvent.Kind) -> Int { events.joined().count { $0.kind == kind } }
    }

    @Test func `a member that only TCP reaches stays, is named, and is asked by UDP again`() {
        var pair = Pair()
        pair.run(seconds: 5)
        #expect(pair.bothUp)
        #expect(pair.count(.datagramsBlocked) == 0)
        pair.isUDPOpen = false
        pair.run(seconds: 30)
        #expect(pair.bothUp)
        #expect(pair.count(.datagramsBlocked) == 2)
        #expect(pair.count(.suspected) == 0 && pair.count(.down) == 0)
        #expect(pair.nodes[0].statistics.probesRescued > 0)
        pair.isUDPOpen = true
        let before = pair.nodes.map(\.statistics.streamsSent)
        pair.run(seconds: 5)
        #expect(pair.count(.datagramsPass) == 2)
        pair.run(seconds: 5)
        let after = pair.nodes.map(\.statistics.streamsSent)
        #expect(after[0] - before[0] < 12, "all goes by UDP again")
    }

    @Test func `a node that UDP does not reach joins`() {
        var pair = Pair()
        pair.isUDPOpen = false
        pair.run(seconds: 10)
        #expect(pair.bothUp)
    }

    @Test func `a node that reads after a pause what came over TCP proves nothing about UDP`() {
        var pair = Pair()
        pair.run(seconds: 5)
        pair.waiting = []
        pair.run(seconds: 20)
        #expect(pair.count(.down) == 1)
        pair.goOn()
        pair.run(seconds: 10)
        #expect(pair.bothUp)
        #expect(pair.count(.datagramsBlocked) == 0)
    }

    @Test func `what comes over TCP all at once is one proof`() {
        var streamed = StreamedEndpoints()
        let endpoint = Endpoint(.v4(1), port: 1)
        let start = Instant(nanoseconds: 1 << 40)
        for time in [0, 1, 2, 150, 199, 200, 201, 399] as [UInt64] {
            let isProven = streamed.noteStreamed(endpoint, now: start.advanced(byMilliseconds: time))
            #expect(!isProven, "\(time)")
        }
        let proofs = [400, 800].map { streamed.noteStreamed(endpoint, now: start.advanced(byMilliseconds: $0)) }
        #expect(proofs == [true, false], "known already")
        #expect(streamed.contains(endpoint))
    }

    @Test func `what is counted has a limit`() {
        var streamed = StreamedEndpoints()
        for index in 0..<10_000 {
            for proof in 0..<UInt64(StreamedEndpoints.proofs) {
                let now = Instant(nanoseconds: proof * StreamedEndpoints.proofSpacingMilliseconds * 1_000_000)
                _ = streamed.noteStreamed(Endpoint(.v4(UInt32(index)), port: 1), now: now)
            }
        }
        #expect(streamed.count == StreamedEndpoints.endpointsMax)
        let passes = [streamed.notePassed(Endpoint(.v4(1), port: 1)), streamed.notePassed(Endpoint(.v4(1), port: 1))]
        #expect(passes == [true, false])
        #expect(streamed.count == StreamedEndpoints.endpointsMax - 1)
    }
}
