import Testing

@testable import Simulation

@Suite struct HistoryTests {
    private let history = History()

    private func write(_ key: Int, isDelete: Bool = false, from invoked: UInt64, to acknowledged: UInt64) -> Int {
        let number = history.beginWrite(key, isDelete: isDelete, at: invoked)
        let command = Command(kind: .set(key, write: number), invoked: invoked)
        history.acknowledge(number, key, true, command, at: acknowledged, line: "STORED")
        return number
    }

    /// What is said of a cas from 50 to 60 over a write that was seen at 20.
    private func judge(_ expected: Int) -> [String] {
        var failures: [String] = []
        history.onFailure = { failures.append($0) }
        let fresh = history.beginWrite(1, isDelete: false, at: 50)
        let command = Command(kind: .compareAndSet(1, write: fresh, expected: expected, seen: 20), invoked: 50)
        history.exchanged(1, expected: expected, seen: 20, write: fresh, command, at: 60)
        return failures
    }

    @Test func `a cas that replaced more than it saw is a failure`() {
        let expected = write(1, from: 0, to: 10)
        _ = write(1, isDelete: true, from: 30, to: 40)
        #expect(judge(expected).count == 1)
    }

    @Test func `a cas may come before what overlaps it`() {
        let expected = write(1, from: 0, to: 10)
        _ = write(1, isDelete: true, from: 30, to: 55)
        _ = write(1, from: 15, to: 45)
        _ = write(2, from: 30, to: 40)
        #expect(judge(expected) == [])
    }
}
