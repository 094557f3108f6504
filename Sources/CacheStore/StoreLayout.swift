import ClusterCore

/// How the memory of a shard is laid out: one region, taken once, of which every byte has its place.
///
///     ghosts │ slice rows │ segment rows │ page headers │ directory │ segments …
///     ◀────────────────────── fixed ─────────────────────────────▶
///
/// Everything refers to everything else by offsets, so that the region could be mapped again elsewhere.
struct StoreLayout {
    /// Bytes of a segment, a power of two.
    let segmentBytes: Int
    let segmentShift: Int
    let segmentCount: Int
    /// Bytes of a value that a chunk holds: four chunks fill a segment.
    let chunkBytes: Int
    /// The largest record that is not cut into chunks, in bytes.
    let recordBytesMax: Int
    /// Sets of the ghost table.
    let ghostSets: Int
    /// The directory begins with 2^initialDepth pages.
    let initialDepth: Int
    let depthMax: Int
    let pagesMax: Int
    let rowsOffset: Int
    let segmentRowsOffset: Int
    let pagesOffset: Int
    let directoryOffset: Int
    let segmentsOffset: Int
    /// All of the region, in bytes.
    let totalBytes: Int

    static let segmentBytesMin = 4096
    static let segmentBytesMax = 1 << 20
    /// A shard with fewer segments could not clean one.
    static let segmentsMin = 8
    /// The part of the memory that ghosts take: 3,600 of them a megabyte, about one for each item of 290 bytes.
    private static let ghostShare = 128
    /// The memory that a page and its items take at least, in bytes: a fresh page holds 392 items, the smallest takes
    /// 37 bytes with its slot.
    private static let pageShare = 12_288

    init(memoryBytes: Int, sliceCount: Int) {
        let wanted = Self.powerOfTwo(notAbove: max(1, memoryBytes / 512))
        segmentBytes = min(max(wanted, Self.segmentBytesMin), Self.segmentBytesMax)
        segmentShift = segmentBytes.trailingZeroBitCount
        chunkBytes = segmentBytes / 4 - ChunkRecord.headerBytes
        recordBytesMax = segmentBytes / 4
        ghostSets = max(1, memoryBytes / Self.ghostShare / GhostTable.setBytes)
        initialDepth = min(max(1, Self.powerOfTwo(notAbove: max(1, memoryBytes >> 20)).trailingZeroBitCount), 20)
        pagesMax = memoryBytes / Self.pageShare + 2 << initialDepth
        depthMax = min(
            initialDepth + HashIndex.depthRangeMax,
            Self.powerOfTwo(notAbove: pagesMax).trailingZeroBitCount + 3
        )
        rowsOffset = ghostSets * GhostTable.setBytes
        segmentRowsOffset = Self.align(rowsOffset + sliceCount * MemoryLayout<SliceRow>.stride, 64)
        let segmentRows = memoryBytes / segmentBytes * MemoryLayout<SegmentRow>.stride
        pagesOffset = Self.align(segmentRowsOffset + segmentRows, 64)
        directoryOffset = pagesOffset + pagesMax * HashIndex.pageStride
        segmentsOffset = Self.align(directoryOffset + 4 << depthMax, 4096)
        segmentCount = max(0, (memoryBytes - segmentsOffset) / segmentBytes)
        totalBytes = segmentsOffset + segmentCount * segmentBytes
    }

    private static func powerOfTwo(notAbove value: Int) -> Int {
        1 << (Int.bitWidth - 1 - value.leadingZeroBitCount)
    }

    private static func align(_ offset: Int, _ boundary: Int) -> Int {
        (offset + boundary - 1) & ~(boundary - 1)
    }
}
