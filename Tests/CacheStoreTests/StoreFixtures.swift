import CacheStore
import ClusterCore

/// An item with its own bytes, to be compared.
struct Entry: Hashable {
    var key: [UInt8]
    var value: [UInt8] = []
    var flags: UInt32 = 0
    var expiry: UInt32 = 0
    var version: UInt64
    var unique: UInt64 = 0
    var isTombstone = false
}

extension Entry {
    init(_ view: ItemView) {
        self.init(
            key: Array(view.key),
            value: view.value.array,
            flags: view.flags,
            expiry: view.expiry,
            version: view.version,
            unique: view.unique,
            isTombstone: view.isTombstone
        )
    }
}

/// An outcome with its own bytes.
enum Answer: Hashable {
    case hit(Entry)
    case miss
    case stored(UInt64)
    case notStored
    case exists
    case notFound
    case deleted
    case touched(Entry?)
    case number(UInt64, UInt64)
    case nonNumeric
    case tooLarge
    case outOfMemory

    init(_ outcome: Outcome) {
        self =
            switch outcome {
            case .hit(let view): .hit(Entry(view))
            case .miss: .miss
            case .stored(let unique): .stored(unique)
            case .notStored: .notStored
            case .exists: .exists
            case .notFound: .notFound
            case .deleted: .deleted
            case .touched(let view): .touched(view.map { Entry($0) })
            case .number(let number, let unique): .number(number, unique)
            case .nonNumeric: .nonNumeric
            case .tooLarge: .tooLarge
            case .outOfMemory: .outOfMemory
            }
    }
}

/// An operation with its own bytes.
struct Request {
    var kind: Operation.Kind
    var key: [UInt8]
    var value: [UInt8] = []
    var flags: UInt32 = 0
    var expiry: UInt32 = 0
    var isExpired = false
    var unique: UInt64 = 0
    var delta: UInt64 = 0

    init(_ kind: Operation.Kind, _ key: [UInt8]) {
        self.kind = kind
        self.key = key
    }

    init(
        _ kind: Operation.Kind,
        _ key: String,
        _ value: String = "",
        expiry: UInt32 = 0,
        isExpired: Bool = false,
        unique: UInt64 = 0,
        delta: UInt64 = 0
    ) {
        self.kind = kind
        self.key = Array(key.utf8)
        self.value = Array(value.utf8)
        self.expiry = expiry
        self.isExpired = isExpired
        self.unique = unique
        self.delta = delta
    }
}

/// A clock in milliseconds; both of a node's clocks show the same.
func at(_ milliseconds: UInt64) -> Now {
    Now(instant: Instant(nanoseconds: milliseconds * 1_000_000), unixMilliseconds: milliseconds)
}

/// Hashes keys into a few slices; `Shard` takes any hash.
struct Hasher: Sendable {
    var slices: Range<Int>
    /// Keys that share one and the same hash.
    var colliding: Set<[UInt8]> = []

    func callAsFunction(_ key: [UInt8]) -> UInt64 {
        if colliding.contains(key) { return UInt64(slices.lowerBound) << 50 | 12345 }
        let hash = KeyHash.hash(key)
        return UInt64(slices.lowerBound + Int(hash % UInt64(slices.count))) << 50 | KeyHash.mix(hash) >> 14
    }
}

/// A shard that hashes keys like the test does.
func makeShard(_ hasher: Hasher, _ configuration: StoreConfiguration) -> Shard {
    Shard(slices: hasher.slices, configuration: configuration) { hasher(Array($0)) }
}

func apply(
    _ request: Request,
    to shard: inout Shard,
    hash: UInt64,
    version: UInt64,
    now: Now
) -> (answer: Answer, change: Change) {
    request.key.withUnsafeBytes { key in
        request.value.withUnsafeBytes { value in
            let operation = Operation(
                request.kind,
                hash: hash,
                key: key,
                value: value,
                flags: request.flags,
                expiry: request.expiry,
                isExpired: request.isExpired,
                unique: request.unique,
                delta: request.delta
            )
            let (outcome, change) = shard.apply(operation, version: version, now: now)
            return (Answer(outcome), change)
        }
    }
}

func peek(_ key: [UInt8], in shard: borrowing Shard, hash: UInt64, now: Now) -> Entry? {
    key.withUnsafeBytes { shard.peek(hash: hash, key: $0, now: now).map { Entry($0) } }
}

func find(_ key: [UInt8], in shard: inout Shard, hash: UInt64, now: Now) -> Entry? {
    key.withUnsafeBytes { shard.find(hash: hash, key: $0, now: now).map { Entry($0) } }
}

func put(_ entry: Entry, into shard: inout Shard, hash: UInt64, now: Now) -> Bool {
    entry.key.withUnsafeBytes { key in
        entry.value.withUnsafeBytes { value in
            let view = ItemView(
                key: key,
                value: value,
                flags: entry.flags,
                expiry: entry.expiry,
                version: entry.version,
                unique: entry.unique,
                hash: hash,
                isTombstone: entry.isTombstone
            )
            return shard.put(view, now: now)
        }
    }
}

func bury(_ key: [UInt8], in shard: inout Shard, hash: UInt64, version: UInt64, now: Now) {
    key.withUnsafeBytes { shard.bury(hash: hash, key: $0, version: version, now: now) }
}

/// All of a slice, a few items a call.
func scanAll(_ shard: borrowing Shard, slice: Int, now: Now, page: Int = 7) -> [Entry] {
    var entries: [Entry] = []
    var cursor: UInt64? = 0
    while let from = cursor {
        var left = page
        cursor = shard.scan(slice: slice, from: from, now: now) { view in
            entries.append(Entry(view))
            left -= 1
            return left > 0
        }
    }
    return entries
}

/// A shard with its hasher and a version counter, for tests of single rules.
struct Bench: ~Copyable {
    var shard: Shard
    let hasher: Hasher
    var version: UInt64

    /// Starts at 1,000 seconds.
    init(
        slices: Range<Int> = 5..<6,
        configuration: StoreConfiguration = StoreConfiguration(memoryBytes: 1 << 20)
    ) {
        let hasher = Hasher(slices: slices)
        shard = makeShard(hasher, configuration)
        self.hasher = hasher
        version = 1_000_000 << 16
    }

    /// Runs a request at the given millisecond, stamped by that time or by one more than the last.
    mutating func run(_ request: Request, at time: UInt64 = 1_000_000) -> (answer: Answer, change: Change) {
        version = max(version + 1, time << 16)
        return apply(request, to: &shard, hash: hasher(request.key), version: version, now: CacheStoreTests.at(time))
    }

    mutating func answer(_ request: Request, at time: UInt64 = 1_000_000) -> Answer {
        run(request, at: time).answer
    }

    /// The value that a plain read gives.
    mutating func value(_ key: String, at time: UInt64 = 1_000_000) -> String? {
        let bytes = Array(key.utf8)
        return find(bytes, in: &shard, hash: hasher(bytes), now: CacheStoreTests.at(time))
            .map { String(decoding: $0.value, as: UTF8.self) }
    }

    func peeked(_ key: String, at time: UInt64 = 1_000_000) -> Entry? {
        let bytes = Array(key.utf8)
        return peek(bytes, in: shard, hash: hasher(bytes), now: CacheStoreTests.at(time))
    }

    var row: SliceRow { shard.row(shard.slices.lowerBound).pointee }
}
