//! Layering: how a stack of snapshots becomes one tree. Probed by really mounting, never remembered.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{Error, Stack, Store};

/// How a stack becomes one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Kernel overlay with `userxattr`.
    Overlay,
    /// Everything is copied (reflinked where the file system can).
    Copy,
}

/// A tree ready for use: a detached mount (`fsmount`/`open_tree`), which goes away with its last descriptor unless it
/// is moved into a mount namespace.
#[derive(Debug)]
pub struct Mounted {
    /// The root of the tree; usable as a directory descriptor and for `move_mount`.
    pub root: OwnedFd,
    /// How it was made.
    pub method: Method,
    /// Where changes land: the overlay's upper directory, or the whole copied tree.
    pub upper: Option<PathBuf>,
}

impl Store {
    /// Which method works here, by trying. `STRATE_LAYERING`/`--layering` can force one (passed in by the caller).
    ///
    /// # Errors
    /// When not even copying is possible.
    pub fn probe_layering(&self) -> Result<Method, Error> {
        todo!()
    }

    /// Mount a stack read-only.
    ///
    /// # Errors
    /// When the kernel refuses every method.
    pub fn mount_read_only(&self, stack: &Stack) -> Result<Mounted, Error> {
        let _ = stack;
        todo!()
    }

    /// Mount a stack with a place for changes: `dir/upper` and `dir/work` (overlay) or `dir/rootfs` (copy; an existing
    /// one is taken as it is) below `dir`. `volatile` skips every sync, for trees that a crash may lose.
    ///
    /// # Errors
    /// When the kernel refuses every method.
    pub fn mount_writable(&self, stack: &Stack, dir: &Path, volatile: bool) -> Result<Mounted, Error> {
        let _ = (stack, dir, volatile);
        todo!()
    }

    /// A private directory for a build step's changes, on the store's file system, removed when dropped by the guard.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch_dir(&self) -> Result<tempfile::TempDir, Error> {
        todo!()
    }
}
