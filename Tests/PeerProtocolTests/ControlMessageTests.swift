import ClusterCore
import Testing

@testable import PeerProtocol

@Suite struct ControlMessageTests {
    private func read(_ bytes: [UInt8]) throws -> ControlMessage? {
        try bytes.withUnsafeBytes { raw in
            let (kind, body, consumed) = try #require(try Frame.next(in: raw))
            #expect(consumed == raw.count)
            return try ControlMessage(kind, body)
        }
    }

    /// A body of a kind, as `write` gives it.
    private func malformed(_ kind: Frame.Kind, _ write: (inout ByteBuffer) -> Void) -> Bool {
        var buffer = ByteBuffer()
        write(&buffer)
        do {
            _ = try ControlMessage(kind, buffer.bytes)
            return false
        } catch {
            return true
        }
    }

    @Test func `every message is read as it was written`() throws {
        for seed in 1...10 as ClosedRange<UInt64> {
            var random = Xoshiro256(seed: seed)
            for message in FrameSamples.messages(&random) {
                #expect(try read(FrameSamples.encoded(message)) == message, "seed \(seed)")
            }
        }
    }

    @Test func `frames of other families are no control messages`() throws {
        let others: [Frame.Kind] = [
            .hello, .request, .response, .entry, .acknowledgement, .exchange, .exchangeReply, .merge,
        ]
        for kind in others { #expect(try ControlMessage(kind, UnsafeRawBufferPointer(start: nil, count: 0)) == nil) }
    }

    @Test func `a slice that does not exist is malformed`() {
        let malformedOffer = malformed(.offer) {
            $0.appendInteger(UInt16(Slice.count))
            $0.appendInteger(UInt32(1))
            $0.appendInteger(UInt64(1))
        }
        #expect(malformedOffer)
        let malformedWithdrawal = malformed(.withdraw) {
            $0.appendInteger(UInt32(1))
            $0.appendInteger(UInt16.max)
            $0.appendInteger(UInt32(1))
        }
        #expect(malformedWithdrawal)
    }

    @Test func `an epoch that leaves no room to rise is malformed`() {
        let tooHigh = SliceEpoch.epochMax + 1
        let malformedOffer = malformed(.offer) {
            $0.appendInteger(UInt16(1))
            $0.appendInteger(tooHigh)
            $0.appendInteger(UInt64(1))
        }
        #expect(malformedOffer)
        let malformedWithdrawal = malformed(.withdraw) {
            $0.appendInteger(UInt32(1))
            $0.appendInteger(UInt16(1))
            $0.appendInteger(tooHigh)
        }
        #expect(malformedWithdrawal)
        let malformedVerdict = malformed(.claimReply) {
            $0.appendInteger(UInt64(1))
            $0.appendInteger(UInt32(1))
            $0.appendInteger(UInt32(1))
            $0.append(1)
            $0.appendInteger(tooHigh)
        }
        #expect(malformedVerdict)
        let malformedTable = malformed(.table) { buffer in
            buffer.appendInteger(UInt16(0))
            for slice in 0..<Slice.count {
                buffer.appendInteger(slice == 7 ? tooHigh : 0)
                buffer.appendInteger(UInt16(0))
            }
        }
        #expect(malformedTable)
    }

    @Test func `more entries than there are slices, or than there are bytes, are malformed`() {
        for count in [1, 3, UInt32(Slice.count) + 1, .max] {
            let isMalformed = malformed(.withdraw) {
                $0.appendInteger(count)
                if count > 3 {
                    $0.append([UInt8](repeating: 0, count: 6 * (Slice.count + 1)))
                } else {
                    $0.append([UInt8](repeating: 0, count: 6 * Int(count) - 1))
                }
            }
            #expect(isMalformed, "\(count) entries")
        }
        let malformedReply = malformed(.claimReply) {
            $0.appendInteger(UInt64(1))
            $0.appendInteger(UInt32(1))
            $0.appendInteger(UInt32(Slice.count + 1))
            $0.append([UInt8](repeating: 0, count: Slice.count + 1))
        }
        #expect(malformedReply)
    }

    @Test func `grounds, verdicts and orders that do not exist are malformed`() {
        for ground in [0, 5, 255] as [UInt8] {
            let isMalformed = malformed(.claim) {
                $0.appendInteger(UInt64(1))
                $0.append(ground)
                $0.appendInteger(UInt32(0))
            }
            #expect(isMalformed, "ground \(ground)")
        }
        let malformedVerdict = malformed(.claimReply) {
            $0.appendInteger(UInt64(1))
            $0.appendInteger(UInt32(1))
            $0.appendInteger(UInt32(1))
            $0.append(4)
        }
        #expect(malformedVerdict)
        for order in [0, 5, 255] as [UInt8] {
            let isMalformed = malformed(.order) {
                $0.appendInteger(UInt64(1))
                $0.append(order)
            }
            #expect(isMalformed, "order \(order)")
        }
    }

    @Test func `an inventory of broken entries is malformed`() {
        for surplus in 1..<16 {
            let isMalformed = malformed(.learn) {
                $0.appendInteger(UInt16(1))
                $0.appendInteger(UInt64(1))
                $0.append([UInt8](repeating: 0, count: 32 + surplus))
            }
            #expect(isMalformed, "\(surplus) bytes too many")
        }
    }

    @Test func `a table that names a member it does not list is malformed`() {
        let isMalformed = malformed(.table) { buffer in
            buffer.appendInteger(UInt16(1))
            buffer.append(MemberReference(id: NodeID(high: 1, low: 2), generation: 3))
            for slice in 0..<Slice.count {
                buffer.appendInteger(UInt32(1))
                buffer.appendInteger(UInt16(slice == 9 ? 2 : 1))
            }
        }
        #expect(isMalformed)
    }

    @Test func `a refusal that is no text is malformed`() {
        let isMalformed = malformed(.orderReply) {
            $0.appendInteger(UInt64(1))
            $0.append([0xff, 0xfe])
        }
        #expect(isMalformed)
    }

    @Test func `a long reason is cut where it stays text`() throws {
        for padding in 0..<5 {
            var report = NodeReport()
            report.blocked = String(repeating: "a", count: padding) + String(repeating: "é𝄞", count: 100)
            let message = ControlMessage.leasePing(number: 1, holdings: 2, report: report)
            guard case .leasePing(_, _, let copy) = try read(FrameSamples.encoded(message)) else {
                Issue.record("a ping became another message")
                return
            }
            #expect(copy.blocked.utf8.count <= 200)
            #expect(report.blocked.hasPrefix(copy.blocked), "\(copy.blocked)")
        }
    }
}
