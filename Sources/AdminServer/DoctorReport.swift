/// What an examination of all members from one node has shown: the answer to `POST /v1/doctor`.
package struct DoctorReport: Codable, Hashable, Sendable {
    /// Whether something passes one way.
    package enum Way: String, Codable, Hashable, Sendable {
        case passes
        case fails
        /// The other end did not tell.
        case unknown
        /// Gossip goes over TCP alone.
        case unused
    }

    /// A member as the examining node found it.
    package struct Member: Codable, Hashable, Sendable {
        package var name: String
        package var cluster: String
        package var liveness: MemberStatus.Liveness
        /// From the examining node to the member.
        package var udpOut: Way
        /// From the member to the examining node.
        package var udpBack: Way
        package var tcpOut: Way
        package var tcpBack: Way
        /// By how many milliseconds its wall clock is ahead; nil where it has not told.
        package var clock: Int?
        /// Whether it has the settings that should be equal on all nodes; nil where it has not told.
        package var settings: Bool?

        package init(
            name: String,
            cluster: String,
            liveness: MemberStatus.Liveness,
            udpOut: Way,
            udpBack: Way,
            tcpOut: Way,
            tcpBack: Way,
            clock: Int?,
            settings: Bool?
        ) {
            self.name = name
            self.cluster = cluster
            self.liveness = liveness
            self.udpOut = udpOut
            self.udpBack = udpBack
            self.tcpOut = tcpOut
            self.tcpBack = tcpBack
            self.clock = clock
            self.settings = settings
        }
    }

    /// One thing that is not as it should be.
    package struct Finding: Codable, Hashable, Sendable {
        /// What was looked at: `liveness`, `tcp`, `udp`, `clock`, `settings`, `key`, `seed`.
        package var check: String
        /// The member that it is about; nil where it is about the examining node.
        package var member: String?
        /// What is wrong, and what to open or change.
        package var text: String

        package init(check: String, member: String?, text: String) {
            self.check = check
            self.member = member
            self.text = text
        }
    }

    /// The node that examined.
    package var node: String
    /// Its settings that should be equal on all nodes.
    package var settings: String
    /// The other members, by name.
    package var members: [Member]
    /// Empty where all is well.
    package var findings: [Finding]

    package init(node: String, settings: String, members: [Member], findings: [Finding]) {
        self.node = node
        self.settings = settings
        self.members = members
        self.findings = findings
    }
}
