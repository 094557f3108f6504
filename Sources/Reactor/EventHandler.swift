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
}

/// Whoever owns a descriptor that a loop watches.
public protocol EventHandler: AnyObject {
    /// Called on the loop's thread. May add, change and remove any registration, its own included.
    func ready(_ events: Ready)
}
