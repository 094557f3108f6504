/// TOML documents made from the table.
package enum SettingsDocument {
    /// A file with every setting at its default, explained and commented out.
    ///
    /// - Parameter host: whose defaults are shown; an example's where it is left out.
    package static func sample(
        host: HostFacts = HostFacts(name: "n1", processors: 4, isRoot: true)
    ) -> String {
        let defaults = NodeSettings(host: host)
        let head = """
            # Settings of a Henge node. Flags come before environment variables, those before this file.
            # What is commented out shows the default, or an example where the default depends on the host.


            """
        return head
            + render { setting in
                "# \(setting.help)  (\(setting.flag), \(setting.environmentName))\n"
                    + "#\(setting.lastKey) = \(setting.show(defaults))"
            }
    }

    /// The lines of all settings under the headings of their sections.
    static func render(line: (Setting) -> String) -> String {
        var text = ""
        var section = ""
        for setting in SettingsTable.all {
            if setting.section != section {
                section = setting.section
                text += "\n[\(section)]\n"
            }
            text += line(setting) + "\n"
        }
        return text
    }
}
