//! Locks: flock on files under `locks/`, released by the kernel when their holder dies.
//!
//! Order: store (shared always, exclusive only to collect) → container → layer → names.

use std::os::fd::OwnedFd;

/// Shared with others of its kind, or alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Together with other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct Locked {
    _file: OwnedFd,
}
