import ClusterCore

/// One seed as the operator wrote it.
struct Seed: Sendable {
    var host: HostAndPort
    /// Nil until a name is resolved for the first time.
    var addresses: [Endpoint]?
    /// When to resolve again; never for an address.
    var nextResolve: Instant
}

/// An address where a member may be: a seed's, or a remembered peer's.
struct SeedContact: Sendable {
    let endpoint: Endpoint
    var isSeed: Bool
    let isRemembered: Bool
    /// Tells which hello an answer belongs to.
    let nonce: UInt32
    /// The node itself, by its address or by the echo of its own hello.
    var isSelf: Bool
    var nextTry: Instant
    var backoffMilliseconds: UInt64
    var answer: SeedAnswer?
    var foreignCluster: String?
    /// Who answered there as a member since this node is one.
    var memberName: String?
}

/// What a contact said last.
struct SeedAnswer: Sendable {
    var record: MemberRecord
    var at: Instant
    var joined: Bool
    var seesMe: Bool
    var seedListHash: UInt64
}

/// Where a node looks for its cluster, and what it found there.
struct SeedContacts: Sendable {
    private(set) var seeds: [Seed]
    var contacts: [SeedContact] = []
    /// Endpoints of others that seek and are in no list here; told as soon as this node is part of a cluster.
    private(set) var waiting: [Endpoint] = []
    var nextLostRetry: Instant
    /// When the conditions for forming were last looked at; nil before the first time.
    var evaluated: Instant?

    private let own: Endpoint
    private let limit: Int
    /// The nonce of hellos that answer an invitation.
    let invitationNonce: UInt32
    private var nextNonce: UInt32

    /// `firstNonce`: from 1, another one in each life of the node, lest answers to an earlier one be taken for its own.
    init(
        seeds: [HostAndPort],
        remembered: [Endpoint],
        own: Endpoint,
        limit: Int,
        firstNonce: UInt32,
        now: Instant
    ) {
        self.own = own
        self.limit = limit
        self.seeds = []
        self.nextLostRetry = now
        self.invitationNonce = firstNonce
        self.nextNonce = firstNonce + 1
        for host in seeds where !self.seeds.contains(where: { $0.host == host }) && self.seeds.count < limit {
            if let address = IPAddress(host.host) {
                let endpoint = Endpoint(address, port: host.port)
                self.seeds.append(Seed(host: host, addresses: [endpoint], nextResolve: .distantFuture))
                addContact(endpoint, isSeed: true, isRemembered: false, now: now)
            } else {
                self.seeds.append(Seed(host: host, addresses: nil, nextResolve: now))
            }
        }
        for endpoint in remembered where endpoint != own {
            addContact(endpoint, isSeed: false, isRemembered: true, now: now)
        }
    }

    var hasRemembered: Bool { contacts.contains { $0.isRemembered } }

    /// Seeds that are only this node, or none: the remembered peers stand for the list then.
    var isAloneInList: Bool {
        seeds.allSatisfy { $0.addresses?.isEmpty == false } && contacts.allSatisfy { !$0.isSeed || $0.isSelf }
    }

    var unresolvedCount: Int { seeds.count { $0.addresses?.isEmpty ?? true } }

    var nextDeadline: Instant {
        var deadline = Instant.distantFuture
        for seed in seeds { deadline = min(deadline, seed.nextResolve) }
        for contact in contacts where !contact.isSelf { deadline = min(deadline, contact.nextTry) }
        return deadline
    }

    mutating func scheduleResolve(_ index: Int, at next: Instant) { seeds[index].nextResolve = next }

    /// Takes a name's addresses; those that are no seed's any more are dropped, answers at the others kept.
    mutating func resolved(_ host: HostAndPort, to addresses: [Endpoint], now: Instant) {
        guard let index = seeds.firstIndex(where: { $0.host == host }), IPAddress(host.host) == nil else { return }
        // A failed look-up says nothing about addresses that were good before.
        if addresses.isEmpty && seeds[index].addresses != nil { return }
        seeds[index].addresses = Array(addresses.prefix(limit))
        let wanted = seeds.flatMap { $0.addresses ?? [] }
        for index in contacts.indices where contacts[index].isSeed {
            contacts[index].isSeed = wanted.contains(contacts[index].endpoint)
        }
        contacts.removeAll { !$0.isSeed && !$0.isRemembered }
        for endpoint in wanted { addContact(endpoint, isSeed: true, isRemembered: false, now: now) }
    }

    private mutating func addContact(_ endpoint: Endpoint, isSeed: Bool, isRemembered: Bool, now: Instant) {
        if let index = contacts.firstIndex(where: { $0.endpoint == endpoint }) {
            if isSeed { contacts[index].isSeed = true }
            return
        }
        guard contacts.count < limit else { return }
        // The own host name often resolves to a loopback address.
        let isSelf =
            endpoint == own
            || (endpoint.address.isLoopback && !own.address.isLoopback && endpoint.port == own.port)
        contacts.append(
            SeedContact(
                endpoint: endpoint,
                isSeed: isSeed,
                isRemembered: isRemembered,
                nonce: nextNonce,
                isSelf: isSelf,
                nextTry: now,
                backoffMilliseconds: 0,
                answer: nil,
                foreignCluster: nil,
                memberName: nil
            )
        )
        nextNonce += 1
    }

    mutating func markSelf(nonce: UInt32) {
        for index in contacts.indices where contacts[index].nonce == nonce { contacts[index].isSelf = true }
    }

    mutating func noteMember(nonce: UInt32, name: String) {
        for index in contacts.indices where contacts[index].nonce == nonce { contacts[index].memberName = name }
    }

    mutating func wait(_ endpoint: Endpoint) {
        if waiting.contains(endpoint) { return }
        if waiting.count == limit { waiting.removeFirst() }
        waiting.append(endpoint)
    }

    mutating func takeWaiting() -> [Endpoint] {
        defer { waiting = [] }
        return waiting
    }

    // MARK: The list as all its nodes see it

    /// One address per node: this node's own and the answerers' by what they advertise, the silent ones' as written.
    var list: [Endpoint] {
        var endpoints: [Endpoint] = []
        for contact in contacts where contact.isSeed {
            let endpoint = contact.isSelf ? own : contact.answer?.record.cluster ?? contact.endpoint
            if !endpoints.contains(endpoint) { endpoints.append(endpoint) }
        }
        return endpoints.sorted()
    }

    /// Equal for equal lists; never 0 for a list.
    var listHash: UInt64 {
        if seeds.isEmpty { return 0 }
        var hash = KeyHash.mix(UInt64(unresolvedCount) &+ 1)
        for endpoint in list { hash = KeyHash.hash(Array(endpoint.description.utf8), seed: hash) }
        return hash | 1
    }
}
