import Glibc

/// Reads the replies of a memcache server, whatever pieces they come in.
///
/// A value is never gathered: its bytes are counted off as they come, and only its first eight are kept. So a reply
/// costs the same whether it is in one piece or in many, and no buffer grows with the values.
package struct ReplyParser {
    /// What came.
    package enum Event: Sendable, Equatable {
        /// The bytes are used up.
        case needsMore
        /// A value, whole: `keyTail`, `keyBytes`, `valueBytes`, `valueHead` tell about it. Meta values have no key.
        case value
        /// `END`: the end of a retrieval. Or `EN`: a meta miss, which stands alone.
        case end
        /// `STORED` or `HD`.
        case stored
        /// `ERROR`, `CLIENT_ERROR …`, `SERVER_ERROR …`; `text` has it.
        case refused
        /// Anything else: framing is lost; `text` has what came. The connection is of no more use.
        case malformed
    }

    private enum State: UInt8 {
        case line
        case value
        case valueEnd
    }

    /// The longest line that is understood, in bytes.
    package static let lineBytesMax = 1024

    /// The last eight bytes of the value's key; 0 where it has none.
    package private(set) var keyTail: UInt64 = 0
    package private(set) var keyBytes = 0
    /// The value's length without its line end.
    package private(set) var valueBytes = 0
    /// The value's first eight bytes; 0 where it is shorter.
    package private(set) var valueHead: UInt64 = 0

    private var state = State.line
    /// What is still to come of the value.
    private var left = 0
    /// What of the value's head, or of its line end, has come.
    private var headBytes = 0
    /// A line that began in an earlier piece.
    private var lineBytes = 0
    private let line: UnsafeMutableRawPointer

    /// `deallocate` gives its memory back.
    package init() {
        line = .allocate(byteCount: Self.lineBytesMax, alignment: 16)
    }

    package func deallocate() {
        line.deallocate()
    }

    /// The line that was refused or malformed, at most 200 bytes of it.
    package private(set) var text: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)

    /// Whether a reply has begun and not ended.
    package var isWithinReply: Bool { state != .line || lineBytes > 0 }

    /// Reads on at `position`, which moves, up to `end`; the next event.
    @inline(__always)
    package mutating func next(_ position: inout UnsafeRawPointer, end: UnsafeRawPointer) -> Event {
        while position < end {
            switch state {
            case .line:
                let count = end - position
                guard let found = memchr(position, 0x0a, count) else {
                    return keep(position, count, &position) ? .needsMore : .malformed
                }
                let length = UnsafeRawPointer(found) - position + 1
                let event: Event?
                if lineBytes == 0 {
                    event = read(position, length)
                    position += length
                } else {
                    guard keep(position, length, &position) else { return .malformed }
                    event = read(UnsafeRawPointer(line), lineBytes)
                    lineBytes = 0
                }
                if let event { return event }
            case .value:
                let count = min(left, end - position)
                if headBytes == 0, count >= 8 {
                    valueHead = position.loadUnaligned(as: UInt64.self)
                    headBytes = 8
                } else if headBytes < 8 {
                    collectHead(position, count)
                }
                position += count
                left &-= count
                if left == 0 {
                    state = .valueEnd
                    left = 2
                    if valueBytes < 8 { valueHead = 0 }
                }
            case .valueEnd:
                // Line ends are two bytes.
                let wanted: UInt8 = left == 2 ? 0x0d : 0x0a
                guard position.load(as: UInt8.self) == wanted else {
                    text = UnsafeRawBufferPointer(start: position, count: min(end - position, 200))
                    return .malformed
                }
                position += 1
                left &-= 1
                if left == 0 {
                    state = .line
                    return .value
                }
            }
        }
        return .needsMore
    }

    @inline(never)
    private mutating func collectHead(_ bytes: UnsafeRawPointer, _ count: Int) {
        var offset = 0
        while headBytes < 8, offset < count {
            let byte = UInt64(bytes.load(fromByteOffset: offset, as: UInt8.self))
            valueHead |= byte << UInt64(8 &* headBytes)
            headBytes &+= 1
            offset &+= 1
        }
    }

    /// Keeps a piece of a line for later; false where the line grows too long.
    @inline(never)
    private mutating func keep(_ bytes: UnsafeRawPointer, _ count: Int, _ position: inout UnsafeRawPointer) -> Bool {
        guard count <= Self.lineBytesMax &- lineBytes else {
            text = UnsafeRawBufferPointer(start: bytes, count: min(count, 200))
            return false
        }
        (line + lineBytes).copyMemory(from: bytes, byteCount: count)
        lineBytes &+= count
        position += count
        return true
    }

    /// Reads a whole line, its line end included; nil where a value follows.
    @inline(__always)
    private mutating func read(_ bytes: UnsafeRawPointer, _ length: Int) -> Event? {
        // The shortest lines are EN, HD and END with their line ends; four bytes tell them apart.
        if length >= 4 {
            switch UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)) {
            case 0x554c_4156:  // VALU
                return readValueLine(bytes, length)
            case 0x0d44_4e45 where length == 5:  // END\r
                return .end
            case 0x524f_5453 where length == 8:  // STOR
                if UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self)) == 0x0a0d_4445 {
                    return .stored
                }
            case 0x0a0d_4e45 where length == 4:  // EN\r\n
                return .end
            case 0x0a0d_4448 where length == 4:  // HD\r\n
                return .stored
            default: return readOther(bytes, length)
            }
        }
        return readOther(bytes, length)
    }

    /// `VALUE key flags bytes`, and a CAS unique that is passed over.
    @inline(__always)
    private mutating func readValueLine(_ bytes: UnsafeRawPointer, _ length: Int) -> Event? {
        var place = 6
        while place < length, bytes.load(fromByteOffset: place, as: UInt8.self) != 0x20 { place &+= 1 }
        keyBytes = place &- 6
        guard bytes.load(fromByteOffset: 4, as: UInt8.self) == 0x45,
            bytes.load(fromByteOffset: 5, as: UInt8.self) == 0x20, keyBytes > 0
        else { return malformed(bytes, length) }
        keyTail = keyBytes >= 8 ? bytes.loadUnaligned(fromByteOffset: place &- 8, as: UInt64.self) : 0
        place &+= 1
        guard Self.number(bytes, &place, length) != nil, place < length,
            bytes.load(fromByteOffset: place, as: UInt8.self) == 0x20
        else { return malformed(bytes, length) }
        place &+= 1
        guard let count = Self.number(bytes, &place, length), begin(count), Self.ends(bytes, place, length) else {
            return malformed(bytes, length)
        }
        return nil
    }

    /// Whether the line ends here, or one more word follows.
    @inline(__always)
    private static func ends(_ bytes: UnsafeRawPointer, _ place: Int, _ length: Int) -> Bool {
        guard bytes.load(fromByteOffset: length &- 2, as: UInt8.self) == 0x0d else { return false }
        return place == length &- 2 || bytes.load(fromByteOffset: place, as: UInt8.self) == 0x20
    }

    /// `VA bytes flags…`, errors, and what is unknown.
    @inline(never)
    private mutating func readOther(_ bytes: UnsafeRawPointer, _ length: Int) -> Event? {
        func begins(_ word: StaticString) -> Bool {
            length >= word.utf8CodeUnitCount && memcmp(bytes, word.utf8Start, word.utf8CodeUnitCount) == 0
        }
        if begins("VA ") {
            var place = 3
            keyBytes = 0
            keyTail = 0
            guard let count = Self.number(bytes, &place, length), begin(count), Self.ends(bytes, place, length) else {
                return malformed(bytes, length)
            }
            return nil
        }
        if begins("EN ") { return .end }
        if begins("HD ") { return .stored }
        text = UnsafeRawBufferPointer(start: bytes, count: min(length, 200))
        let isError = begins("ERROR\r") || begins("ERROR\n") || begins("SERVER_ERROR") || begins("CLIENT_ERROR")
        return isError ? .refused : .malformed
    }

    private mutating func malformed(_ bytes: UnsafeRawPointer, _ length: Int) -> Event? {
        text = UnsafeRawBufferPointer(start: bytes, count: min(length, 200))
        return .malformed
    }

    @inline(__always)
    private mutating func begin(_ count: Int) -> Bool {
        valueBytes = count
        valueHead = 0
        headBytes = 0
        state = count == 0 ? .valueEnd : .value
        left = count == 0 ? 2 : count
        return true
    }

    /// A number of one to nine digits.
    @inline(__always)
    private static func number(_ bytes: UnsafeRawPointer, _ place: inout Int, _ length: Int) -> Int? {
        let start = place
        var number = 0
        while place < length {
            let digit = bytes.load(fromByteOffset: place, as: UInt8.self) &- 0x30
            if digit > 9 { break }
            number = number &* 10 &+ Int(digit)
            place &+= 1
        }
        return place > start && place &- start <= 10 ? number : nil
    }
}
