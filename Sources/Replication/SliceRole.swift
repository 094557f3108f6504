package import ClusterCore
package import DequeModule
package import PeerProtocol

/// What a node is for one slice.
package enum SliceRole {
    /// Nothing: what the store has of the slice is at most a base for learning. Goes to `copy` on an offer, to `holder`
    /// on a claim.
    case outside
    /// The acting primary, or about to be. Goes to `copy` by a cut over, to `outside` when another epoch is known.
    case holder(Holder)
    /// A successor or a learner. Goes to `holder` by a cut over or a takeover, to `outside` on dismissal.
    case copy(Copy)
}

/// The state of a holder for one slice.
package struct Holder {
    package enum Phase {
        /// The majority has not recorded the claim yet; nothing is served.
        case claiming
        /// Serving.
        case stable
        /// Somebody claimed the slice over this holder. Nothing is served before a majority has recorded this holder
        /// again, in the epoch `claim`; goes to `stable` then.
        case suspended(claim: UInt32)
        /// A cut over has begun: writes wait until all earlier ones are acknowledged.
        case draining(to: PeerNumber, deadline: Instant)
    }

    package var epoch: UInt32
    package var phase: Phase
    /// Writes of this slice so far.
    package var position: UInt64
    package var streams: [OutStream] = []
    package var pending: Deque<PendingWrite> = []
    /// No offers before this moment: somebody refused.
    package var retryAt = Instant(nanoseconds: 0)

    package init(epoch: UInt32, phase: Phase, position: UInt64) {
        self.epoch = epoch
        self.phase = phase
        self.position = position
    }

    /// The position that every copy that counts has.
    package var acknowledgedPosition: UInt64 {
        var lowest = UInt64.max
        for stream in streams where stream.isRequired { lowest = min(lowest, stream.acknowledgedPosition) }
        return lowest
    }

    package func stream(to peer: PeerNumber) -> Int? {
        streams.firstIndex { $0.peer == peer }
    }
}

/// A holder's stream to one copy.
package struct OutStream {
    package enum State {
        /// Waiting for the peer to say what it has.
        case offered(until: Instant)
        /// Sending the content; `awaiting` is the last batch's number.
        case copying(cursor: UInt64, inventory: [UInt64: UInt64], awaiting: UInt64)
        /// All content is sent; in sync when `last` is acknowledged.
        case finishing(last: UInt64)
        /// Writes wait for it.
        case inSync
        /// In sync with the holder before; writes wait for it, and it has not answered yet.
        case adopting(since: Instant)
    }

    package var peer: PeerNumber
    package var id: UInt64
    package var state: State
    /// The number of the next entry.
    package var next: UInt64 = 1
    package var acknowledged: UInt64 = 0
    /// Over the writes that were sent on it.
    package var sum = StreamSum()
    package var acknowledgedPosition: UInt64

    package init(peer: PeerNumber, id: UInt64, state: State, acknowledgedPosition: UInt64) {
        self.peer = peer
        self.id = id
        self.state = state
        self.acknowledgedPosition = acknowledgedPosition
    }

    /// Whether acknowledgements to clients wait for it.
    package var isRequired: Bool {
        switch state {
        case .inSync, .adopting: true
        case .offered, .copying, .finishing: false
        }
    }

    /// Whether writes are sent on it.
    package var isFlowing: Bool {
        if case .offered = state { false } else { true }
    }

    package var isInSync: Bool {
        if case .inSync = state { true } else { false }
    }

    /// Whether the clock has to look at it: something must come from the peer by a certain time, or the peer has learned
    /// everything and comes into sync as soon as it can be reached.
    package var isTimed: Bool {
        switch state {
        case .offered, .finishing, .adopting: true
        case .copying, .inSync: false
        }
    }

    package var isLearning: Bool {
        switch state {
        case .offered, .copying, .finishing: true
        case .inSync, .adopting: false
        }
    }
}

/// Who waits for a write.
package struct Origin: Hashable, Sendable {
    /// The thread that executed it and must answer.
    package var worker: UInt16
    /// The link that the request came on; 0: one of the worker's own clients.
    package var link: UInt32
    /// The request's number there.
    package var id: UInt64

    package init(worker: UInt16, link: UInt32, id: UInt64) {
        self.worker = worker
        self.link = link
        self.id = id
    }
}

/// An answer that owns its bytes.
package struct Reply: Sendable {
    package var status: ReplyStatus
    package var number: UInt64
    package var flags: UInt32
    package var value: [UInt8]

    package init(_ status: ReplyStatus, number: UInt64 = 0, flags: UInt32 = 0, value: [UInt8] = []) {
        self.status = status
        self.number = number
        self.flags = flags
        self.value = value
    }
}

/// A write that has taken effect here and waits for the copies.
package struct PendingWrite {
    package var position: UInt64
    package var origin: Origin
    package var reply: Reply
    package var since: Instant

    package init(position: UInt64, origin: Origin, reply: Reply, since: Instant) {
        self.position = position
        self.origin = origin
        self.reply = reply
        self.since = since
    }
}

/// The state of a copy for one slice.
package struct Copy {
    package enum State {
        /// Content is arriving; `confirmed` are the hashes that the holder has, by what came so far.
        case learning(confirmed: Set<UInt64>)
        /// All content is there; the holder does not wait for this copy yet.
        case learned(at: Instant)
        /// The holder waits for this copy, under a session of its promises.
        ///
        /// `since`: the holder began to wait no earlier than this, which is a promise by itself until the first one
        /// is asked for and given; nil where this node cannot tell.
        case inSync(session: UInt64, since: Instant?)
        /// This node was the holder and handed over; the new holder waits for it from then on.
        case released(at: Instant)
    }

    package var holder: PeerNumber
    package var epoch: UInt32
    package var stream: UInt64
    /// The number of the last entry applied.
    package var applied: UInt64
    package var position: UInt64
    /// Over the writes that were applied from the stream.
    package var sum = StreamSum()
    package var state: State
    /// Entries that came before their turn.
    package var early: [(sequence: UInt64, body: [UInt8])] = []

    package init(holder: PeerNumber, epoch: UInt32, stream: UInt64, position: UInt64, state: State) {
        self.holder = holder
        self.epoch = epoch
        self.stream = stream
        self.applied = 0
        self.position = position
        self.state = state
    }
}

extension SliceRole {
    /// The holder's state, changed in place. Reading or changing it in another role is a fault of the program.
    package var holder: Holder {
        _read {
            guard case .holder(let holder) = self else { preconditionFailure("the slice has no holder here") }
            yield holder
        }
        _modify {
            guard case .holder(var holder) = self else { preconditionFailure("the slice has no holder here") }
            self = .outside
            defer { self = .holder(holder) }
            yield &holder
        }
    }

    /// The copy's state, changed in place. Reading or changing it in another role is a fault of the program.
    package var copy: Copy {
        _read {
            guard case .copy(let copy) = self else { preconditionFailure("the slice has no copy here") }
            yield copy
        }
        _modify {
            guard case .copy(var copy) = self else { preconditionFailure("the slice has no copy here") }
            self = .outside
            defer { self = .copy(copy) }
            yield &copy
        }
    }

    package var isHolder: Bool {
        if case .holder = self { true } else { false }
    }
}
