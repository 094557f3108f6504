/// Sizes, times and decimals as people write them.
package enum Units {
    /// Parses a size: digits, perhaps with a unit of 1024 (`K` `M` `G` `T`, also as `KB`, `KiB`, in either case).
    ///
    /// Nil for anything else and for what does not fit.
    package static func bytes(_ text: String) -> Int? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let count = Int(digits) else { return nil }
        let shift: Int
        switch text.dropFirst(digits.count).lowercased() {
        case "", "b": shift = 0
        case "k", "kb", "kib": shift = 10
        case "m", "mb", "mib": shift = 20
        case "g", "gb", "gib": shift = 30
        case "t", "tb", "tib": shift = 40
        default: return nil
        }
        let (product, overflow) = count.multipliedReportingOverflow(by: 1 << shift)
        return overflow ? nil : product
    }

    /// The shortest exact form that `bytes(_:)` reads: `64MiB`, `1536`.
    package static func text(bytes: Int) -> String {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if bytes >= 1 << shift, bytes & ((1 << shift) - 1) == 0 { return "\(bytes >> shift)\(unit)" }
        }
        return String(bytes)
    }

    /// Parses a time: digits, perhaps with `s`, `m` or `h`; in seconds. Nil for anything else.
    package static func seconds(_ text: String) -> Int? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let count = Int(digits) else { return nil }
        let factor: Int
        switch text.dropFirst(digits.count) {
        case "", "s": factor = 1
        case "m": factor = 60
        case "h": factor = 3600
        default: return nil
        }
        let (product, overflow) = count.multipliedReportingOverflow(by: factor)
        return overflow ? nil : product
    }

    /// Thousandths as a decimal with at least one place: 1000 is `1.0`, 1250 is `1.25`.
    package static func decimal(thousandths: Int) -> String {
        var places = String(1000 + thousandths % 1000).dropFirst()
        while places.count > 1, places.last == "0" { places.removeLast() }
        return "\(thousandths / 1000).\(places)"
    }
}
