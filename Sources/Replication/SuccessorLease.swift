package import ClusterCore

/// A holder's promise to one peer: "I acknowledge no write without you until I after this".
///
/// One for each pair of nodes, for all slices together. The session tells a peer's copies that were in sync before an
/// exclusion from those that are since: a grant of a later session proves nothing for a copy of an earlier one.
package struct SuccessorLease: Sendable {
    private enum State {
        /// Promises are given. Goes to `excluding` on a missed deadline or a lost connection.
        case granting
        /// No more promises; writes wait. Goes to `granting` when the peer catches up and nothing was lost, to
        /// `excluded` when the last promise has ended or was given back.
        case excluding(mayCancel: Bool)
        /// The peer counts no longer. Goes to `granting` when it can be reached again.
        case excluded
    }

    private var state = State.excluded
    private var lastGrant: Instant?
    /// The peer has given back what it was promised in this session.
    private var isReturned = false
    private let promiseEndedMilliseconds: UInt64
    /// Rises with every exclusion; never 0.
    package private(set) var session: UInt64 = 1

    package init(promiseEndedMilliseconds: UInt64) {
        self.promiseEndedMilliseconds = promiseEndedMilliseconds
    }

    package var isGranting: Bool {
        if case .granting = state { true } else { false }
    }

    package var isExcluding: Bool {
        if case .excluding = state { true } else { false }
    }

    /// All connections to the peer work.
    package mutating func reachable() {
        if case .excluded = state { state = .granting }
    }

    /// The peer asks for a promise: the session, or 0.
    package mutating func grant(now: Instant) -> UInt64 {
        guard case .granting = state else { return 0 }
        lastGrant = now
        return session
    }

    /// Waiting for the peer began by other means (it was in sync with the holder that handed over).
    package mutating func promised(now: Instant) {
        lastGrant = max(lastGrant ?? now, now)
        if case .excluded = state { state = .excluding(mayCancel: false) }
    }

    /// A write has waited too long for the peer.
    package mutating func late() {
        if case .granting = state { state = .excluding(mayCancel: true) }
    }

    /// A connection to the peer broke: what was on it is lost.
    package mutating func broken() {
        switch state {
        case .granting, .excluding: state = .excluding(mayCancel: false)
        case .excluded: break
        }
    }

    /// The session whose promises the peer should give back; nil where it may still be waited for.
    package var recalledSession: UInt64? {
        if case .excluding(mayCancel: false) = state { session } else { nil }
    }

    /// The peer takes nothing over any more by the promises of that session.
    package mutating func returned(session: UInt64) {
        if recalledSession == session { isReturned = true }
    }

    /// No write waits for the peer any more.
    package mutating func caughtUp() {
        if case .excluding(mayCancel: true) = state { state = .granting }
    }

    /// The last promise is over by now, or was given back, or `isCertain` says that the peer cannot use it. True once:
    /// the caller drops the peer from every in-sync set and only then acknowledges without it.
    package mutating func exclude(now: Instant, isCertain: Bool) -> Bool {
        guard case .excluding = state, isCertain || isReturned || now >= excludableAt else { return false }
        state = .excluded
        isReturned = false
        session += 1
        lastGrant = nil
        return true
    }

    /// When the last promise ends.
    package var excludableAt: Instant {
        lastGrant?.advanced(byMilliseconds: promiseEndedMilliseconds) ?? Instant(nanoseconds: 0)
    }
}
