import AdminServer
import ClusterCore

/// Decides how a drain stands from what nodes say, and whom to ask next.
///
/// The node that is drained ends its process when it is done, perhaps before the last look at it; so its silence means
/// nothing by itself. Other members know whether it has left. A task ends by what the cluster says of it, never by
/// a lost connection.
struct DrainFollower {
    /// How a drain stands.
    enum Outcome: Hashable {
        case going
        case done
        case failed(String)
        case cancelled
    }

    /// Somebody to ask; the name is nil where it is not known yet.
    struct Candidate: Hashable {
        var name: String?
        var address: HostAndPort
    }

    /// The most members that are asked in one round.
    static let candidatesMax = 8

    /// The task as last seen.
    private(set) var task: TaskReport
    private let cluster: String
    private let asked: Candidate
    private var others: [Candidate] = []
    private var wasDraining = false

    /// - Parameters:
    ///   - task: as the node that was asked for the drain gave it.
    ///   - status: what the asked node said before.
    ///   - address: where it was asked.
    init(task: TaskReport, status: ClusterStatus, address: HostAndPort) {
        self.task = task
        cluster = status.cluster
        asked = Candidate(name: status.node, address: address)
        remember(status)
    }

    /// Whom to ask, the best first: who was asked at the beginning, then living members, the drained one last.
    var candidates: [Candidate] { [asked] + others }

    /// Whether an answer is from whom it was expected. A member's admin address may be a loopback address, which
    /// names somebody else when it is used on another host.
    func accepts(_ status: ClusterStatus, from candidate: Candidate) -> Bool {
        status.cluster == cluster && (candidate.name == nil || candidate.name == status.node)
    }

    /// Learns from an answer.
    mutating func observe(_ status: ClusterStatus) -> Outcome {
        remember(status)
        if let report = status.tasks.first(where: { $0.id == task.id }) { task = report }
        switch task.state {
        case .done: return .done
        case .failed: return .failed(task.blocked ?? "the drain failed")
        case .cancelled: return .cancelled
        case .running: break
        }
        let percent = Readable.percent(task.done, of: task.total)
        guard let member = status.members.first(where: { $0.name == task.node }) else {
            return isComplete ? .done : .failed("\(task.node) is gone from the cluster at \(percent) % of its drain")
        }
        switch (member.lifecycle, member.liveness) {
        case (.left, _): return .done
        case (_, .down):
            return isComplete ? .done : .failed("\(task.node) is down at \(percent) % of its drain")
        case (.draining, _):
            wasDraining = true
            return .going
        case (.up, _), (.joining, _):
            // Before it was draining, the news may not have reached who answers.
            return wasDraining && !status.tasks.contains { $0.id == task.id } ? .cancelled : .going
        }
    }

    /// Learns that nobody answers. Done where everything had moved and nobody else is known: the cluster ended.
    func observeSilence() -> Outcome {
        isComplete && others.allSatisfy { $0.name == task.node } ? .done : .going
    }

    private var isComplete: Bool { task.total > 0 && task.done >= task.total }

    private mutating func remember(_ status: ClusterStatus) {
        var living: [Candidate] = []
        var drained: [Candidate] = []
        for member in status.members where member.lifecycle != .left && member.liveness != .down {
            guard let address = HostAndPort(member.admin, defaultPort: ClientOptions.defaultPort) else { continue }
            let candidate = Candidate(name: member.name, address: address)
            guard candidate != asked else { continue }
            if member.name == task.node { drained.append(candidate) } else { living.append(candidate) }
        }
        others = Array((living + drained).prefix(Self.candidatesMax))
    }
}
