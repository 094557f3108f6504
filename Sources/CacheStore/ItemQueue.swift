/// A queue through the items themselves, from the newest to the oldest.
struct ItemQueue {
    private(set) var newest: ItemPointer?
    private(set) var oldest: ItemPointer?
    private(set) var count = 0
    /// What the items cost, in bytes.
    private(set) var bytes = 0

    @inline(__always)
    mutating func append(_ item: ItemPointer) {
        item.pointee.newer = nil
        item.pointee.older = newest
        if let newest { newest.pointee.newer = item } else { oldest = item }
        newest = item
        count &+= 1
        bytes &+= item.charge
    }

    @inline(__always)
    mutating func remove(_ item: ItemPointer) {
        let newer = item.pointee.newer
        let older = item.pointee.older
        if let newer { newer.pointee.older = older } else { newest = older }
        if let older { older.pointee.newer = newer } else { oldest = newer }
        count &-= 1
        bytes &-= item.charge
    }

    /// Gives the place of one item to another.
    mutating func replace(_ item: ItemPointer, by replacement: ItemPointer) {
        let newer = item.pointee.newer
        let older = item.pointee.older
        replacement.pointee.newer = newer
        replacement.pointee.older = older
        if let newer { newer.pointee.older = replacement } else { newest = replacement }
        if let older { older.pointee.newer = replacement } else { oldest = replacement }
        bytes &+= replacement.charge &- item.charge
    }
}
