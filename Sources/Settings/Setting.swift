/// One setting: a row of `SettingsTable`.
package struct Setting: Sendable {
    /// What a value is, for help and for checks beside the table.
    package enum Kind: String, Hashable, Sendable {
        case text
        case place
        case places
        case integer
        case decimal
        case bytes
        case seconds
        case choice
        case boolean
    }

    /// The key path in the file: `name`, `cluster.replicas`.
    package let key: String
    /// The long flag of `henge serve`.
    package let flag: String
    package let kind: Kind
    /// The unit of a plain number, empty where there is none.
    package let unit: String
    /// One line for the sample and the manual.
    package let help: String
    /// Whether the default depends on the host or on other settings.
    package let isDefaultComputed: Bool
    /// Puts a value into its place. Throws what is wrong with the value, without saying where it came from.
    let apply: @Sendable (SettingValue, inout NodeSettings) throws(SettingsError) -> Void
    /// The value as the file writes it.
    let show: @Sendable (NodeSettings) -> String

    init(
        _ key: String,
        _ flag: String,
        _ kind: Kind,
        unit: String = "",
        help: String,
        computed: Bool = false,
        show: @escaping @Sendable (NodeSettings) -> String,
        apply: @escaping @Sendable (SettingValue, inout NodeSettings) throws(SettingsError) -> Void
    ) {
        self.key = key
        self.flag = flag
        self.kind = kind
        self.unit = unit
        self.help = help
        self.isDefaultComputed = computed
        self.show = show
        self.apply = apply
    }

    /// The environment variable: `HENGE_CLUSTER_REPLICAS`.
    package var environmentName: String {
        "HENGE_"
            + key.map { character in character == "." || character == "-" ? "_" : character.uppercased() }.joined()
    }

    /// The table of the file that holds it; empty for the top level.
    package var section: String {
        key.firstIndex(of: ".").map { String(key[..<$0]) } ?? ""
    }

    /// The key within its table.
    package var lastKey: String {
        key.firstIndex(of: ".").map { String(key[key.index(after: $0)...]) } ?? key
    }
}
