package import ClusterCore
private import Glibc
package import Logging
private import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1
import NIOPosix

// The admin port of a node.
//
// Operators, probes and scrapers ask seldom and may be slow; what matters is that none of them can hurt the node. So it
// is HTTP on SwiftNIO, on one of its event loops, apart from the loops that serve clients, and everything that
// a stranger sends is bounded: body, connections, and the time a connection may be silent. `AdminRouter` knows routes
// and forms and no sockets; `AdminConnection` turns parts of HTTP into whole requests; `AdminServer` owns the socket
// and ends gracefully: it stops accepting, lets requests under way end, and closes what is left at a deadline.

/// What the admin port takes at most.
package struct AdminLimits: Hashable, Sendable {
    /// The longest body of a request, in bytes.
    package var bodyBytesMax = 64 << 10
    /// Connections at a time; further ones are closed at once.
    package var connectionsMax = 64
    /// A connection on which nothing comes or goes for so long is closed, in seconds.
    package var idleSeconds: Int64 = 60

    package init() {}
}

/// The port could not be opened.
package struct ListenError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String
}

/// A running admin port.
package final class AdminServer: Sendable {
    private let loop: any EventLoop
    private let channel: any Channel
    private let connections: ConnectionTable

    /// The port that is open; the one that was asked for, unless that was 0.
    package let port: UInt16

    private init(loop: any EventLoop, channel: any Channel, connections: ConnectionTable, port: UInt16) {
        self.loop = loop
        self.channel = channel
        self.connections = connections
        self.port = port
    }

    /// Opens the port and serves until `stop`.
    ///
    /// - Parameters:
    ///   - place: where to listen; port 0 takes any free one.
    ///   - hostNames: names by which the port may be addressed, beside `localhost` and every IP address: the node's
    ///     name and the host's.
    ///   - version: the program's version, for `/version`.
    /// - Throws: what was attempted and why it failed: an address in use, a name that does not resolve.
    package static func start(
        on place: HostAndPort,
        hostNames: [String],
        version: String,
        administration: any NodeAdministration,
        logger: Logger,
        limits: AdminLimits = AdminLimits()
    ) async throws(ListenError) -> AdminServer {
        let router = AdminRouter(
            administration: administration,
            version: version,
            hostNames: hostNames + [place.host]
        )
        let connections = ConnectionTable(limit: limits.connectionsMax)
        // A loop that lives as long as the process: an answer may still be computed when the server has stopped, and
        // its write must find a loop, if only to learn that the connection is gone.
        let loop = MultiThreadedEventLoopGroup.singleton.any()
        let bootstrap = ServerBootstrap(group: loop)
            .serverChannelOption(.backlog, value: 64)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelInitializer { channel in
                guard connections.add(channel) else { return channel.close() }
                channel.closeFuture.whenComplete { _ in connections.remove(channel) }
                return channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(IdleStateHandler(allTimeout: .seconds(limits.idleSeconds)))
                    try pipeline.configureHTTPServerPipeline(withPipeliningAssistance: true, withErrorHandling: true)
                    try pipeline.addHandler(NIOHTTPServerRequestAggregator(maxContentLength: limits.bodyBytesMax))
                    try pipeline.addHandler(AdminConnection(router: router, logger: logger))
                }
            }
        do {
            let channel = try await bootstrap.bind(host: place.host, port: Int(place.port)).get()
            let port = UInt16(truncatingIfNeeded: channel.localAddress?.port ?? Int(place.port))
            return AdminServer(loop: loop, channel: channel, connections: connections, port: port)
        } catch {
            let reason = (error as? IOError).map { String(cString: strerror($0.errnoCode)) } ?? "\(error)"
            throw ListenError(description: "cannot listen on \(place) for the admin port: \(reason)")
        }
    }

    /// Stops accepting, lets requests under way end for at most `graceSeconds`, then closes every connection. Returns
    /// when all is closed; a second call does nothing.
    package func stop(graceSeconds: Int64 = 5) async {
        try? await channel.close().get()
        let open = connections.drain()
        for connection in open { connection.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent()) }
        let deadline = loop.scheduleTask(in: .seconds(graceSeconds)) {
            for connection in open { connection.close(promise: nil) }
        }
        for connection in open { try? await connection.closeFuture.get() }
        deadline.cancel()
    }
}

/// The open connections, at most so many.
private final class ConnectionTable: Sendable {
    private struct State {
        var channels: [ObjectIdentifier: any Channel] = [:]
        var isClosed = false
    }

    private let limit: Int
    private let state = NIOLockedValueBox(State())

    init(limit: Int) {
        self.limit = limit
    }

    /// False where there is no room, or the server stops.
    func add(_ channel: any Channel) -> Bool {
        state.withLockedValue { state in
            guard !state.isClosed, state.channels.count < limit else { return false }
            state.channels[ObjectIdentifier(channel)] = channel
            return true
        }
    }

    func remove(_ channel: any Channel) {
        state.withLockedValue { state in _ = state.channels.removeValue(forKey: ObjectIdentifier(channel)) }
    }

    /// Takes no more, and returns what is open.
    func drain() -> [any Channel] {
        state.withLockedValue { state in
            state.isClosed = true
            return Array(state.channels.values)
        }
    }
}
