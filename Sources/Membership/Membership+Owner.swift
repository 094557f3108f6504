package import ClusterCore

/// What became of the operator's word to forget a member.
package enum ForgetOutcome: Hashable, Sendable {
    case forgotten
    /// It is alive or suspect: drain it, or stop it first.
    case refusedLiving
    /// No such member; also one that left or is forgotten already.
    case unknown
}

extension Membership {
    /// States the own lifecycle, and tells all. `joining → up → draining → left`, `draining → up`; `left` from anywhere
    /// is final. Nothing happens where it is stated already.
    package mutating func setLifecycle(
        _ lifecycle: Lifecycle,
        now: Instant,
        effects: inout [MembershipEffect]
    ) {
        guard stage == .joined, lifecycle != own.lifecycle else { return }
        precondition(lifecycle != .joining, "nobody goes back to joining but by a restart")
        precondition(
            own.lifecycle != .joining || lifecycle != .draining,
            "a node that never was up has nothing to drain"
        )
        own.lifecycle = lifecycle
        restate(isFarewell: lifecycle == .left, now, effects: &effects)
        if lifecycle == .left {
            stage = .leaving
            flushOutboxes(now, effects: &effects)
        }
    }

    /// States that this node has seen three members up; never taken back.
    package mutating func setSawThree(now: Instant, effects: inout [MembershipEffect]) {
        guard stage == .joined, !own.sawThree else { return }
        own.sawThree = true
        restate(now, effects: &effects)
    }

    private mutating func restate(
        isFarewell: Bool = false,
        _ now: Instant,
        effects: inout [MembershipEffect]
    ) {
        own.sequence += 1
        hasChanged = true
        tell(own.id, isFarewell: isFarewell, now: now)
        finish(now, effects: &effects)
    }

    /// A graceful stop: tells all that this node goes down, so that nobody needs to find out. It remains a member and
    /// comes back with its next start. Keep calling `advance` and `receive` until `hasSaidFarewell`, or for a second.
    package mutating func announceDown(now: Instant, effects: inout [MembershipEffect]) {
        if stage == .seeking { stage = .stopped }
        guard stage == .joined else { return }
        own.liveness = .down
        hasChanged = true
        tell(own.id, isFarewell: true, now: now)
        stage = .leaving
        finish(now, effects: &effects)
    }

    /// Whether a node that leaves or goes down has no one left to tell.
    package var hasSaidFarewell: Bool {
        switch stage {
        case .stopped: true
        case .leaving: table.pending.allSatisfy { table.peers[$0].outbox == nil }
        case .seeking, .joined: false
        }
    }

    /// The operator's word that a `down` member will not come back: it counts in no majority any more.
    package mutating func forget(
        _ id: NodeID,
        now: Instant,
        effects: inout [MembershipEffect]
    ) -> ForgetOutcome {
        if id == own.id { return .refusedLiving }
        guard stage == .joined, let index = table.index(of: id), !table.peers[index].record.isTombstone else {
            return .unknown
        }
        if table.peers[index].record.isLiving { return .refusedLiving }
        markForgotten(index, now: now, effects: &effects)
        finish(now, effects: &effects)
        return .forgotten
    }
}
