//! Where files come from: a context in place, a stage, an image. A root that cannot be left, what is hidden in it, and
//! whom its files belong to.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};

use super::beneath::{self, Resolved, kind};
use crate::layer::Owner;

/// Decides what of a tree can be seen.
pub(super) trait Filter: Send + Sync {
    /// Whether a path (relative, no leading `/`) is left out.
    fn hides(&self, path: &Path) -> bool;
    /// Whether something below a directory that is left out may be let in again.
    fn may_show_below(&self, path: &Path) -> bool;
}

/// Gives the true owner of a path where the disk does not tell it.
pub(super) type OwnerLookup = Box<dyn Fn(&Path) -> Option<Owner> + Send + Sync>;

/// Whom the files belong to.
pub(super) enum Owners {
    /// Everything is root's: a local context.
    Root,
    /// As on disk, corrected by the lookup: a stage or an image.
    Kept(OwnerLookup),
}

/// A source of files.
pub(super) struct Tree {
    root: OwnedFd,
    owners: Owners,
    filter: Option<Box<dyn Filter>>,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("root", &self.root).finish_non_exhaustive()
    }
}

/// An entry of a directory.
#[derive(Debug)]
pub(super) struct Child {
    /// Its name.
    pub name: OsString,
    /// Its path from the root of the tree.
    pub path: PathBuf,
    /// What it is.
    pub stat: Stat,
    /// Left out itself, and here only for what below it may be let in.
    pub hidden: bool,
}

impl Tree {
    /// Everything below `root`.
    pub(super) fn new(root: OwnedFd, owners: Owners, filter: Option<Box<dyn Filter>>) -> Self {
        Self { root, owners, filter }
    }

    /// The root.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Follow a path inside the tree. What the filter hides is not there.
    pub(super) fn resolve(&self, path: &Path, follow_last: bool) -> io::Result<Resolved> {
        let mut found = beneath::resolve(self.root(), path, follow_last)?;
        if let Some(stat) = &found.stat
            && !self.shows(&found.path, kind(stat) == FileType::Directory)?
        {
            found.stat = None;
        }
        Ok(found)
    }

    /// Open a path that [`Tree::resolve`] gave, for reading.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        beneath::open(self.root(), path, flags | OFlags::RDONLY, Mode::empty())
    }

    /// Owner, group, mode and device numbers of an entry.
    pub(super) fn owner(&self, path: &Path, stat: &Stat) -> Owner {
        let disk = Owner { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode, rdev: stat.st_rdev };
        match &self.owners {
            Owners::Root => Owner { uid: 0, gid: 0, ..disk },
            Owners::Kept(lookup) => lookup(path).unwrap_or(disk),
        }
    }

    /// The entries of a directory in the order of their bytes. Hidden ones come along only when they are directories
    /// with something below that may be seen.
    pub(super) fn children(&self, dir: BorrowedFd<'_>, path: &Path) -> io::Result<Vec<Child>> {
        let mut names: Vec<OsString> = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        names.sort_unstable();
        let mut children = Vec::with_capacity(names.len());
        for name in names {
            let path = path.join(&name);
            let hidden = self.hides(&path);
            if hidden && !self.may_show_below(&path) {
                continue;
            }
            let stat = rustix::fs::statat(dir, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            if hidden && kind(&stat) != FileType::Directory {
                continue;
            }
            children.push(Child { name, path, stat, hidden });
        }
        Ok(children)
    }

    fn hides(&self, path: &Path) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.hides(path))
    }

    fn may_show_below(&self, path: &Path) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.may_show_below(path))
    }

    /// Whether a path can be seen: it is not hidden, or is a directory on the way to something that is not.
    fn shows(&self, path: &Path, is_dir: bool) -> io::Result<bool> {
        if path.as_os_str().is_empty() || !self.hides(path) {
            return Ok(true);
        }
        if !is_dir || !self.may_show_below(path) {
            return Ok(false);
        }
        let dir = self.open(path, OFlags::DIRECTORY)?;
        for child in self.children(dir.as_fd(), path)? {
            if !child.hidden || self.shows(&child.path, true)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
