import ClusterCore
import MemcacheProtocol
import Testing

private func written(_ write: (inout ByteBuffer) -> Void) -> String {
    var buffer = ByteBuffer(capacity: 16)
    write(&buffer)
    return String(decoding: buffer.array(), as: UTF8.self)
}

/// Calls `body` with the bytes of `text`.
private func with<Result>(_ text: String, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    Array(text.utf8).withUnsafeBytes(body)
}

@Suite struct ResponseWriterTests {
    @Test func `values carry key, flags, size and, where asked, the unique`() {
        let plain = with("key") { key in
            with("a\r\nb") { value in
                written { ResponseWriter.value(key: key, flags: 4_294_967_295, value: value, to: &$0) }
            }
        }
        #expect(plain == "VALUE key 4294967295 4\r\na\r\nb\r\n")
        let unique = with("key") { key in
            with("") { value in
                written { ResponseWriter.value(key: key, flags: 0, value: value, unique: .max, to: &$0) }
            }
        }
        #expect(unique == "VALUE key 0 0 18446744073709551615\r\n\r\n")
        let header = with("k") { key in
            written { ResponseWriter.valueHeader(key: key, flags: 7, valueLength: 1000, unique: 0, to: &$0) }
        }
        #expect(header == "VALUE k 7 1000 0\r\n")
    }

    @Test func `numbers, statistics and server errors are whole lines`() {
        #expect(written { ResponseWriter.number(0, to: &$0) } == "0\r\n")
        #expect(written { ResponseWriter.number(.max, to: &$0) } == "18446744073709551615\r\n")
        #expect(written { ResponseWriter.stat("curr_items", 12, to: &$0) } == "STAT curr_items 12\r\n")
        #expect(written { ResponseWriter.stat("version", "1.6.45", to: &$0) } == "STAT version 1.6.45\r\n")
        #expect(written { ResponseWriter.serverError("no owner", to: &$0) } == "SERVER_ERROR no owner\r\n")
    }

    @Test func `status lines are those of memcached`() {
        let lines = StatusLine.allCases.map { status in written { ResponseWriter.status(status, to: &$0) } }
        #expect(
            lines == [
                "STORED\r\n", "NOT_STORED\r\n", "EXISTS\r\n", "NOT_FOUND\r\n", "DELETED\r\n", "TOUCHED\r\n", "OK\r\n",
                "END\r\n", "RESET\r\n", "VERSION 1.6.45\r\n",
            ]
        )
        #expect("VERSION \(ProtocolLimits.version)\r\n" == "\(StatusLine.version.line)")
    }

    @Test func `error lines are those of memcached, each another`() {
        let lines = ErrorReply.allCases.map { error in written { ResponseWriter.error(error, to: &$0) } }
        #expect(Set(lines).count == lines.count)
        let heads = ["ERROR", "CLIENT_ERROR ", "SERVER_ERROR", "MEMLIMIT_", "BUSY ", "BADCLASS "]
        for line in lines {
            #expect(heads.contains { line.hasPrefix($0) }, "\(line)")
            #expect(line.hasSuffix("\r\n"), "\(line)")
            #expect(line.utf8.count { $0 == 0x0a || $0 == 0x0d } == 2, "\(line)")
        }
        #expect("\(ErrorReply.objectTooLarge.line)" == "SERVER_ERROR object too large for cache\r\n")
        #expect("\(ErrorReply.outOfMemoryStoring.line)" == "SERVER_ERROR out of memory storing object\r\n")
        #expect("\(ErrorReply.shutdownNotEnabled.line)" == "SERVER_ERROR: shutdown not enabled\r\n")
        #expect("\(ErrorReply.unknownCommand.line)" == "ERROR\r\n")
    }
}

@Suite struct ExptimeTests {
    @Test func `zero is never, small is relative, large is a date`() {
        let now: UInt32 = 1_700_000_000
        let cases: [(Int64, Expiry)] = [
            (0, .never), (-1, .past), (.min, .past), (1, .at(now + 1)), (2_592_000, .at(now + 2_592_000)),
            (2_592_001, .past), (2_678_400, .past), (Int64(now) - 1, .past), (Int64(now), .past),
            (Int64(now) + 1, .at(now + 1)), (4_294_967_295, .at(.max)), (4_294_967_296, .at(.max)), (.max, .at(.max)),
        ]
        for (exptime, expiry) in cases {
            #expect(Exptime.absoluteSeconds(exptime, now: now) == expiry, "\(exptime)")
        }
        #expect(Exptime.absoluteSeconds(100, now: .max - 5) == .at(.max))
    }
}

@Suite struct AdminQueryTests {
    @Test func `stats topics are taken whole`() {
        let cases: [(String, StatsQuery)] = [
            ("", .general), ("settings", .settings), ("items", .items), ("slabs x", .slabs), ("sizes", .sizes),
            ("conns", .connections), ("extstore", .externalStore), ("proxy", .proxy), ("proxyfuncs", .proxyFunctions),
            ("proxybe", .proxyBackends), ("cluster", .cluster), ("reset x", .reset), ("r", .refused(.unknownCommand)),
            ("resets", .refused(.unknownCommand)), ("noreply", .refused(.unknownCommand)),
            ("detail", .refused(.statsDetailUsage)), ("detail x", .refused(.statsDetailUsage)),
            ("detail on", .detailOn), ("detail off x", .detailOff), ("detail dump", .detailDump),
            ("cachedump", .refused(.cacheDumpArgumentsMissing)), ("cachedump 1", .refused(.cacheDumpArgumentsMissing)),
            ("cachedump x 1", .refused(.badCommandLine)), ("cachedump 1 -1", .refused(.badCommandLine)),
            ("cachedump 64 1", .refused(.illegalSlabID)), ("cachedump 63  0 9", .cacheDump(classID: 63, limit: 0)),
        ]
        for (arguments, query) in cases {
            #expect(with(arguments) { StatsQuery(arguments: $0, dumpsAllowed: true) } == query, "\(arguments)")
        }
        #expect(
            with("detail on") { StatsQuery(arguments: $0, dumpsAllowed: false) } == .refused(.statsDetailNotAllowed)
        )
        #expect(with("cachedump") { StatsQuery(arguments: $0, dumpsAllowed: false) } == .refused(.cacheDumpNotAllowed))
    }

    @Test func `shutdown must be enabled and may be graceful`() {
        #expect(with("") { ShutdownMode(arguments: $0, enabled: true) } == .immediate)
        #expect(with("graceful") { ShutdownMode(arguments: $0, enabled: true) } == .graceful)
        #expect(with("now") { ShutdownMode(arguments: $0, enabled: true) } == .refused(.invalidShutdownMode))
        #expect(with("now") { ShutdownMode(arguments: $0, enabled: false) } == .refused(.shutdownNotEnabled))
    }

    @Test func `the crawler dumps what it is told to`() {
        let cases: [(String, CrawlerQuery)] = [
            ("", .refused(.unknownCommand)), ("foo", .refused(.unknownCommand)), ("foo x", .refused(.unknownCommand)),
            ("enable", .enable), ("disable", .disable), ("sleep", .refused(.unknownCommand)),
            ("sleep 100", .sleep(microseconds: 100)), ("sleep 1000001", .refused(.crawlerSleepTooLong)),
            ("sleep x", .refused(.badCommandLine)), ("tocrawl 5", .itemsPerCrawl(5)),
            ("tocrawl x", .refused(.badCommandLine)), ("crawl all", .crawl(.all)),
            ("crawl 1,x", .refused(.badClass)), ("metadump all", .metadump(.all)), ("metadump hash", .metadump(.hash)),
            ("metadump 1,,2,", .metadump(.classes(6))), ("metadump 0", .refused(.badClass)),
            ("metadump 62", .metadump(.classes(1 << 62))), ("metadump 63", .refused(.badClass)),
            ("metadump", .refused(.unknownCommand)), ("mgdump all", .keyDump(.all)), ("mgdump x", .refused(.badClass)),
        ]
        for (arguments, query) in cases {
            let result = with(arguments) { CrawlerQuery(arguments: $0, dumpsAllowed: true, answersPending: false) }
            #expect(result == query, "\(arguments)")
        }
        for (arguments, forbidden, pipelined) in [
            ("metadump all", ErrorReply.metadumpNotAllowed, ErrorReply.metadumpPipelined),
            ("mgdump all", .keyDumpNotAllowed, .keyDumpPipelined),
        ] {
            #expect(
                with(arguments) { CrawlerQuery(arguments: $0, dumpsAllowed: false, answersPending: true) }
                    == .refused(forbidden)
            )
            #expect(
                with(arguments) { CrawlerQuery(arguments: $0, dumpsAllowed: true, answersPending: true) }
                    == .refused(pipelined)
            )
        }
    }
}

@Suite struct DumpWriterTests {
    @Test func `dump lines are those of memcached`() {
        #expect(
            with("k") { key in
                written { DumpWriter.cacheDumpItem(key: key, valueLength: 2, expiry: nil, to: &$0) }
            } == "ITEM k [2 b; 0 s]\r\n"
        )
        #expect(
            with("foo") { name in
                written { DumpWriter.prefix(name, gets: 2, hits: 1, sets: 1, deletes: 1, to: &$0) }
            } == "PREFIX foo get 2 hit 1 set 1 del 1\r\n"
        )
        var facts = DumpWriter.ItemFacts(
            expiry: nil,
            lastAccess: 1_700_000_000,
            unique: 9,
            fetched: false,
            classID: 1,
            itemBytes: 66,
            flags: 0
        )
        #expect(
            with("a b/\u{e9}~") { key in
                written { DumpWriter.metadumpItem(key: key, facts, to: &$0) }
            } == "key=a%20b%2F%C3%A9~ exp=-1 la=1700000000 cas=9 fetch=no cls=1 size=66 flags=0 \n"
        )
        facts.expiry = 1_700_000_009
        facts.fetched = true
        #expect(
            with("A-z.0_9") { key in
                written { DumpWriter.metadumpItem(key: key, facts, to: &$0) }
            } == "key=A-z.0_9 exp=1700000009 la=1700000000 cas=9 fetch=yes cls=1 size=66 flags=0 \n"
        )
    }

    @Test(arguments: [
        ("foo", "mg foo\r\n"), ("f o", "mg ZiBv b\r\n"), ("f oo", "mg ZiBvbw== b\r\n"), ("f\nooo", "mg Zgpvb28= b\r\n"),
    ])
    func `keys that would break a line are dumped in base64`(key: String, line: String) {
        let result = with(key) { bytes in written { DumpWriter.keyDumpItem(key: bytes, to: &$0) } }
        #expect(result == line)
    }
}
