import AdminServer
import Settings

/// `henge status` and `henge ring` as text.
enum StatusText {
    /// The cluster: a headline, a line for each member, the slices, the tasks.
    static func render(_ status: ClusterStatus) -> String {
        let up = status.members.count { $0.lifecycle == .up && $0.liveness == .alive }
        let health = status.isDegraded ? "degraded" : "ok"
        let head = [
            "cluster \(status.cluster)", up == 1 ? "1 node up" : "\(up) nodes up", "replicas \(status.replicas)",
            "ring \(status.ring.hash.description.prefix(8))", "partition \(status.partition)", "health \(health)",
        ]
        var table = TextTable([
            "NODE", "STATE", "LIVE", "ADDRESS", "ADMIN", "ZONE", "WEIGHT", "PRIMARY", "COPIES", "ITEMS", "MEMORY",
        ])
        for member in status.members {
            table.add([
                safe(member.name) + (member.name == status.node ? " *" : ""),
                member.lifecycle.rawValue + (member.damped ? " damped" : ""),
                member.liveness.rawValue, safe(member.client), safe(member.admin),
                member.zone.isEmpty ? "-" : safe(member.zone), weight(member.weight),
                Readable.count(member.primaries), Readable.count(member.copies), Readable.count(member.items),
                "\(Readable.bytes(member.bytes))/\(Readable.bytes(member.memory))",
            ])
        }
        let slices = status.ring.slices
        let foot = [
            "slices \(Readable.count(slices.total))", "settled \(Readable.count(slices.settled))",
            "moving \(Readable.count(slices.moving))", "short of copies \(Readable.count(slices.short))",
            "unavailable \(Readable.count(slices.unavailable))",
        ]
        var text = head.joined(separator: "   ") + "\n" + table.rendered() + foot.joined(separator: "   ") + "\n"
        if let brake = status.ring.brake { text += "brake on: \(brakeText(brake))\n" }
        if !status.ready { text += "\(safe(status.node)) is not ready to serve\n" }
        for task in status.tasks {
            text += "task \(safe(task.id))   \(safe(task.kind)) \(safe(task.node))   \(task.state.rawValue)   "
            text += "\(Readable.percent(task.done, of: task.total)) %"
            if let blocked = task.blocked { text += "   BLOCKED \(safe(blocked))" }
            text += "\n"
        }
        return text
    }

    private static func brakeText(_ brake: BrakeStatus) -> String {
        let reason =
            brake.lost.isEmpty
            ? "this node is not well"
            : "\(brake.lost.map(safe).joined(separator: ", ")) of \(brake.members) went at once"
        guard let left = brake.left else { return reason + "; who goes stays in the ring for longer" }
        return reason + "; who is down leaves the ring in \((left + 999) / 1000) s, or by 'henge brake release'"
    }

    /// The ring: a key's place where one was asked for, then each member's part.
    static func render(_ report: RingReport) -> String {
        if let place = report.placement {
            let successors = place.successors.map(safe).joined(separator: ", ")
            let parts = [
                "hash \(place.hash)", "slice \(Readable.count(place.slice))", "epoch \(place.epoch)",
                "holder \(place.holder.map(safe) ?? "none")",
                "successors \(successors.isEmpty ? "none" : successors)",
                // Only the holder knows; another node says 0.
                place.inSync == 0 && place.holder != nil
                    ? "in sync: ask the holder" : "in sync \(place.inSync) of \(place.successors.count + 1)",
            ]
            return parts.joined(separator: "   ") + "\n"
        }
        var table = TextTable(["NODE", "PRIMARY", "COPIES"])
        for member in report.members {
            table.add([
                safe(member.name), Readable.change(now: member.primaries.now, wanted: member.primaries.wanted),
                Readable.change(now: member.copies.now, wanted: member.copies.wanted),
            ])
        }
        return "ring \(report.hash)\n" + table.rendered()
    }

    /// `1.0`, `0.125`; what is no weight at all is shown as 0.
    private static func weight(_ value: Double) -> String {
        Units.decimal(thousandths: value > 0 && value <= 1e6 ? Int((value * 1000).rounded()) : 0)
    }

    /// Names come from other machines: what could steer a terminal is shown as `?`.
    static func safe(_ text: String) -> String {
        String(
            String.UnicodeScalarView(
                text.unicodeScalars.map { scalar in
                    scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value) ? "?" : scalar
                }
            )
        )
    }
}
