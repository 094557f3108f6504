import ClusterCore

@testable import CacheStore

extension Shard {
    /// Looks at everything there is and says what does not fit together.
    func faults() -> [String] {
        var faults: [String] = []
        var items = 0
        var itemBytes = 0
        var tombstones = 0
        var tombstoneBytes = 0
        var chunks = 0
        var chunksWanted = 0
        var rowsSeen = [Int: (items: Int, tombstones: Int, bytes: Int)]()
        for segment in 0..<segments.count {
            let row = segments.rows[segment]
            guard row.role != .free, row.role != .index else { continue }
            var live = 0
            var offset = 0
            while offset < Int(row.used) {
                let location = segments.location(segment: UInt32(segment), offset: offset)
                let record = segments.record(location)
                let bytes = record.byteCount
                guard bytes > 0 else {
                    faults.append("segment \(segment) has a record of no length at \(offset)")
                    break
                }
                offset += bytes
                if record.kind == .filler { continue }
                live += bytes
                if record.kind == .chunk {
                    chunks += 1
                    continue
                }
                let hash = hash(record.key)
                let slice = Slice.index(of: hash) - slices.lowerBound
                guard let slot = index.slot(hash, location: location) else {
                    faults.append("an item in segment \(segment) at \(offset) is not in the index")
                    continue
                }
                if record.kind == .tombstone {
                    tombstones += 1
                    tombstoneBytes += bytes
                    rowsSeen[slice, default: (0, 0, 0)].tombstones += 1
                    if row.role != .tombstones { faults.append("a tombstone lies in a segment of \(row.role)") }
                } else {
                    items += 1
                    let all = self.bytes(of: record)
                    itemBytes += all
                    rowsSeen[slice, default: (0, 0, 0)].items += 1
                    rowsSeen[slice, default: (0, 0, 0)].bytes += all
                    let isMain = Slot.isMain(slot.pointee)
                    if row.role != (isMain ? .main : .small) { faults.append("an item lies in the wrong pool") }
                    if record.isChunked {
                        chunksWanted += record.chunkCount
                        for part in 0..<record.chunkCount {
                            let chunk = segments.record(record.chunkLocation(part))
                            if chunk.kind != .chunk || ChunkRecord(chunk.raw).hash != hash
                                || ChunkRecord(chunk.raw).index != part
                            {
                                faults.append("chunk \(part) of an item is not there")
                            }
                        }
                    }
                }
            }
            if offset != Int(row.used) { faults.append("segment \(segment) ends at \(offset), not at \(row.used)") }
            if live != Int(row.live) { faults.append("segment \(segment) has \(live) live bytes, not \(row.live)") }
            if live == 0, !row.isOpen, cleaning?.segment != UInt32(segment) {
                faults.append("segment \(segment) is empty and not free")
            }
        }
        var slots = 0
        var extents = 0
        for number in 0..<index.pageCount {
            let page = index.page(UInt32(number))
            var count = 0
            for bucketIndex in 0..<page.pointee.bucketCount {
                let bucket = index.bucket(bucketIndex, of: page)
                for slotIndex in 0..<HashIndex.bucketSlots where bucket[slotIndex] != 0 { count += 1 }
            }
            if count != Int(page.pointee.count) {
                faults.append("page \(number) has \(count), not \(page.pointee.count)")
            }
            slots += count
            extents += Int(page.pointee.extentCount)
        }
        func compare(_ what: String, _ seen: Int, _ known: Int) {
            if seen != known { faults.append("\(what): \(seen) are there, \(known) are counted") }
        }
        compare("slots", slots, items + tombstones)
        compare("extents", extents, index.usedExtents)
        compare("items", items, itemCount)
        compare("bytes", itemBytes, self.itemBytes)
        compare("tombstones", tombstones, tombstoneCount)
        compare("bytes of tombstones", tombstoneBytes, self.tombstoneBytes)
        compare("chunks", chunks, chunksWanted)
        for slice in 0..<slices.count {
            let seen = rowsSeen[slice, default: (0, 0, 0)]
            compare("items of slice \(slice)", seen.items, Int(rows[slice].count))
            compare("tombstones of slice \(slice)", seen.tombstones, Int(rows[slice].tombstones))
            compare("bytes of slice \(slice)", seen.bytes, Int(rows[slice].bytes))
        }
        var inUse = 0
        for segment in 0..<segments.count where segments.rows[segment].role != .free { inUse += 1 }
        compare("segments in use", inUse, segments.count - segments.freeCount)
        return faults
    }
}
