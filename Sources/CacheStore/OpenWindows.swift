/// The open segments of a pool for items that expire: each takes a window of the time ahead, so that what dies at about
/// the same time shares a segment, which then goes as a whole (Segcache, NSDI 2021, has the idea by time to live).
///
///     now ─┬──┬────┬───────┬─────────────┬───────────▶ expiry
///          └w0┘    └──w1───┘             └────w2 …
///
/// Windows are cut by the second of *expiry*, whatever the time to live was, and do not overlap. A window is no wider
/// than a share of the time that was left when it grew, so windows are narrow where the end is near. One that was opened
/// when its end was far goes on as that comes near, and takes what is short-lived by then: so segments fill, though
/// their windows are narrow. Classes of time to live need both, an item of each class to wait for the last of its
/// segment: the width of the class and the time that the segment took to fill.
struct OpenWindows {
    /// What an open segment takes.
    struct Window {
        /// The first and the last Unix second at which something in it expires.
        var first: UInt32
        var last: UInt32
        var segment: UInt32
    }

    /// Ordered by time, apart from each other.
    private let windows: UnsafeMutablePointer<Window>
    private let capacity: Int
    private(set) var count = 0

    /// A window may be as wide as one part in 2^this of the time that is left, in seconds.
    private static let widthShift: UInt32 = 3

    init(capacity: Int) {
        self.capacity = capacity
        windows = .allocate(capacity: capacity)
    }

    func deallocate() {
        windows.deallocate()
    }

    subscript(index: Int) -> Window { windows[index] }

    /// The window for an item that expires at a second; nil where it should have one of its own. Where none may be
    /// added it is the nearest one, if there is any.
    func index(for expiry: UInt32, now: UInt32, mayAdd: Bool) -> Int? {
        let next = position(expiry)
        if next < count, windows[next].first <= expiry { return next }
        let left = expiry > now ? expiry &- now : 0
        var best: Int?
        var width = mayAdd ? left &>> Self.widthShift : UInt32.max
        // What waits in the earlier one would wait longer, for this one.
        if next > 0, windows[next &- 1].last > now || !mayAdd, expiry &- windows[next &- 1].first <= width {
            best = next &- 1
            width = expiry &- windows[next &- 1].first
        }
        if next < count, windows[next].last &- expiry <= width { best = next }
        return best
    }

    /// Lets a window reach to a second.
    func widen(_ index: Int, to expiry: UInt32) {
        if expiry < windows[index].first { windows[index].first = expiry }
        if expiry > windows[index].last { windows[index].last = expiry }
    }

    /// Opens a window of one second; there must be none that reaches over it.
    mutating func insert(_ segment: UInt32, at expiry: UInt32) {
        precondition(count < capacity, "all \(capacity) windows are open")
        let place = position(expiry)
        var index = count
        while index > place {
            windows[index] = windows[index &- 1]
            index &-= 1
        }
        (windows + place).initialize(to: Window(first: expiry, last: expiry, segment: segment))
        count &+= 1
    }

    mutating func remove(_ index: Int) {
        for later in index..<(count &- 1) { windows[later] = windows[later &+ 1] }
        count &-= 1
    }

    /// Which window is a segment's.
    func index(of segment: UInt32) -> Int? {
        for index in 0..<count where windows[index].segment == segment { return index }
        return nil
    }

    /// The first window that ends at a second or later.
    @inline(__always)
    private func position(_ expiry: UInt32) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low &+ high) &>> 1
            if windows[middle].last < expiry { low = middle &+ 1 } else { high = middle }
        }
        return low
    }
}

/// The open segments of a pool.
struct OpenSegments {
    /// For items that never expire.
    var lasting = SegmentTable.none
    var windows: OpenWindows
}
