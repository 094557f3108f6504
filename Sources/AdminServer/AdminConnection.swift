import Logging
import NIOCore
import NIOHTTP1

/// One connection: whole requests in, answers out. The pipeline before it hands over one request at a time, so answers
/// keep their order.
final class AdminConnection: ChannelInboundHandler {
    typealias InboundIn = NIOHTTPServerRequestFull
    typealias OutboundOut = HTTPServerResponsePart

    private let router: AdminRouter
    private let logger: Logger

    init(router: AdminRouter, logger: Logger) {
        self.router = router
        self.logger = logger
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let request = unwrapInboundIn(data)
        let isKeptAlive = request.head.isKeepAlive
        let version = request.head.version
        // Two Host headers are a quarrel between proxies about who is meant: as good as none.
        let hosts = request.head.headers["host"]
        let plain = AdminRequest(
            method: request.head.method.rawValue,
            target: request.head.uri,
            host: hosts.count == 1 ? hosts[0] : nil,
            contentType: request.head.headers.first(name: "content-type"),
            body: request.body.map { Array($0.readableBytesView) } ?? []
        )
        let channel = context.channel
        let router = router
        let logger = logger
        // One task for each request under way, which the pipeline keeps at one for each connection; it ends with the
        // answer, and its writes fail where the connection is gone.
        Task { @concurrent in
            await AdminConnection.answer(
                plain,
                version: version,
                keepAlive: isKeptAlive,
                router: router,
                logger: logger,
                channel: channel
            )
        }
    }

    private static func answer(
        _ request: AdminRequest,
        version: HTTPVersion,
        keepAlive: Bool,
        router: AdminRouter,
        logger: Logger,
        channel: any Channel
    ) async {
        let response = await router.respond(to: request)
        if request.method == "POST" {
            logger.notice(
                "admin request",
                metadata: ["path": "\(request.target)", "status": "\(response.status)"]
            )
        }
        write(response, version: version, keepAlive: keepAlive, to: channel)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent {
            context.close(promise: nil)
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A body beyond the limit was answered by the aggregator; anything else ends the connection.
        if let error = error as? NIOHTTPObjectAggregatorError, error == .frameTooLong || error == .endingIgnoredMessage
        {
            return
        }
        context.close(promise: nil)
    }

    private static func write(
        _ response: AdminResponse,
        version: HTTPVersion,
        keepAlive: Bool,
        to channel: any Channel
    ) {
        var headers = HTTPHeaders([
            ("content-type", response.contentType), ("content-length", String(response.body.count)),
            ("cache-control", "no-store"), ("x-content-type-options", "nosniff"),
        ])
        if let allow = response.allow { headers.add(name: "allow", value: allow) }
        if !keepAlive { headers.add(name: "connection", value: "close") }
        let head = HTTPResponseHead(version: version, status: .init(statusCode: response.status), headers: headers)
        channel.write(HTTPServerResponsePart.head(head), promise: nil)
        channel.write(HTTPServerResponsePart.body(.byteBuffer(ByteBuffer(bytes: response.body))), promise: nil)
        let written = channel.writeAndFlush(HTTPServerResponsePart.end(nil))
        if !keepAlive { written.whenComplete { _ in channel.close(promise: nil) } }
    }
}
