import Logging
import Testing

@testable import SystemdSupport

private func record(
    _ message: String,
    _ metadata: Logger.Metadata = [:],
    level: Logger.Level = .notice,
    microseconds: Int64 = 0
) -> LogRecord {
    LogRecord(
        level: level,
        label: "ring",
        message: message,
        metadata: metadata,
        file: "A/B.swift",
        function: "f()",
        line: 7,
        microseconds: microseconds
    )
}

private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

@Suite struct JournalTests {
    @Test func `a message becomes these fields, byte for byte`() {
        let fields = JournalFields.encode(record("slice\nmoved", ["drain.id": "8c1f", "MESSAGE": "no"]))
        #expect(
            fields.map(text) == [
                "MESSAGE=slice\nmoved", "PRIORITY=5", "SYSLOG_IDENTIFIER=henge", "HENGE_LOGGER=ring",
                "CODE_FILE=A/B.swift", "CODE_LINE=7", "CODE_FUNC=f()", "HENGE_MESSAGE=no", "HENGE_DRAIN_ID=8c1f",
            ]
        )
    }

    @Test(arguments: [
        ("drain.id", "HENGE_DRAIN_ID"), ("_x", "HENGE__X"), ("9", "HENGE_9"), ("größe", "HENGE_GR____E"),
        ("", "HENGE_"), (String(repeating: "a", count: 200), "HENGE_" + String(repeating: "A", count: 58)),
    ])
    func `names of fields are those that journald keeps`(_ key: String, _ name: String) {
        #expect(JournalFields.name(key) == name)
        #expect(name.utf8.count <= 64)
    }

    @Test func `every level has syslog's severity`() {
        #expect(Logger.Level.allCases.map(JournalFields.priority) == [7, 7, 6, 5, 4, 3, 2])
    }

    @Test func `long values are cut and many fields bounded`() {
        let long = String(repeating: "x", count: JournalFields.valueBytesMax + 1)
        var metadata: Logger.Metadata = [:]
        for index in 0..<200 { metadata["k\(index)"] = "v" }
        let fields = JournalFields.encode(record(long, metadata))
        #expect(fields[0].count == "MESSAGE=".utf8.count + JournalFields.valueBytesMax)
        #expect(fields.count == 7 + JournalFields.metadataFieldsMax)
    }

    @Test func `nested metadata reads the same whatever its order`() {
        let nested = record("m", ["d": .dictionary(["b": "2", "a": .array(["x", .stringConvertible(1)])])])
        #expect(nested.metadata.map(\.value) == ["{a: [x, 1], b: 2}"])
    }
}

@Suite struct LineTests {
    @Test func `a line for programs`() {
        let line = LogLine.logfmt(
            record("it \"moved\"\n", ["peer": "n2", "why": "too slow", "e": ""], microseconds: 1_767_323_045_678_901)
        )
        #expect(
            text(line)
                == "time=2026-01-02T03:04:05.678Z level=notice logger=ring msg=\"it \\\"moved\\\"\\n\" e=\"\" peer=n2 "
                + "why=\"too slow\"\n"
        )
    }

    @Test func `a line for people, without colour and with`() {
        let entry = record("moved\u{1b}[31m", ["a b": "x"], level: .info, microseconds: 1_767_323_045_678_901)
        #expect(text(LogLine.readable(entry, colour: false)) == "03:04:05.678 INFO     moved\\x1b[31m  a_b=x\n")
        #expect(text(LogLine.readable(entry, colour: true)).contains("\u{1b}[32mINFO\u{1b}[0m"))
    }

    @Test func `long lines are cut but end`() {
        let line = LogLine.logfmt(record(String(repeating: "x", count: 100_000)))
        #expect(line.count == LogLine.bytesMax && line.last == UInt8(ascii: "\n"))
    }

    @Test(arguments: [
        (Int64(0), "1970-01-01T00:00:00.000Z"), (951_782_400_000_000, "2000-02-29T00:00:00.000Z"),
        (4_107_542_399_999_999, "2100-02-28T23:59:59.999Z"), (-1, "1969-12-31T23:59:59.999Z"),
    ])
    func `times by the calendar`(_ microseconds: Int64, _ expected: String) {
        #expect(LogLine.timestamp(microseconds) == expected)
    }
}
