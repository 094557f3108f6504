/// Classes of remaining life: items that die at about the same time share segments, so that a segment dies as a whole.
///
/// Four classes an octave from one second on: in a store of a thousand segments, times to live that are spread evenly
/// leave a tenth of the memory to expired items, with one class an octave a quarter (reference simulations; see
/// Segcache, NSDI 2021, for the idea). Class 0 is for items that never expire.
enum TimeClass {
    /// 22 octaves reach beyond 30 days; what lives longer is in the last class.
    static let count = 1 + 4 * 22

    /// The class of an item that expires at that Unix second, 0 never.
    @inline(__always)
    static func of(expiry: UInt32, now: UInt32) -> Int {
        if expiry == 0 { return 0 }
        let life = expiry > now ? expiry &- now : 1
        let exponent = 31 &- life.leadingZeroBitCount
        let mantissa = exponent >= 2 ? Int(life &>> UInt32(exponent &- 2)) & 3 : Int(life &<< UInt32(2 &- exponent)) & 3
        return min(1 &+ exponent &* 4 &+ mantissa, count &- 1)
    }
}
