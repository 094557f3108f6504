import CacheStore
import ClusterCore

/// What a shard should do, said as plainly as possible: a dictionary and a clock. Without limits of memory.
struct StoreModel {
    struct Row {
        var newest: UInt64 = 0
        var flushVersion: UInt64 = 0
        var flushAt: UInt64 = 0
    }

    var items: [[UInt8]: Entry] = [:]
    var rows: [Int: Row] = [:]
    let hasher: Hasher
    let itemBytesMax: Int
    /// The millisecond for which the dead have been forgotten; nil where that must be done again.
    private var settledAt: UInt64?

    init(hasher: Hasher, itemBytesMax: Int) {
        self.hasher = hasher
        self.itemBytesMax = itemBytesMax
    }

    func slice(_ key: [UInt8]) -> Int { Slice.index(of: hasher(key)) }

    /// Brings delayed flushes into effect and forgets the dead.
    mutating func settle(_ now: Now) {
        if settledAt == now.unixMilliseconds { return }
        settledAt = now.unixMilliseconds
        for (slice, row) in rows where row.flushAt != 0 && now.unixMilliseconds >= row.flushAt {
            let version = row.flushAt << 16
            rows[slice] = Row(newest: max(row.newest, version), flushVersion: max(row.flushVersion, version))
        }
        items = items.filter { key, entry in
            let isFlushed = entry.version <= rows[slice(key), default: Row()].flushVersion
            let isExpired = entry.expiry != 0 && now.unixMilliseconds / 1000 >= UInt64(entry.expiry)
            return !isFlushed && !isExpired
        }
    }

    mutating func flush(slice: Int, version: UInt64) {
        rows[slice, default: Row()].flushVersion = version
        settledAt = nil
    }

    mutating func set(_ key: [UInt8], _ entry: Entry?) {
        items[key] = entry
        if entry?.expiry != 0 { settledAt = nil }
    }

    mutating func saw(_ version: UInt64, _ key: [UInt8]) {
        rows[slice(key), default: Row()].newest = max(rows[slice(key), default: Row()].newest, version)
    }

    mutating func apply(_ request: Request, version: UInt64, now: Now) -> (answer: Answer, change: Change) {
        settle(now)
        let result = decide(request, version: version)
        if result.change != .none { saw(version, request.key) }
        return result
    }

    private mutating func decide(_ request: Request, version: UInt64) -> (answer: Answer, change: Change) {
        let key = request.key
        let old = items[key]
        let isTooLarge = request.value.count > itemBytesMax
        func fresh(_ value: [UInt8]) -> Entry {
            Entry(
                key: key,
                value: value,
                flags: request.flags,
                expiry: request.expiry,
                version: version,
                unique: version
            )
        }
        func store() -> (Answer, Change) {
            set(key, request.isExpired ? nil : fresh(request.value))
            return (.stored(version), request.isExpired ? .removed : .stored)
        }
        func change(_ value: [UInt8]) {
            items[key]?.value = value
            items[key]?.version = version
            items[key]?.unique = version
        }
        switch request.kind {
        case .get:
            return (old.map { .hit($0) } ?? .miss, .none)
        case .set:
            if isTooLarge {
                items[key] = nil
                return (.tooLarge, .removed)
            }
            return store()
        case .add:
            if isTooLarge { return (.tooLarge, .none) }
            return old == nil ? store() : (.notStored, .none)
        case .replace:
            if isTooLarge { return (.tooLarge, .none) }
            return old != nil ? store() : (.notStored, .none)
        case .compareAndSet:
            if isTooLarge { return (.tooLarge, .none) }
            guard let old else { return (.notFound, .none) }
            return request.unique != 0 && request.unique == old.unique ? store() : (.exists, .none)
        case .append, .prepend:
            if isTooLarge { return (.tooLarge, .none) }
            guard let old, old.value.count + request.value.count <= itemBytesMax else { return (.notStored, .none) }
            change(request.kind == .append ? old.value + request.value : request.value + old.value)
            return (.stored(version), .stored)
        case .increment, .decrement:
            guard let old else { return (.notFound, .none) }
            let text = String(decoding: old.value, as: UTF8.self)
            let trimmed = text.drop(while: { $0 == " " }).reversed().drop(while: { $0 == " " }).reversed()
            guard !trimmed.isEmpty, trimmed.allSatisfy({ "0" <= $0 && $0 <= "9" }),
                let number = UInt64(String(trimmed))
            else { return (.nonNumeric, .none) }
            let result =
                request.kind == .increment
                ? number &+ request.delta : (number < request.delta ? 0 : number - request.delta)
            var digits = Array(String(result).utf8)
            while digits.count < old.value.count { digits.append(32) }
            change(digits)
            return (.number(result, version), .stored)
        case .touch, .getAndTouch:
            let isGet = request.kind == .getAndTouch
            guard var item = old else { return (isGet ? .miss : .notFound, .none) }
            if request.isExpired {
                items[key] = nil
                return (.touched(isGet ? item : nil), .removed)
            }
            item.expiry = request.expiry
            item.version = version
            set(key, item)
            return (.touched(isGet ? item : nil), .stored)
        case .delete:
            items[key] = nil
            return (old == nil ? .notFound : .deleted, .removed)
        }
    }
}
