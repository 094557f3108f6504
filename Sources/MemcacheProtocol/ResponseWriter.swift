public import ClusterCore

/// The answers that are one fixed line.
public enum StatusLine: UInt8, Sendable, CaseIterable {
    case stored
    case notStored
    case exists
    case notFound
    case deleted
    case touched
    case ok
    case end
    case reset
    case version

    /// The line, line end included.
    @inlinable
    public var line: StaticString {
        switch self {
        case .stored: "STORED\r\n"
        case .notStored: "NOT_STORED\r\n"
        case .exists: "EXISTS\r\n"
        case .notFound: "NOT_FOUND\r\n"
        case .deleted: "DELETED\r\n"
        case .touched: "TOUCHED\r\n"
        case .ok: "OK\r\n"
        case .end: "END\r\n"
        case .reset: "RESET\r\n"
        case .version: "VERSION 1.6.45\r\n"
        }
    }
}

/// Writes answers to text clients, each whole, line end included.
public enum ResponseWriter {
    @inlinable
    public static func status(_ status: StatusLine, to buffer: inout ByteBuffer) {
        buffer.append(status.line)
    }

    @inlinable
    public static func error(_ error: ErrorReply, to buffer: inout ByteBuffer) {
        buffer.append(error.line)
    }

    /// `VALUE key flags bytes[ cas]` and the value. `unique` is given for gets and gats.
    ///
    /// The room is reserved once, so that the pieces do not move the buffer one after the other.
    @inlinable
    public static func value(
        key: UnsafeRawBufferPointer,
        flags: UInt32,
        value: UnsafeRawBufferPointer,
        unique: UInt64? = nil,
        to buffer: inout ByteBuffer
    ) {
        _ = buffer.reserve(key.count &+ value.count &+ 64)
        valueHeader(key: key, flags: flags, valueLength: value.count, unique: unique, to: &buffer)
        buffer.append(value)
        buffer.appendLiteral("\r\n")
    }

    /// The line before a value; the value and a line end follow, `END` after the last.
    @inlinable
    public static func valueHeader(
        key: UnsafeRawBufferPointer,
        flags: UInt32,
        valueLength: Int,
        unique: UInt64? = nil,
        to buffer: inout ByteBuffer
    ) {
        buffer.appendLiteral("VALUE ")
        buffer.append(key)
        buffer.append(0x20)
        buffer.appendDecimal(UInt64(flags))
        buffer.append(0x20)
        buffer.appendDecimal(UInt64(valueLength))
        if let unique {
            buffer.append(0x20)
            buffer.appendDecimal(unique)
        }
        buffer.appendLiteral("\r\n")
    }

    /// What incr and decr answer: the number, without the spaces that pad it in the store.
    @inlinable
    public static func number(_ number: UInt64, to buffer: inout ByteBuffer) {
        buffer.appendDecimal(number)
        buffer.appendLiteral("\r\n")
    }

    /// `SERVER_ERROR text`. Not for the two refusals of a store, whose words are in `ErrorReply`: clients match those.
    public static func serverError(_ text: StaticString, to buffer: inout ByteBuffer) {
        buffer.appendLiteral("SERVER_ERROR ")
        buffer.append(text)
        buffer.appendLiteral("\r\n")
    }

    /// `STAT name value`; `END` after the last.
    public static func stat(_ name: StaticString, _ value: UInt64, to buffer: inout ByteBuffer) {
        buffer.appendLiteral("STAT ")
        buffer.append(name)
        buffer.append(0x20)
        number(value, to: &buffer)
    }

    /// `STAT name value`. Neither may hold a space or a line end: scrapers cut the line at spaces.
    public static func stat(_ name: String, _ value: String, to buffer: inout ByteBuffer) {
        buffer.appendLiteral("STAT ")
        buffer.append(name)
        buffer.append(0x20)
        buffer.append(value)
        buffer.appendLiteral("\r\n")
    }
}

extension ByteBuffer {
    /// Appends a constant. A literal given to `append` is taken for a `String`, which costs an array.
    @inlinable
    mutating func appendLiteral(_ text: StaticString) {
        append(text)
    }
}
