import CacheStore
import ClusterCore
import MemcacheProtocol
import Replication

// What `stats` and the dumps answer. Names and order are memcached's, since exporters and clients read them by name;
// what has no meaning here is 0.

/// What only the process knows of itself.
package struct ProcessFacts: Sendable {
    package var processID: Int32 = 0
    package var uptimeSeconds: UInt64 = 0
    package var userMicroseconds: UInt64 = 0
    package var systemMicroseconds: UInt64 = 0
    package var connections: UInt64 = 0
    package var connectionsMax: UInt64 = 0
    package var connectionsTotal: UInt64 = 0
    package var connectionsRejected: UInt64 = 0
    package var acceptPauses: UInt64 = 0
    /// After how many seconds of silence clients are disconnected; 0 is never.
    package var idleTimeoutSeconds: UInt64 = 0
    /// How many were.
    package var idleTimeouts: UInt64 = 0
    package var bytesRead: UInt64 = 0
    package var bytesWritten: UInt64 = 0
    package var workers: UInt64 = 0
    package var memoryBytes: UInt64 = 0
    package var itemBytesMax: UInt64 = 0
    package var clientPort: UInt64 = 0
    package var clientAddress = ""
    package var verbosity: UInt64 = 0
    /// Name and value of `stats cluster`, in order, without spaces.
    package var cluster: [(name: String, value: String)] = []

    package init() {}
}

/// What the shell adds to a worker's own figures.
package protocol StatisticsSource: AnyObject, Sendable {
    func facts() -> ProcessFacts
    /// The counters of all workers; `own` are those of the worker that asks.
    func counters(worker: UInt16, own: CommandCounters) -> CommandCounters
    /// `stats reset`: every worker's counters go to zero.
    func resetCounters()
}

/// A dump on its way to a client: where it goes on.
struct DumpCursor {
    enum Form {
        case metadump
        case keys
        case cachedump
    }

    var form: Form
    var slice: Int
    var position: UInt64
    /// Items still to be written; nil is all.
    var remaining: Int?
}

extension DataPlane {
    package mutating func resetCounters() {
        counters = CommandCounters()
    }

    mutating func answerStatistics(_ query: StatsQuery, _ session: ClientSession, _ context: Context) {
        switch query {
        case .general: writeGeneral(session, context)
        case .settings: writeSettings(session)
        case .items, .slabs, .connections, .externalStore, .proxy, .proxyFunctions, .proxyBackends, .detailDump:
            session.write { ResponseWriter.status(.end, to: &$0) }
        case .sizes:
            session.write {
                ResponseWriter.stat("sizes_status", "disabled", to: &$0)
                ResponseWriter.status(.end, to: &$0)
            }
        case .cluster:
            let facts = statistics?.facts() ?? ProcessFacts()
            session.write {
                for (name, value) in facts.cluster { ResponseWriter.stat(name, value, to: &$0) }
                ResponseWriter.status(.end, to: &$0)
            }
        case .reset:
            resetCounters()
            statistics?.resetCounters()
            session.write { ResponseWriter.status(.reset, to: &$0) }
        case .detailOn, .detailOff: session.write { ResponseWriter.status(.ok, to: &$0) }
        case .cacheDump(_, let limit):
            begin(
                DumpCursor(form: .cachedump, slice: 0, position: 0, remaining: limit == 0 ? nil : Int(limit)),
                session
            )
        case .refused(let error): session.write { ResponseWriter.error(error, to: &$0) }
        }
    }

    mutating func answerCrawler(_ query: CrawlerQuery, _ session: ClientSession, _ context: Context) {
        switch query {
        case .metadump:
            session.write { ResponseWriter.status(.ok, to: &$0) }
            begin(DumpCursor(form: .metadump, slice: 0, position: 0, remaining: nil), session)
        case .keyDump:
            session.write { ResponseWriter.status(.ok, to: &$0) }
            begin(DumpCursor(form: .keys, slice: 0, position: 0, remaining: nil), session)
        case .enable, .disable, .sleep, .itemsPerCrawl, .crawl:
            session.write { ResponseWriter.status(.ok, to: &$0) }
        case .refused(let error): session.write { ResponseWriter.error(error, to: &$0) }
        }
    }

    private func begin(_ dump: DumpCursor, _ session: ClientSession) {
        session.dump = dump
    }

    /// Writes the next part of a dump: as much as the session's output takes. Only slices that this node holds, so that
    /// the nodes' dumps add up.
    mutating func advanceDump(_ session: ClientSession, _ context: Context) {
        guard var dump = session.dump, !session.hasPlaces else { return }
        while dump.slice < Slice.count, dump.remaining != 0, session.hasRoom {
            let slice = dump.slice
            let next: UInt64? = shards.withShard(shards.index(of: slice)) { shard in
                guard shard.heldEpoch(slice) != nil else { return nil }
                return shard.store.scan(slice: slice, from: dump.position, now: context.now) { item in
                    guard !item.isTombstone else { return true }
                    session.write { write(item, dump.form, context, to: &$0) }
                    if let remaining = dump.remaining { dump.remaining = remaining - 1 }
                    return session.hasRoom && dump.remaining != 0
                }
            }
            if let next {
                dump.position = next
            } else {
                dump.slice += 1
                dump.position = 0
            }
        }
        if dump.slice == Slice.count || dump.remaining == 0 {
            session.dump = nil
            session.write {
                if dump.form == .keys {
                    $0.append("EN\r\n")
                } else {
                    ResponseWriter.status(.end, to: &$0)
                }
            }
        } else {
            session.dump = dump
            session.wantsResume = true
        }
    }

    private func write(_ item: ItemView, _ form: DumpCursor.Form, _ context: Context, to buffer: inout ByteBuffer) {
        switch form {
        case .cachedump:
            DumpWriter.cacheDumpItem(
                key: item.key,
                valueLength: item.value.count,
                expiry: item.expiry == 0 ? nil : item.expiry,
                to: &buffer
            )
        case .keys: DumpWriter.keyDumpItem(key: item.key, to: &buffer)
        case .metadump:
            DumpWriter.metadumpItem(
                key: item.key,
                DumpWriter.ItemFacts(
                    expiry: item.expiry == 0 ? nil : item.expiry,
                    lastAccess: context.now.unixSeconds,
                    unique: item.unique,
                    fetched: false,
                    classID: 1,
                    itemBytes: item.key.count + item.value.count,
                    flags: item.flags
                ),
                to: &buffer
            )
        }
    }

    private func writeGeneral(_ session: ClientSession, _ context: Context) {
        let facts = statistics?.facts() ?? ProcessFacts()
        let counters = statistics?.counters(worker: worker, own: self.counters) ?? self.counters
        var store = StoreStatistics()
        shards.withEach { store.add($0.store.statistics) }
        func seconds(_ microseconds: UInt64) -> String {
            let fraction = String(microseconds % 1_000_000)
            return "\(microseconds / 1_000_000)." + String(repeating: "0", count: 6 - fraction.count) + fraction
        }
        session.write { buffer in
            func stat(_ name: StaticString, _ value: UInt64) { ResponseWriter.stat(name, value, to: &buffer) }
            stat("pid", UInt64(facts.processID))
            stat("uptime", facts.uptimeSeconds)
            stat("time", UInt64(context.now.unixSeconds))
            ResponseWriter.stat("version", "1.6.45", to: &buffer)
            ResponseWriter.stat("libevent", "none", to: &buffer)
            stat("pointer_size", 64)
            ResponseWriter.stat("rusage_user", seconds(facts.userMicroseconds), to: &buffer)
            ResponseWriter.stat("rusage_system", seconds(facts.systemMicroseconds), to: &buffer)
            stat("max_connections", facts.connectionsMax)
            stat("curr_connections", facts.connections)
            stat("total_connections", facts.connectionsTotal)
            stat("rejected_connections", facts.connectionsRejected)
            stat("connection_structures", facts.connections)
            for name in Self.zerosOfConnections { stat(name, 0) }
            stat("cmd_get", counters.getHits + counters.getMisses)
            stat("cmd_set", counters.sets)
            stat("cmd_flush", counters.flushes)
            stat("cmd_touch", counters.touchHits + counters.touchMisses)
            stat("cmd_meta", 0)
            stat("get_hits", counters.getHits)
            stat("get_misses", counters.getMisses)
            stat("get_expired", 0)
            stat("get_flushed", 0)
            stat("delete_misses", counters.deleteMisses)
            stat("delete_hits", counters.deleteHits)
            stat("incr_misses", counters.incrementMisses)
            stat("incr_hits", counters.incrementHits)
            stat("decr_misses", counters.decrementMisses)
            stat("decr_hits", counters.decrementHits)
            stat("cas_misses", counters.casMisses)
            stat("cas_hits", counters.casHits)
            stat("cas_badval", counters.casBadValue)
            stat("touch_hits", counters.touchHits)
            stat("touch_misses", counters.touchMisses)
            stat("store_too_large", counters.tooLarge)
            stat("store_no_memory", counters.noMemory)
            stat("auth_cmds", 0)
            stat("auth_errors", 0)
            stat("bytes_read", facts.bytesRead)
            stat("bytes_written", facts.bytesWritten)
            stat("limit_maxbytes", facts.memoryBytes)
            stat("accepting_conns", 1)
            stat("listen_disabled_num", facts.acceptPauses)
            stat("time_in_listen_disabled_us", 0)
            if facts.idleTimeoutSeconds > 0 { stat("idle_kicks", facts.idleTimeouts) }
            stat("threads", facts.workers)
            for name in Self.zerosOfEngine { stat(name, 0) }
            stat("bytes", UInt64(store.bytes))
            stat("curr_items", UInt64(store.items))
            stat("total_items", store.totalItems)
            stat("expired_unfetched", store.expiredUnfetched)
            stat("evicted_unfetched", store.evictedUnfetched)
            stat("evicted_active", 0)
            stat("evictions", store.evictions)
            stat("reclaimed", store.reclaimed)
            for name in Self.zerosOfCrawler { stat(name, 0) }
            ResponseWriter.status(.end, to: &buffer)
        }
    }

    private func writeSettings(_ session: ClientSession) {
        let facts = statistics?.facts() ?? ProcessFacts()
        let pairs: [(String, String)] = [
            ("maxbytes", "\(facts.memoryBytes)"), ("maxconns", "\(facts.connectionsMax)"),
            ("tcpport", "\(facts.clientPort)"), ("udpport", "0"),
            ("inter", facts.clientAddress.isEmpty ? "NULL" : facts.clientAddress),
            ("verbosity", "\(facts.verbosity)"), ("oldest", "0"), ("evictions", "on"), ("domain_socket", "NULL"),
            ("umask", "700"), ("growth_factor", "1.25"), ("chunk_size", "48"), ("num_threads", "\(facts.workers)"),
            ("stat_key_prefix", ":"), ("detail_enabled", "no"), ("reqs_per_event", "20"), ("cas_enabled", "yes"),
            ("tcp_backlog", "1024"), ("binding_protocol", "auto-negotiate"), ("auth_enabled_sasl", "no"),
            ("auth_enabled_ascii", "no"), ("item_size_max", "\(facts.itemBytesMax)"), ("maxconns_fast", "yes"),
            ("hashpower_init", "0"), ("slab_reassign", "no"), ("slab_automove", "0"), ("lru_crawler", "no"),
            ("flush_enabled", "yes"), ("dump_enabled", "yes"), ("idle_timeout", "\(facts.idleTimeoutSeconds)"),
        ]
        session.write {
            for (name, value) in pairs { ResponseWriter.stat(name, value, to: &$0) }
            ResponseWriter.status(.end, to: &$0)
        }
    }

    private static var zerosOfConnections: [StaticString] {
        [
            "response_obj_oom", "response_obj_count", "response_obj_bytes", "read_buf_count", "read_buf_bytes",
            "read_buf_bytes_free", "read_buf_oom", "reserved_fds",
        ]
    }

    private static var zerosOfEngine: [StaticString] {
        [
            "conn_yields", "hash_power_level", "hash_bytes", "hash_is_expanding", "slab_reassign_rescues",
            "slab_reassign_chunk_rescues", "slab_reassign_inline_reclaim", "slab_reassign_busy_items",
            "slab_reassign_busy_deletes", "slab_reassign_busy_nomem", "slab_reassign_last_busy_status",
            "slab_reassign_running", "slabs_moved", "lru_crawler_running", "lru_crawler_starts",
            "lru_maintainer_juggles", "malloc_fails", "log_worker_dropped", "log_worker_written",
            "log_watcher_skipped", "log_watcher_sent", "log_watchers", "unexpected_napi_ids", "round_robin_fallback",
        ]
    }

    private static var zerosOfCrawler: [StaticString] {
        [
            "slab_global_page_pool", "crawler_reclaimed", "crawler_items_checked", "lrutail_reflocked",
            "moves_to_cold", "moves_to_warm", "moves_within_lru", "direct_reclaims", "lru_bumps_dropped",
        ]
    }
}
