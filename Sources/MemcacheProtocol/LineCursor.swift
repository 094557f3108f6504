/// Cuts a line into tokens, which are parted by one or more spaces and by nothing else.
///
/// All reading of a line goes through here: no other code of the parser computes an address.
@usableFromInline
struct LineCursor {
    /// A token's place in the line.
    @usableFromInline
    struct Token {
        @usableFromInline let start: Int
        @usableFromInline let end: Int

        @inlinable
        init(start: Int, end: Int) {
            self.start = start
            self.end = end
        }

        @inlinable
        var count: Int { end &- start }
    }

    @usableFromInline let line: UnsafeRawBufferPointer
    /// Where the search for the next token starts.
    @usableFromInline var position: Int
    @usableFromInline let end: Int

    /// `end` is where the line ends, without its line end; at most `line.count`.
    @inlinable
    init(_ line: UnsafeRawBufferPointer, from position: Int, to end: Int) {
        precondition(position >= 0 && position <= end && end <= line.count, "the line lies outside of the bytes")
        self.line = line
        self.position = position
        self.end = end
    }

    /// The next token, or nil at the end of the line.
    @inlinable
    mutating func next() -> Token? {
        var start = position
        while start < end, line[start] == 0x20 { start &+= 1 }
        if start >= end {
            position = end
            return nil
        }
        var index = start &+ 1
        while index < end, line[index] != 0x20 { index &+= 1 }
        position = index
        return Token(start: start, end: index)
    }

    @inlinable
    func bytes(of token: Token) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: line[token.start..<token.end])
    }

    /// Whether the token is exactly `text`.
    @inline(__always)
    func equals(_ token: Token, _ text: StaticString) -> Bool {
        token.count == text.utf8CodeUnitCount && starts(token, text)
    }

    /// Whether the token begins with `text`.
    @inline(__always)
    func starts(_ token: Token, _ text: StaticString) -> Bool {
        let count = text.utf8CodeUnitCount
        if token.count < count { return false }
        let expected = text.utf8Start
        var index = 0
        while index < count {
            if line[token.start &+ index] != expected[index] { return false }
            index &+= 1
        }
        return true
    }

    /// The line's last token, wherever the cursor stands, or nil where there is none but spaces.
    var last: Token? {
        let end = trimmedEnd
        if end == 0 { return nil }
        var start = end &- 1
        while start > 0, line[start &- 1] != 0x20 { start &-= 1 }
        return Token(start: start, end: end)
    }

    /// Where the line ends without trailing spaces.
    var trimmedEnd: Int {
        var trimmed = end
        while trimmed > 0, line[trimmed &- 1] == 0x20 { trimmed &-= 1 }
        return trimmed
    }

    /// What follows, without the spaces around it.
    var rest: Token {
        var start = position
        while start < end, line[start] == 0x20 { start &+= 1 }
        return Token(start: start, end: max(start, trimmedEnd))
    }

    /// Whether the line's last token is `noreply` and lies behind `offset`.
    func endsInNoreply(behind offset: Int) -> Bool {
        guard let last, last.start > offset else { return false }
        return equals(last, "noreply")
    }
}
