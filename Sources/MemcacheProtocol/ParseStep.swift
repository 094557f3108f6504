/// What the front of a connection's bytes turned out to be.
///
/// `consumed` is how many bytes the caller drops from the front before it asks again, always at least one.
public enum ParseStep: Sendable {
    /// Nothing usable yet. `hint` is how many bytes the whole request needs at the front, 0 if that is not known.
    case needMore(hint: Int)
    /// A whole request, data block included.
    case request(Request, consumed: Int)
    /// Answer this line, unless `quiet`. The parser swallows the data block itself, where there is one.
    case refused(ErrorReply, quiet: Bool, consumed: Int)
    /// A `set` too large: delete the key's old value, then answer the line, unless the request is quiet.
    ///
    /// Only key and `quiet` of the request count. The data block is swallowed by the steps that follow.
    case refusedStore(Request, ErrorReply, consumed: Int)
    /// Part of a swallowed data block.
    case skip(consumed: Int)
    /// Close without an answer, after the answers to earlier requests. Every later step is this one again.
    case close
}
