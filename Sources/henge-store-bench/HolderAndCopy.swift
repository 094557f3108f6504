import CacheNode
import CacheStore
import ClusterCore
import LoadGenerator
import PeerProtocol
import Replication

/// Two nodes' shards and the frames between them: one holds all slices, the other has an in-sync copy of each.
struct HolderAndCopy: ~Copyable {
    /// One node's part.
    private final class Side {
        let number: PeerNumber
        let shards: ShardTable
        var outbox = Outbox()

        init(_ number: UInt32, memoryBytes: Int, shards count: Int) {
            self.number = PeerNumber(number)
            shards = ShardTable(
                count: count,
                store: StoreConfiguration(memoryBytes: memoryBytes),
                configuration: ReplicationConfiguration(),
                locks: nil
            )
        }

        var reference: MemberReference {
            MemberReference(id: NodeID(high: 0, low: UInt64(number.value)), generation: 1)
        }
    }

    struct Result {
        /// Requests from the holder's first eviction on, the holder's hits among them, and those of which the copy had
        /// the item too at that moment.
        var requests: UInt64 = 0
        var hits: UInt64 = 0
        var both: UInt64 = 0
        /// The least of ten parts' shares.
        var leastShare = 1.0
        /// Since the beginning.
        var accessesSent: UInt64 = 0
        var accessesDropped: UInt64 = 0

        var share: Double { Double(both) / Double(max(1, hits)) }
    }

    private let holder: Side
    private let copy: Side
    private let requestsPerTurn: Int
    private let hasHints: Bool
    private var now = Now(instant: Instant(nanoseconds: 1 << 40), unixMilliseconds: 1_700_000_000_000)
    private let keys = KeyRoom(count: 1)
    private let value = UnsafeMutableRawPointer.allocate(byteCount: ValueSizes.bytesMax, alignment: 64)

    /// Without `hasHints`, access hints are lost between the two.
    init(memoryBytes: Int, shards: Int, requestsPerTurn: Int, hasHints: Bool) {
        holder = Side(1, memoryBytes: memoryBytes, shards: shards)
        copy = Side(2, memoryBytes: memoryBytes, shards: shards)
        self.requestsPerTurn = requestsPerTurn
        self.hasHints = hasHints
        value.initializeMemory(as: UInt8.self, repeating: 0x76, count: ValueSizes.bytesMax)
        begin()
    }

    deinit {
        keys.deallocate()
        value.deallocate()
    }

    private var context: Context { Context(now: now, leaseUntil: .distantFuture) }

    /// The holder starts all slices, and the copy learns them.
    private func begin() {
        for (side, other) in [(holder, copy), (copy, holder)] {
            side.shards.withEach {
                $0.setPeer(other.number, reference: other.reference, session: 1, isReachable: true)
            }
        }
        let topology = Topology(
            version: 1,
            own: holder.number,
            ringHash: 1,
            peers: [holder, copy].map {
                Topology.Peer(number: $0.number, reference: $0.reference, name: "", cluster: Endpoint(.v4(1), port: 1))
            },
            holders: Array(repeating: holder.number, count: Slice.count),
            epochs: Array(repeating: 1, count: Slice.count),
            copies: 2,
            wanted: (0..<Slice.count).flatMap { _ in [holder.number, copy.number] }
        )
        for slice in 0..<Slice.count {
            holder.shards.withShard(holder.shards.index(of: slice)) {
                $0.startEmpty(SliceEpoch(slice: slice, epoch: 1), context: context, outbox: &holder.outbox)
            }
        }
        var budget = Slice.count
        holder.shards.withEach {
            $0.ringChanged()
            $0.walk(topology: topology, budget: &budget, context: context, outbox: &holder.outbox)
        }
        deliver()
        for slice in 0..<Slice.count {
            let count = holder.shards.withShard(holder.shards.index(of: slice)) { $0.inSyncCount(slice) }
            precondition(count == 1, "slice \(slice) has \(String(describing: count)) copies in sync")
        }
    }

    /// Takes all frames to where they go, and what follows from them.
    private func deliver() {
        while !holder.outbox.isEmpty || !copy.outbox.isEmpty {
            deliver(from: holder, to: copy)
            deliver(from: copy, to: holder)
        }
    }

    private func deliver(from source: Side, to target: Side) {
        for send in source.outbox.sends {
            let bytes = UnsafeRawBufferPointer(rebasing: source.outbox.bytes.bytes[send.start..<send.end])
            do throws(MalformedBytes) {
                guard let (kind, body, _) = try Frame.next(in: bytes) else {
                    preconditionFailure("a frame of \(bytes.count) bytes is not whole")
                }
                if kind == .accesses, !hasHints { continue }
                let isTaken = try target.shards.receive(
                    kind,
                    body,
                    from: source.number,
                    link: 1,
                    context: context,
                    outbox: &target.outbox
                )
                guard !isTaken, let message = try ControlMessage(kind, body) else { continue }
                switch message {
                case .offer(let slice, _, _), .learn(let slice, _, _):
                    target.shards.withShard(target.shards.index(of: slice)) {
                        $0.receive(message, from: source.number, context: context, outbox: &target.outbox)
                    }
                default: preconditionFailure("\(kind) between a holder and its copy")
                }
            } catch {
                preconditionFailure("a node's own frame is malformed")
            }
        }
        source.outbox.removeAll()
    }

    /// Requests of the sequence, the first `most` of it: get, and on a miss set.
    mutating func replay(_ workload: Workload, most: Int) -> Result {
        var result = Result()
        var parts: [(hits: UInt64, both: UInt64)] = []
        let count = min(most, workload.trace.count)
        var hasEvicted = false
        var part = (hits: UInt64(0), both: UInt64(0))
        var partEnd = 0
        var partLength = 0
        for index in 0..<count {
            if index % requestsPerTurn == 0 {
                turn()
                if !hasEvicted, evictions > 0 {
                    hasEvicted = true
                    partLength = max(1, (count - index) / 10)
                    partEnd = index + partLength
                }
            }
            if hasEvicted, index == partEnd {
                parts.append(part)
                part = (0, 0)
                partEnd += partLength
            }
            let number = UInt64(workload.trace.keys[index])
            let key = keys.write(number, at: 0)
            let hash = KeyHash.hash(key)
            if request(.get, key, hash, bytes: 0) {
                if hasEvicted {
                    part.hits += 1
                    part.both += has(key, hash) ? 1 : 0
                }
            } else {
                _ = request(.set, key, hash, bytes: workload.sizes.size(of: number))
                deliver()
            }
            if hasEvicted { result.requests += 1 }
        }
        if part.hits > 0 { parts.append(part) }
        for part in parts {
            result.hits += part.hits
            result.both += part.both
            // What is left over at the end is too little to be a tenth.
            guard part.hits >= UInt64(partLength) / 10 else { continue }
            result.leastShare = min(result.leastShare, Double(part.both) / Double(part.hits))
        }
        holder.shards.withEach {
            result.accessesSent += $0.counters.accessesSent
            result.accessesDropped += $0.counters.accessesDropped + $0.store.statistics.accessesDropped
        }
        return result
    }

    private var evictions: UInt64 {
        var sum: UInt64 = 0
        holder.shards.withEach { sum += $0.store.statistics.evictions }
        return sum
    }

    /// Ten milliseconds pass on both.
    private mutating func turn() {
        now.instant = now.instant.advanced(byMilliseconds: 10)
        now.unixMilliseconds += 10
        for side in [holder, copy] {
            var lateness = ShardPlane.Lateness()
            side.shards.withEach {
                $0.advance(
                    context: context,
                    writeDeadlineMilliseconds: 100,
                    lateness: &lateness,
                    outbox: &side.outbox
                )
            }
        }
        deliver()
    }

    /// One request to the holder; whether it was a hit.
    private func request(
        _ verb: RequestFrame.Verb,
        _ key: UnsafeRawBufferPointer,
        _ hash: UInt64,
        bytes: Int
    ) -> Bool {
        let frame = RequestFrame(
            id: 0,
            ringHash: 0,
            epoch: 0,
            verb: verb,
            key: key,
            value: UnsafeRawBufferPointer(start: value, count: bytes)
        )
        return holder.shards.withShard(holder.shards.index(of: Slice.index(of: hash))) {
            let execution = $0.execute(
                frame,
                hash: hash,
                origin: Origin(worker: 0, link: 0, id: 1),
                context: context,
                outbox: &holder.outbox
            )
            switch execution {
            case .done(.hit): return true
            case .done, .pending: return false
            case .elsewhere, .busy, .flushed: preconditionFailure("the holder answered \(verb) with \(execution)")
            }
        }
    }

    /// Whether the copy has the key, without counting as a read.
    private func has(_ key: UnsafeRawBufferPointer, _ hash: UInt64) -> Bool {
        copy.shards.withShard(copy.shards.index(of: Slice.index(of: hash))) {
            $0.store.peek(hash: hash, key: key, now: now) != nil
        }
    }
}
