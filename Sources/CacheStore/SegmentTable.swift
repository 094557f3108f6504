/// What is known of one segment.
struct SegmentRow {
    enum Role: UInt8 {
        case free
        /// Items that have not been read since they came.
        case small
        /// Items that were.
        case main
        case tombstones
        /// Extents of the index.
        case index
    }

    /// Bytes written so far; of an index segment, extents that are in use.
    var used: UInt32 = 0
    /// Bytes of records that are not fillers.
    var live: UInt32 = 0
    /// The Unix second from which all of it is expired, but for items that were touched since; `.max` is never.
    var expiry: UInt32 = 0
    /// Neighbours in the list of the role, or of the free.
    var next = SegmentTable.none
    var previous = SegmentTable.none
    /// The first free extent of an index segment, counted from its start; `none` at the end.
    var freeExtent = SegmentTable.none
    var role = Role.free
    /// Records are still appended to it.
    var isOpen = false
    /// It was opened for items that expire.
    var isExpiring = false
}

/// Segments in the order in which they were opened, the oldest first.
struct SegmentList {
    fileprivate(set) var oldest = SegmentTable.none
    fileprivate(set) var newest = SegmentTable.none
    fileprivate(set) var count = 0
}

/// The segments of a shard: which are free, and in what order the others were opened.
struct SegmentTable {
    /// No segment.
    static let none = UInt32.max

    let rows: UnsafeMutablePointer<SegmentRow>
    /// Where the first segment begins.
    let base: UnsafeMutableRawPointer
    let count: Int
    let segmentBytes: Int
    private let shift: UInt64

    private(set) var small = SegmentList()
    private(set) var main = SegmentList()
    private(set) var tombstones = SegmentList()
    private(set) var index = SegmentList()
    private var firstFree = SegmentTable.none
    /// Segments from here on were never used. They are taken last, so that memory is touched only when it is needed.
    private var firstVirgin = 0
    /// Segments that are in no use.
    private(set) var freeCount: Int

    init(
        rows: UnsafeMutablePointer<SegmentRow>,
        base: UnsafeMutableRawPointer,
        count: Int,
        segmentBytes: Int
    ) {
        self.rows = rows
        self.base = base
        self.count = count
        self.segmentBytes = segmentBytes
        shift = UInt64(segmentBytes.trailingZeroBitCount &- 2)
        freeCount = count
        rows.initialize(repeating: SegmentRow(), count: count)
    }

    /// Rows that have ever been in use are below this.
    var touchedCount: Int { firstVirgin }

    /// The record at a location, which counts units of four bytes from the first segment.
    @inline(__always)
    func record(_ location: UInt64) -> Record {
        Record(base + Int(truncatingIfNeeded: location &<< 2))
    }

    @inline(__always)
    func segment(of location: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: location &>> shift) }

    @inline(__always)
    func location(segment: UInt32, offset: Int) -> UInt64 {
        UInt64(segment) &<< shift &+ UInt64(offset &>> 2)
    }

    @inline(__always)
    func start(_ segment: UInt32) -> UnsafeMutableRawPointer { base + Int(segment) &* segmentBytes }

    /// Takes a free segment; nil where there is none.
    mutating func take(_ role: SegmentRow.Role) -> UInt32? {
        let segment: UInt32
        if firstFree != Self.none {
            segment = firstFree
            firstFree = rows[Int(segment)].next
        } else if firstVirgin < count {
            segment = UInt32(firstVirgin)
            firstVirgin += 1
        } else {
            return nil
        }
        freeCount -= 1
        rows[Int(segment)] = SegmentRow(role: role)
        append(segment, role)
        return segment
    }

    /// Gives a segment back; nothing in it may be in use.
    mutating func release(_ segment: UInt32) {
        remove(segment, rows[Int(segment)].role)
        rows[Int(segment)] = SegmentRow(next: firstFree)
        firstFree = segment
        freeCount += 1
    }

    private mutating func append(_ segment: UInt32, _ role: SegmentRow.Role) {
        change(role) { list, rows in
            rows[Int(segment)].previous = list.newest
            if list.newest == Self.none {
                list.oldest = segment
            } else {
                rows[Int(list.newest)].next = segment
            }
            list.newest = segment
            list.count += 1
        }
    }

    private mutating func remove(_ segment: UInt32, _ role: SegmentRow.Role) {
        change(role) { list, rows in
            let next = rows[Int(segment)].next
            let previous = rows[Int(segment)].previous
            if next == Self.none { list.newest = previous } else { rows[Int(next)].previous = previous }
            if previous == Self.none { list.oldest = next } else { rows[Int(previous)].next = next }
            list.count -= 1
        }
    }

    private mutating func change(
        _ role: SegmentRow.Role,
        _ body: (inout SegmentList, UnsafeMutablePointer<SegmentRow>) -> Void
    ) {
        switch role {
        case .small: body(&small, rows)
        case .main: body(&main, rows)
        case .tombstones: body(&tombstones, rows)
        case .index: body(&index, rows)
        case .free: preconditionFailure("a free segment is in no list")
        }
    }
}
