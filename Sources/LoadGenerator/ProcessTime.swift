import Glibc

/// What processes have used, as the kernel counts it.
package enum ProcessTime {
    /// Nanoseconds on a processor of all threads that a process has now (the first field of `schedstat`); nil where
    /// there is no such process or it may not be looked at. Threads that have ended are missing.
    package static func nanoseconds(of process: Int32) -> UInt64? {
        guard let directory = opendir("/proc/\(process)/task") else { return nil }
        defer { closedir(directory) }
        var sum: UInt64 = 0
        var isFound = false
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard name.first?.isNumber == true, let text = contents("/proc/\(process)/task/\(name)/schedstat"),
                let field = text.split(separator: " ").first, let value = UInt64(field)
            else { continue }
            sum += value
            isFound = true
        }
        return isFound ? sum : nil
    }

    /// The start of a small file.
    private static func contents(_ path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 256)
        let count = read(descriptor, &bytes, bytes.count)
        return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : nil
    }
}
