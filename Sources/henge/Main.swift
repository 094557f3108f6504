import Glibc
import HengeCommands

/// The program: every command but the node itself is `HengeCommands`'; the node is `Server`.
@main
enum Main {
    /// The program's version, also in `henge version` and `henge_build_info`.
    static let version = "0.1.0"

    static func main() async {
        let context = CommandContext.process(version: version) { settings in try await Server.run(settings) }
        exit(await HengeProgram.run(Array(CommandLine.arguments.dropFirst()), in: context))
    }
}
