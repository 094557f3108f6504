package import ClusterCore
package import Sealing

/// One life of a node: its id, and the generation that a restart raises.
package struct MemberReference: Hashable, Comparable, Sendable {
    package var id: NodeID
    package var generation: UInt64

    package init(id: NodeID, generation: UInt64) {
        self.id = id
        self.generation = generation
    }

    package static func < (left: MemberReference, right: MemberReference) -> Bool {
        (left.id, left.generation) < (right.id, right.generation)
    }
}

extension ByteBuffer {
    package mutating func append(_ member: MemberReference) {
        append(member.id)
        appendInteger(member.generation)
    }
}

extension ByteReader {
    package mutating func member() throws(MalformedBytes) -> MemberReference {
        let id = try nodeID()
        return MemberReference(id: id, generation: try integer())
    }
}

/// A slice and one of its epochs. An epoch rises with each change of holder.
package struct SliceEpoch: Hashable, Sendable {
    package var slice: Int
    package var epoch: UInt32

    /// The highest epoch that is taken from another node: far from any that is reached by rising one at a time, and
    /// with room above, so that raising it cannot overflow.
    package static let epochMax = UInt32.max >> 1

    package init(slice: Int, epoch: UInt32) {
        self.slice = slice
        self.epoch = epoch
    }
}

/// A key's hash and version: what a returning copy has, so that only differences travel.
package struct InventoryEntry: Hashable, Sendable {
    package var hash: UInt64
    package var version: UInt64

    package init(hash: UInt64, version: UInt64) {
        self.hash = hash
        self.version = version
    }
}

/// What nodes say to each other about leases, holders and movement; see ARCHITECTURE.md for the walks.
package enum ControlMessage: Hashable, Sendable {
    /// A holder offers a copy of a slice.
    case offer(slice: Int, epoch: UInt32, stream: UInt64)
    /// The offer is taken; `inventory` is what the learner has of the slice.
    case learn(slice: Int, stream: UInt64, inventory: [InventoryEntry])
    /// An offer, an adoption or an entry is refused: the receiver is no copy in that stream; `epoch` is what it knows.
    case refusal(slice: Int, stream: UInt64, epoch: UInt32)
    /// A new holder goes on with a copy that was in sync with the old one at the same position.
    case adopt(slice: Int, epoch: UInt32, stream: UInt64, session: UInt64, previousEpoch: UInt32, position: UInt64)
    /// The sender wants to be recorded as the holder of slices.
    case claim(Claim)
    case claimReply(ClaimReply)
    /// The sender gives up claims that were not confirmed.
    case withdraw([SliceEpoch])
    /// Asks a witness to confirm the sender's serving lease, and a holder to go on waiting for the sender.
    case leasePing(number: UInt64, holdings: UInt64, report: NodeReport)
    /// `fence` is not 0 where others took slices of the receiver; `session` is not 0 where the sender waits for the
    /// receiver before it acknowledges writes.
    case leasePong(number: UInt64, fence: UInt64, session: UInt64)
    /// The sender asks for the promises of that session back: it wants to go on without the receiver's copies.
    case promiseRecall(session: UInt64)
    /// The sender takes nothing over any more by a promise of that session, nor by what was handed over so far.
    case promiseReturn(session: UInt64)
    case holdingsPull
    /// All slices that the sender serves, and those that it claims and does not serve so far.
    case holdings([SliceEpoch], claimed: [SliceEpoch])
    case tablePull
    /// The sender's whole table of holders: `holders` indexes `members` from 1, 0 is nobody.
    case table(members: [MemberReference], epochs: [UInt32], holders: [UInt16])
    /// The sender is about to stop: nothing is given to it any more.
    case stopping
    /// The sender stops: it serves nothing any more and will claim nothing.
    case release
    /// An operator's word for the receiver, given at another node.
    case order(id: UInt64, NodeOrder)
    /// What came of it; an empty text is success.
    case orderReply(id: UInt64, refusal: String)
    /// The sender's cluster keys. Travels on sealed connections only.
    case keyRing(KeyRing)
    /// Asks for what an examination compares, and to try UDP towards the sender. `number` is the same in all rounds of
    /// an examination.
    case examine(number: UInt64, round: UInt8)
    case examined(ExaminationReply)
}

/// What an operator can ask of one node.
package enum NodeOrder: UInt8, Hashable, Sendable {
    case drain = 1
    /// Also where too few nodes remain for all copies.
    case drainByForce = 2
    case undrain = 3
    /// Removals from the ring wait no longer.
    case releaseBrake = 4
}

/// What a node tells the others about itself, so that any of them can answer an operator.
package struct NodeReport: Hashable, Sendable {
    /// Slices that it holds, and slices of which it has an in-sync copy, held ones included.
    package var primaries: UInt32 = 0
    package var copies: UInt32 = 0
    /// Of the slices that it holds: as the ring wants them, on their way there, short of copies.
    package var settled: UInt32 = 0
    package var moving: UInt32 = 0
    package var short: UInt32 = 0
    package var items: UInt64 = 0
    package var bytes: UInt64 = 0
    /// A drain: slices that it was engaged in at the start, and is still; bytes sent to other nodes. 0 in all: none.
    package var drainTotal: UInt32 = 0
    package var drainLeft: UInt32 = 0
    package var sentBytes: UInt64 = 0
    /// Why a drain does not go on; empty where it does.
    package var blocked = ""

    /// Bytes of `blocked` that travel; what is longer is cut.
    package static let blockedBytesMax = 200

    package init() {}

    func append(to buffer: inout ByteBuffer) {
        for count in [primaries, copies, settled, moving, short, drainTotal, drainLeft] { buffer.appendInteger(count) }
        for count in [items, bytes, sentBytes] { buffer.appendInteger(count) }
        var text = blocked
        while text.utf8.count > Self.blockedBytesMax { text.unicodeScalars.removeLast() }
        buffer.appendShortText(text)
    }

    init(_ reader: inout ByteReader) throws(MalformedBytes) {
        primaries = try reader.integer()
        copies = try reader.integer()
        settled = try reader.integer()
        moving = try reader.integer()
        short = try reader.integer()
        drainTotal = try reader.integer()
        drainLeft = try reader.integer()
        items = try reader.integer()
        bytes = try reader.integer()
        sentBytes = try reader.integer()
        blocked = try reader.shortText()
    }
}

/// A wish to be recorded as holder.
package struct Claim: Hashable, Sendable {
    package enum Ground: Hashable, Sendable {
        /// The old holder has handed the slices over.
        case handedOver
        /// The old holder is silent; its lease must have ended.
        case silent(MemberReference)
        /// Nobody holds the slices and nobody can prove a copy; they start empty.
        case empty
        /// The sender holds the slices, and heard of a claim over it that nobody may have followed up.
        case held
    }

    package var id: UInt64
    package var ground: Ground
    package var entries: [SliceEpoch]

    package init(id: UInt64, ground: Ground, entries: [SliceEpoch]) {
        self.id = id
        self.ground = ground
        self.entries = entries
    }
}

/// A member's answer to a claim, one verdict an entry.
package struct ClaimReply: Hashable, Sendable {
    package enum Verdict: Hashable, Sendable {
        case accepted
        /// Another epoch is known, or the old holder was heard lately.
        case rejected(epoch: UInt32, holder: MemberReference?)
        /// The answering node has an in-sync copy itself.
        case candidate
    }

    package var id: UInt64
    /// Milliseconds since the answering node last heard the silent holder.
    package var ageMilliseconds: UInt32
    package var verdicts: [Verdict]

    package init(id: UInt64, ageMilliseconds: UInt32, verdicts: [Verdict]) {
        self.id = id
        self.ageMilliseconds = ageMilliseconds
        self.verdicts = verdicts
    }
}

/// A member's answer to one round of an examination.
package struct ExaminationReply: Hashable, Sendable {
    package var number: UInt64
    package var round: UInt8
    /// Milliseconds since 1970 by the answering node's wall clock.
    package var unixMilliseconds: UInt64
    /// Something came from the asking node by UDP since the examination's first round.
    package var hasHeardDatagrams: Bool
    /// The answering node sends and takes gossip by UDP.
    package var usesDatagrams: Bool
    /// The answering node's own connections to the asking one work.
    package var isConnected: Bool
    /// Settings that should be equal on all nodes, as `name=value` with spaces between; at most 255 bytes.
    package var settings: String

    package init(
        number: UInt64,
        round: UInt8,
        unixMilliseconds: UInt64,
        hasHeardDatagrams: Bool,
        usesDatagrams: Bool,
        isConnected: Bool,
        settings: String
    ) {
        self.number = number
        self.round = round
        self.unixMilliseconds = unixMilliseconds
        self.hasHeardDatagrams = hasHeardDatagrams
        self.usesDatagrams = usesDatagrams
        self.isConnected = isConnected
        self.settings = settings
    }

    func append(to buffer: inout ByteBuffer) {
        buffer.appendInteger(number)
        buffer.append(round)
        buffer.appendInteger(unixMilliseconds)
        buffer.append((hasHeardDatagrams ? 1 : 0) | (usesDatagrams ? 2 : 0) | (isConnected ? 4 : 0))
        buffer.appendShortText(settings)
    }

    init(_ reader: inout ByteReader) throws(MalformedBytes) {
        number = try reader.integer()
        round = try reader.integer()
        unixMilliseconds = try reader.integer()
        let flags = try reader.integer(UInt8.self)
        guard flags < 8 else { throw MalformedBytes() }
        hasHeardDatagrams = flags & 1 != 0
        usesDatagrams = flags & 2 != 0
        isConnected = flags & 4 != 0
        settings = try reader.shortText()
    }
}

extension ControlMessage {
    /// Appends the message as a frame.
    package func append(to buffer: inout ByteBuffer) {
        let start = Frame.begin(kind, in: &buffer)
        switch self {
        case .offer(let slice, let epoch, let stream):
            buffer.appendSlice(slice)
            buffer.appendInteger(epoch)
            buffer.appendInteger(stream)
        case .learn(let slice, let stream, let inventory):
            buffer.appendSlice(slice)
            buffer.appendInteger(stream)
            for entry in inventory {
                buffer.appendInteger(entry.hash)
                buffer.appendInteger(entry.version)
            }
        case .refusal(let slice, let stream, let epoch):
            buffer.appendSlice(slice)
            buffer.appendInteger(stream)
            buffer.appendInteger(epoch)
        case .adopt(let slice, let epoch, let stream, let session, let previousEpoch, let position):
            buffer.appendSlice(slice)
            buffer.appendInteger(epoch)
            buffer.appendInteger(stream)
            buffer.appendInteger(session)
            buffer.appendInteger(previousEpoch)
            buffer.appendInteger(position)
        case .claim(let claim):
            buffer.appendInteger(claim.id)
            switch claim.ground {
            case .handedOver: buffer.append(1)
            case .silent(let member):
                buffer.append(2)
                buffer.append(member)
            case .empty: buffer.append(3)
            case .held: buffer.append(4)
            }
            buffer.append(claim.entries)
        case .claimReply(let reply):
            buffer.appendInteger(reply.id)
            buffer.appendInteger(reply.ageMilliseconds)
            buffer.appendInteger(UInt32(reply.verdicts.count))
            for verdict in reply.verdicts {
                switch verdict {
                case .accepted: buffer.append(0)
                case .rejected(let epoch, let holder):
                    buffer.append(holder == nil ? 1 : 2)
                    buffer.appendInteger(epoch)
                    if let holder { buffer.append(holder) }
                case .candidate: buffer.append(3)
                }
            }
        case .withdraw(let entries):
            buffer.append(entries)
        case .holdings(let entries, let claimed):
            buffer.append(entries)
            buffer.append(claimed)
        case .leasePing(let number, let holdings, let report):
            buffer.appendInteger(number)
            buffer.appendInteger(holdings)
            report.append(to: &buffer)
        case .order(let id, let order):
            buffer.appendInteger(id)
            buffer.append(order.rawValue)
        case .orderReply(let id, let refusal):
            buffer.appendInteger(id)
            buffer.append(refusal)
        case .keyRing(let ring): buffer.append(ring.encoded)
        case .examine(let number, let round):
            buffer.appendInteger(number)
            buffer.append(round)
        case .examined(let reply): reply.append(to: &buffer)
        case .leasePong(let number, let fence, let session):
            buffer.appendInteger(number)
            buffer.appendInteger(fence)
            buffer.appendInteger(session)
        case .promiseRecall(let session), .promiseReturn(let session): buffer.appendInteger(session)
        case .holdingsPull, .tablePull, .stopping, .release:
            break
        case .table(let members, let epochs, let holders):
            precondition(epochs.count == Slice.count && holders.count == Slice.count, "a table names every slice")
            buffer.appendInteger(UInt16(members.count))
            for member in members { buffer.append(member) }
            for slice in 0..<Slice.count {
                buffer.appendInteger(epochs[slice])
                buffer.appendInteger(holders[slice])
            }
        }
        Frame.end(start, in: &buffer)
    }

    /// Reads the body of a control frame; nil for a frame of another family.
    package init?(_ kind: Frame.Kind, _ body: UnsafeRawBufferPointer) throws(MalformedBytes) {
        var reader = ByteReader(body)
        switch kind {
        case .offer:
            let slice = try reader.slice()
            let epoch = try reader.epoch()
            self = .offer(slice: slice, epoch: epoch, stream: try reader.integer())
        case .learn:
            let slice = try reader.slice()
            let stream = try reader.integer(UInt64.self)
            guard reader.remaining % 16 == 0 else { throw MalformedBytes() }
            var inventory: [InventoryEntry] = []
            inventory.reserveCapacity(reader.remaining / 16)
            while reader.remaining > 0 {
                let hash = try reader.integer(UInt64.self)
                inventory.append(InventoryEntry(hash: hash, version: try reader.integer()))
            }
            self = .learn(slice: slice, stream: stream, inventory: inventory)
        case .refusal:
            let slice = try reader.slice()
            let stream = try reader.integer(UInt64.self)
            self = .refusal(slice: slice, stream: stream, epoch: try reader.epoch())
        case .adopt:
            let slice = try reader.slice()
            let epoch = try reader.epoch()
            let stream = try reader.integer(UInt64.self)
            let session = try reader.integer(UInt64.self)
            let previousEpoch = try reader.epoch()
            self = .adopt(
                slice: slice,
                epoch: epoch,
                stream: stream,
                session: session,
                previousEpoch: previousEpoch,
                position: try reader.version()
            )
        case .claim:
            let id = try reader.integer(UInt64.self)
            let ground: Claim.Ground
            switch try reader.integer(UInt8.self) {
            case 1: ground = .handedOver
            case 2: ground = .silent(try reader.member())
            case 3: ground = .empty
            case 4: ground = .held
            default: throw MalformedBytes()
            }
            self = .claim(Claim(id: id, ground: ground, entries: try reader.sliceEpochs()))
        case .claimReply:
            let id = try reader.integer(UInt64.self)
            let age = try reader.integer(UInt32.self)
            let count = Int(try reader.integer(UInt32.self))
            guard count <= Slice.count else { throw MalformedBytes() }
            var verdicts: [ClaimReply.Verdict] = []
            for _ in 0..<count {
                switch try reader.integer(UInt8.self) {
                case 0: verdicts.append(.accepted)
                case 1: verdicts.append(.rejected(epoch: try reader.epoch(), holder: nil))
                case 2:
                    let epoch = try reader.epoch()
                    verdicts.append(.rejected(epoch: epoch, holder: try reader.member()))
                case 3: verdicts.append(.candidate)
                default: throw MalformedBytes()
                }
            }
            self = .claimReply(ClaimReply(id: id, ageMilliseconds: age, verdicts: verdicts))
        case .withdraw: self = .withdraw(try reader.sliceEpochs())
        case .holdings:
            let served = try reader.sliceEpochs()
            self = .holdings(served, claimed: try reader.sliceEpochs())
        case .leasePing:
            let number = try reader.integer(UInt64.self)
            let holdings = try reader.integer(UInt64.self)
            self = .leasePing(number: number, holdings: holdings, report: try NodeReport(&reader))
        case .order:
            let id = try reader.integer(UInt64.self)
            guard let order = NodeOrder(rawValue: try reader.integer()) else { throw MalformedBytes() }
            self = .order(id: id, order)
        case .orderReply:
            let id = try reader.integer(UInt64.self)
            guard let refusal = String(validating: try reader.rest(), as: UTF8.self) else { throw MalformedBytes() }
            self = .orderReply(id: id, refusal: refusal)
        case .keyRing: self = .keyRing(try KeyRing(encoded: try reader.rest()))
        case .examine:
            let number = try reader.integer(UInt64.self)
            self = .examine(number: number, round: try reader.integer())
        case .examined: self = .examined(try ExaminationReply(&reader))
        case .leasePong:
            let number = try reader.integer(UInt64.self)
            let fence = try reader.integer(UInt64.self)
            self = .leasePong(number: number, fence: fence, session: try reader.integer())
        case .promiseRecall: self = .promiseRecall(session: try reader.integer())
        case .promiseReturn: self = .promiseReturn(session: try reader.integer())
        case .holdingsPull: self = .holdingsPull
        case .tablePull: self = .tablePull
        case .stopping: self = .stopping
        case .release: self = .release
        case .table:
            let count = Int(try reader.integer(UInt16.self))
            var members: [MemberReference] = []
            for _ in 0..<count { members.append(try reader.member()) }
            guard reader.remaining == Slice.count * 6 else { throw MalformedBytes() }
            var epochs: [UInt32] = []
            var holders: [UInt16] = []
            epochs.reserveCapacity(Slice.count)
            holders.reserveCapacity(Slice.count)
            for _ in 0..<Slice.count {
                epochs.append(try reader.epoch())
                let holder = try reader.integer(UInt16.self)
                guard Int(holder) <= count else { throw MalformedBytes() }
                holders.append(holder)
            }
            self = .table(members: members, epochs: epochs, holders: holders)
        case .hello, .request, .response, .entry, .acknowledgement, .exchange, .exchangeReply, .merge,
            .accesses, .gossip:
            return nil
        }
        guard reader.remaining == 0 else { throw MalformedBytes() }
    }

    private var kind: Frame.Kind {
        switch self {
        case .offer: .offer
        case .learn: .learn
        case .refusal: .refusal
        case .adopt: .adopt
        case .claim: .claim
        case .claimReply: .claimReply
        case .withdraw: .withdraw
        case .leasePing: .leasePing
        case .leasePong: .leasePong
        case .promiseRecall: .promiseRecall
        case .promiseReturn: .promiseReturn
        case .holdingsPull: .holdingsPull
        case .holdings: .holdings
        case .tablePull: .tablePull
        case .table: .table
        case .stopping: .stopping
        case .release: .release
        case .order: .order
        case .orderReply: .orderReply
        case .keyRing: .keyRing
        case .examine: .examine
        case .examined: .examined
        }
    }
}

extension ByteBuffer {
    fileprivate mutating func appendSlice(_ slice: Int) {
        appendInteger(UInt16(truncatingIfNeeded: slice))
    }

    fileprivate mutating func append(_ entries: [SliceEpoch]) {
        precondition(entries.count <= Slice.count, "a frame names \(entries.count) slices, more than there are")
        appendInteger(UInt32(entries.count))
        for entry in entries {
            appendSlice(entry.slice)
            appendInteger(entry.epoch)
        }
    }
}

extension ByteReader {
    fileprivate mutating func sliceEpochs() throws(MalformedBytes) -> [SliceEpoch] {
        let count = Int(try integer(UInt32.self))
        guard count <= Slice.count, remaining >= count * 6 else { throw MalformedBytes() }
        var entries: [SliceEpoch] = []
        entries.reserveCapacity(count)
        for _ in 0..<count {
            let slice = try slice()
            entries.append(SliceEpoch(slice: slice, epoch: try epoch()))
        }
        return entries
    }
}
