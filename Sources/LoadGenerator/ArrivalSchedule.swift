import Glibc

/// When the requests of an open loop are due: exponential gaps, fixed by rate and seed, whatever the server does.
package struct ArrivalSchedule {
    /// When the next request is due, in nanoseconds on the monotonic clock.
    package private(set) var next: UInt64
    private let meanGapNanoseconds: Double
    private var chance: Chance
    /// What rounding to nanoseconds left, so that the rate holds.
    private var fraction: Double = 0

    /// Requests from `start` on, `perSecond` on average, which is above 0.
    package init(start: UInt64, perSecond: Double, seed: UInt64) {
        precondition(perSecond > 0, "a rate of \(perSecond) requests a second")
        meanGapNanoseconds = 1e9 / perSecond
        chance = Chance(seed: seed)
        next = start
        advance()
    }

    /// Goes on to the request after this one.
    @inline(__always)
    package mutating func advance() {
        let gap = fraction - log(chance.unit()) * meanGapNanoseconds
        let whole = gap.rounded(.down)
        fraction = gap - whole
        next = next &+ UInt64(whole)
    }
}
