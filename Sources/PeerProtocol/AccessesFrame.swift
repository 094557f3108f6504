package import ClusterCore

/// Hashes of keys that were read at their holder, told to a node that has copies of their slices: access hints.
///
/// A copy sees writes only; told of the reads, it evicts what the holder evicts. One-way: nothing answers a hint and
/// nothing waits for one, so a lost one costs nothing but a little of the copy's judgement.
package struct AccessesFrame {
    /// Hashes in one frame, at most: 8 KiB, so that nothing behind it on the connection waits long.
    package static let countMax = 1024
    /// Bytes of one hash.
    package static let hashBytes = 8

    private let hashes: UnsafeRawBufferPointer

    /// The body of a frame; it must live as long as what is made of it. Malformed: a part of a hash, or more than
    /// `countMax`.
    package init(_ body: UnsafeRawBufferPointer) throws(MalformedBytes) {
        guard body.count % Self.hashBytes == 0, body.count <= Self.countMax * Self.hashBytes else {
            throw MalformedBytes()
        }
        hashes = body
    }

    /// How many hashes there are: 0 to `countMax`.
    package var count: Int { hashes.count / Self.hashBytes }

    /// The hash at an index from 0 to below `count`.
    package subscript(index: Int) -> UInt64 {
        UInt64(littleEndian: hashes.loadUnaligned(fromByteOffset: index * Self.hashBytes, as: UInt64.self))
    }

    /// Appends a frame of at most `countMax` hashes.
    package static func append(_ hashes: ArraySlice<UInt64>, to buffer: inout ByteBuffer) {
        precondition(hashes.count <= countMax, "\(hashes.count) hashes are more than a frame's \(countMax)")
        Frame.append(.accesses, to: &buffer) { buffer in
            for hash in hashes { buffer.appendInteger(hash) }
        }
    }
}
