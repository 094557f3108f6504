import ClusterCore
import MembershipSimulation
import Testing

@testable import Membership

@Suite struct `The ring's brake` {
    private static let window: UInt64 = 4000

    /// A brake, and what it is shown.
    private struct Course {
        var brake = RingBrake(milliseconds: 30_000)
        var now = Instant(nanoseconds: 1 << 40)
        var found: [RingBrake.Trouble] = []

        mutating func wait(_ milliseconds: UInt64) { now = now.advanced(byMilliseconds: milliseconds) }

        mutating func lose(_ number: UInt64, _ liveness: Liveness = .suspect) {
            found.removeAll { $0.id.low == number }
            let record = MemberRecord(
                id: NodeID(high: 0, low: number),
                generation: 1,
                lifecycle: .up,
                liveness: liveness,
                name: "n\(number)",
                client: GossipSimulator.endpoint(1),
                cluster: GossipSimulator.endpoint(1),
                admin: GossipSimulator.endpoint(1)
            )
            found.append(RingBrake.Trouble(record, since: now))
            found.sort { $0.id < $1.id }
        }

        mutating func look(_ ringSize: Int, isUnwell: Bool = false, isDue: Bool = false) -> MembershipEvent? {
            brake.advance(
                found: found,
                ringSize: ringSize,
                isUnwell: isUnwell,
                isRemovalDue: isDue,
                windowMilliseconds: window,
                now: now
            )
        }
    }

    @Test(arguments: [
        (1, 1, false), (1, 2, false), (1, 3, false), (2, 3, true), (2, 5, true), (2, 6, false), (3, 9, false),
        (4, 9, true),
    ])
    func `two or more, and over a third, brake`(lost: Int, ringSize: Int, isBraked: Bool) {
        var course = Course()
        for number in 1...lost { course.lose(UInt64(number)) }
        let names = (1...lost).map { "n\($0)" }
        #expect(course.look(ringSize) == (isBraked ? .braked(lost: names, ringSize: ringSize) : nil))
        #expect((course.brake.engagement != nil) == isBraked)
    }

    @Test func `who goes one after the other does not go at once`() {
        var course = Course()
        course.lose(1)
        #expect(course.look(5) == nil)
        course.wait(3000)
        course.lose(1, .down)
        #expect(course.look(5) == nil)
        course.wait(Self.window + 1)
        course.lose(2)
        #expect(course.look(5) == nil)
        // But a suspicion that ripens beside another counts from there.
        course.wait(2000)
        course.lose(3)
        #expect(course.look(5) == .braked(lost: ["n2", "n3"], ringSize: 5))
    }

    @Test func `it ends half a minute after the first removal that it stopped, and not for the same members again`() {
        var course = Course()
        course.lose(1)
        course.lose(2)
        #expect(course.look(5) == .braked(lost: ["n1", "n2"], ringSize: 5))
        course.wait(25_000)
        course.lose(1, .down)
        course.lose(2, .down)
        #expect(course.look(5) == nil)
        #expect(course.brake.engagement?.until == nil)
        #expect(course.look(5, isDue: true) == nil)
        #expect(course.brake.engagement?.until == course.now.advanced(byMilliseconds: 30_000))
        course.wait(29_999)
        #expect(course.look(5, isDue: true) == nil)
        course.wait(1)
        #expect(course.look(5, isDue: true) == .brakeEnded(.elapsed))
        #expect(course.look(5, isDue: true) == nil)
        // Two more are news.
        course.lose(3)
        course.lose(4)
        #expect(course.look(5) == .braked(lost: ["n3", "n4"], ringSize: 5))
    }

    @Test func `it ends when all are back`() {
        var course = Course()
        course.lose(1)
        course.lose(2)
        #expect(course.look(4) != nil)
        course.found = []
        #expect(course.look(4) == .brakeEnded(.recovered))
        #expect(course.look(4) == nil)
    }

    @Test func `a suspicion that is refuted leaves one that died, who is not kept for it`() {
        var course = Course()
        course.lose(1, .down)
        course.lose(2)
        #expect(course.look(3) == .braked(lost: ["n1", "n2"], ringSize: 3))
        course.found.removeLast()
        #expect(course.look(3) == .brakeEnded(.recovered))
        course.wait(30_000)
        #expect(course.look(3, isDue: true) == nil)
    }

    @Test func `the operator's word holds until who was gone has come back and goes again`() {
        var course = Course()
        #expect(course.brake.release() == nil)
        course.lose(1)
        course.lose(2)
        #expect(course.look(4) != nil)
        #expect(course.brake.release() == .brakeEnded(.released))
        course.lose(1, .down)
        course.lose(2, .down)
        #expect(course.look(4, isDue: true) == nil)
        course.found = []
        #expect(course.look(4) == nil)
        course.lose(1)
        course.lose(2)
        #expect(course.look(4) == .braked(lost: ["n1", "n2"], ringSize: 4))
    }

    @Test func `a node that is not well removes nobody for half a minute, and once well, everybody`() {
        var course = Course()
        #expect(course.look(5, isUnwell: true) == nil)
        course.lose(1, .down)
        #expect(course.look(5, isUnwell: true) == nil)
        #expect(course.look(5, isUnwell: true, isDue: true) == .braked(lost: [], ringSize: 5))
        course.wait(30_000)
        #expect(course.look(5, isUnwell: true, isDue: true) == .brakeEnded(.elapsed))
        course.wait(10)
        #expect(course.look(5, isUnwell: true, isDue: true) == nil)
        #expect(course.look(5) == nil)
        course.lose(2, .down)
        #expect(course.look(5, isUnwell: true, isDue: true) == .braked(lost: [], ringSize: 5))
    }
}
