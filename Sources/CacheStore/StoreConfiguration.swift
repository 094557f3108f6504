/// The limits of one shard.
public struct StoreConfiguration: Sendable, Hashable {
    /// All memory of the shard in bytes: items, index, rows and ghosts. More means fewer evictions.
    public var memoryBytes: Int
    /// The largest value in bytes; larger ones are refused. A greater limit lets one store push out more small items.
    public var itemBytesMax: Int
    /// How long a tombstone stays at least, in seconds, unless a cap drops it. More protects copies that were away
    /// longer and costs memory per delete.
    public var tombstoneSeconds: UInt32
    /// How long a tombstone stays at most, in seconds, held or not; one that is dropped by this cap raises the floor.
    public var tombstoneSecondsMax: UInt32
    /// The most that tombstones may take, in bytes; beyond it the oldest go and raise the floor.
    public var tombstoneBytesMax: Int
    /// How many reads an item needs in the small queue to be promoted to the main one, 1 to 3. More resists scans
    /// better and adapts more slowly.
    public var promotionHits: UInt8

    /// `tombstoneBytesMax` nil means 2 % of the memory.
    public init(
        memoryBytes: Int,
        itemBytesMax: Int = 1_048_576,
        tombstoneSeconds: UInt32 = 60,
        tombstoneSecondsMax: UInt32 = 3600,
        tombstoneBytesMax: Int? = nil,
        promotionHits: UInt8 = 1
    ) {
        self.memoryBytes = memoryBytes
        self.itemBytesMax = itemBytesMax
        self.tombstoneSeconds = tombstoneSeconds
        self.tombstoneSecondsMax = tombstoneSecondsMax
        self.tombstoneBytesMax = tombstoneBytesMax ?? memoryBytes / 50
        self.promotionHits = promotionHits
    }

    /// The longest key in bytes.
    public static let keyBytesMax = 250

    /// The memory in bytes that a shard of that many slices takes before it holds anything; items need more.
    public func fixedBytes(sliceCount: Int) -> Int {
        StoreLayout(memoryBytes: memoryBytes, sliceCount: sliceCount).segmentsOffset
    }

    /// Names the first two settings that contradict each other, for a shard of `sliceCount` slices.
    public func validate(sliceCount: Int) throws(StoreConfigurationError) {
        let layout = StoreLayout(memoryBytes: max(1, memoryBytes), sliceCount: sliceCount)
        if layout.segmentCount < StoreLayout.segmentsMin {
            throw StoreConfigurationError(
                message: "memoryBytes is \(memoryBytes), which leaves \(layout.segmentCount) segments beside the rows "
                    + "of \(sliceCount) slices; at least \(StoreLayout.segmentsMin) are needed"
            )
        }
        if memoryBytes > 1 << 36 {
            throw StoreConfigurationError(message: "memoryBytes is \(memoryBytes), above \(1 << 36) for one shard")
        }
        if itemBytesMax < 1 || itemBytesMax > 1 << 30 {
            throw StoreConfigurationError(message: "itemBytesMax is \(itemBytesMax), which is not in 1...\(1 << 30)")
        }
        if tombstoneSeconds > tombstoneSecondsMax {
            throw StoreConfigurationError(
                message: "tombstoneSeconds is \(tombstoneSeconds), above tombstoneSecondsMax \(tombstoneSecondsMax)"
            )
        }
        if tombstoneBytesMax < 0 || tombstoneBytesMax > memoryBytes {
            throw StoreConfigurationError(
                message: "tombstoneBytesMax is \(tombstoneBytesMax), which is not in 0...memoryBytes \(memoryBytes)"
            )
        }
        if promotionHits < 1 || promotionHits > Slot.frequencyMax {
            throw StoreConfigurationError(message: "promotionHits is \(promotionHits), which is not in 1...3")
        }
    }
}

/// Settings of a shard that cannot work together.
public struct StoreConfigurationError: Error, Hashable, CustomStringConvertible {
    /// What was set, and what it contradicts.
    public var message: String

    public var description: String { message }
}
