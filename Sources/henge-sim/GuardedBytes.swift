import Glibc

/// Memory that ends where an unreadable page begins: one byte read too far ends the process.
final class GuardedBytes {
    private let base: UnsafeMutableRawPointer
    private let capacity: Int
    private let pageBytes = Int(getpagesize())

    /// `capacity`: the most bytes that it takes at a time.
    init(capacity: Int) {
        self.capacity = (capacity + pageBytes - 1) / pageBytes * pageBytes
        let mapped = mmap(
            nil,
            self.capacity + pageBytes,
            PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS,
            -1,
            0
        )
        guard let mapped, mapped != MAP_FAILED, mprotect(mapped + self.capacity, pageBytes, PROT_NONE) == 0 else {
            fatalError("no memory for the guarded bytes: errno \(errno)")
        }
        base = mapped
    }

    deinit { munmap(base, capacity + pageBytes) }

    /// Calls `body` with a copy of the bytes that ends at the guard.
    func with<Result>(_ bytes: [UInt8], _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        precondition(bytes.count <= capacity, "\(bytes.count) bytes are more than \(capacity)")
        let place = UnsafeMutableRawBufferPointer(start: base + (capacity - bytes.count), count: bytes.count)
        place.copyBytes(from: bytes)
        return body(UnsafeRawBufferPointer(place))
    }
}
