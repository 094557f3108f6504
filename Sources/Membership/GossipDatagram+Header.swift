package import ClusterCore

// The start of a datagram on its own, for whoever carries datagrams between the same two nodes and need not repeat it.

extension GossipDatagram {
    /// Who says a datagram: a node in one of its starts, and its cluster.
    package struct Origin: Hashable, Sendable {
        package var clusterTag: UInt64
        package var node: NodeID
        package var generation: UInt64

        package init(clusterTag: UInt64, node: NodeID, generation: UInt64) {
            self.clusterTag = clusterTag
            self.node = node
            self.generation = generation
        }

        /// 32 bytes, as they stand in a datagram.
        package var encoded: [UInt8] {
            var buffer = ByteBuffer(capacity: 32)
            buffer.appendInteger(clusterTag)
            buffer.appendInteger(node.high)
            buffer.appendInteger(node.low)
            buffer.appendInteger(generation)
            return buffer.array()
        }

        package init(reader: inout ByteReader) throws(MalformedBytes) {
            clusterTag = try reader.integer()
            node = NodeID(high: try reader.integer(), low: try reader.integer())
            generation = try reader.integer()
        }
    }

    /// Who says a datagram, and to whom.
    package struct Header: Hashable, Sendable {
        package var origin: Origin
        package var target: NodeID?

        package init(origin: Origin, target: NodeID?) {
            self.origin = origin
            self.target = target
        }

        /// Reads the header of a datagram; nil where the bytes do not start with one.
        package init?(of bytes: UnsafeRawBufferPointer) {
            guard bytes.count >= headerBytes, bytes[0] == UInt8(ascii: "H"), bytes[1] == UInt8(ascii: "G"),
                bytes[2] == version
            else { return nil }
            var reader = ByteReader(UnsafeRawBufferPointer(rebasing: bytes[4...]))
            guard let origin = try? Origin(reader: &reader), let high = try? reader.integer(UInt64.self),
                let low = try? reader.integer(UInt64.self)
            else { return nil }
            self.origin = origin
            target = high == 0 && low == 0 ? nil : NodeID(high: high, low: low)
        }

        package init?(of datagram: [UInt8]) {
            guard let header = datagram.withUnsafeBytes({ Header(of: $0) }) else { return nil }
            self = header
        }
    }

    /// A datagram without its header: the kind and what follows.
    package static func withoutHeader(_ datagram: [UInt8]) -> [UInt8] {
        [datagram[3]] + datagram[headerBytes...]
    }

    /// What `withoutHeader` took away, before the rest; nil where there is no kind.
    package static func withHeader(_ header: Header, _ rest: [UInt8]) -> [UInt8]? {
        guard let kind = rest.first else { return nil }
        var buffer = ByteBuffer(capacity: headerBytes)
        buffer.append(UInt8(ascii: "H"))
        buffer.append(UInt8(ascii: "G"))
        buffer.append(version)
        buffer.append(kind)
        buffer.append(header.origin.encoded)
        buffer.appendInteger(header.target?.high ?? 0)
        buffer.appendInteger(header.target?.low ?? 0)
        return buffer.array() + rest.dropFirst()
    }
}
