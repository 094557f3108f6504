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

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let deque: Target.Dependency = .product(name: "DequeModule", package: "swift-collections")
let histogram: Target.Dependency = .product(name: "Histogram", package: "hdrhistogram-swift")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let nioConcurrency: Target.Dependency = .product(name: "NIOConcurrencyHelpers", package: "swift-nio")
let nioCore: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioHTTP: Target.Dependency = .product(name: "NIOHTTP1", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let toml: Target.Dependency = .product(name: "TOMLKit", package: "TOMLKit")

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
    products: [
        .executable(name: "henge", targets: ["henge"])
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
    ],
    targets: [
        pure("ClusterCore"),
        pure("MemcacheProtocol", ["ClusterCore"]),
        .target(name: "CPrefetch"),
        pure("CacheStore", ["CPrefetch", "ClusterCore"]),
        pure("HashRing", ["ClusterCore"]),
        pure("Membership", ["ClusterCore"]),
        pure("Sealing", ["ClusterCore", "Membership", crypto]),
        pure("PeerProtocol", ["ClusterCore", "Sealing"]),
        pure("Replication", ["ClusterCore", "PeerProtocol", deque]),
        pure(
            "CacheNode",
            [
                "CacheStore", "ClusterCore", "HashRing", "Membership", "MemcacheProtocol", "PeerProtocol",
                "Replication", "Sealing", deque,
            ]
        ),

        pure(
            "Simulation",
            [
                "CacheNode", "CacheStore", "ClusterCore", "Membership", "MemcacheProtocol", "PeerProtocol",
                "Replication",
                deque,
            ]
        ),
        pure("MembershipSimulation", ["ClusterCore", "Membership"]),
        .executableTarget(
            name: "henge-sim",
            dependencies: [
                "ClusterCore", "Membership", "MembershipSimulation", "PeerProtocol", "Simulation", argumentParser,
            ],
            swiftSettings: settings
        ),

        .target(name: "CLinux"),
        .systemLibrary(name: "CSystemd", pkgConfig: "libsystemd", providers: [.apt(["libsystemd-dev"])]),
        shell("Reactor", ["CLinux", "ClusterCore"]),
        shell(
            "NodeRuntime",
            [
                "CacheNode", "CacheStore", "ClusterCore", "Membership", "PeerProtocol", "Reactor", "Replication",
                "Sealing",
            ]
        ),
        shell("SystemdSupport", ["CSystemd", logging]),
        shell("Settings", ["ClusterCore", "Sealing", toml]),
        shell("AdminServer", ["ClusterCore", logging, nioConcurrency, nioCore, nioHTTP, nioPosix]),
        shell(
            "HengeCommands",
            ["AdminServer", "ClusterCore", "Sealing", "Settings", argumentParser, nioCore, nioHTTP, nioPosix]
        ),
        .executableTarget(
            name: "henge",
            dependencies: [
                "AdminServer", "CacheNode", "CacheStore", "ClusterCore", "HengeCommands", "Membership", "NodeRuntime",
                "PeerProtocol", "Reactor", "Replication", "Sealing", "Settings", "SystemdSupport", logging,
            ],
            swiftSettings: settings
        ),
        shell("LoadGenerator", ["CLinux", "ClusterCore", "Reactor", histogram]),
        .executableTarget(
            name: "henge-load",
            dependencies: ["ClusterCore", "LoadGenerator", argumentParser],
            swiftSettings: settings
        ),
        .executableTarget(
            name: "henge-store-bench",
            dependencies: [
                "CacheNode", "CacheStore", "ClusterCore", "LoadGenerator", "PeerProtocol", "Reactor", "Replication",
                argumentParser,
            ],
            swiftSettings: settings
        ),

        // Counts allocations and references on the hot path; linking CCounting replaces malloc, so nothing else does.
        .target(name: "CCounting", path: "Tests/CCounting"),
        .executableTarget(
            name: "HotPathProbe",
            dependencies: [
                "CCounting", "CacheNode", "CacheStore", "ClusterCore", "PeerProtocol", "Reactor", "Replication",
            ],
            path: "Tests/HotPathProbe",
            swiftSettings: settings
        ),

        tests("AdminServerTests", ["AdminServer", "ClusterCore", "HengeCommands", logging]),
        tests(
            "CacheNodeTests",
            ["CacheNode", "CacheStore", "ClusterCore", "Membership", "MemcacheProtocol", "PeerProtocol", "Replication"]
        ),
        tests("CacheStoreTests", ["CacheStore", "ClusterCore"]),
        tests("ClusterCoreTests", ["ClusterCore"]),
        tests("HashRingTests", ["ClusterCore", "HashRing"]),
        tests(
            "HengeCommandsTests",
            ["AdminServer", "ClusterCore", "HengeCommands", "Settings", argumentParser, logging]
        ),
        tests("LoadGeneratorTests", ["ClusterCore", "LoadGenerator", "Reactor", histogram]),
        tests("MembershipTests", ["ClusterCore", "Membership", "MembershipSimulation"]),
        tests("MemcacheProtocolTests", ["ClusterCore", "MemcacheProtocol"]),
        tests("PeerProtocolTests", ["ClusterCore", "PeerProtocol", "Sealing"]),
        tests("ReactorTests", ["ClusterCore", "Reactor"]),
        tests("ReplicationTests", ["ClusterCore", "PeerProtocol", "Replication"]),
        tests("SealingTests", ["ClusterCore", "Membership", "Sealing"]),
        tests("SettingsTests", ["ClusterCore", "Settings"]),
        tests("SimulationTests", ["CacheNode", "Membership", "PeerProtocol", "Simulation"]),
        tests("SystemdSupportTests", ["SystemdSupport", logging]),
        tests("TidyTests", []),
    ],
    cxxLanguageStandard: .cxx17
)
