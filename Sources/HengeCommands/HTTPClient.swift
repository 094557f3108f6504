package import ClusterCore
private import Glibc
import NIOCore
import NIOHTTP1
import NIOPosix

/// A small HTTP/1.1 client: one request, one connection, one whole answer.
package enum HTTPClient {
    package struct Request: Sendable {
        package var method: String
        /// Path and query, percent-encoded.
        package var target: String
        /// Sent as JSON.
        package var body: [UInt8]?
        /// Added to, and replacing, what is sent anyway.
        package var headers: [(name: String, value: String)]

        package init(
            method: String,
            target: String,
            body: [UInt8]? = nil,
            headers: [(name: String, value: String)] = []
        ) {
            self.method = method
            self.target = target
            self.body = body
            self.headers = headers
        }
    }

    package struct Reply: Sendable {
        package var status: Int
        package var headers: [(name: String, value: String)]
        package var body: [UInt8]
    }

    /// No whole answer came.
    package struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
        package var description: String
        /// Whether the time was up.
        package var isTimeout = false
    }

    /// The longest answer, in bytes.
    package static let bodyBytesMax = 16 << 20

    /// Sends a request and waits for the answer; everything within `milliseconds`.
    package static func send(
        _ request: Request,
        to address: HostAndPort,
        milliseconds: Int
    ) async throws(Failure) -> Reply {
        let loop = MultiThreadedEventLoopGroup.singleton.any()
        let answered = loop.makePromise(of: Reply.self)
        let expiry = loop.scheduleTask(in: .milliseconds(Int64(milliseconds))) {
            answered.fail(Failure(description: "no answer within \(milliseconds) ms", isTimeout: true))
        }
        let connecting = ClientBootstrap(group: loop)
            // Later than the expiry above, which says better what happened.
            .connectTimeout(.milliseconds(Int64(milliseconds) + 1000))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHTTPClientHandlers()
                    try pipeline.addHandler(NIOHTTPClientResponseAggregator(maxContentLength: bodyBytesMax))
                    try pipeline.addHandler(ReplyHandler(answered))
                }
            }
            .connect(host: address.host, port: Int(address.port))
        connecting.whenComplete { result in
            switch result {
            case .success(let channel):
                answered.futureResult.whenComplete { _ in channel.close(promise: nil) }
                write(request, to: channel)
            case .failure(let error): answered.fail(error)
            }
        }
        defer { expiry.cancel() }
        do {
            return try await answered.futureResult.get()
        } catch {
            throw error as? Failure ?? Failure(description: reason(error))
        }
    }

    private static func write(_ request: Request, to channel: any Channel) {
        // The address that answered, not the name that led to it: nodes need not know all names they have.
        let address = channel.remoteAddress?.ipAddress ?? "localhost"
        var headers = HTTPHeaders([
            ("host", address.contains(":") ? "[\(address)]" : address), ("connection", "close"),
            ("accept", "application/json"),
        ])
        if let body = request.body {
            headers.add(name: "content-type", value: "application/json")
            headers.add(name: "content-length", value: String(body.count))
        }
        for (name, value) in request.headers { headers.replaceOrAdd(name: name, value: value) }
        let head = HTTPRequestHead(
            version: .http1_1,
            method: HTTPMethod(rawValue: request.method),
            uri: request.target,
            headers: headers
        )
        channel.write(HTTPClientRequestPart.head(head), promise: nil)
        if let body = request.body {
            channel.write(HTTPClientRequestPart.body(.byteBuffer(ByteBuffer(bytes: body))), promise: nil)
        }
        channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
    }

    private static func reason(_ error: any Error) -> String {
        switch error {
        case let error as IOError: return String(cString: strerror(error.errnoCode))
        case let error as NIOConnectionError:
            if let first = error.connectionErrors.first { return reason(first.error) }
            return "the name '\(error.host)' does not resolve"
        default: return "\(error)"
        }
    }
}

/// Hands the answer over, or why there is none.
private final class ReplyHandler: ChannelInboundHandler {
    typealias InboundIn = NIOHTTPClientResponseFull

    private let answered: EventLoopPromise<HTTPClient.Reply>

    init(_ answered: EventLoopPromise<HTTPClient.Reply>) {
        self.answered = answered
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let response = unwrapInboundIn(data)
        answered.succeed(
            HTTPClient.Reply(
                status: Int(response.head.status.code),
                headers: response.head.headers.map { ($0.name, $0.value) },
                body: response.body.map { Array($0.readableBytesView) } ?? []
            )
        )
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        answered.fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        answered.fail(HTTPClient.Failure(description: "the connection was closed before an answer came"))
    }
}
