import CLinux
public import ClusterCore
import Glibc

/// A system call that failed: what was attempted, with what address, what went wrong, and what to do about it.
///
/// The text is put together when somebody asks for it, so that throwing costs no formatting.
public struct SystemError: Error, Hashable, Sendable {
    /// What was attempted.
    public enum Operation: Hashable, Sendable {
        /// Taking TCP connections at an address.
        case listen(Endpoint)
        /// Taking datagrams at an address.
        case bindDatagrams(Endpoint)
        /// Reaching a TCP listener.
        case connect(Endpoint)
        /// Taking a connection from a listener.
        case accept
        /// Finding out which address of this host packets to an address come from.
        case findRoute(Endpoint)
        /// Starting a thread of that name.
        case startThread(String)
        /// Anything else, as a phrase that follows "cannot": `create an event loop`.
        case other(String)
    }

    public let operation: Operation
    /// The error number that the call left, `EADDRINUSE` for instance.
    public let code: Int32

    public init(_ operation: Operation, _ code: Int32) {
        self.operation = operation
        self.code = code
    }

    /// The number that the last system call of this thread left. To be read before any other call.
    package static func last(_ operation: Operation) -> SystemError {
        SystemError(operation, errno)
    }
}

extension SystemError: CustomStringConvertible {
    /// `cannot listen on 0.0.0.0:11211: address already in use (EADDRINUSE); is another node or memcached running
    /// there?`
    public var description: String {
        let text = "cannot \(operation): \(Self.describe(code))"
        guard let advice else { return text }
        return "\(text); \(advice)"
    }

    /// `address already in use (EADDRINUSE)`, for logs that hold a bare error number.
    public static func describe(_ code: Int32) -> String {
        guard let name = clinux_error_name(code), let description = clinux_error_description(code) else {
            return "error \(code)"
        }
        let text = String(cString: description)
        return "\(text.prefix(1).lowercased())\(text.dropFirst()) (\(String(cString: name)))"
    }

    /// What the reader can do, where the number tells.
    private var advice: String? {
        switch (operation, code) {
        case (.listen, EADDRINUSE): "is another node or memcached running there?"
        case (.bindDatagrams, EADDRINUSE): "is another node running there?"
        case (.listen, EADDRNOTAVAIL), (.bindDatagrams, EADDRNOTAVAIL): "no interface of this host has that address"
        case (.listen, EACCES), (.bindDatagrams, EACCES):
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port"
        case (_, EAFNOSUPPORT): "does this host have that IP version turned off?"
        case (_, EMFILE): "raise the process's limit of open files (LimitNOFILE, ulimit -n)"
        case (_, ENFILE): "raise the host's limit of open files (sysctl fs.file-max)"
        case (_, ENOBUFS), (_, ENOMEM): "the host is short of memory"
        case (.connect, ECONNREFUSED): "nothing listens there; is the node running?"
        case (.connect, ETIMEDOUT), (.connect, EHOSTUNREACH), (.connect, ENETUNREACH), (.findRoute, ENETUNREACH):
            "check the route and the firewall between the two hosts"
        case (.startThread, EAGAIN): "raise the limit of threads (TasksMax, ulimit -u)"
        case (.other, ENOSPC): "raise the limit of watched descriptors (sysctl fs.epoll.max_user_watches)"
        default: nil
        }
    }
}

extension SystemError.Operation: CustomStringConvertible {
    /// A phrase that follows "cannot".
    public var description: String {
        switch self {
        case .listen(let endpoint): "listen on \(endpoint)"
        case .bindDatagrams(let endpoint): "receive datagrams on \(endpoint)"
        case .connect(let endpoint): "connect to \(endpoint)"
        case .accept: "accept a connection"
        case .findRoute(let endpoint): "find the local address that leads to \(endpoint)"
        case .startThread(let name): "start the thread \(name)"
        case .other(let phrase): phrase
        }
    }
}
