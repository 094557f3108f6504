import AdminServer
import CacheNode
import CacheStore
import ClusterCore
import Membership
import NodeRuntime
import PeerProtocol
import Replication
import Sealing
import Settings

/// `/metrics` in Prometheus' text format: what memcached's exporter would make of `stats`, under its names, so that
/// existing dashboards work; and Henge's own with the prefix `henge_`.
enum Metrics {
    static func text(_ snapshot: ClusterSnapshot, _ shared: SharedState, _ settings: NodeSettings) -> String {
        var page = Page()
        let facts = shared.facts()
        memcached(facts, &page)
        cluster(snapshot, facts, shared.shardCounters(), shared.sealingFigures, &page)
        page.family("henge_build_info", "gauge", "Always 1; the labels tell the program.")
        page.sample("henge_build_info", [("version", Main.version)], 1)
        return page.text
    }

    private static func memcached(_ facts: NodeFigures, _ page: inout Page) {
        let process = facts.process
        let commands = facts.commands
        page.gauge("memcached_up", "Whether the node answers.", 1)
        page.counter("memcached_uptime_seconds", "Seconds since the start.", process.uptimeSeconds)
        page.gauge("memcached_current_bytes", "Bytes of items.", UInt64(facts.store.bytes))
        page.gauge("memcached_limit_bytes", "Bytes that items may use.", process.memoryBytes)
        page.gauge("memcached_current_items", "Items.", UInt64(facts.store.items))
        page.counter("memcached_items_total", "Stores since the start.", facts.store.totalItems)
        page.counter("memcached_items_evicted_total", "Items dropped for want of memory.", facts.store.evictions)
        page.counter("memcached_items_reclaimed_total", "Expired items taken back.", facts.store.reclaimed)
        page.gauge("memcached_current_connections", "Open client connections.", process.connections)
        page.counter("memcached_connections_total", "Client connections since the start.", process.connectionsTotal)
        page.counter(
            "memcached_connections_rejected_total",
            "Client connections refused for --max-connections.",
            process.connectionsRejected
        )
        page.counter(
            "henge_accept_pauses_total",
            "Times that accepting paused because descriptors or memory had run out.",
            process.acceptPauses
        )
        page.counter(
            "henge_idle_timeouts_total",
            "Clients disconnected for their silence, --idle-timeout.",
            process.idleTimeouts
        )
        page.counter("memcached_read_bytes_total", "Bytes from clients.", process.bytesRead)
        page.counter("memcached_written_bytes_total", "Bytes to clients.", process.bytesWritten)
        page.family("memcached_commands_total", "counter", "Commands of this node's clients, by command and result.")
        let counts: [(String, String, UInt64)] = [
            ("get", "hit", commands.getHits), ("get", "miss", commands.getMisses),
            ("set", "hit", commands.sets), ("delete", "hit", commands.deleteHits),
            ("delete", "miss", commands.deleteMisses), ("incr", "hit", commands.incrementHits),
            ("incr", "miss", commands.incrementMisses), ("decr", "hit", commands.decrementHits),
            ("decr", "miss", commands.decrementMisses), ("cas", "hit", commands.casHits),
            ("cas", "miss", commands.casMisses), ("cas", "badval", commands.casBadValue),
            ("touch", "hit", commands.touchHits), ("touch", "miss", commands.touchMisses),
            ("flush", "hit", commands.flushes),
        ]
        for (command, status, count) in counts {
            page.sample("memcached_commands_total", [("command", command), ("status", status)], count)
        }
        page.counter("henge_forwarded_requests_total", "Requests sent to other nodes.", commands.forwarded)
        page.counter("henge_served_requests_total", "Requests of other nodes' clients.", commands.served)
        page.counter(
            "henge_outdated_requests_total",
            "Writes of other nodes' clients that were sent before the slice changed its holder, and refused.",
            commands.outdated
        )
        page.counter("henge_parked_requests_total", "Times a request waited for a holder.", commands.parked)
        page.counter("henge_timed_out_requests_total", "Requests given up.", commands.timedOut)
        page.counter(
            "henge_ambiguous_requests_total",
            "Requests whose result is unknown because a node was lost.",
            commands.ambiguous
        )
        page.counter(
            "henge_stale_turns_total",
            "Turns whose answers were dropped because the node had slept.",
            facts.staleTurns
        )
        page.gauge("henge_tombstones", "Deletions that are remembered.", UInt64(facts.store.tombstones))
        page.counter("henge_floor_raises_total", "Tombstones dropped early.", facts.store.floorRaises)
        page.gauge("henge_store_index_bytes", "Bytes of the index.", UInt64(facts.store.indexBytes))
        page.gauge(
            "henge_store_dead_bytes",
            "Bytes of segments in use that hold neither items nor tombstones.",
            UInt64(max(0, facts.store.deadBytes))
        )
        page.counter("henge_store_moved_bytes_total", "Bytes of items that cleaning moved.", facts.store.movedBytes)
        page.gauge("process_cpu_user_microseconds", "Processor time in user mode.", process.userMicroseconds)
        page.gauge("process_cpu_system_microseconds", "Processor time in the kernel.", process.systemMicroseconds)
    }

    private static func cluster(
        _ snapshot: ClusterSnapshot,
        _ facts: NodeFigures,
        _ counters: ShardPlane.Counters,
        _ sealing: SealingFigures?,
        _ page: inout Page
    ) {
        page.family("henge_members", "gauge", "Members by lifecycle and liveness.")
        for lifecycle in [Lifecycle.joining, .up, .draining, .left] {
            for liveness in [Liveness.alive, .suspect, .down] {
                let count = snapshot.members.count {
                    $0.record.lifecycle == lifecycle && $0.record.liveness == liveness
                }
                page.sample(
                    "henge_members",
                    [("lifecycle", "\(lifecycle)"), ("liveness", "\(liveness)")],
                    UInt64(count)
                )
            }
        }
        page.family("henge_ring_info", "gauge", "Always 1; the label is the ring's hash.")
        page.sample("henge_ring_info", [("hash", hexadecimal(snapshot.ringHash))], 1)
        page.gauge("henge_ring_members", "Members of the ring.", UInt64(snapshot.ringSize))
        page.counter(
            "henge_renounced_total",
            "How often this node gave up all that it held, since most members had restarted at once.",
            snapshot.outcomes.renounced
        )
        page.counter("henge_ring_changes_total", "Rings since the start.", snapshot.outcomes.ringChanges)
        page.counter(
            "henge_ring_changes_coalesced_total",
            "Changes of the ring's members that became one with a later change.",
            snapshot.outcomes.ringChangesCoalesced
        )
        page.gauge(
            "henge_ring_brake",
            "Whether this node takes nobody out of the ring, because many went at once or it is not well.",
            snapshot.brake == nil ? 0 : 1
        )
        page.gauge(
            "henge_members_damped",
            "Members that came back and stay out of the ring for a while.",
            UInt64(snapshot.members.count { $0.record.isDamped })
        )
        page.family("henge_slices", "gauge", "Slices of the cluster by condition.")
        let conditions = [
            ("settled", snapshot.settled), ("moving", snapshot.moving), ("short", snapshot.short),
            ("unavailable", snapshot.unavailable),
        ]
        for (state, count) in conditions { page.sample("henge_slices", [("state", state)], UInt64(count)) }
        let own = snapshot.members.first { $0.isOwn }
        page.family("henge_slices_owned", "gauge", "Slices of this node by role.")
        page.sample("henge_slices_owned", [("role", "holder")], UInt64(own?.report.primaries ?? 0))
        page.sample("henge_slices_owned", [("role", "copy")], UInt64(own?.report.copies ?? 0))
        page.gauge("henge_serving_lease", "Whether this node may serve.", snapshot.hasLease ? 1 : 0)
        page.counter("henge_takeovers_total", "Slices taken over from others.", snapshot.outcomes.takeovers)
        page.counter("henge_in_sync_exclusions_total", "Copies dropped for silence.", snapshot.outcomes.exclusions)
        page.counter("henge_leases_lost_total", "Times the serving lease ended.", snapshot.outcomes.leasesLost)
        page.counter("henge_stalls_total", "Pauses of the process.", snapshot.outcomes.stalls)
        page.counter("henge_claims_total", "Claims to slices.", snapshot.outcomes.claimsMade)
        page.counter("henge_claims_failed_total", "Claims that were given up.", snapshot.outcomes.claimsFailed)
        page.counter("henge_transfer_bytes_total", "Bytes of content sent to copies.", counters.snapshotBytes)
        page.counter("henge_slices_learned_total", "Slices learned.", counters.learned)
        page.counter(
            "henge_stream_sum_mismatches_total",
            "Slices that this node refused to be a copy of and learns again: other writes than were sent. Stays 0.",
            counters.sumMismatches
        )
        page.counter("henge_cut_overs_aborted_total", "Cut overs called off.", counters.cutOversAborted)
        page.family(
            "henge_access_hints_total",
            "counter",
            "Reads that holders tell copies of, by what became of the hint."
        )
        let hints = [
            ("sent", counters.accessesSent), ("received", counters.accessesReceived),
            ("ignored", counters.accessesIgnored),
            ("dropped", counters.accessesDropped + facts.store.accessesDropped),
        ]
        for (result, count) in hints { page.sample("henge_access_hints_total", [("result", result)], count) }
        page.gauge(
            "henge_write_wait_max_microseconds",
            "The longest that a write has waited for its copies.",
            counters.longestPauseNanoseconds / 1000
        )
        let gossip = snapshot.membership
        page.family("henge_gossip_messages_total", "counter", "Datagrams of the gossip layer.")
        page.sample("henge_gossip_messages_total", [("direction", "in")], gossip.datagramsReceived)
        page.sample("henge_gossip_messages_total", [("direction", "out")], gossip.datagramsSent)
        page.counter(
            "henge_gossip_streamed_total",
            "Datagrams of gossip sent over TCP: second tries of probes, and all where UDP does not pass.",
            gossip.streamsSent
        )
        page.counter(
            "henge_gossip_probes_rescued_total",
            "Probes that were answered over TCP only.",
            gossip.probesRescued
        )
        page.gauge(
            "henge_gossip_streamed_addresses",
            "Addresses of others to which gossip goes over TCP, since UDP does not pass; 'henge doctor' says what to open.",
            UInt64(snapshot.streamedCount)
        )
        page.gauge(
            "henge_gossip_inbox_age_max_microseconds",
            "The longest that a gossip datagram has waited for this process since its start. Above 125,000 the node is slow.",
            gossip.inboxAgeMaxMicroseconds
        )
        page.counter(
            "henge_gossip_read_late_total",
            "Gossip datagrams read so late that this node doubts its own health.",
            gossip.datagramsReadLate
        )
        page.family(
            "henge_gossip_limited_total",
            "counter",
            "How often a limit held gossip back: pulls a second, bytes of news a second, records, tries of an update."
        )
        page.sample("henge_gossip_limited_total", [("limit", "pulls")], gossip.pullsSuppressed)
        page.sample("henge_gossip_limited_total", [("limit", "news")], gossip.gossipHeldBack)
        page.sample("henge_gossip_limited_total", [("limit", "records")], gossip.recordsRefused)
        page.sample("henge_gossip_limited_total", [("limit", "updates")], gossip.updatesAbandoned)
        page.counter("henge_gossip_suspicions_total", "Suspicions raised here.", gossip.suspicions)
        page.counter(
            "henge_dampings_total",
            "Times that this node came back and stayed out of the ring for a while.",
            gossip.dampings
        )
        page.family("henge_membership_events_total", "counter", "What happened to the membership, as this node saw it.")
        for kind in MembershipEvent.Kind.allCases {
            page.sample(
                "henge_membership_events_total",
                [("type", kind.rawValue)],
                snapshot.journal.count(of: kind)
            )
        }
        page.family("henge_gossip_rejected_total", "counter", "Datagrams refused.")
        page.sample("henge_gossip_rejected_total", [("reason", "malformed")], gossip.malformed)
        page.sample("henge_gossip_rejected_total", [("reason", "foreign")], gossip.foreignCluster)
        page.sample("henge_gossip_rejected_total", [("reason", "target")], gossip.wrongTarget)
        if let sealing { Self.sealing(sealing, snapshot.keyRing, &page) }
    }

    private static func sealing(_ figures: SealingFigures, _ keyRing: KeyRingView?, _ page: inout Page) {
        page.family("henge_sealing_packets_total", "counter", "Sealed gossip packets.")
        page.sample("henge_sealing_packets_total", [("direction", "in")], figures.gossip.opened)
        page.sample("henge_sealing_packets_total", [("direction", "out")], figures.gossip.sealed)
        page.family(
            "henge_sealing_refused_total",
            "counter",
            "Packets of gossip and connections between nodes that were refused, by cause. They change nothing."
        )
        for cause in SealingRefusal.allCases where cause != .sealed {
            page.sample(
                "henge_sealing_refused_total",
                [("kind", "packet"), ("cause", cause.rawValue)],
                figures.gossip.refused[cause] ?? 0
            )
            page.sample(
                "henge_sealing_refused_total",
                [("kind", "connection"), ("cause", cause.rawValue)],
                figures.connectionsRefused[cause] ?? 0
            )
        }
        page.counter(
            "henge_sealing_unsent_total",
            "Datagrams dropped while their receiver was asked for its start bits.",
            figures.gossip.unsent
        )
        page.gauge(
            "henge_sealing_sessions",
            "Starts of other nodes with which packets are exchanged; at most \(GossipSealer.sessionsMax).",
            UInt64(figures.sessions)
        )
        guard let keyRing else { return }
        page.gauge(
            "henge_cluster_keys",
            "Cluster keys of this node; at most \(KeyRing.keysMax).",
            UInt64(keyRing.keys.count)
        )
        page.family("henge_cluster_key_members", "gauge", "Members by the key that they seal with.")
        for key in keyRing.keys {
            let count = keyRing.members.count { $0.keys?.first == key }
            page.sample("henge_cluster_key_members", [("key", key.description)], UInt64(count))
        }
    }

    /// The text as it grows.
    private struct Page {
        var text = ""

        mutating func family(_ name: String, _ kind: String, _ help: String) {
            text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind)\n"
        }

        mutating func sample(_ name: String, _ labels: [(String, String)], _ value: UInt64) {
            let list = labels.map { "\($0.0)=\"\($0.1)\"" }.joined(separator: ",")
            text += list.isEmpty ? "\(name) \(value)\n" : "\(name){\(list)} \(value)\n"
        }

        mutating func gauge(_ name: String, _ help: String, _ value: UInt64) {
            family(name, "gauge", help)
            sample(name, [], value)
        }

        mutating func counter(_ name: String, _ help: String, _ value: UInt64) {
            family(name, "counter", help)
            sample(name, [], value)
        }
    }
}
