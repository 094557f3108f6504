import CacheNode
import ClusterCore
import Dispatch
import Glibc
import Logging
import Membership
import NodeRuntime
import Settings
import Synchronization
import SystemdSupport

/// Turns a node's news into log lines, words to the service manager, and what is kept for the next start.
final class Observer: NodeObserver {
    private let logger: Logger
    private let notifier: ServiceNotifier
    private let identity: Mutex<NodeIdentity>
    /// Saving waits for the disk, which the control thread, and with it the serving lease, must not.
    private let disk = DispatchQueue(label: "henge.identity")
    private let directory: String

    init(logger: Logger, notifier: ServiceNotifier, identity: NodeIdentity, settings: NodeSettings) {
        self.logger = logger
        self.notifier = notifier
        self.identity = Mutex(identity)
        directory = settings.dataDirectory
    }

    func remember(sawThree: Bool, peers: [Endpoint]) {
        let texts = peers.map(\.description).sorted()
        let changed: NodeIdentity? = identity.withLock { identity in
            guard identity.sawThree != sawThree || identity.peers != texts else { return nil }
            // A cluster of one that others have left still knows them: forgetting is worth nothing.
            if texts.isEmpty, identity.sawThree == sawThree { return nil }
            identity.sawThree = sawThree
            identity.peers = texts
            return identity
        }
        guard let changed else { return }
        disk.async { [directory, logger] in
            do {
                try changed.save(in: directory)
            } catch {
                logger.error("cannot save what is known of the cluster", metadata: ["error": "\(error)"])
            }
        }
    }

    func store(_ keyRing: [UInt8], done: @escaping @Sendable (Bool) -> Void) {
        disk.async { [directory, logger] in
            do {
                try KeyRingFile.save(keyRing, in: directory)
                done(true)
            } catch {
                logger.error(
                    "cannot save the cluster keys, so their change is not followed",
                    metadata: ["error": "\(error)"]
                )
                done(false)
            }
        }
    }

    /// Returns when everything that was to be remembered is on disk.
    func finishSaving() {
        disk.sync {}
    }

    func clientsOpened() {
        logger.notice("serving clients")
        notifier.status("serving")
    }

    func stopping() {
        logger.notice("stopping")
        notifier.stopping(status: "handing over")
    }

    func endsAtOnce() {
        logger.warning("second signal: ending at once")
        _exit(1)
    }

    func log(_ event: NodeEvent) {
        switch event {
        case .drainRefused(let reason): logger.warning("not drained before the stop", metadata: ["reason": "\(reason)"])
        case .acceptPaused(let reason):
            logger.warning("accepting no connections for a moment", metadata: ["reason": "\(reason)"])
        case .fewDescriptors(let limit, let wanted):
            logger.warning(
                "the limit of open files is below max-connections: raise LimitNOFILE or ulimit -n",
                metadata: ["limit": "\(limit)", "wanted": "\(wanted)"]
            )
        case .refused(let cause, let address):
            logger.warning(
                "refused packets or calls of no member, or one with other cluster keys",
                metadata: ["cause": "\(cause)", "address": "\(address)"]
            )
        case .control(let event): log(event)
        }
    }

    private func log(_ event: ControlEvent) {
        switch event {
        case .membership(let event): log(event)
        case .formed: logger.notice("formed a cluster")
        case .joinedExisting: logger.notice("joined a cluster")
        case .up: logger.notice("up: all slices learned")
        case .seeking(let text): logger.notice("not part of a cluster yet", metadata: ["reason": "\(text)"])
        case .leaseGained: logger.info("serving lease gained")
        case .leaseLost: logger.warning("serving lease lost: no majority of members answers")
        case .ringChanged(let hash, let members):
            logger.info("ring changed", metadata: ["ring": "\(hexadecimal(hash))", "members": "\(members)"])
        case .excluding(let name): logger.info("a copy is late", metadata: ["member": "\(name)"])
        case .excluded(let name):
            logger.warning("a copy is out of sync and must learn again", metadata: ["member": "\(name)"])
        case .tookOver(let name, let slices):
            logger.warning("took slices over", metadata: ["member": "\(name)", "slices": "\(slices)"])
        case .startedEmpty(let slices):
            logger.notice("started slices that nobody held", metadata: ["slices": "\(slices)"])
        case .drainStarted(let slices): logger.notice("draining", metadata: ["slices": "\(slices)"])
        case .drainCancelled: logger.notice("drain cancelled")
        case .drained: logger.notice("drained")
        case .handingOver(let slices): logger.notice("handing over", metadata: ["slices": "\(slices)"])
        case .stalled(let milliseconds):
            logger.warning("the process stood still", metadata: ["milliseconds": "\(milliseconds)"])
        case .renounced(let members, let slices):
            logger.error(
                "most members restarted at once and forgot what they had recorded: all that this node had is given up, slices start empty",
                metadata: ["members": "\(members.joined(separator: ", "))", "slices": "\(slices)"]
            )
        case .unprovable(let name, let slices):
            logger.warning(
                "copies could not be proven in sync",
                metadata: ["member": "\(name)", "slices": "\(slices)"]
            )
        }
    }

    private func log(_ event: MembershipEvent) {
        switch event {
        case .joined(let record):
            logger.notice(
                "member joined",
                metadata: ["member": "\(record.name)", "id": "\(record.id)", "cluster": "\(record.cluster)"]
            )
        case .suspected(_, let name, _): logger.info("member suspected", metadata: ["member": "\(name)"])
        case .refuted(_, let name): logger.info("member is alive", metadata: ["member": "\(name)"])
        case .down(_, let name): logger.warning("member is down", metadata: ["member": "\(name)"])
        case .left(_, let name): logger.notice("member left", metadata: ["member": "\(name)"])
        case .forgotten(_, let name): logger.notice("member forgotten", metadata: ["member": "\(name)"])
        case .refutedOwn: logger.info("refuted a suspicion of this node")
        case .rejectedCluster(let name, let endpoint):
            logger.warning(
                "a node of another cluster called",
                metadata: ["cluster-name": "\(name)", "endpoint": "\(endpoint)"]
            )
        case .configurationDiffers(let name, let endpoint, let difference):
            logger.error(
                "settings that must be equal differ",
                metadata: ["member": "\(name)", "endpoint": "\(endpoint)", "difference": "\(difference)"]
            )
        case .rejectedName(let name, let endpoint):
            logger.warning(
                "a node was refused: its name is taken",
                metadata: ["name": "\(name)", "endpoint": "\(endpoint)"]
            )
        case .damped(_, let name):
            logger.notice(
                "member stays out of the ring for a while: it was given up before",
                metadata: ["member": "\(name)"]
            )
        case .undamped(_, let name):
            logger.notice("member may come back into the ring", metadata: ["member": "\(name)"])
        case .braked(let lost, let ringSize):
            logger.warning(
                "nobody is taken out of the ring for now: 'henge brake release' does it at once",
                metadata: [
                    "reason": lost.isEmpty
                        ? "this node is not well"
                        : "\(lost.joined(separator: ", ")) of \(ringSize) members went at once"
                ]
            )
        case .brakeEnded(let end):
            logger.notice("members that are down leave the ring again", metadata: ["reason": "\(end)"])
        case .stalled(let milliseconds):
            logger.warning("gossip stood still", metadata: ["milliseconds": "\(milliseconds)"])
        case .datagramsBlocked(let name, let endpoint):
            logger.warning(
                "UDP does not pass, only TCP: open the cluster port for both, or say --gossip tcp on all nodes",
                metadata: ["member": "\(name ?? "-")", "endpoint": "\(endpoint)"]
            )
        case .datagramsPass(let name, let endpoint):
            logger.notice("UDP passes again", metadata: ["member": "\(name ?? "-")", "endpoint": "\(endpoint)"])
        case .keysChanged(let ids): logger.notice("cluster keys changed", metadata: ["keys": "\(ids)"])
        }
    }
}
