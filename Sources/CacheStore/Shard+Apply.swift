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
        let state = state(hash: operation.hash)
        let highest = max(state.pointee.row.newest, state.pointee.row.floor)
        settle(state, now: now)
        // What has the key: a live item, a tombstone, or nothing.
        var node = state.pointee.locate(hash: operation.hash, key: operation.key)
        if let item = node, isDead(item, in: state, now: now) {
            reap(item, in: state, now: now)
            node = nil
        }
        let attempt = Attempt(operation: operation, version: version, now: now, state: state, node: node)
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
        var state: UnsafeMutablePointer<SliceState>
        var node: ItemPointer?

        var item: ItemPointer? {
            guard let node, !node.isTombstone else { return nil }
            return node
        }
    }

    /// Why an operation that brings a value is refused before it is looked at.
    private func refusal(_ operation: Operation) -> Outcome? {
        if operation.value.count > configuration.itemBytesMax { return .tooLarge }
        let charge = Item.charge(keyBytes: operation.key.count, valueBytes: operation.value.count)
        return permanentBytes &+ charge > configuration.memoryBytes ? .outOfMemory : nil
    }

    private mutating func bury(_ attempt: Attempt) {
        leaveTombstone(
            hash: attempt.operation.hash,
            key: attempt.operation.key,
            version: attempt.version,
            over: attempt.node,
            in: attempt.state,
            now: attempt.now
        )
    }

    private mutating func store(_ attempt: Attempt) -> (outcome: Outcome, change: Change) {
        let result = storeUnlessRefused(attempt)
        if result.change == .none {
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
        guard write(content, over: attempt.node, in: attempt.state, now: attempt.now) != nil else {
            return (.outOfMemory, .none)
        }
        return (.stored(unique: attempt.version), .stored)
    }

    private mutating func storeConditionally(_ attempt: Attempt) -> (outcome: Outcome, change: Change) {
        if let refusal = refusal(attempt.operation) { return (refusal, .none) }
        switch (attempt.operation.kind, attempt.item) {
        case (.add, let item?):
            item.countRead()
            return (.notStored, .none)
        case (.replace, nil):
            return (.notStored, .none)
        case (.compareAndSet, nil):
            return (.notFound, .none)
        case (.compareAndSet, let item?):
            let unique = attempt.operation.unique
            if unique == 0 || unique != item.pointee.unique { return (.exists, .none) }
        default:
            break
        }
        return storeUnlessRefused(attempt)
    }

    private mutating func join(_ attempt: Attempt) -> (outcome: Outcome, change: Change) {
        let operation = attempt.operation
        if let refusal = refusal(operation) { return (refusal, .none) }
        guard let item = attempt.item, operation.value.count + item.value.count <= configuration.itemBytesMax else {
            return (.notStored, .none)
        }
        let isAppend = operation.kind == .append
        let content = Content(
            hash: operation.hash,
            key: operation.key,
            first: isAppend ? item.value : operation.value,
            second: isAppend ? operation.value : item.value,
            flags: item.pointee.flags,
            expiry: item.pointee.expiry,
            version: attempt.version,
            unique: attempt.version
        )
        guard write(content, over: item, in: attempt.state, now: attempt.now) != nil else {
            return (.outOfMemory, .none)
        }
        return (.stored(unique: attempt.version), .stored)
    }

    /// Increment wraps at 2^64, decrement stops at 0; a shorter result is padded with spaces to the old length.
    private mutating func count(_ attempt: Attempt) -> (outcome: Outcome, change: Change) {
        guard let item = attempt.item else { return (.notFound, .none) }
        guard let old = DecimalNumber.parse(item.value) else { return (.nonNumeric, .none) }
        let delta = attempt.operation.delta
        let number =
            if attempt.operation.kind == .increment { old &+ delta } else { old > delta ? old - delta : 0 }
        return withUnsafeTemporaryAllocation(byteCount: DecimalNumber.digitsMax, alignment: 1) { digits in
            let digitCount = DecimalNumber.write(number, to: digits)
            let content = Content(
                hash: attempt.operation.hash,
                key: attempt.operation.key,
                first: UnsafeRawBufferPointer(rebasing: digits[..<digitCount]),
                // What lies behind the digits stays for the moment, so that the length is the old one.
                second: UnsafeRawBufferPointer(rebasing: item.value.dropFirst(digitCount)),
                flags: item.pointee.flags,
                expiry: item.pointee.expiry,
                version: attempt.version,
                unique: attempt.version
            )
            guard let written = write(content, over: item, in: attempt.state, now: attempt.now) else {
                return (.outOfMemory, .none)
            }
            let padding = Int(written.pointee.valueBytes) - digitCount
            if padding > 0 { memset(written.valueStart + digitCount, 32, padding) }
            return (.number(number, unique: attempt.version), .stored)
        }
    }

    private mutating func touch(_ attempt: Attempt) -> (outcome: Outcome, change: Change) {
        let returnsValue = attempt.operation.kind == .getAndTouch
        guard let item = attempt.item else { return (returnsValue ? .miss : .notFound, .none) }
        item.countRead()
        if attempt.operation.isExpired {
            // The value is answered once more: the block outlives the item until the next mutation.
            detach(item, in: attempt.state)
            limbo = item
            var attempt = attempt
            attempt.node = nil
            bury(attempt)
            return (.touched(returnsValue ? item.view : nil), .removed)
        }
        item.pointee.expiry = attempt.operation.expiry
        item.pointee.version = attempt.version
        attempt.state.pointee.row.newest = max(attempt.state.pointee.row.newest, attempt.version)
        return (.touched(returnsValue ? item.view : nil), .stored)
    }

    private mutating func remove(_ attempt: Attempt) -> (outcome: Outcome, change: Change) {
        let outcome: Outcome = attempt.item == nil ? .notFound : .deleted
        bury(attempt)
        return (outcome, .removed)
    }
}
