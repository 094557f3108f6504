import CPrefetch

/// Asks for cache lines before they are needed.
enum Prefetch {
    @inline(__always)
    static func read(_ address: UnsafeRawPointer) { cprefetch_read(address) }
}
