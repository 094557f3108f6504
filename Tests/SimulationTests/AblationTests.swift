import CacheNode
import PeerProtocol
import Testing

@testable import Simulation

/// Rules of the control plane that are switched off: the named invariant must break, and hold where they are on.
@Suite struct AblationTests {
    private func failures(_ ablations: ControlAblations, _ nodes: Int = 4, _ body: (World) -> Void) -> [String] {
        var options = WorldOptions(seed: 81)
        options.nodes = nodes
        options.clients = 0
        options.ablations = ablations
        let world = World(options)
        for index in 0..<nodes { world.start(index) }
        body(world)
        return world.failures
    }

    @Test(arguments: [false, true])
    func `without an order by id, rings of one hash have other owners`(_ isOff: Bool) {
        let failures = failures(isOff ? .ringByID : []) { $0.run(milliseconds: 5000) }
        #expect(failures.contains { $0.contains("A6") } == isOff, "\(failures)")
    }

    @Test(arguments: [false, true])
    func `a drain that hands nothing over is seen`(_ isOff: Bool) {
        let failures = failures(isOff ? .drainHandsOver : []) { world in
            world.settle(within: 30_000)
            world.order(.drain, 1)
            world.run(milliseconds: 5000)
        }
        #expect(failures.contains { $0.contains("A9") } == isOff, "\(failures)")
    }
}
