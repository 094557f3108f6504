/// Rules of the control plane that the simulator can switch off, one at a time, to show that its checks see what then
/// goes wrong. Empty in every node.
package struct ControlAblations: OptionSet, Hashable, Sendable {
    package let rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The ring's members are taken in the order in which this node met them.
    package static let ringByID = ControlAblations(rawValue: 1 << 0)
    /// A drain is done while others still lack what the node has.
    package static let drainHandsOver = ControlAblations(rawValue: 1 << 1)
}
