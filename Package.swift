// swift-tools-version: 6.2

import PackageDescription

// Targets are of two kinds. *Pure* ones decide: no sockets, clocks, threads, locks, logs or randomness of their own;
// Tests/TidyTests holds them to it. *Shells* own the world and decide nothing. Arrows point from shells to pure
// targets only; ARCHITECTURE.md shows them.

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .enableUpcomingFeature("InferIsolatedConformances"),
    .enableUpcomingFeature("ImmutableWeakCaptures"),
    .treatAllWarnings(as: .error),
    // A dependency's rename must not stop the build.
    .treatWarning("DeprecatedDeclaration", as: .warning),
]

let deque: Target.Dependency = .product(name: "DequeModule", package: "swift-collections")

func pure(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func shell(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: settings)
}

let package = Package(
    name: "henge",
    dependencies: [
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0")
    ],
    targets: [
        pure("ClusterCore"),
        pure("MemcacheProtocol", ["ClusterCore"]),
        pure("CacheStore", ["ClusterCore"]),
        pure("HashRing", ["ClusterCore"]),
        pure("Membership", ["ClusterCore"]),
        pure("PeerProtocol", ["ClusterCore"]),
        pure("Replication", ["ClusterCore", "PeerProtocol", deque]),
        pure(
            "CacheNode",
            [
                "CacheStore", "ClusterCore", "HashRing", "Membership", "MemcacheProtocol", "PeerProtocol",
                "Replication", deque,
            ]
        ),

        pure(
            "Simulation",
            [
                "CacheNode", "CacheStore", "ClusterCore", "Membership", "MemcacheProtocol", "PeerProtocol", "Replication",
                deque,
            ]
        ),
        .executableTarget(name: "henge-sim", dependencies: ["Simulation"], swiftSettings: settings),

        .target(name: "CLinux"),
        shell("Reactor", ["CLinux", "ClusterCore"]),

        tests("ClusterCoreTests", ["ClusterCore"]),
        tests("CacheStoreTests", ["CacheStore", "ClusterCore"]),
        tests("HashRingTests", ["ClusterCore", "HashRing"]),
        tests("MemcacheProtocolTests", ["ClusterCore", "MemcacheProtocol"]),
        tests("ReactorTests", ["ClusterCore", "Reactor"]),
        tests("SimulationTests", ["Simulation"]),
    ]
)
