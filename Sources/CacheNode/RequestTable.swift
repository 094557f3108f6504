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

/// A client's request that left the call stack.
struct PendingRequest {
    var session: ClientSession
    /// Nil where the client wants no answer.
    var place: UInt64?
    var format: ReplyFormat
    var slice: Int
    var verb: RequestFrame.Verb
    /// The request as a frame.
    var bytes: [UInt8]
    var state: RequestState
    var since: Instant
    var deadline: Instant
    var sentAt = Instant(nanoseconds: 0)
    /// How often a node said that it does not hold the slice, since the request was parked last.
    var attempts = 0
    /// Whether the session's order counts it.
    var isOrdered = false

    init(
        session: ClientSession,
        place: UInt64?,
        format: ReplyFormat,
        slice: Int,
        verb: RequestFrame.Verb,
        bytes: [UInt8],
        state: RequestState,
        since: Instant,
        deadline: Instant
    ) {
        self.session = session
        self.place = place
        self.format = format
        self.slice = slice
        self.verb = verb
        self.bytes = bytes
        self.state = state
        self.since = since
        self.deadline = deadline
    }

    /// Whether the asked node has been silent for so long that another holder is believed instead.
    func isOverdue(_ now: Instant) -> Bool {
        now.milliseconds(since: sentAt) >= 100
    }
}

/// Requests by number. A number names a row and how often the row has been used, so that a late answer finds nothing.
struct RequestTable {
    private struct Row {
        var use: UInt32 = 1
        var request: PendingRequest?
    }

    private var rows: [Row] = []
    private var free: [Int] = []
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    /// The number that `insert` gives next.
    var nextIdentifier: UInt64 {
        guard let row = free.last else { return identifier(rows.count, 1) }
        return identifier(row, rows[row].use)
    }

    /// The numbers in use, in the order of their rows.
    var identifiers: [UInt64] {
        var all: [UInt64] = []
        all.reserveCapacity(count)
        for (index, row) in rows.enumerated() where row.request != nil { all.append(identifier(index, row.use)) }
        return all
    }

    mutating func insert(_ request: PendingRequest) -> UInt64 {
        count += 1
        if let row = free.popLast() {
            rows[row].request = request
            return identifier(row, rows[row].use)
        }
        rows.append(Row(request: request))
        return identifier(rows.count - 1, 1)
    }

    mutating func remove(_ id: UInt64) -> PendingRequest? {
        guard let row = row(of: id) else { return nil }
        let request = rows[row].request
        rows[row].request = nil
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
        set {
            guard let row = row(of: id) else { return }
            precondition(newValue != nil, "a request leaves by remove")
            rows[row].request = newValue
        }
    }

    private func row(of id: UInt64) -> Int? {
        let row = Int(id & 0xffff_ffff)
        guard row < rows.count, rows[row].use == UInt32(id >> 32), rows[row].request != nil else { return nil }
        return row
    }

    private func identifier(_ row: Int, _ use: UInt32) -> UInt64 {
        UInt64(use) << 32 | UInt64(row)
    }
}
