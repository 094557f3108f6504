// The bits are epoll's, as literals so that they inline into other modules; CLinux.c asserts them.

/// What a handler wants to hear of. Nothing at all is allowed and pauses a descriptor, but hangups and errors are
/// told regardless, at every turn: whoever gets one removes the registration.
@frozen
public struct Interest: OptionSet, Sendable {
    public let rawValue: UInt32

    @inlinable
    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// There are bytes, a connection to accept, or the end of the stream.
    @inlinable
    public static var readable: Interest { Interest(rawValue: 0x1) }
    /// There is room to send, or a connection attempt has ended.
    @inlinable
    public static var writable: Interest { Interest(rawValue: 0x4) }
    /// The peer sends nothing more.
    @inlinable
    public static var peerClosed: Interest { Interest(rawValue: 0x2000) }
    /// Tell once of what is new, instead of again and again of what is. The handler remembers what it left undone.
    @inlinable
    public static var edges: Interest { Interest(rawValue: 1 << 31) }
}

/// What happened to a descriptor.
@frozen
public struct Ready: OptionSet, Sendable {
    public let rawValue: UInt32

    @inlinable
    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    @inlinable
    public static var readable: Ready { Ready(rawValue: 0x1) }
    @inlinable
    public static var writable: Ready { Ready(rawValue: 0x4) }
    /// The descriptor has a pending error; reading or `Socket.connectResult` tells which.
    @inlinable
    public static var error: Ready { Ready(rawValue: 0x8) }
    /// Both directions are shut. Bytes that came before may still be read.
    @inlinable
    public static var hangup: Ready { Ready(rawValue: 0x10) }
    /// The peer sends nothing more; only where `Interest.peerClosed` asked for it.
    @inlinable
    public static var peerClosed: Ready { Ready(rawValue: 0x2000) }
}

/// Whoever owns a descriptor that a loop watches.
///
/// A class and not a protocol: a call through its table needs no reference to be counted.
open class EventHandler {
    public init() {}

    /// Called on the loop's thread. May add, change and remove any registration, its own included.
    open func ready(_ events: Ready) {
        preconditionFailure("a handler must say what it does")
    }
}
