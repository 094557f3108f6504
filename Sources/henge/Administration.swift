import AdminServer
import CacheNode
import ClusterCore
import Foundation
import Membership
import NodeRuntime
import PeerProtocol
import Replication
import Sealing
import Settings
import Synchronization

/// The admin port's view of a node.
final class Administration: NodeAdministration {
    private let node: Node
    private let settings: NodeSettings
    private let state = Mutex(State())

    private struct State {
        var hasEnded = false
        var wasSeenSince = false
    }

    init(node: Node, settings: NodeSettings) {
        self.node = node
        self.settings = settings
    }

    /// After a drain, whoever follows it gets the last status; waits at most 3 s for that.
    func waitForLastLook() async {
        let wasDrained = await node.snapshot()?.drains.contains { $0.state == .done } ?? false
        guard wasDrained else { return }
        state.withLock { $0.hasEnded = true }
        for _ in 0..<60 {
            if state.withLock({ $0.wasSeenSince }) { return }
            try? await Task.sleep(nanoseconds: 50_000_000)
        }
    }

    func status() async -> ClusterStatus {
        let snapshot = await node.snapshot()
        state.withLock { if $0.hasEnded { $0.wasSeenSince = true } }
        let members = snapshot?.members.map { MemberStatus($0) } ?? []
        return ClusterStatus(
            cluster: settings.clusterName,
            node: settings.name,
            version: Main.version,
            ready: snapshot?.isReady ?? false,
            replicas: settings.replicas,
            partition: settings.partition == .auto
                ? (snapshot?.isSafe == true ? "safe" : "available") : settings.partition.rawValue,
            ring: RingSummary(
                hash: HexHash(snapshot?.ringHash ?? 0),
                members: snapshot?.ringSize ?? 0,
                slices: SliceCounts(
                    total: Slice.count,
                    settled: snapshot?.settled ?? 0,
                    moving: snapshot?.moving ?? 0,
                    short: snapshot?.short ?? 0,
                    unavailable: snapshot?.unavailable ?? 0
                ),
                brake: snapshot?.brake.map { brake in
                    BrakeStatus(
                        lost: brake.lost,
                        members: brake.ringSize,
                        left: snapshot?.brakeLeftMilliseconds.map { Int($0) }
                    )
                }
            ),
            members: members,
            tasks: snapshot.map { tasks($0) } ?? []
        )
    }

    private func tasks(_ snapshot: ClusterSnapshot) -> [TaskReport] {
        var tasks: [TaskReport] = []
        let ownBytes = snapshot.members.first { $0.isOwn }?.report.sentBytes ?? 0
        for drain in snapshot.drains {
            tasks.append(
                TaskReport(
                    id: drain.id,
                    kind: "drain",
                    node: drain.node,
                    state: TaskReport.State(drain.state),
                    done: drain.total - drain.left,
                    total: drain.total,
                    bytes: drain.state == .running ? Int(ownBytes) : Int(drain.sentBytesBefore),
                    blocked: drain.blocked.isEmpty ? nil : drain.blocked
                )
            )
        }
        for member in snapshot.members
        where !member.isOwn && member.record.lifecycle == .draining && member.report.drainTotal > 0 {
            tasks.append(
                TaskReport(
                    id: "drain-" + member.record.name,
                    kind: "drain",
                    node: member.record.name,
                    state: .running,
                    done: Int(member.report.drainTotal) - Int(member.report.drainLeft),
                    total: Int(member.report.drainTotal),
                    bytes: Int(member.report.sentBytes),
                    blocked: member.report.blocked.isEmpty ? nil : member.report.blocked
                )
            )
        }
        return tasks
    }

    func ring(key: String?) async -> RingReport {
        let snapshot = await node.snapshot()
        var placement: RingReport.Placement?
        if let key, let found = await node.placement(of: key) {
            placement = RingReport.Placement(
                key: key,
                hash: HexHash(found.hash),
                slice: found.slice,
                epoch: UInt64(found.epoch),
                holder: found.holder,
                successors: found.successors,
                inSync: found.inSync
            )
        }
        return RingReport(
            hash: HexHash(snapshot?.ringHash ?? 0),
            members: (snapshot?.members ?? []).map {
                RingReport.Member(
                    name: $0.record.name,
                    primaries: RingReport.Share(now: Int($0.report.primaries), wanted: $0.wantedPrimaries),
                    copies: RingReport.Share(now: Int($0.report.copies), wanted: $0.wantedCopies)
                )
            },
            placement: placement
        )
    }

    func drain(node name: String, force: Bool) async throws(AdministrationError) -> TaskReport {
        try await order(force ? .drainByForce : .drain, name)
        return await task(of: name)
    }

    func undrain(node name: String) async throws(AdministrationError) -> TaskReport {
        let before = await task(of: name)
        try await order(.undrain, name)
        var task = before
        task.state = .cancelled
        return task
    }

    private func order(_ order: NodeOrder, _ name: String) async throws(AdministrationError) {
        switch await node.order(order, node: name) {
        case .accepted: return
        case .unknownNode: throw .unknownNode(name, members: await memberNames())
        case .refused(let reason): throw .refused(check: order == .undrain ? "state" : "copies", detail: reason)
        }
    }

    func forget(node name: String) async throws(AdministrationError) -> MembersReport {
        switch await node.forget(node: name) {
        case .accepted: return MembersReport(node: name, members: await memberNames())
        case .unknownNode: throw .unknownNode(name, members: await memberNames())
        case .refused(let reason): throw .refused(check: "liveness", detail: reason)
        }
    }

    func form() async throws(AdministrationError) -> MembersReport {
        switch await node.form() {
        case .accepted: return MembersReport(node: settings.name, members: await memberNames())
        case .unknownNode: throw .unknownNode(settings.name)
        case .refused(let reason): throw .refused(check: "cluster", detail: reason)
        }
    }

    func keyRing() async throws(AdministrationError) -> KeyRingReport {
        guard let ring = await node.snapshot()?.keyRing else {
            throw .refused(check: "key", detail: "the cluster has no key: start all its nodes with --cluster-key-file")
        }
        return KeyRingReport(
            node: settings.name,
            keys: ring.keys.map(\.description),
            members: ring.members.map {
                KeyRingReport.Member(name: $0.name, living: $0.isLiving, keys: $0.keys?.map(\.description))
            }
        )
    }

    func change(_ request: KeyRingRequest) async throws(AdministrationError) -> KeyRingReport {
        func id(_ text: String) throws(AdministrationError) -> ClusterKeyID {
            guard let id = ClusterKeyID(text) else {
                throw .refused(check: "key", detail: "'\(text)' is no key's id, which has 8 hexadecimal digits")
            }
            return id
        }
        let change: KeyRingChange
        switch request {
        case .install(nil):
            var random = SystemRandomNumberGenerator()
            change = .install(ClusterKey(using: &random))
        case .install(let text?):
            guard let key = ClusterKeyText.key(text) else {
                throw .refused(check: "key", detail: "a cluster key is 32 bytes in base64")
            }
            change = .install(key)
        case .use(let text, let force): change = .use(try id(text), isForced: force)
        case .remove(let text, let force): change = .remove(try id(text), isForced: force)
        }
        switch await node.change(change) {
        case .accepted, .unknownNode: return try await keyRing()
        case .refused(let reason): throw .refused(check: "key", detail: reason)
        }
    }

    func releaseBrake() async throws(AdministrationError) -> BrakeReport {
        let release = await node.releaseBrake()
        if release.told.isEmpty { throw .unavailable("the node has stopped") }
        return BrakeReport(told: release.told, unreachable: release.unreachable)
    }

    func examine() async throws(AdministrationError) -> DoctorReport {
        guard let examination = await node.examine() else { throw .unavailable("the node has stopped") }
        var findings = examination.findings.map {
            DoctorReport.Finding(check: $0.check.rawValue, member: $0.member, text: $0.text)
        }
        if examination.seeking != nil, let text = refusals() {
            findings.append(DoctorReport.Finding(check: ExaminationFinding.Check.key.rawValue, member: nil, text: text))
        }
        return DoctorReport(
            node: settings.name,
            settings: examination.settings,
            members: examination.members.map { member in
                DoctorReport.Member(
                    name: member.record.name,
                    cluster: member.record.cluster.description,
                    liveness: MemberStatus.liveness(of: member.record),
                    udpOut: DoctorReport.Way(examination.udpOut(member)),
                    udpBack: DoctorReport.Way(examination.udpBack(member)),
                    tcpOut: DoctorReport.Way(member.tcpOut),
                    tcpBack: DoctorReport.Way(member.tcpBack),
                    clock: member.clockMilliseconds.map { Int($0) },
                    settings: examination.hasEqualSettings(member)
                )
            },
            findings: findings
        )
    }

    /// For a node that finds no cluster: what it refused since its start because keys, or names of clusters, differ.
    private func refusals() -> String? {
        var counts: [(cause: SealingRefusal, count: UInt64)] = []
        for cause in [SealingRefusal.unknownKey, .plain, .foreignCluster] {
            let figures = node.shared.sealingFigures
            let count = (figures?.gossip.refused[cause] ?? 0) + (figures?.connectionsRefused[cause] ?? 0)
            if count > 0 { counts.append((cause, count)) }
        }
        guard !counts.isEmpty else { return nil }
        let text = counts.map { "\($0.count) \($0.cause.rawValue)" }.joined(separator: ", ")
        return "others' packets and connections were refused here since the start (\(text)): give all nodes of the "
            + "cluster one key, or none, and one --cluster-name"
    }

    private func memberNames() async -> [String] {
        await node.snapshot()?.members.map(\.record.name) ?? []
    }

    /// The running drain of a node. Its figures arrive with the node's next ping; until then nothing is done.
    private func task(of name: String) async -> TaskReport {
        let all = await node.snapshot().map { tasks($0) } ?? []
        let known = all.last { $0.node == name && $0.state == .running }
        return known
            ?? TaskReport(id: "drain-" + name, kind: "drain", node: name, state: .running, done: 0, total: 0, bytes: 0)
    }

    func events() async -> EventList {
        let snapshot = await node.snapshot()
        // The accuser of a suspect is known by its id; names are for people.
        let names = snapshot?.members.map { ($0.record.id, $0.record.name) } ?? []
        let reports = snapshot?.journal.entries.map { entry in
            EventReport(entry) { id in names.first { $0.0 == id }?.1 ?? "\(id)" }
        }
        return EventList(node: settings.name, events: reports ?? [], dropped: snapshot?.journal.dropped ?? 0)
    }

    func metrics() async -> String {
        guard let snapshot = await node.snapshot() else { return "" }
        return Metrics.text(snapshot, node.shared, settings)
    }

    func liveness() async -> Bool { await node.isLively() }

    func readiness() async -> Readiness {
        guard let snapshot = await node.snapshot() else { return Readiness(ready: false, reasons: ["stopped"]) }
        return Readiness(ready: snapshot.isReady, reasons: snapshot.notReadyBecause)
    }
}

extension DoctorReport.Way {
    init(_ way: ExaminedWay) {
        self =
            switch way {
            case .passes: .passes
            case .fails: .fails
            case .unknown: .unknown
            case .unused: .unused
            }
    }
}

extension MemberStatus {
    static func liveness(of record: MemberRecord) -> Liveness {
        switch record.liveness {
        case .alive: .alive
        case .suspect: .suspect
        case .down, .forgotten: .down
        }
    }

    init(_ member: MemberView) {
        let record = member.record
        let lifecycle: Lifecycle =
            switch record.lifecycle {
            case .joining: .joining
            case .up: .up
            case .draining: .draining
            case .left: .left
            }
        let liveness = Self.liveness(of: record)
        self.init(
            name: record.name,
            id: record.id,
            generation: record.generation,
            lifecycle: lifecycle,
            liveness: member.isOwn ? .alive : liveness,
            damped: record.isDamped,
            client: record.client.description,
            cluster: record.cluster.description,
            admin: record.admin.description,
            zone: record.zone,
            weight: Double(record.weight) / 1000,
            primaries: Int(member.report.primaries),
            copies: Int(member.report.copies),
            items: Int(member.report.items),
            bytes: Int(member.report.bytes),
            memory: Int(record.memoryBytes)
        )
    }
}

extension EventReport {
    init(_ entry: MembershipJournal.Entry, nameOf: (NodeID) -> String) {
        var member: String?
        var detail: String?
        switch entry.event {
        case .joined(let record):
            member = record.name
            detail = "generation \(record.generation) at \(record.cluster)"
        case .suspected(_, let name, let accuser):
            member = name
            detail = accuser.map { "by \(nameOf($0))" }
        case .refuted(_, let name), .down(_, let name), .left(_, let name), .forgotten(_, let name),
            .damped(_, let name), .undamped(_, let name):
            member = name
        case .braked(let lost, let ringSize):
            detail =
                lost.isEmpty ? "this node is not well" : "\(lost.joined(separator: ", ")) of \(ringSize) went at once"
        case .brakeEnded(let end): detail = "\(end)"
        case .refutedOwn(let liveness): detail = "this node was called \(liveness)"
        case .rejectedCluster(let name, let endpoint): detail = "cluster \(name) at \(endpoint)"
        case .rejectedName(let name, let endpoint): detail = "name \(name) at \(endpoint) is taken"
        case .configurationDiffers(let name, let endpoint, let difference):
            detail = "\(name) at \(endpoint): \(difference)"
        case .datagramsBlocked(let name, let endpoint), .datagramsPass(let name, let endpoint):
            member = name
            detail = "at \(endpoint)"
        case .stalled(let milliseconds): detail = "stood still for \(milliseconds) ms"
        case .keysChanged(let ids):
            detail = "seals with " + ids.replacing(" ", with: ", opens with ", maxReplacements: 1)
        }
        self.init(
            number: entry.number,
            unixMilliseconds: entry.unixMilliseconds,
            type: entry.event.kind.rawValue,
            member: member,
            detail: detail
        )
    }
}

extension TaskReport.State {
    init(_ state: DrainTask.State) {
        self =
            switch state {
            case .running: .running
            case .done: .done
            case .failed: .failed
            case .cancelled: .cancelled
            }
    }
}
