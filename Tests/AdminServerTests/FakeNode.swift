import AdminServer
import ClusterCore

/// A node that answers what it is told to.
struct FakeNode: NodeAdministration {
    var report = FakeNode.status()
    var isLive = true
    var ready = Readiness(ready: true)
    var refusal: AdministrationError?

    static func status() -> ClusterStatus {
        ClusterStatus(
            cluster: "prod",
            node: "n1",
            version: "9.9",
            ready: true,
            replicas: 1,
            partition: "safe",
            ring: RingSummary(
                hash: HexHash(0x7f3c_9a41),
                members: 3,
                slices: SliceCounts(total: 16384, settled: 15972, moving: 412, short: 0, unavailable: 0)
            ),
            members: [
                MemberStatus(
                    name: "n1",
                    id: NodeID(high: 1, low: 2),
                    generation: 7,
                    lifecycle: .up,
                    liveness: .alive,
                    client: "10.0.0.1:11211",
                    cluster: "10.0.0.1:11212",
                    admin: "10.0.0.1:11213",
                    zone: "r1",
                    weight: 1,
                    primaries: 5,
                    copies: 9,
                    items: 3,
                    bytes: 100,
                    memory: 1000
                )
            ],
            tasks: [TaskReport(id: "8c1f", kind: "drain", node: "n3", state: .running, done: 6, total: 10, bytes: 99)]
        )
    }

    func status() async -> ClusterStatus { report }

    func ring(key: String?) async -> RingReport {
        RingReport(
            hash: HexHash(3),
            members: [.init(name: "n1", primaries: .init(now: 1, wanted: 2), copies: .init(now: 3, wanted: 4))],
            placement: key.map {
                .init(key: $0, hash: HexHash(.max), slice: 9, epoch: 4, holder: "n1", successors: ["n2"], inSync: 2)
            }
        )
    }

    func drain(node: String, force: Bool) async throws(AdministrationError) -> TaskReport {
        if node != "n3" { throw .unknownNode(node) }
        if let refusal, !force { throw refusal }
        return TaskReport(id: "8c1f", kind: "drain", node: node, state: .running, done: 0, total: 10, bytes: 0)
    }

    func undrain(node: String) async throws(AdministrationError) -> TaskReport {
        if let refusal { throw refusal }
        return TaskReport(id: "8c1f", kind: "drain", node: node, state: .cancelled, done: 0, total: 10, bytes: 0)
    }

    func keyRing() async throws(AdministrationError) -> KeyRingReport {
        if let refusal { throw refusal }
        return KeyRingReport(node: "n1", keys: ["00000001"], members: [.init(name: "n1", living: true, keys: nil)])
    }

    func change(_ request: KeyRingRequest) async throws(AdministrationError) -> KeyRingReport {
        if let refusal { throw refusal }
        var report = try await keyRing()
        report.node = "\(request)"
        return report
    }

    func forget(node: String) async throws(AdministrationError) -> MembersReport {
        if node != "n3" { throw .unknownNode(node, members: ["n1", "n3"]) }
        if let refusal { throw refusal }
        return MembersReport(node: node, members: ["n1", "n2"])
    }

    func form() async throws(AdministrationError) -> MembersReport {
        if let refusal { throw refusal }
        return MembersReport(node: "n1", members: ["n1", "n2"])
    }

    func releaseBrake() async throws(AdministrationError) -> BrakeReport {
        if let refusal { throw refusal }
        return BrakeReport(told: ["n1", "n2"], unreachable: ["n4"])
    }

    func examine() async throws(AdministrationError) -> DoctorReport {
        if let refusal { throw refusal }
        return DoctorReport(
            node: "n1",
            settings: "replicas=1",
            members: [
                .init(
                    name: "n3",
                    cluster: "10.0.0.3:11212",
                    liveness: .suspect,
                    udpOut: .fails,
                    udpBack: .unknown,
                    tcpOut: .passes,
                    tcpBack: .unused,
                    clock: -7,
                    settings: nil
                )
            ],
            findings: [.init(check: "seed", member: nil, text: "t"), .init(check: "udp", member: "n3", text: "u")]
        )
    }

    func events() async -> EventList {
        EventList(
            node: "n1",
            events: [
                EventReport(number: 8, unixMilliseconds: 1_764_403_200_007, type: "down", member: "n3"),
                EventReport(number: 9, unixMilliseconds: 1_764_403_201_000, type: "stalled", detail: "for 9 ms"),
            ],
            dropped: 7
        )
    }

    func metrics() async -> String { "henge_up 1\n" }
    func liveness() async -> Bool { isLive }
    func readiness() async -> Readiness { ready }
}
