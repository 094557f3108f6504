import Membership

/// A rule that is switched off, and the invariant that a campaign without it must break: a check that never fails is
/// none.
package enum GossipControl: String, CaseIterable, Sendable {
    case noRefutation = "refutation off"
    case noRepair = "hash pull and backstop off, one transmit"
    /// They are kept just long enough to be looked at.
    case noTombstones = "no tombstones"
    case clockAsGeneration = "wall clock as order"
    case lostGeneration = "generation not stored"
    case deadEvidenceDropped = "death evidence not raising the maximum"
    case oneTupleMerge = "one-tuple merge"
    case noMajority = "forming without majority"
    case anyCluster = "cluster name not looked at"

    /// All of them are broken within `seedsMax` seeds.
    package var invariants: [GossipCampaign.Invariant] {
        switch self {
        case .noRefutation: [.wrongView]
        case .noRepair: [.noAgreement]
        case .noTombstones: [.tombstoneUndone, .ghost]
        case .clockAsGeneration: [.wrongView]
        case .lostGeneration: [.wrongView]
        case .deadEvidenceDropped: [.knowledgeFell]
        case .oneTupleMerge: [.ghost]
        case .noMajority: [.clustersMixed]
        case .anyCluster: [.strangerHeard, .clustersMixed]
        }
    }

    package static let seedsMax: UInt64 = 200

    package func campaign(seed: UInt64, only: Set<Int>? = nil, isLogging: Bool = false) -> GossipCampaign {
        GossipCampaign(
            seed: seed,
            count: count(seed),
            configuration: configuration,
            generations: generations,
            only: only,
            isLogging: isLogging
        )
    }

    /// Small clusters: they show as much, and sooner.
    package func count(_ seed: UInt64) -> Int { [5, 9, 3, 16][Int(seed % 4)] }

    private var configuration: MembershipConfiguration {
        var configuration = MembershipConfiguration()
        switch self {
        case .noRefutation: configuration.ablations = .refutation
        case .noRepair:
            configuration.updateTriesMax = 1
            configuration.gossipTransmitsMin = 1
            configuration.pullsPerSecond = 0
            configuration.pullsBurst = 0
            configuration.fullExchangeIntervalMilliseconds = 1 << 40
        case .noTombstones: configuration.tombstoneMilliseconds = 2000
        case .clockAsGeneration, .lostGeneration: break
        case .deadEvidenceDropped: configuration.ablations = .evidenceAboutTheDead
        case .oneTupleMerge: configuration.ablations = .mergeByHalves
        case .noMajority: configuration.ablations = .majorityToForm
        case .anyCluster: configuration.ablations = .clusterName
        }
        return configuration
    }

    private var generations: GossipCampaign.Generations {
        switch self {
        case .clockAsGeneration: .wallClock
        case .lostGeneration: .lost
        default: .stored
        }
    }
}
