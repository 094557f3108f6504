private import ClusterCore
private import Foundation

/// A request, whole.
package struct AdminRequest: Sendable {
    package var method: String
    /// Path and query as sent.
    package var target: String
    package var host: String?
    package var contentType: String?
    package var body: [UInt8]

    package init(method: String, target: String, host: String?, contentType: String? = nil, body: [UInt8] = []) {
        self.method = method
        self.target = target
        self.host = host
        self.contentType = contentType
        self.body = body
    }
}

/// An answer, whole.
package struct AdminResponse: Sendable {
    package var status: Int
    package var contentType: String
    package var body: [UInt8]
    /// For status 405: the method that would do.
    package var allow: String?

    init(status: Int = 200, contentType: String, body: [UInt8], allow: String? = nil) {
        self.status = status
        self.contentType = contentType
        self.body = body
        self.allow = allow
    }
}

/// Answers requests; knows routes and forms, but no sockets.
package struct AdminRouter: Sendable {
    private let administration: any NodeAdministration
    private let version: String
    private let hostNames: Set<String>

    /// - Parameters:
    ///   - version: the program's version.
    ///   - hostNames: names by which this port may be addressed, beside `localhost` and every IP address.
    package init(administration: any NodeAdministration, version: String, hostNames: [String]) {
        self.administration = administration
        self.version = version
        self.hostNames = Set(hostNames.map { $0.lowercased() }).union(["localhost"])
    }

    /// Answers one request.
    package func respond(to request: AdminRequest) async -> AdminResponse {
        if let refusal = refusal(host: request.host) { return refusal }
        let (path, query) = Self.split(request.target)
        let wanted: String
        switch path {
        case "/livez", "/readyz", "/metrics", "/version", "/v1/status", "/v1/ring", "/v1/tasks", "/v1/events",
            "/v1/keyring":
            wanted = "GET"
        case "/v1/drain", "/v1/undrain", "/v1/forget", "/v1/form", "/v1/doctor", "/v1/brake/release",
            "/v1/keyring/install",
            "/v1/keyring/use", "/v1/keyring/remove":
            wanted = "POST"
        default:
            return Self.problem(
                ProblemDocument(
                    "not-found",
                    title: "No such resource",
                    status: 404,
                    detail: "there is nothing at this path"
                )
            )
        }
        guard request.method == wanted else {
            var response = Self.problem(
                ProblemDocument("method", title: "Method not allowed", status: 405, detail: "\(path) takes \(wanted)")
            )
            response.allow = wanted
            return response
        }
        switch path {
        case "/livez":
            let isLive = await administration.liveness()
            return Self.text(isLive ? "live\n" : "a loop is stuck\n", status: isLive ? 200 : 503)
        case "/readyz": return await readiness(verbose: query.contains { $0.name == "verbose" })
        case "/metrics":
            return Self.text(await administration.metrics(), contentType: "text/plain; version=0.0.4; charset=utf-8")
        case "/version": return Self.json(Version(name: "henge", version: version))
        case "/v1/status": return Self.json(await administration.status())
        case "/v1/ring": return await ring(query)
        case "/v1/tasks": return Self.json(TaskList(tasks: await administration.status().tasks))
        case "/v1/events": return Self.json(await administration.events())
        case "/v1/keyring":
            return await Self.answer { () throws(AdministrationError) in try await administration.keyRing() }
        default: return await change(path, request)
        }
    }

    // MARK: - Routes

    private struct Version: Codable {
        var name: String
        var version: String
    }

    private struct Change: Codable {
        var node: String
        var force: Bool?
    }

    private func readiness(verbose: Bool) async -> AdminResponse {
        let readiness = await administration.readiness()
        var text = readiness.ready ? "ready\n" : "not ready\n"
        if verbose { text += readiness.reasons.map { "\($0)\n" }.joined() }
        return Self.text(text, status: readiness.ready ? 200 : 503)
    }

    /// The longest key that memcache clients can name, in bytes.
    private static let keyBytesMax = 250

    private func ring(_ query: [(name: String, value: String?)]) async -> AdminResponse {
        guard let parameter = query.first(where: { $0.name == "key" }) else {
            return Self.json(await administration.ring(key: nil))
        }
        guard let key = parameter.value, (1...Self.keyBytesMax).contains(key.utf8.count) else {
            return Self.problem(Self.badRequest("key: 1 to \(Self.keyBytesMax) bytes of UTF-8, percent-encoded"))
        }
        return Self.json(await administration.ring(key: key))
    }

    private func change(_ path: String, _ request: AdminRequest) async -> AdminResponse {
        // A page in a browser may send forms and plain text anywhere without asking, but not JSON.
        let type = request.contentType?.split(separator: ";").first?.lowercased().filter { $0 != " " }
        guard type == "application/json" else {
            return Self.problem(
                ProblemDocument(
                    "media-type",
                    title: "Unsupported media type",
                    status: 415,
                    detail: "send Content-Type: application/json"
                )
            )
        }
        if path == "/v1/form" {
            return await Self.answer { () throws(AdministrationError) in try await administration.form() }
        }
        if path == "/v1/doctor" {
            return await Self.answer { () throws(AdministrationError) in try await administration.examine() }
        }
        if path == "/v1/brake/release" {
            return await Self.answer { () throws(AdministrationError) in try await administration.releaseBrake() }
        }
        if path.hasPrefix("/v1/keyring/") { return await changeKeys(path, request) }
        let change: Change
        do {
            change = try JSONDecoder().decode(Change.self, from: Data(request.body))
        } catch {
            return Self.problem(Self.badRequest("the body is not {\"node\":\"NAME\",\"force\":false}"))
        }
        do throws(AdministrationError) {
            switch path {
            case "/v1/drain":
                let task = try await administration.drain(node: change.node, force: change.force ?? false)
                return Self.json(task, status: 202)
            case "/v1/forget": return Self.json(try await administration.forget(node: change.node))
            default: return Self.json(try await administration.undrain(node: change.node))
            }
        } catch {
            return Self.problem(ProblemDocument(error))
        }
    }

    private struct KeyChange: Codable {
        var id: String?
        var key: String?
        var force: Bool?
    }

    private func changeKeys(_ path: String, _ request: AdminRequest) async -> AdminResponse {
        let isInstallation = path == "/v1/keyring/install"
        guard let body = try? JSONDecoder().decode(KeyChange.self, from: Data(request.body)),
            isInstallation || body.id != nil
        else {
            let form = isInstallation ? "{\"key\":\"BASE64\"} or {}" : "{\"id\":\"ID\",\"force\":false}"
            return Self.problem(Self.badRequest("the body is not \(form)"))
        }
        let change: KeyRingRequest =
            switch path {
            case "/v1/keyring/install": .install(material: body.key)
            case "/v1/keyring/use": .use(id: body.id ?? "", force: body.force ?? false)
            default: .remove(id: body.id ?? "", force: body.force ?? false)
            }
        return await Self.answer { () throws(AdministrationError) in try await administration.change(change) }
    }

    /// What a question brings, or the problem that it met.
    private static func answer(
        _ ask: () async throws(AdministrationError) -> some Encodable
    ) async -> AdminResponse {
        do throws(AdministrationError) {
            return json(try await ask())
        } catch {
            return problem(ProblemDocument(error))
        }
    }

    // MARK: - Host

    /// A page whose name was made to point here (DNS rebinding) sends that name; only those of this node are answered.
    private func refusal(host: String?) -> AdminResponse? {
        guard let host else { return Self.problem(Self.badRequest("the Host header is missing")) }
        guard let place = HostAndPort(host, defaultPort: 80) else {
            return Self.problem(Self.badRequest("the Host header is no HOST or HOST:PORT"))
        }
        if IPAddress(place.host) != nil || hostNames.contains(place.host.lowercased()) { return nil }
        return Self.problem(
            ProblemDocument(
                "host",
                title: "Misdirected request",
                status: 421,
                detail: "this node is not called '\(place.host)': use its address or its name"
            )
        )
    }

    // MARK: - Forms

    /// Path and query of a request target; names and values are percent-decoded, nil where that is not possible.
    static func split(_ target: String) -> (path: String, query: [(name: String, value: String?)]) {
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2 else { return (target, []) }
        let query = parts[1].split(separator: "&").map { pair in
            let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let value = sides.count == 2 ? sides[1].replacing("+", with: " ").removingPercentEncoding : nil
            return (name: String(sides[0]), value: value)
        }
        return (String(parts[0]), query)
    }

    private static func badRequest(_ detail: String) -> ProblemDocument {
        ProblemDocument("bad-request", title: "Bad request", status: 400, detail: detail)
    }

    private static func text(
        _ text: String,
        status: Int = 200,
        contentType: String = "text/plain; charset=utf-8"
    ) -> AdminResponse {
        AdminResponse(status: status, contentType: contentType, body: Array(text.utf8))
    }

    static func problem(_ problem: ProblemDocument) -> AdminResponse {
        json(problem, status: problem.status, contentType: "application/problem+json")
    }

    private static func json(
        _ value: some Encodable,
        status: Int = 200,
        contentType: String = "application/json"
    ) -> AdminResponse {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf",
            negativeInfinity: "-inf",
            nan: "nan"
        )
        do {
            return AdminResponse(
                status: status,
                contentType: contentType,
                body: Array(try encoder.encode(value)) + [UInt8(ascii: "\n")]
            )
        } catch {
            // Strings, numbers, lists and objects of them are all there is, and all of them have a form in JSON.
            preconditionFailure("\(type(of: value)) has no form in JSON: \(error)")
        }
    }
}
