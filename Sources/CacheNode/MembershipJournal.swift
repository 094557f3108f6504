package import Membership

/// The last membership events of a node, and how many there were of each kind. The oldest goes where it is full.
package struct MembershipJournal: Sendable {
    package struct Entry: Hashable, Sendable {
        /// Counts all events since the start, from 1; without gaps.
        package var number: UInt64
        /// Milliseconds since 1970 by the node's wall clock, which may jump.
        package var unixMilliseconds: UInt64
        package var event: MembershipEvent
    }

    /// How many events are kept.
    package let entriesMax: Int
    /// A ring: once it is full, the oldest is at `start`.
    private var ring: [Entry] = []
    private var start = 0
    private var counts: [UInt64]

    /// Events since the start, dropped ones included.
    package private(set) var total: UInt64 = 0

    package init(entriesMax: Int) {
        precondition(entriesMax > 0, "a journal of \(entriesMax) entries keeps nothing")
        self.entriesMax = entriesMax
        counts = Array(repeating: 0, count: MembershipEvent.Kind.allCases.count)
    }

    /// The oldest first.
    package var entries: [Entry] { Array(ring[start...]) + ring[..<start] }

    /// Events that were kept once and are not any more.
    package var dropped: UInt64 { total - UInt64(ring.count) }

    /// Events of that kind since the start.
    package func count(of kind: MembershipEvent.Kind) -> UInt64 { counts[Self.place(of: kind)] }

    package mutating func append(_ event: MembershipEvent, unixMilliseconds: UInt64) {
        total += 1
        counts[Self.place(of: event.kind)] += 1
        let entry = Entry(number: total, unixMilliseconds: unixMilliseconds, event: event)
        if ring.count < entriesMax {
            ring.append(entry)
        } else {
            ring[start] = entry
            start = (start + 1) % entriesMax
        }
    }

    private static func place(of kind: MembershipEvent.Kind) -> Int {
        guard let place = MembershipEvent.Kind.allCases.firstIndex(of: kind) else {
            preconditionFailure("\(kind) is none of all kinds")
        }
        return place
    }
}
