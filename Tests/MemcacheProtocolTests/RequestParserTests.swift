import ClusterCore
import MemcacheProtocol
import Testing

private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

private func spaces(_ count: Int) -> String { String(repeating: " ", count: count) }

@Suite struct RequestParserTests {
    @Test(arguments: Corpus.all)
    func `bytes become the steps that memcached takes`(example: Example) {
        #expect(StepTrace.of(example.input) == example.steps)
    }

    @Test func `the corpus has every command and every error of the parser`() {
        let steps = Corpus.all.flatMap(\.steps)
        for command in Request.Command.allCases {
            #expect(steps.contains { $0.split(separator: " ").first == "\(command)" }, "\(command)")
        }
        let errors: [ErrorReply] = [
            .unknownCommand, .badCommandLine, .badDataChunk, .invalidDelta, .invalidExptime, .memoryLimitTooSmall,
            .memoryLimitInBytes, .watchNotAllowed,
        ]
        for error in errors {
            #expect(steps.contains("\(error)"), "\(error)")
        }
    }

    @Test(arguments: Corpus.all)
    func `cutting the bytes anywhere changes no step`(example: Example) {
        for cut in 0...example.input.count {
            #expect(StepTrace.of(example.input, cutAt: [cut]) == example.steps, "cut at \(cut)")
        }
        #expect(StepTrace.of(example.input, cutAt: Array(0...example.input.count)) == example.steps)
    }

    @Test func `pipelined requests come out the same however they are cut`() {
        let pipeline = Corpus.all.flatMap(\.input)
        let whole = StepTrace.of(pipeline)
        // Skips at the end of one example and the start of the next never meet: each ends in another step.
        #expect(whole == Corpus.all.flatMap(\.steps))
        #expect(StepTrace.of(pipeline, cutAt: Array(0...pipeline.count)) == whole)
        let seed: UInt64 = 0x70a2_51
        var random = Xoshiro256(seed: seed)
        for round in 0..<60 {
            let largest = Int.random(in: 1...400, using: &random)
            var cuts: [Int] = []
            var cut = 0
            while cut < pipeline.count {
                cuts.append(cut)
                cut += Int.random(in: 0...largest, using: &random)
            }
            #expect(StepTrace.of(pipeline, cutAt: cuts) == whole, "seed \(seed), round \(round)")
        }
    }

    // MARK: Sizes

    @Test func `the largest value under a key of three letters has 1,048,514 bytes`() {
        let value = String(repeating: "v", count: 1_048_514)
        #expect(
            StepTrace.of(bytes("set abc 0 0 1048514\r\n\(value)\r\n")) == [
                "set abc flags 0 exptime 0 <vvv...(1048514)>"
            ]
        )
        #expect(
            StepTrace.of(bytes("set abc 0 0 1048515\r\n\(value)v\r\nversion\r\n"))
                == ["objectTooLarge delete abc", "skip 1048517", "version"]
        )
    }

    @Test func `only a set too large deletes the old value`() {
        // Overhead 59 and a key of one letter: 40 bytes fit.
        let block = String(repeating: "v", count: 41)
        for command in ["add", "replace", "append", "prepend"] {
            #expect(
                StepTrace.of(bytes("\(command) k 0 0 41\r\n\(block)\r\nversion\r\n"), itemBytesMax: 100)
                    == ["objectTooLarge", "skip 43", "version"]
            )
            #expect(
                StepTrace.of(bytes("\(command) k 0 0 41 noreply\r\n\(block)\r\n"), itemBytesMax: 100)
                    == ["objectTooLarge quiet", "skip 43"]
            )
        }
        #expect(
            StepTrace.of(bytes("cas k 0 0 41 1\r\n\(block)\r\n"), itemBytesMax: 100) == ["objectTooLarge", "skip 43"]
        )
        #expect(
            StepTrace.of(bytes("set k 0 0 41\r\n\(block)\r\n"), itemBytesMax: 100)
                == ["objectTooLarge delete k", "skip 43"]
        )
        #expect(
            StepTrace.of(bytes("set k 0 0 41 noreply\r\n\(block)\r\n"), itemBytesMax: 100)
                == ["objectTooLarge quiet delete k", "skip 43"]
        )
        #expect(
            StepTrace.of(bytes("set k 0 0 40\r\n\(block.dropLast())\r\n"), itemBytesMax: 100)
                == ["set k flags 0 exptime 0 <\(block.dropLast())>"]
        )
        #expect(
            StepTrace.of(bytes("set k 0 0 2147483645\r\n"), itemBytesMax: 100) == ["objectTooLarge delete k"]
        )
        // The numbers are checked before the size.
        #expect(
            StepTrace.of(bytes("set k x 0 41\r\n\(block)\r\n"), itemBytesMax: 100) == ["badCommandLine", "skip 43"]
        )
    }

    @Test func `an incomplete data block says how much it needs`() {
        var parser = RequestParser()
        let input = bytes("set a 0 0 10\r\n0123456789\r\n")
        for count in 14..<input.count {
            let step = input[..<count].withUnsafeBytes { parser.next($0) }
            guard case .needMore(let hint) = step else {
                Issue.record("\(count) bytes gave \(step)")
                return
            }
            #expect(hint == input.count)
        }
        let step = input.withUnsafeBytes { parser.next($0) }
        guard case .request(_, let consumed) = step else {
            Issue.record("\(step)")
            return
        }
        #expect(consumed == input.count)
    }

    @Test func `a swallowed block is skipped as it comes`() {
        var trace = StepTrace(itemBytesMax: 100)
        trace.receive(bytes("set k 0 0 100\r\n")[...])
        for _ in 0..<10 { trace.receive(bytes("0123456789")[...]) }
        trace.receive(bytes("\r")[...])
        trace.receive(bytes("\nversion\r\n")[...])
        #expect(trace.finished() == ["objectTooLarge delete k", "skip 102", "version"])
    }

    // MARK: What closes

    @Test(arguments: [
        "GET / HTTP/1.1\r\n", "POST /x HTTP/1.0\n", "HTTP/1.1\r\n", "foo HTTP/\r\n", " GET / HTTP/1.1  \r\n",
    ])
    func `HTTP closes without an answer`(line: String) {
        for cut in 0...line.utf8.count {
            #expect(StepTrace.of(bytes("version\r\n" + line + "version\r\n"), cutAt: [cut]) == ["version", "close"])
        }
    }

    @Test func `a binary client is closed, a binary byte later is an unknown command`() {
        #expect(StepTrace.of([0x80, 0x0a]) == ["close"])
        #expect(StepTrace.of([0x80]) == ["close"])
        #expect(StepTrace.of(bytes("version\r\n") + [0x80, 0, 0, 0x0a]) == ["version", "unknownCommand"])
    }

    @Test func `closed is for ever`() {
        var parser = RequestParser()
        for input in [[0x80], bytes("version\r\n"), []] {
            let step = input.withUnsafeBytes { parser.next($0) }
            guard case .close = step else {
                Issue.record("\(step)")
                return
            }
        }
    }

    @Test func `a line over 2,048 bytes closes, whether its newline is there or not`() {
        let longest = "x" + String(repeating: "y", count: 2046) + "\r\n"
        #expect(StepTrace.of(bytes(longest)) == ["unknownCommand"])
        #expect(StepTrace.of(bytes(longest).dropLast()) == ["pending 2048"])
        for tooLong in ["z" + longest, String(repeating: "x", count: 2049), "gat 0 " + spaces(2043) + "\n"] {
            #expect(StepTrace.of(bytes(tooLong)) == ["close"])
            #expect(StepTrace.of(bytes(tooLong), cutAt: Array(0..<tooLong.utf8.count)) == ["close"])
        }
        #expect(StepTrace.of(bytes("mg " + spaces(2046))) == ["close"])
        #expect(StepTrace.of(bytes("set " + spaces(2045))) == ["close"])
        #expect(StepTrace.of(bytes("getx" + spaces(2045))) == ["close"])
    }

    @Test func `get and gets lines may be long`() {
        let keys = (0..<3000).map { "key:\($0)" }
        for command in ["get", "gets"] {
            let line = bytes("\(command) \(keys.joined(separator: " "))\r\nversion\r\n")
            let expected = ["\(command) [\(keys.joined(separator: ","))]", "version"]
            #expect(StepTrace.of(line) == expected)
            #expect(StepTrace.of(line, cutAt: Array(stride(from: 0, to: line.count, by: 1000))) == expected)
        }
        let filler = String(repeating: "k ", count: 1500)
        #expect(StepTrace.of(bytes(spaces(100) + "get " + filler + "\n")) == ["unknownCommand"])
        #expect(StepTrace.of(bytes(spaces(101) + "get " + filler + "\n")) == ["close"])
        #expect(StepTrace.of(bytes(spaces(3000))) == ["close"])
    }

    @Test func `even a get line has an end`() {
        var trace = StepTrace(keysLineBytesMax: 4096)
        trace.receive(bytes("get " + String(repeating: "k ", count: 2046))[...])
        #expect(trace.finished() == ["pending 4096"])
        trace.receive(bytes("k")[...])
        #expect(trace.finished() == ["close"])
    }

    // MARK: Strangers

    @Test func `random and mutated bytes never trap, and every step makes progress`() {
        let seed: UInt64 = 0x5eed_0001
        var random = Xoshiro256(seed: seed)
        let inputs = Corpus.all.map(\.input)
        let spice = bytes(" \r\n0-+9kx\u{0}") + [0x80, 0xff]
        var reached: Set<String> = []
        for round in 0..<100_000 {
            var input: [UInt8] = []
            if round % 4 == 0 {
                for _ in 0..<Int.random(in: 0...60, using: &random) {
                    let isSpice = Bool.random(using: &random)
                    input.append(
                        isSpice ? spice.randomElement(using: &random) ?? 0 : .random(in: 0...255, using: &random)
                    )
                }
            } else {
                for _ in 0..<Int.random(in: 1...3, using: &random) {
                    input += inputs.randomElement(using: &random) ?? []
                }
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    let place = Int.random(in: 0..<input.count, using: &random)
                    switch Int.random(in: 0..<4, using: &random) {
                    case 0: input[place] = .random(in: 0...255, using: &random)
                    case 1: input[place] = spice.randomElement(using: &random) ?? 0
                    case 2: input.insert(spice.randomElement(using: &random) ?? 0, at: place)
                    default: if input.count > 1 { input.remove(at: place) }
                    }
                }
            }
            let isSmall = Bool.random(using: &random)
            let cut = Int.random(in: 0...input.count, using: &random)
            let problem = firstProblem(input, cut: cut, itemBytesMax: isSmall ? 61 : 1_048_576, &reached)
            #expect(problem == nil, "seed \(seed), round \(round): \(input)")
            if problem != nil { return }
            if round % 50 == 0 {
                #expect(
                    StepTrace.of(input, cutAt: [cut]) == StepTrace.of(input),
                    "seed \(seed), round \(round), cut at \(cut): \(input)"
                )
            }
        }
        #expect(reached == ["needMore", "close", "skip", "refused", "refusedStore", "request"], "seed \(seed)")
    }

    /// Drives a parser as a connection does; the bytes up to `cut` come first.
    private func firstProblem(
        _ input: [UInt8],
        cut: Int,
        itemBytesMax: Int,
        _ reached: inout Set<String>
    ) -> String? {
        var parser = RequestParser(itemBytesMax: itemBytesMax)
        return input.withUnsafeBytes { all -> String? in
            var offset = 0
            for end in [cut, all.count] {
                var isWaiting = false
                while !isWaiting {
                    let bytes = UnsafeRawBufferPointer(rebasing: all[offset..<end])
                    var taken: Int?
                    switch parser.next(bytes) {
                    case .needMore(let hint):
                        reached.insert("needMore")
                        if hint != 0, hint <= bytes.count { return "asks for \(hint) of \(bytes.count)" }
                        isWaiting = true
                    case .close:
                        reached.insert("close")
                        return nil
                    case .skip(let consumed):
                        reached.insert("skip")
                        taken = consumed
                    case .refused(_, _, let consumed):
                        reached.insert("refused")
                        taken = consumed
                    case .refusedStore(let request, _, let consumed):
                        reached.insert("refusedStore")
                        if !(1...250).contains(request.key(in: bytes).count) { return "no key to delete" }
                        taken = consumed
                    case .request(let request, let consumed):
                        reached.insert("request")
                        taken = consumed
                        if let problem = problem(request, bytes) { return problem }
                    }
                    if let taken {
                        if taken < 1 || taken > bytes.count { return "consumes \(taken) of \(bytes.count)" }
                        offset += taken
                    }
                }
            }
            return nil
        }
    }

    private func problem(_ request: Request, _ bytes: UnsafeRawBufferPointer) -> String? {
        // Slicing traps where a range lies outside of the bytes.
        _ = request.value(in: bytes).count
        _ = request.arguments(in: bytes).count
        let keys = request.keysLength > 0 ? Array(request.keys(in: bytes)) : [request.key(in: bytes)]
        if request.keyCount == 0 { return request.keyLength == 0 ? nil : "a key that is not counted" }
        if keys.count != request.keyCount { return "\(keys.count) keys, counted \(request.keyCount)" }
        let areValid = keys.allSatisfy { key in
            (1...250).contains(key.count) && !key.contains(0x20) && !key.contains(0x0a)
        }
        return areValid ? nil : "an invalid key"
    }

    @Test func `numbers agree with the obvious way to read them`() {
        let seed: UInt64 = 0x5eed_0002
        var random = Xoshiro256(seed: seed)
        for round in 0..<3000 {
            var number = ""
            if Int.random(in: 0..<4, using: &random) == 0 { number += Bool.random(using: &random) ? "-" : "+" }
            let near: [UInt64] = [0, 9, 2_147_483_647, 4_294_967_295, UInt64(Int64.max), .max - 20]
            let base = near.randomElement(using: &random) ?? 0
            number += String(repeating: "0", count: Int.random(in: 0...2, using: &random))
            number += String(base &+ UInt64.random(in: 0...20, using: &random))
            if Int.random(in: 0..<5, using: &random) == 0 { number += "7" }

            let digits = number.allSatisfy(\.isNumber)
            let hint: Comment = "seed \(seed), round \(round): \(number)"

            let delta = digits && number.count <= 22 ? UInt64(number) : nil
            #expect(
                StepTrace.of(bytes("incr a \(number)\r\n")) == [delta.map { "increment a \($0)" } ?? "invalidDelta"],
                hint
            )
            let exptime = number.first != "+" && number.count <= 11 ? Int32(number) : nil
            #expect(
                StepTrace.of(bytes("touch a \(number)\r\n")) == [exptime.map { "touch a \($0)" } ?? "invalidExptime"],
                hint
            )
            let flags = UInt64(number).map { UInt32(truncatingIfNeeded: $0) }
            #expect(
                StepTrace.of(bytes("set a \(number) 0 0\r\n\r\n"))
                    == (flags.map { ["set a flags \($0) exptime 0 <>"] } ?? ["badCommandLine", "skip 2"]),
                hint
            )
            let stored = Int64(number).map { Int32(truncatingIfNeeded: $0) }
            #expect(
                StepTrace.of(bytes("set a 0 \(number) 0\r\n\r\n"))
                    == (stored.map { ["set a flags 0 exptime \($0) <>"] } ?? ["badCommandLine", "skip 2"]),
                hint
            )
        }
    }
}
