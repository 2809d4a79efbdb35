//! A layer's tar stream becomes a snapshot.

use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use super::{Error, OwnerTable};

/// How to unpack.
#[derive(Debug, Clone, Copy)]
pub struct ApplyOptions {
    /// Ids below this number can be put on disk; others go to the [`OwnerTable`] and stand on disk as id 0.
    /// `u32::MAX` when every id can.
    pub mapped_ids: u32,
    /// At most this many entries.
    pub max_entries: u64,
    /// At most this many bytes of file content.
    pub max_bytes: u64,
}

/// What was unpacked.
#[derive(Debug, Default)]
pub struct Applied {
    /// Entries of the tar.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Directories that the tar uses but does not name: made 0755 root, to be given their metadata from below.
    pub implied: Vec<PathBuf>,
    /// Hard links (name, target) whose target is not in this layer: to be linked or copied from below.
    pub foreign_links: Vec<(PathBuf, PathBuf)>,
    /// What the disk could not hold.
    pub owners: OwnerTable,
}

impl Applied {
    /// Whether the layer's tar stands on its own: it names every directory and link target it uses.
    #[must_use]
    pub fn stands_alone(&self) -> bool {
        self.implied.is_empty() && self.foreign_links.is_empty()
    }
}

/// Unpack an uncompressed tar stream into the empty directory `root`. Nothing outside of it is touched, whatever the
/// archive says; the stream is read to its very end, so that a hash around it sees every byte.
///
/// # Errors
/// When the stream is not a valid tar, passes a limit, or the tree cannot be written.
pub fn apply(_tar: &mut dyn Read, _root: BorrowedFd<'_>, _options: &ApplyOptions) -> Result<Applied, Error> {
    todo!()
}
