//! A tree of changes becomes a layer's tar stream.
//!
//! Of the extended attributes only `security.capability` is written, as BuildKit does: access control lists and labels
//! belong to a host, and what overlayfs keeps in `user.overlay.*` (also escaped, as `user.overlay.overlay.*`) must not
//! reach an image. The root itself is not written, nor are sockets, which mean nothing without their process.

mod changes;
mod scribe;

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use self::changes::Comparer;
use self::scribe::{Scribe, open_dir};
use super::tar::Entry;
use super::whiteout::{self, Marked};
use super::{Error, Owner};
use crate::sys::tree::{self, DirName};
use crate::sys::{RootDir, SysError};

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
    /// Bytes that files and directories take on disk, in whole blocks.
    pub disk: u64,
    /// The highest id of an owner, users and groups.
    pub highest_id: u32,
}

/// Write the upper directory of an overlay as a layer tar: sorted, deterministic, overlay whiteouts as `.wh.` files,
/// overlay attributes dropped.
///
/// # Errors
/// When the tree cannot be read or the stream not be written.
pub fn write_upper(
    upper: BorrowedFd<'_>,
    out: &mut dyn Write,
    options: &DiffOptions<'_>,
) -> Result<DiffStats, Error> {
    walk(RootDir::new(upper), Scribe::new(out, options))
}

/// Write a whole tree as a tar, without its root. `owner` is as in [`DiffOptions`]; `edit` may change each entry.
///
/// # Errors
/// When the tree cannot be read or the stream not be written.
pub fn write_tree(
    root: BorrowedFd<'_>,
    out: &mut dyn Write,
    owner: &dyn Fn(&Path) -> Option<Owner>,
    edit: &dyn Fn(&mut Entry),
) -> Result<DiffStats, Error> {
    let options = DiffOptions { owner, skip: &|_| false, below: &|_| false };
    let mut scribe = Scribe::new(out, &options);
    scribe.edit = Some(edit);
    walk(RootDir::new(root), scribe)
}

/// Write what has a name in a directory, with all that is in it, as a tar. In the archive it is called `.` and what is in
/// it goes without a prefix, where `edit` does not say otherwise. A last link is not followed. What `skip` takes is left
/// out, and so is what somebody else removes meanwhile.
///
/// # Errors
/// As [`write_tree`].
pub fn write_name(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    out: &mut dyn Write,
    skip: &dyn Fn(&Path) -> bool,
    edit: &dyn Fn(&mut Entry),
) -> Result<DiffStats, Error> {
    let options = DiffOptions { owner: &|_| None, skip, below: &|_| false };
    let mut scribe = Scribe::new(out, &options);
    scribe.edit = Some(edit);
    scribe.live = true;
    let (name, top) = (if name.is_empty() { OsStr::new(".") } else { name }, Path::new("."));
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| SysError::path("stat", Path::new(name), errno))?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
        scribe.leaf(dir, name, top, &stat)?;
        return scribe.finish();
    }
    let inner = scribe::open_dir(dir, name, Path::new(name))?;
    scribe.directory(top, &stat)?;
    walk(RootDir::new(inner.as_fd()), scribe)
}

fn walk(root: RootDir<'_>, mut scribe: Scribe<'_, '_>) -> Result<DiffStats, Error> {
    // A stack of our own: how deep a tree goes is not ours to decide.
    let mut stack = vec![Level::new(root.open_dir("")?, PathBuf::new(), &mut scribe)?];
    while let Some(level) = stack.last_mut() {
        let Some(entry) = level.names.next() else {
            stack.pop();
            continue;
        };
        let taken = match level.take(root, &entry.name, &mut scribe) {
            // Opening comes before the first byte of an entry.
            Err(Error::Sys(error)) if scribe.live && error.errno() == Some(libc::ENOENT) => None,
            taken => taken?,
        };
        if let Some(inner) = taken {
            if stack.len() > HELD_DEPTH
                && let Some(level) = stack.last_mut()
            {
                level.dir = None;
            }
            stack.push(inner);
        }
    }
    scribe.finish()
}

/// Compare two whole trees and write what changed from `old` to `new` as a layer tar (the copy method has no upper).
///
/// A file counts as changed when its type, mode, owner, size, change time (in nanoseconds), device numbers or
/// capability differ, a link when its target does. Content is not read: what changes it changes the time, and a time
/// that changed alone belongs into the layer too, as with an overlay. `options.below` is not asked, as `old` tells.
///
/// # Errors
/// When a tree cannot be read or the stream not be written.
pub fn write_changes(
    old: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
    out: &mut dyn Write,
    options: &DiffOptions<'_>,
) -> Result<DiffStats, Error> {
    Comparer::new(old, new, Scribe::new(out, options)).run()
}

/// So many levels keep their directory open; deeper ones open it again by path, so that no depth uses up descriptors.
const HELD_DEPTH: usize = 128;

/// A directory that is being read.
struct Level {
    path: PathBuf,
    dir: Option<OwnedFd>,
    mark: Marked,
    names: std::vec::IntoIter<DirName>,
}

impl Level {
    fn new(dir: OwnedFd, path: PathBuf, scribe: &mut Scribe<'_, '_>) -> Result<Self, Error> {
        let mark = whiteout::marked(&dir)?;
        if mark == Marked::Opaque && (scribe.options.below)(&path) {
            scribe.opaque(&path)?;
        }
        let names = tree::sorted_names(&dir)?.into_iter();
        Ok(Self { path, dir: Some(dir), mark, names })
    }

    /// Write a name of this directory; a directory is given back to be entered.
    fn take(
        &mut self,
        root: RootDir<'_>,
        name: &OsStr,
        scribe: &mut Scribe<'_, '_>,
    ) -> Result<Option<Self>, Error> {
        let path = self.path.join(name);
        if (scribe.options.skip)(&path) {
            return Ok(None);
        }
        let dir = match self.dir.take() {
            Some(dir) => dir,
            None => scribe::reopen(root, &self.path)?,
        };
        let dir = &*self.dir.insert(dir);
        let dir = dir.as_fd();
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| SysError::path("stat", &path, errno))?;
        if whiteout::is_whiteout(dir, name, &stat, self.mark)? {
            // In an opaque directory nothing is left to delete.
            if self.mark != Marked::Opaque && (scribe.options.below)(&path) {
                scribe.whiteout(&path)?;
            }
            return Ok(None);
        }
        if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
            scribe.leaf(dir, name, &path, &stat)?;
            return Ok(None);
        }
        let inner = open_dir(dir, name, &path)?;
        scribe.directory(&path, &stat)?;
        Self::new(inner, path, scribe).map(Some)
    }
}

#[cfg(test)]
mod tests;
