//! Entries of a tree become entries of an archive.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, Stat};

use super::{DiffOptions, DiffStats};
use crate::layer::apply::on_disk;
use crate::layer::names::{MAX_PATH, OPAQUE, WHITEOUT};
use crate::layer::tar::{Entry, Kind, Time, Writer};
use crate::layer::{Error, Owner};
use crate::sys::{RootDir, SysError, xattr};

/// The one attribute that images carry.
pub(super) const CAPABILITY: &str = "security.capability";

pub(super) struct Scribe<'a, 'w> {
    pub(super) options: &'a DiffOptions<'a>,
    /// Changes entries on their way out.
    pub(super) edit: Option<&'a dyn Fn(&mut Entry)>,
    /// Somebody else may be changing the tree.
    pub(super) live: bool,
    writer: Writer<'w>,
    /// Files with several names that were written, by device and inode number.
    links: HashMap<(u64, u64), PathBuf>,
    stats: DiffStats,
}

impl<'a, 'w> Scribe<'a, 'w> {
    pub(super) fn new(out: &'w mut dyn Write, options: &'a DiffOptions<'a>) -> Self {
        Self {
            options,
            edit: None,
            live: false,
            writer: Writer::new(out),
            links: HashMap::new(),
            stats: DiffStats::default(),
        }
    }

    pub(super) fn finish(self) -> Result<DiffStats, Error> {
        self.writer.finish()?;
        Ok(self.stats)
    }

    pub(super) fn whiteout(&mut self, path: &Path) -> Result<(), Error> {
        let name = path.file_name().unwrap_or_default().as_bytes();
        self.marker(path.parent().unwrap_or(Path::new("")), &[WHITEOUT, name].concat())
    }

    pub(super) fn opaque(&mut self, dir: &Path) -> Result<(), Error> {
        self.marker(dir, OPAQUE)
    }

    /// An empty file that means something by its name; nothing else about it is looked at, so it is always the same.
    fn marker(&mut self, dir: &Path, name: &[u8]) -> Result<(), Error> {
        let path = dir.join(OsStr::from_bytes(name));
        self.write(&Entry::new(path.into_os_string().into_encoded_bytes(), Kind::File), &mut std::io::empty())
    }

    pub(super) fn directory(&mut self, path: &Path, stat: &Stat) -> Result<(), Error> {
        let entry = self.describe(path, Kind::Directory, stat);
        self.write(&entry, &mut std::io::empty())
    }

    /// Anything but a directory.
    pub(super) fn leaf(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        stat: &Stat,
    ) -> Result<(), Error> {
        if stat.st_mode & libc::S_IFMT == libc::S_IFSOCK {
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                let mut entry = self.describe(path, Kind::HardLink, stat);
                entry.link = first.as_os_str().as_bytes().to_vec();
                return self.write(&entry, &mut std::io::empty());
            }
            self.links.insert(key, path.to_owned());
        }
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => self.file(dir, name, path, stat),
            libc::S_IFLNK => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())
                    .map_err(|errno| SysError::path("read link", path, errno))?;
                let entry = Entry { link: target.into_bytes(), ..self.describe(path, Kind::Symlink, stat) };
                self.write(&entry, &mut std::io::empty())
            }
            kind => {
                let kind = match kind {
                    libc::S_IFCHR => Kind::CharDevice,
                    libc::S_IFBLK => Kind::BlockDevice,
                    _ => Kind::Fifo,
                };
                let entry = self.describe(path, kind, stat);
                self.write(&entry, &mut std::io::empty())
            }
        }
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &OsStr, path: &Path, stat: &Stat) -> Result<(), Error> {
        let mut entry = self.describe(path, Kind::File, stat);
        if entry.kind != Kind::File {
            // It stands for a device.
            return self.write(&entry, &mut std::io::empty());
        }
        let file = open_file(dir, name, path)?;
        // Of what is open now; the name may have moved on.
        let size = file.metadata().map_err(|error| SysError::path("stat", path, error))?.len();
        entry.size = size;
        if let Some(value) = xattr::get(&file, CAPABILITY)? {
            entry.xattrs.insert(CAPABILITY.into(), value);
        }
        self.stats.bytes += size;
        self.write(&entry, &mut &file)
    }

    /// The header of an entry, with the owner that is true.
    fn describe(&self, path: &Path, kind: Kind, stat: &Stat) -> Entry {
        let mut entry = Entry::new(path.as_os_str().as_bytes(), kind);
        entry.mode = stat.st_mode & 0o7777;
        (entry.uid, entry.gid) = (stat.st_uid, stat.st_gid);
        entry.mtime = Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 };
        entry.device = numbers(stat.st_rdev);
        if let Some(owner) = (self.options.owner)(path) {
            correct(&mut entry, stat, owner);
        }
        entry
    }

    fn write(&mut self, entry: &Entry, content: &mut dyn std::io::Read) -> Result<(), Error> {
        if entry.path.len() > MAX_PATH {
            return Err(Error::Limit(format!(
                "a path of {} bytes, at most {MAX_PATH} allowed",
                entry.path.len()
            )));
        }
        self.stats.entries += 1;
        self.stats.disk += on_disk(entry.kind, entry.size);
        self.stats.highest_id = self.stats.highest_id.max(entry.uid).max(entry.gid);
        match self.edit {
            Some(edit) => {
                let mut entry = entry.clone();
                edit(&mut entry);
                self.writer.append(&entry, content)
            }
            None => self.writer.append(entry, content),
        }
    }
}

/// Put in what the disk could not hold. A record of another kind is about something that had the name before.
fn correct(entry: &mut Entry, stat: &Stat, owner: Owner) {
    let (found, recorded) = (stat.st_mode & libc::S_IFMT, owner.mode & libc::S_IFMT);
    if found == recorded {
        (entry.uid, entry.gid) = (owner.uid, owner.gid);
        // Set-id bits are kept from the disk when their owner cannot be on it; other bits tell of a later chmod.
        if entry.mode & !0o6000 == owner.mode & 0o1777 {
            entry.mode |= owner.mode & 0o6000;
        }
    } else if found == libc::S_IFREG && stat.st_size == 0 && matches!(recorded, libc::S_IFCHR | libc::S_IFBLK)
    {
        (entry.uid, entry.gid) = (owner.uid, owner.gid);
        entry.mode = owner.mode & 0o7777;
        entry.device = numbers(owner.rdev);
        // Another name of a device is a link as any other.
        if entry.kind == Kind::File {
            entry.kind = if recorded == libc::S_IFCHR { Kind::CharDevice } else { Kind::BlockDevice };
        }
    }
}

fn numbers(device: u64) -> (u32, u32) {
    (rustix::fs::major(device), rustix::fs::minor(device))
}

/// Open a directory that was seen under a name.
pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
        .map_err(|errno| SysError::path("open", path, errno).into())
}

/// Open a directory by its path again.
pub(super) fn reopen(root: RootDir<'_>, path: &Path) -> Result<OwnedFd, Error> {
    root.open_plain(path, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|errno| SysError::path("open", path, errno).into())
}

pub(super) fn open_file(dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<File, Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())
        .map_err(|errno| SysError::path("open", path, errno))?;
    Ok(File::from(fd))
}

/// The capability of a file, where it can matter.
pub(super) fn capability(
    dir: impl AsFd,
    name: &OsStr,
    path: &Path,
    stat: &Stat,
) -> Result<Option<Vec<u8>>, Error> {
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG || stat.st_mode & 0o111 == 0 {
        return Ok(None);
    }
    Ok(xattr::get(open_file(dir.as_fd(), name, path)?, CAPABILITY)?)
}
