package import ClusterCore

extension NodeSettings {
    /// Throws the first setting that is out of range or contradicts another one.
    package func validate() throws(SettingsError) {
        try check(Self.isName(name), "name '\(name)' is not 1 to 63 letters, digits, '.', '_' or '-'")
        try check(
            !clusterName.isEmpty && clusterName.utf8.count <= Self.nameBytesMax && Self.isPrintable(clusterName),
            "cluster name '\(clusterName)' is not 1 to 63 printable bytes"
        )
        try check(
            zone.utf8.count <= Self.nameBytesMax && Self.isPrintable(zone),
            "zone '\(zone)' is longer than 63 bytes or not printable"
        )
        try check(
            !dataDirectory.isEmpty && !dataDirectory.utf8.contains(0),
            "data-dir is empty: give a directory to write to"
        )
        try check(!clientListen.isEmpty, "client.listen is empty: give at least one address")
        try check(clientListen.count <= Self.listenersMax, "client.listen has more than \(Self.listenersMax) addresses")
        try check(seeds.count <= Self.seedsMax, "cluster.seeds has more than \(Self.seedsMax) places")
        try check((0...4).contains(replicas), "replicas \(replicas) is not from 0 to 4")
        try check((1...100_000).contains(weightThousandths), "weight is not from 0.001 to 100")
        try check((1...Self.workersMax).contains(workers), "workers \(workers) is not from 1 to \(Self.workersMax)")
        try check((1...1_000_000).contains(maxConnections), "max-connections is not from 1 to 1000000")
        try check((0...86_400).contains(idleTimeoutSeconds), "idle-timeout is not from 0 to 86400 seconds")
        try check((0...86_400).contains(fillDelaySeconds), "fill-delay is not from 0 to 86400 seconds")
        try check(
            memoryBytes >= Self.memoryBytesMin,
            "memory \(Units.text(bytes: memoryBytes)) is less than \(Units.text(bytes: Self.memoryBytesMin))"
        )
        try check((1024...(128 << 20)).contains(itemBytesMax), "max-item-size is not from 1 KiB to 128 MiB")
        try check(
            itemBytesMax <= memoryBytes / shardCount / 2,
            "max-item-size \(Units.text(bytes: itemBytesMax)) is more than half of memory "
                + "\(Units.text(bytes: memoryBytes)): raise memory or lower max-item-size"
        )
        try checkListeners()
        try checkAdvertised()
    }

    /// What works but is worth a line at the start.
    package var warnings: [String] {
        guard !Self.isLoopback(adminListen) else { return [] }
        return [
            "the admin port \(adminListen) is open beyond loopback and asks for no password: "
                + "whoever reaches it can drain nodes"
        ]
    }

    private func check(_ holds: Bool, _ message: @autoclosure () -> String) throws(SettingsError) {
        if !holds { throw SettingsError(message()) }
    }

    /// Two listeners on one TCP port fail with "address in use" at a time when nobody can tell them apart any more.
    private func checkListeners() throws(SettingsError) {
        let places =
            clientListen.map { ("client.listen", $0) } + [
                ("cluster.listen", clusterListen), ("admin.listen", adminListen),
            ]
        for (index, (name, place)) in places.enumerated() {
            for (otherName, other) in places[..<index] where other.port == place.port {
                let overlap = other.host == place.host || Self.covers(other, place) || Self.covers(place, other)
                try check(!overlap, "\(otherName) \(other) and \(name) \(place) share a port: change one of them")
            }
        }
    }

    /// Whether one place is the wildcard of the other's address family.
    private static func covers(_ wildcard: HostAndPort, _ place: HostAndPort) -> Bool {
        guard let address = IPAddress(wildcard.host), address.isUnspecified else { return false }
        switch (address, IPAddress(place.host)) {
        case (.v4, .v4), (.v6, .v6): return true
        case (_, nil): return true
        default: return false
        }
    }

    /// A node that tells others an address where they cannot reach it joins, and is declared down for ever after.
    private func checkAdvertised() throws(SettingsError) {
        if let advertise {
            try check(
                IPAddress(advertise) != nil || Self.isHostName(advertise),
                "advertise '\(advertise)' is neither an address nor a host name (it has no port)"
            )
        }
        let address = IPAddress(advertise ?? clusterListen.host)
        let source = advertise.map { "advertise \($0)" } ?? "cluster.listen \(clusterListen)"
        if advertise != nil {
            try check(
                address?.isUnspecified != true,
                "\(source) is no address that others can reach: leave it at auto or give the node's address"
            )
        }
        guard let remote = seeds.first(where: { !Self.isLoopback($0) }) else { return }
        let isLocal = address?.isLoopback == true || advertise == "localhost" || clusterListen.host == "localhost"
        try check(!isLocal, "\(source) is a loopback address, which seed \(remote) cannot reach")
        try check(
            !Self.isLinkLocal(address),
            "\(source) is a link-local address, which seed \(remote) may not reach"
        )
    }

    /// Whether a place is on this host for sure.
    package static func isLoopback(_ place: HostAndPort) -> Bool {
        place.host == "localhost" || IPAddress(place.host)?.isLoopback == true
    }

    /// 169.254.0.0/16 or fe80::/10.
    private static func isLinkLocal(_ address: IPAddress?) -> Bool {
        switch address {
        case .v4(let bits)?: bits >> 16 == 0xa9fe
        case .v6(let high, _)?: high >> 54 == 0x3fa
        case nil: false
        }
    }

    private static func isName(_ text: String) -> Bool {
        (1...nameBytesMax).contains(text.utf8.count) && text.first != "."
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }

    private static func isPrintable(_ text: String) -> Bool {
        text.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7f }
    }

    private static func isHostName(_ text: String) -> Bool {
        (1...253).contains(text.utf8.count)
            && text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { isName(String($0)) }
    }
}
