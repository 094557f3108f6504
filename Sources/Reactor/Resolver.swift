package import ClusterCore
import Glibc
import Synchronization

/// A name that could not be turned into addresses.
package struct ResolutionError: Error, Hashable, Sendable, CustomStringConvertible {
    package let host: String
    /// What getaddrinfo returned, `EAI_NONAME` for instance.
    package let code: Int32
    /// The error number behind `EAI_SYSTEM`, else 0.
    package let systemCode: Int32

    /// `cannot resolve db1: name or service not known; is the name spelt right, …`
    package var description: String {
        if code == EAI_SYSTEM { return "cannot resolve \(host): \(SystemError.describe(systemCode))" }
        let text = String(cString: gai_strerror(code))
        let reason = "cannot resolve \(host): \(text.prefix(1).lowercased())\(text.dropFirst())"
        switch code {
        case EAI_NONAME: return "\(reason); is the name spelt right, and does this host's resolver know it?"
        case EAI_AGAIN: return "\(reason); is this host's name server reachable?"
        default: return reason
        }
    }
}

/// A name and what became of it.
package struct Resolution: Sendable {
    package let name: HostAndPort
    /// At least one address, the preferred first (RFC 6724), none twice.
    package let result: Result<[Endpoint], ResolutionError>
}

/// Turns names into addresses without holding up a loop.
///
/// getaddrinfo blocks, for many seconds where a name server is silent, so it runs on a thread of its own, one name
/// after the other: fine for a seed list. The thread is not waited for at the end, for the same reason.
package final class Resolver: Sendable {
    /// Default of how many names may be under way, counted until their results are drained.
    package static let namesMaxDefault = 64
    /// How many addresses of one name are kept.
    package static let addressesMax = 64

    private let namesMax: Int
    private let names: Mailbox<HostAndPort>
    private let results: Mailbox<Resolution>
    private let underWay = Atomic<Int>(0)
    private let reader: Waker
    private let worker: Waker

    /// Results wake `reader`, the loop that drains them. Throws where the thread cannot be started.
    package init(
        waking reader: Waker,
        namesMax: Int = Resolver.namesMaxDefault
    ) throws(SystemError) {
        let names = Mailbox<HostAndPort>(messagesMax: namesMax)
        let results = Mailbox<Resolution>(messagesMax: namesMax)
        let loop = try EventLoop()
        self.namesMax = namesMax
        self.names = names
        self.results = results
        self.reader = reader
        self.worker = loop.waker
        let stopped = loop.waker
        _ = try ThreadHandle(name: "henge-resolver") {
            loop.run { _ in
                for name in names.drain() where !stopped.isStopped {
                    Self.deliver(Resolution(name: name, result: Self.look(up: name)), to: results, waking: reader)
                }
                return .distantFuture
            }
        }
    }

    deinit {
        worker.stop()
    }

    /// Asks for the addresses of a name; `drain` will have one result for each call, at once for a literal address.
    /// False where `namesMax` are under way.
    package func resolve(_ name: HostAndPort) -> Bool {
        guard underWay.add(1, ordering: .relaxed).newValue <= namesMax else {
            underWay.subtract(1, ordering: .relaxed)
            return false
        }
        if let address = IPAddress(name.host) {
            let endpoint = Endpoint(address, port: name.port)
            Self.deliver(Resolution(name: name, result: .success([endpoint])), to: results, waking: reader)
            return true
        }
        let posting = names.post(name)
        precondition(posting != .full, "more names wait than are under way")
        if posting.needsWake { worker.wake() }
        return true
    }

    /// Takes the results so far; for the thread of the loop that is woken.
    package func drain() -> [Resolution] {
        let resolutions = results.drain()
        underWay.subtract(resolutions.count, ordering: .relaxed)
        return resolutions
    }

    private static func deliver(_ resolution: Resolution, to results: Mailbox<Resolution>, waking reader: Waker) {
        let posting = results.post(resolution)
        precondition(posting != .full, "more results wait than names are under way")
        if posting.needsWake { reader.wake() }
    }

    /// Looks a name up on this thread, which waits for the name server.
    package static func look(up name: HostAndPort) -> Result<[Endpoint], ResolutionError> {
        var hints = addrinfo()
        // One answer an address instead of one for each kind of socket. Without AI_ADDRCONFIG, which hides the
        // loopback addresses of a host that has no others.
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(name.host, nil, &hints, &list)
        guard code == 0 else {
            let systemCode = code == EAI_SYSTEM ? errno : 0
            return .failure(ResolutionError(host: name.host, code: code, systemCode: systemCode))
        }
        defer { freeaddrinfo(list) }
        var endpoints: [Endpoint] = []
        var next = list
        while let entry = next?.pointee, endpoints.count < addressesMax {
            next = entry.ai_next
            guard let address = entry.ai_addr,
                var endpoint = SocketAddress.read(address, length: entry.ai_addrlen)
            else { continue }
            endpoint.port = name.port
            if !endpoints.contains(endpoint) { endpoints.append(endpoint) }
        }
        guard !endpoints.isEmpty else {
            return .failure(ResolutionError(host: name.host, code: EAI_NONAME, systemCode: 0))
        }
        return .success(endpoints)
    }
}
