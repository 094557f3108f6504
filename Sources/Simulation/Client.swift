import CacheNode
import ClusterCore

/// A client of the cluster: one connection at a time, a few requests in flight.
final class Client {
    let index: Int
    var random: Xoshiro256
    /// Rises with each connection; input of an earlier one is void.
    var life = 0
    var process: Process?
    var thread = 0
    var session: ClientSession?
    var input: [UInt8] = []
    var output: [UInt8] = []
    var inFlight: [Command] = []
    var sentAt: UInt64 = 0
    /// What `gets` said last: key, unique, and the write that was seen.
    var uniques: [(key: Int, unique: UInt64, write: Int, seen: UInt64)] = []
    /// Counters and lists that this client found missing and must make.
    var missing: [(isCounter: Bool, key: Int)] = []

    init(index: Int, seed: UInt64) {
        self.index = index
        random = Xoshiro256(seed: seed)
    }

    var isIdle: Bool { inFlight.isEmpty }

    func disconnect() {
        session?.isGone = true
        if let process { process.clients.removeAll { $0 === self } }
        process = nil
        session = nil
        input = []
        output = []
        life += 1
    }

    /// The connection is gone: what was asked may have happened.
    func lose(_ history: History, at time: UInt64) {
        for command in inFlight { history.lost(command, at: time) }
        inFlight = []
        session?.isGone = true
        process = nil
        session = nil
        input = []
        output = []
        life += 1
    }
}

/// One request as the judge sees it.
struct Command {
    enum Kind {
        case get([Int])
        case gets(Int)
        case set(Int, write: Int)
        case compareAndSet(Int, write: Int, expected: Int, seen: UInt64)
        case delete(Int, write: Int)
        case makeCounter(Int, base: UInt64)
        case increment(Int, ticket: Int)
        case makeList(Int, life: Int)
        case append(Int, token: Int)
        case readList(Int)
        case flushAll(write: Int)
    }

    var kind: Kind
    var invoked: UInt64
}

extension World {
    static let registerKeys = 160
    static let counterKeys = 8
    static let listKeys = 8
    static var clientPatienceMilliseconds: UInt64 { 12_000 }

    /// Clients begin, or go on.
    package func startWorkload() {
        guard !isWorkloadRunning else { return }
        isWorkloadRunning = true
        for client in clients { schedule(.clientTurn(client), after: UInt64.random(in: 0...5_000_000, using: &random)) }
    }

    package func stopWorkload() { isWorkloadRunning = false }

    /// A client looks at what it could do.
    func turn(_ client: Client) {
        if !client.inFlight.isEmpty {
            if time - client.sentAt > Self.clientPatienceMilliseconds * 1_000_000 {
                log("client \(client.index) gives up on \(client.process?.node.name ?? "nobody")")
                if client.process?.isPaused == false {
                    monitor.unanswered += 1
                    fail("client \(client.index) got no answer from \(client.process?.node.name ?? "") in 12 s")
                }
                let process = client.process
                client.lose(history, at: time)
                process?.clients.removeAll { $0 === client }
            }
        }
        if client.inFlight.isEmpty {
            guard isWorkloadRunning else {
                client.disconnect()
                return
            }
            if client.process == nil || client.process?.isAlive == false { connect(client) }
            if let process = client.process {
                if process.drainFinished {
                    client.disconnect()
                } else {
                    send(client, process)
                }
            }
        }
        let pause = UInt64.random(in: 1...20, using: &client.random) * 1_000_000
        schedule(.clientTurn(client), after: pause)
    }

    private func connect(_ client: Client) {
        client.life += 1
        let open = nodes.compactMap(\.process).filter { $0.isAlive && $0.isOpen }
        guard let process = open.randomElement(using: &client.random) else { return }
        client.process = process
        client.thread = Int.random(in: 1...process.workers.count, using: &client.random)
        client.session = ClientSession(token: client.index, itemBytesMax: 1 << 20)
        process.clients.append(client)
    }

    private func send(_ client: Client, _ process: Process) {
        var text = ""
        let count = Int.random(in: 0..<4, using: &client.random) == 0 ? Int.random(in: 2...5, using: &client.random) : 1
        for _ in 0..<count {
            let (command, line) = nextCommand(client)
            client.inFlight.append(command)
            text += line
        }
        client.input += Array(text.utf8)
        client.sentAt = time
        queue.schedule(.clientInput(client, life: client.life), at: time + 1000)
    }

    private func nextCommand(_ client: Client) -> (Command, String) {
        func command(_ kind: Command.Kind) -> Command { Command(kind: kind, invoked: time) }
        if let missing = client.missing.popLast() {
            if missing.isCounter {
                let base = history.newLife() * 1_000_000
                history.beginCounter(missing.key, base: base, at: time)
                let text = String(base)
                return (
                    command(.makeCounter(missing.key, base: base)),
                    "add c\(missing.key) 0 0 \(text.utf8.count)\r\n\(text)\r\n"
                )
            }
            let life = Int(history.newLife())
            let text = "s\(life):"
            history.beginList(missing.key, life: life, at: time)
            return (
                command(.makeList(missing.key, life: life)), "add l\(missing.key) 0 0 \(text.utf8.count)\r\n\(text)\r\n"
            )
        }
        let key = Int.random(in: 0..<Self.registerKeys, using: &client.random)
        switch Int.random(in: 0..<100, using: &client.random) {
        case 0..<36: return (command(.get([key])), "get r\(key)\r\n")
        case 36..<42:
            let keys = (0..<Int.random(in: 2...6, using: &client.random)).map { _ in
                Int.random(in: 0..<Self.registerKeys, using: &client.random)
            }
            return (command(.get(keys)), "get " + keys.map { "r\($0)" }.joined(separator: " ") + "\r\n")
        case 42..<68:
            let write = history.beginWrite(key, isDelete: false, at: time)
            let text = "\(key)#\(write)" + String(repeating: ".", count: Int.random(in: 0...40, using: &client.random))
            return (command(.set(key, write: write)), "set r\(key) 0 0 \(text.utf8.count)\r\n\(text)\r\n")
        case 68..<74:
            let write = history.beginWrite(key, isDelete: true, at: time)
            return (command(.delete(key, write: write)), "delete r\(key)\r\n")
        case 74..<79: return (command(.gets(key)), "gets r\(key)\r\n")
        case 79..<84:
            guard let unique = client.uniques.popLast() else { return (command(.gets(key)), "gets r\(key)\r\n") }
            let write = history.beginWrite(unique.key, isDelete: false, at: time)
            let text = "\(unique.key)#\(write)"
            return (
                command(.compareAndSet(unique.key, write: write, expected: unique.write, seen: unique.seen)),
                "cas r\(unique.key) 0 0 \(text.utf8.count) \(unique.unique)\r\n\(text)\r\n"
            )
        case 84..<92:
            let counter = Int.random(in: 0..<Self.counterKeys, using: &client.random)
            let ticket = history.beginIncrement(counter, at: time)
            return (command(.increment(counter, ticket: ticket)), "incr c\(counter) 1\r\n")
        case 92..<97:
            let list = Int.random(in: 0..<Self.listKeys, using: &client.random)
            let token = history.beginAppend(list, at: time)
            let text = "t\(token),"
            return (command(.append(list, token: token)), "append l\(list) 0 0 \(text.utf8.count)\r\n\(text)\r\n")
        default:
            let list = Int.random(in: 0..<Self.listKeys, using: &client.random)
            return (command(.readList(list)), "get l\(list)\r\n")
        }
    }

    /// One client asks for everything to be flushed.
    package func flushAll() {
        guard let client = clients.first(where: { $0.process?.isAlive == true && $0.inFlight.isEmpty }),
            client.process?.drainFinished == false
        else { return }
        log("client \(client.index) flushes everything")
        let write = history.beginFlush(at: time)
        client.inFlight.append(Command(kind: .flushAll(write: write), invoked: time))
        client.input += Array("flush_all\r\n".utf8)
        client.sentAt = time
        queue.schedule(.clientInput(client, life: client.life), at: time + 1000)
    }

    /// The node reads what the client sent.
    func feed(_ client: Client) {
        guard let process = client.process, let session = client.session, process.isAlive else { return }
        let thread = process.threads[client.thread]
        let worker = process.workers[client.thread - 1]
        let context = context(process)
        let consumed = client.input.withUnsafeBytes { bytes in
            guard !worker.plane.gather(bytes, session) else {
                worker.plane.executeGathered(context: context, outbox: &thread.outbox)
                return bytes.count
            }
            return worker.plane.receive(bytes, session: session, context: context, outbox: &thread.outbox)
        }
        client.input.removeFirst(consumed)
        finishTurn(process, thread)
        collect(client)
    }

    /// Takes what the session has written.
    func collect(_ client: Client) {
        guard let session = client.session, let process = client.process else { return }
        if !session.output.isEmpty {
            client.output += session.output.array()
            session.output.removeAll()
        }
        if session.wantsResume, !client.input.isEmpty {
            queue.schedule(.clientInput(client, life: client.life), at: time + 500_000)
        }
        while !client.inFlight.isEmpty, let (answer, count) = Answer.parse(client.output, client.inFlight[0].kind) {
            client.output.removeFirst(count)
            let command = client.inFlight.removeFirst()
            judge(command, answer, client)
        }
        if client.inFlight.isEmpty, !client.output.isEmpty {
            fail("client \(client.index) got more than it asked for: \(String(decoding: client.output, as: UTF8.self))")
            client.output = []
        }
        if process.drainFinished, client.isIdle { client.disconnect() }
    }

    private func judge(_ command: Command, _ answer: Answer, _ client: Client) {
        monitor.answers += 1
        if case .error(let text) = answer {
            monitor.errors += 1
            log("client \(client.index) at \(client.process?.node.name ?? "") \(command.kind): \(text)")
            history.lost(command, at: time)
            return
        }
        switch command.kind {
        case .get(let keys):
            guard case .values(let values) = answer else { return }
            for key in Set(keys).sorted() { read(key, values, command, client) }
        case .gets(let key):
            guard case .values(let values) = answer else { return }
            read(key, values, command, client)
            if let value = values.first, let write = History.writeNumber(value.text) {
                client.uniques.append((key, value.unique, write, time))
                if client.uniques.count > 4 { client.uniques.removeFirst() }
            }
        case .set(let key, let write):
            history.acknowledge(write, key, answer.line == "STORED", command, at: time, line: answer.line)
        case .delete(let key, let write):
            history.acknowledge(write, key, true, command, at: time, line: answer.line)
        case .compareAndSet(let key, let write, let expected, let seen):
            let isStored = answer.line == "STORED"
            history.acknowledge(write, key, isStored, command, at: time, line: answer.line)
            if isStored { history.exchanged(key, expected: expected, seen: seen, write: write, command, at: time) }
        case .makeCounter(let key, let base):
            history.madeCounter(key, base: base, answer.line == "STORED", at: time)
        case .increment(let key, let ticket):
            if answer.line == "NOT_FOUND" {
                history.endIncrement(key, ticket, value: nil, command, at: time)
                missed(isExcused: history.isCounterExcused(key, command, monitor.excusedUntil), command, "c\(key)")
                client.missing.append((true, key))
            } else if let value = UInt64(answer.line) {
                history.endIncrement(key, ticket, value: value, command, at: time)
            } else {
                fail("incr c\(key) answered \(answer.line)")
            }
        case .makeList(let key, let life):
            history.madeList(key, life: life, answer.line == "STORED", at: time)
        case .append(let key, let token):
            let isStored = answer.line == "STORED"
            history.endAppend(key, token, isStored: isStored, at: time)
            if !isStored {
                missed(isExcused: history.isListExcused(key, command, monitor.excusedUntil), command, "l\(key)")
                client.missing.append((false, key))
            }
        case .readList(let key):
            guard case .values(let values) = answer, let value = values.first else { return }
            history.readList(key, value.text, command, at: time)
        case .flushAll(let write):
            history.endFlush(write, isDone: answer.line == "OK", at: time)
        }
    }

    private func read(_ key: Int, _ values: [Answer.Value], _ command: Command, _ client: Client) {
        let value = values.first { $0.key == "r\(key)" }
        let isExcused = history.read(
            key,
            value?.text,
            command,
            at: time,
            excusedUntil: monitor.excusedUntil,
            node: client.process?.node.name ?? ""
        )
        if value == nil { missed(isExcused: isExcused, command, "r\(key)") }
    }

    /// A read that found nobody to ask until its deadline is answered as a miss: an error in disguise.
    private func missed(isExcused: Bool, _ command: Command, _ key: String) {
        if time - command.invoked >= 4_900_000_000 {
            monitor.errors += 1
            return
        }
        guard !isExcused, !monitor.isLossAllowed else { return }
        monitor.misses += 1
        log("MISS of \(key)")
        if monitor.misses <= 3 { fail("\(key) was acknowledged, should have survived, and is missing") }
    }
}

/// What a server said to one request.
enum Answer {
    struct Value {
        var key: String
        var text: String
        var unique: UInt64
    }

    case line(String)
    case values([Value])
    case error(String)

    var line: String {
        if case .line(let text) = self { text } else { "" }
    }

    /// Looks for a whole answer to a request of that kind at the front of `bytes`.
    static func parse(_ bytes: [UInt8], _ kind: Command.Kind) -> (Answer, Int)? {
        let isRetrieval =
            switch kind {
            case .get, .gets, .readList: true
            default: false
            }
        var offset = 0
        func takeLine() -> String? {
            guard let end = bytes[offset...].firstIndex(of: 10), end > offset else { return nil }
            let text = String(decoding: bytes[offset..<(end - 1)], as: UTF8.self)
            offset = end + 1
            return text
        }
        guard isRetrieval else {
            guard let text = takeLine() else { return nil }
            if text.hasPrefix("SERVER_ERROR") || text.hasPrefix("CLIENT_ERROR") || text == "ERROR" {
                return (.error(text), offset)
            }
            return (.line(text), offset)
        }
        var values: [Value] = []
        while let text = takeLine() {
            if text == "END" { return (.values(values), offset) }
            let words = text.split(separator: " ")
            guard words.first == "VALUE", words.count >= 4, let count = Int(words[3]) else {
                return (.error(text), offset)
            }
            guard bytes.count >= offset + count + 2 else { return nil }
            values.append(
                Value(
                    key: String(words[1]),
                    text: String(decoding: bytes[offset..<(offset + count)], as: UTF8.self),
                    unique: words.count > 4 ? UInt64(words[4]) ?? 0 : 0
                )
            )
            offset += count + 2
        }
        return nil
    }
}
