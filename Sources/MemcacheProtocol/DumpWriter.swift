package import ClusterCore

/// Writes the lines of the dumps: `stats cachedump`, `stats detail dump`, `lru_crawler metadump` and `mgdump`.
package enum DumpWriter {
    /// What a metadump tells of an item.
    package struct ItemFacts {
        /// Unix seconds; nil is never.
        package var expiry: UInt32?
        /// Unix seconds.
        package var lastAccess: UInt32
        package var unique: UInt64
        /// Read since it was stored.
        package var fetched: Bool
        package var classID: UInt32
        /// With the store's own overhead, in bytes.
        package var itemBytes: Int
        package var flags: UInt32

        package init(
            expiry: UInt32?,
            lastAccess: UInt32,
            unique: UInt64,
            fetched: Bool,
            classID: UInt32,
            itemBytes: Int,
            flags: UInt32
        ) {
            self.expiry = expiry
            self.lastAccess = lastAccess
            self.unique = unique
            self.fetched = fetched
            self.classID = classID
            self.itemBytes = itemBytes
            self.flags = flags
        }
    }

    /// `ITEM key [bytes b; expiry s]` with the value's size and a date, 0 for never.
    package static func cacheDumpItem(
        key: UnsafeRawBufferPointer,
        valueLength: Int,
        expiry: UInt32?,
        to buffer: inout ByteBuffer
    ) {
        buffer.appendLiteral("ITEM ")
        buffer.append(key)
        buffer.appendLiteral(" [")
        buffer.appendDecimal(UInt64(valueLength))
        buffer.appendLiteral(" b; ")
        buffer.appendDecimal(UInt64(expiry ?? 0))
        buffer.appendLiteral(" s]\r\n")
    }

    /// `PREFIX name get n hit n set n del n`.
    package static func prefix(
        _ name: UnsafeRawBufferPointer,
        gets: UInt64,
        hits: UInt64,
        sets: UInt64,
        deletes: UInt64,
        to buffer: inout ByteBuffer
    ) {
        buffer.appendLiteral("PREFIX ")
        buffer.append(name)
        buffer.appendLiteral(" get ")
        buffer.appendDecimal(gets)
        buffer.appendLiteral(" hit ")
        buffer.appendDecimal(hits)
        buffer.appendLiteral(" set ")
        buffer.appendDecimal(sets)
        buffer.appendLiteral(" del ")
        buffer.appendDecimal(deletes)
        buffer.appendLiteral("\r\n")
    }

    /// A line of metadump. It ends in a space and a bare newline, as memcached's does.
    package static func metadumpItem(
        key: UnsafeRawBufferPointer,
        _ facts: ItemFacts,
        to buffer: inout ByteBuffer
    ) {
        buffer.appendLiteral("key=")
        percentEncoded(key, to: &buffer)
        buffer.appendLiteral(" exp=")
        if let expiry = facts.expiry {
            buffer.appendDecimal(UInt64(expiry))
        } else {
            buffer.appendLiteral("-1")
        }
        buffer.appendLiteral(" la=")
        buffer.appendDecimal(UInt64(facts.lastAccess))
        buffer.appendLiteral(" cas=")
        buffer.appendDecimal(facts.unique)
        buffer.appendLiteral(" fetch=")
        buffer.appendLiteral(facts.fetched ? "yes" : "no")
        buffer.appendLiteral(" cls=")
        buffer.appendDecimal(UInt64(facts.classID))
        buffer.appendLiteral(" size=")
        buffer.appendDecimal(UInt64(facts.itemBytes))
        buffer.appendLiteral(" flags=")
        buffer.appendDecimal(UInt64(facts.flags))
        buffer.appendLiteral(" \n")
    }

    /// A line of mgdump: `mg key`, or `mg base64 b` where the key holds what would break a line.
    ///
    /// memcached prints keys with blanks raw, and the reader takes the rest for flags.
    package static func keyDumpItem(key: UnsafeRawBufferPointer, to buffer: inout ByteBuffer) {
        buffer.appendLiteral("mg ")
        if key.contains(where: { $0 <= 0x20 || $0 == 0x7f }) {
            base64Encoded(key, to: &buffer)
            buffer.appendLiteral(" b\r\n")
        } else {
            buffer.append(key)
            buffer.appendLiteral("\r\n")
        }
    }

    /// Letters, digits and `-._~` stay; upper-case hexadecimal.
    package static func percentEncoded(_ bytes: UnsafeRawBufferPointer, to buffer: inout ByteBuffer) {
        for byte in bytes {
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                buffer.append(byte)
            default:
                buffer.append(UInt8(ascii: "%"))
                buffer.append(hexadecimal(byte >> 4))
                buffer.append(hexadecimal(byte & 15))
            }
        }
    }

    /// With padding (RFC 4648, section 4).
    package static func base64Encoded(_ bytes: UnsafeRawBufferPointer, to buffer: inout ByteBuffer) {
        var index = 0
        while index < bytes.count {
            let count = min(3, bytes.count - index)
            var group: UInt32 = 0
            for position in 0..<3 {
                group = (group << 8) | (position < count ? UInt32(bytes[index + position]) : 0)
            }
            for position in 0..<4 {
                let digit = UInt8((group >> UInt32(18 - 6 * position)) & 63)
                buffer.append(position <= count ? base64Digit(digit) : UInt8(ascii: "="))
            }
            index += 3
        }
    }

    private static func hexadecimal(_ digit: UInt8) -> UInt8 {
        digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "A") + digit - 10
    }

    private static func base64Digit(_ digit: UInt8) -> UInt8 {
        switch digit {
        case 0..<26: UInt8(ascii: "A") + digit
        case 26..<52: UInt8(ascii: "a") + digit - 26
        case 52..<62: UInt8(ascii: "0") + digit - 52
        case 62: UInt8(ascii: "+")
        default: UInt8(ascii: "/")
        }
    }
}
