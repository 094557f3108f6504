/// An error as RFC 9457 has it, `application/problem+json`.
package struct ProblemDocument: Codable, Hashable, Sendable {
    /// `urn:henge:problem:` and a word that programs may compare.
    package var type: String
    /// The same for every error of that type.
    package var title: String
    /// The HTTP status.
    package var status: Int
    /// What happened this time.
    package var detail: String
    /// The name of the safety check that refused; nil where none did.
    package var check: String?

    /// How many members are named where one is not found.
    private static let membersNamedMax = 32

    package init(_ word: String, title: String, status: Int, detail: String, check: String? = nil) {
        self.type = "urn:henge:problem:" + word
        self.title = title
        self.status = status
        self.detail = detail
        self.check = check
    }

    init(_ error: AdministrationError) {
        switch error {
        case .unknownNode(let node, let members):
            var detail = "no member is called '\(node)' or has that address"
            if !members.isEmpty {
                detail += "; there are " + members.prefix(Self.membersNamedMax).joined(separator: ", ")
                if members.count > Self.membersNamedMax {
                    detail += " and \(members.count - Self.membersNamedMax) more"
                }
            }
            self.init("unknown-node", title: "No such node", status: 404, detail: detail)
        case .refused(let check, let detail):
            self.init("refused", title: "Refused by a safety check", status: 409, detail: detail, check: check)
        case .unavailable(let detail):
            self.init("unavailable", title: "Not possible now", status: 503, detail: detail)
        }
    }
}
