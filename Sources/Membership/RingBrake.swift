package import ClusterCore

// The brake on removals from the ring.
//
// One member that goes down is one that died: its slices are copied elsewhere. Where many go at once, it is more
// probably a switch, or this node's own link, or its own processor; to copy what they had would load those who are left
// with work that is in vain when they come back. So the ring waits longer for them. Who holds a slice now does not
// depend on that: copies that can prove themselves take over as always.

/// Whether removals from the ring wait, and until when. An operator's own word (drain, forget, a stop) is no removal
/// that waits.
package struct RingBrake: Sendable {
    /// A member of the ring that is suspect or down.
    package struct Trouble: Sendable {
        package let id: NodeID
        var name: String
        var liveness: Liveness
        var since: Instant
        /// It holds nobody up any more: the brake was released over it.
        var isReleased = false

        package init(_ record: MemberRecord, since: Instant) {
            id = record.id
            name = record.name
            liveness = record.liveness
            self.since = since
        }
    }

    /// The brake while it is on.
    package struct Engagement: Hashable, Sendable {
        package var since: Instant
        /// When it ends by itself; nil while there is no removal that it stops.
        package var until: Instant?
        /// The names of those who went together, sorted; none where this node doubts itself.
        package var lost: [String]
        /// How many members the ring had.
        package var ringSize: Int
    }

    /// Why it went off.
    package enum End: Hashable, Sendable {
        /// So few are gone now that nobody would brake for them, and this node is well.
        case recovered
        case elapsed
        /// At an operator's word.
        case released
    }

    /// How long it stops removals, from the first that it stops.
    let milliseconds: UInt64
    /// By id.
    private var troubles: [Trouble] = []
    /// An end of the brake over bad health holds until health is good.
    private var isHealthReleased = false
    package private(set) var engagement: Engagement?

    package init(milliseconds: UInt64) {
        self.milliseconds = milliseconds
    }

    /// What is seen now.
    ///
    /// - Parameters:
    ///   - found: the ring's members that are suspect or down, by id; `since` counts for newcomers only.
    ///   - ringSize: how many members the ring has.
    ///   - isUnwell: this node trusts its own view too little to remove anybody.
    ///   - isRemovalDue: somebody would leave the ring now.
    ///   - windowMilliseconds: who goes within so long goes together.
    package mutating func advance(
        found: [Trouble],
        ringSize: Int,
        isUnwell: Bool,
        isRemovalDue: Bool,
        windowMilliseconds: UInt64,
        now: Instant
    ) -> MembershipEvent? {
        note(found, now)
        if !isUnwell { isHealthReleased = false }
        let isUnwell = isUnwell && !isHealthReleased
        guard let current = engagement else {
            let together = troubles.filter {
                !$0.isReleased && now.milliseconds(since: $0.since) <= windowMilliseconds
            }
            let isMass = together.count >= 2 && 3 * together.count > ringSize
            guard milliseconds > 0, isMass || (isUnwell && isRemovalDue) else { return nil }
            let lost = isMass ? together.map(\.name).sorted() : []
            engagement = Engagement(
                since: now,
                until: isRemovalDue ? now.advanced(byMilliseconds: milliseconds) : nil,
                lost: lost,
                ringSize: ringSize
            )
            return .braked(lost: lost, ringSize: ringSize)
        }
        if let until = current.until {
            if until <= now { return end(.elapsed) }
        } else if isRemovalDue {
            engagement?.until = now.advanced(byMilliseconds: milliseconds)
        }
        // A suspicion that is refuted at once, beside one member that died, is no reason to keep that one.
        let left = troubles.count { !$0.isReleased }
        if !isUnwell, left < 2 || 3 * left <= current.ringSize {
            engagement = nil
            return .brakeEnded(.recovered)
        }
        return nil
    }

    /// The operator's word: who is gone now holds nobody up.
    package mutating func release() -> MembershipEvent? {
        engagement == nil ? nil : end(.released)
    }

    private mutating func end(_ end: End) -> MembershipEvent {
        engagement = nil
        isHealthReleased = true
        for index in troubles.indices { troubles[index].isReleased = true }
        return .brakeEnded(end)
    }

    private mutating func note(_ found: [Trouble], _ now: Instant) {
        var merged: [Trouble] = []
        var place = 0
        for var trouble in found {
            while place < troubles.count, troubles[place].id < trouble.id { place += 1 }
            if place < troubles.count, troubles[place].id == trouble.id {
                trouble.isReleased = troubles[place].isReleased
                if troubles[place].liveness == trouble.liveness { trouble.since = troubles[place].since }
            }
            merged.append(trouble)
        }
        troubles = merged
    }
}
