package import ClusterCore

// Damping: who goes and comes again and again moves slices each time, so it has to wait before the ring takes it back,
// longer every time (the idea of route flap damping, RFC 2439).
//
// The ring must be the same everywhere, so the wait is not each observer's own: the owner says in its record that it is
// damped, together with the refutation that brings it back, and takes that back when the wait is over. All that know
// the record leave the member out. It is a settled member meanwhile: it has its vote, and asks holders for its clients.

/// What others say of this node that it has to answer: an accusation, or more than it ever said itself.
struct OwnWord: Sendable {
    var incarnation: UInt32
    var sequence: UInt32
    /// `alive` where it accuses of nothing.
    var liveness: Liveness
    var ageSeconds: UInt32

    init(_ record: MemberRecord, ageSeconds: UInt32) {
        incarnation = record.incarnation
        sequence = record.sequence
        liveness = record.liveness
        self.ageSeconds = ageSeconds
    }
}

/// What a node remembers of its own comings and goings.
struct FlapDamping: Sendable {
    /// How often the wait has doubled; falls by one for each calm interval.
    private(set) var steps = 0
    private var convictedAt: Instant?
    /// When the record says no longer that it is damped; nil while it does not.
    private(set) var until: Instant?
    private var wait: UInt64 = 0
    /// The end of the last stall in which the others may have given this node up, and its length.
    var stall: (endedAt: Instant, milliseconds: UInt64)?
    /// What is to be answered, and when.
    private(set) var word: (said: OwnWord, due: Instant)?
    /// When another member came back last that this node had given up.
    var othersReturnedAt: Instant?

    /// The others had given this node up; returns for how many milliseconds it waits if the ring had dropped it.
    mutating func convicted(_ now: Instant, _ configuration: MembershipConfiguration) -> UInt64 {
        if let convictedAt {
            let calm = now.milliseconds(since: convictedAt) / configuration.dampingCalmMilliseconds
            steps -= Int(min(UInt64(steps), calm))
        }
        convictedAt = now
        let doubled = configuration.dampingMilliseconds << UInt64(steps)
        // Beyond this, doubling changes nothing: the wait is at its most.
        if doubled < configuration.dampingMostMilliseconds { steps += 1 }
        return min(doubled, configuration.dampingMostMilliseconds)
    }

    mutating func begin(waiting milliseconds: UInt64, _ now: Instant) {
        wait = milliseconds
        until = now.advanced(byMilliseconds: milliseconds)
    }

    /// The wait begins anew: it is one for calm.
    mutating func stalled(milliseconds: UInt64, _ now: Instant) {
        stall = (now, milliseconds)
        if until != nil { until = now.advanced(byMilliseconds: wait) }
    }

    mutating func end() { until = nil }

    mutating func collect(_ other: OwnWord, _ due: Instant) {
        guard var said = word?.said else {
            word = (other, due)
            return
        }
        said.incarnation = max(said.incarnation, other.incarnation)
        said.sequence = max(said.sequence, other.sequence)
        said.liveness = max(said.liveness, other.liveness)
        said.ageSeconds = max(said.ageSeconds, other.ageSeconds)
        word?.said = said
    }

    mutating func takeWord(dueBy now: Instant) -> OwnWord? {
        guard let word, word.due <= now else { return nil }
        self.word = nil
        return word.said
    }
}

extension Membership {
    /// For so long after a member came back, or this node woke, an accusation is put down to that.
    private static let absenceMemoryMilliseconds: UInt64 = 10_000

    /// When this node answers what others say of it; nil: at once.
    ///
    /// On waking from a stall so long that it may be out of the ring, a node first finds what was said when it fell
    /// asleep, that it is suspect. To refute that would bring it back undamped, so it listens for a moment.
    func answerDue(_ now: Instant) -> Instant? {
        if let word = damping.word { return word.due }
        let listening = configuration.probeIntervalMilliseconds / 4
        var stall = latenessNanoseconds / 1_000_000
        if let last = damping.stall, now.milliseconds(since: last.endedAt) < listening {
            stall = max(stall, last.milliseconds)
        }
        let isLong = stall >= suspicionMilliseconds + configuration.ringAbsenceMilliseconds
        return isLong ? now.advanced(byMilliseconds: listening) : nil
    }

    /// The others have given this node up, for `ageSeconds` by the word of whoever says so. Called before the own
    /// incarnation rises, so that one statement refutes and damps.
    mutating func dampIfAway(ageSeconds: UInt32, now: Instant, effects: inout [MembershipEffect]) {
        guard configuration.dampingMilliseconds > 0 else { return }
        let wait = damping.convicted(now, configuration)
        // What a node finds on waking was said when it fell asleep: the time since then counts too.
        let stall = recentStallMilliseconds(now)
        let absence = max(UInt64(ageSeconds) * 1000, stall - min(stall, suspicionMilliseconds))
        // Whom the ring still has is not taken out of it for coming back.
        let isOut = own.lifecycle == .up && absence >= configuration.ringAbsenceMilliseconds
        guard own.isDamped || (isOut && wasAway(now)) else { return }
        damping.begin(waiting: wait, now)
        guard !own.isDamped else { return }
        own.isDamped = true
        own.sequence += 1
        statistics.dampings &+= 1
        effects.append(.event(.damped(own.id, name: own.name)))
    }

    /// Whether it was this node that was away, and not those who gave it up: after a split both sides say that of each
    /// other, and only one of them may leave the ring.
    private func wasAway(_ now: Instant) -> Bool {
        if isUnwell || recentStallMilliseconds(now) > 0 { return true }
        var members = 1
        var living = 1
        var first = (id: own.id, isLiving: true)
        for index in table.peers.indices {
            let record = table.peers[index].record
            if record.isTombstone { continue }
            members += 1
            if record.isLiving { living += 1 }
            if record.id < first.id { first = (record.id, record.isLiving) }
        }
        // Nobody else was away: only the others saw this node go.
        let hasReturned = damping.othersReturnedAt.map { isRecent($0, now) } ?? false
        if living == members, !hasReturned { return true }
        return 2 * living == members ? !first.isLiving : 2 * living < members
    }

    private func isRecent(_ moment: Instant, _ now: Instant) -> Bool {
        now.milliseconds(since: moment) < Self.absenceMemoryMilliseconds
    }

    /// The length of a stall that ends now or ended lately, if the others may have given this node up in it; else 0.
    private func recentStallMilliseconds(_ now: Instant) -> UInt64 {
        let lateness = latenessNanoseconds / 1_000_000
        if lateness >= suspicionMilliseconds { return lateness }
        return damping.stall.map { isRecent($0.endedAt, now) ? $0.milliseconds : 0 } ?? 0
    }

    mutating func advanceDamping(to now: Instant, effects: inout [MembershipEffect]) {
        if let word = damping.takeWord(dueBy: now) { answer(word, now: now, effects: &effects) }
        guard let until = damping.until, until <= now else { return }
        damping.end()
        own.isDamped = false
        own.sequence += 1
        hasChanged = true
        effects.append(.event(.undamped(own.id, name: own.name)))
        tell(own.id, now: now)
    }

    // MARK: The ring's members

    /// The members that the ring is made of, by id: those that are up or join, and are neither damped nor down for
    /// longer than `ringAbsenceMilliseconds`. A joiner that is down has nothing to come back to.
    ///
    /// Damping counts only while most are not damped: a cluster that was down as a whole comes back at once.
    ///
    /// - Parameter isKept: whether a settled member stays although it is down or damped.
    package func ringMembers(now: Instant, isKept: (NodeID) -> Bool = { _ in false }) -> [MemberRecord] {
        var present: [MemberRecord] = []
        var damped = 0
        func add(_ record: MemberRecord) {
            if record.isDamped { damped += 1 }
            present.append(record)
        }
        let isOwnIn = own.lifecycle == .up || own.lifecycle == .joining
        var isOwnAdded = !isOwnIn
        for index in table.peers.indices {
            let record = table.peers[index].record
            if !isOwnAdded, record.id > own.id {
                add(own)
                isOwnAdded = true
            }
            guard !record.isTombstone, record.lifecycle == .up || record.lifecycle == .joining else { continue }
            if record.liveness == .down {
                if record.lifecycle == .joining { continue }
                let absence = table.peers[index].lost.map { now.milliseconds(since: $0) } ?? 0
                if absence >= configuration.ringAbsenceMilliseconds, !isKept(record.id) { continue }
            }
            add(record)
        }
        if !isOwnAdded { add(own) }
        if damped == 0 || 2 * damped >= present.count { return present }
        return present.filter { !$0.isDamped || isKept($0.id) }
    }

    /// When a member went down, by this node's clock; nil where it is not down.
    package func downSince(_ id: NodeID) -> Instant? { table[id]?.lost }

    /// So many probes went unanswered that this node is more probably the cause.
    package var isUnwell: Bool { health >= configuration.unwellHealth }

    /// The least time from suspicion to `down`, in milliseconds.
    package var suspicionMilliseconds: UInt64 {
        Suspicion.leastMilliseconds(members: table.memberCount + 1, configuration: configuration)
    }
}
