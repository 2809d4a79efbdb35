//! Putting entries into a step's tree, by directory descriptors: files, directories, links, devices and their metadata.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, openat, statat, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

use super::beneath::{self, kind};
use super::checksum::{CAPABILITY, capability};
use super::copy::{CopyError, failed};
use crate::layer::{Owner, OwnerTable};

/// How much of a file is moved at once.
const BUFFER: usize = 256 << 10;
/// Files from this size on are worth a try at having the kernel copy them.
const KERNEL_COPY: i64 = 1 << 20;

/// What an entry should be like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Type and permission bits (`st_mode`).
    pub mode: u32,
    /// Device numbers.
    pub rdev: u64,
    /// Modification time; `None` leaves it as it comes.
    pub mtime: Option<Timespec>,
    /// Set the owner even when it is 0:0, because the directory hands its group down.
    pub chown_always: bool,
}

impl Meta {
    /// A file of root's.
    pub(super) fn file(permissions: u32, mtime: Option<Timespec>) -> Self {
        let mode = FileType::RegularFile.as_raw_mode() | permissions;
        Self { uid: 0, gid: 0, mode, rdev: 0, mtime, chown_always: false }
    }
}

/// Puts entries below one root.
#[derive(Debug)]
pub(super) struct Placer<'a> {
    /// The root.
    pub root: BorrowedFd<'a>,
    /// What the disk could not hold.
    pub owners: OwnerTable,
    /// Remember every owner, because the layers below remember some that would else count for what is put now.
    pub remember_all: bool,
    /// The time that directories made on the way get, in seconds; the present without one.
    pub epoch: Option<i64>,
    buffer: Vec<u8>,
}

/// A file's modification time.
pub(super) fn mtime(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// Whether a directory hands its group down.
pub(super) fn inherits_group(dir: BorrowedFd<'_>, path: &Path) -> Result<bool, CopyError> {
    let stat = fstat(dir).map_err(failed("look at", path))?;
    Ok(stat.st_mode & 0o2000 != 0)
}

/// Set a modification time and leave the access time.
pub(super) fn set_mtime(fd: BorrowedFd<'_>, mtime: Timespec) -> rustix::io::Result<()> {
    futimens(fd, &times(mtime))
}

fn times(mtime: Timespec) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: mtime,
    }
}

fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

impl<'a> Placer<'a> {
    /// Below `root`.
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, owners: OwnerTable::default(), remember_all: false, epoch: None, buffer: Vec::new() }
    }

    /// Open a directory that is there; `path` holds no links.
    pub(super) fn open_dir(&self, path: &Path) -> Result<OwnedFd, CopyError> {
        beneath::open(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(failed("open", path))
    }

    /// Make a directory and those above it; links in the existing part are followed inside the root. Its path without
    /// links comes back.
    pub(super) fn make_dirs(
        &mut self,
        path: &Path,
        uid: u32,
        gid: u32,
        mode: u32,
    ) -> Result<PathBuf, CopyError> {
        let found = beneath::resolve(self.root, path, true).map_err(failed("make directory", path))?;
        match found.stat {
            Some(stat) if kind(&stat) == FileType::Directory => return Ok(found.path),
            Some(_) => return Err(failed("make directory", path)(Errno::NOTDIR)),
            None => {}
        }
        let mut made = PathBuf::new();
        for component in found.path.components() {
            let Component::Normal(name) = component else { continue };
            made.push(name);
            match mkdirat(self.root, &made, Mode::RWXU) {
                Ok(()) => {
                    let dir = self.open_dir(&made)?;
                    let meta = Meta {
                        uid,
                        gid,
                        mode: FileType::Directory.as_raw_mode() | mode,
                        rdev: 0,
                        mtime: self.epoch.map(|tv_sec| Timespec { tv_sec, tv_nsec: 0 }),
                        chown_always: true,
                    };
                    self.finish(dir.as_fd(), &made, &meta)?;
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(failed("make directory", &made)(error)),
            }
        }
        Ok(found.path)
    }

    /// Open the directory of that name, or make it; anything else there is an error.
    pub(super) fn enter_dir(&mut self, parent: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, CopyError> {
        let name = path.file_name().unwrap_or_default();
        match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("make directory", path)(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(parent, name, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => CopyError::NonDirectory(path.to_owned()),
            error => failed("open", path)(error),
        })
    }

    /// Give a directory its metadata, once everything is in it.
    pub(super) fn finish_dir(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &Path,
        meta: &Meta,
    ) -> Result<(), CopyError> {
        self.finish(dir, path, &Meta { chown_always: true, ..*meta })
    }

    /// Make a file with the content that `data` gives.
    pub(super) fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &Path,
        data: &mut dyn Read,
        meta: &Meta,
    ) -> Result<(), CopyError> {
        let mut out = std::fs::File::from(create(dir, path)?);
        self.pump(data, &mut out).map_err(failed("write", path))?;
        self.finish(out.as_fd(), path, meta)
    }

    /// Copy a regular file with its capability.
    pub(super) fn copy_file(
        &mut self,
        source_dir: BorrowedFd<'_>,
        source_name: &OsStr,
        source: &Path,
        dir: BorrowedFd<'_>,
        path: &Path,
        meta: &Meta,
    ) -> Result<(), CopyError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = openat(source_dir, source_name, flags, Mode::empty()).map_err(failed("open", source))?;
        let stat = fstat(&from).map_err(failed("look at", source))?;
        if kind(&stat) != FileType::RegularFile {
            return Err(failed("read", source)(io::Error::other("it changed while it was copied")));
        }
        let to = create(dir, path)?;
        let done = stat.st_size >= KERNEL_COPY && kernel_copy(&from, &to).map_err(failed("write", path))?;
        let cap = capability(from.as_fd()).map_err(failed("read attributes of", source))?;
        let mut to = std::fs::File::from(to);
        if !done {
            let mut from = std::fs::File::from(from);
            self.pump(&mut from, &mut to).map_err(failed("copy", source))?;
        }
        self.finish(to.as_fd(), path, meta)?;
        if let Some(cap) = cap {
            // Where the kernel refuses it, the reference goes on without it too.
            let _ = fsetxattr(&to, CAPABILITY, &cap, XattrFlags::empty());
        }
        Ok(())
    }

    /// Make a symbolic link.
    pub(super) fn symlink(
        &mut self,
        target: &[u8],
        dir: BorrowedFd<'_>,
        path: &Path,
        meta: &Meta,
    ) -> Result<(), CopyError> {
        let name = path.file_name().unwrap_or_default();
        replacing(dir, path, || symlinkat(target, dir, name))?;
        self.finish_at(dir, path, meta, false)
    }

    /// Make a further name for a file that was put before.
    pub(super) fn hard_link(
        &mut self,
        first: &Path,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), CopyError> {
        replacing(dir, path, || linkat(self.root, first, dir, name, AtFlags::empty()))?;
        if let Some(owner) = self.owners.get(first) {
            self.owners.insert(path.to_owned(), owner);
        }
        Ok(())
    }

    /// Make a pipe or a device. A device that may not be made here is an empty file, and is remembered.
    pub(super) fn special(&mut self, dir: BorrowedFd<'_>, path: &Path, meta: &Meta) -> Result<(), CopyError> {
        let name = path.file_name().unwrap_or_default();
        let file_type = FileType::from_raw_mode(meta.mode);
        let made = replacing(dir, path, || mknodat(dir, name, file_type, Mode::RUSR, meta.rdev));
        match made {
            Err(CopyError::Io { source, .. })
                if source.raw_os_error() == Some(Errno::PERM.raw_os_error()) =>
            {
                drop(create(dir, path)?);
                self.remember(path, meta);
                Ok(())
            }
            Err(error) => Err(error),
            Ok(()) => self.finish_at(dir, path, meta, true),
        }
    }

    /// Remove what stands at a place where something else goes, a directory with everything in it.
    pub(super) fn clear_all(&mut self, dir: BorrowedFd<'_>, path: &Path) -> Result<(), CopyError> {
        self.owners.remove(path);
        remove_tree(dir, path.file_name().unwrap_or_default()).map_err(failed("replace", path))
    }

    fn remember(&mut self, path: &Path, meta: &Meta) {
        let Meta { uid, gid, mode, rdev, .. } = *meta;
        self.owners.insert(path.to_owned(), Owner { uid, gid, mode, rdev });
    }

    /// Owner, then mode (a change of owner clears set-id bits), then times.
    fn finish(&mut self, fd: BorrowedFd<'_>, path: &Path, meta: &Meta) -> Result<(), CopyError> {
        if self.remember_all {
            self.remember(path, meta);
        }
        if meta.chown_always || (meta.uid, meta.gid) != (0, 0) {
            let (uid, gid) = ids(meta);
            let chowned = fchown(fd, uid, gid);
            self.settle_owner(chowned, path, meta)?;
        }
        fchmod(fd, permissions(meta.mode)).map_err(failed("set the mode of", path))?;
        match meta.mtime {
            Some(mtime) => set_mtime(fd, mtime).map_err(failed("set the times of", path)),
            None => Ok(()),
        }
    }

    /// As `finish`, for what cannot be opened.
    pub(super) fn finish_at(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &Path,
        meta: &Meta,
        has_mode: bool,
    ) -> Result<(), CopyError> {
        if self.remember_all {
            self.remember(path, meta);
        }
        let name = path.file_name().unwrap_or_default();
        if meta.chown_always || (meta.uid, meta.gid) != (0, 0) {
            let (uid, gid) = ids(meta);
            let chowned = chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            self.settle_owner(chowned, path, meta)?;
        }
        if has_mode {
            rustix::fs::chmodat(dir, name, permissions(meta.mode), AtFlags::empty())
                .map_err(failed("set the mode of", path))?;
        }
        match meta.mtime {
            Some(mtime) => utimensat(dir, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("set the times of", path)),
            None => Ok(()),
        }
    }

    /// An id that is not in our map is remembered instead.
    fn settle_owner(
        &mut self,
        chowned: rustix::io::Result<()>,
        path: &Path,
        meta: &Meta,
    ) -> Result<(), CopyError> {
        match chowned {
            Ok(()) => {
                if !self.remember_all {
                    self.owners.remove(path);
                }
                Ok(())
            }
            Err(Errno::INVAL | Errno::PERM) => {
                self.remember(path, meta);
                Ok(())
            }
            Err(error) => Err(failed("set the owner of", path)(error)),
        }
    }

    fn pump(&mut self, from: &mut dyn Read, to: &mut std::fs::File) -> io::Result<()> {
        self.buffer.resize(BUFFER, 0);
        loop {
            match from.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => to.write_all(&self.buffer[..n])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn ids(meta: &Meta) -> (Option<Uid>, Option<Gid>) {
    // `u32::MAX` means "leave as it is" to the kernel, and can be no owner.
    let uid = (meta.uid != u32::MAX).then(|| Uid::from_raw(meta.uid));
    let gid = (meta.gid != u32::MAX).then(|| Gid::from_raw(meta.gid));
    (uid, gid)
}

/// Make a file; what stands there, unless it is a directory, goes first.
fn create(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, CopyError> {
    let name = path.file_name().unwrap_or_default();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    replacing(dir, path, || openat(dir, name, flags, Mode::RUSR | Mode::WUSR))
}

fn replacing<T>(
    dir: BorrowedFd<'_>,
    path: &Path,
    make: impl Fn() -> rustix::io::Result<T>,
) -> Result<T, CopyError> {
    match make() {
        Err(Errno::EXIST) => {}
        other => return other.map_err(failed("make", path)),
    }
    let name = path.file_name().unwrap_or_default();
    let there = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("look at", path))?;
    if kind(&there) == FileType::Directory {
        return Err(CopyError::OverDirectory(path.to_owned()));
    }
    unlinkat(dir, name, AtFlags::empty()).map_err(failed("replace", path))?;
    make().map_err(failed("make", path))
}

fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = openat(dir, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&inner)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove_tree(inner.as_fd(), std::os::unix::ffi::OsStrExt::from_bytes(name))?;
        }
    }
    Ok(unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Have the kernel share or copy the data; false when it cannot for this pair of files.
fn kernel_copy(from: &OwnedFd, to: &OwnedFd) -> io::Result<bool> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(true);
    }
    let mut copied = 0_usize;
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, 1 << 30) {
            Ok(0) => return Ok(copied > 0),
            Ok(n) => copied += n,
            Err(Errno::INTR) => {}
            // Nothing moved yet: the pair is not supported.
            Err(_) if copied == 0 => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}
