//! A tree of changes becomes a layer's tar stream.

use std::io::Write;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::{Error, Owner};

/// How to write a layer.
#[derive(Clone, Copy)]
pub struct DiffOptions<'a> {
    /// The true owner of a path in the layers below or in this tree, where the disk does not tell it.
    pub owner: &'a dyn Fn(&Path) -> Option<Owner>,
    /// Paths (relative) to leave out although they are there: mount stubs.
    pub skip: &'a dyn Fn(&Path) -> bool,
    /// Whether a name exists in the layers below, so that a whiteout for it is needed. Whiteouts of names that were
    /// never below are left out.
    pub below: &'a dyn Fn(&Path) -> bool,
}

impl std::fmt::Debug for DiffOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DiffOptions")
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffStats {
    /// Entries of the tar, whiteouts included.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
}

/// Write the upper directory of an overlay as a layer tar: sorted, deterministic, overlay whiteouts as `.wh.` files,
/// overlay attributes dropped.
///
/// # Errors
/// When the tree cannot be read or the stream not be written.
pub fn write_upper(
    _upper: BorrowedFd<'_>,
    _out: &mut dyn Write,
    _options: &DiffOptions<'_>,
) -> Result<DiffStats, Error> {
    todo!()
}

/// Compare two whole trees and write what changed from `old` to `new` as a layer tar (the copy method has no upper).
///
/// # Errors
/// When a tree cannot be read or the stream not be written.
pub fn write_changes(
    _old: BorrowedFd<'_>,
    _new: BorrowedFd<'_>,
    _out: &mut dyn Write,
    _options: &DiffOptions<'_>,
) -> Result<DiffStats, Error> {
    todo!()
}
