package import ClusterCore

// Whether UDP passes, each way, now.
//
// What probes show is slow and mixed: a probe that UDP loses goes over TCP, and an answer that does not come says
// nothing about which way failed. A trial sends pings by UDP alone and listens: an answer to one of them proves both
// ways, any other datagram by UDP the way back. The other side, told over another way, does the same, so that each way
// is seen from its end. A trial accuses nobody.

/// A question whether UDP passes between this node and one member.
struct DatagramTrial: Sendable {
    let subject: NodeID
    let number: UInt64
    let endsAt: Instant
    /// The pings' sequences, as many as were sent.
    var sequences: [UInt32] = []
    var isHeard = false
    var isAnswered = false
}

/// What a trial has shown so far.
package struct DatagramTrialResult: Hashable, Sendable {
    /// Something came from the member by UDP since the trial began.
    package var isHeard = false
    /// The member answered by UDP what this node sent by UDP: both ways pass.
    package var isAnswered = false

    package init() {}
}

extension Membership {
    /// Trials at most, of all members together; beyond it the oldest is given up, and shows nothing any more.
    static let trialsMax = 4096
    /// Pings of one trial at most.
    static let trialPingsMax = 8
    /// How long a trial listens.
    static let trialMilliseconds: UInt64 = 5000

    /// Sends the member a ping by UDP and listens from now on. `number` tells one trial from another with the same
    /// member: another call with the same number goes on with it. Nothing happens for whom this node does not know.
    package mutating func tryDatagrams(
        to id: NodeID,
        number: UInt64,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        guard stage == .joined, let record = table[id]?.record, !record.isTombstone else { return }
        let index: Int
        if let running = trials.firstIndex(where: { $0.subject == id && $0.number == number }) {
            index = running
        } else {
            trials.removeAll { $0.endsAt <= now }
            if trials.count == Self.trialsMax { trials.removeFirst() }
            let endsAt = now.advanced(byMilliseconds: Self.trialMilliseconds)
            trials.append(DatagramTrial(subject: id, number: number, endsAt: endsAt))
            index = trials.count - 1
        }
        guard trials[index].sequences.count < Self.trialPingsMax else { return }
        let sequence = makeSequence()
        trials[index].sequences.append(sequence)
        sendByDatagram(.ping(GossipProbe(sequence: sequence, hash: gossipedHash)), to: record, effects: &effects)
        finish(now, effects: &effects)
    }

    /// What the trial has shown; nothing for one that does not run.
    package func datagramTrial(with id: NodeID, number: UInt64) -> DatagramTrialResult {
        var result = DatagramTrialResult()
        if let trial = trials.first(where: { $0.subject == id && $0.number == number }) {
            result.isHeard = trial.isHeard
            result.isAnswered = trial.isAnswered
        }
        return result
    }

    /// A datagram came by UDP.
    mutating func noteTrials(of datagram: GossipDatagram, now: Instant) {
        trials.removeAll { $0.endsAt <= now }
        for index in trials.indices where trials[index].subject == datagram.sender {
            trials[index].isHeard = true
            if case .ack(let probe) = datagram.message, trials[index].sequences.contains(probe.sequence) {
                trials[index].isAnswered = true
            }
        }
    }
}
