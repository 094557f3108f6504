import Foundation
import Testing

/// What the compiler does not check: that pure targets ask for nothing, and that the tree holds what belongs there.
@Suite struct TidyTests {
    /// The targets that only decide; must be those that Package.swift declares with `pure(…)`.
    private static let pureTargets = [
        "ClusterCore", "MemcacheProtocol", "CacheStore", "HashRing", "Membership", "PeerProtocol", "Replication",
        "CacheNode", "Simulation", "MembershipSimulation", "Sealing",
    ]

    /// Words that code of a pure target may not say, as regular expressions.
    private static let forbidden = [
        #"\bimport\s+(Foundation|FoundationEssentials|Synchronization|Dispatch|Logging|Reactor|CLinux)\b"#,
        #"\bContinuousClock\b"#, #"\bSuspendingClock\b"#, #"\bclock_gettime\b"#, #"\bgettimeofday\b"#, #"\bDate\("#,
        #"\bTask\b(?!:)"#, #"\basync\b"#, #"\bawait\b"#, #"\bSystemRandomNumberGenerator\b"#, #"\bprint\("#,
        #"\bpthread_"#, #"\bgetenv\("#, #"\.hashValue\b"#,
        // Chance is handed in: `using:` must follow within the call.
        #"\.random\((?![^\n]*using:)"#, #"\.shuffled\(\)"#, #"\.shuffle\(\)"#, #"\.randomElement\(\)"#,
    ]

    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// Files below a folder whose names end in one of the endings; all where there is none.
    private static func files(_ folder: String, endings: [String] = []) -> [URL] {
        let start = root.appending(path: folder)
        guard let all = FileManager.default.enumerator(at: start, includingPropertiesForKeys: [.isRegularFileKey])
        else { return [] }
        return all.compactMap { $0 as? URL }.filter { file in
            guard (try? file.resourceValues(forKeys: [.isRegularFileKey]))?.isRegularFile == true else { return false }
            return endings.isEmpty || endings.contains { file.path().hasSuffix($0) }
        }.sorted { $0.path() < $1.path() }
    }

    private func name(_ file: URL) -> String {
        String(file.path().dropFirst(Self.root.path().count))
    }

    /// A line without what stands behind `//` and without what stands in quotation marks.
    private func code(_ line: Substring) -> String {
        var text = ""
        var isQuoted = false
        var previous: Character = " "
        for character in line {
            if character == "\"", previous != "\\" { isQuoted.toggle() }
            if character == "/", previous == "/", !isQuoted { return String(text.dropLast()) }
            if !isQuoted { text.append(character) }
            previous = character
        }
        return text
    }

    private func complaints(_ text: String) throws -> [String] {
        // Unicode's word boundaries would take `Task.sleep` for one word.
        let words = try Self.forbidden.map { try Regex($0).wordBoundaryKind(.simple) }
        var found: [String] = []
        for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let code = code(line)
            for word in words where code.contains(word) { found.append("\(number + 1): \(line)") }
        }
        return found
    }

    @Test func `the list of pure targets is the manifest's`() throws {
        let manifest = try String(contentsOf: Self.root.appending(path: "Package.swift"), encoding: .utf8)
        let declared = manifest.matches(of: /\bpure\(\s*"(\w+)"/).map { String($0.output.1) }
        #expect(declared.sorted() == Self.pureTargets.sorted())
    }

    @Test(arguments: pureTargets)
    func `a pure target asks for no time, chance, thread or output`(_ target: String) throws {
        let files = Self.files("Sources/\(target)", endings: [".swift"])
        #expect(!files.isEmpty)
        for file in files {
            let found = try complaints(String(contentsOf: file, encoding: .utf8))
            #expect(found.isEmpty, "\(name(file))")
        }
    }

    @Test(arguments: [
        "import Foundation", "package import Dispatch", "internal import Synchronization",
        "let t = ContinuousClock.now",
        "clock_gettime(CLOCK_MONOTONIC, &t)", "let d = Date()", "Task { work() }", "Task.yield()",
        "func run() async throws {",
        "await work()", "var g = SystemRandomNumberGenerator()", "let x = Int.random(in: 0..<9)", "list.shuffled()",
        "list.randomElement() ?? 0", "print(x)", "let h = key.hashValue",
    ])
    func `what is forbidden is found`(_ line: String) throws {
        #expect(try complaints("// fine\n    \(line)\n").count == 1)
    }

    @Test(arguments: [
        "// await the Task of Foundation", "let text = \"await Task\"", "let x = Int.random(in: 0..<9, using: &random)",
        "list.shuffled(using: &random)", "let awaiting = 1", "imprint(x)", "asynchronous()", "case drain(DrainTask)",
    ])
    func `what is allowed is left alone`(_ line: String) throws {
        #expect(try complaints(line).isEmpty)
    }

    @Test func `nothing is left to be done in any file`() throws {
        // Put together, or this file would find itself.
        let marks = ["TO" + "DO", "FIX" + "ME", "XX" + "X"]
        for folder in ["Sources", "Tests", "cluster", "ops"] {
            for file in Self.files(folder) {
                guard let text = try? String(contentsOf: file, encoding: .utf8) else { continue }
                for mark in marks where text.contains(mark) { Issue.record("\(name(file)) says \(mark)") }
            }
        }
    }

    @Test func `what is built is not tracked`() throws {
        let git = Process()
        git.executableURL = URL(filePath: "/usr/bin/env")
        git.arguments = ["git", "-C", Self.root.path(), "ls-files"]
        let output = Pipe()
        git.standardOutput = output
        git.standardError = Pipe()
        try git.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        git.waitUntilExit()
        // A copy of the sources without their history has nothing that is tracked.
        guard git.terminationStatus == 0 else { return }
        for path in text.split(separator: "\n") {
            let parts = path.split(separator: "/")
            #expect(parts.last != "Package.resolved", "\(path)")
            #expect(!parts.contains(".build"), "\(path)")
            #expect(!parts.contains("__pycache__"), "\(path)")
        }
    }
}
