/// Who owns how much of the ring: the answer to `GET /v1/ring`.
package struct RingReport: Codable, Hashable, Sendable {
    /// A number now, and as the ring wants it.
    package struct Share: Codable, Hashable, Sendable {
        package var now: Int
        package var wanted: Int

        package init(now: Int, wanted: Int) {
            self.now = now
            self.wanted = wanted
        }
    }

    /// A member's part.
    package struct Member: Codable, Hashable, Sendable {
        package var name: String
        /// Slices that it holds.
        package var primaries: Share
        /// Slices of which it has a copy, its own included.
        package var copies: Share

        package init(name: String, primaries: Share, copies: Share) {
            self.name = name
            self.primaries = primaries
            self.copies = copies
        }
    }

    /// Where a key lives.
    package struct Placement: Codable, Hashable, Sendable {
        package var key: String
        package var hash: HexHash
        package var slice: Int
        package var epoch: UInt64
        /// The name of the node that acts as primary; nil while there is none.
        package var holder: String?
        /// The names of its successors in the ring's order.
        package var successors: [String]
        /// Copies in sync, the holder's own included.
        package var inSync: Int

        package init(
            key: String,
            hash: HexHash,
            slice: Int,
            epoch: UInt64,
            holder: String?,
            successors: [String],
            inSync: Int
        ) {
            self.key = key
            self.hash = hash
            self.slice = slice
            self.epoch = epoch
            self.holder = holder
            self.successors = successors
            self.inSync = inSync
        }
    }

    /// Equal on nodes that see the same ring.
    package var hash: HexHash
    /// Sorted by name.
    package var members: [Member]
    /// The place of the key that was asked for.
    package var placement: Placement?

    package init(hash: HexHash, members: [Member], placement: Placement? = nil) {
        self.hash = hash
        self.members = members
        self.placement = placement
    }
}
