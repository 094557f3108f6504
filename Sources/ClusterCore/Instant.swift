/// A moment on a node's monotonic clock, in nanoseconds since an arbitrary start.
///
/// Pure code is handed instants and never asks for one. Instants of different nodes cannot be compared.
public struct Instant: Hashable, Comparable, Sendable {
    public var nanoseconds: UInt64

    @inlinable
    public init(nanoseconds: UInt64) {
        self.nanoseconds = nanoseconds
    }

    /// Later than everything: the deadline of a machine that waits for nothing.
    public static let distantFuture = Instant(nanoseconds: .max)

    @inlinable
    public static func < (left: Instant, right: Instant) -> Bool {
        left.nanoseconds < right.nanoseconds
    }

    /// The instant that many milliseconds later; stops at `distantFuture`.
    @inlinable
    public func advanced(byMilliseconds milliseconds: UInt64) -> Instant {
        let (product, overflow) = milliseconds.multipliedReportingOverflow(by: 1_000_000)
        return advanced(byNanoseconds: overflow ? .max : product)
    }

    /// The instant that many nanoseconds later; stops at `distantFuture`.
    @inlinable
    public func advanced(byNanoseconds delta: UInt64) -> Instant {
        let (sum, overflow) = nanoseconds.addingReportingOverflow(delta)
        return Instant(nanoseconds: overflow ? .max : sum)
    }

    /// Nanoseconds from `earlier` to this instant; 0 where `earlier` is not earlier.
    @inlinable
    public func nanoseconds(since earlier: Instant) -> UInt64 {
        nanoseconds > earlier.nanoseconds ? nanoseconds - earlier.nanoseconds : 0
    }

    /// Whole milliseconds from `earlier` to this instant; 0 where `earlier` is not earlier.
    @inlinable
    public func milliseconds(since earlier: Instant) -> UInt64 {
        nanoseconds(since: earlier) / 1_000_000
    }
}

/// What a shell reads from its clocks once a turn and hands to pure code.
public struct Now: Sendable {
    /// The monotonic clock: timers, leases, deadlines.
    public var instant: Instant
    /// Milliseconds since 1970 by the wall clock: expiry and versions only; it may jump.
    public var unixMilliseconds: UInt64

    @inlinable
    public init(instant: Instant, unixMilliseconds: UInt64) {
        self.instant = instant
        self.unixMilliseconds = unixMilliseconds
    }

    /// Seconds since 1970, the resolution of item expiry.
    @inlinable
    public var unixSeconds: UInt32 { UInt32(truncatingIfNeeded: unixMilliseconds / 1000) }
}
