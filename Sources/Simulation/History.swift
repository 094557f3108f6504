import ClusterCore

/// What clients asked and heard, and whether it can be true.
///
/// A read may return any write that was not certainly overwritten before the read began: some write or delete that
/// began after the returned one was acknowledged and that had taken effect (was acknowledged, or seen by a read that
/// had ended) before the read began. A write without an answer may take effect at any time, or never. A miss is judged
/// apart: it is always consistent, since a cache may lose, but not always excusable.
final class History {
    struct Write {
        var number: Int
        var isDelete: Bool
        var invoked: UInt64
        /// When its client heard that it was done; never for one that was lost.
        var acknowledged = UInt64.max
        /// When it had certainly taken effect: acknowledged, or seen.
        var effectiveBy = UInt64.max
        /// It certainly has no effect.
        var isVoid = false
    }

    private struct Counter {
        var base: UInt64
        var invoked: UInt64
        var made = UInt64.max
        var isVoid = false
    }

    private struct Increment {
        var ticket: Int
        var invoked: UInt64
        var completed = UInt64.max
        var value: UInt64?
        var isVoid = false
    }

    private struct ListLife {
        var life: Int
        var invoked: UInt64
        var made = UInt64.max
        var isVoid = false
    }

    private struct Append {
        var token: Int
        var invoked: UInt64
        var completed = UInt64.max
        var isVoid = false
    }

    var onFailure: ((String) -> Void)?
    private var counter = 0
    private var lives: UInt64 = 0
    private var writes: [Int: [Write]] = [:]
    private var flushes: [Write] = []
    private var counters: [Int: [Counter]] = [:]
    private var increments: [Int: [Increment]] = [:]
    private var lists: [Int: [ListLife]] = [:]
    private var appends: [Int: [Append]] = [:]

    private func fail(_ text: String) { onFailure?(text) }

    func newLife() -> UInt64 {
        lives += 1
        return lives
    }

    static func writeNumber(_ text: String) -> Int? {
        guard let mark = text.firstIndex(of: "#") else { return nil }
        return Int(text[text.index(after: mark)...].prefix { $0 != "." })
    }

    // MARK: - Registers

    func beginWrite(_ key: Int, isDelete: Bool, at time: UInt64) -> Int {
        counter += 1
        writes[key, default: []].append(Write(number: counter, isDelete: isDelete, invoked: time))
        return counter
    }

    func beginFlush(at time: UInt64) -> Int {
        counter += 1
        flushes.append(Write(number: counter, isDelete: true, invoked: time))
        return counter
    }

    func endFlush(_ number: Int, isDone: Bool, at time: UInt64) {
        guard isDone, let index = flushes.firstIndex(where: { $0.number == number }) else { return }
        flushes[index].acknowledged = time
        flushes[index].effectiveBy = time
    }

    func acknowledge(_ number: Int, _ key: Int, _ isDone: Bool, _ command: Command, at time: UInt64, line: String) {
        guard let index = writes[key]?.firstIndex(where: { $0.number == number }) else { return }
        if isDone {
            writes[key]?[index].acknowledged = time
            let before = writes[key]?[index].effectiveBy ?? time
            writes[key]?[index].effectiveBy = min(before, time)
        } else {
            switch line {
            case "EXISTS", "NOT_FOUND", "NOT_STORED": writes[key]?[index].isVoid = true
            default: fail("a write of r\(key) was answered \(line)")
            }
        }
    }

    /// No answer, or an error: it may have happened.
    func lost(_ command: Command, at time: UInt64) {}

    /// Judges a read; returns whether a miss is to be expected.
    func read(
        _ key: Int,
        _ text: String?,
        _ command: Command,
        at time: UInt64,
        excusedUntil: UInt64,
        node: String
    ) -> Bool {
        let all = writes[key] ?? []
        guard let text else { return isMissExcused(all, command, excusedUntil) }
        guard text.hasPrefix("\(key)#"), let number = Self.writeNumber(text),
            let index = all.firstIndex(where: { $0.number == number })
        else {
            fail("r\(key) has a value that nobody wrote: \(text)")
            return true
        }
        let write = all[index]
        if write.isVoid { fail("r\(key) shows write \(number), which was refused") }
        for other in all + flushes where other.number != number && !other.isVoid {
            guard other.invoked > write.acknowledged, other.effectiveBy < command.invoked else { continue }
            let kind = other.isDelete ? "deleted by" : "overwritten by"
            fail(
                "STALE: r\(key) read through \(node) in \(Self.span(command.invoked, time)) is write \(number)"
                    + " (\(Self.span(write.invoked, write.acknowledged))), \(kind) \(other.number)"
                    + " (\(Self.span(other.invoked, other.effectiveBy)))"
            )
            break
        }
        writes[key]?[index].effectiveBy = min(write.effectiveBy, time)
        return true
    }

    private func isMissExcused(_ all: [Write], _ command: Command, _ excusedUntil: UInt64) -> Bool {
        // The newest store that was acknowledged before the read began, and after which nothing could have removed it.
        guard let store = all.last(where: { !$0.isDelete && !$0.isVoid && $0.acknowledged < command.invoked }) else {
            return true
        }
        if store.invoked <= excusedUntil { return true }
        for other in all where other.isDelete && !other.isVoid {
            if other.acknowledged >= store.invoked || other.acknowledged == .max { return true }
        }
        for flush in flushes where flush.acknowledged >= store.invoked { return true }
        return false
    }

    /// A cas that succeeded: nothing may have come between the read of what it expected, which ended at `seen`, and the
    /// cas.
    ///
    /// It is the read that counts, not when the expected write was seen first: a set whose answer was lost on its way
    /// between nodes is repeated, and takes effect again, perhaps after a delete that came in between.
    func exchanged(_ key: Int, expected: Int, seen: UInt64, write: Int, _ command: Command, at time: UInt64) {
        for other in writes[key] ?? [] where other.number != expected && other.number != write && !other.isVoid {
            guard other.invoked > seen, other.acknowledged < command.invoked else { continue }
            fail(
                "CAS of r\(key) replaced write \(expected), seen at \(seen / 1_000_000) ms, although write"
                    + " \(other.number) (\(Self.span(other.invoked, other.acknowledged))) had come in between"
            )
            return
        }
    }

    // MARK: - Counters

    func beginCounter(_ key: Int, base: UInt64, at time: UInt64) {
        counters[key, default: []].append(Counter(base: base, invoked: time))
    }

    func madeCounter(_ key: Int, base: UInt64, _ isMade: Bool, at time: UInt64) {
        guard let index = counters[key]?.firstIndex(where: { $0.base == base }) else { return }
        if isMade { counters[key]?[index].made = time } else { counters[key]?[index].isVoid = true }
    }

    func beginIncrement(_ key: Int, at time: UInt64) -> Int {
        counter += 1
        increments[key, default: []].append(Increment(ticket: counter, invoked: time))
        return counter
    }

    func endIncrement(_ key: Int, _ ticket: Int, value: UInt64?, _ command: Command, at time: UInt64) {
        guard let index = increments[key]?.firstIndex(where: { $0.ticket == ticket }), let all = increments[key] else {
            return
        }
        increments[key]?[index].completed = time
        increments[key]?[index].value = value
        guard let value else {
            increments[key]?[index].isVoid = true
            return
        }
        let base = value / 1_000_000 * 1_000_000
        guard let life = counters[key]?.first(where: { $0.base == base }), !life.isVoid else {
            fail("c\(key) is \(value), which no client began")
            return
        }
        var possible: UInt64 = 0
        var certain: UInt64 = 0
        for other in all {
            if other.ticket == ticket {
                possible += 1
                continue
            }
            guard !other.isVoid else { continue }
            if let known = other.value {
                guard known / 1_000_000 * 1_000_000 == base else {
                    if known > value, other.completed < command.invoked {
                        fail("STALE: c\(key) is \(value) after \(known) was answered")
                    }
                    continue
                }
                if known == value { fail("DOUBLE: incr c\(key) answered \(value) twice") }
                if other.completed < command.invoked {
                    certain += 1
                    if known > value { fail("STALE: incr c\(key) answered \(value) after \(known)") }
                }
            }
            if other.completed > life.invoked { possible += 1 }
        }
        if value - base > possible { fail("TWICE: c\(key) is \(value), but \(possible) increments at most were asked") }
        if value - base < certain + 1 { fail("LOST: c\(key) is \(value), but \(certain) increments were acknowledged") }
    }

    func isCounterExcused(_ key: Int, _ command: Command, _ excusedUntil: UInt64) -> Bool {
        guard let life = counters[key]?.last(where: { $0.made < command.invoked }) else { return true }
        return life.invoked <= excusedUntil || flushes.contains { $0.acknowledged >= life.invoked }
    }

    // MARK: - Lists

    func beginList(_ key: Int, life: Int, at time: UInt64) {
        lists[key, default: []].append(ListLife(life: life, invoked: time))
    }

    func madeList(_ key: Int, life: Int, _ isMade: Bool, at time: UInt64) {
        guard let index = lists[key]?.firstIndex(where: { $0.life == life }) else { return }
        if isMade { lists[key]?[index].made = time } else { lists[key]?[index].isVoid = true }
    }

    func beginAppend(_ key: Int, at time: UInt64) -> Int {
        counter += 1
        appends[key, default: []].append(Append(token: counter, invoked: time))
        return counter
    }

    func endAppend(_ key: Int, _ token: Int, isStored: Bool, at time: UInt64) {
        guard let index = appends[key]?.firstIndex(where: { $0.token == token }) else { return }
        appends[key]?[index].completed = time
        appends[key]?[index].isVoid = !isStored
    }

    func readList(_ key: Int, _ text: String, _ command: Command, at time: UInt64) {
        guard let colon = text.firstIndex(of: ":"), let life = Int(text[..<colon].dropFirst()),
            let record = lists[key]?.first(where: { $0.life == life }), !record.isVoid
        else {
            fail("l\(key) begins with what nobody wrote: \(text.prefix(20))")
            return
        }
        for newer in lists[key] ?? [] where newer.made < command.invoked && newer.invoked > record.made {
            fail("STALE: l\(key) is of life \(life), after life \(newer.life) was made")
        }
        var seen: Set<Int> = []
        for word in text[text.index(after: colon)...].split(separator: ",") {
            guard let token = Int(word.dropFirst()), let append = appends[key]?.first(where: { $0.token == token })
            else {
                fail("l\(key) has \(word), which nobody appended")
                continue
            }
            if append.isVoid { fail("l\(key) has \(word), which was refused") }
            if !seen.insert(token).inserted { fail("TWICE: l\(key) has \(word) twice") }
        }
        for append in appends[key] ?? [] where !append.isVoid {
            if append.invoked > record.made, append.completed < command.invoked, !seen.contains(append.token) {
                fail(
                    "LOST: l\(key) lacks t\(append.token), which was acknowledged at \(Self.milliseconds(append.completed))"
                )
                return
            }
        }
    }

    func isListExcused(_ key: Int, _ command: Command, _ excusedUntil: UInt64) -> Bool {
        guard let life = lists[key]?.last(where: { $0.made < command.invoked }) else { return true }
        return life.invoked <= excusedUntil || flushes.contains { $0.acknowledged >= life.invoked }
    }

    private static func span(_ from: UInt64, _ to: UInt64) -> String { milliseconds(from) + "..." + milliseconds(to) }

    static func milliseconds(_ time: UInt64) -> String { time == .max ? "never" : "\(time / 1_000_000)" }
}
