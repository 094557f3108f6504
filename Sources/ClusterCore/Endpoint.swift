/// An IP address.
public enum IPAddress: Hashable, Comparable, Sendable {
    /// Four bytes in network order, as one number.
    case v4(UInt32)
    /// Sixteen bytes in network order, as two numbers.
    case v6(UInt64, UInt64)

    public static func < (left: IPAddress, right: IPAddress) -> Bool {
        switch (left, right) {
        case (.v4(let a), .v4(let b)): a < b
        case (.v6(let a, let b), .v6(let c, let d)): (a, b) < (c, d)
        case (.v4, .v6): true
        case (.v6, .v4): false
        }
    }

    /// 0.0.0.0 or ::, "every address of this host".
    public var isUnspecified: Bool {
        switch self {
        case .v4(let bits): bits == 0
        case .v6(let high, let low): high == 0 && low == 0
        }
    }

    /// 127.0.0.0/8 or ::1.
    public var isLoopback: Bool {
        switch self {
        case .v4(let bits): bits >> 24 == 127
        case .v6(let high, let low): high == 0 && low == 1
        }
    }
}

extension IPAddress: CustomStringConvertible {
    /// Dotted decimal for IPv4, colons with the longest run of zeros left out (RFC 5952) for IPv6.
    public var description: String {
        switch self {
        case .v4(let bits):
            return "\(bits >> 24).\(bits >> 16 & 255).\(bits >> 8 & 255).\(bits & 255)"
        case .v6(let high, let low):
            let groups = Self.groups(high, low)
            var best = 0..<0
            var index = 0
            while index < 8 {
                var end = index
                while end < 8, groups[end] == 0 { end += 1 }
                if end - index > max(best.count, 1) { best = index..<end }
                index = max(end, index + 1)
            }
            func text(_ range: Range<Int>) -> String {
                groups[range].map { String($0, radix: 16) }.joined(separator: ":")
            }
            if best.isEmpty { return text(0..<8) }
            return text(0..<best.lowerBound) + "::" + text(best.upperBound..<8)
        }
    }

    /// Parses an address; names, zones and shortened IPv4 forms are refused.
    public init?(_ text: some StringProtocol) {
        if text.contains(":") {
            guard let (high, low) = Self.parseV6(String(text)) else { return nil }
            self = .v6(high, low)
        } else {
            guard let bits = Self.parseV4(String(text)) else { return nil }
            self = .v4(bits)
        }
    }

    private static func groups(_ high: UInt64, _ low: UInt64) -> [UInt64] {
        (0..<8).map { ($0 < 4 ? high : low) >> UInt64(48 - 16 * ($0 & 3)) & 0xffff }
    }

    private static func parseV4(_ text: String) -> UInt32? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var bits: UInt32 = 0
        for part in parts {
            guard (1...3).contains(part.utf8.count), part.utf8.allSatisfy({ (48...57).contains($0) }),
                let value = UInt8(part)
            else { return nil }
            bits = bits << 8 | UInt32(value)
        }
        return bits
    }

    private static func parseV6(_ text: String) -> (UInt64, UInt64)? {
        func parseGroups(_ part: Substring) -> [UInt64]? {
            if part.isEmpty { return [] }
            var groups: [UInt64] = []
            let pieces = part.split(separator: ":", omittingEmptySubsequences: false)
            for (index, piece) in pieces.enumerated() {
                if index == pieces.count - 1, piece.contains(".") {
                    guard let bits = parseV4(String(piece)) else { return nil }
                    groups += [UInt64(bits >> 16), UInt64(bits & 0xffff)]
                } else {
                    guard (1...4).contains(piece.utf8.count), let value = UInt16(piece, radix: 16) else { return nil }
                    groups.append(UInt64(value))
                }
            }
            return groups
        }
        var groups: [UInt64]
        let characters = Array(text)
        let gap = characters.indices.dropLast().first { characters[$0] == ":" && characters[$0 + 1] == ":" }
        if let gap {
            guard let left = parseGroups(Substring(String(characters[..<gap]))),
                let right = parseGroups(Substring(String(characters[(gap + 2)...]))), left.count + right.count <= 7
            else { return nil }
            groups = left + Array(repeating: 0, count: 8 - left.count - right.count) + right
        } else {
            guard let all = parseGroups(Substring(text)), all.count == 8 else { return nil }
            groups = all
        }
        let high = groups[..<4].reduce(0) { $0 << 16 | $1 }
        let low = groups[4...].reduce(0) { $0 << 16 | $1 }
        return (high, low)
    }
}

/// An address and a port: where a socket is.
public struct Endpoint: Hashable, Comparable, Sendable {
    public var address: IPAddress
    public var port: UInt16

    public init(_ address: IPAddress, port: UInt16) {
        self.address = address
        self.port = port
    }

    public static func < (left: Endpoint, right: Endpoint) -> Bool {
        (left.address, left.port) < (right.address, right.port)
    }
}

extension Endpoint: CustomStringConvertible {
    /// `10.0.0.1:11212` or `[::1]:11212`.
    public var description: String {
        switch address {
        case .v4: "\(address):\(port)"
        case .v6: "[\(address)]:\(port)"
        }
    }

    /// Parses what `description` prints.
    public init?(_ text: some StringProtocol) {
        guard let parts = HostAndPort(String(text), defaultPort: nil), let address = IPAddress(parts.host) else {
            return nil
        }
        self.init(address, port: parts.port)
    }
}

/// A host name or an address, and a port, as a person writes them: `db1:11212`, `[::1]:11212`, `10.0.0.1`.
public struct HostAndPort: Hashable, Sendable {
    public var host: String
    public var port: UInt16

    public init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// Parses `host`, `host:port`, `address`, `[v6]`, `[v6]:port` and a bare v6 address; nil where the port is missing
    /// and `defaultPort` is nil, or where the text has another form.
    public init?(_ text: String, defaultPort: UInt16?) {
        var host = Substring(text)
        var portText: Substring?
        if host.first == "[" {
            guard let end = host.firstIndex(of: "]") else { return nil }
            let rest = host[host.index(after: end)...]
            if !rest.isEmpty {
                guard rest.first == ":" else { return nil }
                portText = rest.dropFirst()
            }
            host = host[host.index(after: host.startIndex)..<end]
            guard case .v6? = IPAddress(host) else { return nil }
        } else if let colon = host.lastIndex(of: ":"), host.firstIndex(of: ":") == colon {
            portText = host[host.index(after: colon)...]
            host = host[..<colon]
        } else if host.contains(":") {
            guard case .v6? = IPAddress(host) else { return nil }
        }
        guard !host.isEmpty, host.utf8.count <= 255, !host.contains(where: { $0 == " " || $0 == "/" }) else {
            return nil
        }
        if let portText {
            guard portText.utf8.allSatisfy({ (48...57).contains($0) }), let port = UInt16(portText), port > 0 else {
                return nil
            }
            self.init(host: String(host), port: port)
        } else if let defaultPort {
            self.init(host: String(host), port: defaultPort)
        } else {
            return nil
        }
    }
}

extension HostAndPort: CustomStringConvertible {
    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
