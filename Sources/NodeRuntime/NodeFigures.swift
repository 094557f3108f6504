package import CacheNode
package import CacheStore
import Synchronization

/// Figures of a node for whoever shows them.
package struct NodeFigures: Sendable {
    package var process: ProcessFacts
    package var commands: CommandCounters
    package var store: StoreStatistics
    /// Turns whose answers were dropped because the node had slept beyond its lease.
    package var staleTurns: UInt64
}

extension SharedState {
    /// The node's figures now; each shard's lock is held for a moment.
    package func facts() -> NodeFigures {
        let source = RuntimeStatistics(shared: self)
        var store = StoreStatistics()
        shards.withEach { store.add($0.store.statistics) }
        var commands = CommandCounters()
        for worker in workers { commands.add(worker.counters.load()) }
        return NodeFigures(
            process: source.facts(),
            commands: commands,
            store: store,
            staleTurns: staleTurns.load(ordering: .relaxed)
        )
    }

    /// What the shards have done since the start.
    package func shardCounters() -> ShardPlane.Counters {
        var counters = ShardPlane.Counters()
        shards.withEach { counters.add($0.counters) }
        return counters
    }
}
