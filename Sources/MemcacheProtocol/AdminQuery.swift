/// What a `stats` command asks for.
package enum StatsQuery: Hashable {
    case general
    case settings
    case items
    case slabs
    case sizes
    case connections
    case externalStore
    case proxy
    case proxyFunctions
    case proxyBackends
    /// Figures of the whole cluster, beyond what memcached has.
    case cluster
    case reset
    case detailOn
    case detailOff
    case detailDump
    /// All items of a class, `limit` at most; 0 is all.
    case cacheDump(classID: UInt32, limit: UInt32)
    case refused(ErrorReply)

    /// Reads the arguments of a `stats` request. Names are taken whole, tokens too many are ignored.
    package init(arguments: UnsafeRawBufferPointer, dumpsAllowed: Bool) {
        var line = LineCursor(arguments, from: 0, to: arguments.count)
        guard let topic = line.next() else {
            self = .general
            return
        }
        if line.equals(topic, "detail") {
            self = dumpsAllowed ? Self.detail(&line) : .refused(.statsDetailNotAllowed)
        } else if line.equals(topic, "cachedump") {
            self = dumpsAllowed ? Self.cacheDump(&line) : .refused(.cacheDumpNotAllowed)
        } else {
            let known = Self.plainTopics.first { line.equals(topic, $0.name) }
            self = known?.query ?? .refused(.unknownCommand)
        }
    }

    private static var plainTopics: [(name: StaticString, query: StatsQuery)] {
        [
            ("settings", .settings), ("items", .items), ("slabs", .slabs), ("sizes", .sizes), ("conns", .connections),
            ("extstore", .externalStore), ("proxy", .proxy), ("proxyfuncs", .proxyFunctions),
            ("proxybe", .proxyBackends), ("cluster", .cluster), ("reset", .reset),
        ]
    }

    private static func detail(_ line: inout LineCursor) -> StatsQuery {
        guard let mode = line.next() else { return .refused(.statsDetailUsage) }
        if line.equals(mode, "on") { return .detailOn }
        if line.equals(mode, "off") { return .detailOff }
        if line.equals(mode, "dump") { return .detailDump }
        return .refused(.statsDetailUsage)
    }

    private static func cacheDump(_ line: inout LineCursor) -> StatsQuery {
        guard let classToken = line.next(), let limitToken = line.next() else {
            return .refused(.cacheDumpArgumentsMissing)
        }
        guard let classID = DecimalNumber.lenientUnsigned32(line.bytes(of: classToken)),
            let limit = DecimalNumber.lenientUnsigned32(line.bytes(of: limitToken))
        else { return .refused(.badCommandLine) }
        return classID < 64 ? .cacheDump(classID: classID, limit: limit) : .refused(.illegalSlabID)
    }
}

/// What a `shutdown` command asks for.
package enum ShutdownMode: Hashable {
    case immediate
    case graceful
    case refused(ErrorReply)

    /// Reads the argument of a `shutdown` request.
    package init(arguments: UnsafeRawBufferPointer, enabled: Bool) {
        var line = LineCursor(arguments, from: 0, to: arguments.count)
        if !enabled {
            self = .refused(.shutdownNotEnabled)
        } else if let mode = line.next() {
            self = line.equals(mode, "graceful") ? .graceful : .refused(.invalidShutdownMode)
        } else {
            self = .immediate
        }
    }
}

/// What an `lru_crawler` command asks for.
package enum CrawlerQuery: Hashable {
    /// Which items a dump or a crawl covers.
    package enum Selection: Hashable {
        case all
        case hash
        /// A bit per class, by its number, 1 to 62.
        case classes(UInt64)
    }

    case enable
    case disable
    case sleep(microseconds: UInt32)
    case itemsPerCrawl(UInt32)
    case crawl(Selection)
    case metadump(Selection)
    /// Keys alone, as mg commands.
    case keyDump(Selection)
    case refused(ErrorReply)

    /// Reads the arguments of an `lru_crawler` request. Tokens too many are ignored.
    ///
    /// `answersPending` says that earlier requests of the connection are not answered yet, which refuses dumps.
    package init(arguments: UnsafeRawBufferPointer, dumpsAllowed: Bool, answersPending: Bool) {
        var line = LineCursor(arguments, from: 0, to: arguments.count)
        guard let action = line.next() else {
            self = .refused(.unknownCommand)
            return
        }
        if line.equals(action, "enable") {
            self = .enable
            return
        }
        if line.equals(action, "disable") {
            self = .disable
            return
        }
        guard let argument = line.next() else {
            self = .refused(.unknownCommand)
            return
        }
        let text = line.bytes(of: argument)
        if line.equals(action, "metadump") {
            if !dumpsAllowed {
                self = .refused(.metadumpNotAllowed)
            } else if answersPending {
                self = .refused(.metadumpPipelined)
            } else {
                self = Self.selection(argument, in: line).map { .metadump($0) } ?? .refused(.badClass)
            }
        } else if line.equals(action, "mgdump") {
            if !dumpsAllowed {
                self = .refused(.keyDumpNotAllowed)
            } else if answersPending {
                self = .refused(.keyDumpPipelined)
            } else {
                self = Self.selection(argument, in: line).map { .keyDump($0) } ?? .refused(.badClass)
            }
        } else if line.equals(action, "crawl") {
            self = Self.selection(argument, in: line).map { .crawl($0) } ?? .refused(.badClass)
        } else if line.equals(action, "sleep") {
            self = Self.sleep(text)
        } else if line.equals(action, "tocrawl") {
            self = DecimalNumber.lenientUnsigned32(text).map { .itemsPerCrawl($0) } ?? .refused(.badCommandLine)
        } else {
            self = .refused(.unknownCommand)
        }
    }

    private static func sleep(_ text: UnsafeRawBufferPointer) -> CrawlerQuery {
        guard let microseconds = DecimalNumber.lenientUnsigned32(text) else { return .refused(.badCommandLine) }
        return microseconds <= 1_000_000 ? .sleep(microseconds: microseconds) : .refused(.crawlerSleepTooLong)
    }

    /// `all`, `hash`, or numbers of classes between commas, of which some may be empty.
    private static func selection(_ token: LineCursor.Token, in line: LineCursor) -> Selection? {
        if line.equals(token, "all") { return .all }
        if line.equals(token, "hash") { return .hash }
        var classes: UInt64 = 0
        for part in line.bytes(of: token).split(separator: UInt8(ascii: ",")) {
            let text = UnsafeRawBufferPointer(rebasing: part)
            guard let number = DecimalNumber.lenientUnsigned32(text), (1...62).contains(number) else { return nil }
            classes |= 1 << UInt64(number)
        }
        return .classes(classes)
    }
}
