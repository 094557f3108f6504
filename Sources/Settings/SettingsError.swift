/// A setting that cannot be used. One line that says which, from where, what is wrong and what to do.
package struct SettingsError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }

    /// The same error with the place it was found at in front.
    func at(_ place: some CustomStringConvertible) -> SettingsError {
        SettingsError("\(place): \(description)")
    }
}
