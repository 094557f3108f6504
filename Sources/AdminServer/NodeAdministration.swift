/// What the admin port asks of the node behind it.
package protocol NodeAdministration: Sendable {
    /// The cluster as this node sees it.
    func status() async -> ClusterStatus

    /// Who owns how much of the ring, and where `key` lives.
    func ring(key: String?) async -> RingReport

    /// Starts to move everything that a node has elsewhere, or returns the task that already does. `node` is a name
    /// or an address; `force` goes on where too few copies or too little memory would remain.
    func drain(node: String, force: Bool) async throws(AdministrationError) -> TaskReport

    /// Cancels a drain.
    func undrain(node: String) async throws(AdministrationError) -> TaskReport

    /// Has the cluster forget a member that is down and will not return. `node` is a name or an address.
    func forget(node: String) async throws(AdministrationError) -> MembersReport

    /// Has the node form a cluster with the seeds that answer, without a majority of them.
    func form() async throws(AdministrationError) -> MembersReport

    /// The cluster's keys and who has them.
    func keyRing() async throws(AdministrationError) -> KeyRingReport

    /// Changes the cluster's keys here; the others hear of it from this node.
    func change(_ request: KeyRingRequest) async throws(AdministrationError) -> KeyRingReport

    /// Has all members that can be reached take who is down out of the ring, although many went at once.
    func releaseBrake() async throws(AdministrationError) -> BrakeReport

    /// Tests what this node and the other members need from each other; takes a second where somebody is silent.
    func examine() async throws(AdministrationError) -> DoctorReport

    /// The node's last membership events.
    func events() async -> EventList

    /// Counters and gauges in Prometheus' text format.
    func metrics() async -> String

    /// Whether all loops turn. False has the process restarted.
    func liveness() async -> Bool

    /// Whether clients may be sent here.
    func readiness() async -> Readiness
}

/// Whether a node may serve, and what it waits for.
package struct Readiness: Codable, Hashable, Sendable {
    package var ready: Bool
    /// One line each; empty when ready.
    package var reasons: [String]

    package init(ready: Bool, reasons: [String] = []) {
        self.ready = ready
        self.reasons = reasons
    }
}

/// Why a change was not begun.
package enum AdministrationError: Error, Hashable, Sendable {
    /// No member has that name or address; `members` are those that there are, by name.
    case unknownNode(String, members: [String] = [])
    /// A safety check speaks against it; the text has the arithmetic. `check` is a word such as `copies`, `memory`.
    case refused(check: String, detail: String)
    /// The node cannot tell or act now, and may later.
    case unavailable(String)
}
