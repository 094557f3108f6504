import CacheNode
import ClusterCore
import Glibc
import Reactor
import Replication
import Synchronization

/// What `stats` shows beyond a worker's own figures.
final class RuntimeStatistics: StatisticsSource {
    private let shared: SharedState

    init(shared: SharedState) {
        self.shared = shared
    }

    func facts() -> ProcessFacts {
        let configuration = shared.configuration
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        var facts = ProcessFacts()
        facts.processID = getpid()
        facts.uptimeSeconds = SystemClock.monotonic().milliseconds(since: shared.startedAt) / 1000
        facts.userMicroseconds = UInt64(usage.ru_utime.tv_sec) * 1_000_000 + UInt64(usage.ru_utime.tv_usec)
        facts.systemMicroseconds = UInt64(usage.ru_stime.tv_sec) * 1_000_000 + UInt64(usage.ru_stime.tv_usec)
        facts.connections = UInt64(max(0, shared.connections.load(ordering: .relaxed)))
        facts.connectionsMax = UInt64(configuration.connectionsMax)
        facts.connectionsTotal = shared.connectionsTotal.load(ordering: .relaxed)
        facts.connectionsRejected = shared.connectionsRejected.load(ordering: .relaxed)
        facts.acceptPauses = shared.acceptPauses.load(ordering: .relaxed)
        facts.idleTimeoutSeconds = UInt64(configuration.idleTimeoutSeconds)
        facts.idleTimeouts = shared.idleTimeouts.load(ordering: .relaxed)
        facts.bytesRead = shared.bytesRead.load(ordering: .relaxed)
        facts.bytesWritten = shared.bytesWritten.load(ordering: .relaxed)
        facts.workers = UInt64(configuration.workers)
        facts.memoryBytes = UInt64(configuration.memoryBytes)
        facts.itemBytesMax = UInt64(configuration.itemBytesMax)
        facts.clientPort = UInt64(configuration.clientListen.first?.port ?? 0)
        facts.clientAddress = configuration.clientListen.first.map { "\($0.address)" } ?? ""
        facts.verbosity = UInt64(configuration.verbosity)
        facts.cluster = cluster()
        return facts
    }

    func counters(worker: UInt16, own: CommandCounters) -> CommandCounters {
        var total = own
        for (index, port) in shared.workers.enumerated() where index != Int(worker) { total.add(port.counters.load()) }
        return total
    }

    func resetCounters() {
        for worker in shared.workers { worker.post(.resetCounters) }
    }

    private func cluster() -> [(name: String, value: String)] {
        var census = ShardPlane.Counters()
        shared.shards.withEach { census.add($0.counters) }
        let until = Instant(nanoseconds: shared.leaseUntil.load(ordering: .relaxed))
        return [
            ("cluster_name", shared.configuration.clusterName),
            ("node_name", shared.configuration.name),
            ("replicas", "\(shared.configuration.control.replication.replicas)"),
            ("serving_lease", until > SystemClock.monotonic() ? "1" : "0"),
            ("slices_handed_over", "\(census.handedOver)"),
            ("slices_taken_over", "\(census.takenOver)"),
            ("slices_started_empty", "\(census.startedEmpty)"),
            ("slices_learned", "\(census.learned)"),
            ("cut_overs_aborted", "\(census.cutOversAborted)"),
            ("writes_lost", "\(census.lostWrites)"),
        ]
            + shared.workers.enumerated().map { index, worker in
                ("worker_\(index)_connections", "\(worker.connections.load(ordering: .relaxed))")
            }
    }
}
