package import ClusterCore

/// What changes between two rings: who gains and who loses a copy of which slice, and where the primary is another.
///
/// Nodes are named by id, since indexes differ from ring to ring.
package struct RingDifference: Sendable, Equatable {
    /// The change of one slice's owners.
    package struct Change: Sendable, Equatable {
        package let slice: Int
        /// Nodes that own the slice in the new ring alone, in its order.
        package let gains: [NodeID]
        /// Nodes that owned the slice in the old ring alone, in its order.
        package let losses: [NodeID]
        /// The old and the new primary; nil where a ring has no members.
        package let primaryBefore: NodeID?
        package let primaryAfter: NodeID?

        package var movesPrimary: Bool { primaryBefore != primaryAfter }
    }

    /// The slices that gain or lose an owner or have another primary, in order. A new order of the successors alone is
    /// no change.
    package let changes: [Change]
    /// Copies to be made: gains of all slices.
    package let copiesMoved: Int
    /// The copies that must be made to bring every node from its fair share in the old ring to that in the new.
    ///
    /// Counts stray up to 3 % from fair shares, so that `copiesMoved` may be a little less.
    package let copiesMovedMin: Int
    /// Slices whose primary is another node.
    package let primariesMoved: Int

    package init(from old: Ring, to new: Ring) {
        var changes: [Change] = []
        var copiesMoved = 0
        var primariesMoved = 0
        for slice in 0..<Slice.count {
            let before = old.owners(of: slice).map { old.members[Int($0)].id }
            let after = new.owners(of: slice).map { new.members[Int($0)].id }
            guard before != after else { continue }
            let change = Change(
                slice: slice,
                gains: after.filter { !before.contains($0) },
                losses: before.filter { !after.contains($0) },
                primaryBefore: before.first,
                primaryAfter: after.first
            )
            guard change.movesPrimary || !change.gains.isEmpty || !change.losses.isEmpty else { continue }
            copiesMoved += change.gains.count
            primariesMoved += change.movesPrimary ? 1 : 0
            changes.append(change)
        }
        self.changes = changes
        self.copiesMoved = copiesMoved
        self.primariesMoved = primariesMoved
        copiesMovedMin = Self.copiesMovedMin(from: old, to: new)
    }

    private static func copiesMovedMin(from old: Ring, to new: Ring) -> Int {
        let oldShares = old.fairShares()
        var oldIndex = 0
        var units: UInt64 = 0
        // Both lists are sorted by id.
        for (member, share) in zip(new.members, new.fairShares()) {
            while oldIndex < old.members.count, old.members[oldIndex].id < member.id { oldIndex += 1 }
            let known = oldIndex < old.members.count && old.members[oldIndex].id == member.id
            let before = known ? oldShares[oldIndex] : 0
            units += share > before ? share - before : 0
        }
        let slice = UInt64(1) << UInt64(FairShare.fractionBits)
        return Int((units + slice / 2) / slice)
    }
}
