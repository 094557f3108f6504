package import ClusterCore
internal import Crypto
package import Membership

// Sealing of gossip.
//
// The problem: whoever can send a datagram to a node could tell it that all others are gone. With a shared key in hand,
// the usual way (one key, a random nonce for each packet) fails in three places: nonces repeat after some 2^32 packets
// under a key; a captured packet can be sent again, hours later or to a node that has just restarted and remembers
// nothing; and the extra bytes break the budget of an idle node.
//
// The idea: each start of a node draws 64 random *start bits*. A packet from one start to another is sealed under a key
// that is derived from the cluster key and both sides' start bits, with a counter for a nonce. So it opens at one node,
// in one run of it, and once: a replay window per sender's start sees to the last. A node that does not know the start
// bits at an address asks for them with a *hello*, sealed under a key of its own start bits alone; nothing is learned
// from a hello, since it may be old. The answer is sealed for the asker, and so proves that it is fresh. The first
// packet that opens under the pair's key proves the other direction.
//
// Since a session knows who is at both ends, the part of a datagram that says so (48 bytes) need not travel: with all
// its headers a sealed ping is shorter than a plain one.
//
// On the wire, little-endian:
//
//     offset 0  "HS"   2  version   3  flags   4  cluster tag   8  key id   12  sender's start bits
//     offset 20 start of the receiver's start bits, 0 in a hello   24  counter   32  sealed body   then the tag, 16 bytes
//
// The header and the cluster's name are authenticated with the body.

/// Seals what a node's membership sends and opens what comes, with AES-256-GCM.
package struct GossipSealer: Sendable {
    /// How many bytes sealing adds to a datagram, at most.
    package static let overheadBytes = headerBytes + tagBytes
    static let headerBytes = 32
    static let tagBytes = 16
    private static let version: UInt8 = 1

    /// Sessions with starts of other nodes, at most; beyond it the oldest goes, and is made anew when it is needed.
    package static let sessionsMax = 8192
    /// Addresses that were asked for their start bits and have not answered, at most.
    package static let pendingMax = 1024
    /// Datagrams that wait for one of them, at most; beyond it the oldest goes.
    static let waitingMax = 4
    /// How long an address is waited for.
    static let pendingMilliseconds: UInt64 = 5000
    /// How soon an address is asked again.
    static let helloMilliseconds: UInt64 = 100
    /// Packets of unknown starts that are tried, a second.
    static let strangersPerSecond: UInt64 = 4000
    /// Hellos to those whose packets this node could not open, a second.
    static let challengesPerSecond: UInt64 = 50

    private struct Flags: OptionSet {
        let rawValue: UInt8
        static let hello = Flags(rawValue: 1)
        static let reply = Flags(rawValue: 2)
        /// The datagram's header is that of the session.
        static let short = Flags(rawValue: 4)
        /// With `short`: the datagram has no target.
        static let untargeted = Flags(rawValue: 8)
        static let known: Flags = [.hello, .reply, .short, .untargeted]
    }

    /// One start of another node, proven to live while this one does.
    private struct Session: Sendable {
        /// The upper half of its counters, rising from session to session; no two have the same, so that none repeats.
        var ordinal: UInt64
        let peer: GossipDatagram.Origin
        /// It has a session with this start too, and so needs no long headers.
        var knowsUs: Bool
        /// It seals with this node's primary key, or is about to.
        var hasPrimary = true
        /// The key under which it said hello.
        var introducedWith: ClusterKeyID
        var sent: UInt64 = 0
        var lastHello: UInt64 = 0
        var window: ReplayWindow
        var outgoing: DerivedKey?
        var incoming: [DerivedKey] = []
    }

    private struct DerivedKey: Sendable {
        var id: ClusterKeyID
        var key: SymmetricKey
    }

    /// An address whose start bits are not known.
    private struct Pending: Sendable {
        var since: Instant
        var helloAt: Instant
        var hellos: [UInt64]
        var waiting: [[UInt8]] = []
    }

    private let clusterName: [UInt8]
    private let clusterTag: UInt32
    private let own: GossipDatagram.Origin
    private let startBits: UInt64
    package private(set) var ring: KeyRing
    private var helloKeys: [DerivedKey] = []
    private var sessions: [UInt64: Session] = [:]
    /// Start bits in the order of their sessions.
    private var order: [UInt64] = []
    private var addresses: [Endpoint: UInt64] = [:]
    private var pending: [Endpoint: Pending] = [:]
    private var ordinal: UInt64 = 0
    private var hellosSent: UInt64 = 0
    private var strangers: RateLimit
    private var challenges: RateLimit
    /// Counts since the start.
    package private(set) var statistics = SealingStatistics()

    /// - Parameters:
    ///   - own: the node, as its datagrams name it.
    ///   - startBits: 64 random bits, drawn for this start and never used again.
    package init(ring: KeyRing, clusterName: String, own: GossipDatagram.Origin, startBits: UInt64, now: Instant) {
        self.ring = ring
        self.clusterName = Array(clusterName.utf8)
        self.clusterTag = UInt32(truncatingIfNeeded: GossipDatagram.tag(ofCluster: clusterName))
        self.own = own
        self.startBits = startBits
        strangers = RateLimit(perSecond: Self.strangersPerSecond, burst: Self.strangersPerSecond, now: now)
        challenges = RateLimit(perSecond: Self.challengesPerSecond, burst: Self.challengesPerSecond, now: now)
    }

    /// Whether bytes look like a sealed packet, to whoever has no key.
    package static func isSealed(_ bytes: UnsafeRawBufferPointer) -> Bool { Header(bytes) != nil }

    /// Sessions and addresses without one, for metrics.
    package var sessionCount: Int { sessions.count }
    package var pendingCount: Int { pending.count }

    /// Seals with the keys of another ring from now on.
    package mutating func adopt(_ ring: KeyRing) {
        let isRotated = ring.primary != self.ring.primary
        self.ring = ring
        helloKeys.removeAll { ring[$0.id] == nil }
        for startBits in order {
            sessions[startBits]?.incoming.removeAll { ring[$0.id] == nil }
            // A key is used once all that live have it; who was away says hello under an older one.
            if isRotated { sessions[startBits]?.hasPrimary = true }
        }
    }

    // MARK: - Sealing

    /// Seals a datagram for an address, and puts what is to be sent into `packets`: the packet, or a hello that asks
    /// who lives there, after whose answer the datagram follows.
    package mutating func seal(_ datagram: [UInt8], to endpoint: Endpoint, now: Instant, packets: inout [GossipPacket])
    {
        if let startBits = addresses[endpoint], sessions[startBits] != nil {
            packets.append(GossipPacket(bytes: packet(datagram, to: startBits), endpoint: endpoint))
            return
        }
        guard let index = waitFor(endpoint, now) else {
            statistics.unsent &+= 1
            return
        }
        pending.values[index].waiting.append(datagram)
        if pending.values[index].waiting.count > Self.waitingMax {
            pending.values[index].waiting.removeFirst()
            statistics.unsent &+= 1
        }
        askIfDue(endpoint, now, packets: &packets)
    }

    private mutating func packet(_ datagram: [UInt8], to startBits: UInt64) -> [UInt8] {
        guard let session = sessions[startBits] else { preconditionFailure("no session with that start") }
        var flags: Flags = []
        var body = datagram
        if session.knowsUs, let header = GossipDatagram.Header(of: datagram), header.origin == own,
            header.target == nil || header.target == session.peer.node
        {
            flags = header.target == nil ? [.short, .untargeted] : .short
            body = GossipDatagram.withoutHeader(datagram)
        }
        return sealed(body, flags, to: startBits)
    }

    /// Seals a body under the pair's key.
    private mutating func sealed(_ body: [UInt8], _ flags: Flags, to startBits: UInt64) -> [UInt8] {
        guard var session = sessions[startBits] else { preconditionFailure("no session with that start") }
        let keyID =
            session.hasPrimary || ring[session.introducedWith] == nil ? ring.primary : session.introducedWith
        let key: DerivedKey
        if let known = session.outgoing, known.id == keyID {
            key = known
        } else {
            key = DerivedKey(id: keyID, key: derive(keyID, self.startBits, startBits))
            session.outgoing = key
        }
        if session.sent == UInt64(UInt32.max) {
            ordinal += 1
            session.ordinal = ordinal
            session.sent = 0
        }
        session.sent += 1
        sessions[startBits] = session
        return seal(body, flags, key, receiver: startBits, counter: session.ordinal << 32 | session.sent)
    }

    private mutating func seal(
        _ body: [UInt8],
        _ flags: Flags,
        _ key: DerivedKey,
        receiver: UInt64,
        counter: UInt64
    ) -> [UInt8] {
        var buffer = ByteBuffer(capacity: Self.headerBytes)
        buffer.append(UInt8(ascii: "H"))
        buffer.append(UInt8(ascii: "S"))
        buffer.append(Self.version)
        buffer.append(flags.rawValue)
        buffer.appendInteger(clusterTag)
        buffer.appendInteger(key.id.value)
        buffer.appendInteger(startBits)
        buffer.appendInteger(UInt32(truncatingIfNeeded: receiver))
        buffer.appendInteger(counter)
        var packet = buffer.array()
        AEAD.seal(body, with: key.key, counter: counter, authenticating: packet + clusterName, into: &packet)
        statistics.sealed &+= 1
        return packet
    }

    private func derive(_ id: ClusterKeyID, _ sender: UInt64, _ receiver: UInt64) -> SymmetricKey {
        guard let key = ring[id] else { preconditionFailure("no key \(id) in the ring") }
        var salt = ByteBuffer(capacity: 16)
        salt.appendInteger(sender)
        salt.appendInteger(receiver)
        return AEAD.derive(from: key.material, salt: salt.array(), purpose: "henge gossip 1", clusterName)
    }

    // MARK: - Asking who lives at an address

    /// Makes room for an address that is waited for; nil where there is none.
    private mutating func waitFor(_ endpoint: Endpoint, _ now: Instant) -> Dictionary<Endpoint, Pending>.Index? {
        if let index = pending.index(forKey: endpoint) {
            if now.milliseconds(since: pending.values[index].since) > Self.pendingMilliseconds {
                pending.values[index].waiting = []
                pending.values[index].since = now
            }
            return index
        }
        if pending.count >= Self.pendingMax {
            pending = pending.filter { now.milliseconds(since: $0.value.since) <= Self.pendingMilliseconds }
            guard pending.count < Self.pendingMax else { return nil }
        }
        pending[endpoint] = Pending(since: now, helloAt: Instant(nanoseconds: 0), hellos: [])
        return pending.index(forKey: endpoint)
    }

    private mutating func askIfDue(_ endpoint: Endpoint, _ now: Instant, packets: inout [GossipPacket]) {
        guard var asked = pending[endpoint],
            asked.hellos.isEmpty || now.milliseconds(since: asked.helloAt) >= Self.helloMilliseconds
        else { return }
        // A node that lacks the newest key answers to an older one: all are tried in turn.
        let ids = ring.ids
        let id = ids[asked.hellos.count % ids.count]
        hellosSent += 1
        asked.helloAt = now
        asked.hellos.append(hellosSent)
        if asked.hellos.count > KeyRing.keysMax * 4 { asked.hellos.removeFirst(ids.count) }
        pending[endpoint] = asked
        let key: DerivedKey
        if let known = helloKeys.first(where: { $0.id == id }) {
            key = known
        } else {
            key = DerivedKey(id: id, key: derive(id, startBits, 0))
            helloKeys.append(key)
        }
        let packet = seal([], .hello, key, receiver: 0, counter: hellosSent)
        statistics.hellos &+= 1
        packets.append(GossipPacket(bytes: packet, endpoint: endpoint))
    }

    /// Says hello to somebody whose packets show that it does not know this start.
    private mutating func challenge(_ endpoint: Endpoint, _ now: Instant, packets: inout [GossipPacket]) {
        guard challenges.take(now), waitFor(endpoint, now) != nil else { return }
        askIfDue(endpoint, now, packets: &packets)
    }

    // MARK: - Opening

    /// Opens a packet. Returns the datagram in it, or why there is none; answers are put into `packets`.
    package mutating func open(
        _ bytes: UnsafeRawBufferPointer,
        from endpoint: Endpoint,
        now: Instant,
        packets: inout [GossipPacket]
    ) -> OpenedPacket {
        let opened = read(bytes, from: endpoint, now, packets: &packets)
        switch opened {
        case .datagram: statistics.opened &+= 1
        case .nothing: break
        case .refused(let cause): statistics.refused[cause, default: 0] &+= 1
        }
        return opened
    }

    private mutating func read(
        _ bytes: UnsafeRawBufferPointer,
        from endpoint: Endpoint,
        _ now: Instant,
        packets: inout [GossipPacket]
    ) -> OpenedPacket {
        guard let header = Header(bytes) else {
            return .refused(GossipDatagram.Header(of: bytes) == nil ? .malformed : .plain)
        }
        guard header.clusterTag == clusterTag else { return .refused(.foreignCluster) }
        let keyID = ClusterKeyID(header.keyID)
        guard ring[keyID] != nil else {
            // It may not know yet that this node lacks the key; a hello under one that both have tells it.
            if addresses[endpoint] != nil { challenge(endpoint, now, packets: &packets) }
            return .refused(.unknownKey)
        }
        if header.flags.contains(.hello) {
            return answerHello(header, keyID, bytes, from: endpoint, now, packets: &packets)
        }
        guard header.receiver == UInt32(truncatingIfNeeded: startBits) else {
            challenge(endpoint, now, packets: &packets)
            return .refused(.outdated)
        }
        if let session = sessions[header.sender] {
            guard session.window.isFresh(header.counter) else { return .refused(.replayed) }
        } else {
            guard strangers.take(now) else { return .refused(.overLimit) }
        }
        let known = sessions[header.sender]?.incoming.first { $0.id == keyID }
        let key = known ?? DerivedKey(id: keyID, key: derive(keyID, header.sender, startBits))
        guard let body = AEAD.open(bytes, after: Self.headerBytes, with: key.key, header.counter, clusterName) else {
            return .refused(.forged)
        }
        if header.flags.contains(.reply) {
            return takeReply(header, keyID, body, from: endpoint, packets: &packets)
        }
        guard let datagram = datagram(body, header) else {
            if sessions[header.sender] == nil { challenge(endpoint, now, packets: &packets) }
            return .refused(sessions[header.sender] == nil ? .outdated : .malformed)
        }
        if sessions[header.sender] == nil {
            guard let origin = GossipDatagram.Header(of: datagram)?.origin else { return .refused(.malformed) }
            begin(with: header, origin, introducedWith: keyID, knowsUs: true)
        }
        sessions[header.sender]?.knowsUs = true
        sessions[header.sender]?.window.note(header.counter)
        if known == nil { sessions[header.sender]?.incoming.append(key) }
        if keyID == ring.primary { sessions[header.sender]?.hasPrimary = true }
        map(endpoint, to: header.sender)
        return .datagram(datagram)
    }

    /// The whole datagram; nil where the body is none, or is short and there is no session that tells the rest.
    private func datagram(_ body: [UInt8], _ header: Header) -> [UInt8]? {
        guard header.flags.contains(.short) else { return body }
        guard let session = sessions[header.sender] else { return nil }
        let target = header.flags.contains(.untargeted) ? nil : own.node
        return GossipDatagram.withHeader(GossipDatagram.Header(origin: session.peer, target: target), body)
    }

    /// Tells whoever asks this node's start bits, sealed for that asker.
    private mutating func answerHello(
        _ header: Header,
        _ keyID: ClusterKeyID,
        _ bytes: UnsafeRawBufferPointer,
        from endpoint: Endpoint,
        _ now: Instant,
        packets: inout [GossipPacket]
    ) -> OpenedPacket {
        // The own hello, to a seed that is this node itself, comes here as well: it is answered like any, so that
        // membership finds itself.
        if let session = sessions[header.sender], header.counter <= session.lastHello { return .refused(.replayed) }
        guard strangers.take(now) else { return .refused(.overLimit) }
        let key = derive(keyID, header.sender, 0)
        guard AEAD.open(bytes, after: Self.headerBytes, with: key, header.counter, clusterName) != nil else {
            return .refused(.forged)
        }
        var body = ByteBuffer(capacity: 32)
        body.appendInteger(header.counter)
        body.append(own.encoded)
        if sessions[header.sender] != nil {
            sessions[header.sender]?.lastHello = header.counter
            sessions[header.sender]?.introducedWith = keyID
            if keyID != ring.primary { sessions[header.sender]?.hasPrimary = false }
            let packet = sealed(body.array(), .reply, to: header.sender)
            packets.append(GossipPacket(bytes: packet, endpoint: endpoint))
        } else {
            ordinal += 1
            let reply = DerivedKey(id: keyID, key: derive(keyID, startBits, header.sender))
            let packet = seal(body.array(), .reply, reply, receiver: header.sender, counter: ordinal << 32)
            packets.append(GossipPacket(bytes: packet, endpoint: endpoint))
        }
        // Another start answers at an address that this node knows: it has to be asked itself, a hello may be old.
        if let mapped = addresses[endpoint], mapped != header.sender { challenge(endpoint, now, packets: &packets) }
        return .nothing
    }

    private mutating func takeReply(
        _ header: Header,
        _ keyID: ClusterKeyID,
        _ body: [UInt8],
        from endpoint: Endpoint,
        packets: inout [GossipPacket]
    ) -> OpenedPacket {
        guard let (echo, origin) = Self.reply(body) else { return .refused(.malformed) }
        var asked = endpoint
        if pending[endpoint]?.hellos.contains(echo) != true {
            // It answers from another address than the one that was asked; no two hellos have the same number.
            guard let found = pending.first(where: { $0.value.hellos.contains(echo) }) else {
                return .refused(.replayed)
            }
            asked = found.key
        }
        if sessions[header.sender] == nil {
            begin(with: header, origin, introducedWith: keyID, knowsUs: false)
            if keyID != ring.primary { sessions[header.sender]?.hasPrimary = false }
        }
        sessions[header.sender]?.window.note(header.counter)
        map(asked, to: header.sender)
        map(endpoint, to: header.sender)
        let waiting = pending.removeValue(forKey: asked)?.waiting ?? []
        for datagram in waiting {
            packets.append(GossipPacket(bytes: packet(datagram, to: header.sender), endpoint: asked))
        }
        return .nothing
    }

    private static func reply(_ body: [UInt8]) -> (echo: UInt64, origin: GossipDatagram.Origin)? {
        body.withUnsafeBytes { bytes in
            var reader = ByteReader(bytes)
            guard let echo = try? reader.integer(UInt64.self), let origin = try? GossipDatagram.Origin(reader: &reader)
            else { return nil }
            return (echo, origin)
        }
    }

    /// Begins with the first packet that proves the other start alive; what it sent before counts as seen.
    private mutating func begin(
        with header: Header,
        _ peer: GossipDatagram.Origin,
        introducedWith keyID: ClusterKeyID,
        knowsUs: Bool
    ) {
        if order.count >= Self.sessionsMax { sessions[order.removeFirst()] = nil }
        ordinal += 1
        sessions[header.sender] = Session(
            ordinal: ordinal,
            peer: peer,
            knowsUs: knowsUs,
            introducedWith: keyID,
            window: ReplayWindow(after: header.counter)
        )
        order.append(header.sender)
    }

    /// Notes which start lives at an address; late packets of an earlier one change nothing.
    private mutating func map(_ endpoint: Endpoint, to startBits: UInt64) {
        guard let session = sessions[startBits] else { return }
        if let known = addresses[endpoint], known != startBits, let other = sessions[known],
            other.ordinal > session.ordinal
        {
            return
        }
        if addresses[endpoint] == nil, addresses.count >= Self.sessionsMax {
            addresses = addresses.filter { sessions[$0.value] != nil }
            guard addresses.count < Self.sessionsMax else { return }
        }
        addresses[endpoint] = startBits
    }

    /// What stands in clear.
    private struct Header {
        var flags: Flags
        var clusterTag: UInt32
        var keyID: UInt32
        var sender: UInt64
        var receiver: UInt32
        var counter: UInt64

        init?(_ bytes: UnsafeRawBufferPointer) {
            guard bytes.count >= GossipSealer.headerBytes + GossipSealer.tagBytes,
                bytes[0] == UInt8(ascii: "H"), bytes[1] == UInt8(ascii: "S"), bytes[2] == GossipSealer.version
            else { return nil }
            flags = Flags(rawValue: bytes[3])
            guard flags.subtracting(.known).isEmpty else { return nil }
            func load<Integer: FixedWidthInteger>(_ offset: Int, _: Integer.Type) -> Integer {
                Integer(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Integer.self))
            }
            clusterTag = load(4, UInt32.self)
            keyID = load(8, UInt32.self)
            sender = load(12, UInt64.self)
            receiver = load(20, UInt32.self)
            counter = load(24, UInt64.self)
        }
    }
}

/// Bytes for an address.
package struct GossipPacket: Hashable, Sendable {
    package var bytes: [UInt8]
    package var endpoint: Endpoint
}

/// What was in a packet.
package enum OpenedPacket: Hashable, Sendable {
    case datagram([UInt8])
    /// It was part of finding each other; there is nothing for membership in it.
    case nothing
    /// It changes nothing.
    case refused(SealingRefusal)
}

/// Why a packet or a connection was refused.
package enum SealingRefusal: String, Hashable, Sendable, CaseIterable {
    /// Not in a form that this version knows.
    case malformed
    /// Not sealed, where this node has a cluster key.
    case plain
    /// Sealed, where this node has no cluster key.
    case sealed
    /// Of another cluster's name.
    case foreignCluster = "foreign-cluster"
    /// Sealed with a key that this node does not have.
    case unknownKey = "unknown-key"
    /// Not sealed by who has the key, or changed on the way.
    case forged
    /// Seen before, or too late to tell.
    case replayed
    /// Meant for an earlier start of this node, or one that it has let go.
    case outdated
    /// Beyond the limit of strangers' packets.
    case overLimit = "over-limit"
}

/// Counts since the start.
package struct SealingStatistics: Hashable, Sendable {
    package var sealed: UInt64 = 0
    package var opened: UInt64 = 0
    package var hellos: UInt64 = 0
    /// Datagrams that found no room while their receiver was asked for its start bits.
    package var unsent: UInt64 = 0
    package var refused: [SealingRefusal: UInt64] = [:]

    package init() {}
}
