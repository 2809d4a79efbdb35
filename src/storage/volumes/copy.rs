//! A tree is copied with everything that it has: contents, links, owners, modes, times and extended attributes.
//!
//! Both sides are walked by descriptors, names relative to an open directory and links never followed, because the
//! image decides what lies there. However deep it goes, two directories are open at a time: the way up is `..`, and
//! what is found there must be the directory that the way down began in.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Copy what is in `from` to the empty directory `to`, and the attributes of `from` itself.
pub(super) fn copy_tree(from: OwnedFd, to: OwnedFd) -> io::Result<()> {
    let top = to.try_clone()?;
    let stat = rustix::fs::fstat(&from)?;
    let mut copier = Copier { links: HashMap::new(), top: top.as_fd(), path: PathBuf::new(), from, to };
    let mut stack = vec![Level { names: names(&copier.from)?, stat }];
    while let Some(level) = stack.last_mut() {
        if let Some(name) = level.names.pop() {
            stack.extend(copier.entry(&name)?);
            continue;
        }
        attributes(&copier.from, &copier.to, &level.stat)?;
        stack.pop();
        if let Some(above) = stack.last() {
            copier.leave(&above.stat)?;
        }
    }
    Ok(())
}

/// A directory that is being copied.
struct Level {
    names: Vec<CString>,
    stat: Stat,
}

struct Copier<'a> {
    /// Where a file with several names was copied to first, relative to the top.
    links: HashMap<(u64, u64), PathBuf>,
    top: BorrowedFd<'a>,
    /// Of the directory that is being copied, relative to the top.
    path: PathBuf,
    from: OwnedFd,
    to: OwnedFd,
}

impl Copier<'_> {
    /// Copy one name. A directory is entered, and comes back to be gone through.
    fn entry(&mut self, name: &CStr) -> io::Result<Option<Level>> {
        let (from, to) = (&self.from, &self.to);
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let path = self.path.join(OsStr::from_bytes(name.to_bytes()));
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let key = identity(&stat);
            if let Some(first) = self.links.get(&key) {
                match rustix::fs::linkat(self.top, first, to, name, AtFlags::empty()) {
                    // A name that lies deeper than one call reaches, or more names than a file can have: the link
                    // becomes a copy.
                    Err(Errno::NAMETOOLONG | Errno::MLINK) => {}
                    other => return Ok(other.map(|()| None)?),
                }
            }
            self.links.insert(key, path.clone());
        }
        match kind {
            FileType::Directory => {
                let source = rustix::fs::openat(from, name, DIRECTORY, Mode::empty())?;
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let target = rustix::fs::openat(to, name, DIRECTORY, Mode::empty())?;
                let level = Level { names: names(&source)?, stat: rustix::fs::fstat(&source)? };
                (self.from, self.to, self.path) = (source, target, path);
                return Ok(Some(level));
            }
            FileType::RegularFile => regular(from, to, name, &stat)?,
            FileType::Symlink => {
                let link: CString = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&link, to, name)?;
                own(to, name, &stat)?;
                rustix::fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => special(to, name, kind, &stat)?,
        }
        Ok(None)
    }

    /// Go up to the directory of which this is the status.
    fn leave(&mut self, above: &Stat) -> io::Result<()> {
        self.from = rustix::fs::openat(&self.from, c"..", DIRECTORY, Mode::empty())?;
        self.to = rustix::fs::openat(&self.to, c"..", DIRECTORY, Mode::empty())?;
        if identity(&rustix::fs::fstat(&self.from)?) != identity(above) {
            return Err(Errno::XDEV.into());
        }
        self.path.pop();
        Ok(())
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    #[allow(clippy::unnecessary_cast, reason = "their width differs between architectures")]
    (stat.st_dev as u64, stat.st_ino as u64)
}

fn names(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Give one directory the owner, mode, attributes and times of another.
pub(super) fn attributes(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> io::Result<()> {
    own(to, c"", stat)?;
    rustix::fs::fchmod(to, mode(stat))?;
    copy_xattrs(from, to)?;
    Ok(rustix::fs::futimens(to, &times(stat))?)
}

fn regular(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let target = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    let (mut source, mut target) = (File::from(source), File::from(target));
    io::copy(&mut source, &mut target)?;
    own(&target, c"", stat)?;
    // After the owner, whose change drops set-id bits and file capabilities.
    rustix::fs::fchmod(&target, mode(stat))?;
    copy_xattrs(&source, &target)?;
    Ok(rustix::fs::futimens(&target, &times(stat))?)
}

/// Fifos and sockets are made anew; a device that may not be made here is left out, as it could not be used either.
fn special(to: &OwnedFd, name: &CStr, kind: FileType, stat: &Stat) -> io::Result<()> {
    match rustix::fs::mknodat(to, name, kind, mode(stat), stat.st_rdev) {
        Ok(()) => own(to, name, stat),
        Err(Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// An owner that this id map lacks cannot be given: the file then stays ours.
fn own(dir: impl AsFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match rustix::fs::chownat(dir, name, Some(uid), Some(gid), flags) {
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

fn times(stat: &Stat) -> Timestamps {
    #[allow(clippy::unnecessary_cast, reason = "their type differs between architectures")]
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    #[allow(clippy::unnecessary_cast, reason = "their type differs between architectures")]
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as u64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as u64),
    }
}

/// What may not be set here (another security module, a namespace we lack) is left out.
fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut names = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(&from, names.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut value = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.") {
            continue;
        }
        value.resize(64 * 1024, 0);
        let Ok(size) = rustix::fs::fgetxattr(&from, name, value.as_mut_slice()) else { continue };
        match rustix::fs::fsetxattr(&to, name, &value[..size], XattrFlags::empty()) {
            Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
