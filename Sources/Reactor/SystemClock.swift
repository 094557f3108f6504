package import ClusterCore
import Glibc

/// The host's clocks.
package enum SystemClock {
    /// Both clocks, about 30 ns. The wall clock as of the kernel's last tick, some milliseconds ago at most: expiry has
    /// a second's resolution, and versions rise by themselves.
    package static func read() -> Now {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME_COARSE, &time)
        // A wall clock set before 1970 reads as 1970.
        let unixMilliseconds = UInt64(max(time.tv_sec, 0)) * 1000 + UInt64(time.tv_nsec) / 1_000_000
        return Now(instant: monotonic(), unixMilliseconds: unixMilliseconds)
    }

    /// CLOCK_REALTIME to the nanosecond, since 1970: comparable with the kernel's times of arrival. It may jump.
    static func unixNanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return UInt64(max(time.tv_sec, 0)) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }

    /// CLOCK_MONOTONIC: unmoved by whoever sets the time; stands still while the host is suspended.
    package static func monotonic() -> Instant {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Instant(nanoseconds: UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec))
    }
}
