//! Floor 2: images on local disk. The layout is in `doc/storage.md`; paths are made in `layout.rs` and locks are taken
//! in `lock.rs`, nowhere else.
//!
//! The store is an OCI image layout with a cache of unpacked layers beside it. Every write is private first, then
//! synced, then renamed to its name, then named by `index.json`: a kill at any instant leaves the old state or the new.

mod blobs;
mod commit;
mod containers;
mod error;
mod format;
mod gc;
mod images;
mod layering;
mod layout;
mod lock;
mod sink;
mod snapshots;

pub use blobs::BlobWriter;
pub use commit::CommitOptions;
pub use containers::{ContainerDir, ContainerRecord, ContainerState, Status};
pub use error::Error;
pub use gc::{Collected, PruneImages, Removed};
pub use images::{Image, ImageRecord};
pub use layering::{Method, Mounted};
pub use lock::{LockMode, Locked};
pub use snapshots::{Snapshot, Stack};

use std::path::{Path, PathBuf};

/// What the process that opens the store can do with it.
#[derive(Debug, Clone, Copy)]
pub struct Abilities {
    /// Ids below this number can be given to files (the size of the id map; `u32::MAX` when root outside a namespace).
    pub mapped_ids: u32,
    /// Whether layers are unpacked when they arrive. False outside any namespace without root: blobs are kept, and the
    /// first command that needs the files unpacks them.
    pub unpack: bool,
}

/// An open store.
///
/// Opened for reading it takes no lock and creates nothing. Opened for writing it holds the store lock shared until it
/// is dropped, so that a collector waits.
#[derive(Debug)]
pub struct Store {
    layout: layout::Layout,
    abilities: Option<Abilities>,
    _lock: Option<Locked>,
}

impl Store {
    /// Open for reading. A store that does not exist yet is an empty one.
    ///
    /// # Errors
    /// When the store exists but cannot be read, or its format is newer than this binary.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let _ = root;
        todo!()
    }

    /// Open for writing, creating the store when it is not there.
    ///
    /// # Errors
    /// When it cannot be created or written, belongs to another user, or its format is newer than this binary.
    pub fn open_writable(root: &Path, abilities: Abilities) -> Result<Self, Error> {
        let _ = (root, abilities);
        todo!()
    }

    /// Where the store lies.
    pub fn root(&self) -> PathBuf {
        todo!()
    }
}
