import ClusterCore
import Testing

@testable import Replication

private let start = Instant(nanoseconds: 1_000_000_000_000)

private func after(_ milliseconds: UInt64) -> Instant { start.advanced(byMilliseconds: milliseconds) }

private func peer(_ number: UInt32) -> PeerNumber { PeerNumber(number) }

@Suite struct ServingLeaseTests {
    private let own = PeerNumber(1)
    private let three = Quorum(voters: [PeerNumber(1), PeerNumber(2), PeerNumber(3)], needed: 2)
    private let ended = Instant(nanoseconds: 0)

    @Test func `a lease counts from the sending of the ping, not from its answer`() {
        var lease = ServingLease(own: own, lengthMilliseconds: 750)
        let number = lease.ping(now: start)
        #expect(lease.pong(from: peer(2), number: number) == start)
        #expect(lease.validUntil(quorum: three) == after(750))
    }

    @Test func `nothing is served before a majority has answered`() {
        var lease = ServingLease(own: own, lengthMilliseconds: 750)
        let five = Quorum(voters: (1...5).map(peer), needed: 3)
        #expect(lease.validUntil(quorum: five) == ended)
        let number = lease.ping(now: start)
        #expect(lease.validUntil(quorum: five) == ended)
        _ = lease.pong(from: peer(2), number: number)
        #expect(lease.validUntil(quorum: five) == ended)
        // The same voice twice is one voice, and a stranger's is none.
        _ = lease.pong(from: peer(2), number: number)
        _ = lease.pong(from: peer(9), number: number)
        #expect(lease.validUntil(quorum: five) == ended)
        _ = lease.pong(from: peer(4), number: number)
        #expect(lease.validUntil(quorum: five) == after(750))
    }

    @Test func `the weakest of the needed answers decides`() {
        var lease = ServingLease(own: own, lengthMilliseconds: 750)
        let five = Quorum(voters: (1...5).map(peer), needed: 3)
        for (number, at) in [(2, 0), (3, 100), (4, 200)] as [(UInt32, UInt64)] {
            let ping = lease.ping(now: after(at))
            _ = lease.pong(from: peer(number), number: ping)
        }
        // Itself, 4 and 3 are the three newest.
        #expect(lease.validUntil(quorum: five) == after(850))
        lease.forget(peer(4))
        #expect(lease.validUntil(quorum: five) == after(750))
        lease.forget(peer(3))
        #expect(lease.validUntil(quorum: five) == ended)
    }

    @Test func `answers of random order give what sorting by hand gives`() {
        for seed in 1...200 as ClosedRange<UInt64> {
            var random = Xoshiro256(seed: seed)
            var lease = ServingLease(own: own, lengthMilliseconds: 750)
            let voters = (1...UInt32.random(in: 1...7, using: &random)).map(peer)
            let quorum = Quorum(voters: voters, needed: voters.count / 2 + 1)
            var newest: [PeerNumber: Instant] = [:]
            var pings: [(number: UInt64, at: Instant)] = []
            for step in 0..<12 as Range<UInt64> {
                pings.append((lease.ping(now: after(step * 50)), after(step * 50)))
                for _ in 0..<3 {
                    let from = peer(UInt32.random(in: 2...8, using: &random))
                    guard let ping = pings.randomElement(using: &random) else { continue }
                    _ = lease.pong(from: from, number: ping.number)
                    newest[from] = max(newest[from] ?? ping.at, ping.at)
                }
            }
            let times = voters.compactMap { $0 == own ? Instant.distantFuture : newest[$0] }.sorted(by: >)
            let expected =
                times.count >= quorum.needed ? times[quorum.needed - 1].advanced(byMilliseconds: 750) : ended
            #expect(lease.validUntil(quorum: quorum) == expected, "seed \(seed)")
        }
    }

    @Test func `a late answer to an older ping does not shorten the lease`() {
        var lease = ServingLease(own: own, lengthMilliseconds: 750)
        let first = lease.ping(now: start)
        let second = lease.ping(now: after(200))
        _ = lease.pong(from: peer(2), number: second)
        #expect(lease.pong(from: peer(2), number: first) == start)
        #expect(lease.validUntil(quorum: three) == after(950))
    }

    @Test func `an answer to a ping that is forgotten, or was never sent, counts nothing`() {
        var lease = ServingLease(own: own, lengthMilliseconds: 750)
        let first = lease.ping(now: start)
        for step in 1...16 as ClosedRange<UInt64> { _ = lease.ping(now: after(step)) }
        #expect(lease.pong(from: peer(2), number: first) == nil)
        #expect(lease.pong(from: peer(2), number: 99) == nil)
        #expect(lease.pong(from: peer(2), number: 0) == nil)
        #expect(lease.validUntil(quorum: three) == ended)
    }

    @Test func `a node that is alone may serve for ever`() {
        let lease = ServingLease(own: own, lengthMilliseconds: 750)
        #expect(lease.validUntil(quorum: Quorum(voters: [own], needed: 1)) == .distantFuture)
    }

    @Test func `a joiner without a vote needs the others' majority`() {
        var lease = ServingLease(own: own, lengthMilliseconds: 750)
        let others = Quorum(voters: [peer(2), peer(3), peer(4)], needed: 2)
        let number = lease.ping(now: start)
        _ = lease.pong(from: peer(2), number: number)
        #expect(lease.validUntil(quorum: others) == ended)
        _ = lease.pong(from: peer(3), number: number)
        #expect(lease.validUntil(quorum: others) == after(750))
    }

    @Test func `a quorum without voters is never met by a lease`() {
        let lease = ServingLease(own: own, lengthMilliseconds: 750)
        #expect(lease.validUntil(quorum: Quorum(voters: [], needed: 0)) == ended)
        #expect(lease.validUntil(quorum: Quorum(voters: [], needed: 1)) == ended)
    }

    @Test func `a quorum counts voters alone`() {
        #expect(three.isMet { $0 != peer(3) })
        #expect(!three.isMet { $0 == peer(3) })
        #expect(!three.isMet { $0 == peer(9) })
    }
}

@Suite struct WitnessTests {
    @Test func `nobody has been silent for longer than this process listens`() {
        let witness = Witness(now: start)
        #expect(witness.silenceMilliseconds(of: peer(2), now: start) == 0)
        #expect(witness.silenceMilliseconds(of: peer(2), now: after(300)) == 300)
    }

    @Test func `silence counts from the last ping`() {
        var witness = Witness(now: start)
        witness.hear(peer(2), now: after(500))
        #expect(witness.silenceMilliseconds(of: peer(2), now: after(700)) == 200)
        #expect(witness.silenceMilliseconds(of: peer(3), now: after(700)) == 700)
    }

    @Test func `after a pause silence counts from its end`() {
        var witness = Witness(now: start)
        witness.hear(peer(2), now: after(100))
        witness.wokeUp(now: after(5000))
        #expect(witness.silenceMilliseconds(of: peer(2), now: after(5010)) == 10)
        #expect(witness.silenceMilliseconds(of: peer(3), now: after(5010)) == 10)
        witness.hear(peer(2), now: after(5100))
        #expect(witness.silenceMilliseconds(of: peer(2), now: after(5110)) == 10)
        #expect(witness.silenceMilliseconds(of: peer(3), now: after(5110)) == 110)
    }

    @Test func `silence is never more than what has passed since the last ping, the start and the last waking`() {
        for seed in 1...100 as ClosedRange<UInt64> {
            var random = Xoshiro256(seed: seed)
            var witness = Witness(now: start)
            var now: UInt64 = 0
            var certain: [PeerNumber: UInt64] = [peer(2): 0, peer(3): 0]
            for _ in 0..<100 {
                now += UInt64.random(in: 0...300, using: &random)
                switch Int.random(in: 0..<8, using: &random) {
                case 0:
                    witness.wokeUp(now: after(now))
                    certain = [peer(2): now, peer(3): now]
                case 1: witness.forget(peer(3))
                default:
                    let who = peer(UInt32.random(in: 2...3, using: &random))
                    witness.hear(who, now: after(now))
                    certain[who] = now
                }
                let silence = witness.silenceMilliseconds(of: peer(2), now: after(now + 7))
                #expect(silence == now + 7 - (certain[peer(2)] ?? 0), "seed \(seed)")
            }
        }
    }

    @Test func `a peer that was replaced reads the table before it counts an answer`() {
        var witness = Witness(now: start)
        #expect(witness.fence(of: peer(2)) == 0)
        witness.fence(peer(2))
        let first = witness.fence(of: peer(2))
        #expect(first != 0)
        #expect(witness.fence(of: peer(3)) == 0)
        witness.unfence(peer(2))
        #expect(witness.fence(of: peer(2)) == 0)
        witness.fence(peer(2))
        #expect(witness.fence(of: peer(2)) > first)
        witness.forget(peer(2))
        #expect(witness.fence(of: peer(2)) == 0)
    }
}

@Suite struct SuccessorLeaseTests {
    private func granting() -> SuccessorLease {
        var lease = SuccessorLease(promiseEndedMilliseconds: 1535)
        lease.reachable()
        return lease
    }

    @Test func `nothing is promised before the peer can be reached`() {
        var lease = SuccessorLease(promiseEndedMilliseconds: 1535)
        #expect(lease.grant(now: start) == 0)
        #expect(!lease.isGranting)
        lease.reachable()
        #expect(lease.isGranting)
        #expect(lease.grant(now: start) == 1)
    }

    @Test func `a late peer gets no promise until it has caught up`() {
        var lease = granting()
        #expect(lease.grant(now: start) == 1)
        lease.late()
        #expect(lease.isExcluding)
        #expect(lease.grant(now: after(50)) == 0)
        lease.caughtUp()
        #expect(lease.isGranting)
        // Nothing was lost, so the session is the same.
        #expect(lease.grant(now: after(100)) == 1)
        #expect(lease.excludableAt == after(1635))
    }

    @Test func `catching up does not mend a broken connection`() {
        for isLateBefore in [false, true] {
            var lease = granting()
            _ = lease.grant(now: start)
            if isLateBefore { lease.late() }
            lease.broken()
            lease.caughtUp()
            #expect(lease.isExcluding)
            lease.reachable()
            #expect(lease.isExcluding, "what was under way is lost all the same")
            #expect(lease.grant(now: after(10)) == 0)
        }
    }

    @Test func `lateness after a break does not make it mendable`() {
        var lease = granting()
        lease.broken()
        lease.late()
        lease.caughtUp()
        #expect(lease.isExcluding)
    }

    @Test func `a peer is excluded only after the last promise has ended`() {
        var lease = granting()
        _ = lease.grant(now: start)
        _ = lease.grant(now: after(200))
        lease.late()
        // Refused promises prolong nothing.
        _ = lease.grant(now: after(400))
        let early = lease.exclude(now: after(1734), isCertain: false)
        #expect(!early)
        let due = lease.exclude(now: after(1735), isCertain: false)
        #expect(due)
        let again = lease.exclude(now: after(1735), isCertain: false)
        #expect(!again, "once")
    }

    @Test func `who cannot use its promise is excluded at once`() {
        var lease = granting()
        _ = lease.grant(now: start)
        lease.broken()
        let excluded = lease.exclude(now: start, isCertain: true)
        #expect(excluded)
    }

    @Test func `who gives its promises back is excluded at once`() {
        var lease = granting()
        #expect(lease.grant(now: start) == 1)
        #expect(lease.recalledSession == nil)
        lease.late()
        #expect(lease.recalledSession == nil, "it may still catch up")
        lease.broken()
        #expect(lease.recalledSession == 1)
        lease.returned(session: 2)
        let isOfAnother = lease.exclude(now: after(10), isCertain: false)
        #expect(!isOfAnother)
        lease.returned(session: 1)
        let excluded = lease.exclude(now: after(10), isCertain: false)
        #expect(excluded)
        #expect(lease.recalledSession == nil)
        // What was given back once is not given back for ever.
        lease.reachable()
        #expect(lease.grant(now: after(20)) == 2)
        lease.broken()
        lease.returned(session: 1)
        let again = lease.exclude(now: after(30), isCertain: false)
        #expect(!again)
    }

    @Test func `who is granted is not excluded, however certain`() {
        var lease = granting()
        _ = lease.grant(now: start)
        let excluded = lease.exclude(now: after(100_000), isCertain: true)
        #expect(!excluded)
        #expect(lease.isGranting)
    }

    @Test func `every exclusion begins a new session`() {
        var lease = granting()
        for round in 1...5 as ClosedRange<UInt64> {
            #expect(lease.session == round)
            #expect(lease.grant(now: after(round * 10_000)) == round)
            lease.broken()
            _ = lease.exclude(now: after(round * 10_000 + 1535), isCertain: false)
            #expect(lease.grant(now: after(round * 10_000 + 1535)) == 0)
            lease.reachable()
        }
    }

    @Test func `waiting that began by other means has to end like a promise`() {
        // The peer was excluded here, but in sync with the holder that handed over.
        var lease = SuccessorLease(promiseEndedMilliseconds: 1535)
        lease.promised(now: start)
        #expect(lease.isExcluding)
        lease.caughtUp()
        #expect(lease.isExcluding)
        let early = lease.exclude(now: after(1534), isCertain: false)
        #expect(!early)
        let due = lease.exclude(now: after(1535), isCertain: false)
        #expect(due)
        #expect(lease.session == 2)
    }

    @Test func `a promise by other means moves the end, never back`() {
        var lease = granting()
        _ = lease.grant(now: after(100))
        lease.promised(now: after(50))
        #expect(lease.excludableAt == after(1635))
        lease.promised(now: after(300))
        #expect(lease.excludableAt == after(1835))
        #expect(lease.isGranting)
    }

    @Test func `without a promise there is nothing to wait for`() {
        var lease = granting()
        lease.late()
        let excluded = lease.exclude(now: start, isCertain: false)
        #expect(excluded)
    }

    @Test func `at random, an exclusion never comes before the last promise has ended`() {
        for seed in 1...200 as ClosedRange<UInt64> {
            var random = Xoshiro256(seed: seed)
            var lease = SuccessorLease(promiseEndedMilliseconds: 1535)
            var now: UInt64 = 0
            var promisedAt: UInt64?
            var session = lease.session
            for _ in 0..<200 {
                now += UInt64.random(in: 0...400, using: &random)
                switch Int.random(in: 0..<7, using: &random) {
                case 0: lease.reachable()
                case 1, 2:
                    let granted = lease.grant(now: after(now))
                    #expect(granted == 0 || granted == session, "seed \(seed)")
                    if granted != 0 { promisedAt = now }
                case 3: lease.late()
                case 4: lease.caughtUp()
                case 5: lease.broken()
                default:
                    guard lease.exclude(now: after(now), isCertain: false) else { continue }
                    if let promisedAt { #expect(now >= promisedAt + 1535, "seed \(seed)") }
                    promisedAt = nil
                    #expect(lease.session == session + 1, "seed \(seed)")
                    session = lease.session
                }
            }
        }
    }
}

@Suite struct ReplicationConfigurationTests {
    private let configuration = ReplicationConfiguration()

    @Test func `waits for others' leases include drift and margin`() {
        #expect(configuration.leaseEndedMilliseconds == 750 + 7 + 20)
        #expect(configuration.promiseEndedMilliseconds == 1500 + 15 + 20)
    }

    @Test func `a copy can prove a takeover by its own clock`() {
        // The last promise may have been asked for a ping's interval before the holder fell silent, and the copy's
        // clock may run fast by the drift. What is left must outlast the wait for the holder's lease.
        let promise = configuration.inSyncLeaseMilliseconds
        let shrunk = promise - promise * configuration.driftThousandths / 1000 - configuration.marginMilliseconds
        let left = shrunk - configuration.pingMilliseconds
        #expect(left > configuration.leaseEndedMilliseconds)
        // And leave room for the claim's round trip and one lost ping.
        #expect(left - configuration.leaseEndedMilliseconds > configuration.pingMilliseconds)
    }

    @Test func `a lost ping alone ends no lease`() {
        #expect(configuration.servingLeaseMilliseconds > 2 * configuration.pingMilliseconds)
    }

    @Test func `a dead successor delays writes by no more than was promised to operators`() {
        #expect(configuration.promiseEndedMilliseconds + configuration.pingMilliseconds / 4 <= 1600)
        #expect(configuration.writeDeadlineMilliseconds < configuration.promiseEndedMilliseconds)
    }
}
