import ClusterCore

/// One fault of a plan. Numbers are those of the plan's nodes; what lasts ends by itself after so many milliseconds.
package enum GossipFault: Hashable, Sendable {
    /// What a node is told of the cluster at its start, besides the peers that it remembers.
    package enum Seeds: String, CaseIterable, Sendable {
        case usual
        /// One that is right, and two addresses where nobody is.
        case stale
        case none
        case itself
    }

    /// Which nodes a mass restart takes.
    package enum Mass: String, CaseIterable, Sendable {
        case all
        case third
        /// All, one after the other.
        case rolling
    }

    // Machines.
    case crash(Int)
    /// Nothing where the node runs.
    case start(Int, Seeds)
    case crashLoop(Int, times: Int, everyMilliseconds: UInt64)
    /// Starts with a generation that the cluster has seen long ago, as from a restored disk.
    case restoredDisk(Int)
    case pause(Int, milliseconds: UInt64)
    /// A processor that takes so long for each datagram, behind a socket that holds few of them.
    case slow(Int, microsecondsEach: UInt64, milliseconds: UInt64)
    case massRestart(Mass, spreadMilliseconds: UInt64)
    // Operation.
    /// Is cut off before where milliseconds are given, so that it leaves while it is suspected.
    case leave(Int, afterCutOf: UInt64, isForGood: Bool)
    case joins(Int)
    case leaves(Int)
    // Links.
    case loss(from: Int?, to: Int?, percent: Int, milliseconds: UInt64)
    /// Neither hears the other; who is between hears both.
    case cut(Int, Int, milliseconds: UInt64)
    case halves(inside: [Bool], milliseconds: UInt64)
    case alone(Int, milliseconds: UInt64)
    /// Cut off for 20 s, back for 20 s, so many times.
    case flipFlop(Int, times: Int)
    case jitter(mostMilliseconds: UInt64, milliseconds: UInt64)
    case duplicates(percent: Int, milliseconds: UInt64)
    case corruption(percent: Int, milliseconds: UInt64)
    case truncation(percent: Int, milliseconds: UInt64)
    /// Datagrams of long ago arrive again.
    case replay(Int)
    /// Bytes that nobody of the cluster sent.
    case garbage(Int, datagrams: Int)
    /// A node hears that its link to another broke.
    case linkBroke(Int, to: Int)
    // Identity.
    /// A second process with the node's id, from a copy of its disk.
    case twin(Int, milliseconds: UInt64)
    case swapAddresses(Int, Int)
    /// The node crashes, and a node of another cluster has its address.
    case foreignCluster(at: Int, milliseconds: UInt64)

    /// What sort of fault it is.
    package enum Kind: String, CaseIterable, Sendable {
        case crash
        case start
        case crashLoop
        case restoredDisk
        case pause
        case slow
        case massRestart
        case leave
        case leaveSuspected
        case joins
        case leaves
        case loss
        case oneWayCut
        case cut
        case halves
        case alone
        case flipFlop
        case jitter
        case duplicates
        case corruption
        case truncation
        case replay
        case garbage
        case linkBroke
        case twin
        case swapAddresses
        case foreignCluster
    }

    package var kind: Kind {
        switch self {
        case .crash: .crash
        case .start: .start
        case .crashLoop: .crashLoop
        case .restoredDisk: .restoredDisk
        case .pause: .pause
        case .slow: .slow
        case .massRestart: .massRestart
        case .leave(_, let cut, _): cut > 0 ? .leaveSuspected : .leave
        case .joins: .joins
        case .leaves: .leaves
        case .loss(_, _, let percent, _): percent == 100 ? .oneWayCut : .loss
        case .cut: .cut
        case .halves: .halves
        case .alone: .alone
        case .flipFlop: .flipFlop
        case .jitter: .jitter
        case .duplicates: .duplicates
        case .corruption: .corruption
        case .truncation: .truncation
        case .replay: .replay
        case .garbage: .garbage
        case .linkBroke: .linkBroke
        case .twin: .twin
        case .swapAddresses: .swapAddresses
        case .foreignCluster: .foreignCluster
        }
    }
}

extension GossipFault: CustomStringConvertible {
    package var description: String {
        func name(_ node: Int?) -> String { node.map { "node \($0)" } ?? "all" }
        switch self {
        case .crash(let node): return "node \(node) crashes"
        case .start(let node, let seeds): return "node \(node) starts, seeds \(seeds.rawValue)"
        case .crashLoop(let node, let times, let every): return "node \(node) crashes \(times) times, every \(every) ms"
        case .restoredDisk(let node): return "node \(node) starts from a restored disk"
        case .pause(let node, let length): return "node \(node) stands still for \(length) ms"
        case .slow(let node, let each, let length): return "node \(node) takes \(each) us a datagram for \(length) ms"
        case .massRestart(let mass, let spread): return "mass restart, \(mass.rawValue), over \(spread) ms"
        case .leave(let node, let cut, let isForGood):
            return "node \(node) leaves" + (cut > 0 ? " after it was cut off for \(cut) ms" : "")
                + (isForGood ? " for good" : "")
        case .joins(let count): return "\(count) new nodes join at once"
        case .leaves(let count): return "\(count) nodes leave at once"
        case .loss(let from, let to, let percent, let length):
            return "\(percent) % of what goes from \(name(from)) to \(name(to)) is lost for \(length) ms"
        case .cut(let left, let right, let length):
            return "nodes \(left) and \(right) do not hear each other for \(length) ms"
        case .halves(let inside, let length):
            return "split for \(length) ms: \(inside.indices.filter { inside[$0] }) and the others"
        case .alone(let node, let length): return "node \(node) is cut off for \(length) ms"
        case .flipFlop(let node, let times): return "node \(node) is cut off for 20 s of every 40, \(times) times"
        case .jitter(let most, let length): return "delays of up to \(most) ms more for \(length) ms"
        case .duplicates(let percent, let length): return "\(percent) % arrive twice for \(length) ms"
        case .corruption(let percent, let length): return "\(percent) % are corrupted for \(length) ms"
        case .truncation(let percent, let length): return "\(percent) % are cut short for \(length) ms"
        case .replay(let count): return "\(count) old datagrams arrive again"
        case .garbage(let node, let count): return "\(count) datagrams of garbage for node \(node)"
        case .linkBroke(let node, let other): return "node \(node) hears that its link to node \(other) broke"
        case .twin(let node, let length): return "a twin of node \(node) for \(length) ms"
        case .swapAddresses(let left, let right): return "nodes \(left) and \(right) swap addresses"
        case .foreignCluster(let node, let length): return "another cluster at node \(node)'s address for \(length) ms"
        }
    }
}

/// The faults of a seed, in order, each with the time until the next.
package struct GossipPlan: Sendable {
    package struct Step: Sendable {
        package var fault: GossipFault
        /// From this fault to the next.
        package var waitMilliseconds: UInt64
    }

    package private(set) var steps: [Step] = []
    /// So many steps come before the cluster has formed, without a wait.
    package private(set) var openingCount = 0

    /// - Parameters:
    ///   - count: how many nodes there are from the start.
    ///   - steps: how many faults there are once the cluster has formed.
    package init(seed: UInt64, count: Int, steps: Int) {
        var random = Xoshiro256(seed: seed &* 977)
        // One list, and a bad network from the first packet on: groups form apart and have to find each other.
        switch Int.random(in: 0..<7, using: &random) {
        case 0, 1:
            let inside = Self.subset(count, &random)
            open(.halves(inside: inside, milliseconds: UInt64.random(in: 2000...20_000, using: &random)))
        case 2:
            open(
                .loss(
                    from: nil,
                    to: nil,
                    percent: Int.random(in: 10...60, using: &random),
                    milliseconds: UInt64.random(in: 2000...20_000, using: &random)
                )
            )
        case 3, 4:
            // A seed between two others that do not hear each other.
            guard count >= 3 else { break }
            let one = Int.random(in: 0..<3, using: &random)
            open(.cut(one, (one + 1) % 3, milliseconds: UInt64.random(in: 2000...20_000, using: &random)))
        default: break
        }
        for _ in 0..<steps {
            let kind = Self.weights.randomElement(using: &random) ?? .crash
            self.steps.append(
                Step(
                    fault: Self.fault(kind, count, &random),
                    waitMilliseconds: UInt64.random(in: 50...4000, using: &random)
                )
            )
        }
    }

    private mutating func open(_ fault: GossipFault) {
        steps.append(Step(fault: fault, waitMilliseconds: 0))
        openingCount += 1
    }

    /// Each kind once, what is common in practice more often.
    private static let weights: [GossipFault.Kind] =
        GossipFault.Kind.allCases + [
            .crash, .crash, .start, .start, .start, .pause, .pause, .leave, .loss, .halves, .linkBroke, .linkBroke,
        ]

    private static func subset(_ count: Int, _ random: inout Xoshiro256) -> [Bool] {
        let inside = Int.random(in: 0...(count / 2), using: &random)
        return Array(
            (Array(repeating: true, count: inside) + Array(repeating: false, count: count - inside))
                .shuffled(using: &random)
        )
    }

    private static func fault(_ kind: GossipFault.Kind, _ count: Int, _ random: inout Xoshiro256) -> GossipFault {
        let node = Int.random(in: 0..<count, using: &random)
        let other = (node + Int.random(in: 0..<max(1, count - 1), using: &random) + 1) % count
        /// Short ones are as frequent as long ones.
        func time(_ range: ClosedRange<UInt64>) -> UInt64 {
            var most = range.upperBound
            while most / 2 > range.lowerBound, Bool.random(using: &random) { most /= 2 }
            return UInt64.random(in: range.lowerBound...most, using: &random)
        }
        switch kind {
        case .crash: return .crash(node)
        case .start:
            let seeds = GossipFault.Seeds.allCases.randomElement(using: &random) ?? .usual
            return .start(node, Bool.random(using: &random) ? .usual : seeds)
        case .crashLoop:
            return .crashLoop(
                node,
                times: Int.random(in: 2...6, using: &random),
                everyMilliseconds: time(100...5000)
            )
        case .restoredDisk: return .restoredDisk(node)
        case .pause: return .pause(node, milliseconds: time(10...60_000))
        case .slow: return .slow(node, microsecondsEach: time(200...20_000), milliseconds: time(1000...30_000))
        case .massRestart:
            return .massRestart(
                GossipFault.Mass.allCases.randomElement(using: &random) ?? .all,
                spreadMilliseconds: time(100...5000)
            )
        case .leave: return .leave(node, afterCutOf: 0, isForGood: Bool.random(using: &random))
        case .leaveSuspected:
            return .leave(node, afterCutOf: time(1000...4000), isForGood: Bool.random(using: &random))
        case .joins: return .joins(Int.random(in: 1...GossipCampaign.joinersMax, using: &random))
        case .leaves: return .leaves(Int.random(in: 1...GossipCampaign.joinersMax, using: &random))
        case .loss:
            let isFrom = Bool.random(using: &random)
            let isTo = Bool.random(using: &random)
            return .loss(
                from: isFrom ? node : nil,
                to: isTo ? other : nil,
                percent: Int.random(in: 1...80, using: &random),
                milliseconds: time(500...30_000)
            )
        case .oneWayCut: return .loss(from: node, to: other, percent: 100, milliseconds: time(500...30_000))
        case .cut: return .cut(node, other, milliseconds: time(500...30_000))
        case .halves: return .halves(inside: subset(count, &random), milliseconds: time(500...120_000))
        case .alone: return .alone(node, milliseconds: time(500...60_000))
        case .flipFlop: return .flipFlop(node, times: Int.random(in: 1...3, using: &random))
        case .jitter: return .jitter(mostMilliseconds: time(1...300), milliseconds: time(500...20_000))
        case .duplicates:
            return .duplicates(percent: Int.random(in: 1...50, using: &random), milliseconds: time(500...30_000))
        case .corruption:
            return .corruption(percent: Int.random(in: 1...30, using: &random), milliseconds: time(500...20_000))
        case .truncation:
            return .truncation(percent: Int.random(in: 1...30, using: &random), milliseconds: time(500...20_000))
        case .replay: return .replay(Int.random(in: 1...64, using: &random))
        case .garbage: return .garbage(node, datagrams: Int.random(in: 1...50, using: &random))
        case .linkBroke: return .linkBroke(node, to: other)
        case .twin: return .twin(node, milliseconds: time(1000...30_000))
        case .swapAddresses: return .swapAddresses(node, other)
        case .foreignCluster: return .foreignCluster(at: node, milliseconds: time(1000...20_000))
        }
    }
}
