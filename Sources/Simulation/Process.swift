import CacheNode
import CacheStore
import ClusterCore
import Membership
import PeerProtocol
import Replication

/// What one thread of a node posts to another.
enum ThreadMessage {
    case topology(Topology)
    case complete([Outbox.Completion])
    case signals([Outbox.Signal])
    case connection(peer: PeerNumber, worker: UInt8, isUp: Bool)
    case interruption(from: PeerNumber)
    case drainClients
}

/// One TCP connection between two threads of two nodes, as both kernels see it.
final class Connection {
    struct End {
        var isOpen = false
        /// When the last bytes towards this end arrive: a connection does not reorder.
        var lastArrival: UInt64 = 0
        /// Bytes towards this end that a fault holds back.
        var held: [[UInt8]] = []
        /// The other end's close is behind what is held.
        var isCloseHeld = false
        /// A time at which this end gives up is set.
        var willGiveUp = false
        /// Frames of the present turn.
        var output: [UInt8] = []
    }

    let id: UInt32
    let opener: Process
    let openerThread: Int
    /// The member that the opener means.
    let peer: PeerNumber
    let target: Int
    var acceptor: Process?
    var acceptorThread = 0
    var acceptorPeer = PeerNumber.none
    var atOpener = End(isOpen: true)
    var atAcceptor = End()
    /// The acceptor has said who it is.
    var isUp = false

    init(id: UInt32, opener: Process, openerThread: Int, peer: PeerNumber, target: Int) {
        self.id = id
        self.opener = opener
        self.openerThread = openerThread
        self.peer = peer
        self.target = target
    }
}

/// A thread of a node: 0 is the control thread, the others are workers.
final class SimulatedThread {
    let index: Int
    var outbox = Outbox()
    var topology: Topology?
    var outgoing: [PeerNumber: Connection] = [:]
    var links: [UInt32: Connection] = [:]
    var retryAt: [PeerNumber: UInt64] = [:]
    /// Connections that have output of this turn, in order.
    var dirty: [Connection] = []
    /// When the wake that is scheduled comes; nil: none.
    var wakeAt: UInt64?
    var lastPost: UInt64 = 0

    init(index: Int) {
        self.index = index
    }
}

/// A worker's data plane, at a stable address.
final class WorkerBox {
    var plane: DataPlane

    init(plane: consuming DataPlane) {
        self.plane = plane
    }
}

/// One life of a node.
final class Process {
    let node: SimulatedNode
    let number: Int
    let generation: UInt64
    let shards: ShardTable
    var control: ControlPlane
    var effects: [ControlEffect] = []
    var workers: [WorkerBox] = []
    var threads: [SimulatedThread] = []
    var isAlive = true
    var isPaused = false
    /// What came while the process was paused.
    var backlog: [Event.Kind] = []
    /// Whether clients may connect.
    var isOpen = false
    var isClosing = false
    var clients: [Client] = []
    var drainFinished = false

    init(node: SimulatedNode, number: Int, generation: UInt64, shards: ShardTable, control: consuming ControlPlane) {
        self.node = node
        self.number = number
        self.generation = generation
        self.shards = shards
        self.control = control
    }
}

/// A machine with its clock, its address and its disk.
final class SimulatedNode {
    let index: Int
    let id: NodeID
    let name: String
    let endpoint: Endpoint
    /// The monotonic clock's start, its drift in millionths, and the wall clock's error in milliseconds.
    let clockBase: UInt64
    let driftMillionths: Int64
    let skewMilliseconds: Int64
    var process: Process?
    /// The machine itself is off: nobody even refuses a call.
    var isPoweredOff = false

    // The disk.
    var generation: UInt64 = 0
    var sawThree = false
    var remembered: [Endpoint] = []

    init(index: Int, random: inout Xoshiro256, maximumSkew: Int64) {
        self.index = index
        id = NodeID(using: &random)
        name = "n\(index + 1)"
        endpoint = Endpoint(.v4(0x0a00_0001 + UInt32(index)), port: 11_311)
        clockBase = UInt64.random(in: 1_000_000_000...1_000_000_000_000, using: &random)
        driftMillionths = Int64.random(in: -5000...5000, using: &random)
        skewMilliseconds = Int64.random(in: -maximumSkew...maximumSkew, using: &random)
    }

    func instant(at time: UInt64) -> Instant {
        let elapsed = Int64(time)
        return Instant(nanoseconds: clockBase + UInt64(elapsed + elapsed * driftMillionths / 1_000_000))
    }

    func now(at time: UInt64) -> Now {
        Now(
            instant: instant(at: time),
            unixMilliseconds: UInt64(1_800_000_000_000 + skewMilliseconds + Int64(time / 1_000_000))
        )
    }

    /// The virtual time of a moment of this machine's clock, or a little later.
    func time(of instant: Instant) -> UInt64 {
        guard instant.nanoseconds > clockBase else { return 0 }
        let elapsed = instant.nanoseconds - clockBase
        // Beyond an hour or so the product would overflow; no run is so long.
        guard elapsed < 1 << 42 else { return .max }
        return UInt64(Int64(elapsed) * 1_000_000 / (1_000_000 + driftMillionths)) + 2
    }
}
