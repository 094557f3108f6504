import AdminServer
import ClusterCore
import Logging
import Settings
import Synchronization

@testable import HengeCommands

/// What a command wrote, and the settings it started a node with.
final class Recorder: Sendable {
    private struct State {
        var output = ""
        var complaints = ""
        var started: NodeSettings?
    }

    private let state = Mutex(State())

    var output: String { state.withLock { $0.output } }
    var complaints: String { state.withLock { $0.complaints } }
    var started: NodeSettings? { state.withLock { $0.started } }

    func context(
        environment: [String: String] = [:],
        files: [String: String] = [:],
        answer: String? = nil,
        terminal: Bool = false,
        failure: CommandError? = nil
    ) -> CommandContext {
        var context = CommandContext(
            version: "9.9",
            environment: environment,
            host: HostFacts(name: "host1", processors: 2, isRoot: true),
            output: { text in self.state.withLock { $0.output += text } },
            complain: { text in self.state.withLock { $0.complaints += text } },
            readAnswer: { answer },
            isInputTerminal: terminal,
            isOutputTerminal: terminal,
            readFile: { path, _ in
                guard let text = files[path] else { throw CommandError(.usage, "cannot read \(path): no such file") }
                return text
            },
            start: { settings in
                if let failure { throw failure }
                self.state.withLock { $0.started = settings }
            }
        )
        context.pollMilliseconds = 1
        context.reportMilliseconds = 0
        return context
    }
}

/// Runs a command; returns its exit code.
func run(_ line: String, _ context: CommandContext) async -> Int32 {
    await HengeProgram.run(line.split(separator: " ").map(String.init), in: context)
}

func member(
    _ name: String,
    _ lifecycle: MemberStatus.Lifecycle = .up,
    _ liveness: MemberStatus.Liveness = .alive,
    admin: String = "127.0.0.1:1"
) -> MemberStatus {
    MemberStatus(
        name: name,
        id: NodeID(high: 0, low: UInt64(name.utf8.last ?? 0)),
        generation: 1,
        lifecycle: lifecycle,
        liveness: liveness,
        client: "10.0.0.1:11211",
        cluster: "10.0.0.1:11212",
        admin: admin,
        zone: "",
        weight: 1,
        primaries: lifecycle == .up ? 8192 : 0,
        copies: 16384,
        items: 158_214,
        bytes: 883_000_000,
        memory: 2 << 30
    )
}

func drainTask(
    _ done: Int,
    of total: Int = 100,
    _ state: TaskReport.State = .running,
    blocked: String? = nil
) -> TaskReport {
    TaskReport(
        id: "8c1f",
        kind: "drain",
        node: "n3",
        state: state,
        done: done,
        total: total,
        bytes: done << 20,
        blocked: blocked
    )
}

func cluster(
    _ node: String = "n1",
    _ members: [MemberStatus],
    tasks: [TaskReport] = [],
    settled: Int = 16384,
    name: String = "prod"
) -> ClusterStatus {
    ClusterStatus(
        cluster: name,
        node: node,
        version: "9.9",
        ready: true,
        replicas: 1,
        partition: "safe",
        ring: RingSummary(
            hash: HexHash(0x7f3c_9a41_0000_0001),
            members: 3,
            slices: SliceCounts(total: 16384, settled: settled, moving: 16384 - settled, short: 0, unavailable: 0)
        ),
        members: members,
        tasks: tasks
    )
}

let sampleEvents = EventList(
    node: "n1",
    events: [
        EventReport(number: 8, unixMilliseconds: 1_764_403_200_007, type: "suspected", member: "n3", detail: "by n2"),
        EventReport(number: 9, unixMilliseconds: 1_764_403_201_900, type: "down", member: "n\u{1b}3"),
        EventReport(number: 10, unixMilliseconds: 1_764_403_202_000, type: "stalled", detail: "stood still for 900 ms"),
    ],
    dropped: 7
)

/// A node that plays statuses one after the other; the last one stays.
actor ScriptedNode: NodeAdministration {
    private var script: [ClusterStatus]
    private let answer: Result<TaskReport, AdministrationError>
    /// Why it forgets nobody; nil where it does.
    private let objection: AdministrationError?
    /// Whom it was told to forget.
    private(set) var forgotten: [String] = []
    /// How often it was told to form a cluster.
    private(set) var formations = 0
    /// The cluster's keys; changes reach all members at once.
    private(set) var keys = KeyRingReport(
        node: "n1",
        keys: ["aaaaaaaa"],
        members: ["n1", "n2", "n3"].map { .init(name: $0, living: $0 != "n3", keys: ["aaaaaaaa"]) }
    )
    /// What it answers to the word that brakes are to be released.
    private let brakes: BrakeReport
    /// What its examination shows.
    private let examination: DoctorReport

    init(
        _ script: [ClusterStatus],
        drain answer: Result<TaskReport, AdministrationError> = .success(drainTask(0)),
        objection: AdministrationError? = nil,
        brakes: BrakeReport = BrakeReport(told: ["n1"], unreachable: []),
        examination: DoctorReport = DoctorReport(node: "n1", settings: "", members: [], findings: [])
    ) {
        self.script = script
        self.answer = answer
        self.objection = objection
        self.brakes = brakes
        self.examination = examination
    }

    func status() async -> ClusterStatus { script.count > 1 ? script.removeFirst() : script[0] }

    func ring(key: String?) async -> RingReport {
        RingReport(
            hash: HexHash(1),
            members: [.init(name: "n1", primaries: .init(now: 7157, wanted: 8192), copies: .init(now: 3, wanted: 3))],
            placement: key.map {
                .init(key: $0, hash: HexHash(2), slice: 9731, epoch: 41, holder: "n2", successors: ["n3"], inSync: 2)
            }
        )
    }

    func drain(node: String, force: Bool) async throws(AdministrationError) -> TaskReport { try answer.get() }
    func undrain(node: String) async throws(AdministrationError) -> TaskReport { drainTask(5, .cancelled) }
    func forget(node: String) async throws(AdministrationError) -> MembersReport {
        if let objection { throw objection }
        forgotten.append(node)
        return MembersReport(node: node, members: ["n1", "n2"])
    }

    func form() async throws(AdministrationError) -> MembersReport {
        if let objection { throw objection }
        formations += 1
        return MembersReport(node: "n1", members: ["n1"])
    }

    func keyRing() async throws(AdministrationError) -> KeyRingReport {
        if let objection { throw objection }
        return keys
    }

    func change(_ request: KeyRingRequest) async throws(AdministrationError) -> KeyRingReport {
        if let objection { throw objection }
        switch request {
        case .install: keys.keys.append("bbbbbbbb")
        case .use(let id, _): keys.keys = [id] + keys.keys.filter { $0 != id }
        case .remove(let id, _): keys.keys.removeAll { $0 == id }
        }
        for index in keys.members.indices where keys.members[index].living || isAwayTold {
            keys.members[index].keys = keys.keys
        }
        return keys
    }

    /// Whether members that are down follow as well.
    var isAwayTold = false
    func tellAll() { isAwayTold = true }

    func releaseBrake() async throws(AdministrationError) -> BrakeReport { brakes }
    func examine() async throws(AdministrationError) -> DoctorReport {
        if let objection { throw objection }
        return examination
    }

    func events() async -> EventList { sampleEvents }
    func metrics() async -> String { "" }
    func liveness() async -> Bool { true }
    func readiness() async -> Readiness { Readiness(ready: true) }
}

/// An admin port in front of a node for the time of a test.
func serving<Result>(
    _ node: ScriptedNode,
    _ body: (_ address: String, _ server: AdminServer) async throws -> Result
) async throws -> Result {
    let server = try await AdminServer.start(
        on: HostAndPort(host: "127.0.0.1", port: 0),
        hostNames: [],
        version: "9.9",
        administration: node,
        logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    )
    let result = try await body("127.0.0.1:\(server.port)", server)
    await server.stop()
    return result
}
