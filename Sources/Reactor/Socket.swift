import CLinux
package import ClusterCore
import Glibc

// TCP and UDP sockets as descriptors: every one non-blocking and closed on exec.
//
// Workers share one listening socket. Giving each its own with SO_REUSEPORT looks simpler, and fails threefold: a
// second process of the same user takes the same port without an error; a worker that closes its listener resets the
// connections in its queue, which a drain must not do; and the kernel deals out connections by a hash, which is uneven
// for the few long-lived connections of a cache. So there is one listener without SO_REUSEPORT, and a port in use shows
// as EADDRINUSE. One loop accepts and deals the connections out in turn through mailboxes (as memcached does), or all
// loops watch it, and whoever comes late finds nothing to accept.

/// System calls on sockets.
package enum Socket {
    /// Connections that the kernel completes and keeps until they are accepted; net.core.somaxconn may lower it.
    package static let backlogDefault: Int32 = 1024

    // MARK: TCP

    /// Opens a listener. Port 0 has the kernel choose one; `localEndpoint` tells which.
    ///
    /// An IPv6 listener takes IPv6 only, `[::]` included: whoever wants both opens both, and a peer's address is never
    /// IPv4 in disguise.
    package static func listen(
        on endpoint: Endpoint,
        backlog: Int32 = backlogDefault
    ) throws(SystemError) -> Int32 {
        let operation = SystemError.Operation.listen(endpoint)
        return try open(SOCK_STREAM, for: endpoint, operation) { descriptor throws(SystemError) in
            // Without this a restart would wait for connections of the last run to leave TIME_WAIT. On Linux it does
            // not allow two listeners.
            try set(descriptor, SOL_SOCKET, SO_REUSEADDR, 1, operation)
            try bind(descriptor, to: endpoint, operation)
            guard Glibc.listen(descriptor, backlog) == 0 else { throw .last(operation) }
        }
    }

    /// What a listener had.
    package enum Accepted {
        /// A connection, non-blocking.
        case connection(Int32, peer: Endpoint)
        /// No connection waits.
        case wouldBlock
        /// Descriptors or memory have run out; the connection waits in the queue. The listener stays readable, so stop
        /// watching it for a moment.
        case exhausted(SystemError)
    }

    /// Accepts one connection. Throws what only a fault of ours explains: a descriptor that is no TCP listener.
    package static func accept(from listener: Int32) throws(SystemError) -> Accepted {
        var storage = sockaddr_in6()
        while true {
            var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
            let descriptor = clinux_accept(listener, &storage, &length)
            if descriptor >= 0 {
                guard let peer = withUnsafeBytes(of: &storage, { read($0, length: length) }) else {
                    close(descriptor)
                    throw SystemError(.accept, EAFNOSUPPORT)
                }
                return .connection(descriptor, peer: peer)
            }
            switch errno {
            case EAGAIN: return .wouldBlock
            case EMFILE, ENFILE, ENOBUFS, ENOMEM: return .exhausted(.last(.accept))
            // The connection failed before it was accepted and is off the queue (accept(2), "Error handling"), so the
            // loop ends.
            case EINTR, ECONNABORTED, EPROTO, ENETDOWN, ENETUNREACH, EHOSTDOWN, EHOSTUNREACH, ENONET,
                ENOPROTOOPT, ETIMEDOUT, ECONNRESET:
                continue
            default: throw .last(.accept)
            }
        }
    }

    /// Starts to connect. The descriptor becomes writable when the attempt has ended; `connectResult` tells how.
    package static func connect(to endpoint: Endpoint) throws(SystemError) -> Int32 {
        let operation = SystemError.Operation.connect(endpoint)
        return try open(SOCK_STREAM, for: endpoint, operation) { descriptor throws(SystemError) in
            let result = SocketAddress.withAddress(endpoint) { Glibc.connect(descriptor, $0, $1) }
            // Interrupted is in progress, too: the attempt goes on.
            guard result == 0 || errno == EINPROGRESS || errno == EINTR else { throw .last(operation) }
        }
    }

    /// Throws why the attempt to connect to `endpoint` failed. To be called once the descriptor is writable.
    ///
    /// A connection to itself counts as refused: where nobody listens on a port of this host that the kernel also gives
    /// to outgoing connections, an attempt may get that very port, meets itself and succeeds.
    package static func connectResult(_ descriptor: Int32, to endpoint: Endpoint) throws(SystemError) {
        let code = try option(descriptor, SOL_SOCKET, SO_ERROR)
        guard code == 0 else { throw SystemError(.connect(endpoint), code) }
        if try localEndpoint(of: descriptor) == endpoint { throw SystemError(.connect(endpoint), ECONNREFUSED) }
    }

    /// Sends small segments at once instead of waiting for an acknowledgement of the one before (TCP_NODELAY).
    package static func setNoDelay(_ descriptor: Int32) throws(SystemError) {
        try set(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1, .other("turn on TCP_NODELAY"))
    }

    /// Has the kernel find out whether a silent peer still exists: a probe after `idleSeconds` of silence, then one
    /// each `intervalSeconds`, and the connection fails after `probesMax` without an answer.
    package static func setKeepAlive(
        _ descriptor: Int32,
        idleSeconds: Int32 = 60,
        intervalSeconds: Int32 = 10,
        probesMax: Int32 = 6
    ) throws(SystemError) {
        let operation = SystemError.Operation.other("turn on keep-alive")
        try set(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1, operation)
        try set(descriptor, Int32(IPPROTO_TCP), TCP_KEEPIDLE, idleSeconds, operation)
        try set(descriptor, Int32(IPPROTO_TCP), TCP_KEEPINTVL, intervalSeconds, operation)
        try set(descriptor, Int32(IPPROTO_TCP), TCP_KEEPCNT, probesMax, operation)
    }

    // MARK: UDP

    /// Opens a socket for datagrams at an address of this host. Port 0 has the kernel choose one. The kernel notes when
    /// each datagram arrives, for `DatagramReceiver`.
    ///
    /// Without SO_REUSEADDR, which on Linux would let a second process take a share of the datagrams.
    package static func bindDatagrams(to endpoint: Endpoint) throws(SystemError) -> Int32 {
        let operation = SystemError.Operation.bindDatagrams(endpoint)
        return try open(SOCK_DGRAM, for: endpoint, operation) { descriptor throws(SystemError) in
            try bind(descriptor, to: endpoint, operation)
            guard clinux_note_arrivals(descriptor) == 0 else { throw .last(operation) }
        }
    }

    /// The address of this host that packets to `endpoint` would come from: a choice for the address to advertise.
    /// Nothing is sent.
    package static func localAddress(toward endpoint: Endpoint) throws(SystemError) -> IPAddress {
        let operation = SystemError.Operation.findRoute(endpoint)
        let descriptor = try open(SOCK_DGRAM, for: endpoint, operation) { descriptor throws(SystemError) in
            let result = SocketAddress.withAddress(endpoint) { Glibc.connect(descriptor, $0, $1) }
            guard result == 0 else { throw .last(operation) }
        }
        defer { close(descriptor) }
        return try localEndpoint(of: descriptor).address
    }

    // MARK: Any socket

    /// The address that a socket is bound to.
    package static func localEndpoint(of descriptor: Int32) throws(SystemError) -> Endpoint {
        try name(of: descriptor, "read a socket's own address", getsockname)
    }

    /// The address at the other end of a connection.
    package static func peerEndpoint(of descriptor: Int32) throws(SystemError) -> Endpoint {
        try name(of: descriptor, "read the address of a socket's peer", getpeername)
    }

    /// Closes a descriptor. To be called after it was removed from its loop, and once: its number may already belong
    /// to somebody else.
    package static func close(_ descriptor: Int32) {
        // Whatever else close reports, EINTR included, Linux has closed it.
        let result = Glibc.close(descriptor)
        precondition(result == 0 || errno != EBADF, "descriptor \(descriptor) was closed twice")
    }

    // MARK: Private

    private static func open(
        _ type: __socket_type,
        for endpoint: Endpoint,
        _ operation: SystemError.Operation,
        prepare: (Int32) throws(SystemError) -> Void
    ) throws(SystemError) -> Int32 {
        let flags = Int32(type.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = Glibc.socket(SocketAddress.family(of: endpoint), flags, 0)
        guard descriptor >= 0 else { throw .last(operation) }
        do throws(SystemError) {
            try prepare(descriptor)
        } catch {
            close(descriptor)
            throw error
        }
        return descriptor
    }

    private static func bind(
        _ descriptor: Int32,
        to endpoint: Endpoint,
        _ operation: SystemError.Operation
    ) throws(SystemError) {
        if case .v6 = endpoint.address {
            try set(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1, operation)
        }
        let result = SocketAddress.withAddress(endpoint) { Glibc.bind(descriptor, $0, $1) }
        guard result == 0 else { throw .last(operation) }
    }

    private static func set(
        _ descriptor: Int32,
        _ level: Int32,
        _ option: Int32,
        _ value: Int32,
        _ operation: SystemError.Operation
    ) throws(SystemError) {
        var value = value
        let result = setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
        guard result == 0 else { throw .last(operation) }
    }

    private static func option(_ descriptor: Int32, _ level: Int32, _ option: Int32) throws(SystemError) -> Int32 {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        let result = getsockopt(descriptor, level, option, &value, &length)
        guard result == 0 else { throw .last(.other("read a socket option")) }
        return value
    }

    private static func name(
        of descriptor: Int32,
        _ phrase: String,
        _ call: (Int32, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32
    ) throws(SystemError) -> Endpoint {
        var storage = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let result = withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { call(descriptor, $0, &length) }
        }
        guard result == 0 else { throw .last(.other(phrase)) }
        guard let endpoint = withUnsafeBytes(of: &storage, { read($0, length: length) }) else {
            throw SystemError(.other(phrase), EAFNOSUPPORT)
        }
        return endpoint
    }

    /// The kernel reports the length that the address has, which may be more than there was room for.
    private static func read(_ bytes: UnsafeRawBufferPointer, length: socklen_t) -> Endpoint? {
        guard Int(length) <= bytes.count, let base = bytes.baseAddress else { return nil }
        return SocketAddress.read(base, length: length)
    }
}
