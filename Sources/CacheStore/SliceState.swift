import ClusterCore
import Glibc

/// One slice: its row, and the index of its items.
///
/// The index is a table of 2^bits buckets, addressed by the bits of the hash below the slice's 14, so that buckets lie
/// in the order of the circle; chains are sorted by hash, which makes a hash a cursor that survives any change. A full
/// table grows into one of twice the size a few buckets at a time; meanwhile the buckets below `migrated` live in
/// `larger`:
///
///     table   · · · · 4 5 6 7          migrated = 4
///     larger  0 1 2 3 4 5 6 7 · · · · · · · ·
///
/// One table a slice rather than one a shard: growth comes in portions of a slice and needs no spare memory to speak
/// of. It costs the row's line on each access, which is warm, since there are few rows.
struct SliceState {
    typealias Table = UnsafeMutablePointer<ItemPointer?>

    /// First, so that a pointer to the state is a pointer to the row.
    var row = SliceRow()
    var table: Table?
    var larger: Table?
    /// Where the next step of `drop` begins, as a place.
    var dropPlace: UInt64 = 0
    /// Items and tombstones.
    var nodes: UInt32 = 0
    var migrated: UInt32 = 0
    var bits: UInt8 = 0
    /// A flush has killed items that are not yet swept.
    var isSweepPending = false

    /// The first table's size, as a power of two.
    static let bitsMin: UInt8 = 1
    static let bitsMax: UInt8 = 30
    /// How many buckets of a growing table move with each insertion.
    static let migrationStep = 4

    static func tableCharge(bits: UInt8) -> Int { Block.charge(8 << Int(bits)) }

    /// Makes an empty table; nil where the system has no memory.
    static func makeTable(bits: UInt8) -> Table? {
        guard let raw = calloc(1 << Int(bits), 8) else { return nil }
        return raw.bindMemory(to: ItemPointer?.self, capacity: 1 << Int(bits))
    }

    /// The place of a hash within its slice: what follows the slice's bits, at the top.
    @inline(__always)
    static func place(_ hash: UInt64) -> UInt64 { hash &<< 14 }

    /// Whether the table should grow: chains of one and a half on average.
    var isFull: Bool {
        larger == nil && bits < Self.bitsMax && Int(nodes) > (1 << Int(bits)) &+ (1 << Int(bits)) / 2
    }

    /// Whether the table is far too large for what it holds.
    var isSparse: Bool {
        larger == nil && table != nil && (nodes == 0 || bits > Self.bitsMin && Int(nodes) << 3 < 1 << Int(bits))
    }

    /// The bucket of a place, nil where there is no table yet.
    @inline(__always)
    func bucket(at place: UInt64) -> Table? {
        guard let table else { return nil }
        let index = place &>> UInt64(64 &- bits)
        if let larger, index < UInt64(migrated) {
            return larger + Int(truncatingIfNeeded: place &>> UInt64(63 &- bits))
        }
        return table + Int(truncatingIfNeeded: index)
    }

    /// The place where the bucket after the one of `place` begins; 0 after the last.
    func nextPlace(after place: UInt64) -> UInt64 {
        let index = place &>> UInt64(64 &- bits)
        if larger != nil, index < UInt64(migrated) {
            return ((place &>> UInt64(63 &- bits)) &+ 1) &<< UInt64(63 &- bits)
        }
        return (index &+ 1) &<< UInt64(64 &- bits)
    }

    /// The item or tombstone of a key.
    @inline(__always)
    func locate(hash: UInt64, key: UnsafeRawBufferPointer) -> ItemPointer? {
        guard let bucket = bucket(at: Self.place(hash)) else { return nil }
        var node = bucket.pointee
        while let item = node {
            let other = item.pointee.hash
            if other >= hash {
                if other > hash { return nil }
                if item.hasKey(key) { return item }
            }
            node = item.pointee.next
        }
        return nil
    }

    /// Puts a new node into its chain. There must be a table.
    mutating func link(_ item: ItemPointer) {
        guard var link = bucket(at: Self.place(item.pointee.hash)) else {
            preconditionFailure("a slice without table takes no item")
        }
        while let other = link.pointee, other.pointee.hash < item.pointee.hash { link = other.link }
        item.pointee.next = link.pointee
        link.pointee = item
        nodes &+= 1
    }

    /// Takes a node out of its chain and, where given, puts another of the same hash in its stead.
    mutating func unlink(_ item: ItemPointer, replacement: ItemPointer? = nil) {
        guard var link = bucket(at: Self.place(item.pointee.hash)) else {
            preconditionFailure("a slice without table holds no item")
        }
        while let other = link.pointee, other != item { link = other.link }
        precondition(link.pointee == item, "item of hash \(item.pointee.hash) is not in its bucket")
        if let replacement {
            replacement.pointee.next = item.pointee.next
            link.pointee = replacement
        } else {
            link.pointee = item.pointee.next
            nodes &-= 1
        }
    }

    /// Moves up to `limit` buckets to the larger table, and returns the bytes that became free: those of the old table
    /// after the last bucket, else 0.
    mutating func migrate(_ limit: Int) -> Int {
        guard let larger, let table else { return 0 }
        let end = min(Int(migrated) &+ limit, 1 << Int(bits))
        while Int(migrated) < end {
            let index = Int(migrated)
            // Sorted chains split into a first half for the lower bucket and a rest for the upper one.
            let bound = UInt64(2 &* index &+ 1) &<< UInt64(63 &- bits)
            var link = table + index
            larger[2 &* index] = link.pointee
            link = larger + 2 &* index
            while let item = link.pointee, Self.place(item.pointee.hash) < bound { link = item.link }
            larger[2 &* index &+ 1] = link.pointee
            link.pointee = nil
            table[index] = nil
            migrated &+= 1
        }
        guard end == 1 << Int(bits) else { return 0 }
        free(table)
        let freed = Self.tableCharge(bits: bits)
        self.table = larger
        self.larger = nil
        bits &+= 1
        migrated = 0
        return freed
    }

    /// Puts the few nodes of a sparse table into a smaller one, or drops an empty table; returns the bytes won.
    mutating func shrink() -> Int {
        guard isSparse, let table else { return 0 }
        let before = Self.tableCharge(bits: bits)
        if nodes == 0 {
            free(table)
            self.table = nil
            bits = 0
            return before
        }
        var smallerBits = Self.bitsMin
        while 1 << Int(smallerBits) < Int(nodes) { smallerBits &+= 1 }
        guard let smaller = Self.makeTable(bits: smallerBits) else { return 0 }
        // Downwards, so that each old bucket's chain is put before those that follow it in the same new bucket.
        var index = 1 << Int(bits)
        while index > 0 {
            index &-= 1
            guard let head = table[index] else { continue }
            var last = head
            while let next = last.pointee.next { last = next }
            let target = smaller + (index &>> Int(bits &- smallerBits))
            last.pointee.next = target.pointee
            target.pointee = head
        }
        free(table)
        self.table = smaller
        bits = smallerBits
        return before &- Self.tableCharge(bits: smallerBits)
    }
}
