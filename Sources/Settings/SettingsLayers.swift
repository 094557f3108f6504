private import ClusterCore

/// Where the value of a setting came from.
package enum SettingOrigin: Hashable, Sendable, CustomStringConvertible {
    case builtIn
    /// A file, with the line and column where they are known.
    case file(String)
    case environment(String)
    case flag(String)

    package var description: String {
        switch self {
        case .builtIn: "default"
        case .file(let place): place
        case .environment(let name): name
        case .flag(let flag): flag
        }
    }
}

/// A value given by a flag.
package struct FlagValue: Hashable, Sendable {
    /// The key path of the setting.
    package var key: String
    /// The flag as it was given, for messages: `--memory`, `-m`.
    package var flag: String
    package var text: String

    package init(key: String, flag: String, text: String) {
        self.key = key
        self.flag = flag
        self.text = text
    }
}

/// The layers that make up a node's settings: defaults, then a file, then the environment, then flags.
package struct SettingsLayers: Sendable {
    /// What the defaults depend on.
    package var host: HostFacts
    package var file: SettingsFile?
    /// All variables; those that do not begin with `HENGE_` are left alone.
    package var environment: [String: String] = [:]
    package var flags: [FlagValue] = []
    /// `-p`: replaces the port of every place to listen for clients, whichever layer named it.
    package var clientPort: UInt16?

    package init(host: HostFacts) {
        self.host = host
    }

    /// Variables that the programs read themselves.
    private static let reservedNames: Set<String> = ["HENGE_NODE"]

    /// Lays the layers over each other and checks the result.
    ///
    /// Throws for a value of the wrong form, an unknown variable and a contradiction, each with the place.
    package func resolve() throws(SettingsError) -> ResolvedSettings {
        var resolved = ResolvedSettings(settings: NodeSettings(host: host))
        if let file {
            for (setting, value, place) in file.values {
                try resolved.apply(setting, value, .file(place))
            }
        }
        try checkNames()
        for setting in SettingsTable.all {
            // Service managers cannot unset a variable, only empty it.
            guard let text = environment[setting.environmentName], !text.isEmpty else { continue }
            try resolved.apply(setting, .text(text), .environment(setting.environmentName))
        }
        for flag in flags {
            guard let setting = SettingsTable.setting(flag.key) else {
                preconditionFailure("flag \(flag.flag) is for \(flag.key), which is not in the table")
            }
            if case .flag(let earlier)? = resolved.origins[flag.key] {
                throw SettingsError("\(earlier) and \(flag.flag) set the same thing: give one of them")
            }
            try resolved.apply(setting, .text(flag.text), .flag(flag.flag))
        }
        if let clientPort {
            for index in resolved.settings.clientListen.indices {
                resolved.settings.clientListen[index].port = clientPort
            }
            resolved.origins["client.listen"] = .flag("-p")
        }
        if resolved.origins["data-dir"] == nil {
            resolved.settings.dataDirectory = host.dataDirectory(forNode: resolved.settings.name)
        }
        try resolved.settings.validate()
        return resolved
    }

    /// Refuses variables that look like settings and are none.
    private func checkNames() throws(SettingsError) {
        let known = SettingsTable.all.map(\.environmentName)
        for name in environment.keys.sorted() where name.hasPrefix("HENGE_") {
            guard !known.contains(name), !Self.reservedNames.contains(name) else { continue }
            if Self.isServiceLink(name, environment[name] ?? "") { continue }
            let candidates = known + Self.reservedNames.sorted()
            let guess =
                Spelling.nearest(to: name, among: candidates)
                ?? candidates.first { $0.hasSuffix("_" + name.dropFirst("HENGE_".count)) }
            throw SettingsError(
                "unknown environment variable \(name)" + (guess.map { "; did you mean \($0)?" } ?? "")
            )
        }
    }

    /// Kubernetes sets variables for every service of a namespace (`HENGE_SERVICE_HOST`, `HENGE_PORT=tcp://…`,
    /// `HENGE_PORT_11211_TCP_ADDR`); a service that is called henge must not keep its own pods from starting.
    private static func isServiceLink(_ name: String, _ value: String) -> Bool {
        name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.contains("_PORT_")
            || (name.hasSuffix("_PORT") && value.contains("://"))
    }
}

/// Settings with the origin of each.
package struct ResolvedSettings: Sendable {
    package fileprivate(set) var settings: NodeSettings
    fileprivate var origins: [String: SettingOrigin] = [:]

    fileprivate init(settings: NodeSettings) {
        self.settings = settings
    }

    /// Where the value of a setting came from.
    package func origin(of setting: Setting) -> SettingOrigin {
        origins[setting.key] ?? .builtIn
    }

    fileprivate mutating func apply(
        _ setting: Setting,
        _ value: SettingValue,
        _ origin: SettingOrigin
    ) throws(SettingsError) {
        do {
            try setting.apply(value, &settings)
        } catch {
            if case .file = origin { throw error.at("\(origin): \(setting.key)") }
            throw error.at(origin)
        }
        origins[setting.key] = origin
    }

    /// The whole configuration as a TOML file, each line with its origin.
    package func printed() -> String {
        SettingsDocument.render { setting in
            "\(setting.lastKey) = \(setting.show(settings))  # \(origin(of: setting))"
        }
    }
}
