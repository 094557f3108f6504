// The ring: which nodes own which slice.
//
// Every node must work out the same owners from the same member records, without asking anybody, and a change of
// membership must move no more copies than it has to. Putting the nodes on a circle with many tokens each moves
// little but loads unevenly (1.09 to 1.13 times the mean with 256 tokens); dealing the slices out in turn is even but
// moves nearly everything.
//
// Here each slice ranks all nodes by scores that depend on the slice and the node alone, and takes the best (rendezvous
// hashing: Thaler and Ravishankar, 1998; weighted as a race of exponential waiting times, where the node with rate w
// comes first with chance w / sum). A node that leaves gives up its own places and disturbs no other ranking. Two
// things make the load even on top of that:
//
// - A node's scores over the slices are not drawn, but dealt: a permutation of 16,384 evenly spaced values. That takes
//   half of the variance of its load away and costs no movement, since a node's permutation is its own.
// - Slices choose in a fixed order, and only among nodes within 3 % of their share: a node that holds its most is
//   passed over, and once the places left are only just enough to bring everybody to their least, only nodes below
//   it are chosen. Since the order is fixed, the slices that do not get their first choice are nearly the same before
//   and after a change: the last few percent. (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded
//   Loads", 2016, cap the load likewise, from above.)
//
// Primaries are chosen first, by weight, and are therefore the same for any number of replicas. Successors follow, by
// rates that make a node's chance to be among the chosen its share of all copies; those rates have no closed form
// once shares differ, so they start from an approximation and are corrected until the counts are near the shares.
//
// Measured over 60 seeds for 3, 6, 12, 16, 20, 23 and 24 equal nodes: primaries and copies within 3 % of the mean; a
// join or a leave moves on average 1.00 to 1.02 times the copies that it must with one or two replicas. Without
// replicas it is 1.00 to 1.01 up to 16 nodes and 1.03 to 1.04 from 20 on, where a node has fewest slices and most must
// be steered; single joins reach 1.11. The rest over 2 to 4 seeds: with more nodes the load stays even and movement
// grows, without replicas to 1.2 at 63 nodes and 1.7 at 128. Unequal weights cost 1.00 to 1.10, single joins up to
// 1.25. Three zones cost nothing with three copies; with two copies, where a join makes them unequal, 1.1 to 1.4,
// since it then changes how often the other zones meet, which no ranking by scores follows closely.

package import ClusterCore

/// A member as the ring sees it.
package struct RingMember: Hashable, Sendable {
    /// Weights that the ring accepts, in thousandths.
    package static let weights: ClosedRange<UInt32> = 1...100_000

    package var id: NodeID
    /// Share of the load beside the others', in thousandths: 1...100,000; 1,000 is the usual node.
    package var weight: UInt32
    /// What fails together with the node (a rack, a site); empty: the node fails alone.
    package var zone: String

    package init(id: NodeID, weight: UInt32 = 1000, zone: String = "") {
        self.id = id
        self.weight = weight
        self.zone = zone
    }
}

/// The owners of every slice: a pure integer function of the members and the number of replicas.
///
/// The owners of a slice are distinct, and in distinct zones where there are as many zones as copies (a member without
/// a zone counts as a zone of its own); with fewer zones each has at least one copy. Primaries and copies of a member
/// stay within 3 % of its share by weight, as far as zones and the shares of small members (a whole number of slices)
/// allow.
package struct Ring: Sendable {
    /// The most members that a ring accepts; building takes memory and time in proportion (64 KB a member).
    package static let membersMax = 1024
    /// Version of the algorithm; part of `hash`, raised with any change of what it computes.
    package static let version: UInt64 = 1

    /// The members, sorted by id.
    package let members: [RingMember]
    /// How many successors were asked for.
    package let replicas: Int
    /// How many owners each slice has: `replicas + 1`, or the number of members where that is less.
    package let copies: Int
    /// Names the ring: a hash of its members, its replicas and the version of the algorithm.
    ///
    /// Nodes compare it in place of the ring.
    package let hash: UInt64

    /// The owners of all slices, `copies` entries each.
    private let ownerTable: [UInt16]
    private let primaryCounts: [Int]
    private let copyCounts: [Int]

    /// Works out the owners. The order of the members does not matter; ids must be distinct.
    package init(members: [RingMember], replicas: Int) {
        precondition(members.count <= Self.membersMax, "\(members.count) members, at most \(Self.membersMax)")
        precondition(replicas >= 0 && replicas < Self.membersMax, "\(replicas) replicas")
        let members = members.sorted { $0.id < $1.id }
        for index in members.indices {
            let member = members[index]
            precondition(RingMember.weights.contains(member.weight), "weight \(member.weight) of \(member.id)")
            precondition(index == 0 || members[index - 1].id != member.id, "\(member.id) is there twice")
        }
        self.members = members
        self.replicas = replicas
        copies = min(replicas + 1, members.count)
        hash = Self.hash(of: members, replicas: replicas)
        if members.isEmpty {
            ownerTable = []
            primaryCounts = []
            copyCounts = []
        } else {
            var placement = Placement(members: members, copies: copies)
            primaryCounts = placement.choosePrimaries()
            copyCounts = placement.chooseSuccessors(primaryCounts: primaryCounts)
            ownerTable = placement.owners
        }
    }

    /// The owners of a slice as indexes into `members`: the primary, then its successors in order.
    package func owners(of slice: Int) -> ArraySlice<UInt16> {
        precondition(slice >= 0 && slice < Slice.count, "no slice \(slice)")
        return ownerTable[slice * copies..<(slice + 1) * copies]
    }

    /// The first owner of a slice as an index into `members`; nil without members.
    package func primary(of slice: Int) -> UInt16? {
        owners(of: slice).first
    }

    /// How many slices have this member, given by its index, as their primary.
    package func primaries(of member: Int) -> Int {
        primaryCounts[member]
    }

    /// How many slices have this member, given by its index, among their owners.
    package func copies(of member: Int) -> Int {
        copyCounts[member]
    }

    /// The members' shares of all copies, in 65,536ths of a slice; what `copies(of:)` approximates.
    func fairShares() -> [UInt64] {
        guard !members.isEmpty else { return [] }
        return FairShare.copies(
            weights: members.map { UInt64($0.weight) },
            zones: Placement.zoneNumbers(of: members),
            copies: copies
        )
    }

    private static func hash(of members: [RingMember], replicas: Int) -> UInt64 {
        var bytes: [UInt8] = []
        func append(_ value: UInt64) {
            withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
        }
        append(version)
        append(UInt64(replicas))
        for member in members {
            append(member.id.high)
            append(member.id.low)
            append(UInt64(member.weight))
            append(UInt64(member.zone.utf8.count))
            bytes.append(contentsOf: member.zone.utf8)
        }
        return KeyHash.hash(bytes)
    }
}

extension Ring: Equatable {
    /// Compares what rings are made from, which decides all the rest.
    package static func == (left: Ring, right: Ring) -> Bool {
        left.hash == right.hash && left.replicas == right.replicas && left.members == right.members
    }
}
