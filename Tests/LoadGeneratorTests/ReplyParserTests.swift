import LoadGenerator
import Testing

@Suite struct ReplyParserTests {
    /// An event with what it told.
    private struct Note: Equatable {
        var event: ReplyParser.Event
        var valueBytes = 0
        var keyBytes = 0
        var head: UInt64 = 0
        var tail: UInt64 = 0
    }

    /// What the parser says of bytes that come in pieces, each in memory of its own.
    private func notes(_ pieces: [ArraySlice<UInt8>]) -> [Note] {
        var parser = ReplyParser()
        defer { parser.deallocate() }
        var notes: [Note] = []
        for piece in pieces {
            let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(piece.count, 1), alignment: 1)
            defer { memory.deallocate() }
            memory.copyBytes(from: piece)
            guard let base = memory.baseAddress else { continue }
            var position = UnsafeRawPointer(base)
            let end = position + piece.count
            reading: while true {
                let event = parser.next(&position, end: end)
                switch event {
                case .needsMore: break reading
                case .value:
                    notes.append(
                        Note(
                            event: event,
                            valueBytes: parser.valueBytes,
                            keyBytes: parser.keyBytes,
                            head: parser.valueHead,
                            tail: parser.keyTail
                        )
                    )
                case .malformed: return notes + [Note(event: event)]
                case .end, .stored, .refused: notes.append(Note(event: event))
                }
            }
        }
        return notes
    }

    private func notes(_ text: String) -> [Note] { notes([Array(text.utf8)[...]]) }

    private static let stream =
        "VALUE k0000000000000000007 0 10\r\nhello\r\nEND\r\nEND\r\nVALUE k00000042 17 0 99\r\n\r\nEND\r\nSTORED\r\n"
        + "VA 9\r\n012345678\r\nEN\r\nHD\r\nVA 3 t5\r\nabc\r\nSERVER_ERROR out of memory storing object\r\nSTORED\r\n"

    @Test func `values, ends and errors are told apart`() {
        let seven = KeyText.tail(7)
        let nine = "01234567".utf8.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let hello = "hello\r\nE".utf8.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        #expect(
            notes(Self.stream) == [
                Note(event: .value, valueBytes: 10, keyBytes: 20, head: hello, tail: seven), Note(event: .end),
                Note(event: .value, valueBytes: 0, keyBytes: 9, head: 0, tail: KeyText.tail(42)), Note(event: .end),
                Note(event: .stored), Note(event: .value, valueBytes: 9, head: nine), Note(event: .end),
                Note(event: .stored), Note(event: .value, valueBytes: 3), Note(event: .refused), Note(event: .stored),
            ]
        )
    }

    @Test func `every split into three tells the same`() {
        let bytes = Array(Self.stream.utf8)
        let whole = notes([bytes[...]])
        for first in 0...bytes.count {
            for second in first...bytes.count {
                #expect(notes([bytes[..<first], bytes[first..<second], bytes[second...]]) == whole)
            }
        }
        #expect(notes(bytes.indices.map { bytes[$0...$0] }) == whole)
    }

    @Test(arguments: [
        "VALUE k 0 3\r\nabcd\r\n", "VALUE k 0 3\r\nabcX\n", "VALUE  0 3\r\n", "VALUE k 0\r\n", "VALUE k x 3\r\n",
        "VALUE k 0 3x\r\n", "VALUE k 0 3\n", "VALUES 0 3\r\n", "VA x\r\n", "VA \r\n", "STORING\r\n", "ENDED\r\n",
        "\r\n",
        "OK\r\n", String(repeating: "x", count: 2000), String(repeating: "VALUE ", count: 300) + "\r\n",
    ])
    func `what is no reply loses the framing`(_ text: String) {
        #expect(notes(text).last == Note(event: .malformed))
        let bytes = Array(text.utf8)
        #expect(notes(bytes.indices.map { bytes[$0...$0] }).last == Note(event: .malformed))
    }

    @Test func `random bytes are read without a trap`() {
        var chance = Chance(seed: 5)
        let alphabet = Array("VALUEND STORHA0129\r\nk".utf8)
        for _ in 0..<3000 {
            let bytes = (0..<40).map { _ in alphabet.randomElement(using: &chance) ?? 0 }
            let cut = Int.random(in: 0...40, using: &chance)
            #expect(notes([bytes[..<cut], bytes[cut...]]) == notes([bytes[...]]), "\(bytes), cut at \(cut)")
        }
    }
}
