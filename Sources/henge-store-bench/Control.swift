import ClusterCore
import Glibc
import Reactor

/// Loops of threads that share nothing that is written: how much more two processors of this machine do than one. Where
/// that is below two, because they are halves of a core or others use them, no store does better.
///
/// `@unchecked Sendable`: the memory is written in `init` alone.
final class Control: @unchecked Sendable {
    enum Kind: String, CaseIterable {
        /// Multiplications, each after the one before.
        case arithmetic
        /// Reads at random places, each after the one before.
        case memory
    }

    private let bytes: Int
    private let memory: UnsafeMutableRawPointer

    init(bytes: Int) {
        self.bytes = bytes
        memory = .allocate(byteCount: bytes, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 1, count: bytes)
    }

    deinit {
        memory.deallocate()
    }

    private func work(_ kind: Kind, seed: UInt64, operations: Int) {
        var sum = seed
        switch kind {
        case .arithmetic:
            // About as long as a read.
            for _ in 0..<operations &* 32 { sum = KeyHash.fold(sum, 0xa076_1d64_78bd_642f) }
        case .memory:
            var draws = Draws(seed: seed)
            for _ in 0..<operations {
                let place = (draws.next() &+ sum).multipliedFullWidth(by: UInt64(bytes)).high
                sum = UInt64(memory.load(fromByteOffset: Int(place), as: UInt8.self))
            }
        }
        precondition(sum != seed &+ 0x5bd1_e995, "the loop must not be left out")
    }

    /// Operations a second of so many threads together.
    func perSecond(_ kind: Kind, threads: Int, operations: Int) throws(SystemError) -> Double {
        let start = SystemClock.monotonic()
        var handles: [ThreadHandle] = []
        for thread in 0..<threads {
            handles.append(
                try ThreadHandle(name: "control-\(thread)") { [self] in
                    work(kind, seed: UInt64(thread), operations: operations)
                }
            )
        }
        for handle in handles { handle.join() }
        return Double(threads * operations) * 1e9 / Double(SystemClock.monotonic().nanoseconds(since: start))
    }
}
