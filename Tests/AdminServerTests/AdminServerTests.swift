import AdminServer
import ClusterCore
import HengeCommands
import Logging
import Testing

private func start(_ limits: AdminLimits = AdminLimits()) async throws -> (AdminServer, HostAndPort) {
    let server = try await AdminServer.start(
        on: HostAndPort(host: "127.0.0.1", port: 0),
        hostNames: ["n1"],
        version: "9.9",
        administration: FakeNode(),
        logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
        limits: limits
    )
    return (server, HostAndPort(host: "127.0.0.1", port: server.port))
}

private func get(
    _ target: String,
    from address: HostAndPort,
    headers: [(name: String, value: String)] = []
) async throws -> HTTPClient.Reply {
    try await HTTPClient.send(.init(method: "GET", target: target, headers: headers), to: address, milliseconds: 5000)
}

@Suite struct AdminServerTests {
    @Test func `requests are answered over a socket`() async throws {
        let (server, address) = try await start()
        let version = try await get("/version", from: address)
        #expect(version.status == 200)
        #expect(String(decoding: version.body, as: UTF8.self) == "{\"name\":\"henge\",\"version\":\"9.9\"}\n")
        #expect(!version.headers.contains { $0.name.lowercased().hasPrefix("access-control") })
        #expect(try await get("/version", from: address, headers: [("host", "evil.example")]).status == 421)
        #expect(try await get("/nothing", from: address).status == 404)
        let drain = try await HTTPClient.send(
            .init(method: "POST", target: "/v1/drain", body: Array("{\"node\":\"n3\"}".utf8)),
            to: address,
            milliseconds: 5000
        )
        #expect(drain.status == 202)
        await server.stop()
    }

    @Test func `a body beyond the limit is refused`() async throws {
        var limits = AdminLimits()
        limits.bodyBytesMax = 100
        let (server, address) = try await start(limits)
        let reply = try await HTTPClient.send(
            .init(method: "POST", target: "/v1/drain", body: [UInt8](repeating: 32, count: 101)),
            to: address,
            milliseconds: 5000
        )
        #expect(reply.status == 413)
        #expect(try await get("/livez", from: address).status == 200)
        await server.stop()
    }

    @Test func `connections beyond the limit are closed`() async throws {
        var limits = AdminLimits()
        limits.connectionsMax = 0
        let (server, address) = try await start(limits)
        await #expect(throws: HTTPClient.Failure.self) { try await get("/livez", from: address) }
        await server.stop()
    }

    @Test func `a stopped server does not listen, and may be stopped again`() async throws {
        let (server, address) = try await start()
        #expect(try await get("/livez", from: address).status == 200)
        await server.stop()
        await server.stop()
        await #expect(throws: HTTPClient.Failure.self) { try await get("/livez", from: address) }
    }

    @Test func `a request under way is answered while the server stops`() async throws {
        let node = GatedNode()
        let server = try await AdminServer.start(
            on: HostAndPort(host: "127.0.0.1", port: 0),
            hostNames: [],
            version: "9.9",
            administration: node,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        )
        let address = HostAndPort(host: "127.0.0.1", port: server.port)
        async let reply = get("/metrics", from: address)
        while await !node.isAsked { await Task.yield() }
        async let stopped: Void = server.stop(graceSeconds: 60)
        while (try? await get("/livez", from: address)) != nil {}
        await node.open()
        #expect(try await reply.status == 200)
        await stopped
    }

    @Test func `a port in use is told in words`() async throws {
        let (server, address) = try await start()
        do {
            _ = try await AdminServer.start(
                on: address,
                hostNames: [],
                version: "9.9",
                administration: FakeNode(),
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            )
            Issue.record("a second server listens on \(address)")
        } catch {
            #expect("\(error)" == "cannot listen on \(address) for the admin port: Address already in use")
        }
        await server.stop()
    }
}

/// A node whose metrics wait until it is told to go on.
private actor GatedNode: NodeAdministration {
    private var waiting: CheckedContinuation<Void, Never>?

    var isAsked: Bool { waiting != nil }

    func open() { waiting?.resume() }

    func metrics() async -> String {
        await withCheckedContinuation { waiting = $0 }
        return "henge_up 1\n"
    }

    func status() async -> ClusterStatus { FakeNode.status() }
    func ring(key: String?) async -> RingReport { RingReport(hash: HexHash(0), members: []) }
    func drain(node: String, force: Bool) async throws(AdministrationError) -> TaskReport { throw .unknownNode(node) }
    func undrain(node: String) async throws(AdministrationError) -> TaskReport { throw .unknownNode(node) }
    func forget(node: String) async throws(AdministrationError) -> MembersReport { throw .unknownNode(node) }
    func form() async throws(AdministrationError) -> MembersReport { throw .unavailable("not now") }
    func keyRing() async throws(AdministrationError) -> KeyRingReport { throw .unavailable("not now") }
    func change(_ request: KeyRingRequest) async throws(AdministrationError) -> KeyRingReport {
        throw .unavailable("not now")
    }
    func releaseBrake() async throws(AdministrationError) -> BrakeReport { throw .unavailable("not now") }
    func examine() async throws(AdministrationError) -> DoctorReport { throw .unavailable("not now") }
    func events() async -> EventList { EventList(node: "n1", events: [], dropped: 0) }
    func liveness() async -> Bool { true }
    func readiness() async -> Readiness { Readiness(ready: true) }
}
