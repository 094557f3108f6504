private import Glibc

/// What defaults depend on: read once from the host, made up in tests.
package struct HostFacts: Hashable, Sendable {
    /// The host's name up to the first dot.
    package var name: String
    /// Processors that are online.
    package var processors: Int
    /// Whether the process runs as root.
    package var isRoot: Bool
    /// `$STATE_DIRECTORY`, which systemd sets for a unit with `StateDirectory=`.
    package var stateDirectory: String?
    /// `$XDG_STATE_HOME`.
    package var stateHome: String?
    /// `$HOME`.
    package var home: String?

    package init(
        name: String,
        processors: Int,
        isRoot: Bool,
        stateDirectory: String? = nil,
        stateHome: String? = nil,
        home: String? = nil
    ) {
        self.name = name
        self.processors = processors
        self.isRoot = isRoot
        self.stateDirectory = stateDirectory
        self.stateHome = stateHome
        self.home = home
    }

    /// The facts of this host and process.
    package static func current(environment: [String: String]) -> HostFacts {
        var buffer = [CChar](repeating: 0, count: 256)
        let failed = gethostname(&buffer, buffer.count - 1) != 0
        let bytes = buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        let label = String(decoding: bytes, as: UTF8.self).split(separator: ".").first.map(String.init) ?? ""
        func path(_ name: String) -> String? {
            environment[name].flatMap { $0.hasPrefix("/") ? $0 : nil }
        }
        return HostFacts(
            name: failed || label.isEmpty ? "node" : label,
            processors: sysconf(Int32(_SC_NPROCESSORS_ONLN)),
            isRoot: geteuid() == 0,
            stateDirectory: path("STATE_DIRECTORY"),
            stateHome: path("XDG_STATE_HOME"),
            home: path("HOME")
        )
    }

    /// Where a node of that name keeps its state unless it is told otherwise.
    package func dataDirectory(forNode node: String) -> String {
        // systemd separates several directories by colons; the first is the unit's own.
        if let first = stateDirectory?.split(separator: ":").first { return String(first) }
        if isRoot { return "/var/lib/henge/\(node)" }
        if let stateHome { return "\(stateHome)/henge/\(node)" }
        return "\(home ?? ".")/.local/state/henge/\(node)"
    }
}
