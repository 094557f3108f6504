import ClusterCore
import Glibc
package import Histogram
import Reactor

/// What one phase did, and what it cost.
package struct LoadResult: Sendable {
    package var counts = LoadCounts()
    /// From the start to the last reply, in nanoseconds.
    package var elapsedNanoseconds: UInt64 = 0
    /// What the generator's threads had of processors, in nanoseconds.
    package var generatorNanoseconds: UInt64 = 0
    /// What each process that was named had of processors meanwhile, in nanoseconds.
    package var serverNanoseconds: [UInt64] = []
    /// In nanoseconds, from when a request was due; empty unless it was an open loop.
    package var latency: Histogram<UInt64>?
    /// How late requests were written, in nanoseconds: the generator's own part of the latency.
    package var lateness: Histogram<UInt64>?
    /// Items that were set and, by their time to live, are not dead yet at the end; nil where they live for ever.
    package var itemsAlive: UInt64?
    /// What the server refused first, where it refused anything.
    package var firstRefusal: String?

    /// Commands a second.
    package var commandsPerSecond: Double {
        elapsedNanoseconds == 0 ? 0 : Double(counts.commands) * 1e9 / Double(elapsedNanoseconds)
    }

    /// Microseconds of the named processes a command; nil where none was named or nothing was answered.
    package var serverMicrosecondsPerCommand: Double? {
        guard !serverNanoseconds.isEmpty, counts.commands > 0 else { return nil }
        return Double(serverNanoseconds.reduce(0, +)) / 1000 / Double(counts.commands)
    }

    /// Microseconds of the generator a command.
    package var generatorMicrosecondsPerCommand: Double {
        counts.commands == 0 ? 0 : Double(generatorNanoseconds) / 1000 / Double(counts.commands)
    }
}

/// Connections to servers, over which phases are run one after the other.
///
/// Used from one thread. Its workers' threads live for a phase each.
package final class LoadRun {
    /// A worker's place. `@unchecked Sendable`: while a phase runs, only the phase's thread of that worker uses what it
    /// points to; before and after, only the thread that owns the run. Starting and joining a thread orders the two.
    private struct Place: @unchecked Sendable {
        let worker: UnsafeMutablePointer<Worker>
    }

    private let places: [Place]
    private let connections: Int

    /// Connects. The plans are the phases to come: buffers are made for the largest, and they must agree in servers,
    /// connections, threads, depth, wire and key size.
    package init(for plans: [LoadPlan]) throws(LoadError) {
        for plan in plans {
            if let fault = plan.fault() { throw LoadError(fault) }
        }
        guard let plan = plans.first else { throw LoadError("a run without a phase") }
        var keysMax = 0
        var batchBytes = 0
        var valueBytesMax = 0
        for plan in plans {
            let commands = plan.ratePerSecond == nil ? plan.depth : LoadPlan.openDepthMax
            keysMax = max(keysMax, commands * plan.keysPerGet + 1)
            let setsMax = plan.isLookAside ? plan.depth * plan.keysPerGet : plan.depth
            let getBytes = plan.keysPerGet * (plan.keyBytes + 1) + 16
            let setBytes = plan.keyBytes + plan.sizes.bytesMax + 64
            batchBytes = max(batchBytes, plan.depth * max(getBytes, setBytes), setsMax * setBytes)
            valueBytesMax = max(valueBytesMax, plan.sizes.bytesMax)
        }
        guard batchBytes <= LoadPlan.batchBytesMax else {
            throw LoadError("a batch may take \(batchBytes) bytes, over \(LoadPlan.batchBytesMax): use a lower depth")
        }
        connections = plan.connections
        var places: [Place] = []
        do throws(LoadError) {
            for thread in 0..<plan.threads {
                let own = stride(from: thread, to: plan.connections, by: plan.threads)
                let worker = try Worker(
                    plan: plan,
                    endpoints: own.map { plan.servers[$0 % plan.servers.count] },
                    keysMax: keysMax,
                    batchBytes: batchBytes + 64,
                    valueBytesMax: valueBytesMax
                )
                let memory = UnsafeMutablePointer<Worker>.allocate(capacity: 1)
                memory.initialize(to: worker)
                places.append(Place(worker: memory))
            }
        } catch {
            // The process ends with this error; what was opened ends with it.
            throw error
        }
        self.places = places
    }

    deinit {
        for place in places {
            place.worker.pointee.close()
            place.worker.deinitialize(count: 1)
            place.worker.deallocate()
        }
    }

    /// Runs a phase. Throws where a reply was wrong, the server refused what it should not, or a connection failed.
    package func run(_ plan: LoadPlan, watching processes: [Int32] = []) throws(LoadError) -> LoadResult {
        if let fault = plan.fault() { throw LoadError(fault) }
        if plan.isLookAside, plan.ratePerSecond != nil {
            throw LoadError("an open loop does not set what it missed: leave one of the two out")
        }
        let before = try Self.times(processes)
        let count = places.count
        do throws(SystemError) {
            var threads: [ThreadHandle] = []
            for (index, place) in places.enumerated() {
                let stream = KeyStream(Self.part(index, of: count, plan.keys))
                let commands = plan.commandsMax.map {
                    $0 * UInt64(index + 1) / UInt64(count) - $0 * UInt64(index) / UInt64(count)
                }
                let seed = Chance.mix(plan.seed) &+ UInt64(index)
                let share = 1 / Double(count)
                threads.append(
                    try ThreadHandle(name: "load-\(index)") {
                        place.worker.pointee.run(plan, keys: stream, seed: seed, commands: commands, share: share)
                    }
                )
            }
            for thread in threads { thread.join() }
        } catch {
            throw LoadError("\(error)")
        }
        let after = try Self.times(processes)
        return try gather(plan, server: zip(before, after).map { $1 >= $0 ? $1 - $0 : 0 })
    }

    private func gather(_ plan: LoadPlan, server: [UInt64]) throws(LoadError) -> LoadResult {
        var result = LoadResult()
        result.serverNanoseconds = server
        for place in places {
            let worker = place.worker
            if let fault = worker.pointee.fault { throw LoadError(fault) }
            result.counts.add(worker.pointee.counts)
            result.elapsedNanoseconds = max(result.elapsedNanoseconds, worker.pointee.elapsedNanoseconds)
            result.generatorNanoseconds += worker.pointee.processorNanoseconds
            result.firstRefusal = result.firstRefusal ?? worker.pointee.firstRefusal
            if plan.ratePerSecond != nil {
                var latency = result.latency ?? Histogram(highestTrackableValue: Worker.latencyNanosecondsMax)
                var lateness = result.lateness ?? Histogram(highestTrackableValue: Worker.latencyNanosecondsMax)
                latency.add(worker.pointee.latency)
                lateness.add(worker.pointee.lateness)
                result.latency = latency
                result.lateness = lateness
            }
            if plan.timeToLive != nil {
                result.itemsAlive = (result.itemsAlive ?? 0) + worker.pointee.itemsAlive()
            }
        }
        return result
    }

    private static func times(_ processes: [Int32]) throws(LoadError) -> [UInt64] {
        var times: [UInt64] = []
        for process in processes {
            guard let time = ProcessTime.nanoseconds(of: process) else {
                throw LoadError("process \(process) has no times in /proc: has it ended?")
            }
            times.append(time)
        }
        return times
    }

    /// A thread's part of what is drawn once.
    package static func part(_ index: Int, of count: Int, _ choice: KeyChoice) -> KeyChoice {
        guard case .sequence(let range) = choice else { return choice }
        let total = UInt64(range.count)
        let low = range.lowerBound + total * UInt64(index) / UInt64(count)
        let high = range.lowerBound + total * UInt64(index + 1) / UInt64(count)
        return .sequence(low..<high)
    }
}
