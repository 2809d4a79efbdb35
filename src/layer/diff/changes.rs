//! Two trees, side by side.

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Stat};

use super::scribe::{Scribe, capability, open_dir, reopen};
use super::{DiffStats, HELD_DEPTH};
use crate::layer::Error;
use crate::sys::tree::{DirName, sorted_names};
use crate::sys::{RootDir, SysError};

pub(super) struct Comparer<'a, 'w> {
    old: RootDir<'a>,
    new: RootDir<'a>,
    scribe: Scribe<'a, 'w>,
    /// Directories on the way down that did not change themselves. They are written before the first change in them,
    /// so that the layer names every directory it uses.
    unwritten: Vec<(PathBuf, Stat)>,
}

/// A directory that is being read.
struct Level {
    path: PathBuf,
    pair: Option<Pair>,
    has_old: bool,
    names: std::vec::IntoIter<Name>,
}

impl Level {
    fn new(pair: Pair, path: PathBuf) -> Result<Self, Error> {
        let has_old = pair.old.is_some();
        let old = pair.old.as_ref().map(sorted_names).transpose()?.unwrap_or_default();
        let names = merged(old, sorted_names(&pair.new)?).into_iter();
        Ok(Self { path, pair: Some(pair), has_old, names })
    }
}

/// A directory in the new tree and, where there is one, in the old.
struct Pair {
    old: Option<OwnedFd>,
    new: OwnedFd,
}

impl<'a, 'w> Comparer<'a, 'w> {
    pub(super) fn new(old: BorrowedFd<'a>, new: BorrowedFd<'a>, scribe: Scribe<'a, 'w>) -> Self {
        Self { old: RootDir::new(old), new: RootDir::new(new), scribe, unwritten: Vec::new() }
    }

    pub(super) fn run(mut self) -> Result<DiffStats, Error> {
        let pair = Pair { old: Some(self.old.open_dir("")?), new: self.new.open_dir("")? };
        let mut stack = vec![Level::new(pair, PathBuf::new())?];
        while let Some(level) = stack.last_mut() {
            let Some(name) = level.names.next() else {
                // If nothing in it was written, neither is the directory.
                if self.unwritten.last().is_some_and(|(path, _)| *path == level.path) {
                    self.unwritten.pop();
                }
                stack.pop();
                continue;
            };
            if let Some(inner) = self.take(level, &name)? {
                if stack.len() > HELD_DEPTH
                    && let Some(level) = stack.last_mut()
                {
                    level.pair = None;
                }
                stack.push(inner);
            }
        }
        self.scribe.finish()
    }

    fn take(&mut self, level: &mut Level, name: &Name) -> Result<Option<Level>, Error> {
        let path = level.path.join(&name.name);
        if (self.scribe.options.skip)(&path) {
            return Ok(None);
        }
        if !name.in_new {
            self.flush()?;
            self.scribe.whiteout(&path)?;
            return Ok(None);
        }
        let pair = match level.pair.take() {
            Some(pair) => pair,
            None => {
                let old = if level.has_old { Some(reopen(self.old, &level.path)?) } else { None };
                Pair { old, new: reopen(self.new, &level.path)? }
            }
        };
        let pair = level.pair.insert(pair);
        match self.entry(pair, &name.name, &path, name.in_old)? {
            Some(inner) => Level::new(inner, path).map(Some),
            None => Ok(None),
        }
    }

    /// Compare one name of the new tree and write it if it changed; a directory is given back to be entered.
    fn entry(&mut self, pair: &Pair, name: &OsStr, path: &Path, is_old: bool) -> Result<Option<Pair>, Error> {
        let stat = status(pair.new.as_fd(), name, path)?;
        let before = match &pair.old {
            Some(old) if is_old => Some((old.as_fd(), status(old.as_fd(), name, path)?)),
            _ => None,
        };
        let same = match &before {
            Some((old, before)) => self.is_same(*old, before, pair.new.as_fd(), &stat, (name, path))?,
            None => false,
        };
        if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
            if !same {
                self.flush()?;
                self.scribe.leaf(pair.new.as_fd(), name, path, &stat)?;
            }
            return Ok(None);
        }
        let inner = open_dir(pair.new.as_fd(), name, path)?;
        if same {
            self.unwritten.push((path.to_owned(), stat));
        } else {
            self.flush()?;
            self.scribe.directory(path, &stat)?;
        }
        let old = match before {
            Some((old, before)) if before.st_mode & libc::S_IFMT == libc::S_IFDIR => {
                Some(open_dir(old, name, path)?)
            }
            _ => None,
        };
        Ok(Some(Pair { old, new: inner }))
    }

    fn flush(&mut self) -> Result<(), Error> {
        for (path, stat) in std::mem::take(&mut self.unwritten) {
            self.scribe.directory(&path, &stat)?;
        }
        Ok(())
    }

    fn is_same(
        &self,
        old_dir: BorrowedFd<'_>,
        old: &Stat,
        new_dir: BorrowedFd<'_>,
        new: &Stat,
        (name, path): (&OsStr, &Path),
    ) -> Result<bool, Error> {
        let inode = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
        let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        if inode(old) != inode(new) {
            return Ok(false);
        }
        match new.st_mode & libc::S_IFMT {
            libc::S_IFREG => {
                let same = old.st_size == new.st_size && time(old) == time(new);
                Ok(same && capability(old_dir, name, path, old)? == capability(new_dir, name, path, new)?)
            }
            libc::S_IFLNK => {
                let target = |dir| {
                    rustix::fs::readlinkat(dir, name, Vec::new())
                        .map_err(|errno| SysError::path("read link", path, errno))
                };
                Ok(target(old_dir)? == target(new_dir)?)
            }
            libc::S_IFDIR => Ok(time(old) == time(new)),
            libc::S_IFCHR | libc::S_IFBLK => Ok(old.st_rdev == new.st_rdev),
            _ => Ok(true),
        }
    }
}

fn status(dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<Stat, Error> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| SysError::path("stat", path, errno).into())
}

/// A name, and which of two directories have it.
struct Name {
    name: OsString,
    in_old: bool,
    in_new: bool,
}

/// Two sorted lists as one.
fn merged(old: Vec<DirName>, new: Vec<DirName>) -> Vec<Name> {
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    let mut names = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return names,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.name.cmp(&new.name),
        };
        let from_old = old.next_if(|_| order != Ordering::Greater);
        let from_new = new.next_if(|_| order != Ordering::Less);
        let (in_old, in_new) = (from_old.is_some(), from_new.is_some());
        names.extend(from_new.or(from_old).map(|entry| Name { name: entry.name, in_old, in_new }));
    }
}
