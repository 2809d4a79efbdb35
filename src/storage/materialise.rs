//! The copy method of layering: a stack merged into one real tree, by descriptors, reflinked where the disk can.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::Error;
use super::unpack::open_dir;
use crate::sys::{SysError, tree, xattr};

/// One layer to merge: a snapshot's tree or an overlay's upper directory.
#[derive(Debug)]
pub(super) struct Source<'a> {
    fs: &'a Path,
}

impl<'a> Source<'a> {
    pub(super) fn new(fs: &'a Path) -> Self {
        Self { fs }
    }
}

/// Merge `layers` (lowest first) into the empty directory `target`.
pub(super) fn materialise(layers: &[Source<'_>], target: &Path) -> Result<(), Error> {
    let root = open_dir(target)?;
    for layer in layers {
        let from = open_dir(layer.fs)?;
        let mut merge = Merge { root: root.as_fd(), links: HashMap::new(), layer: layer.fs };
        merge.dir(from.as_fd(), root.as_fd(), Path::new(""))?;
    }
    Ok(())
}

/// The merge of one layer.
struct Merge<'a> {
    root: BorrowedFd<'a>,
    /// Files of this layer with several names, by device and inode, and where the first name went.
    links: HashMap<(u64, u64), PathBuf>,
    layer: &'a Path,
}

/// An entry being merged.
struct Entry<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    name: &'a OsStr,
    path: PathBuf,
    stat: Stat,
}

impl Merge<'_> {
    /// Merge the directory `from` into `to`, which is there, then give `to` the metadata of `from`.
    fn dir(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        let failed = |error: Errno| SysError::path("copy", self.layer.join(path), error);
        let stat = rustix::fs::fstat(from).map_err(failed)?;
        if xattr::get(from, "user.overlay.opaque")?.is_some_and(|value| value == b"y") {
            for name in tree::sorted_names(to)? {
                tree::remove_all(to, &name.name)?;
            }
        }
        for name in tree::sorted_names(from)? {
            let failed = |error: Errno| SysError::path("copy", self.layer.join(path).join(&name.name), error);
            let stat = rustix::fs::statat(from, &name.name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            self.entry(&Entry { from, to, name: &name.name, path: path.join(&name.name), stat })?;
        }
        copy_metadata(from, to, &stat).map_err(|error| failed(error).into())
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        let kind = FileType::from_raw_mode(entry.stat.st_mode);
        if kind == FileType::CharacterDevice && entry.stat.st_rdev == 0 {
            return Ok(tree::remove_all(entry.to, entry.name)?);
        }
        if kind != FileType::Directory {
            tree::remove_all(entry.to, entry.name)?;
        }
        let failed = |error: Errno| SysError::path("copy", self.layer.join(&entry.path), error);
        match kind {
            FileType::Directory => self.subdir(entry),
            FileType::RegularFile => self.file(entry),
            FileType::Symlink => copy_symlink(entry).map_err(|error| failed(error).into()),
            _ => copy_node(entry, kind).map_err(|error| failed(error).into()),
        }
    }

    fn subdir(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        let failed = |error: Errno| SysError::path("copy", self.layer.join(&entry.path), error);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = match rustix::fs::openat(entry.to, entry.name, flags, Mode::empty()) {
            Ok(to) => to,
            Err(_) => {
                tree::remove_all(entry.to, entry.name)?;
                rustix::fs::mkdirat(entry.to, entry.name, Mode::RWXU).map_err(failed)?;
                rustix::fs::openat(entry.to, entry.name, flags, Mode::empty()).map_err(failed)?
            }
        };
        let from = rustix::fs::openat(entry.from, entry.name, flags, Mode::empty()).map_err(failed)?;
        self.dir(from.as_fd(), to.as_fd(), &entry.path)
    }

    fn file(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        let failed = |error: Errno| SysError::path("copy", self.layer.join(&entry.path), error);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = rustix::fs::openat(entry.from, entry.name, flags, Mode::empty()).map_err(failed)?;
        if entry.stat.st_size == 0 && xattr::get(&from, "user.overlay.whiteout")?.is_some() {
            return Ok(());
        }
        if entry.stat.st_nlink > 1 {
            let inode = (entry.stat.st_dev, entry.stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                match rustix::fs::linkat(self.root, first, entry.to, entry.name, AtFlags::empty()) {
                    // More names than a file can have here: those that follow are of a copy.
                    Err(Errno::MLINK) => {}
                    linked => return linked.map_err(|error| failed(error).into()),
                }
            }
            self.links.insert(inode, entry.path.clone());
        }
        copy_file(entry, &from).map_err(|error| failed(error).into())
    }
}

fn copy_file(entry: &Entry<'_>, from: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = rustix::fs::openat(entry.to, entry.name, flags, Mode::RUSR | Mode::WUSR)?;
    if entry.stat.st_size > 0 && rustix::fs::ioctl_ficlone(&to, from).is_err() {
        copy_bytes(from, &to)?;
    }
    copy_metadata(from.as_fd(), to.as_fd(), &entry.stat)
}

/// Copy in the kernel, and by hand where it cannot between these two files.
fn copy_bytes(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, 1 << 30) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => break,
            Err(error) => return Err(error),
        }
    }
    let copy = || -> std::io::Result<()> {
        let (mut from, mut to) = (File::from(from.try_clone()?), File::from(to.try_clone()?));
        std::io::copy(&mut from, &mut to).map(drop)
    };
    copy().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn copy_symlink(entry: &Entry<'_>) -> Result<(), Errno> {
    let target = rustix::fs::readlinkat(entry.from, entry.name, Vec::new())?;
    rustix::fs::symlinkat(target, entry.to, entry.name)?;
    own(entry)?;
    rustix::fs::utimensat(entry.to, entry.name, &times(&entry.stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// Devices that may not be made here become an empty file; the owner table knows what they are.
fn copy_node(entry: &Entry<'_>, kind: FileType) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(entry.stat.st_mode & 0o7777);
    let made = rustix::fs::mknodat(entry.to, entry.name, kind, Mode::RUSR | Mode::WUSR, entry.stat.st_rdev);
    match made {
        Err(Errno::PERM) => {
            rustix::fs::mknodat(entry.to, entry.name, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0)?;
        }
        other => other?,
    }
    own(entry)?;
    rustix::fs::chmodat(entry.to, entry.name, mode, AtFlags::empty())?;
    rustix::fs::utimensat(entry.to, entry.name, &times(&entry.stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn own(entry: &Entry<'_>) -> Result<(), Errno> {
    let (uid, gid) = owner(&entry.stat);
    match rustix::fs::chownat(entry.to, entry.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => Ok(()),
        other => other,
    }
}

/// Owner, mode, attributes, times: in the order in which none undoes another.
fn copy_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = owner(stat);
    match rustix::fs::fchown(to, uid, gid) {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => {}
        other => other?,
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for name in xattr::list(from).unwrap_or_default() {
        if name.starts_with(b"user.overlay.")
            || !(name.starts_with(b"user.") || name == b"security.capability")
        {
            continue;
        }
        let text = String::from_utf8_lossy(&name);
        if let Ok(Some(value)) = xattr::get(from, &text) {
            xattr::set(to, &name, &value)?;
        }
    }
    rustix::fs::futimens(to, &times(stat))
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    Timestamps { last_access: time, last_modification: time }
}
