import ArgumentParser
import Settings

/// Runs a node.
struct Serve: ContextCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run a node.",
        discussion: """
            Flags come before environment variables (HENGE_CLUSTER_SEEDS), those before the file of --config. \
            'henge config sample' explains every setting, 'henge config print' shows what is in force and why.
            """
    )

    @OptionGroup var flags: SettingsFlags

    func run(in context: CommandContext) async throws -> ExitStatus {
        let settings = try flags.resolve(in: context).settings
        for warning in settings.warnings { context.complain("henge: warning: \(warning)\n") }
        try await context.start(settings)
        return .done
    }
}

/// Shows settings.
struct Config: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show settings.",
        subcommands: [Print.self, Sample.self]
    )

    struct Print: ContextCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the settings that 'henge serve' would use, with the origin of each."
        )

        @OptionGroup var flags: SettingsFlags

        func run(in context: CommandContext) async throws -> ExitStatus {
            let resolved = try flags.resolve(in: context)
            for warning in resolved.settings.warnings { context.complain("henge: warning: \(warning)\n") }
            context.output(resolved.printed())
            return .done
        }
    }

    struct Sample: ContextCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print a settings file with every setting explained, at its default."
        )

        func run(in context: CommandContext) async throws -> ExitStatus {
            context.output(SettingsDocument.sample())
            return .done
        }
    }
}
