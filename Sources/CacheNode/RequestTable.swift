import ClusterCore
import PeerProtocol
import Replication

/// Where a request is that was not answered at once.
enum RequestState {
    /// It took effect here and waits for copies; the shard answers.
    case executing
    /// Another node was asked.
    case forwarded(to: PeerNumber)
    /// Nobody serves the slice, as far as is known; it is tried again.
    case parked
}

/// A client's request that left the call stack. Flat: the table keeps its session.
struct PendingRequest {
    let session: Unmanaged<ClientSession>
    /// Nil where the client wants no answer.
    var place: UInt64?
    var format: ReplyFormat
    var slice: Int
    var verb: RequestFrame.Verb
    /// The request as a frame, in the table's memory: good until another request is inserted after this one has left.
    var bytes = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    var state: RequestState
    var since: Instant
    var deadline: Instant
    var sentAt = Instant(nanoseconds: 0)
    /// How often a node said that it does not hold the slice, since the request was parked last.
    var attempts = 0
    /// The epoch in which a holder said that it serves the slice, where this node's topology does not know it yet.
    var epoch: UInt32 = 0
    /// Whether the session's order counts it.
    var isOrdered = false

    init(
        session: ClientSession,
        place: UInt64?,
        format: ReplyFormat,
        slice: Int,
        verb: RequestFrame.Verb,
        state: RequestState,
        since: Instant,
        deadline: Instant
    ) {
        self.session = .passUnretained(session)
        self.place = place
        self.format = format
        self.slice = slice
        self.verb = verb
        self.state = state
        self.since = since
        self.deadline = deadline
    }

    /// The key of the request.
    var key: UnsafeRawBufferPointer { RequestFrame.key(inFrame: UnsafeRawBufferPointer(bytes)) }

    /// Whether the asked node has been silent for so long that another holder is believed instead.
    func isOverdue(_ now: Instant) -> Bool {
        now.milliseconds(since: sentAt) >= 100
    }
}

/// Requests by number. A number names a row and how often the row has been used, so that a late answer finds nothing.
///
/// Rows and their frames are used again and again: in its steady state the table allocates nothing.
struct RequestTable: ~Copyable {
    /// Room for a frame that a row keeps between two requests, in bytes.
    static let frameBytesKept = 1024

    private struct Row: ~Copyable {
        var use: UInt32 = 1
        var request: PendingRequest?
        var frame = ByteBuffer(capacity: 256)
    }

    private var rows: UnsafeMutablePointer<Row>
    private var rowCapacity = 16
    private var rowCount = 0
    private var free: [Int] = []
    private(set) var count = 0

    init() {
        rows = .allocate(capacity: rowCapacity)
    }

    deinit {
        for index in 0..<rowCount { rows[index].request?.session.release() }
        rows.deinitialize(count: rowCount)
        rows.deallocate()
    }

    var isEmpty: Bool { count == 0 }

    /// The number that `insert` gives next.
    var nextIdentifier: UInt64 {
        guard let row = free.last else { return identifier(rowCount, 1) }
        return identifier(row, rows[row].use)
    }

    /// The numbers in use, in the order of their rows.
    var identifiers: [UInt64] {
        var all: [UInt64] = []
        all.reserveCapacity(count)
        for index in 0..<rowCount where rows[index].request != nil { all.append(identifier(index, rows[index].use)) }
        return all
    }

    /// Keeps a request, its session and its frame.
    mutating func insert(_ request: PendingRequest, frame: RequestFrame) -> UInt64 {
        count += 1
        let index: Int
        if let row = free.popLast() {
            index = row
        } else {
            if rowCount == rowCapacity { grow() }
            (rows + rowCount).initialize(to: Row())
            index = rowCount
            rowCount += 1
        }
        let row = rows + index
        row.pointee.frame.removeAll(shrinkingTo: Self.frameBytesKept)
        frame.append(to: &row.pointee.frame)
        _ = request.session.retain()
        row.pointee.request = request
        row.pointee.request?.bytes = row.pointee.frame.mutableBytes
        return identifier(index, row.pointee.use)
    }

    private mutating func grow() {
        let replacement = UnsafeMutablePointer<Row>.allocate(capacity: rowCapacity * 2)
        replacement.moveInitialize(from: rows, count: rowCount)
        rows.deallocate()
        rows = replacement
        rowCapacity *= 2
    }

    /// Forgets a request. The caller has its session to release.
    mutating func remove(_ id: UInt64) -> PendingRequest? {
        guard let row = row(of: id) else { return nil }
        let request = rows[row].request.take()
        rows[row].use &+= 1
        free.append(row)
        count -= 1
        return request
    }

    /// Gives a request another number; the old one names nothing any more.
    mutating func renumber(_ id: UInt64) -> UInt64 {
        guard let row = row(of: id) else { preconditionFailure("request \(id) is not in the table") }
        rows[row].use &+= 1
        return identifier(row, rows[row].use)
    }

    subscript(id: UInt64) -> PendingRequest? {
        get {
            guard let row = row(of: id) else { return nil }
            return rows[row].request
        }
        _modify {
            guard let row = row(of: id) else {
                var none: PendingRequest?
                yield &none
                return
            }
            yield &rows[row].request
            precondition(rows[row].request != nil, "a request leaves by remove")
        }
    }

    private func row(of id: UInt64) -> Int? {
        let row = Int(id & 0xffff_ffff)
        guard row < rowCount, rows[row].use == UInt32(id >> 32), rows[row].request != nil else { return nil }
        return row
    }

    private func identifier(_ row: Int, _ use: UInt32) -> UInt64 {
        UInt64(use) << 32 | UInt64(row)
    }
}
