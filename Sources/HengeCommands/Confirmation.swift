/// A question before what cannot be taken back.
enum Confirmation {
    /// Asks on a terminal; throws where the answer is no yes.
    static func ask(_ question: String, in context: CommandContext) throws(CommandError) {
        context.output(question + " [y/N] ")
        let answer = context.readAnswer()?.lowercased()
        guard answer == "y" || answer == "yes" else { throw CommandError(.failed, "nothing was done") }
    }
}

extension CommandContext {
    /// Whether somebody sits there who can be asked.
    var isTerminal: Bool { isInputTerminal && isOutputTerminal }
}
