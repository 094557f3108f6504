import Glibc

/// How many descriptors the process may have open.
package enum Descriptors {
    /// Raises the limit, as far as the process may, so that `wanted` descriptors can be open; never lowers it. Returns
    /// the limit that holds then.
    package static func raiseLimit(to wanted: Int) -> Int {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 0 }
        let target = rlim_t(clamping: wanted)
        guard limit.rlim_cur < target else { return Int(clamping: limit.rlim_cur) }
        // Who may raise the hard limit (root) gets it too.
        var raised = rlimit(rlim_cur: target, rlim_max: max(limit.rlim_max, target))
        if setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &raised) == 0 { return wanted }
        raised = rlimit(rlim_cur: min(limit.rlim_max, target), rlim_max: limit.rlim_max)
        if setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &raised) == 0 { limit = raised }
        return Int(clamping: limit.rlim_cur)
    }
}
