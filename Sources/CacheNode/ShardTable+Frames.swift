package import ClusterCore
package import PeerProtocol
package import Replication

extension ShardTable {
    /// Frames about one slice that may come on any link: stream entries, acknowledgements, refusals, merges, and
    /// adoptions, which follow a cut over on whatever link it came; and access hints, about many slices.
    /// Returns false for a frame of another family.
    package func receive(
        _ kind: Frame.Kind,
        _ body: UnsafeRawBufferPointer,
        from peer: PeerNumber,
        link: UInt32,
        context: Context,
        outbox: inout Outbox
    ) throws(MalformedBytes) -> Bool {
        switch kind {
        case .entry:
            let entry = try EntryFrame(body)
            let index = index(of: entry.slice)
            let shard = lock(index)
            defer { unlock(index) }
            try shard.pointee.receive(
                entry,
                body: body,
                from: peer,
                target: .link(link),
                context: context,
                outbox: &outbox
            )
        case .acknowledgement:
            let acknowledgement = try AcknowledgementFrame(body)
            let index = index(of: acknowledgement.slice)
            let shard = lock(index)
            defer { unlock(index) }
            shard.pointee.receive(acknowledgement, from: peer, context: context, outbox: &outbox)
        case .refusal, .adopt:
            guard let message = try ControlMessage(kind, body) else { throw MalformedBytes() }
            let slice: Int
            switch message {
            case .refusal(let refused, _, _): slice = refused
            case .adopt(let adopted, _, _, _, _, _): slice = adopted
            default: throw MalformedBytes()
            }
            let index = index(of: slice)
            let shard = lock(index)
            defer { unlock(index) }
            shard.pointee.receive(message, from: peer, context: context, outbox: &outbox)
        case .merge:
            var reader = ByteReader(body)
            let index = index(of: try reader.slice())
            let shard = lock(index)
            defer { unlock(index) }
            try shard.pointee.receiveMerge(body, context: context, outbox: &outbox)
        case .accesses:
            receive(try AccessesFrame(body), from: peer)
        default:
            return false
        }
        return true
    }

    /// Hands hints to their shards, in runs, so that no lock is held for long.
    private func receive(_ accesses: AccessesFrame, from peer: PeerNumber) {
        var start = 0
        while start < accesses.count {
            let index = index(of: Slice.index(of: accesses[start]))
            let most = min(accesses.count, start + ShardPlane.accessesRunMax)
            var end = start + 1
            while end < most, self.index(of: Slice.index(of: accesses[end])) == index { end += 1 }
            let shard = lock(index)
            shard.pointee.receive(accesses, start..<end, from: peer)
            unlock(index)
            start = end
        }
    }
}
