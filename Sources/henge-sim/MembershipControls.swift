import ArgumentParser
import Glibc
import MembershipSimulation

/// Whether the checks see what goes wrong without a rule.
struct MembershipControls: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "membership-controls",
        abstract: "Switches rules of membership off, one at a time: a named invariant must break."
    )

    func run() throws {
        var failed = 0
        for control in GossipControl.allCases {
            var missing = control.invariants
            var seed: UInt64 = 0
            var found: [String] = []
            while !missing.isEmpty, seed < GossipControl.seedsMax {
                seed += 1
                let outcome = control.campaign(seed: seed).run()
                missing.removeAll { invariant in
                    guard let breach = outcome.breaches.first(where: { $0.invariant == invariant }) else {
                        return false
                    }
                    found.append("\(invariant.rawValue) at seed \(seed) (\(breach.text))")
                    return true
                }
            }
            let isCaught = missing.isEmpty
            if !isCaught { failed += 1 }
            print(
                "\(isCaught ? "ok  " : "FAIL") \(control.rawValue): "
                    + (found + missing.map { "\($0.rawValue) not broken in \(seed) seeds" }).joined(separator: ", ")
            )
            fflush(nil)
        }
        print("\(GossipControl.allCases.count - failed) passed, \(failed) failed")
        if failed > 0 { throw ExitCode.failure }
    }
}
