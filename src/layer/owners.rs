//! Owners that the disk cannot hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The true owner, mode and kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits with set-id and sticky, and the file type bits (`st_mode`).
    pub mode: u32,
    /// Device numbers (`st_rdev`) for device nodes that stand on disk as an empty file, else 0.
    pub rdev: u64,
}

/// True owners by path (relative, no leading `./`), for the entries whose disk state differs from what the layer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerTable {
    entries: BTreeMap<PathBuf, Owner>,
}

impl OwnerTable {
    /// The true owner of an entry, when the disk does not tell it.
    #[must_use]
    pub fn get(&self, path: &Path) -> Option<Owner> {
        self.entries.get(path).copied()
    }

    /// Remember the true owner of an entry.
    pub fn insert(&mut self, path: PathBuf, owner: Owner) {
        self.entries.insert(path, owner);
    }

    /// Forget an entry, when the disk is right after all or the entry is gone.
    pub fn remove(&mut self, path: &Path) {
        self.entries.remove(path);
    }

    /// Whether the disk tells the truth about every entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in path order.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, Owner)> {
        self.entries.iter().map(|(path, owner)| (path.as_path(), *owner))
    }
}
