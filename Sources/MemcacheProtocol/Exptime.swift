/// When an item expires, as a date.
public enum Expiry: Sendable, Hashable {
    case never
    /// Unix time, in seconds.
    case at(UInt32)
    /// Already expired: the store succeeds and nothing is to be found.
    case past
}

/// Reads the expiry that a client sends.
public enum Exptime {
    /// The date that `exptime` means.
    ///
    /// 0 is never; up to 30 days are seconds from now; above is Unix time; negative or a date that is not in the future
    /// is past. A date beyond 32 bits is the last one that fits. For flush_all both `never` and `past` mean now.
    public static func absoluteSeconds(_ exptime: Int64, now unixSeconds: UInt32) -> Expiry {
        if exptime == 0 { return .never }
        if exptime < 0 { return .past }
        if exptime <= ProtocolLimits.relativeExptimeSecondsMax {
            return .at(UInt32(clamping: exptime &+ Int64(unixSeconds)))
        }
        return exptime <= Int64(unixSeconds) ? .past : .at(UInt32(clamping: exptime))
    }
}
