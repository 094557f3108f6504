package import ClusterCore
package import PeerProtocol
package import Replication

/// What a turn of pure code wants done: frames to other nodes, answers to clients' requests, words for the control
/// plane. The shell empties it after every turn, before it waits again, and keeps its room.
package struct Outbox: ~Copyable {
    /// Where a frame goes.
    package enum Target: Hashable, Sendable {
        /// To a member, over the connection that this thread opened to it.
        case peer(PeerNumber)
        /// Back over the connection that a frame came on.
        case link(UInt32)
    }

    package struct Send {
        package var target: Target
        package var start: Int
        package var end: Int
    }

    /// An answer to a request that waited.
    package struct Completion {
        package var origin: Origin
        package var reply: Reply

        package init(origin: Origin, reply: Reply) {
            self.origin = origin
            self.reply = reply
        }
    }

    /// A word from a shard to the control plane.
    package enum Signal: Hashable, Sendable {
        /// Slices were handed over to this node, which must have itself recorded before it serves them.
        case handedOver(SliceEpoch, from: PeerNumber)
        /// A slice that was handed over was refused: this node must have itself recorded again before it serves it.
        case returned(SliceEpoch)
        /// This node serves the slice no longer.
        case lost(slice: Int)
        /// A copy is waited for from now on: it has learned everything, or was in sync with another holder before.
        case promised(PeerNumber)
    }

    package var bytes = ByteBuffer(capacity: 4096)
    package var sends: [Send] = []
    package var completions: [Completion] = []
    package var signals: [Signal] = []
    /// Members for which more than `backlogBytesMax` wait on this thread's connection. The shell keeps it; what may be
    /// lost is not sent to them.
    package var congested: Set<PeerNumber> = []
    /// Bytes that a connection has not taken: beyond it the member counts as congested.
    package static let backlogBytesMax = 1 << 20

    package init() {}

    package var isEmpty: Bool { sends.isEmpty && completions.isEmpty && signals.isEmpty }

    /// Appends a frame that `write` appends whole.
    package mutating func send(to target: Target, _ write: (inout ByteBuffer) -> Void) {
        let start = bytes.count
        write(&bytes)
        sends.append(Send(target: target, start: start, end: bytes.count))
    }

    package mutating func send(_ message: ControlMessage, to peer: PeerNumber) {
        send(to: .peer(peer)) { message.append(to: &$0) }
    }

    package mutating func removeAll() {
        bytes.removeAll(shrinkingTo: 1 << 20)
        sends.removeAll(keepingCapacity: true)
        completions.removeAll(keepingCapacity: true)
        signals.removeAll(keepingCapacity: true)
    }
}
