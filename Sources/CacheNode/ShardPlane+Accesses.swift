import CacheStore
import ClusterCore
package import PeerProtocol
package import Replication

// Access hints, from a slice's holder to its copies.
//
// Problem. A copy sees writes and no reads. From writes alone it evicts what its holder keeps, and a takeover would
// begin with a cold cache. The simple ideas fail: asking the copies to read as well doubles the work of every get, and
// a list of what is hot, sent when the copy takes over, comes after the items have gone.
//
// Idea. The store notes the hash of an item whenever a read raises its frequency, which has two bits and so changes on
// a part of the reads only. The clock's turn takes what was noted and tells whoever copies the item's slice; there the
// frequency rises in the same way. Nothing waits for a hint and none is repeated: one that is lost, late or for
// somebody else changes what a copy evicts, never what it answers.

extension ShardPlane {
    /// Hashes after which they are told at once, and not only when `accessesMilliseconds` have passed.
    static let accessesBatch = 64
    /// For how many milliseconds fewer hashes may wait. Longer: fuller frames, and copies that lag more.
    static let accessesMilliseconds: UInt64 = 50
    /// Hashes that a copy notes under one hold of its lock, at most.
    package static let accessesRunMax = 64

    /// Follows from a change of role or streams: whether copies elsewhere have to be told of the slice's reads.
    mutating func setCopied(_ local: Int, _ isCopied: Bool) {
        copiedCount += (isCopied ? 1 : 0) - Int(copied[local])
        copied[local] = isCopied ? 1 : 0
        guard store.recordsAccesses != (copiedCount > 0) else { return }
        // A shard without copies elsewhere pays nothing for a read; and what it noted for copies that are gone is
        // nobody's any more.
        store.recordsAccesses = copiedCount > 0
        store.takeAccesses { _ in }
    }

    /// Tells the copies of what was read since the last time, where that is enough or long enough ago.
    mutating func tellAccesses(_ now: Instant, _ outbox: inout Outbox) {
        let count = store.recordedAccessCount
        guard count > 0, count >= Self.accessesBatch || accessesDueAt <= now else { return }
        accessesDueAt = now.advanced(byMilliseconds: Self.accessesMilliseconds)
        var hashes: [UInt64] = []
        store.takeAccesses { hashes = Array($0) }
        // By peer, in the order in which they come up: a few of them, so that looking through all is fine.
        var batches: [(peer: PeerNumber, hashes: [UInt64])] = []
        for hash in hashes {
            let local = Slice.index(of: hash) - slices.lowerBound
            guard copied[local] != 0, case .holder(let holder) = roles[local] else { continue }
            for stream in holder.streams where stream.isFlowing {
                if let index = batches.firstIndex(where: { $0.peer == stream.peer }) {
                    batches[index].hashes.append(hash)
                } else {
                    batches.append((stream.peer, [hash]))
                }
            }
        }
        for batch in batches { tell(batch.peer, batch.hashes, &outbox) }
    }

    private mutating func tell(_ peer: PeerNumber, _ hashes: [UInt64], _ outbox: inout Outbox) {
        guard peers[peer]?.isReachable == true, !outbox.congested.contains(peer) else {
            counters.accessesDropped += UInt64(hashes.count)
            return
        }
        counters.accessesSent += UInt64(hashes.count)
        var rest = hashes[...]
        while !rest.isEmpty {
            outbox.send(to: .peer(peer)) { AccessesFrame.append(rest.prefix(AccessesFrame.countMax), to: &$0) }
            rest = rest.dropFirst(AccessesFrame.countMax)
        }
    }

    /// Reads that a peer has told of, all of this shard's slices. They count where the peer is the holder that this
    /// node copies; elsewhere they are late, and nothing follows.
    package mutating func receive(_ accesses: AccessesFrame, _ range: Range<Int>, from peer: PeerNumber) {
        for index in range { store.prefetchIndex(hash: accesses[index]) }
        for index in range {
            let hash = accesses[index]
            if copyHolders[Slice.index(of: hash) - slices.lowerBound] == peer.value {
                counters.accessesReceived += 1
                store.noteAccess(hash: hash)
            } else {
                counters.accessesIgnored += 1
            }
        }
    }
}
