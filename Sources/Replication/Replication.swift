// Replication without a consensus log.
//
// A slice has one *holder*. It decides every write, stamps it, and sends the result to its copies; a client is answered
// when every copy of the *in-sync set* has it. Three rules keep that true through faults:
//
// 1. A node answers from its own copies only under a *serving lease*: a majority of the members answered a ping that
//    it sent less than 750 ms ago.
// 2. A holder drops a silent copy from the in-sync set only 1,500 ms after it last promised to wait for it; a copy
//    counts that promise from the moment when it asked. So a copy that takes over knows, by its own clock alone, that
//    it missed nothing: the old holder's lease ended before the promise did.
// 3. A holder serves in an *epoch* only after a majority of the members recorded it there; a member records nobody over
//    a holder that it heard from lately, and a member that recorded somebody over a holder tells that holder with its
//    next answer, before that answer can prolong a lease. Every two majorities share a member, so two holders never
//    serve at once, and nobody takes over on data that an epoch in between has outdated.
//
// The simple idea that fails is "newest version wins" among copies: absence has no version (evicted, expired and
// deleted look alike), so a copy that was away would bring deleted values back. Here the holder's content is the truth
// and a copy's content is a function of a prefix of its stream.
//
// The rules follow the family of primary-backup protocols with leases (Gray and Cheriton, "Leases", 1989; Lin et al.,
// "PacificA", 2008); the record of epochs at a majority is the register of Lamport's Paxos with the epoch as ballot.

/// A node's own short number for one life (id and generation) of a member; 0 is nobody. Never reused in a process.
package struct PeerNumber: Hashable, Comparable, Sendable {
    @usableFromInline package var value: UInt32

    @inlinable
    package init(_ value: UInt32) {
        self.value = value
    }

    @inlinable
    package static var none: PeerNumber { PeerNumber(0) }

    // By hand, so that comparisons in other modules are inlined: loops over all slices are made of them.
    @inlinable
    package static func == (left: PeerNumber, right: PeerNumber) -> Bool { left.value == right.value }

    @inlinable
    package static func < (left: PeerNumber, right: PeerNumber) -> Bool { left.value < right.value }
}

/// What happens on the side of a split that has no majority.
package enum PartitionPolicy: UInt8, Sendable {
    /// `available` until the cluster has had three members, `safe` from then on.
    case auto = 0
    /// The side without a majority serves nothing once its lease ended.
    case safe = 1
    /// Both sides serve; the heal merges by version.
    case available = 2
}

/// Times and bounds of replication; equal on all nodes of a cluster.
package struct ReplicationConfiguration: Hashable, Sendable {
    /// Copies beyond the primary.
    package var replicas = 1
    package var partition = PartitionPolicy.auto
    /// S: how long after a ping that a majority answered a node may serve. Longer: takeovers wait longer.
    package var servingLeaseMilliseconds: UInt64 = 750
    /// I: how long a holder keeps waiting for a silent copy after its last promise. Must exceed S, the ping interval
    /// and the margins by enough for a takeover to be provable.
    package var inSyncLeaseMilliseconds: UInt64 = 1500
    /// How often a node asks its witnesses.
    package var pingMilliseconds: UInt64 = 200
    /// Assumed bound of the drift between two clocks, in thousandths.
    package var driftThousandths: UInt64 = 10
    /// Added to every wait for another node's lease, in milliseconds.
    package var marginMilliseconds: UInt64 = 20
    /// How long a write waits for a copy before the holder stops promising to wait.
    package var writeDeadlineMilliseconds: UInt64 = 100
    /// How long a slice's writes may wait in a cut over before it is called off.
    package var cutOverMilliseconds: UInt64 = 200
    /// Slices that one node teaches at a time.
    package var learnersMax = 128
    /// Bytes of one batch of a snapshot.
    package var snapshotBytesMax = 256 * 1024
    /// Entries that a copy holds back, in one shard, because an earlier one is still under way.
    package var earlyEntriesMax = 16_384
    /// Writes of one shard that wait for copies; beyond it requests are answered `busy`.
    package var pendingWritesMax = 65_536
    /// Hashes that a returning copy lists for one slice; a longer slice is learned from nothing.
    package var inventoryMax = 4096

    package init() {}

    /// S with drift and margin: after so long a silence, another node's lease has ended.
    package var leaseEndedMilliseconds: UInt64 {
        servingLeaseMilliseconds + servingLeaseMilliseconds * driftThousandths / 1000 + marginMilliseconds
    }

    /// I with drift and margin: after so long, a promise has ended for whoever it was given to.
    package var promiseEndedMilliseconds: UInt64 {
        inSyncLeaseMilliseconds + inSyncLeaseMilliseconds * driftThousandths / 1000 + marginMilliseconds
    }
}
