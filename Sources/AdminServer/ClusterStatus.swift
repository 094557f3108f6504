public import ClusterCore

/// The cluster as one node sees it: the answer to `GET /v1/status`. Names and meanings stay as they are within v1.
package struct ClusterStatus: Codable, Hashable, Sendable {
    /// The cluster's name.
    package var cluster: String
    /// The name of the node that answers.
    package var node: String
    /// The version of the answering node's program.
    package var version: String
    /// Whether the answering node may serve clients.
    package var ready: Bool
    /// Copies of every item beyond the first.
    package var replicas: Int
    /// The partition policy in force: `auto`, `safe` or `available`.
    package var partition: String
    package var ring: RingSummary
    /// Sorted by name.
    package var members: [MemberStatus]
    /// Running ones and the last that ended.
    package var tasks: [TaskReport]

    package init(
        cluster: String,
        node: String,
        version: String,
        ready: Bool,
        replicas: Int,
        partition: String,
        ring: RingSummary,
        members: [MemberStatus],
        tasks: [TaskReport]
    ) {
        self.cluster = cluster
        self.node = node
        self.version = version
        self.ready = ready
        self.replicas = replicas
        self.partition = partition
        self.ring = ring
        self.members = members
        self.tasks = tasks
    }

    /// Whether something is missing: a copy, a slice, a member. What merely moves is planned.
    package var isDegraded: Bool {
        ring.slices.short > 0 || ring.slices.unavailable > 0
            || members.contains { $0.lifecycle != .left && $0.liveness != .alive }
    }

    /// Whether nothing is missing, nothing moves, and everybody has arrived.
    package var isSettled: Bool {
        !isDegraded && ring.slices.settled == ring.slices.total
            && members.allSatisfy { ($0.lifecycle == .up && !$0.damped) || $0.lifecycle == .left }
    }
}

/// The ring in a few numbers.
package struct RingSummary: Codable, Hashable, Sendable {
    /// Equal on nodes that see the same ring.
    package var hash: HexHash
    /// How many members it has; not those that are damped, and for a moment not those whose change waits for others.
    package var members: Int
    package var slices: SliceCounts
    /// Why the answering node takes nobody out of the ring for now; nil where it does.
    package var brake: BrakeStatus?

    package init(hash: HexHash, members: Int, slices: SliceCounts, brake: BrakeStatus? = nil) {
        self.hash = hash
        self.members = members
        self.slices = slices
        self.brake = brake
    }
}

/// The brake on removals from the ring, while it is on.
package struct BrakeStatus: Codable, Hashable, Sendable {
    /// Members that went together, by name; none where the node that answers doubts its own view.
    package var lost: [String]
    /// How many members the ring has.
    package var members: Int
    /// Milliseconds until it ends by itself; nil while it stops nobody's removal.
    package var left: Int?

    package init(lost: [String], members: Int, left: Int?) {
        self.lost = lost
        self.members = members
        self.left = left
    }
}

/// Slices by their condition; one can be in several.
package struct SliceCounts: Codable, Hashable, Sendable {
    package var total: Int
    /// Held by whom the ring wants, with all copies in sync.
    package var settled: Int
    /// On their way to another holder or successor.
    package var moving: Int
    /// With fewer copies in sync than wanted.
    package var short: Int
    /// Without a holder.
    package var unavailable: Int

    package init(total: Int, settled: Int, moving: Int, short: Int, unavailable: Int) {
        self.total = total
        self.settled = settled
        self.moving = moving
        self.short = short
        self.unavailable = unavailable
    }
}

/// One member.
package struct MemberStatus: Codable, Hashable, Sendable {
    /// What the member says of itself.
    package enum Lifecycle: String, Codable, CaseIterable, Hashable, Sendable {
        case joining
        case up
        case draining
        case left
    }

    /// What others say of it.
    package enum Liveness: String, Codable, CaseIterable, Hashable, Sendable {
        case alive
        case suspect
        case down
    }

    package var name: String
    package var id: NodeID
    package var generation: UInt64
    package var lifecycle: Lifecycle
    package var liveness: Liveness
    /// It came back after it was given up, and stays out of the ring for a while.
    package var damped: Bool
    /// Where its clients connect, `ADDRESS:PORT`.
    package var client: String
    /// Where other nodes connect.
    package var cluster: String
    /// Where its admin port is.
    package var admin: String
    package var zone: String
    /// Relative to others; 1.0 is the default.
    package var weight: Double
    /// Slices that it holds.
    package var primaries: Int
    /// Slices of which it has a copy, its own included.
    package var copies: Int
    package var items: Int
    /// Bytes in use.
    package var bytes: Int
    /// Bytes that it may use.
    package var memory: Int

    package init(
        name: String,
        id: NodeID,
        generation: UInt64,
        lifecycle: Lifecycle,
        liveness: Liveness,
        damped: Bool = false,
        client: String,
        cluster: String,
        admin: String,
        zone: String,
        weight: Double,
        primaries: Int,
        copies: Int,
        items: Int,
        bytes: Int,
        memory: Int
    ) {
        self.name = name
        self.id = id
        self.generation = generation
        self.lifecycle = lifecycle
        self.liveness = liveness
        self.damped = damped
        self.client = client
        self.cluster = cluster
        self.admin = admin
        self.zone = zone
        self.weight = weight
        self.primaries = primaries
        self.copies = copies
        self.items = items
        self.bytes = bytes
        self.memory = memory
    }
}

/// Something long that the cluster does: a drain.
package struct TaskReport: Codable, Hashable, Sendable {
    /// How a task stands. All but `running` are final.
    package enum State: String, Codable, CaseIterable, Hashable, Sendable {
        case running
        case done
        case failed
        case cancelled
    }

    package var id: String
    /// `drain`.
    package var kind: String
    /// The name of the node that it is about.
    package var node: String
    package var state: State
    /// Copies that are where they belong.
    package var done: Int
    /// Copies in all.
    package var total: Int
    /// Bytes moved.
    package var bytes: Int
    /// What keeps it from going on, or why it failed; nil where nothing does.
    package var blocked: String?

    package init(
        id: String,
        kind: String,
        node: String,
        state: State,
        done: Int,
        total: Int,
        bytes: Int,
        blocked: String? = nil
    ) {
        self.id = id
        self.kind = kind
        self.node = node
        self.state = state
        self.done = done
        self.total = total
        self.bytes = bytes
        self.blocked = blocked
    }
}

/// Tasks: the answer to `GET /v1/tasks`.
package struct TaskList: Codable, Hashable, Sendable {
    package var tasks: [TaskReport]

    package init(tasks: [TaskReport]) {
        self.tasks = tasks
    }
}

/// Who is a member after an operator's word: the answer to `POST /v1/forget` and `POST /v1/form`.
package struct MembersReport: Codable, Hashable, Sendable {
    /// Who was forgotten, as it was named in the request, or who formed the cluster.
    package var node: String
    /// The names of all members now, sorted.
    package var members: [String]

    package init(node: String, members: [String]) {
        self.node = node
        self.members = members
    }
}

/// Who takes members that are down out of the ring again: the answer to `POST /v1/brake/release`.
package struct BrakeReport: Codable, Hashable, Sendable {
    /// The names of members that were told, sorted.
    package var told: [String]
    /// The names of living members that the asked node cannot reach, sorted.
    package var unreachable: [String]

    package init(told: [String], unreachable: [String]) {
        self.told = told
        self.unreachable = unreachable
    }
}

/// A 64-bit hash, written as 16 hexadecimal digits: numbers beyond 2^53 do not survive every JSON parser.
package struct HexHash: Codable, Hashable, Sendable, CustomStringConvertible {
    package var value: UInt64

    package init(_ value: UInt64) {
        self.value = value
    }

    package var description: String { hexadecimal(value) }

    package init(from decoder: any Decoder) throws {
        let text = try decoder.singleValueContainer().decode(String.self)
        guard text.utf8.count == 16, let value = UInt64(text, radix: 16) else {
            throw DecodingError.dataCorrupted(
                .init(codingPath: decoder.codingPath, debugDescription: "'\(text)' is not 16 hexadecimal digits")
            )
        }
        self.value = value
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// Written as 32 hexadecimal digits.
extension NodeID: Codable {
    public init(from decoder: any Decoder) throws {
        let text = try decoder.singleValueContainer().decode(String.self)
        guard let id = NodeID(text) else {
            throw DecodingError.dataCorrupted(
                .init(codingPath: decoder.codingPath, debugDescription: "'\(text)' is not 32 hexadecimal digits")
            )
        }
        self = id
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
