/// The last membership events of one node: the answer to `GET /v1/events`.
package struct EventList: Codable, Hashable, Sendable {
    /// The name of the node that answers; each node has events of its own.
    package var node: String
    /// The newest last.
    package var events: [EventReport]
    /// Older ones since the node's start that are not kept any more.
    package var dropped: UInt64

    package init(node: String, events: [EventReport], dropped: UInt64) {
        self.node = node
        self.events = events
        self.dropped = dropped
    }
}

/// Something that happened to the membership, as one node saw it.
package struct EventReport: Codable, Hashable, Sendable {
    /// Counts the node's events since its start, from 1.
    package var number: UInt64
    /// Milliseconds since 1970 by the node's clock.
    package var unixMilliseconds: UInt64
    /// `joined`, `suspected`, `refuted`, `down`, `left`, `forgotten`, `refuted-own`, `stalled`, `rejected-cluster`,
    /// `rejected-name`, `configuration-differs` `keys-changed`, `udp-blocked` or `udp-passes`; later versions may have more.
    package var type: String
    /// The name of the member that it is about; nil where it is about the node itself or a stranger.
    package var member: String?
    /// More in words; nil where there is no more to say.
    package var detail: String?

    package init(number: UInt64, unixMilliseconds: UInt64, type: String, member: String? = nil, detail: String? = nil) {
        self.number = number
        self.unixMilliseconds = unixMilliseconds
        self.type = type
        self.member = member
        self.detail = detail
    }
}
