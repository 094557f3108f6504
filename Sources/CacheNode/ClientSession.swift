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

    /// A multi-get that is answered in part: where it goes on.
    struct Remainder {
        var command = Request.Command.get
        var exptime: Int64 = 0
        /// Where the next key starts, where the last one ends, and where the next request starts, from the start of
        /// the request. Nothing remains where `length` is 0.
        var keyOffset = 0
        var keysEnd = 0
        var length = 0
    }

    /// What every request reads and writes, in memory of its own: a stored property of a class would be checked for
    /// overlapping accesses each time, at several times the price of the access.
    struct State: ~Copyable {
        var parser: RequestParser
        /// What is to be sent; the shell takes from the front.
        var output = TransmitBuffer(capacity: 0)
        /// How many places there are.
        var placeCount = 0
        /// Writes on their way to other nodes.
        var outstandingCount = 0
        var remainder = Remainder()
        var wantsResume = false
        var waitsForRequest = false
        var isClosing = false

        init(parser: RequestParser) {
            self.parser = parser
        }

        /// Whether nothing of the client's waits or is to be sent, and more input can be taken now.
        var isAtRest: Bool {
            placeCount == 0 && outstandingCount == 0 && remainder.length == 0 && output.isEmpty && !wantsResume
                && !waitsForRequest && !isClosing
        }

        /// Whether more input can be taken now.
        var hasRoom: Bool {
            placeCount < ClientSession.placesMax && output.unsentBytes < ClientSession.outputBytesMax
        }
    }

    /// Answers that wait for another node, at most; beyond it the session stops reading.
    package static let placesMax = 4096
    /// Bytes of answers that the client has not taken, at most, and the answer with which they pass it; beyond it the
    /// session takes no more requests. More is memory for each client that does not read; less is more system calls
    /// for one that reads much.
    package static let outputBytesMax = 256 * 1024
    /// How many counters the order of a session's writes is kept in.
    static let orderBuckets = 1024

    let state: UnsafeMutablePointer<State>
    private var places: Deque<Place> = []
    /// The number of the first place.
    private var firstPlace: UInt64 = 0
    /// Writes that are on their way to other nodes, by slice: what follows on the same slice waits, so that a client
    /// sees its own writes in order even when a slice moves in between.
    private var outstanding: [UInt16] = []
    /// The connection is gone; what arrives for it is dropped.
    package var isGone = false
    /// Whether the data plane has listed it for the shell.
    var isListed = false
    /// A dump that is being written; nothing else is read meanwhile.
    var dump: DumpCursor?
    /// The shell's own mark.
    package var token: Int

    package init(token: Int, itemBytesMax: Int) {
        self.token = token
        state = .allocate(capacity: 1)
        state.initialize(to: State(parser: RequestParser(itemBytesMax: itemBytesMax)))
    }

    deinit {
        state.deinitialize(count: 1)
        state.deallocate()
    }

    /// What is to be sent; the shell takes from the front.
    package var output: TransmitBuffer {
        _read { yield state.pointee.output }
        _modify { yield &state.pointee.output }
    }

    /// Input is there that can be taken once output has left, or at the next turn; the shell calls `receive` again.
    package internal(set) var wantsResume: Bool {
        get { state.pointee.wantsResume }
        set { state.pointee.wantsResume = newValue }
    }

    /// Input is there that can be taken once a request that is under way has ended; then `wantsResume` turns true.
    package internal(set) var waitsForRequest: Bool {
        get { state.pointee.waitsForRequest }
        set { state.pointee.waitsForRequest = newValue }
    }

    /// No more input; the connection closes when the output is sent.
    package internal(set) var isClosing: Bool {
        get { state.pointee.isClosing }
        set { state.pointee.isClosing = newValue }
    }

    /// Whether nothing is to be sent and no answer is outstanding: a graceful stop waits for it.
    package var isIdle: Bool { !hasPlaces && state.pointee.output.isEmpty }

    /// Whether the shell may read more: all that has come is taken, and all that was said has left.
    package var mayRead: Bool {
        !state.pointee.wantsResume && !state.pointee.waitsForRequest && !state.pointee.isClosing
            && state.pointee.output.isEmpty
    }

    /// Whether more input can be taken now.
    package var hasRoom: Bool { state.pointee.hasRoom }

    /// Whether answers wait for other nodes.
    var hasPlaces: Bool { state.pointee.placeCount > 0 }

    /// Appends an answer behind all others.
    func write(_ body: (inout ByteBuffer) -> Void) {
        if !hasPlaces {
            body(&state.pointee.output.buffer)
            return
        }
        var piece = ByteBuffer(capacity: 128)
        body(&piece)
        if places[places.count - 1].isDone {
            places[places.count - 1].bytes += piece.array()
        } else {
            places.append(Place(bytes: piece.array(), isDone: true))
            state.pointee.placeCount += 1
        }
    }

    /// Takes a place behind all answers; `fill` completes it.
    func reserve() -> UInt64 {
        places.append(Place())
        state.pointee.placeCount += 1
        return firstPlace + UInt64(places.count - 1)
    }

    /// Completes a place; what is complete at the front becomes output.
    func fill(_ place: UInt64, _ body: (inout ByteBuffer) -> Void) {
        let index = Int(place - firstPlace)
        if index == 0 {
            dropFirst()
            body(&state.pointee.output.buffer)
        } else {
            var piece = ByteBuffer(capacity: 128)
            body(&piece)
            places[index].bytes = piece.array()
            places[index].isDone = true
        }
        while let first = places.first, first.isDone {
            state.pointee.output.buffer.append(first.bytes)
            dropFirst()
        }
    }

    private func dropFirst() {
        places.removeFirst()
        firstPlace += 1
        state.pointee.placeCount -= 1
    }

    /// Whether a write to the slice is still on its way to another node.
    func mustWait(for slice: Int) -> Bool {
        state.pointee.outstandingCount > 0 && outstanding[slice & (Self.orderBuckets - 1)] > 0
    }

    func began(_ slice: Int) {
        if outstanding.isEmpty { outstanding = Array(repeating: 0, count: Self.orderBuckets) }
        outstanding[slice & (Self.orderBuckets - 1)] += 1
        state.pointee.outstandingCount += 1
    }

    func ended(_ slice: Int) {
        outstanding[slice & (Self.orderBuckets - 1)] -= 1
        state.pointee.outstandingCount -= 1
    }

    /// Gives back what only a busy session needs. The shell calls it for sessions that have been idle for a while.
    package func trim() {
        guard state.pointee.outstandingCount == 0, !hasPlaces else { return }
        outstanding = []
        places = []
        if state.pointee.output.isEmpty { state.pointee.output.buffer.removeAll(shrinkingTo: 0) }
    }
}
