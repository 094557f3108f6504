import Glibc

/// Recorded and generated sequences of key numbers, with a size for each key.
package struct Workload: Sendable {
    /// Key numbers in the order of their requests, from 0 on without gaps.
    package var trace: Trace
    /// How many distinct keys there are.
    package var keyCount: Int
    package var sizes: SizeTable

    /// Reads a file of 4-byte little-endian numbers, and one of value sizes, where the i-th belongs to the i-th smallest
    /// number of the first. Keys are renumbered by that rank, which changes nothing for a cache.
    package init(trace path: String, sizes sizesPath: String?, otherwise: SizeTable) throws(LoadError) {
        let recorded = try Self.numbers(path)
        guard !recorded.isEmpty else { throw LoadError("\(path) holds no requests") }
        let distinct = Self.distinct(recorded)
        keyCount = distinct.count
        guard UInt64(keyCount) <= KeyText.numbersMax else { throw LoadError("\(path) has \(keyCount) keys: too many") }
        trace = Trace(recorded.map { Self.rank($0, in: distinct) })
        guard let sizesPath else {
            sizes = otherwise
            return
        }
        let list = try Self.numbers(sizesPath)
        guard list.count == distinct.count else {
            throw LoadError("\(sizesPath) has \(list.count) sizes for the \(distinct.count) keys of \(path)")
        }
        guard let longest = list.max(), longest <= UInt32(ValueSizes.bytesMax) else {
            throw LoadError("\(sizesPath) has a size over \(ValueSizes.bytesMax) bytes")
        }
        sizes = SizeTable(perKey: list)
    }

    /// Independent draws from a popularity histogram: `buckets` of a number of keys and their requests together, the
    /// most popular first. The numbers of keys are divided by `divisor`, rounded, to at least 1.
    package init(
        popularity buckets: [(keys: Int, requests: Int)],
        divisor: Int,
        requests: Int,
        sizes: SizeTable,
        seed: UInt64
    ) {
        var starts: [Int] = []
        var counts: [Int] = []
        var total = 0
        for bucket in buckets {
            let count = max(1, Int((Double(bucket.keys) / Double(divisor)).rounded()))
            starts.append(total)
            counts.append(count)
            total += count
        }
        let stream = AliasTable(weights: buckets.map { Double($0.requests) })
        var chance = Chance(seed: seed)
        var draws = KeyStream(.weighted(stream))
        var list: [UInt32] = []
        list.reserveCapacity(requests)
        for _ in 0..<requests {
            let bucket = Int(draws.draw(&chance))
            list.append(UInt32(starts[bucket] + Int(chance.below(UInt64(counts[bucket])))))
        }
        self.init(list, keyCount: total, sizes: sizes)
    }

    /// Zipf draws over `keyCount` keys, and among them a share of requests to keys that never come again.
    package init(
        zipf keyCount: Int,
        exponent: Double,
        onceShare: Double,
        requests: Int,
        sizes: SizeTable,
        seed: UInt64
    ) {
        var chance = Chance(seed: seed)
        var draws = KeyStream(.weighted(.zipf(count: keyCount, exponent: exponent)))
        var fresh = UInt32(keyCount)
        var list: [UInt32] = []
        list.reserveCapacity(requests)
        for _ in 0..<requests {
            if chance.unit() <= onceShare {
                list.append(fresh)
                fresh += 1
            } else {
                list.append(UInt32(draws.draw(&chance)))
            }
        }
        self.init(list, keyCount: Int(fresh), sizes: sizes)
    }

    private init(_ list: [UInt32], keyCount: Int, sizes: SizeTable) {
        trace = Trace(list)
        self.keyCount = keyCount
        self.sizes = sizes
    }

    private static func distinct(_ recorded: [UInt32]) -> [UInt32] {
        var result: [UInt32] = []
        for number in recorded.sorted() where number != result.last { result.append(number) }
        return result
    }

    /// Where a number stands in a sorted list that has it.
    private static func rank(_ number: UInt32, in sorted: [UInt32]) -> UInt32 {
        var low = 0
        var high = sorted.count
        while low < high {
            let middle = (low + high) / 2
            if sorted[middle] < number { low = middle + 1 } else { high = middle }
        }
        return UInt32(low)
    }

    /// The numbers of a file of 4-byte little-endian ones.
    package static func numbers(_ path: String) throws(LoadError) -> [UInt32] {
        let bytes = try contents(path)
        guard bytes.count % 4 == 0 else { throw LoadError("\(path) has \(bytes.count) bytes, no multiple of 4") }
        return bytes.withUnsafeBytes { memory in
            (0..<memory.count / 4).map {
                UInt32(littleEndian: memory.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self))
            }
        }
    }

    /// The lines of a table of two numbers each; `#` begins a comment.
    package static func table(_ path: String) throws(LoadError) -> [(Int, Int)] {
        var rows: [(Int, Int)] = []
        for line in String(decoding: try contents(path), as: UTF8.self).split(separator: "\n") {
            if line.hasPrefix("#") { continue }
            let fields = line.split(separator: "\t").map { Int($0) }
            guard fields.count == 2, let first = fields[0], let second = fields[1], first >= 0, second >= 0 else {
                throw LoadError("\(path) has a line that is not two numbers: \(line.prefix(60))")
            }
            rows.append((first, second))
        }
        guard !rows.isEmpty else { throw LoadError("\(path) has no lines") }
        return rows
    }

    private static func contents(_ path: String) throws(LoadError) -> [UInt8] {
        guard let file = fopen(path, "rb") else {
            throw LoadError("cannot open \(path): \(String(cString: strerror(errno)))")
        }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 1 << 20)
        while true {
            let count = fread(&part, 1, part.count, file)
            if count == 0 { break }
            bytes.append(contentsOf: part[..<count])
        }
        guard ferror(file) == 0 else { throw LoadError("cannot read \(path) to its end") }
        return bytes
    }
}

extension ValueSizes {
    /// A table of lower bounds and weights as a histogram; a range ends where the next begins, the last is as wide as
    /// the first.
    package init(table rows: [(Int, Int)], cap: Int) {
        let widthOfLast = rows.count > 1 ? rows[1].0 - rows[0].0 : 1
        var ranges: [HistogramRange] = []
        for (index, row) in rows.enumerated() {
            let end = index + 1 < rows.count ? rows[index + 1].0 : row.0 + widthOfLast
            ranges.append(HistogramRange(bounds: row.0..<max(end, row.0 + 1), weight: UInt64(row.1)))
        }
        self = .histogram(ranges, cap: cap)
    }
}
