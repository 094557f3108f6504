/// Rules of membership that the simulator can switch off, one at a time, to show that its checks see what then goes
/// wrong. Empty in every node.
package struct MembershipAblations: OptionSet, Hashable, Sendable {
    package let rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Who hears itself accused says nothing.
    package static let refutation = MembershipAblations(rawValue: 1 << 0)
    /// What is heard of a member that is down or gone already is not stored where it remains so.
    package static let evidenceAboutTheDead = MembershipAblations(rawValue: 1 << 1)
    /// Statement and verdict are not merged apart, but as one by (generation, incarnation, liveness, sequence).
    package static let mergeByHalves = MembershipAblations(rawValue: 1 << 2)
    /// A node forms a cluster with whoever answers.
    package static let majorityToForm = MembershipAblations(rawValue: 1 << 3)
    /// Datagrams of other clusters are taken.
    package static let clusterName = MembershipAblations(rawValue: 1 << 4)
    /// Who is accused is not told so first, with the ping itself.
    package static let buddy = MembershipAblations(rawValue: 1 << 5)
    /// A node does not notice that it stood still, nor that datagrams lay in its socket.
    package static let ownSlowness = MembershipAblations(rawValue: 1 << 6)
}
