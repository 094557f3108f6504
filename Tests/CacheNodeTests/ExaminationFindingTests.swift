import ClusterCore
import Membership
import PeerProtocol
import Testing

@testable import CacheNode

/// What an examination's results mean in words.
@Suite struct ExaminationFindingTests {
    private func record(_ number: UInt32) -> MemberRecord {
        let address = IPAddress.v4(0x0a00_0000 + number)
        return MemberRecord(
            id: NodeID(high: 0, low: UInt64(number)),
            generation: 1,
            lifecycle: .up,
            name: "n\(number)",
            client: Endpoint(address, port: 11_211),
            cluster: Endpoint(address, port: 11_212),
            admin: Endpoint(address, port: 11_213)
        )
    }

    private func member(_ change: (inout ExaminedMember) -> Void = { _ in }) -> ExaminedMember {
        var member = ExaminedMember(record: record(3))
        member.isConnected = true
        member.isHeardByDatagram = true
        member.hasHeardDatagram = true
        member.clockMilliseconds = -1000
        member.hasKeyInUse = true
        member.reply = ExaminationReply(
            number: 1,
            round: 0,
            unixMilliseconds: 0,
            hasHeardDatagrams: true,
            usesDatagrams: true,
            isConnected: true,
            settings: "a=1 b=2"
        )
        change(&member)
        return member
    }

    private func examination(_ members: [ExaminedMember] = []) -> Examination {
        Examination(
            own: record(1),
            settings: "a=1 b=2",
            usesDatagrams: true,
            members: members,
            clockDistanceMax: 1000,
            waitedMilliseconds: 1000
        )
    }

    private func found(_ change: (inout ExaminedMember) -> Void) -> [String] {
        examination([member(change)]).findings.map { "\($0.check) \($0.member ?? "") \($0.text)" }
    }

    @Test func `nothing is found where all is well`() {
        #expect(found { _ in } == [])
    }

    @Test func `of UDP the way that is closed is named`() {
        #expect(
            found { $0.hasHeardDatagram = false } == [
                "udp n3 n3: UDP from n1 does not arrive, the way back passes: open UDP from 10.0.0.1 to 10.0.0.3:11212, "
                    + "or start all nodes with --gossip tcp"
            ]
        )
        #expect(
            found { $0.isHeardByDatagram = false } == [
                "udp n3 n3: UDP to n1 does not arrive, the way there passes: open UDP from 10.0.0.3 to 10.0.0.1:11212, "
                    + "or start all nodes with --gossip tcp"
            ]
        )
        let both = found {
            $0.hasHeardDatagram = false
            $0.isHeardByDatagram = false
        }
        #expect(
            both == [
                "udp n3 n3: UDP does not pass either way, TCP does: open UDP both ways between 10.0.0.1:11212 and "
                    + "10.0.0.3:11212, or start all nodes with --gossip tcp"
            ]
        )
    }

    @Test func `of TCP the way that is closed is named, and what it hides is not guessed`() {
        let out = member {
            $0.isConnected = false
            $0.reply = nil
        }
        let report = examination([out])
        #expect(
            report.findings.map(\.text) == ["n3 is not reached by TCP: open TCP from 10.0.0.1 to 10.0.0.3:11212"]
        )
        #expect(out.tcpOut == .fails && out.tcpBack == .unknown)
        let silent = member {
            $0.isConnected = false
            $0.reply = nil
            $0.hasHeardDatagram = false
        }
        #expect(examination([silent]).udpOut(silent) == .unknown)
        #expect(
            found { $0.reply?.isConnected = false } == [
                "tcp n3 n3 does not reach n1 by TCP: open TCP from 10.0.0.3 to 10.0.0.1:11212"
            ]
        )
        let stuck = found { $0.reply = nil }
        #expect(stuck.count == 1 && stuck[0].contains("has not answered over TCP within 1000 ms"), "\(stuck)")
    }

    @Test func `who shows no life is one finding, not five`() {
        let lines = found {
            $0 = ExaminedMember(record: record(3))
            $0.record.liveness = .down
        }
        #expect(
            lines == [
                "liveness n3 n3 is down: start it again, or, where it runs, open TCP and UDP both ways between "
                    + "10.0.0.1:11212 and 10.0.0.3:11212; 'henge forget' where it will not return"
            ]
        )
    }

    @Test func `clocks, settings, versions and keys`() {
        #expect(found { $0.clockMilliseconds = 1000 } == [])
        let ahead = found { $0.clockMilliseconds = 3_600_049 }
        #expect(ahead.count == 1 && ahead[0].hasPrefix("clock n3 n3's clock is 3600.0 s ahead of n1's: set both"))
        let behind = found { $0.clockMilliseconds = .min }
        #expect(behind.count == 1 && behind[0].contains(" s behind n1's"))
        #expect(
            found { $0.reply?.settings = "a=1 b=3" } == [
                "settings n3 n3's settings differ from n1's: here b=2, there b=3: give all nodes the same, and restart "
                    + "those changed"
            ]
        )
        #expect(found { $0.record.protocolVersion = 9 }[0].contains("speaks version 9 of the protocol"))
        #expect(found { $0.hasKeyInUse = false }[0].hasPrefix("key n3 n3 does not have the cluster key in use"))
        #expect(found { $0.hasKeyInUse = nil } == [])
    }

    @Test func `where gossip goes over TCP alone, UDP is not missed`() {
        var alone = examination([member { $0.isHeardByDatagram = false }])
        alone.usesDatagrams = false
        #expect(alone.findings == [])
        #expect(alone.udpBack(alone.members[0]) == .unused)
    }

    @Test func `seeds that lead to no member are named`() {
        func contact(
            _ label: String,
            _ number: UInt32?,
            _ answer: MembershipSeeking.Answer
        ) -> MembershipSeeking.Contact {
            MembershipSeeking.Contact(
                label: label,
                endpoint: number.map { record($0).cluster },
                answer: answer
            )
        }
        var joined = examination([member()])
        joined.seeds = [
            contact("n1.test:11212", 1, .itself), contact("n3.test:11212", 3, .silent),
            contact("old:11212", nil, .unresolved),
            contact("10.0.0.9:11212", 9, .silent), contact("blue.test:11212", 8, .foreign(clusterName: "blue")),
        ]
        let texts = joined.findings.map(\.text)
        #expect(
            texts == [
                "seed old:11212 has no address: correct the name service, or --seeds",
                "seed 10.0.0.9:11212 is no member: start a node there, or correct --seeds",
                "seed blue.test:11212 (10.0.0.8:11212) belongs to the cluster blue, not to this one: correct --seeds, or "
                    + "--cluster-name",
            ]
        )
    }
}
