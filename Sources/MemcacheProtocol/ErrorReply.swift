/// Every error line that a text client can be answered, with the words that clients match literally.
public enum ErrorReply: UInt8, Sendable, CaseIterable {
    /// An unknown command or subcommand.
    case unknownCommand
    /// Arguments missing or unreadable, or a key over 250 bytes.
    case badCommandLine
    /// The value's block does not end in a line end.
    case badDataChunk
    /// The item is over `-I`. libmemcached matches this text and the next.
    case objectTooLarge
    /// No room for an item and nothing to evict.
    case outOfMemoryStoring
    /// The result of incr or decr, which may be longer than the number before, finds no room.
    case outOfMemoryIncrementing
    /// The number of incr or decr is none.
    case invalidDelta
    /// The value under incr or decr is no number.
    case nonNumericValue
    /// The expiry of touch, gat or flush_all is no number.
    case invalidExptime
    /// flush_all is switched off (`-F`) or the user may not.
    case flushNotAllowed
    /// shutdown without `-A`.
    case shutdownNotEnabled
    /// shutdown with another argument than `graceful`.
    case invalidShutdownMode
    /// cache_memlimit under 8 megabytes.
    case memoryLimitTooSmall
    /// cache_memlimit with what must be bytes.
    case memoryLimitInBytes
    /// cache_memlimit with a limit that the store cannot take.
    case memoryLimitOutOfBounds
    /// watch, which is not offered.
    case watchNotAllowed
    /// stats detail with another argument than on, off, dump.
    case statsDetailUsage
    /// stats detail where dumps are switched off (`-X`).
    case statsDetailNotAllowed
    /// stats cachedump where dumps are switched off (`-X`).
    case cacheDumpNotAllowed
    /// stats cachedump with arguments missing.
    case cacheDumpArgumentsMissing
    /// stats cachedump of a class that cannot be.
    case illegalSlabID
    /// lru_crawler metadump where dumps are switched off (`-X`).
    case metadumpNotAllowed
    /// lru_crawler mgdump where dumps are switched off (`-X`).
    case keyDumpNotAllowed
    /// lru_crawler metadump behind requests whose answers are not sent yet.
    case metadumpPipelined
    /// lru_crawler mgdump behind requests whose answers are not sent yet.
    case keyDumpPipelined
    /// A crawl or a dump runs already.
    case crawlerBusy
    /// No such class.
    case badClass
    /// A dump could not start now.
    case crawlerLocked
    /// lru_crawler sleep over a second.
    case crawlerSleepTooLong
    /// More connections than allowed; sent before the connection is closed.
    case tooManyConnections

    /// The line, line end included.
    public var line: StaticString {
        switch self {
        case .unknownCommand: "ERROR\r\n"
        case .badCommandLine: "CLIENT_ERROR bad command line format\r\n"
        case .badDataChunk: "CLIENT_ERROR bad data chunk\r\n"
        case .objectTooLarge: "SERVER_ERROR object too large for cache\r\n"
        case .outOfMemoryStoring: "SERVER_ERROR out of memory storing object\r\n"
        case .outOfMemoryIncrementing: "SERVER_ERROR Out of memory incrementing value\r\n"
        case .invalidDelta: "CLIENT_ERROR invalid numeric delta argument\r\n"
        case .nonNumericValue: "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
        case .invalidExptime: "CLIENT_ERROR invalid exptime argument\r\n"
        case .flushNotAllowed: "CLIENT_ERROR flush_all not allowed\r\n"
        case .shutdownNotEnabled: "SERVER_ERROR: shutdown not enabled\r\n"
        case .invalidShutdownMode: "CLIENT_ERROR invalid shutdown mode\r\n"
        case .memoryLimitTooSmall: "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"
        case .memoryLimitInBytes: "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n"
        case .memoryLimitOutOfBounds: "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n"
        case .watchNotAllowed: "CLIENT_ERROR watch commands not allowed\r\n"
        case .statsDetailUsage: "CLIENT_ERROR usage: stats detail on|off|dump\r\n"
        case .statsDetailNotAllowed: "CLIENT_ERROR stats detail not allowed\r\n"
        case .cacheDumpNotAllowed: "CLIENT_ERROR stats cachedump not allowed\r\n"
        case .cacheDumpArgumentsMissing: "CLIENT_ERROR bad command line\r\n"
        case .illegalSlabID: "CLIENT_ERROR Illegal slab id\r\n"
        case .metadumpNotAllowed: "ERROR metadump not allowed\r\n"
        case .keyDumpNotAllowed: "ERROR key dump not allowed\r\n"
        case .metadumpPipelined: "ERROR cannot pipeline other commands before metadump\r\n"
        case .keyDumpPipelined: "ERROR cannot pipeline other commands before mgdump\r\n"
        case .crawlerBusy: "BUSY currently processing crawler request\r\n"
        case .badClass: "BADCLASS invalid class id\r\n"
        case .crawlerLocked: "ERROR locked try again later\r\n"
        case .crawlerSleepTooLong: "CLIENT_ERROR sleep must be one second or less\r\n"
        case .tooManyConnections: "ERROR Too many open connections\r\n"
        }
    }
}
