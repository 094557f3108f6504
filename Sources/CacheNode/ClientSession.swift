package import ClusterCore
import DequeModule
import MemcacheProtocol
import PeerProtocol

/// One client's conversation: bytes in, bytes out, so that any transport can carry it.
///
/// Answers leave in the order of the requests. What can be answered at once is written behind what is there; what waits
/// for another node gets a place, and everything behind it waits with it.
package final class ClientSession {
    /// A place in the row of answers.
    struct Place {
        var bytes: [UInt8] = []
        var isDone = false
    }

    /// Answers that wait for another node, at most; beyond it the session stops reading.
    package static let placesMax = 4096
    /// Bytes of answers that the client has not taken, at most; beyond it the session stops reading.
    package static let outputBytesMax = 4 * 1024 * 1024
    /// How many counters the order of a session's writes is kept in.
    static let orderBuckets = 1024

    var parser: RequestParser
    /// What is to be sent; the shell takes from the front.
    package var output = ByteBuffer(capacity: 1024)
    var places: Deque<Place> = []
    /// The number of the first place.
    var firstPlace: UInt64 = 0
    /// Writes that are on their way to other nodes, by slice: what follows on the same slice waits, so that a client
    /// sees its own writes in order even when a slice moves in between.
    var outstanding: [UInt16] = []
    var outstandingCount = 0
    /// Input is there that can be taken once the output has left; the shell calls `receive` again.
    package internal(set) var wantsResume = false
    /// Input is there that can be taken once a request that is under way has ended; then `wantsResume` turns true.
    package internal(set) var waitsForRequest = false
    /// No more input; the connection closes when the output is sent.
    package internal(set) var isClosing = false
    /// The connection is gone; what arrives for it is dropped.
    package var isGone = false
    /// Whether the data plane has listed it for the shell.
    var isListed = false
    /// A dump that is being written; nothing else is read meanwhile.
    var dump: DumpCursor?
    /// The shell's own mark.
    package let token: Int

    package init(token: Int, itemBytesMax: Int) {
        self.token = token
        parser = RequestParser(itemBytesMax: itemBytesMax)
    }

    /// Whether answers are outstanding: a graceful stop waits for them.
    package var isIdle: Bool { places.isEmpty && output.isEmpty }

    /// Appends an answer behind all others.
    func write(_ body: (inout ByteBuffer) -> Void) {
        if places.isEmpty {
            body(&output)
            return
        }
        var piece = ByteBuffer(capacity: 128)
        body(&piece)
        if places[places.count - 1].isDone {
            places[places.count - 1].bytes += piece.array()
        } else {
            places.append(Place(bytes: piece.array(), isDone: true))
        }
    }

    /// Takes a place behind all answers; `fill` completes it.
    func reserve() -> UInt64 {
        places.append(Place())
        return firstPlace + UInt64(places.count - 1)
    }

    /// Completes a place; what is complete at the front becomes output.
    func fill(_ place: UInt64, _ body: (inout ByteBuffer) -> Void) {
        let index = Int(place - firstPlace)
        if index == 0 {
            places.removeFirst()
            firstPlace += 1
            body(&output)
        } else {
            var piece = ByteBuffer(capacity: 128)
            body(&piece)
            places[index].bytes = piece.array()
            places[index].isDone = true
        }
        while let first = places.first, first.isDone {
            output.append(first.bytes)
            places.removeFirst()
            firstPlace += 1
        }
    }

    /// Whether a write to the slice is still on its way to another node.
    func mustWait(for slice: Int) -> Bool {
        outstandingCount > 0 && outstanding[slice & (Self.orderBuckets - 1)] > 0
    }

    func began(_ slice: Int) {
        if outstanding.isEmpty { outstanding = Array(repeating: 0, count: Self.orderBuckets) }
        outstanding[slice & (Self.orderBuckets - 1)] += 1
        outstandingCount += 1
    }

    func ended(_ slice: Int) {
        outstanding[slice & (Self.orderBuckets - 1)] -= 1
        outstandingCount -= 1
    }

    /// Whether more input can be taken now.
    package var hasRoom: Bool {
        places.count < Self.placesMax && output.count < Self.outputBytesMax
    }
}
