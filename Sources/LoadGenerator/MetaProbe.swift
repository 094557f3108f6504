package import ClusterCore
import Glibc
import Reactor

/// Asks a server whether it speaks the meta commands.
package enum MetaProbe {
    /// Whether `mn` is answered with `MN`. Waits five seconds at most.
    package static func speaksMeta(_ endpoint: Endpoint) throws(LoadError) -> Bool {
        do throws(SystemError) {
            let descriptor = try Socket.connect(to: endpoint)
            defer { Socket.close(descriptor) }
            var wait = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            guard poll(&wait, 1, 5000) == 1 else { throw SystemError(.connect(endpoint), ETIMEDOUT) }
            try Socket.connectResult(descriptor, to: endpoint)
            let question: [UInt8] = [0x6d, 0x6e, 0x0d, 0x0a]
            guard send(descriptor, question, question.count, Int32(MSG_NOSIGNAL)) == question.count else {
                return false
            }
            wait.events = Int16(POLLIN)
            guard poll(&wait, 1, 5000) == 1 else { return false }
            var answer = [UInt8](repeating: 0, count: 64)
            return recv(descriptor, &answer, answer.count, 0) >= 2 && answer[0] == 0x4d && answer[1] == 0x4e
        } catch {
            throw LoadError("\(error)")
        }
    }
}
