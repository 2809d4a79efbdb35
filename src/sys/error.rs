//! One shape for a failed system call: what was tried, on what, and why it failed.

use std::io;

/// A failed system call.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {subject}")]
pub struct SysError {
    /// What was tried, as a verb: `open`, `mount`, `set the group list of`.
    pub operation: &'static str,
    /// What it was tried on, quoted when it is a path.
    pub subject: String,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// The result of a wrapper in [`crate::sys`].
pub type SysResult<T> = Result<T, SysError>;

impl SysError {
    /// Describe a failed call.
    pub fn new(operation: &'static str, subject: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { operation, subject: subject.into(), source: source.into() }
    }

    /// Describe a failed call on a path.
    pub fn path(
        operation: &'static str,
        path: impl AsRef<std::path::Path>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::new(operation, format!("`{}`", path.as_ref().display()), source)
    }

    /// The kernel's error number, when there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}
