public import ClusterCore
import Glibc

extension Shard {
    /// Runs one operation as the holder, by memcached's rules.
    ///
    /// `version` is the stamp to use if the operation changes anything; the caller guarantees that it is above the
    /// row's `newest` and `floor`. Where a delayed flush may be due, `settle` first and read `newest` then: the flush
    /// kills what is stamped at or below its own version, also in the same call.
    ///
    /// An overwrite, a touch and a delete of an absent key are changes; a failed condition is none.
    public mutating func apply(
        _ operation: Operation,
        version: UInt64,
        now: Now
    ) -> (outcome: Outcome, change: Change) {
        guard operation.key.count <= StoreConfiguration.keyBytesMax else { return (.tooLarge, .none) }
        if operation.kind == .get {
            guard let view = find(hash: operation.hash, key: operation.key, now: now) else { return (.miss, .none) }
            return (.hit(view), .none)
        }
        releaseLimbo()
        let row = row(of: operation.hash)
        let highest = max(row.pointee.newest, row.pointee.floor)
        settle(row, now: now)
        // What has the key: a live item, a tombstone, or nothing.
        var slot = locate(operation.hash, operation.key)
        if let found = slot, isDead(segments.record(Slot.location(found.pointee)), operation.hash, now) {
            reap(found, operation.hash, now)
            slot = nil
        }
        let attempt = Attempt(operation: operation, version: version, now: now, slot: slot)
        let result =
            switch operation.kind {
            case .get: preconditionFailure("a get is answered before")
            case .set: store(attempt)
            case .add, .replace, .compareAndSet: storeConditionally(attempt)
            case .append, .prepend: join(attempt)
            case .increment, .decrement: count(attempt)
            case .touch, .getAndTouch: touch(attempt)
            case .delete: remove(attempt)
            }
        precondition(
            result.change == .none || version > highest,
            "a change was stamped \(version), not above the slice's newest version and floor, \(highest)"
        )
        return result
    }

    /// One operation on its way through `apply`.
    private struct Attempt {
        var operation: Operation
        var version: UInt64
        var now: Now
        /// Of the item or tombstone of the key.
        var slot: SlotPointer?

        /// The slot of a live item.
        var itemSlot: SlotPointer? {
            guard let slot, !Slot.isTombstone(slot.pointee) else { return nil }
            return slot
        }
    }

    private func record(_ slot: SlotPointer) -> Record { segments.record(Slot.location(slot.pointee)) }

    private func view(_ slot: SlotPointer, _ hash: UInt64) -> ItemView { view(record(slot), slot.pointee, hash) }

    /// Why an operation that brings a value is refused before it is looked at.
    private func refusal(_ operation: Operation) -> Outcome? {
        if operation.value.count > configuration.itemBytesMax { return .tooLarge }
        return mayHold(valueBytes: operation.value.count) ? nil : .outOfMemory
    }

    private mutating func bury(_ attempt: Attempt) {
        leaveTombstone(
            hash: attempt.operation.hash,
            key: attempt.operation.key,
            version: attempt.version,
            over: attempt.slot,
            now: attempt.now
        )
    }

    private mutating func store(_ attempt: Attempt) -> (outcome: Outcome, change: Change) {
        let result = storeUnlessRefused(attempt)
        if result.change == .none {
            var attempt = attempt
            attempt.slot = locate(attempt.operation.hash, attempt.operation.key)
            bury(attempt)
            return (result.outcome, .removed)
        }
        return result
    }

    private mutating func storeUnlessRefused(_ attempt: Attempt) -> (outcome: Outcome, change: Change) {
        let operation = attempt.operation
        if let refusal = refusal(operation) { return (refusal, .none) }
        if operation.isExpired {
            bury(attempt)
            return (.stored(unique: attempt.version), .removed)
        }
        let content = Content(
            hash: operation.hash,
            key: operation.key,
            first: operation.value,
            flags: operation.flags,
            expiry: operation.expiry,
            version: attempt.version,
            unique: attempt.version
        )
        guard write(content, over: attempt.slot, now: attempt.now) else { return (.outOfMemory, .none) }
        return (.stored(unique: attempt.version), .stored)
    }

    private mutating func storeConditionally(_ attempt: Attempt) -> (outcome: Outcome, change: Change) {
        if let refusal = refusal(attempt.operation) { return (refusal, .none) }
        switch (attempt.operation.kind, attempt.itemSlot) {
        case (.add, let slot?):
            noteRead(slot, record(slot), attempt.operation.hash, attempt.now)
            return (.notStored, .none)
        case (.replace, nil):
            return (.notStored, .none)
        case (.compareAndSet, nil):
            return (.notFound, .none)
        case (.compareAndSet, let slot?):
            let unique = attempt.operation.unique
            if unique == 0 || unique != record(slot).unique { return (.exists, .none) }
        default:
            break
        }
        return storeUnlessRefused(attempt)
    }

    private mutating func join(_ attempt: Attempt) -> (outcome: Outcome, change: Change) {
        let operation = attempt.operation
        if let refusal = refusal(operation) { return (refusal, .none) }
        guard let slot = attempt.itemSlot else { return (.notStored, .none) }
        let old = view(slot, operation.hash)
        let valueBytes = operation.value.count + old.value.count
        guard valueBytes <= configuration.itemBytesMax else { return (.notStored, .none) }
        guard mayHold(valueBytes: valueBytes) else { return (.outOfMemory, .none) }
        // Making room may move the old value.
        return withUnsafeTemporaryAllocation(byteCount: max(1, old.value.count), alignment: 8) { copy in
            if let start = copy.baseAddress { old.value.copy(to: start) }
            let kept = UnsafeRawBufferPointer(rebasing: copy[..<old.value.count])
            let isAppend = operation.kind == .append
            let content = Content(
                hash: operation.hash,
                key: operation.key,
                first: isAppend ? kept : operation.value,
                second: isAppend ? operation.value : kept,
                flags: old.flags,
                expiry: old.expiry,
                version: attempt.version,
                unique: attempt.version
            )
            guard write(content, over: slot, now: attempt.now) else { return (.outOfMemory, .none) }
            return (.stored(unique: attempt.version), .stored)
        }
    }

    /// Increment wraps at 2^64, decrement stops at 0; a shorter result is padded with spaces to the old length.
    private mutating func count(_ attempt: Attempt) -> (outcome: Outcome, change: Change) {
        guard let slot = attempt.itemSlot else { return (.notFound, .none) }
        let old = view(slot, attempt.operation.hash)
        guard let text = old.value.whole, let before = DecimalNumber.parse(text) else { return (.nonNumeric, .none) }
        let delta = attempt.operation.delta
        let number =
            if attempt.operation.kind == .increment {
                before &+ delta
            } else {
                before > delta ? before - delta : 0
            }
        let room = max(DecimalNumber.digitsMax, text.count)
        return withUnsafeTemporaryAllocation(byteCount: room, alignment: 1) { digits in
            let digitCount = DecimalNumber.write(number, to: digits)
            let length = max(digitCount, text.count)
            if let start = digits.baseAddress { memset(start + digitCount, 32, length - digitCount) }
            let content = Content(
                hash: attempt.operation.hash,
                key: attempt.operation.key,
                first: UnsafeRawBufferPointer(rebasing: digits[..<length]),
                flags: old.flags,
                expiry: old.expiry,
                version: attempt.version,
                unique: attempt.version
            )
            guard write(content, over: slot, now: attempt.now) else { return (.outOfMemory, .none) }
            return (.number(number, unique: attempt.version), .stored)
        }
    }

    private mutating func touch(_ attempt: Attempt) -> (outcome: Outcome, change: Change) {
        let operation = attempt.operation
        let returnsValue = operation.kind == .getAndTouch
        guard let slot = attempt.itemSlot else { return (returnsValue ? .miss : .notFound, .none) }
        noteRead(slot, record(slot), operation.hash, attempt.now)
        if operation.isExpired {
            // The value is answered once more: a copy outlives the item until the next mutation.
            let last = returnsValue ? keep(view(slot, operation.hash)) : nil
            bury(attempt)
            return (.touched(last), .removed)
        }
        let isTouched = touch(
            slot,
            operation.hash,
            expiry: operation.expiry,
            version: attempt.version,
            now: attempt.now
        )
        guard isTouched else { return (.outOfMemory, .none) }
        guard returnsValue else { return (.touched(nil), .stored) }
        guard let fresh = locate(operation.hash, operation.key) else {
            preconditionFailure("an item that was just touched is gone")
        }
        return (.touched(view(fresh, operation.hash)), .stored)
    }

    /// Copies an item's bytes to where the next mutation finds and frees them.
    private mutating func keep(_ item: ItemView) -> ItemView {
        let bytes = UnsafeMutableRawBufferPointer.allocate(
            byteCount: max(1, item.key.count + item.value.count),
            alignment: 8
        )
        limbo = bytes
        guard let start = bytes.baseAddress else { return item }
        if let key = item.key.baseAddress { memcpy(start, key, item.key.count) }
        item.value.copy(to: start + item.key.count)
        var kept = item
        kept.key = UnsafeRawBufferPointer(rebasing: bytes[..<item.key.count])
        let end = item.key.count + item.value.count
        kept.value = ItemValue(UnsafeRawBufferPointer(rebasing: bytes[item.key.count..<end]))
        return kept
    }

    private mutating func remove(_ attempt: Attempt) -> (outcome: Outcome, change: Change) {
        let outcome: Outcome = attempt.itemSlot == nil ? .notFound : .deleted
        bury(attempt)
        return (outcome, .removed)
    }
}
