import ClusterCore
import Glibc

// The index: where in the segments an item lies.
//
// Problem. An index must find an item with one or two cache misses, grow without a pause, waste little memory at every
// size, and list a slice without a scan of the rest.
//
// The simple idea, one table for all that doubles, fails three times: the doubling stops the world; right after it half
// of the table is empty; and a slice's items lie anywhere.
//
// The idea used. The circle of hashes is cut into *pages*, contiguous ranges, found by the top bits of the hash in a
// directory as in extendible hashing (Fagin and others, 1979). A page has one to seven *extents* of 1 KiB, sixteen
// buckets of eight slots each, and grows by one extent at a time; at seven it becomes two pages of four. A bucket is
// one cache line. Within a page buckets lie in the order of the hash, so that a slice is a run of buckets, whatever the
// size of the page. A full bucket spills into the next one of the page, and its bit says so: a miss stops at the first
// bucket whose bit is not set.
//
// A slot holds enough of the hash to be moved without a look at its item:
//
//     63 … 38 tag    37 36 frequency    35 34 kind    33 … 0 location, in units of four bytes
//
// The tag is a fixed window of the hash, so that growing and splitting read slots only. Its upper bits name the page
// and the bucket; at least 13 bits are left to tell the items of a bucket apart before their keys are compared.

/// A range of the circle: where its slots are.
struct Page {
    /// A bit for each bucket that has spilled into the next one.
    var spilledLow: UInt64 = 0
    var spilledHigh: UInt64 = 0
    /// The page's number among all of its depth.
    var prefix: UInt32
    /// Slots in use.
    var count: UInt16 = 0
    /// How many top bits of the hash all its items share.
    var depth: UInt8
    var extentCount: UInt8 = 0
    /// Slots that were emptied since the bits of the spilled were last made anew.
    var stale: UInt16 = 0
    private var unused: UInt16 = 0
    /// The numbers of the extents, in KiB from the first segment.
    var extents: (UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32) = (0, 0, 0, 0, 0, 0, 0)

    init(prefix: UInt32, depth: UInt8) {
        self.prefix = prefix
        self.depth = depth
    }

    static let extentsMax = 7
    static let extentsOffset = 28

    var bucketCount: Int { Int(extentCount) &* HashIndex.extentBuckets }
    var slotCount: Int { bucketCount &* HashIndex.bucketSlots }
    /// From this count on the page grows: seven eighths.
    var growsAt: Int { slotCount &- slotCount / 8 }
    var hasSpilled: Bool { spilledLow | spilledHigh != 0 }
}

typealias PagePointer = UnsafeMutablePointer<Page>
typealias SlotPointer = UnsafeMutablePointer<UInt64>

extension UnsafeMutablePointer where Pointee == Page {
    @inline(__always)
    func extent(_ index: Int) -> UInt32 {
        UnsafeRawPointer(self).load(fromByteOffset: Page.extentsOffset &+ index &* 4, as: UInt32.self)
    }

    @inline(__always)
    func setExtent(_ index: Int, _ extent: UInt32) {
        UnsafeMutableRawPointer(self).storeBytes(
            of: extent,
            toByteOffset: Page.extentsOffset &+ index &* 4,
            as: UInt32.self
        )
    }

    @inline(__always)
    func isSpilled(_ bucket: Int) -> Bool {
        // The two words lie one behind the other, at the start; a choice between them could not be foreseen.
        let word = UnsafeRawPointer(self).load(fromByteOffset: (bucket &>> 6) &* 8, as: UInt64.self)
        return word &>> UInt64(bucket & 63) & 1 != 0
    }

    @inline(__always)
    func markSpilled(_ bucket: Int) {
        if bucket < 64 {
            pointee.spilledLow |= 1 &<< UInt64(bucket)
        } else {
            pointee.spilledHigh |= 1 &<< UInt64(bucket &- 64)
        }
    }
}

/// The fields of a slot.
enum Slot {
    static let tagShift: UInt64 = 38
    static let frequencyShift: UInt64 = 36
    static let kindShift: UInt64 = 34
    static let locationMask: UInt64 = 1 << 34 - 1
    static let kindMask: UInt64 = 3 << kindShift
    static let frequencyMax: UInt8 = 3

    /// 0 is an empty slot.
    enum Kind: UInt64 {
        case small = 1
        case main = 2
        case tombstone = 3
    }

    @inline(__always)
    static func make(tag: UInt64, kind: Kind, frequency: UInt8, location: UInt64) -> UInt64 {
        tag &<< tagShift | UInt64(frequency) &<< frequencyShift | kind.rawValue &<< kindShift | location
    }

    @inline(__always)
    static func location(_ slot: UInt64) -> UInt64 { slot & locationMask }

    @inline(__always)
    static func frequency(_ slot: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: slot &>> frequencyShift & 3) }

    @inline(__always)
    static func isMain(_ slot: UInt64) -> Bool { slot & kindMask == Kind.main.rawValue &<< kindShift }

    @inline(__always)
    static func isTombstone(_ slot: UInt64) -> Bool { slot & kindMask == kindMask }

    /// The slot of the same item in another place.
    @inline(__always)
    static func moved(_ slot: UInt64, kind: Kind, frequency: UInt8, location: UInt64) -> UInt64 {
        make(tag: slot &>> tagShift, kind: kind, frequency: frequency, location: location)
    }
}

struct HashIndex {
    static let extentBytes = 1024
    static let bucketSlots = 8
    static let extentBuckets = extentBytes / 8 / bucketSlots
    /// A page's header has a cache line of its own.
    static let pageStride = 64
    private static let tagBits: UInt64 = 26
    private static let tagMask: UInt64 = 1 << tagBits - 1
    /// How much deeper than at first a page may lie: beyond, its buckets could not be told apart by the tag.
    static let depthRangeMax = 19
    /// What a split takes at most beyond what it gives back.
    private static let extentsForWork = 2
    /// How many slots are emptied before the bits of the spilled are made anew.
    private static let staleMax = 128

    /// Where the first segment begins.
    private let base: UnsafeMutableRawPointer
    private let pages: UnsafeMutableRawPointer
    private let directory: UnsafeMutablePointer<UInt32>
    private let pagesMax: Int
    private let depthMax: Int
    private let initialDepth: UInt64
    /// The first hash of the shard, and how far to shift so that the shard's range begins at the top bit.
    private let firstHash: UInt64
    private let shift: UInt64
    private let tagWindowShift: UInt64
    private let segmentExtents: UInt32

    private(set) var pageCount = 0
    /// The directory has 2^depth entries.
    private(set) var depth: Int
    /// Extents in index segments that no page has.
    private(set) var freeExtents = 0
    /// Extents that pages have.
    private(set) var usedExtents = 0
    /// An index segment that may have free extents.
    private var segmentHint = SegmentTable.none

    init(
        layout: StoreLayout,
        region: UnsafeMutableRawPointer,
        slices: Range<Int>
    ) {
        base = region + layout.segmentsOffset
        pages = region + layout.pagesOffset
        directory = (region + layout.directoryOffset).bindMemory(to: UInt32.self, capacity: 1 << layout.depthMax)
        pagesMax = layout.pagesMax
        depthMax = layout.depthMax
        initialDepth = UInt64(layout.initialDepth)
        firstHash = UInt64(slices.lowerBound) << 50
        var shardBits = 0
        while 1 << shardBits < slices.count { shardBits += 1 }
        shift = UInt64(14 - shardBits)
        tagWindowShift = 64 - UInt64(layout.initialDepth) - Self.tagBits
        segmentExtents = UInt32(layout.segmentBytes / Self.extentBytes)
        depth = layout.initialDepth
        for prefix in 0..<(1 << layout.initialDepth) {
            directory[prefix] = UInt32(prefix)
            page(UInt32(prefix)).initialize(to: Page(prefix: UInt32(prefix), depth: UInt8(layout.initialDepth)))
        }
        pageCount = 1 << layout.initialDepth
    }

    // MARK: Places

    /// A hash's place in the shard's range, from its top bit on.
    @inline(__always)
    func position(_ hash: UInt64) -> UInt64 { (hash &- firstHash) &<< shift }

    /// The hash at a place; the inverse of `position`.
    func hash(at position: UInt64) -> UInt64 { position >> shift &+ firstHash }

    @inline(__always)
    func tag(_ position: UInt64) -> UInt64 { position &>> tagWindowShift & Self.tagMask }

    @inline(__always)
    func page(_ number: UInt32) -> PagePointer {
        (pages + Int(number) &* Self.pageStride).assumingMemoryBound(to: Page.self)
    }

    @inline(__always)
    func page(at position: UInt64) -> PagePointer {
        page(directory[Int(truncatingIfNeeded: position &>> UInt64(64 &- depth))])
    }

    /// The bucket where a tag belongs, of that many.
    @inline(__always)
    func bucketIndex(_ tag: UInt64, depth: UInt8, bucketCount: Int) -> Int {
        let inPage = tag &<< (UInt64(depth) &- initialDepth) & Self.tagMask
        return Int(truncatingIfNeeded: (inPage &* UInt64(bucketCount)) &>> Self.tagBits)
    }

    @inline(__always)
    func bucketIndex(_ tag: UInt64, in page: PagePointer) -> Int {
        bucketIndex(tag, depth: page.pointee.depth, bucketCount: page.pointee.bucketCount)
    }

    @inline(__always)
    func bucket(_ index: Int, of page: PagePointer) -> SlotPointer {
        let extent = Int(page.extent(index &>> 4))
        return (base + (extent &<< 10 &+ (index & 15) &<< 6)).assumingMemoryBound(to: UInt64.self)
    }

    /// Where the range of a page begins, and where the next one does; the latter is 0 at the end of the circle.
    func range(of page: PagePointer) -> (start: UInt64, end: UInt64) {
        let shift = UInt64(64 &- Int(page.pointee.depth))
        return (UInt64(page.pointee.prefix) &<< shift, (UInt64(page.pointee.prefix) &+ 1) &<< shift)
    }

    /// Asks for the bucket where a hash belongs, and for the one behind it where the first has spilled.
    @inline(__always)
    func prefetch(_ hash: UInt64) {
        let position = position(hash)
        let page = page(at: position)
        if page.pointee.extentCount == 0 { return }
        let index = bucketIndex(tag(position), in: page)
        let bucket = bucket(index, of: page)
        Prefetch.read(bucket)
        // Without a branch. At the end of an extent it asks in vain, for what lies behind.
        Prefetch.read(bucket + (page.isSpilled(index) ? Self.bucketSlots : 0))
    }

    /// What most likely is the slot of a hash: one with its tag in the first two buckets. Looks at no record.
    @inline(__always)
    func likelySlot(_ hash: UInt64) -> UInt64? {
        let position = position(hash)
        let page = page(at: position)
        let bucketCount = page.pointee.bucketCount
        if bucketCount == 0 { return nil }
        let tag = tag(position)
        let index = bucketIndex(tag, in: page)
        let first = bucket(index, of: page)
        let matches = Self.matches(tag, in: first)
        if matches != 0 { return first[matches.trailingZeroBitCount] }
        guard page.isSpilled(index) else { return nil }
        let second = bucket(index &+ 1 == bucketCount ? 0 : index &+ 1, of: page)
        let others = Self.matches(tag, in: second)
        return others == 0 ? nil : second[others.trailingZeroBitCount]
    }

    /// A bit for each slot of a bucket that has a tag; for tag 0 empty ones are among them.
    ///
    /// All eight are compared and nothing branches: which slot it is, no processor can foresee.
    @inline(__always)
    static func matches(_ tag: UInt64, in bucket: SlotPointer) -> UInt32 {
        var matches: UInt32 = 0
        for slotIndex in 0..<bucketSlots {
            let isMatch: UInt32 = bucket[slotIndex] &>> Slot.tagShift == tag ? 1 : 0
            matches |= isMatch &<< UInt32(truncatingIfNeeded: slotIndex)
        }
        return matches
    }

    /// Walks the slots whose tag is a hash's, until `body` returns true; returns that slot.
    @inline(__always)
    func first(_ hash: UInt64, where body: (UInt64) -> Bool) -> SlotPointer? {
        let position = position(hash)
        let page = page(at: position)
        let bucketCount = page.pointee.bucketCount
        if bucketCount == 0 { return nil }
        let tag = tag(position)
        var index = bucketIndex(tag, in: page)
        var left = bucketCount
        while true {
            let bucket = bucket(index, of: page)
            var matches = Self.matches(tag, in: bucket)
            while matches != 0 {
                let slot = bucket + matches.trailingZeroBitCount
                if slot.pointee & Slot.kindMask != 0, body(slot.pointee) { return slot }
                matches &= matches &- 1
            }
            left &-= 1
            guard left > 0, page.isSpilled(index) else { return nil }
            index &+= 1
            if index == bucketCount { index = 0 }
        }
    }

    /// The slot of a hash whose record lies at a location.
    @inline(__always)
    func slot(_ hash: UInt64, location: UInt64) -> SlotPointer? {
        first(hash) { Slot.location($0) == location }
    }

    // MARK: Changes

    /// Puts a slot where its hash belongs. There must be room: `isFull` of its page is false.
    @discardableResult
    mutating func insert(_ hash: UInt64, kind: Slot.Kind, frequency: UInt8, location: UInt64) -> SlotPointer {
        let position = position(hash)
        let page = page(at: position)
        let slot = Slot.make(tag: tag(position), kind: kind, frequency: frequency, location: location)
        page.pointee.count &+= 1
        return place(slot, in: page)
    }

    /// Puts a slot into the first free place from its bucket on.
    @inline(__always)
    private func place(_ slot: UInt64, in page: PagePointer) -> SlotPointer {
        let bucketCount = page.pointee.bucketCount
        var index = bucketIndex(slot &>> Slot.tagShift, in: page)
        for _ in 0..<bucketCount {
            let bucket = bucket(index, of: page)
            for slotIndex in 0..<Self.bucketSlots where bucket[slotIndex] == 0 {
                bucket[slotIndex] = slot
                return bucket + slotIndex
            }
            page.markSpilled(index)
            index &+= 1
            if index == bucketCount { index = 0 }
        }
        preconditionFailure("a page of \(page.pointee.count) slots has no room in \(bucketCount) buckets")
    }

    /// Empties a slot of a hash.
    @inline(__always)
    func remove(_ slot: SlotPointer, _ hash: UInt64) {
        let page = page(at: position(hash))
        slot.pointee = 0
        page.pointee.count &-= 1
        if page.pointee.hasSpilled, page.pointee.stale < .max { page.pointee.stale &+= 1 }
    }

    /// Whether the page of a hash must be made anew before something is put into it.
    @inline(__always)
    func needsWork(_ hash: UInt64) -> Bool {
        let page = page(at: position(hash))
        return Int(page.pointee.count) >= page.pointee.growsAt || Int(page.pointee.stale) >= Self.staleMax
    }

    /// Whether nothing more fits into the page of a hash.
    func isFull(_ hash: UInt64) -> Bool {
        let page = page(at: position(hash))
        return Int(page.pointee.count) >= page.pointee.slotCount
    }

    /// Whether `work` may need a segment for extents.
    func needsSegment(_ hash: UInt64) -> Bool {
        let page = page(at: position(hash))
        return freeExtents < Self.extentsForWork && Int(page.pointee.count) >= page.pointee.growsAt
    }

    /// Lets the page of a hash grow, split, or set its bits of the spilled anew. False where it should grow and cannot:
    /// no segment is free, or there may be no more pages.
    mutating func work(_ hash: UInt64, segments: inout SegmentTable) -> Bool {
        let page = page(at: position(hash))
        guard Int(page.pointee.count) >= page.pointee.growsAt else {
            rebuild(page, extentCount: Int(page.pointee.extentCount), segments: &segments)
            return true
        }
        guard freeExtents >= Self.extentsForWork || addSegment(&segments) else { return false }
        if Int(page.pointee.extentCount) < Page.extentsMax {
            rebuild(page, extentCount: Int(page.pointee.extentCount) + 1, segments: &segments)
            return true
        }
        return split(page, segments: &segments)
    }

    /// Takes the slots of a page out and puts them back into that many extents.
    private mutating func rebuild(_ page: PagePointer, extentCount: Int, segments: inout SegmentTable) {
        withSlots(of: page) { slots in
            resize(page, extentCount: extentCount, segments: &segments)
            for slot in slots { _ = place(slot, in: page) }
        }
    }

    private func withSlots(of page: PagePointer, _ body: (UnsafeMutableBufferPointer<UInt64>) -> Void) {
        withUnsafeTemporaryAllocation(of: UInt64.self, capacity: max(1, Int(page.pointee.count))) { buffer in
            var count = 0
            for index in 0..<page.pointee.bucketCount {
                let bucket = bucket(index, of: page)
                for slotIndex in 0..<Self.bucketSlots where bucket[slotIndex] != 0 {
                    buffer[count] = bucket[slotIndex]
                    count += 1
                }
            }
            precondition(count == Int(page.pointee.count), "a page counts \(page.pointee.count) slots and has \(count)")
            body(UnsafeMutableBufferPointer(rebasing: buffer[..<count]))
        }
    }

    /// Gives a page that many empty extents; what was in its slots is gone.
    private mutating func resize(_ page: PagePointer, extentCount: Int, segments: inout SegmentTable) {
        var count = Int(page.pointee.extentCount)
        while count > extentCount {
            count -= 1
            release(page.extent(count), segments: &segments)
        }
        while count < extentCount {
            page.setExtent(count, takeExtent(segments: &segments))
            count += 1
        }
        page.pointee.extentCount = UInt8(extentCount)
        page.pointee.spilledLow = 0
        page.pointee.spilledHigh = 0
        page.pointee.stale = 0
        for index in 0..<extentCount { memset(base + Int(page.extent(index)) << 10, 0, Self.extentBytes) }
    }

    private mutating func split(_ page: PagePointer, segments: inout SegmentTable) -> Bool {
        guard pageCount < pagesMax, Int(page.pointee.depth) < depthMax else { return false }
        if Int(page.pointee.depth) == depth { doubleDirectory() }
        let number = UInt32(pageCount)
        pageCount += 1
        let upper = self.page(number)
        let depth = page.pointee.depth + 1
        let prefix = page.pointee.prefix << 1
        upper.initialize(to: Page(prefix: prefix | 1, depth: depth))
        // The bit of the tag that tells the halves apart.
        let bit = Self.tagBits &+ initialDepth &- UInt64(depth)
        withSlots(of: page) { slots in
            var upperCount = 0
            for slot in slots { upperCount += Int(slot &>> (Slot.tagShift &+ bit) & 1) }
            let lowerCount = slots.count - upperCount
            page.pointee.depth = depth
            page.pointee.prefix = prefix
            page.pointee.count = UInt16(lowerCount)
            upper.pointee.count = UInt16(upperCount)
            // The lower half gives back what it does not need before the upper half takes it.
            resize(page, extentCount: 0, segments: &segments)
            resize(page, extentCount: Self.extents(for: lowerCount), segments: &segments)
            resize(upper, extentCount: Self.extents(for: upperCount), segments: &segments)
            for slot in slots {
                _ = place(slot, in: slot &>> (Slot.tagShift &+ bit) & 1 == 0 ? page : upper)
            }
        }
        // The entries of the upper half: all that begin with its prefix.
        let span = 1 << (self.depth - Int(depth))
        let start = Int(prefix | 1) * span
        for entry in start..<(start + span) { directory[entry] = number }
        return true
    }

    /// How many extents hold that many slots and have room for some more. Two halves of a full page need at most two
    /// extents more than it has.
    private static func extents(for count: Int) -> Int {
        let extentSlots = extentBuckets * bucketSlots
        let growsAt = extentSlots - extentSlots / 8
        return count == 0 ? 0 : min(Page.extentsMax, count / growsAt + 1)
    }

    /// Every entry becomes two. From the top, so that none is overwritten before it was read.
    private mutating func doubleDirectory() {
        var entry = 1 << depth
        while entry > 0 {
            entry -= 1
            let number = directory[entry]
            directory[2 * entry] = number
            directory[2 * entry + 1] = number
        }
        depth += 1
    }

    // MARK: Extents

    private mutating func addSegment(_ segments: inout SegmentTable) -> Bool {
        guard let segment = segments.take(.index) else { return false }
        let row = segments.rows + Int(segment)
        for extent in 0..<segmentExtents {
            let isLast = extent + 1 == segmentExtents
            (segments.start(segment) + Int(extent) * Self.extentBytes).storeBytes(
                of: isLast ? SegmentTable.none : extent + 1,
                as: UInt32.self
            )
        }
        row.pointee.freeExtent = 0
        freeExtents += Int(segmentExtents)
        segmentHint = segment
        return true
    }

    private mutating func takeExtent(
        segments: inout SegmentTable,
        except avoided: UInt32 = SegmentTable.none
    ) -> UInt32 {
        if !isUsable(segmentHint, avoided, segments) {
            var segment = segments.index.newest
            while segment != SegmentTable.none, !isUsable(segment, avoided, segments) {
                segment = segments.rows[Int(segment)].previous
            }
            // What a split gives back may have been the last of a segment, which is free then.
            let isThere = segment != SegmentTable.none || addSegment(&segments)
            precondition(isThere, "\(freeExtents) extents are free and none is found")
            if segment != SegmentTable.none { segmentHint = segment }
        }
        let segment = segmentHint
        let row = segments.rows + Int(segment)
        let extent = row.pointee.freeExtent
        row.pointee.freeExtent = (segments.start(segment) + Int(extent) * Self.extentBytes).load(as: UInt32.self)
        row.pointee.used += 1
        freeExtents -= 1
        usedExtents += 1
        return segment * segmentExtents + extent
    }

    private func isUsable(_ segment: UInt32, _ avoided: UInt32, _ segments: SegmentTable) -> Bool {
        segment != SegmentTable.none && segment != avoided && segments.rows[Int(segment)].role == .index
            && segments.rows[Int(segment)].freeExtent != SegmentTable.none
    }

    private mutating func release(_ extent: UInt32, segments: inout SegmentTable) {
        let segment = extent / segmentExtents
        let row = segments.rows + Int(segment)
        (base + Int(extent) << 10).storeBytes(of: row.pointee.freeExtent, as: UInt32.self)
        row.pointee.freeExtent = extent % segmentExtents
        row.pointee.used -= 1
        freeExtents += 1
        usedExtents -= 1
        guard row.pointee.used == 0 else { return }
        // An empty index segment is worth more to the items.
        freeExtents -= Int(segmentExtents)
        if segmentHint == segment { segmentHint = SegmentTable.none }
        segments.release(segment)
    }

    // MARK: Shrinking

    /// Lets a page give back extents that it has too many of: below three eighths of its slots. Returns whether it did.
    mutating func shrink(_ number: Int, segments: inout SegmentTable) -> Bool {
        let page = page(UInt32(number))
        let extentCount = Int(page.pointee.extentCount)
        guard extentCount > 0, Int(page.pointee.count) < page.pointee.slotCount * 3 / 8 || page.pointee.count == 0
        else { return false }
        let wanted = Self.extents(for: Int(page.pointee.count))
        guard wanted < extentCount else { return false }
        rebuild(page, extentCount: wanted, segments: &segments)
        return true
    }

    /// An index segment that could be emptied into the free extents of the others; nil where that is not worth it.
    func sparseSegment(_ segments: SegmentTable) -> UInt32? {
        guard freeExtents >= Int(segmentExtents) + 2 else { return nil }
        var best = SegmentTable.none
        var segment = segments.index.newest
        while segment != SegmentTable.none {
            if best == SegmentTable.none || segments.rows[Int(segment)].used < segments.rows[Int(best)].used {
                best = segment
            }
            segment = segments.rows[Int(segment)].previous
        }
        return best == SegmentTable.none ? nil : best
    }

    /// Moves the extents that a page has in a segment to other segments, as long as there are free ones.
    mutating func evacuate(_ segment: UInt32, page number: Int, segments: inout SegmentTable) {
        let page = page(UInt32(number))
        for index in 0..<Int(page.pointee.extentCount) {
            let extent = page.extent(index)
            guard extent / segmentExtents == segment else { continue }
            let elsewhere = freeExtents - Int(segmentExtents - segments.rows[Int(segment)].used)
            guard elsewhere > 0 else { return }
            let target = takeExtent(segments: &segments, except: segment)
            memcpy(base + Int(target) << 10, base + Int(extent) << 10, Self.extentBytes)
            page.setExtent(index, target)
            release(extent, segments: &segments)
        }
    }

    // MARK: Ranges

    /// Collects the slots of a page whose tags are in a range, in no order.
    func forEachSlot(of page: PagePointer, tags: ClosedRange<UInt64>, _ body: (SlotPointer) -> Void) {
        let bucketCount = page.pointee.bucketCount
        if bucketCount == 0 { return }
        var index = bucketIndex(tags.lowerBound, in: page)
        let last = bucketIndex(tags.upperBound, in: page)
        var isBehind = false
        for _ in 0..<bucketCount {
            let bucket = bucket(index, of: page)
            for slotIndex in 0..<Self.bucketSlots {
                let slot = bucket[slotIndex]
                if slot & Slot.kindMask != 0, tags.contains(slot &>> Slot.tagShift) { body(bucket + slotIndex) }
            }
            // Behind the last bucket there may be what spilled out of it.
            if index == last { isBehind = true }
            if isBehind, !page.isSpilled(index) { return }
            index += 1
            if index == bucketCount { index = 0 }
        }
    }
}
