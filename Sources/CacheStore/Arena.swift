import Glibc

/// The one region of memory of a shard, taken from the system at once; it comes zeroed, and the system commits what is
/// touched.
///
/// In a region of many megabytes huge pages are asked for, where the system has them: a random access then misses one
/// level of address translation less.
struct Arena: ~Copyable {
    let base: UnsafeMutableRawPointer
    private let byteCount: Int

    /// From this size on huge pages are worth their zeroing.
    private static let hugePagesFromBytes = 32 << 20
    private static let hugePageBytes = 2 << 20

    init(byteCount: Int) {
        self.byteCount = byteCount
        let isHuge = byteCount >= Self.hugePagesFromBytes
        // A region that begins within a huge page would leave its first part in small ones.
        let extra = isHuge ? Self.hugePageBytes : 0
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        guard let raw = mmap(nil, byteCount + extra, PROT_READ | PROT_WRITE, flags, -1, 0), raw != MAP_FAILED else {
            preconditionFailure("the system has no \(byteCount) bytes of address space for a shard (errno \(errno))")
        }
        guard isHuge else {
            base = raw
            return
        }
        let skip = Self.hugePageBytes - Int(bitPattern: raw) & (Self.hugePageBytes - 1)
        munmap(raw, skip)
        if skip < extra { munmap(raw + skip + byteCount, extra - skip) }
        base = raw + skip
        madvise(base, byteCount, MADV_HUGEPAGE)
    }

    deinit {
        munmap(base, byteCount)
    }
}
