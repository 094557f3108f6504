/// The limits of memcached's text protocol, and the version that clients are told.
public enum ProtocolLimits {
    /// What `version` and `stats` say. Clients parse it as three numbers and switch features by it.
    public static let version: StaticString = "1.6.45"

    /// The longest key, in bytes.
    public static let keyBytesMax = 250

    /// The longest line but `get` and `gets`, in bytes before its newline. Longer closes the connection.
    public static let lineBytesMax = 2048

    /// The longest `get` or `gets` line, in bytes before its newline: 66,000 of the longest keys.
    ///
    /// memcached has no such limit and lets one client fill its memory. Longer closes the connection.
    public static let keysLineBytesMax = 16_777_216

    /// memcached accepts this many spaces before the `get` of a line longer than `lineBytesMax`.
    public static let leadingSpacesMax = 100

    /// The largest item by default (`-I`), in bytes, header and key included.
    public static let itemBytesMax = 1_048_576

    /// What memcached adds to key and value when it compares with `-I`: header, CAS unique, the NUL after the key, and
    /// the line end after the value. Clients know the largest value by experiment, so it stays what it is there.
    public static let itemOverheadBytes = 48 + 8 + 1 + 2

    /// The largest length that a storage command may declare: with its line end it still fits 31 bits.
    public static let valueBytesMax = 2_147_483_645

    /// From here on an expiry is a date and no longer a number of seconds ahead: 30 days.
    public static let relativeExptimeSecondsMax: Int64 = 2_592_000

    /// The smallest memory limit that `cache_memlimit` takes, in megabytes.
    public static let memoryLimitMegabytesMin: UInt64 = 8

    /// The largest memory limit that `cache_memlimit` takes for megabytes; above, somebody meant bytes.
    public static let memoryLimitMegabytesMax: UInt64 = 1_000_000_000
}
