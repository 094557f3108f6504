/// Which of a sender's numbered packets have come (RFC 4303, section 3.4.3): the highest, and which of those below it.
struct ReplayWindow: Sendable {
    /// How far behind the highest a packet may come and still count.
    static let width: UInt64 = 128

    private var highest: UInt64
    /// Bit n: the packet `highest - n` has come.
    private var low = UInt64.max
    private var high = UInt64.max

    /// A window in which all packets up to that number count as seen.
    init(after number: UInt64) {
        highest = number
    }

    /// Whether a packet has not come yet and is not too late. Numbers begin at 1.
    func isFresh(_ number: UInt64) -> Bool {
        if number > highest { return true }
        let age = highest - number
        guard number > 0, age < Self.width else { return false }
        return age < 64 ? low >> age & 1 == 0 : high >> (age - 64) & 1 == 0
    }

    /// Notes that a packet has come; it must be authentic and fresh.
    mutating func note(_ number: UInt64) {
        if number > highest {
            let step = number - highest
            switch step {
            case 1..<64:
                high = high << step | low >> (64 - step)
                low <<= step
            case 64..<Self.width:
                high = low << (step - 64)
                low = 0
            default:
                high = 0
                low = 0
            }
            highest = number
            low |= 1
        } else {
            let age = highest - number
            if age < 64 { low |= 1 << age } else { high |= 1 << (age - 64) }
        }
    }
}
