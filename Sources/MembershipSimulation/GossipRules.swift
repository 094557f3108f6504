package import Membership

/// Whose rules the simulated members follow.
package enum GossipRules: String, CaseIterable, Sendable {
    /// This project's defaults.
    case henge
    /// As far as parameters go, those of hashicorp/memberlist's `DefaultLANConfig`: probes each second, gossip to three
    /// every 200 ms with 4·⌈log10(N+1)⌉ transmits, no direct telling, no pull where hashes differ.
    case memberlist
    /// This project's without what Lifeguard adds to SWIM: no local health, of its own slowness neither, no word to the
    /// accused with the ping, and suspicions that last as long as a confirmed one does here.
    case swim

    package var configuration: MembershipConfiguration {
        var configuration = MembershipConfiguration()
        switch self {
        case .henge: break
        case .memberlist:
            configuration.probeIntervalMilliseconds = 1000
            configuration.directTimeoutMilliseconds = 500
            configuration.probeEndMilliseconds = 1000
            configuration.directMembersMax = 0
            configuration.gossipIntervalMilliseconds = 200
            configuration.gossipTransmitsMin = 1
            configuration.gossipDatagramsMax = 1
            configuration.pacedGossipItemsMax = 0
            configuration.suspicionConfirmations = 3
            configuration.pullsPerSecond = 0
            configuration.pullsBurst = 0
            configuration.dampingMilliseconds = 0
        case .swim:
            configuration.healthMax = 0
            configuration.suspicionConfirmations = 0
            configuration.suspicionMostFactor = 1
            configuration.ablations = [.buddy, .ownSlowness]
        }
        return configuration
    }
}
