package import ClusterCore

/// When the ring follows the members that are to be in it.
///
/// A lone change shows at once. Where more than one waits, they become one once nothing has changed for a while, the
/// longer the more there are: a thousand members that start together come a few at a time, and a ring made anew for each
/// of them would move the same slices again and again.
package struct RingPace<View: Equatable & Sendable>: Sendable {
    /// Between two rings at least.
    static var intervalMilliseconds: UInt64 { 200 }
    /// How long nothing must have changed, for each member by which the ring differs from what it is to be.
    static var quietMilliseconds: UInt64 { 20 }
    /// The most of that.
    static var quietMostMilliseconds: UInt64 { 2000 }
    /// From the first difference on, whatever else changes.
    static var patienceMilliseconds: UInt64 { 5000 }

    /// What waits to be shown.
    private var waiting: View?
    private var changedAt: Instant
    private var waitsSince: Instant
    private var nextChange: Instant
    /// How many views were never shown, since others replaced them.
    package private(set) var coalesced: UInt64 = 0

    package init(now: Instant) {
        changedAt = now
        waitsSince = now
        nextChange = now
    }

    /// The ring is what it is to be.
    package mutating func settle() {
        if waiting != nil { coalesced += 1 }
        waiting = nil
    }

    /// Whether the ring is to become `view` now, from which it differs by so many members. To be asked again, if only for
    /// time that passes, while it is not.
    package mutating func isDue(_ view: View, differences: Int, now: Instant) -> Bool {
        if let waiting {
            if waiting != view {
                coalesced += 1
                changedAt = now
            }
        } else {
            waitsSince = now
            changedAt = now
        }
        waiting = view
        guard now >= nextChange else { return false }
        if differences > 1 {
            let quiet = min(Self.quietMostMilliseconds, Self.quietMilliseconds * UInt64(differences))
            let isQuiet = now.milliseconds(since: changedAt) >= quiet
            guard isQuiet || now.milliseconds(since: waitsSince) >= Self.patienceMilliseconds else { return false }
        }
        waiting = nil
        nextChange = now.advanced(byMilliseconds: Self.intervalMilliseconds)
        return true
    }
}
