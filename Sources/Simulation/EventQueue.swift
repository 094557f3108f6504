import ClusterCore
import PeerProtocol

/// Something that happens at a moment of virtual time.
struct Event {
    enum Kind {
        case datagram(from: Endpoint, node: Int, bytes: [UInt8], isStreamed: Bool)
        /// A call has reached the called machine.
        case called(Connection)
        case segment(Connection, toOpener: Bool, bytes: [UInt8])
        /// One end hears that the other is gone.
        case closed(Connection, toOpener: Bool)
        /// One end gives up by itself: what it sent was not acknowledged for long.
        case gaveUp(Connection, atOpener: Bool)
        case wake(Process, thread: Int)
        case post(Process, thread: Int, ThreadMessage)
        case exchange(Process, bytes: [UInt8], answerTo: Process?)
        case clientInput(Client, life: Int)
        case clientTurn(Client)
        case check
    }

    var time: UInt64
    /// Breaks ties in the order of scheduling.
    var number: UInt64
    var kind: Kind

    static func isBefore(_ left: Event, _ right: Event) -> Bool {
        left.time != right.time ? left.time < right.time : left.number < right.number
    }
}

/// Events in the order of their time: a binary heap.
struct EventQueue {
    private var heap: [Event] = []
    private var counter: UInt64 = 0

    var nextTime: UInt64? { heap.first?.time }
    var count: Int { heap.count }

    mutating func schedule(_ kind: Event.Kind, at time: UInt64) {
        counter += 1
        heap.append(Event(time: time, number: counter, kind: kind))
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard Event.isBefore(heap[child], heap[parent]) else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    mutating func next() -> Event? {
        guard !heap.isEmpty else { return nil }
        heap.swapAt(0, heap.count - 1)
        let event = heap.removeLast()
        var parent = 0
        while true {
            var first = parent
            for child in [2 * parent + 1, 2 * parent + 2]
            where child < heap.count && Event.isBefore(heap[child], heap[first]) {
                first = child
            }
            if first == parent { return event }
            heap.swapAt(parent, first)
            parent = first
        }
    }
}
