import ClusterCore
import Membership
import PeerProtocol

// What an examination's results mean, and what to open or change.

/// One thing that is not as it should be, in words for whoever can change it.
package struct ExaminationFinding: Hashable, Sendable {
    /// What was looked at.
    package enum Check: String, Hashable, Sendable, CaseIterable {
        case liveness
        case tcp
        case udp
        case clock
        case settings
        case key
        case seed
    }

    package var check: Check
    /// The member that it is about; nil where it is about the examining node.
    package var member: String?
    /// What is wrong, and after a colon what to do.
    package var text: String
}

/// Whether something passes one way.
package enum ExaminedWay: String, Hashable, Sendable, CaseIterable {
    case passes
    case fails
    /// It could not be seen, since the other end did not tell.
    case unknown
    /// Not used: gossip goes over TCP alone.
    case unused
}

extension ExaminedMember {
    /// TCP to the member. A connection that stands and brings no answer does not pass.
    package var tcpOut: ExaminedWay { isConnected && reply != nil ? .passes : .fails }

    /// TCP from the member, by its word.
    package var tcpBack: ExaminedWay {
        guard let reply else { return .unknown }
        return reply.isConnected ? .passes : .fails
    }
}

extension Examination {
    /// UDP to the member.
    package func udpOut(_ member: ExaminedMember) -> ExaminedWay {
        guard usesDatagrams, member.reply?.usesDatagrams != false else { return .unused }
        if member.hasHeardDatagram { return .passes }
        return member.reply == nil ? .unknown : .fails
    }

    /// UDP from the member. Unless it was told over TCP to send some, its silence says nothing.
    package func udpBack(_ member: ExaminedMember) -> ExaminedWay {
        guard usesDatagrams, member.reply?.usesDatagrams != false else { return .unused }
        if member.isHeardByDatagram { return .passes }
        return member.reply == nil ? .unknown : .fails
    }

    /// Whether the member's settings that should be equal are; nil where it has not told them.
    package func hasEqualSettings(_ member: ExaminedMember) -> Bool? {
        guard let reply = member.reply else { return nil }
        return reply.settings == settings && member.record.protocolVersion == own.protocolVersion
    }

    /// Everything that is not as it should be: this node's own first, then by member.
    package var findings: [ExaminationFinding] {
        var found: [ExaminationFinding] = []
        noteSeeds(&found)
        for member in members {
            noteConnections(of: member, &found)
            noteDatagrams(of: member, &found)
            noteClock(of: member, &found)
            noteSettings(of: member, &found)
            if member.hasKeyInUse == false {
                found.append(
                    ExaminationFinding(
                        check: .key,
                        member: member.record.name,
                        text: "\(member.record.name) does not have the cluster key in use, which the others hand it as "
                            + "long as it has one of theirs: 'henge keyring list' shows who lacks which"
                    )
                )
            }
        }
        return found
    }

    private func noteSeeds(_ found: inout [ExaminationFinding]) {
        func note(_ text: String) { found.append(ExaminationFinding(check: .seed, member: nil, text: text)) }
        let known = Set(members.map(\.record.cluster)).union([own.cluster])
        let names = Set(members.map(\.record.name)).union([own.name])
        if let seeking {
            note(
                seeking.majority > 0
                    ? "\(own.name) has no cluster: \(seeking.agreeing) of \(seeking.majority) seeds needed agree; "
                        + "start the others, or say 'henge form' where most are gone for good"
                    : "\(own.name) has no cluster: none of its seeds is part of one; start them, or correct --seeds"
            )
        }
        for seed in seeds {
            let place = seed.endpoint.map { "\($0)" == seed.label ? seed.label : "\(seed.label) (\($0))" } ?? seed.label
            switch seed.answer {
            case .itself: break
            case .unresolved: note("seed \(place) has no address: correct the name service, or --seeds")
            case .foreign(let name):
                note(
                    "seed \(place) belongs to the cluster \(name), not to this one: correct --seeds, or --cluster-name"
                )
            case .seeking(let name, let agrees):
                if seeking != nil, !agrees {
                    note("seed \(place) is \(name), whose own seeds or settings differ: give both the same")
                }
            case .joined(let name):
                if seeking == nil, !names.contains(name), seed.endpoint.map({ !known.contains($0) }) ?? false {
                    note("seed \(place) is no member: start a node there, or correct --seeds")
                }
            case .silent:
                if seeking != nil {
                    note(
                        "seed \(place) does not answer: see that a node runs there, that UDP and TCP \(port(seed)) "
                            + "are open both ways, and that both have one cluster key"
                    )
                } else if let endpoint = seed.endpoint, !known.contains(endpoint) {
                    note("seed \(place) is no member: start a node there, or correct --seeds")
                }
            }
        }
    }

    private func port(_ seed: MembershipSeeking.Contact) -> String { seed.endpoint.map { "\($0.port)" } ?? "" }

    /// `from 10.0.0.1 to 10.0.0.2:11212`.
    private static func way(_ from: MemberRecord, _ to: MemberRecord) -> String {
        "from \(from.cluster.address) to \(to.cluster)"
    }

    private func noteConnections(of member: ExaminedMember, _ found: inout [ExaminationFinding]) {
        let record = member.record
        func note(_ check: ExaminationFinding.Check, _ text: String) {
            found.append(ExaminationFinding(check: check, member: record.name, text: "\(record.name) \(text)"))
        }
        let both = "\(own.cluster) and \(record.cluster)"
        let isSilent = member.reply == nil && !member.isHeardByDatagram
        if record.liveness == .down || (isSilent && !member.isConnected) {
            let state = record.liveness == .down ? "is down" : "does not answer"
            if isSilent {
                note(
                    .liveness,
                    "\(state): start it again, or, where it runs, open TCP\(usesDatagrams ? " and UDP" : "") both ways "
                        + "between \(both); 'henge forget' where it will not return"
                )
                return
            }
            note(.liveness, "is called down although it answers: see 'henge events' in a minute")
        }
        if !member.isConnected {
            note(.tcp, "is not reached by TCP: open TCP \(Self.way(own, record))")
        } else if member.reply == nil {
            note(
                .tcp,
                "has not answered over TCP within \(waitedMilliseconds) ms, although the connection stands: see whether "
                    + "its process stands still, or open TCP both ways between \(both)"
            )
        }
        if member.tcpBack == .fails {
            note(.tcp, "does not reach \(own.name) by TCP: open TCP \(Self.way(record, own))")
        }
    }

    private func noteDatagrams(of member: ExaminedMember, _ found: inout [ExaminationFinding]) {
        let record = member.record
        func note(_ text: String) {
            found.append(ExaminationFinding(check: .udp, member: record.name, text: "\(record.name): \(text)"))
        }
        let otherwise = ", or start all nodes with --gossip tcp"
        switch (udpOut(member), udpBack(member)) {
        case (.fails, .fails):
            note(
                "UDP does not pass either way, TCP does: open UDP both ways between \(own.cluster) and "
                    + "\(record.cluster)\(otherwise)"
            )
        case (.fails, _):
            note(
                "UDP from \(own.name) does not arrive, the way back passes: open UDP \(Self.way(own, record))\(otherwise)"
            )
        case (_, .fails):
            note(
                "UDP to \(own.name) does not arrive, the way there passes: open UDP \(Self.way(record, own))\(otherwise)"
            )
        default: break
        }
    }

    private func noteClock(of member: ExaminedMember, _ found: inout [ExaminationFinding]) {
        guard let distance = member.clockMilliseconds, distance.magnitude > clockDistanceMax else { return }
        let seconds = "\(distance.magnitude / 1000).\(distance.magnitude % 1000 / 100) s"
        found.append(
            ExaminationFinding(
                check: .clock,
                member: member.record.name,
                text:
                    "\(member.record.name)'s clock is \(seconds) \(distance > 0 ? "ahead of" : "behind") \(own.name)'s: "
                    + "set both by NTP; until then items expire at another time where one takes over from the other"
            )
        )
    }

    private func noteSettings(of member: ExaminedMember, _ found: inout [ExaminationFinding]) {
        let name = member.record.name
        func note(_ text: String) { found.append(ExaminationFinding(check: .settings, member: name, text: text)) }
        if member.record.protocolVersion != own.protocolVersion {
            note(
                "\(name) speaks version \(member.record.protocolVersion) of the protocol between nodes, \(own.name) "
                    + "\(own.protocolVersion): bring all nodes to one version of henge"
            )
        }
        guard let reply = member.reply, reply.settings != settings else { return }
        let difference = MembershipConfiguration.difference(own: settings, other: reply.settings)
        note(
            "\(name)'s settings differ from \(own.name)'s: \(difference): give all nodes the same, and restart those changed"
        )
    }
}
