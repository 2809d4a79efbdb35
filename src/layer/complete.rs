//! What a layer takes from the layers below it, for one that does not stand on its own.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::whiteout::{self, Marked};
use super::{Applied, Error, Owner, OwnerTable};
use crate::sys::{RootDir, SysError, xattr};

/// A layer below.
#[derive(Debug, Clone, Copy)]
pub struct Lower<'a> {
    /// Its unpacked tree.
    pub root: BorrowedFd<'a>,
    /// What the disk does not hold of it.
    pub owners: &'a OwnerTable,
}

/// Complete a layer that [`super::apply`] has just unpacked into `root`, from the layers below it, lowest first:
/// directories that it implies get the metadata of the topmost layer that has them, and hard links to files of lower
/// layers are made (by linking, or by copying where that is not possible). `applied` keeps saying that the layer does
/// not stand alone; its owner table is extended.
///
/// # Errors
/// When the target of a hard link is nowhere, or the tree cannot be written.
pub fn complete(root: BorrowedFd<'_>, applied: &mut Applied, lowers: &[Lower<'_>]) -> Result<(), Error> {
    let top = RootDir::new(root);
    for (name, target) in &applied.foreign_links {
        let missing = || Error::LinkTarget { name: name.clone(), target: target.clone() };
        let found = find(lowers, target)?.ok_or_else(missing)?;
        if kind(&found.stat) == FileType::Directory {
            return Err(missing());
        }
        let dir = name.parent().unwrap_or(Path::new(""));
        let base = name.file_name().unwrap_or_default();
        let parent = plain(top, dir)?;
        let before = stat_of(&parent, dir)?;
        found.place(parent.as_fd(), base, name)?;
        // The link is part of the layer: it did not change its directory.
        set_times(&parent, &before, dir)?;
        if let Some(owner) = found.owner {
            applied.owners.insert(name.clone(), owner);
        }
    }
    for path in &applied.implied {
        let Some(found) = find(lowers, path)?.filter(|found| kind(&found.stat) == FileType::Directory) else {
            continue;
        };
        let from = found.open(OFlags::DIRECTORY)?;
        copy_metadata(&from, &found.stat, &plain(top, path)?, path)?;
        if let Some(owner) = found.owner {
            applied.owners.insert(path.clone(), owner);
        }
    }
    Ok(())
}

/// Something in a lower layer.
struct Found<'p> {
    dir: OwnedFd,
    path: &'p Path,
    name: &'p OsStr,
    stat: Stat,
    owner: Option<Owner>,
}

/// What the merged lower layers have under a path, without following links.
fn find<'p>(lowers: &[Lower<'_>], path: &'p Path) -> Result<Option<Found<'p>>, Error> {
    for lower in lowers.iter().rev() {
        match look(lower, path)? {
            Look::Here(found) => return Ok(Some(*found)),
            Look::Hidden => return Ok(None),
            Look::Below => {}
        }
    }
    Ok(None)
}

enum Look<'p> {
    Here(Box<Found<'p>>),
    /// Not here, and what lower layers have does not count.
    Hidden,
    /// Not here; lower layers may have it.
    Below,
}

fn look<'p>(lower: &Lower<'_>, path: &'p Path) -> Result<Look<'p>, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |errno| SysError::path("open", path, errno);
    let mut dir = rustix::fs::openat(lower.root, ".", flags, Mode::empty()).map_err(failed)?;
    let mut hidden = false;
    let mut names = path.iter().peekable();
    while let Some(name) = names.next() {
        let mark = whiteout::marked(&dir)?;
        hidden |= mark == Marked::Opaque;
        let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(if hidden { Look::Hidden } else { Look::Below }),
            Err(errno) => return Err(SysError::path("stat", path, errno).into()),
        };
        if whiteout::is_whiteout(&dir, name, &stat, mark)? {
            return Ok(Look::Hidden);
        }
        if names.peek().is_none() {
            let owner = lower.owners.get(path);
            return Ok(Look::Here(Box::new(Found { dir, path, name, stat, owner })));
        }
        if kind(&stat) != FileType::Directory {
            return Ok(Look::Hidden);
        }
        dir = rustix::fs::openat(&dir, name, flags, Mode::empty()).map_err(failed)?;
    }
    Ok(Look::Hidden)
}

/// Copy what is no directory, with everything that is known of it, to a name where nothing is. `path` is for errors.
pub(super) fn copy_to(
    from: BorrowedFd<'_>,
    name: &OsStr,
    to: BorrowedFd<'_>,
    to_name: &OsStr,
    path: &Path,
) -> Result<(), Error> {
    let failed = |errno| SysError::path("copy", path, errno);
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    let dir = rustix::io::fcntl_dupfd_cloexec(from, 0).map_err(failed)?;
    Found { dir, path, name, stat, owner: None }.copy(to, to_name, path)
}

impl Found<'_> {
    fn open(&self, more: OFlags) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
        rustix::fs::openat(&self.dir, self.name, flags, Mode::empty())
            .map_err(|errno| SysError::path("open", self.path, errno).into())
    }

    /// Put it under another name.
    fn place(&self, parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), Error> {
        let failed = |errno| SysError::path("create hard link", path, errno);
        match rustix::fs::linkat(&self.dir, self.name, parent, name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // Another mount, too many links, or a kernel that guards the links of others.
            Err(Errno::XDEV | Errno::MLINK | Errno::PERM) => self.copy(parent, name, path),
            Err(errno) => Err(failed(errno).into()),
        }
    }

    fn copy(&self, parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), Error> {
        let failed = |errno| SysError::path("copy", path, errno);
        match kind(&self.stat) {
            FileType::RegularFile => self.copy_file(parent, name, path),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&self.dir, self.name, Vec::new()).map_err(failed)?;
                rustix::fs::symlinkat(target, parent, name).map_err(failed)?;
                let (uid, gid) = ids(&self.stat);
                rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                rustix::fs::utimensat(parent, name, &times(&self.stat), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed)?;
                Ok(())
            }
            kind => {
                let mode = Mode::from_raw_mode(self.stat.st_mode);
                rustix::fs::mknodat(parent, name, kind, mode, self.stat.st_rdev).map_err(failed)?;
                Ok(())
            }
        }
    }

    fn copy_file(&self, parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), Error> {
        let mut from = File::from(self.open(OFlags::empty())?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| SysError::path("create", path, errno))?;
        let mut to = File::from(to);
        std::io::copy(&mut from, &mut to).map_err(|error| SysError::path("copy", path, error))?;
        copy_metadata(&from.into(), &self.stat, &to.into(), path)
    }
}

/// Owner, attributes, mode and times, in the order in which one does not undo the other.
fn copy_metadata(from: &OwnedFd, stat: &Stat, to: &OwnedFd, path: &Path) -> Result<(), Error> {
    let now = stat_of(to, path)?;
    if (now.st_uid, now.st_gid) != (stat.st_uid, stat.st_gid) {
        let (uid, gid) = ids(stat);
        rustix::fs::fchown(to, uid, gid).map_err(|errno| SysError::path("set the owner of", path, errno))?;
    }
    for name in xattr::list(from)? {
        let wanted = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        let Some(name) =
            std::str::from_utf8(&name).ok().filter(|name| wanted || *name == "security.capability")
        else {
            continue;
        };
        if let Some(value) = xattr::get(from, name)? {
            xattr::set(to, name.as_bytes(), &value)
                .map_err(|errno| SysError::path("set an attribute of", path, errno))?;
        }
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))
        .map_err(|errno| SysError::path("set the mode of", path, errno))?;
    set_times(to, stat, path)
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn ids(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or(0) };
    Timestamps { last_access: time, last_modification: time }
}

fn set_times(fd: &OwnedFd, stat: &Stat, path: &Path) -> Result<(), Error> {
    rustix::fs::futimens(fd, &times(stat))
        .map_err(|errno| SysError::path("set the time of", path, errno).into())
}

fn stat_of(fd: &OwnedFd, path: &Path) -> Result<Stat, Error> {
    rustix::fs::fstat(fd).map_err(|errno| SysError::path("stat", path, errno).into())
}

fn plain(root: RootDir<'_>, path: &Path) -> Result<OwnedFd, Error> {
    root.open_plain(path, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|errno| SysError::path("open", path, errno).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::layer::testing::*;

    fn unpack(entries: &[(crate::layer::tar::Entry, Vec<u8>)]) -> (Sandbox, Applied) {
        let sandbox = Sandbox::new();
        let applied = sandbox.apply(&archive(entries), &own_options()).unwrap();
        (sandbox, applied)
    }

    #[test]
    fn what_is_implied_comes_from_the_topmost_layer_that_has_it() {
        let (bottom, base) =
            unpack(&[dir("a"), dir("a/b"), file("a/b/f", "bottom"), dir("gone"), file("gone/f", "x")]);
        let mut mode = dir("a/b");
        mode.0.mode = 0o1770;
        let (middle, over) = unpack(&[
            mode,
            file("a/b/f", "middle"),
            file(".wh.gone", ""),
            dir("o"),
            file("o/.wh..wh..opq", ""),
        ]);
        let (top, mut applied) = unpack(&[file("a/b/new", "x"), file("gone/new", "x"), link("a/l", "a/b/f")]);
        let fds = [&bottom, &middle, &top].map(|sandbox| File::open(sandbox.root()).unwrap());
        let lowers = [
            Lower { root: fds[0].as_fd(), owners: &base.owners },
            Lower { root: fds[1].as_fd(), owners: &over.owners },
        ];
        complete(fds[2].as_fd(), &mut applied, &lowers).unwrap();
        let meta = |path: &str| top.root().join(path).metadata().unwrap();
        assert_eq!(meta("a/b").permissions().mode() & 0o7777, 0o1770);
        assert_eq!(meta("gone").permissions().mode() & 0o7777, 0o755);
        assert_eq!(meta("a").mtime(), 0);
        assert_eq!(std::fs::read(top.root().join("a/l")).unwrap(), b"middle");
        assert!(!applied.stands_alone());
        for target in ["gone/f", "o/x", "a/b", "nowhere"] {
            let (top, mut applied) = unpack(&[link("l", target)]);
            let fd = File::open(top.root()).unwrap();
            let result = complete(fd.as_fd(), &mut applied, &lowers);
            assert!(matches!(result, Err(Error::LinkTarget { .. })), "{target}");
        }
    }

    #[test]
    fn a_link_that_cannot_be_made_is_a_copy() {
        let (lower, _) = unpack(&[file("f", "content"), symlink("s", "f")]);
        let (top, _) = unpack(&[]);
        let (from, to) = (File::open(lower.root()).unwrap(), File::open(top.root()).unwrap());
        let owners = OwnerTable::default();
        let lowers = [Lower { root: from.as_fd(), owners: &owners }];
        let found = find(&lowers, Path::new("f")).unwrap().unwrap();
        found.copy_file(to.as_fd(), OsStr::new("copy"), Path::new("copy")).unwrap();
        let (mut ours, theirs) = (tree(&top.root()), tree(&lower.root()));
        assert_eq!(ours.remove(Path::new("copy")), theirs.get(Path::new("f")).cloned());
    }
}
