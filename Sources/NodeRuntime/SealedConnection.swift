import ClusterCore
import Reactor
import Sealing

/// A connection between nodes that share a cluster key: what is read and written is sealed on the way.
final class SealedConnection {
    private var sealer: LinkSealer
    /// What has come and is not a whole record yet.
    private var input = ByteBuffer(capacity: 4096)
    /// What is sealed and not sent yet.
    private var output = TransmitBuffer(capacity: 4096)

    /// A connection of which nothing was read so far.
    init(_ sealer: LinkSealer) {
        self.sealer = sealer
        output.buffer.append(sealer.greeting)
    }

    /// Goes on with a connection that another thread began.
    init(_ handed: Handed) {
        sealer = handed.sealer
        input.append(handed.input)
        output.buffer.append(handed.output)
    }

    /// A connection on its way to another thread.
    struct Handed: Sendable {
        fileprivate var sealer: LinkSealer
        fileprivate var input: [UInt8]
        fileprivate var output: [UInt8]
    }

    func handOver() -> Handed { Handed(sealer: sealer, input: input.array(), output: output.array()) }

    /// The cluster key that the other side has shown to have last; nil before the handshake is done.
    var keyID: ClusterKeyID? { sealer.keyID }

    /// Follows the key ring; what there is to say of it leaves with the next `send`.
    func adopt(_ ring: KeyRing) { sealer.adopt(ring, into: &output.buffer) }

    /// Bytes that are sealed and that the kernel has not taken.
    var unsentBytes: Int { output.unsentBytes }

    /// Reads at most `max` bytes and opens what is complete into `plain`. Throws where the other side is no member.
    func receive(
        _ descriptor: Int32,
        into plain: inout ByteBuffer,
        max: Int
    ) throws(LinkSealingError) -> Received {
        let received = Socket.receive(descriptor, into: &input, max: max)
        if case .bytes = received {
            try sealer.open(&input, into: &plain, answer: &output.buffer)
            if input.isEmpty { input.removeAll(shrinkingTo: 256 * 1024) }
        }
        return received
    }

    /// Seals what waits in `plain`, once the handshake is done, and writes what is sealed. `all`: the kernel has taken
    /// everything that could be sent so far.
    func send(_ descriptor: Int32, from plain: inout TransmitBuffer) -> Sent {
        if sealer.isEstablished, !plain.isEmpty {
            sealer.seal(plain.unsent, into: &output.buffer)
            plain.removeAll()
        }
        let sent = Socket.send(descriptor, from: &output)
        if case .all = sent { output.removeAll() }
        return sent
    }
}
