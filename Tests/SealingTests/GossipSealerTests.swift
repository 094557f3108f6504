import ClusterCore
import Membership
import Testing

@testable import Sealing

/// Some nodes that send each other datagrams through their sealers, over a network that a test bends.
private struct Network {
    struct Node {
        var sealer: GossipSealer
        let id: NodeID
        let endpoint: Endpoint
        let generation: UInt64
        /// Datagrams that were opened.
        var received: [[UInt8]] = []
    }

    var nodes: [Node] = []
    /// Under way.
    var packets: [(packet: GossipPacket, from: Endpoint)] = []
    /// All that ever was.
    var captured: [(packet: GossipPacket, from: Endpoint)] = []
    var now = Instant(nanoseconds: 1_000_000_000)
    var name = "henge"

    init(_ count: Int, ring: KeyRing = KeyRing(KeyRingTests.key(1)), name: String = "henge") {
        self.name = name
        for index in 0..<count { nodes.append(Self.node(index, generation: 1, ring, name, now)) }
    }

    /// `startBits`: nil where the start draws its own.
    static func node(
        _ index: Int,
        generation: UInt64,
        startBits: UInt64? = nil,
        _ ring: KeyRing,
        _ name: String,
        _ now: Instant
    ) -> Node {
        let id = NodeID(high: 1, low: UInt64(index + 1))
        let origin = GossipDatagram.Origin(
            clusterTag: GossipDatagram.tag(ofCluster: name),
            node: id,
            generation: generation
        )
        return Node(
            sealer: GossipSealer(
                ring: ring,
                clusterName: name,
                own: origin,
                startBits: startBits ?? KeyHash.mix(UInt64(index + 1) << 32 | generation),
                now: now
            ),
            id: id,
            endpoint: Endpoint(.v4(0x7f00_0001), port: UInt16(7000 + index)),
            generation: generation
        )
    }

    mutating func restart(_ index: Int, ring: KeyRing? = nil) {
        let old = nodes[index]
        nodes[index] = Self.node(index, generation: old.generation + 1, ring ?? old.sealer.ring, name, now)
    }

    /// A disk that was restored: the generation is the one before.
    mutating func restore(_ index: Int, startBits: UInt64) {
        let old = nodes[index]
        nodes[index] = Self.node(
            index,
            generation: old.generation,
            startBits: startBits,
            old.sealer.ring,
            name,
            now
        )
    }

    func datagram(_ from: Int, to: Int?, _ sequence: UInt32) -> [UInt8] {
        GossipDatagram(
            clusterTag: GossipDatagram.tag(ofCluster: name),
            sender: nodes[from].id,
            senderGeneration: nodes[from].generation,
            target: to.map { nodes[$0].id },
            message: .nack(sequence: sequence)
        ).encoded()
    }

    /// Returns the datagram that node `from` hands to its sealer.
    @discardableResult
    mutating func send(_ from: Int, to: Int, targeted: Bool = true, _ sequence: UInt32) -> [UInt8] {
        let datagram = datagram(from, to: targeted ? to : nil, sequence)
        var out: [GossipPacket] = []
        nodes[from].sealer.seal(datagram, to: nodes[to].endpoint, now: now, packets: &out)
        post(out, from: nodes[from].endpoint)
        return datagram
    }

    mutating func post(_ out: [GossipPacket], from: Endpoint) {
        for packet in out {
            packets.append((packet, from))
            captured.append((packet, from))
        }
    }

    @discardableResult
    mutating func deliver(_ packet: GossipPacket, from: Endpoint) -> OpenedPacket {
        guard let index = nodes.firstIndex(where: { $0.endpoint == packet.endpoint }) else { return .nothing }
        var out: [GossipPacket] = []
        let opened = packet.bytes.withUnsafeBytes {
            nodes[index].sealer.open($0, from: from, now: now, packets: &out)
        }
        if case .datagram(let datagram) = opened { nodes[index].received.append(datagram) }
        post(out, from: nodes[index].endpoint)
        return opened
    }

    mutating func run() {
        var rounds = 0
        while !packets.isEmpty {
            let (packet, from) = packets.removeFirst()
            deliver(packet, from: from)
            rounds += 1
            precondition(rounds < 100_000, "packets answer packets without end")
        }
    }
}

@Suite struct GossipSealerTests {
    @Test func `a first datagram arrives after three packets, later ones at once and shorter`() {
        var network = Network(2)
        let first = network.send(0, to: 1, 1)
        network.run()
        #expect(network.captured.count == 3, "hello, reply, datagram")
        #expect(network.nodes[1].received == [first])
        let answer = network.send(1, to: 0, 2)
        network.run()
        #expect(network.captured.count == 4)
        #expect(network.nodes[0].received == [answer])
        let untargeted = network.send(0, to: 1, targeted: false, 3)
        network.run()
        #expect(network.nodes[1].received.last == untargeted)
        let packet = network.captured[4].packet.bytes
        // 32 header, 1 kind, 4 sequence, 16 tag; 56 plain.
        #expect(packet.count == 53)
        #expect(GossipSealer.overheadBytes == 48)
    }

    @Test func `nothing that was captured changes anything when it comes again`() {
        var network = Network(3)
        for round in 0..<20 {
            for from in 0..<3 { network.send(from, to: (from + 1) % 3, UInt32(round)) }
            network.run()
            network.now = network.now.advanced(byMilliseconds: 150)
        }
        let received = network.nodes.map(\.received.count)
        #expect(received == [20, 20, 20])
        let captured = network.captured
        for (packet, from) in captured { network.deliver(packet, from: from) }
        network.run()
        #expect(network.nodes.map(\.received.count) == received)
        let replayed = network.nodes.map { $0.sealer.statistics.refused[.replayed] ?? 0 }
        #expect(replayed.allSatisfy { $0 >= 20 }, "\(replayed)")
        // From other addresses, to other nodes.
        for (packet, from) in captured {
            for target in 0..<3 where network.nodes[target].endpoint != packet.endpoint {
                let opened = network.deliver(
                    GossipPacket(bytes: packet.bytes, endpoint: network.nodes[target].endpoint),
                    from: from
                )
                if case .datagram = opened { Issue.record("a packet for another node opened") }
            }
        }
        network.run()
        #expect(network.nodes.map(\.received.count) == received)
    }

    @Test func `a node that restarts takes nothing that was captured before`() {
        var network = Network(2)
        for round in 0..<10 {
            network.send(0, to: 1, UInt32(round))
            network.send(1, to: 0, UInt32(round))
            network.run()
        }
        let captured = network.captured
        network.restart(1)
        network.packets = []
        for (packet, from) in captured { network.deliver(packet, from: from) }
        network.run()
        #expect(network.nodes[1].received.isEmpty)
        #expect(network.nodes[1].sealer.statistics.refused[.outdated] ?? 0 >= 10)
    }

    @Test func `sender and receiver find each other again after the restart of either`() {
        var network = Network(2)
        for round in 0..<30 {
            if round % 3 == 1 { network.restart(round / 3 % 2) }
            // The packet that shows one side the other's restart is lost; the next ones arrive.
            for sequence in 0..<3 {
                network.send(0, to: 1, UInt32(round * 10 + sequence))
                network.run()
                network.now = network.now.advanced(byMilliseconds: 150)
            }
            let last = network.datagram(0, to: 1, UInt32(round * 10 + 2))
            #expect(network.nodes[1].received.last == last, "round \(round)")
        }
    }

    @Test(arguments: 1...100)
    func `over a bad network every datagram arrives at most once, unchanged`(_ seed: Int) {
        var random = Xoshiro256(seed: UInt64(seed))
        var network = Network(4)
        var sent: Set<[UInt8]> = []
        for sequence in 0..<400 {
            let from = Int.random(in: 0..<4, using: &random)
            let to = (from + Int.random(in: 1...3, using: &random)) % 4
            sent.insert(network.send(from, to: to, targeted: Bool.random(using: &random), UInt32(sequence)))
            if Int.random(in: 0..<60, using: &random) == 0 { network.restart(Int.random(in: 0..<4, using: &random)) }
            network.now = network.now.advanced(byMilliseconds: UInt64.random(in: 0...40, using: &random))
            while !network.packets.isEmpty, Int.random(in: 0..<10, using: &random) != 0 {
                let index = Int.random(in: 0..<network.packets.count, using: &random)
                var (packet, from) = network.packets.remove(at: index)
                switch Int.random(in: 0..<10, using: &random) {
                case 0: continue
                case 1: network.packets.append((packet, from))
                case 2: packet.bytes[Int.random(in: 0..<packet.bytes.count, using: &random)] ^= 1
                case 3: packet.bytes.removeLast(Int.random(in: 1..<packet.bytes.count, using: &random))
                case 4:
                    if let old = network.captured.randomElement(using: &random) { (packet, from) = old }
                default: break
                }
                network.deliver(packet, from: from)
            }
        }
        for (index, node) in network.nodes.enumerated() {
            #expect(node.received.allSatisfy { sent.contains($0) }, "seed \(seed), node \(index)")
            #expect(Set(node.received).count == node.received.count, "seed \(seed), node \(index) received twice")
            #expect(node.sealer.pendingCount <= GossipSealer.pendingMax)
        }
        #expect(network.nodes.contains { $0.received.count > 10 }, "seed \(seed)")
    }

    /// Packets with a nonce that an earlier one had under the same key.
    private func repeatedNonces(_ network: Network) -> Int {
        // A key follows from the key id and both sides' start bits; the receiver's stand in the header in part only,
        // and its address tells them apart here.
        var seen: Set<[UInt8]> = []
        return network.captured.count { packet, _ in
            let bytes = packet.bytes
            let hello = bytes[3] & 1
            let name = Array(bytes[8..<32]) + [hello] + (hello == 1 ? [] : [UInt8(packet.endpoint.port & 0xff)])
            return !seen.insert(name).inserted
        }
    }

    @Test(arguments: [false, true])
    func `a restored disk repeats no nonce, for each start draws bits of its own`(_ drawsBits: Bool) {
        var network = Network(2)
        for start in 1...3 as ClosedRange<UInt64> {
            network.restore(0, startBits: KeyHash.mix(drawsBits ? start : 1))
            for sequence in 0..<20 as Range<UInt32> {
                network.send(0, to: 1, sequence)
                network.run()
                network.now = network.now.advanced(byMilliseconds: 20)
            }
        }
        // Without them the check sees what it is for.
        #expect((repeatedNonces(network) == 0) == drawsBits)
    }

    @Test func `no nonce is used twice under a key`() {
        var random = Xoshiro256(seed: 5)
        var network = Network(3)
        for sequence in 0..<3000 {
            let from = Int.random(in: 0..<3, using: &random)
            network.send(from, to: (from + 1) % 3, UInt32(sequence))
            if sequence % 100 == 7 { network.restart(sequence / 100 % 3) }
            if Int.random(in: 0..<4, using: &random) != 0 { network.run() }
            network.now = network.now.advanced(byMilliseconds: 20)
        }
        #expect(repeatedNonces(network) == 0)
        #expect(network.captured.count > 3000)
    }

    @Test func `strangers are refused by cause and change nothing`() {
        var network = Network(2)
        network.send(0, to: 1, 1)
        network.run()
        let before = network.nodes[1].received.count
        var foreign = Network(1, name: "other")
        var stranger = Network(1, ring: KeyRing(KeyRingTests.key(9)))
        for index in 0..<5 {
            for bytes in [
                network.datagram(0, to: 1, 7), [1, 2, 3],
            ] {
                network.deliver(
                    GossipPacket(bytes: bytes, endpoint: network.nodes[1].endpoint),
                    from: network.nodes[0].endpoint
                )
            }
            var out: [GossipPacket] = []
            let now = network.now.advanced(byMilliseconds: UInt64(index) * 200)
            foreign.nodes[0].sealer.seal([], to: network.nodes[1].endpoint, now: now, packets: &out)
            stranger.nodes[0].sealer.seal([], to: network.nodes[1].endpoint, now: now, packets: &out)
            #expect(out.count == 2)
            for packet in out { network.deliver(packet, from: Endpoint(.v4(0x7f00_0009), port: 9)) }
        }
        network.run()
        #expect(network.nodes[1].received.count == before)
        let refused = network.nodes[1].sealer.statistics.refused
        #expect(refused[.plain] == 5 && refused[.malformed] == 5, "\(refused)")
        #expect(refused[.foreignCluster] == 5 && refused[.unknownKey] == 5, "\(refused)")
    }

    @Test func `a flood of hellos from everywhere leaves nothing behind`() {
        var network = Network(1)
        var other = Network(1)
        for index in 0..<20_000 {
            var out: [GossipPacket] = []
            other.restart(0)
            other.nodes[0].sealer.seal([], to: network.nodes[0].endpoint, now: network.now, packets: &out)
            for packet in out {
                network.deliver(packet, from: Endpoint(.v4(UInt32(index)), port: 9))
            }
            network.packets = []
        }
        #expect(network.nodes[0].sealer.sessionCount == 0)
        #expect(network.nodes[0].sealer.pendingCount == 0)
        #expect(network.nodes[0].sealer.statistics.refused[.overLimit] ?? 0 > 0)
    }

    @Test func `addresses that never answer are let go`() {
        var network = Network(1)
        for index in 0..<5000 {
            var out: [GossipPacket] = []
            let endpoint = Endpoint(.v4(UInt32(index)), port: 9)
            network.nodes[0].sealer.seal([1], to: endpoint, now: network.now, packets: &out)
            #expect(network.nodes[0].sealer.pendingCount <= GossipSealer.pendingMax)
            network.now = network.now.advanced(byMilliseconds: 1)
        }
        network.now = network.now.advanced(byMilliseconds: 10_000)
        var out: [GossipPacket] = []
        network.nodes[0].sealer.seal([1], to: Endpoint(.v4(77_777), port: 9), now: network.now, packets: &out)
        #expect(out.count == 1)
        #expect(network.nodes[0].sealer.pendingCount == 1)
    }

    @Test func `a rotation loses no datagram, whoever adopts first`() throws {
        let old = KeyRing(KeyRingTests.key(1))
        var both = old
        try both.install(KeyRingTests.key(2))
        var used = both
        try used.use(KeyRingTests.key(2).id)
        var removed = used
        try removed.remove(KeyRingTests.key(1).id)
        var network = Network(3, ring: old)
        var sequence: UInt32 = 0
        func exchange(_ line: String) {
            for from in 0..<3 {
                for to in 0..<3 where to != from {
                    sequence += 1
                    let datagram = network.send(from, to: to, sequence)
                    network.run()
                    #expect(network.nodes[to].received.last == datagram, "\(line), \(from) to \(to)")
                }
            }
        }
        exchange("before")
        for ring in [both, used, removed] {
            for index in [2, 0, 1] {
                network.nodes[index].sealer.adopt(ring)
                exchange("\(ring.ids), node \(index)")
            }
        }
        let keys = Set(network.captured.suffix(6).map { Array($0.packet.bytes[8..<12]) })
        #expect(keys.count == 1)
        #expect(network.nodes.allSatisfy { $0.sealer.statistics.refused.isEmpty })
    }

    @Test func `a node that was away while the key changed is found under the old one`() throws {
        let old = KeyRing(KeyRingTests.key(1))
        var used = old
        try used.install(KeyRingTests.key(2))
        try used.use(KeyRingTests.key(2).id)
        var network = Network(2, ring: old)
        network.nodes[0].sealer.adopt(used)
        // Both ways: the one that is ahead asks first, and the one that is behind does.
        for order in [[0, 1], [1, 0]] {
            network.restart(1)
            for from in order {
                for sequence in 0..<4 {
                    network.send(from, to: 1 - from, UInt32(sequence))
                    network.run()
                    network.now = network.now.advanced(byMilliseconds: 150)
                }
                #expect(network.nodes[1 - from].received.last == network.datagram(from, to: 1 - from, 3), "\(order)")
            }
        }
        network.nodes[1].sealer.adopt(used)
        network.send(1, to: 0, 50)
        network.run()
        network.send(0, to: 1, 51)
        network.run()
        #expect(network.nodes[1].received.last == network.datagram(0, to: 1, 51))
        #expect(Set(network.captured.suffix(2).map { Array($0.packet.bytes[8..<12]) }).count == 1)
    }
}
