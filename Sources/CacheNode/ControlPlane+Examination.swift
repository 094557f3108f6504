package import ClusterCore
package import Membership
package import PeerProtocol
import Replication
import Sealing

// An examination of all members from one node, for `henge doctor`.
//
//   this node                          member
//   ping by UDP ─────────────────────▶ answers by UDP
//   examine over TCP ────────────────▶ pings back by UDP, answers on the same connection:
//   ◀──────────────────────────────── its clock, its settings, what it heard by UDP, whether its own TCP works
//
// Both go out again every round for those that have not shown everything, until all have or the time is over. Each way
// of UDP is seen from the end where it arrives, so that a way that is closed is told from the one back. Nothing is
// accused and nothing changes.

/// What an examination has shown of one member.
package struct ExaminedMember: Hashable, Sendable {
    package var record: MemberRecord
    /// This node's connections to it, of all lanes, work.
    package var isConnected = false
    /// Nil: it has not answered over TCP.
    package var reply: ExaminationReply?
    /// By how many milliseconds its wall clock is ahead of this node's, by the answer that took the least time.
    package var clockMilliseconds: Int64?
    /// Something came from it by UDP during the examination.
    package var isHeardByDatagram = false
    /// It took something by UDP from this node during the examination.
    package var hasHeardDatagram = false
    /// Nil where the cluster has no key, or it has not said which keys it has.
    package var hasKeyInUse: Bool?

    /// The answer over TCP that took the least time, in nanoseconds.
    var leastNanoseconds = UInt64.max
    var number = PeerNumber.none

    package init(record: MemberRecord) {
        self.record = record
    }

    /// Whether no further round can show anything; `usesDatagrams` is the examining node's.
    func isComplete(usesDatagrams: Bool) -> Bool {
        guard let reply, isConnected, reply.isConnected else { return false }
        return !usesDatagrams || !reply.usesDatagrams || (isHeardByDatagram && hasHeardDatagram)
    }
}

/// What an examination has shown.
package struct Examination: Hashable, Sendable {
    /// The node that examined: its own record.
    package var own: MemberRecord
    package var settings: String
    package var usesDatagrams: Bool
    /// It has no cluster so far, and calls its seeds; nil where it is part of one.
    package var seeking: MembershipSeeking?
    /// The other members, by name.
    package var members: [ExaminedMember] = []
    /// Its seeds, and what became of them.
    package var seeds: [MembershipSeeking.Contact] = []
    /// Wall clocks that are further apart than so many milliseconds are worth a finding.
    package var clockDistanceMax: UInt64
    /// How long was waited for answers, in milliseconds.
    package var waitedMilliseconds: UInt64 = 0
}

/// An examination that waits for answers.
struct RunningExamination {
    var number: UInt64
    var round: UInt8 = 0
    /// When each round was sent, the first one first.
    var sent: [Instant] = []
    var nextRound: Instant
    var endsAt: Instant
    var members: [ExaminedMember]
}

extension ControlPlane {
    /// Begins an examination of all members. Where one runs already, that one's result is for both who ask.
    package mutating func examine(now: Now, outbox: inout Outbox, effects: inout [ControlEffect]) {
        guard examination == nil else { return }
        var members: [ExaminedMember] = []
        for index in peers.indices where index > 1 && !peers[index].isGone {
            guard let record = peers[index].record, !record.isTombstone else { continue }
            var member = ExaminedMember(record: record)
            member.number = PeerNumber(UInt32(index))
            members.append(member)
        }
        members.sort { $0.record.name < $1.record.name }
        examination = RunningExamination(
            number: random.next(),
            nextRound: now.instant,
            endsAt: now.instant.advanced(byMilliseconds: configuration.examinationMilliseconds),
            members: members
        )
        advanceExamination(now, &outbox, &effects)
    }

    /// A finished examination, once.
    package mutating func takeExamination() -> Examination? {
        defer { finishedExamination = nil }
        return finishedExamination
    }

    /// Ends the examination where all is shown or its time is over; asks again otherwise.
    mutating func advanceExamination(_ now: Now, _ outbox: inout Outbox, _ effects: inout [ControlEffect]) {
        guard var running = examination else { return }
        for place in running.members.indices {
            let index = Int(running.members[place].number.value)
            running.members[place].isConnected = isReachable(index)
            let shown = membership.datagramTrial(with: running.members[place].record.id, number: running.number)
            if shown.isHeard { running.members[place].isHeardByDatagram = true }
            if shown.isAnswered { running.members[place].hasHeardDatagram = true }
        }
        let usesDatagrams = configuration.usesDatagrams
        let isAllShown = running.members.allSatisfy { $0.isComplete(usesDatagrams: usesDatagrams) }
        if running.endsAt <= now.instant || isAllShown {
            finish(running, now)
            return
        }
        running.sent.append(now.instant)
        var words: [MembershipEffect] = []
        for member in running.members where !member.isComplete(usesDatagrams: usesDatagrams) {
            if usesDatagrams {
                membership.tryDatagrams(
                    to: member.record.id,
                    number: running.number,
                    now: now.instant,
                    effects: &words
                )
            }
            outbox.send(.examine(number: running.number, round: running.round), to: member.number)
        }
        running.round += 1
        running.nextRound = min(
            now.instant.advanced(byMilliseconds: configuration.examinationRoundMilliseconds),
            running.endsAt
        )
        examination = running
        follow(words, now, &outbox, &effects)
    }

    private mutating func finish(_ running: RunningExamination, _ now: Now) {
        var result = Examination(
            own: membership.ownRecord,
            settings: configuration.comparedSettings,
            usesDatagrams: configuration.usesDatagrams,
            members: running.members,
            seeds: membership.seedContacts,
            clockDistanceMax: configuration.clockDistanceMaxMilliseconds,
            waitedMilliseconds: now.instant.milliseconds(since: running.sent.first ?? now.instant)
        )
        if case .seeking(let seeking) = membership.phase { result.seeking = seeking }
        for place in result.members.indices {
            let index = Int(result.members[place].number.value)
            if let record = peers[index].record { result.members[place].record = record }
            if let keyRing { result.members[place].hasKeyInUse = peers[index].keys?.contains(keyRing.primary) }
        }
        finishedExamination = result
        examination = nil
    }

    /// Another node examines this one.
    mutating func answerExamination(
        _ number: UInt64,
        _ round: UInt8,
        from peer: PeerNumber,
        link: UInt32?,
        _ now: Now,
        _ outbox: inout Outbox,
        _ effects: inout [ControlEffect]
    ) {
        let index = Int(peer.value)
        var heard = false
        if configuration.usesDatagrams {
            heard = membership.datagramTrial(with: peers[index].reference.id, number: number).isHeard
            var words: [MembershipEffect] = []
            membership.tryDatagrams(
                to: peers[index].reference.id,
                number: number,
                now: now.instant,
                effects: &words
            )
            follow(words, now, &outbox, &effects)
        }
        let reply = ControlMessage.examined(
            ExaminationReply(
                number: number,
                round: round,
                unixMilliseconds: now.unixMilliseconds,
                hasHeardDatagrams: heard,
                usesDatagrams: configuration.usesDatagrams,
                isConnected: isReachable(index),
                settings: configuration.comparedSettings
            )
        )
        // Back where it came from: this node's own connection to the other may be what does not work.
        outbox.send(to: link.map { .link($0) } ?? .peer(peer)) { reply.append(to: &$0) }
    }

    mutating func receive(_ reply: ExaminationReply, from peer: PeerNumber, _ now: Now) {
        guard let number = examination?.number, number == reply.number,
            let sent = examination?.sent, reply.round < sent.count,
            let place = examination?.members.firstIndex(where: { $0.number == peer })
        else { return }
        var member = examination?.members[place]
        let took = now.instant.nanoseconds(since: sent[Int(reply.round)])
        if let least = member?.leastNanoseconds, took <= least {
            member?.leastNanoseconds = took
            // Its clock was read about half of that time ago.
            let then = Int64(clamping: now.unixMilliseconds) - Int64(clamping: took / 2_000_000)
            member?.clockMilliseconds = Int64(clamping: reply.unixMilliseconds).subtractingClamped(then)
        }
        if reply.hasHeardDatagrams { member?.hasHeardDatagram = true }
        member?.reply = reply
        if let member { examination?.members[place] = member }
    }
}

extension Int64 {
    fileprivate func subtractingClamped(_ other: Int64) -> Int64 {
        let (difference, overflow) = subtractingReportingOverflow(other)
        return overflow ? (self < other ? .min : .max) : difference
    }
}
