import ClusterCore
import Foundation
import Testing

@testable import AdminServer

private func ask(
    _ method: String,
    _ target: String,
    node: FakeNode = FakeNode(),
    host: String? = "127.0.0.1:11213",
    type: String? = nil,
    body: String = ""
) async -> AdminResponse {
    let router = AdminRouter(administration: node, version: "9.9", hostNames: ["n1", "Host.Example"])
    return await router.respond(
        to: AdminRequest(method: method, target: target, host: host, contentType: type, body: Array(body.utf8))
    )
}

private func text(_ response: AdminResponse) -> String { String(decoding: response.body, as: UTF8.self) }

@Suite struct AdminRouterTests {
    @Test func `the status has these names and forms`() async throws {
        let response = await ask("GET", "/v1/status")
        #expect(response.status == 200 && response.contentType == "application/json")
        #expect(
            text(response) == """
                {"cluster":"prod","members":[{"admin":"10.0.0.1:11213","bytes":100,"client":"10.0.0.1:11211",\
                "cluster":"10.0.0.1:11212","copies":9,"damped":false,"generation":7,"id":"00000000000000010000000000000002",\
                "items":3,"lifecycle":"up","liveness":"alive","memory":1000,"name":"n1","primaries":5,"weight":1,"zone":"r1"}],\
                "node":"n1","partition":"safe","ready":true,"replicas":1,"ring":{"hash":"000000007f3c9a41","members":3,\
                "slices":{"moving":412,"settled":15972,"short":0,"total":16384,"unavailable":0}},"tasks":[{"bytes":99,"done":6,\
                "id":"8c1f","kind":"drain","node":"n3","state":"running","total":10}],"version":"9.9"}

                """
        )
        let back = try JSONDecoder().decode(ClusterStatus.self, from: Data(response.body))
        #expect(back == FakeNode.status())
    }

    @Test func `health routes tell by status`() async {
        var node = FakeNode()
        #expect(await ask("GET", "/livez", node: node).status == 200)
        #expect(await ask("GET", "/readyz", node: node).status == 200)
        node.isLive = false
        node.ready = Readiness(ready: false, reasons: ["no serving lease", "learning 5 slices"])
        #expect(await ask("GET", "/livez", node: node).status == 503)
        let plain = await ask("GET", "/readyz", node: node)
        #expect(plain.status == 503 && text(plain) == "not ready\n")
        let verbose = await ask("GET", "/readyz?verbose", node: node)
        #expect(text(verbose) == "not ready\nno serving lease\nlearning 5 slices\n")
    }

    @Test func `metrics, version and tasks`() async {
        let metrics = await ask("GET", "/metrics")
        #expect(text(metrics) == "henge_up 1\n" && metrics.contentType.hasPrefix("text/plain; version=0.0.4"))
        #expect(text(await ask("GET", "/version")) == "{\"name\":\"henge\",\"version\":\"9.9\"}\n")
        #expect(text(await ask("GET", "/v1/tasks")).hasPrefix("{\"tasks\":[{\"bytes\":99"))
    }

    @Test func `a key's place, percent-decoded`() async throws {
        let response = await ask("GET", "/v1/ring?key=user%3A42%20+%C3%A9%2B")
        let report = try JSONDecoder().decode(RingReport.self, from: Data(response.body))
        #expect(report.placement?.key == "user:42  é+")
        #expect(text(response).contains("\"hash\":\"ffffffffffffffff\""))
        #expect(!text(await ask("GET", "/v1/ring")).contains("placement"))
        for bad in ["key", "key=", "key=%ff", "key=" + String(repeating: "a", count: 251)] {
            #expect(await ask("GET", "/v1/ring?" + bad).status == 400, "\(bad)")
        }
    }

    @Test func `a drain begins, and errors are problem documents`() async throws {
        let body = "{\"node\":\"n3\",\"force\":false}"
        let json = "application/json; charset=utf-8"
        #expect(await ask("POST", "/v1/drain", type: json, body: body).status == 202)
        let unknown = await ask("POST", "/v1/drain", type: json, body: "{\"node\":\"n9\"}")
        #expect(unknown.status == 404 && unknown.contentType == "application/problem+json")
        var node = FakeNode()
        node.refusal = .refused(check: "copies", detail: "1 node would remain, 2 copies are wanted")
        let refused = await ask("POST", "/v1/drain", node: node, type: json, body: body)
        let problem = try JSONDecoder().decode(ProblemDocument.self, from: Data(refused.body))
        #expect(
            problem
                == ProblemDocument(
                    "refused",
                    title: "Refused by a safety check",
                    status: 409,
                    detail: "1 node would remain, 2 copies are wanted",
                    check: "copies"
                )
        )
        let forced = "{\"node\":\"n3\",\"force\":true}"
        #expect(await ask("POST", "/v1/drain", node: node, type: json, body: forced).status == 202)
        node.refusal = .unavailable("no lease")
        #expect(await ask("POST", "/v1/undrain", node: node, type: json, body: body).status == 503)
        #expect(await ask("POST", "/v1/undrain", type: json, body: body).status == 200)
    }

    @Test func `a member is forgotten, and errors say whom there is and what speaks against it`() async throws {
        let body = "{\"node\":\"n3\"}"
        let json = "application/json"
        let done = await ask("POST", "/v1/forget", type: json, body: body)
        #expect(done.status == 200 && text(done) == "{\"members\":[\"n1\",\"n2\"],\"node\":\"n3\"}\n")
        let unknown = await ask("POST", "/v1/forget", type: json, body: "{\"node\":\"n9\"}")
        let problem = try JSONDecoder().decode(ProblemDocument.self, from: Data(unknown.body))
        #expect(unknown.status == 404)
        #expect(problem.detail == "no member is called 'n9' or has that address; there are n1, n3")
        var node = FakeNode()
        node.refusal = .refused(check: "liveness", detail: "n3 is alive")
        #expect(await ask("POST", "/v1/forget", node: node, type: json, body: body).status == 409)
        #expect(await ask("POST", "/v1/forget", body: body).status == 415)
        #expect(await ask("GET", "/v1/forget").allow == "POST")
    }

    @Test func `a cluster is formed, but not for a page in a browser`() async {
        let json = "application/json"
        let done = await ask("POST", "/v1/form", type: json, body: "{}")
        #expect(done.status == 200 && text(done) == "{\"members\":[\"n1\",\"n2\"],\"node\":\"n1\"}\n")
        var node = FakeNode()
        node.refusal = .refused(check: "cluster", detail: "n1 is part of a cluster already")
        #expect(await ask("POST", "/v1/form", node: node, type: json, body: "{}").status == 409)
        #expect(await ask("POST", "/v1/form", type: "text/plain", body: "{}").status == 415)
        #expect(await ask("GET", "/v1/form").allow == "POST")
    }

    @Test func `keys are changed by id, and a wrong body is named`() async {
        let json = "application/json"
        let list = await ask("GET", "/v1/keyring")
        #expect(
            text(list)
                == "{\"keys\":[\"00000001\"],\"members\":[{\"living\":true,\"name\":\"n1\"}],\"node\":\"n1\"}\n"
        )
        for (path, body, wanted) in [
            ("install", "{}", "install(material: nil)"), ("install", "{\"key\":\"k\"}", "install(material: Optional("),
            ("use", "{\"id\":\"a1\"}", "use(id: "), ("remove", "{\"id\":\"a1\",\"force\":true}", "force: true)"),
        ] {
            let done = await ask("POST", "/v1/keyring/" + path, type: json, body: body)
            #expect(done.status == 200 && text(done).contains(wanted), "\(path): \(text(done))")
        }
        for (path, body) in [("install", "[]"), ("use", "{}"), ("remove", "{\"force\":true}")] {
            let refused = await ask("POST", "/v1/keyring/" + path, type: json, body: body)
            #expect(refused.status == 400 && text(refused).contains("the body is not"), "\(path): \(text(refused))")
        }
        var node = FakeNode()
        node.refusal = .refused(check: "key", detail: "n3 does not have it")
        #expect(await ask("POST", "/v1/keyring/use", node: node, type: json, body: "{\"id\":\"a\"}").status == 409)
        #expect(await ask("GET", "/v1/keyring", node: node).status == 409)
        #expect(await ask("POST", "/v1/keyring/use", type: "text/plain", body: "{}").status == 415)
        #expect(await ask("GET", "/v1/keyring/use").allow == "POST")
    }

    @Test func `brakes are released, but not for a page in a browser`() async throws {
        let json = "application/json"
        let done = await ask("POST", "/v1/brake/release", type: json, body: "{}")
        #expect(done.status == 200 && text(done) == "{\"told\":[\"n1\",\"n2\"],\"unreachable\":[\"n4\"]}\n")
        var node = FakeNode()
        node.refusal = .unavailable("the node has stopped")
        #expect(await ask("POST", "/v1/brake/release", node: node, type: json, body: "{}").status == 503)
        #expect(await ask("POST", "/v1/brake/release", type: "text/plain", body: "{}").status == 415)
        #expect(await ask("GET", "/v1/brake/release").allow == "POST")
        node = FakeNode()
        node.report.ring.brake = BrakeStatus(lost: ["n3", "n4"], members: 5, left: 1500)
        node.report.members[0].damped = true
        let status = text(await ask("GET", "/v1/status", node: node))
        #expect(status.contains("\"brake\":{\"left\":1500,\"lost\":[\"n3\",\"n4\"],\"members\":5}"))
        #expect(status.contains("\"damped\":true"))
    }

    @Test func `an examination has these names and forms, and no page in a browser begins one`() async {
        let json = "application/json"
        let done = await ask("POST", "/v1/doctor", type: json, body: "{}")
        #expect(
            text(done) == """
                {"findings":[{"check":"seed","text":"t"},{"check":"udp","member":"n3","text":"u"}],"members":[{"clock":-7,\
                "cluster":"10.0.0.3:11212","liveness":"suspect","name":"n3","tcpBack":"unused","tcpOut":"passes",\
                "udpBack":"unknown","udpOut":"fails"}],"node":"n1","settings":"replicas=1"}

                """
        )
        var node = FakeNode()
        node.refusal = .unavailable("the node has stopped")
        #expect(await ask("POST", "/v1/doctor", node: node, type: json, body: "{}").status == 503)
        #expect(await ask("POST", "/v1/doctor", type: "text/plain", body: "{}").status == 415)
        #expect(await ask("GET", "/v1/doctor").allow == "POST")
    }

    @Test func `events have these names and forms`() async {
        let response = await ask("GET", "/v1/events")
        #expect(response.status == 200 && response.contentType == "application/json")
        #expect(
            text(response) == """
                {"dropped":7,"events":[{"member":"n3","number":8,"type":"down","unixMilliseconds":1764403200007},\
                {"detail":"for 9 ms","number":9,"type":"stalled","unixMilliseconds":1764403201000}],"node":"n1"}

                """
        )
        #expect(await ask("POST", "/v1/events").allow == "GET")
    }

    @Test func `of very many members some are named`() {
        let error = AdministrationError.unknownNode("x", members: (1...40).map { "n\($0)" })
        #expect(ProblemDocument(error).detail.hasSuffix(", n32 and 8 more"))
    }

    @Test func `what a page in a browser could send is refused`() async {
        let body = "{\"node\":\"n3\"}"
        #expect(await ask("POST", "/v1/drain", type: "text/plain", body: body).status == 415)
        #expect(await ask("POST", "/v1/drain", body: body).status == 415)
        #expect(await ask("GET", "/v1/status", host: "evil.example").status == 421)
        #expect(await ask("GET", "/v1/status", host: "127.0.0.1.evil.example:11213").status == 421)
        #expect(await ask("GET", "/v1/status", host: nil).status == 400)
        #expect(await ask("GET", "/v1/status", host: "a/b").status == 400)
        for good in ["localhost", "LOCALHOST:1", "n1:11213", "host.example", "10.1.2.3", "[::1]:11213", "[fe80::1]"] {
            #expect(await ask("GET", "/v1/status", host: good).status == 200, "\(good)")
        }
    }

    @Test func `wrong paths, methods and bodies`() async {
        #expect(await ask("GET", "/").status == 404)
        #expect(await ask("GET", "/v1/drain").status == 405)
        let post = await ask("POST", "/v1/status")
        #expect(post.status == 405 && post.allow == "GET")
        for body in ["", "{}", "[]", "{\"node\":3}", "\u{0}"] {
            #expect(await ask("POST", "/v1/drain", type: "application/json", body: body).status == 400, "\(body)")
        }
    }

    @Test func `degraded and settled`() {
        var status = FakeNode.status()
        #expect(!status.isDegraded && !status.isSettled)
        status.ring.slices.settled = 16384
        #expect(status.isSettled)
        status.members[0].lifecycle = .draining
        #expect(!status.isDegraded && !status.isSettled)
        status.members[0].liveness = .suspect
        #expect(status.isDegraded)
        status.members[0].lifecycle = .left
        #expect(!status.isDegraded)
        status.ring.slices.short = 1
        #expect(status.isDegraded)
    }

    @Test func `hashes and ids of another form are refused`() {
        for text in ["\"1\"", "\"000000000000000g\"", "7"] {
            #expect(throws: DecodingError.self) { try JSONDecoder().decode(HexHash.self, from: Data(text.utf8)) }
            #expect(throws: DecodingError.self) { try JSONDecoder().decode(NodeID.self, from: Data(text.utf8)) }
        }
    }
}
