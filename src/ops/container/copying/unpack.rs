//! A tar becomes files below a directory that somebody else may be changing: every step is taken from a descriptor, and
//! no link is followed on the way.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::Error;
use super::place::{self, Place, Wanted};
use super::settle::{Made, settle};
use crate::layer::tar::{Content, Entry, Kind, Reader};
use crate::sys::{RootDir, SysError};

/// Whose files the copies are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Those of the user who copies, whom no set-id bit of somebody else's file shall stand for.
    Own,
    /// Those of the container's root.
    Root,
    /// As the archive says, where that can be.
    Kept,
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of files.
    pub bytes: u64,
    /// Files whose owner could not be kept.
    pub disowned: u64,
    /// Devices that could not be made.
    pub skipped: u64,
}

/// Bring the files of a tar to `to` below `root`. With a `source` the tar holds that, called `.`, and docker's rules say
/// what it becomes; without one `to` is a directory that takes whatever the tar names.
///
/// # Errors
/// When they do not belong there, the tar is none, or something cannot be written.
pub fn unpack(
    tar: &mut dyn Read,
    root: RootDir<'_>,
    to: &Wanted,
    source: Option<&Wanted>,
    owners: Owners,
) -> Result<Unpacked, Error> {
    let mut reader = Reader::new(tar);
    let mut unpacker: Option<Unpacker> = None;
    while let Some(entry) = reader.next_entry()? {
        let unpacker = match &mut unpacker {
            Some(unpacker) => unpacker,
            slot => {
                let place = match source {
                    Some(source) => place::decide(root, to, source, entry.kind == Kind::Directory)?,
                    None => directory(root, to)?,
                };
                slot.insert(Unpacker::new(place, owners))
            }
        };
        unpacker.take(&mut reader, &entry)?;
    }
    reader.drain()?;
    let Some(unpacker) = unpacker else {
        // An empty archive still has to have a place to go.
        return directory(root, to).map(|_| Unpacked::default());
    };
    unpacker.finish()
}

fn directory(root: RootDir<'_>, to: &Wanted) -> Result<Place, Error> {
    match root.open(&to.path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
        Ok(dir) => Ok(Place { dir, name: None }),
        Err(error) if error.errno() == Some(libc::ENOENT) => Err(Error::NoDirectory(to.path.clone())),
        Err(error) if error.errno() == Some(libc::ENOTDIR) => Err(Error::NotADirectory(to.path.clone())),
        Err(error) => Err(error.into()),
    }
}

struct Unpacker {
    place: Place,
    owners: Owners,
    done: Unpacked,
    /// Directories get their times and modes when nothing is made in them any more.
    dirs: Vec<(PathBuf, Entry)>,
}

/// Something that is there.
fn kind_at(dir: &OwnedFd, name: &OsStr) -> Option<FileType> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

impl Unpacker {
    fn new(place: Place, owners: Owners) -> Self {
        Self { place, owners, done: Unpacked::default(), dirs: Vec::new() }
    }

    /// The path of an archive's name below our directory; nothing for the directory itself.
    fn path(&self, name: &[u8]) -> Result<PathBuf, Error> {
        let bad = || Error::BadName(String::from_utf8_lossy(name).into_owned());
        let mut path: PathBuf = self.place.name.iter().collect();
        for part in Path::new(OsStr::from_bytes(name)).components() {
            match part {
                Component::Normal(part) => path.push(part),
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(bad()),
            }
        }
        Ok(path)
    }

    /// The directory above a path, made where the archive does not name it, and the last name.
    fn parent(&self, path: &Path) -> Result<(OwnedFd, OsString), Error> {
        let name = path.file_name().unwrap_or_default().to_owned();
        let above = path.parent().unwrap_or(Path::new(""));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = RootDir::new(self.place.dir.as_fd());
        let failed = |error| Error::from(SysError::path("open", above, error));
        match root.open_plain(above, flags) {
            Ok(dir) => Ok((dir, name)),
            Err(Errno::NOENT) => {
                let (dir, last) = self.parent(above)?;
                match rustix::fs::mkdirat(&dir, &last, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(failed(error)),
                }
                Ok((root.open_plain(above, flags).map_err(failed)?, name))
            }
            Err(Errno::NOTDIR | Errno::LOOP) => Err(Error::NotADirectory(above.display().to_string())),
            Err(error) => Err(failed(error)),
        }
    }

    fn take(&mut self, reader: &mut Reader<'_>, entry: &Entry) -> Result<(), Error> {
        let path = self.path(&entry.path)?;
        if path.as_os_str().is_empty() {
            return match entry.kind {
                // It is there, and stays as it is.
                Kind::Directory => Ok(()),
                _ => Err(Error::BadName(".".into())),
            };
        }
        let (dir, name) = self.parent(&path)?;
        let there = kind_at(&dir, &name);
        match (entry.kind == Kind::Directory, there) {
            (true, Some(FileType::Directory)) => {
                self.dirs.push((path, entry.clone()));
                return Ok(());
            }
            (true, Some(_)) => return Err(Error::DirectoryOverFile(path.display().to_string())),
            (false, Some(FileType::Directory)) => {
                return Err(Error::FileOverDirectory(path.display().to_string()));
            }
            _ => {}
        }
        let failed = |error| Error::from(SysError::path("create", &path, error));
        match entry.kind {
            Kind::Directory => {
                rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o700)).map_err(failed)?;
                self.dirs.push((path, entry.clone()));
            }
            Kind::File => self.file(reader, entry, &dir, &name, &path)?,
            _ => self.special(entry, &dir, &name, &path)?,
        }
        Ok(())
    }

    /// A name of our own beside the real one, which then takes its place whole.
    /// Random: nobody knows it before it is there, and what a killed copy left is in nobody's way.
    fn temporary() -> Result<OsString, Error> {
        let mut random = [0_u8; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| SysError::new("make", "a random name", error))?;
        Ok(format!(".strate-cp-{:016x}", u64::from_le_bytes(random)).into())
    }

    fn file(
        &mut self,
        reader: &mut Reader<'_>,
        entry: &Entry,
        dir: &OwnedFd,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), Error> {
        let failed = |error| Error::from(SysError::path("write", path, error));
        let temporary = Self::temporary()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, &temporary, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        let mut file = std::fs::File::from(file);
        let mut content = Content::new(reader, entry);
        let copied = pour(&mut content, &mut file, entry.size);
        let placed = match (copied, content.into_failure()) {
            (_, Some(error)) => Err(error.into()),
            (Err(error), None) => Err(SysError::path("write", path, error).into()),
            (Ok(()), None) => {
                self.done.bytes += entry.size;
                self.disown(rustix::fs::fchown(&file, self.uid(entry), self.gid(entry)));
                let mode = rustix::fs::fchmod(&file, self.mode(entry));
                let times = rustix::fs::futimens(&file, &times(entry));
                mode.and(times)
                    .map_err(failed)
                    .and_then(|()| settle(dir, &mut file, &temporary, name).map_err(failed))
            }
        };
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(dir, &temporary, AtFlags::empty());
        }
        placed
    }

    fn special(&mut self, entry: &Entry, dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), Error> {
        let failed = |error| Error::from(SysError::path("create", path, error));
        let temporary = Self::temporary()?;
        let done = self.make_special(entry, dir, &temporary, path).and_then(|made| {
            if made { rustix::fs::renameat(dir, &temporary, dir, name).map_err(failed) } else { Ok(()) }
        });
        // A second name of the file that was there: the rename did nothing.
        if done.is_err() || entry.kind == Kind::HardLink {
            let _ = rustix::fs::unlinkat(dir, &temporary, AtFlags::empty());
        }
        done
    }

    /// Make what holds no data, with its attributes; false for a device that may not be made.
    fn make_special(
        &mut self,
        entry: &Entry,
        dir: &OwnedFd,
        temporary: &OsStr,
        path: &Path,
    ) -> Result<bool, Error> {
        let failed = |error| Error::from(SysError::path("create", path, error));
        let mode = self.mode(entry);
        let kind = match entry.kind {
            Kind::Symlink => FileType::Symlink,
            Kind::HardLink => {
                let (from, last) = self.parent(&self.path(&entry.link)?)?;
                rustix::fs::linkat(&from, &last, dir, temporary, AtFlags::empty()).map_err(failed)?;
                return Ok(true);
            }
            Kind::Fifo => FileType::Fifo,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::CharacterDevice,
        };
        let mut device = 0;
        if kind == FileType::Symlink {
            rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), dir, temporary).map_err(failed)?;
        } else {
            if kind != FileType::Fifo {
                device = rustix::fs::makedev(entry.device.0, entry.device.1);
            }
            match rustix::fs::mknodat(dir, temporary, kind, mode, device) {
                Ok(()) => {}
                Err(Errno::PERM) if kind != FileType::Fifo => {
                    self.done.skipped += 1;
                    return Ok(false);
                }
                Err(error) => return Err(failed(error)),
            }
        }
        let replaced = || Error::Replaced(path.display().to_string());
        let made = Made::open(dir, temporary, kind, device).map_err(failed)?.ok_or_else(replaced)?;
        self.disown(made.chown(self.uid(entry), self.gid(entry)));
        if kind != FileType::Symlink {
            made.chmod(mode).map_err(failed)?;
        }
        let _ = rustix::fs::utimensat(dir, temporary, &times(entry), AtFlags::SYMLINK_NOFOLLOW);
        Ok(true)
    }

    fn mode(&self, entry: &Entry) -> Mode {
        let taken = if self.owners == Owners::Own { 0o6000 } else { 0 };
        Mode::from_raw_mode(entry.mode & !taken)
    }

    fn uid(&self, entry: &Entry) -> Option<Uid> {
        (self.owners == Owners::Kept).then(|| Uid::from_raw(entry.uid))
    }

    fn gid(&self, entry: &Entry) -> Option<Gid> {
        (self.owners == Owners::Kept).then(|| Gid::from_raw(entry.gid))
    }

    /// An owner that cannot be is no reason to lose the file.
    fn disown(&mut self, result: Result<(), Errno>) {
        self.done.disowned += u64::from(self.owners == Owners::Kept && result.is_err());
    }

    fn finish(mut self) -> Result<Unpacked, Error> {
        for (path, entry) in std::mem::take(&mut self.dirs).into_iter().rev() {
            let failed = |error| Error::from(SysError::path("set the attributes of", &path, error));
            let root = RootDir::new(self.place.dir.as_fd());
            let dir = root.open_plain(&path, OFlags::RDONLY | OFlags::DIRECTORY);
            let dir = match dir {
                Ok(dir) => dir,
                // Somebody took it away meanwhile.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(failed(error)),
            };
            self.disown(rustix::fs::fchown(&dir, self.uid(&entry), self.gid(&entry)));
            rustix::fs::fchmod(&dir, self.mode(&entry)).map_err(failed)?;
            rustix::fs::futimens(&dir, &times(&entry)).map_err(failed)?;
        }
        Ok(self.done)
    }
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: i64::from(entry.mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}

/// Copy content; what is only zeros becomes a hole.
fn pour(content: &mut dyn Read, file: &mut std::fs::File, size: u64) -> std::io::Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let got = match content.read(&mut buffer) {
            Ok(0) => return file.set_len(size),
            Ok(got) => got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let piece = &buffer[..got];
        if piece.iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Current(i64::try_from(got).unwrap_or(0)))?;
        } else {
            file.write_all(piece)?;
        }
    }
}
