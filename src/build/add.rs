//! Archives in a build: ADD of a tar, recognised by content and unpacked over what is there, and contexts that come as
//! one.
//!
//! Unlike a layer, an archive lands in a tree that has files already, whose directory links are followed (inside the
//! root), and has no whiteouts.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, OFlags, Timespec, XattrFlags, fsetxattr};

use super::beneath::{self, kind};
use super::checksum::CAPABILITY;
use super::copy::{CopyError, failed};
use super::put::{Meta, Placer, set_mtime};
use super::tree::Tree;
use crate::archive::decompressed;
use crate::layer::OwnerTable;
use crate::layer::tar::{Content, Entry, Kind, Reader, is_header};

/// Most entries of an archive.
const MAX_ENTRIES: u64 = 10_000_000;
/// Most bytes of content of an archive.
const MAX_BYTES: u64 = 1 << 40;

/// An archive that stays open, plain or compressed.
pub(super) type Data = Box<dyn Read + Send>;

/// Whether a source is an archive. Directories and what is not a regular file never are.
pub(super) fn sniff(tree: &Tree, source: &Path) -> Result<bool, CopyError> {
    match open(tree, source)? {
        Some(file) => is_archive(Box::new(file)).map_err(failed("read", source)),
        None => Ok(false),
    }
}

/// Whether data is a tar, possibly compressed with gzip, bzip2, xz or zstd. What cannot be decompressed is no archive
/// but data that looks like one.
pub(super) fn is_archive(data: Data) -> io::Result<bool> {
    let Ok((_, mut data)) = decompressed(data) else { return Ok(false) };
    let mut block = [0; 512];
    Ok(matches!(read_full(&mut data, &mut block), Ok(512)) && is_header(&block))
}

fn open(tree: &Tree, source: &Path) -> Result<Option<File>, CopyError> {
    let found = tree.resolve(source, true).map_err(failed("look at", source))?;
    match found.stat {
        Some(stat) if kind(&stat) == FileType::RegularFile => {
            let fd = tree.open(&found.path, OFlags::NONBLOCK).map_err(failed("open", source))?;
            Ok(Some(File::from(fd)))
        }
        _ => Ok(None),
    }
}

fn read_full(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match from.read(&mut into[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Unpacks one archive.
struct Unpacker<'a, 'p> {
    placer: &'p mut Placer<'a>,
    /// What the archive is called in errors.
    source: &'p Path,
    owner: Option<(u32, u32)>,
    dest: PathBuf,
    /// Times of directories, set when everything is in them.
    times: Vec<(PathBuf, Timespec)>,
    /// Bytes that may still come.
    room: u64,
}

/// Unpack an archive that [`sniff`] saw below the directory `dest` of the placer's root.
pub(super) fn unpack(
    tree: &Tree,
    source: &Path,
    placer: &mut Placer<'_>,
    dest: &Path,
    owner: Option<(u32, u32)>,
) -> Result<(), CopyError> {
    let Some(file) = open(tree, source)? else { return Err(CopyError::NotFound(source.to_owned())) };
    unpack_data(Box::new(file), source, placer, dest, owner)
}

/// Unpack an archive below the directory `dest` of the placer's root; `source` is its name in errors.
pub(super) fn unpack_data(
    data: Data,
    source: &Path,
    placer: &mut Placer<'_>,
    dest: &Path,
    owner: Option<(u32, u32)>,
) -> Result<(), CopyError> {
    let broken = |error: io::Error| failed("unpack", source)(error);
    let (_, mut data) = decompressed(data).map_err(broken)?;
    let (uid, gid) = owner.unwrap_or((0, 0));
    let dest = placer.make_dirs(dest, uid, gid, 0o755)?;
    let mut unpacker = Unpacker { placer, source, owner, dest, times: Vec::new(), room: MAX_BYTES };
    let mut reader = Reader::new(&mut data);
    let mut entries = 0;
    while let Some(entry) = reader.next_entry().map_err(io::Error::other).map_err(broken)? {
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(broken(io::Error::other("it has more than ten million entries")));
        }
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.finish()
}

/// Unpack an archive as a context: into an empty directory, with the owners that it says. Those that the disk could not
/// hold come back.
///
/// # Errors
/// When it is no archive, or its files cannot be written.
pub fn unpack_context(
    data: Box<dyn Read + Send>,
    directory: BorrowedFd<'_>,
) -> Result<OwnerTable, CopyError> {
    let mut placer = Placer::new(directory);
    unpack_data(data, Path::new("the context"), &mut placer, Path::new("/"), None)?;
    Ok(placer.owners)
}

/// Whether data that begins like this is an archive: by magic bytes, or a tar header.
#[must_use]
pub fn looks_like_archive(start: &[u8]) -> bool {
    let magics: [&[u8]; 4] = [b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    magics.iter().any(|magic| start.starts_with(magic)) || start.first_chunk::<512>().is_some_and(is_header)
}

impl Unpacker<'_, '_> {
    fn broken(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CopyError {
        failed("unpack", self.source)(io::Error::other(error))
    }

    fn entry(&mut self, entry: &Entry, reader: &mut Reader<'_>) -> Result<(), CopyError> {
        let meta = self.meta(entry);
        let inside = normal(Path::new(std::ffi::OsStr::from_bytes(&entry.path)));
        if inside.as_os_str().is_empty() {
            let dest = self.dest.clone();
            return if entry.kind == Kind::Directory { self.directory(&dest, &meta) } else { Ok(()) };
        }
        // Directories that the archive does not name are root's, whatever `--chown` says: the reference's way.
        let parent = self.dest.join(inside.parent().unwrap_or(Path::new("")));
        let parent = self.placer.make_dirs(&parent, 0, 0, 0o755)?;
        let path = parent.join(inside.file_name().unwrap_or_default());
        if entry.kind == Kind::Directory {
            return self.directory(&path, &meta);
        }
        let dir = self.placer.open_dir(&parent)?;
        self.placer.clear_all(dir.as_fd(), &path)?;
        match entry.kind {
            Kind::File => self.file(entry, reader, dir.as_fd(), &path, &meta),
            Kind::HardLink => self.hard_link(entry, dir.as_fd(), &path, &meta),
            Kind::Symlink => self.placer.symlink(&entry.link, dir.as_fd(), &path, &meta),
            Kind::CharDevice | Kind::BlockDevice => self.placer.special(dir.as_fd(), &path, &meta),
            // The reference leaves pipes out here.
            Kind::Fifo | Kind::Directory => Ok(()),
        }
    }

    fn file(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<'_>,
        dir: BorrowedFd<'_>,
        path: &Path,
        meta: &Meta,
    ) -> Result<(), CopyError> {
        self.room = self
            .room
            .checked_sub(entry.size)
            .ok_or_else(|| self.broken("its files hold more than a tebibyte"))?;
        let mut content = Content::new(reader, entry);
        let written = self.placer.file(dir, path, &mut content, meta);
        if let Some(error) = content.into_failure() {
            return Err(self.broken(error));
        }
        written?;
        if let Some(value) = entry.xattrs.get(CAPABILITY.as_bytes()) {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            let file: OwnedFd = beneath::open(self.placer.root, path, flags, rustix::fs::Mode::empty())
                .map_err(failed("open", path))?;
            // Best effort, as the reference: a kernel may refuse it to us.
            let _ = fsetxattr(&file, CAPABILITY, value, XattrFlags::empty());
        }
        Ok(())
    }

    /// Another file with the content of one that has as many names as the file system can keep.
    fn copy_again(
        &mut self,
        first: &Path,
        dir: BorrowedFd<'_>,
        path: &Path,
        meta: &Meta,
    ) -> Result<(), CopyError> {
        let from = self.placer.open_dir(first.parent().unwrap_or(Path::new("")))?;
        let name = first.file_name().unwrap_or_default();
        self.placer.copy_file(from.as_fd(), name, first, dir, path, meta)
    }

    fn hard_link(
        &mut self,
        entry: &Entry,
        dir: BorrowedFd<'_>,
        path: &Path,
        meta: &Meta,
    ) -> Result<(), CopyError> {
        let target = self.inside(Path::new(std::ffi::OsStr::from_bytes(&entry.link)))?;
        let name = path.file_name().unwrap_or_default();
        match self.placer.hard_link(&target, dir, name, path) {
            Err(error) if error.is_too_many_links() => self.copy_again(&target, dir, path, meta)?,
            linked => linked?,
        }
        // What the archive says of this name is said of the file, as in the reference.
        match beneath::stat(self.placer.root, path).map_err(failed("look at", path))? {
            Some(stat) if kind(&stat) == FileType::RegularFile => {
                self.placer.finish_at(dir, path, meta, true)
            }
            _ => Ok(()),
        }
    }

    fn directory(&mut self, path: &Path, meta: &Meta) -> Result<(), CopyError> {
        let found = beneath::stat(self.placer.root, path).map_err(failed("look at", path))?;
        let parent = self.placer.open_dir(path.parent().unwrap_or(Path::new("")))?;
        if found.is_some_and(|stat| kind(&stat) != FileType::Directory) {
            self.placer.clear_all(parent.as_fd(), path)?;
        }
        let dir = if path.as_os_str().is_empty() {
            self.placer.open_dir(path)?
        } else {
            self.placer.enter_dir(parent.as_fd(), path)?
        };
        self.placer.finish_dir(dir.as_fd(), path, &Meta { mtime: None, ..*meta })?;
        self.times.extend(meta.mtime.map(|mtime| (path.to_owned(), mtime)));
        Ok(())
    }

    /// A hard link's target: a path of the archive, below the destination.
    fn inside(&self, target: &Path) -> Result<PathBuf, CopyError> {
        let path = self.dest.join(normal(target));
        let found = beneath::resolve(self.placer.root, &path, false).map_err(failed("look at", &path))?;
        found.stat.map(|_| found.path).ok_or(CopyError::NotFound(path))
    }

    fn meta(&self, entry: &Entry) -> Meta {
        let file_type = match entry.kind {
            Kind::Directory => FileType::Directory,
            Kind::Symlink => FileType::Symlink,
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::RegularFile,
        };
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let (major, minor) = entry.device;
        Meta {
            uid,
            gid,
            mode: file_type.as_raw_mode() | (entry.mode & 0o7777),
            rdev: rustix::fs::makedev(major, minor),
            mtime: Some(Timespec { tv_sec: entry.mtime.seconds, tv_nsec: entry.mtime.nanos.into() }),
            chown_always: true,
        }
    }

    fn finish(self) -> Result<(), CopyError> {
        for (path, mtime) in self.times.iter().rev() {
            let dir = self.placer.open_dir(path)?;
            set_mtime(dir.as_fd(), *mtime).map_err(failed("set the times of", path))?;
        }
        Ok(())
    }
}

/// A path of the archive, `..` clamped at its top.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) if !name.as_bytes().is_empty() => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            _ => {}
        }
    }
    normal
}

#[cfg(test)]
#[path = "add_tests.rs"]
mod tests;
