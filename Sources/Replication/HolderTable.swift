import ClusterCore

/// Who holds which slice, as far as this member knows: a register for each slice, with the epoch as its ballot.
///
/// A claim is confirmed when a majority recorded it. The table also routes requests; being wrong there costs a hop.
package struct HolderTable: Sendable {
    package private(set) var epochs: [UInt32]
    package private(set) var holders: [PeerNumber]
    /// For each peer a sum over what it holds here; compared with what it says it holds.
    private var digests: [PeerNumber: UInt64] = [:]
    /// What stood here before a claim that may yet be withdrawn.
    private var earlierEpochs: [UInt32]
    private var earlierHolders: [PeerNumber]
    /// What stood before that, where claims came one over the other; the latest last.
    private var buried: [Int: [(epoch: UInt32, holder: PeerNumber)]] = [:]
    /// Whether this member's own vote made the record, or another's table did.
    private var isOwnVote: [Bool]
    /// Rises with every change.
    package private(set) var changes: UInt64 = 0

    package init() {
        epochs = Array(repeating: 0, count: Slice.count)
        holders = Array(repeating: .none, count: Slice.count)
        earlierEpochs = Array(repeating: 0, count: Slice.count)
        earlierHolders = Array(repeating: .none, count: Slice.count)
        isOwnVote = Array(repeating: false, count: Slice.count)
    }

    /// Whether this member agreed to the record, or has it from the holder itself; if not, from another's table.
    package func isVouchedFor(_ slice: Int) -> Bool { isOwnVote[slice] }

    /// Takes note of a holder. Older epochs change nothing; in the same epoch a known holder stays.
    /// `isVote`: this member agreed to a claim. Returns whether anything changed.
    @discardableResult
    package mutating func record(slice: Int, epoch: UInt32, holder: PeerNumber, isVote: Bool) -> Bool {
        guard epoch > epochs[slice] || (epoch == epochs[slice] && holders[slice] == .none && holder != .none) else {
            return false
        }
        if earlierHolders[slice] != .none { bury(slice) }
        earlierEpochs[slice] = epochs[slice]
        earlierHolders[slice] = holders[slice]
        isOwnVote[slice] = isVote
        replace(slice, epoch, holder)
        return true
    }

    /// The holder itself says that it is the one: it was confirmed. In the same epoch it corrects what stood here, and
    /// a later epoch that nobody serves in does not speak against it.
    package mutating func correct(slice: Int, epoch: UInt32, holder: PeerNumber) -> Bool {
        guard
            epoch > epochs[slice] || (epoch == epochs[slice] && holders[slice] != holder)
                || (epoch < epochs[slice] && holders[slice] == .none)
        else { return false }
        replace(slice, epoch, holder)
        forgetEarlier(slice)
        isOwnVote[slice] = true
        return true
    }

    /// A claim was given up before it was confirmed: what stood here before it stands again.
    package mutating func withdraw(slice: Int, epoch: UInt32, holder: PeerNumber) {
        buried[slice]?.removeAll { $0.epoch == epoch && $0.holder == holder }
        if earlierEpochs[slice] == epoch, earlierHolders[slice] == holder { unearth(slice) }
        guard epochs[slice] == epoch, holders[slice] == holder else { return }
        replace(slice, earlierEpochs[slice], earlierHolders[slice])
        unearth(slice)
    }

    /// Claims that stand one over the other for one slice; before the oldest, nothing is remembered.
    private static var buriedMax: Int { 8 }

    private mutating func bury(_ slice: Int) {
        buried[slice, default: []].append((earlierEpochs[slice], earlierHolders[slice]))
        if buried[slice, default: []].count > Self.buriedMax { buried[slice]?.removeFirst() }
    }

    private mutating func unearth(_ slice: Int) {
        if let last = buried[slice]?.popLast() {
            earlierEpochs[slice] = last.epoch
            earlierHolders[slice] = last.holder
        } else {
            earlierHolders[slice] = .none
        }
        if buried[slice]?.isEmpty == true { buried[slice] = nil }
    }

    private mutating func forgetEarlier(_ slice: Int) {
        earlierEpochs[slice] = epochs[slice]
        earlierHolders[slice] = .none
        buried[slice] = nil
    }

    /// The holder says that it does not serve the slice. It may have served in that epoch by this member's vote, and
    /// then nothing earlier stands again.
    package mutating func clear(slice: Int) {
        if !isOwnVote[slice] {
            withdraw(slice: slice, epoch: epochs[slice], holder: holders[slice])
            return
        }
        replace(slice, epochs[slice], .none)
        forgetEarlier(slice)
    }

    /// A sum over the slices that `peer` holds here.
    package func digest(of peer: PeerNumber) -> UInt64 { digests[peer] ?? 0 }

    /// What a slice and an epoch add to a digest.
    package static func digest(slice: Int, epoch: UInt32) -> UInt64 {
        KeyHash.mix(UInt64(slice) << 32 | UInt64(epoch))
    }

    private mutating func replace(_ slice: Int, _ epoch: UInt32, _ holder: PeerNumber) {
        let old = holders[slice]
        if old != .none { digests[old, default: 0] &-= Self.digest(slice: slice, epoch: epochs[slice]) }
        if holder != .none { digests[holder, default: 0] &+= Self.digest(slice: slice, epoch: epoch) }
        epochs[slice] = epoch
        holders[slice] = holder
        changes += 1
    }
}
