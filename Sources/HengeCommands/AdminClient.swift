import AdminServer
import ClusterCore
private import Foundation

/// Asks the admin port of one node.
struct AdminClient: Sendable {
    let address: HostAndPort
    /// When the command gives up: no request lasts longer.
    let deadline: Deadline

    func status(
        milliseconds: Int = ClientOptions.requestMilliseconds
    ) async throws(CommandError) -> ClusterStatus {
        try await ask("GET", "/v1/status", milliseconds: milliseconds)
    }

    func ring(key: String?) async throws(CommandError) -> RingReport {
        let query = key.map { "?key=" + Self.percentEncoded($0) } ?? ""
        return try await ask("GET", "/v1/ring" + query)
    }

    func drain(node: String, force: Bool) async throws(CommandError) -> TaskReport {
        try await ask("POST", "/v1/drain", Change(node: node, force: force))
    }

    func undrain(node: String) async throws(CommandError) -> TaskReport {
        try await ask("POST", "/v1/undrain", Change(node: node))
    }

    func forget(node: String) async throws(CommandError) -> MembersReport {
        try await ask("POST", "/v1/forget", Change(node: node))
    }

    func form() async throws(CommandError) -> MembersReport {
        try await ask("POST", "/v1/form", Change())
    }

    func releaseBrake() async throws(CommandError) -> BrakeReport {
        try await ask("POST", "/v1/brake/release", Change())
    }

    func doctor() async throws(CommandError) -> DoctorReport {
        try await ask("POST", "/v1/doctor", Change())
    }

    func events() async throws(CommandError) -> EventList {
        try await ask("GET", "/v1/events")
    }

    func keyRing() async throws(CommandError) -> KeyRingReport {
        try await ask("GET", "/v1/keyring")
    }

    /// `change` is `install`, `use` or `remove`.
    func changeKeys(
        _ change: String,
        id: String? = nil,
        key: String? = nil,
        force: Bool? = nil
    ) async throws(CommandError) -> KeyRingReport {
        try await ask("POST", "/v1/keyring/" + change, Change(force: force, id: id, key: key))
    }

    private struct Change: Encodable {
        var node: String?
        var force: Bool?
        var id: String?
        var key: String?
    }

    private func ask<Answer: Decodable>(
        _ method: String,
        _ path: String,
        _ body: Change? = nil,
        milliseconds: Int = ClientOptions.requestMilliseconds
    ) async throws(CommandError) -> Answer {
        var bytes: [UInt8]?
        if let body {
            do { bytes = Array(try JSONEncoder().encode(body)) } catch { throw CommandError(.failed, "\(error)") }
        }
        let left = deadline.millisecondsLeft
        let reply: HTTPClient.Reply
        do {
            reply = try await HTTPClient.send(
                HTTPClient.Request(method: method, target: path, body: bytes),
                to: address,
                milliseconds: min(milliseconds, left)
            )
        } catch {
            if deadline.hasPassed || (error.isTimeout && left <= milliseconds) {
                throw CommandError(.timedOut, "no answer from node \(address) within \(deadline.text)")
            }
            throw CommandError(.unreachable, "node \(address) not reached: \(error)")
        }
        let decoder = JSONDecoder()
        guard (200..<300).contains(reply.status) else {
            let problem = try? decoder.decode(ProblemDocument.self, from: Data(reply.body))
            throw CommandError(
                reply.status == 409 ? .refused : .failed,
                problem?.detail ?? "node \(address) answered \(reply.status) to \(method) \(path)"
            )
        }
        do {
            return try decoder.decode(Answer.self, from: Data(reply.body))
        } catch {
            throw CommandError(.failed, "node \(address) answered something else to \(method) \(path): \(error)")
        }
    }

    /// RFC 3986: all but unreserved characters as `%XX`.
    static func percentEncoded(_ text: String) -> String {
        var result = ""
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                result.unicodeScalars.append(Unicode.Scalar(byte))
            default: result += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
            }
        }
        return result
    }
}
