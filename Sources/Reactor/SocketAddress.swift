package import ClusterCore
package import Glibc

/// `Endpoint` as the kernel wants it: `sockaddr_in` or `sockaddr_in6`, in memory of the caller.
///
/// An IPv6 zone (`fe80::1%eth0`) has no place in an `Endpoint` and is lost: link-local addresses cannot be used.
package enum SocketAddress {
    /// Room that any address of the two families fits into, in bytes.
    package static let bytesMax = MemoryLayout<sockaddr_in6>.size

    /// AF_INET or AF_INET6.
    package static func family(of endpoint: Endpoint) -> Int32 {
        switch endpoint.address {
        case .v4: AF_INET
        case .v6: AF_INET6
        }
    }

    /// Writes an address to memory with room for `bytesMax` bytes, aligned for `sockaddr_in6`; its length.
    package static func write(_ endpoint: Endpoint, to memory: UnsafeMutableRawPointer) -> socklen_t {
        switch endpoint.address {
        case .v4(let bits):
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = endpoint.port.bigEndian
            address.sin_addr.s_addr = bits.bigEndian
            memory.storeBytes(of: address, as: sockaddr_in.self)
            return socklen_t(MemoryLayout<sockaddr_in>.size)
        case .v6(let high, let low):
            var address = sockaddr_in6()
            address.sin6_family = sa_family_t(AF_INET6)
            address.sin6_port = endpoint.port.bigEndian
            withUnsafeMutableBytes(of: &address.sin6_addr) { bytes in
                bytes.storeBytes(of: high.bigEndian, as: UInt64.self)
                bytes.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
            }
            memory.storeBytes(of: address, as: sockaddr_in6.self)
            return socklen_t(MemoryLayout<sockaddr_in6>.size)
        }
    }

    /// Reads an address of `length` bytes; nil for other families than IPv4 and IPv6.
    package static func read(_ memory: UnsafeRawPointer, length: socklen_t) -> Endpoint? {
        guard Int(length) >= MemoryLayout<sa_family_t>.size else { return nil }
        switch Int32(memory.loadUnaligned(as: sa_family_t.self)) {
        case AF_INET where Int(length) >= MemoryLayout<sockaddr_in>.size:
            let address = memory.loadUnaligned(as: sockaddr_in.self)
            let bits = UInt32(bigEndian: address.sin_addr.s_addr)
            return Endpoint(.v4(bits), port: UInt16(bigEndian: address.sin_port))
        case AF_INET6 where Int(length) >= MemoryLayout<sockaddr_in6>.size:
            let address = memory.loadUnaligned(as: sockaddr_in6.self)
            let (high, low) = withUnsafeBytes(of: address.sin6_addr) { bytes in
                (bytes.loadUnaligned(as: UInt64.self), bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            }
            let port = UInt16(bigEndian: address.sin6_port)
            return Endpoint(.v6(UInt64(bigEndian: high), UInt64(bigEndian: low)), port: port)
        default:
            return nil
        }
    }

    /// Calls `body` with the address as the socket calls take it.
    static func withAddress(_ endpoint: Endpoint, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var storage = sockaddr_in6()
        return withUnsafeMutableBytes(of: &storage) { bytes in
            // `bytes` covers a variable, so it has an address.
            let memory = bytes.baseAddress!
            let length = write(endpoint, to: memory)
            return memory.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }
}
