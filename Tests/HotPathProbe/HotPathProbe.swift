import CCounting
import CacheNode
import CacheStore
import ClusterCore
import Glibc
import PeerProtocol
import Reactor
import Replication

// What a local hit costs beside the work itself: how often memory is allocated and references are counted between a
// client's bytes and the answer. Both must be 0, and stay 0. To be run from a release build: without optimisation Swift
// counts references everywhere.
//
// Prints a line for each case, with its instructions' share of time as nanoseconds for orientation, and exits with 1
// where something was counted.

/// The locks of a node, as the runtime has them.
private final class Locks: ShardLocks {
    private let locks: LockArray

    init(count: Int) {
        locks = LockArray(count: count)
    }

    func lock(_ shard: Int) { locks.lock(shard) }
    func unlock(_ shard: Int) { locks.unlock(shard) }
}

/// A worker that holds every slice, and one client of it.
private final class Bench {
    static let shardCount = 4
    let shards: ShardTable
    let plane: UnsafeMutablePointer<DataPlane>
    let outbox: UnsafeMutablePointer<Outbox>
    let session = ClientSession(token: 0, itemBytesMax: 1 << 20)
    /// Kept for ever, and not counted when they are looked at.
    let sessions = (0..<16).map { Unmanaged.passRetained(ClientSession(token: $0, itemBytesMax: 1 << 20)) }
    let context = Context(
        now: Now(instant: Instant(nanoseconds: 1 << 40), unixMilliseconds: 1_800_000_000_000),
        leaseUntil: .distantFuture
    )

    init() {
        let own = PeerNumber(1)
        shards = ShardTable(
            count: Self.shardCount,
            store: StoreConfiguration(memoryBytes: 256 << 20),
            configuration: ReplicationConfiguration(),
            locks: Locks(count: Self.shardCount)
        )
        outbox = .allocate(capacity: 1)
        outbox.initialize(to: Outbox())
        plane = .allocate(capacity: 1)
        plane.initialize(
            to: DataPlane(
                worker: 0,
                shards: shards,
                configuration: DataPlaneConfiguration(),
                topology: Topology(
                    version: 1,
                    own: own,
                    ringHash: 1,
                    peers: [],
                    holders: Array(repeating: own, count: Slice.count),
                    epochs: Array(repeating: 1, count: Slice.count),
                    copies: 1,
                    wanted: Array(repeating: own, count: Slice.count)
                )
            )
        )
        for slice in 0..<Slice.count {
            shards.withShard(shards.index(of: slice)) {
                $0.startEmpty(SliceEpoch(slice: slice, epoch: 1), context: context, outbox: &outbox.pointee)
            }
        }
        outbox.pointee.removeAll()
    }

    /// Gives the session what a client sent, takes the answers, and forgets them; how many bytes they had.
    func ask(_ bytes: UnsafeRawBufferPointer) -> Int {
        let consumed = plane.pointee.receive(bytes, session: session, context: context, outbox: &outbox.pointee)
        guard consumed == bytes.count else {
            complain("the session took \(consumed) of \(bytes.count) bytes")
            exit(1)
        }
        let answered = session.output.unsentBytes
        session.output.consume(answered)
        plane.pointee.reclaim(session)
        return answered
    }

    /// Has each of several sessions say the same, together with the others; how many bytes the answers had.
    func askTogether(_ bytes: UnsafeRawBufferPointer) -> Int {
        for session in sessions {
            let isGathered = session._withUnsafeGuaranteedRef { plane.pointee.gather(bytes, $0) }
            guard isGathered else {
                complain("a request was not gathered")
                exit(1)
            }
        }
        plane.pointee.executeGathered(context: context, outbox: &outbox.pointee)
        var sum = 0
        for session in sessions {
            session._withUnsafeGuaranteedRef {
                let answered = $0.output.unsentBytes
                $0.output.consume(answered)
                plane.pointee.reclaim($0)
                sum &+= answered
            }
        }
        return sum
    }

    func ask(_ text: String) -> Int {
        Array(text.utf8).withUnsafeBytes { ask($0) }
    }
}

private func complain(_ text: String) { _ = Glibc.write(2, text + "\n", text.utf8.count + 1) }

private struct Case {
    var name: String
    /// One read of a client.
    var says: String
    /// How many keys are in it.
    var keys: Int
    /// How long the answer is; 0 is not looked at.
    var hears: Int
    /// Whether several clients say it at once.
    var isShared = false
}

private let keys = 1000
private let value = String(repeating: "v", count: 100)

private func key(_ index: Int) -> String { "key_\(1_000_000_000_000_000 + index % keys)" }

private func cases() -> [Case] {
    let hit = "VALUE \(key(0)) 0 100\r\n\(value)\r\n".utf8.count
    func gets(_ count: Int) -> String { (0..<count).map { "get \(key($0 * 7))\r\n" }.joined() }
    func sets(_ count: Int) -> String { (0..<count).map { "set \(key($0 * 7)) 0 0 100\r\n\(value)\r\n" }.joined() }
    let many = (0..<100).map { key($0 * 7) }.joined(separator: " ")
    return [
        Case(name: "get", says: gets(1), keys: 1, hears: hit + 5),
        Case(name: "get, 16 clients", says: gets(1), keys: 16, hears: 16 * (hit + 5), isShared: true),
        Case(name: "get, 16 in a read", says: gets(16), keys: 16, hears: 16 * (hit + 5)),
        Case(name: "get, 100 in a read", says: gets(100), keys: 100, hears: 100 * (hit + 5)),
        Case(name: "get that misses", says: "get nothing\r\n", keys: 1, hears: 5),
        Case(name: "gets", says: "gets \(key(3))\r\n", keys: 1, hears: 0),
        Case(name: "get of 100 keys", says: "get \(many)\r\n", keys: 100, hears: 100 * hit + 5),
        Case(name: "set", says: sets(1), keys: 1, hears: 8),
        Case(name: "set, 16 in a read", says: sets(16), keys: 16, hears: 16 * 8),
        Case(name: "get and set, 9 to 1", says: gets(9) + sets(1), keys: 10, hears: 9 * (hit + 5) + 8),
    ]
}

@main
private enum HotPathProbe {
    static func main() {
        let bench = Bench()
        for index in 0..<keys {
            guard bench.ask("set \(key(index)) 0 0 100\r\n\(value)\r\n") == 8 else {
                complain("could not fill the store")
                exit(1)
            }
        }
        var failures = 0
        if !doesCount() {
            complain("the counters count nothing")
            failures += 1
        }
        for item in cases() {
            let bytes = Array(item.says.utf8)
            let rounds = max(100_000 / item.keys, 1)
            let (allocations, references, nanoseconds) = bytes.withUnsafeBytes { measure(bench, $0, item, rounds) }
            let perKey = Double(nanoseconds) / Double(rounds * item.keys)
            print(
                "\(item.name): \(allocations) allocations, \(references) references counted in \(rounds * item.keys), "
                    + "\(Int(perKey)) ns each"
            )
            if allocations != 0 || references != 0 { failures += 1 }
        }
        if failures > 0 {
            complain("\(failures) cases are not free of allocations and reference counting")
            exit(1)
        }
    }

    /// Whether what allocates, and what is copied by reference, shows: a probe that never fails is none.
    private static func doesCount() -> Bool {
        var kept: [ClientSession] = []
        kept.reserveCapacity(8)
        ccounting_start()
        let session = ClientSession(token: 0, itemBytesMax: 1024)
        for _ in 0..<4 { kept.append(session) }
        let counts = ccounting_stop()
        return counts.allocations >= 1 && counts.references >= 4 && kept.count == 4
    }

    private static func measure(
        _ bench: Bench,
        _ bytes: UnsafeRawBufferPointer,
        _ item: Case,
        _ rounds: Int
    ) -> (allocations: UInt, references: UInt, nanoseconds: UInt64) {
        // Once before: what grows to its size has it then.
        var answered = item.isShared ? bench.askTogether(bytes) : bench.ask(bytes)
        if item.hears != 0, answered != item.hears {
            complain("\(item.name): \(answered) bytes of answers instead of \(item.hears)")
            exit(1)
        }
        let began = SystemClock.monotonic()
        ccounting_start()
        for _ in 0..<rounds { answered &+= item.isShared ? bench.askTogether(bytes) : bench.ask(bytes) }
        let counts = ccounting_stop()
        let ended = SystemClock.monotonic()
        return (
            counts.allocations, counts.references, ended.nanoseconds(since: began)
        )
    }
}
