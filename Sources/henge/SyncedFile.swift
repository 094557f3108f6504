import Foundation

/// Files that must be there, whole, after a loss of power.
enum SyncedFile {
    /// Puts `data` in the place of a file: writes it beside, syncs it, renames it, and syncs the directory.
    static func replace(_ name: String, in directory: String, with data: Data, mode: mode_t = 0o644) throws {
        let path = directory + "/" + name
        let beside = path + ".new"
        unlink(beside)
        let descriptor = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw failure() }
        do {
            try FileHandle(fileDescriptor: descriptor, closeOnDealloc: false).write(contentsOf: data)
            guard fsync(descriptor) == 0 else { throw failure() }
            close(descriptor)
        } catch {
            close(descriptor)
            throw error
        }
        guard rename(beside, path) == 0 else { throw failure() }
        try sync(directory)
    }

    private static func sync(_ path: String) throws {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure() }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw failure() }
    }

    private static func failure() -> POSIXError { POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO) }
}
