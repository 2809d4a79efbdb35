//! A layer's tar stream becomes a snapshot.
//!
//! Every call is relative to a descriptor below the root, and no name of the archive is walked by path but through
//! [`RootDir`]. Decisions, where archives leave room:
//!
//! - Names are made plain lexically; one that leads out of the root is refused. Absolute names are relative to it.
//! - A parent that is a link *of this layer* is followed inside of the root, and what a dangling one names is made; a
//!   parent that is any other file is refused. Links of layers below are not seen: a directory takes their place, as
//!   with docker's overlay driver. So the result depends on the archive alone.
//! - A later entry replaces an earlier one of the same name, whole trees included; two directories become one.
//! - Whiteouts concern the layers below only, wherever they stand in the archive. They are made at the end: where the
//!   layer has an entry of that name the entry wins (a directory becomes opaque), and below an opaque directory there
//!   is nothing to delete.
//! - Only `user.*` attributes and `security.capability` are taken over, and of the former not what overlayfs and
//!   fuse-overlayfs act on.

mod create;
mod finish;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::names::{self, Name};
use super::tar::{Entry, Kind, Reader, Time};
use super::{Error, OwnerTable};
use crate::sys::{RootDir, SysError, xattr};

/// How to unpack.
#[derive(Debug, Clone, Copy)]
pub struct ApplyOptions {
    /// Ids below this number can be put on disk; others go to the [`OwnerTable`] and stand on disk as id 0.
    /// `u32::MAX` when every id can.
    pub mapped_ids: u32,
    /// At most this many entries.
    pub max_entries: u64,
    /// At most this many bytes of file content.
    pub max_bytes: u64,
}

/// The block that most file systems give room to files in, in bytes.
const BLOCK: u64 = 4096;

/// Bytes that an entry takes on disk, as near as can be said without asking for each.
pub(in crate::layer) fn on_disk(kind: Kind, size: u64) -> u64 {
    match kind {
        Kind::Directory => BLOCK,
        Kind::File => size.div_ceil(BLOCK).saturating_mul(BLOCK),
        _ => 0,
    }
}

/// What was unpacked.
#[derive(Debug, Default)]
pub struct Applied {
    /// Entries of the tar.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Bytes that files and directories take on disk, in blocks of [`BLOCK`].
    pub disk: u64,
    /// Directories that the tar uses but does not name: made 0755 root, to be given their metadata from below.
    pub implied: Vec<PathBuf>,
    /// Hard links (name, target) whose target is not in this layer: to be linked or copied from below.
    pub foreign_links: Vec<(PathBuf, PathBuf)>,
    /// What the disk could not hold.
    pub owners: OwnerTable,
    /// The highest id that was put on disk, of users and groups; `None` where nobody looked.
    pub highest_id: Option<u32>,
    /// The layer hides everything below it (`.wh..wh..opq` in the root). The kernel does not look for the attribute on
    /// the root of a lower layer: whoever stacks layers has to begin with this one.
    pub opaque_root: bool,
    /// Extended attributes that the file system or the id map refused.
    pub dropped_xattrs: u64,
    /// The archive has an entry for the root itself.
    pub names_root: bool,
}

impl Applied {
    /// Whether the layer's tar stands on its own: it names every directory and link target it uses.
    #[must_use]
    pub fn stands_alone(&self) -> bool {
        self.implied.is_empty() && self.foreign_links.is_empty()
    }
}

/// Unpack an uncompressed tar stream into the empty directory `root`. Nothing outside of it is touched, whatever the
/// archive says; the stream is read to its very end, so that a hash around it sees every byte.
///
/// # Errors
/// When the stream is not a valid tar, passes a limit, or the tree cannot be written.
pub fn apply(tar: &mut dyn Read, root: BorrowedFd<'_>, options: &ApplyOptions) -> Result<Applied, Error> {
    run(tar, Unpacker::new(root, options)?)
}

/// [`apply`] for an archive that is no layer: names that begin with `.wh.` are files like others.
///
/// # Errors
/// As [`apply`].
pub fn apply_plain(
    tar: &mut dyn Read,
    root: BorrowedFd<'_>,
    options: &ApplyOptions,
) -> Result<Applied, Error> {
    run(tar, Unpacker { plain: true, ..Unpacker::new(root, options)? })
}

fn run(tar: &mut dyn Read, mut unpacker: Unpacker<'_>) -> Result<Applied, Error> {
    let mut reader = Reader::new(tar);
    while let Some(entry) = reader.next_entry()? {
        unpacker.take(&mut reader, &entry)?;
    }
    reader.drain()?;
    unpacker.finish()
}

/// Mode of directories that the archive does not name.
const IMPLIED_MODE: u32 = 0o755;

/// A directory that was opened last, to be used for the entries that follow in it.
struct Parent {
    /// As the archive names it.
    asked: PathBuf,
    /// Where it is, without links.
    path: PathBuf,
    fd: OwnedFd,
}

/// What a directory gets at the end, when nothing is made in it any more.
struct DirMeta {
    mode: u32,
    /// What `chmod` would find, when that is known.
    current: Option<u32>,
    mtime: Time,
}

/// The state of unpacking one layer. All paths are relative to the root and without links.
struct Unpacker<'a> {
    root: RootDir<'a>,
    options: &'a ApplyOptions,
    /// There are no whiteouts.
    plain: bool,
    /// Owner and group of what we create.
    ids: (u32, u32),
    umask: u32,
    parent: Option<Rc<Parent>>,
    dirs: BTreeMap<PathBuf, DirMeta>,
    implied: BTreeSet<PathBuf>,
    /// As the archive names them.
    opaques: BTreeSet<PathBuf>,
    whiteouts: BTreeSet<PathBuf>,
    /// Hard links whose target was not there: name and target.
    links: BTreeMap<PathBuf, PathBuf>,
    applied: Applied,
}

impl<'a> Unpacker<'a> {
    fn new(root: BorrowedFd<'a>, options: &'a ApplyOptions) -> Result<Self, Error> {
        let mut dirs = BTreeMap::new();
        let meta = DirMeta { mode: IMPLIED_MODE, current: None, mtime: Time::default() };
        dirs.insert(PathBuf::new(), meta);
        prepare_root(root).map_err(|errno| SysError::new("prepare", "the root of the layer", errno))?;
        Ok(Self {
            root: RootDir::new(root),
            options,
            plain: false,
            ids: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            umask: umask(),
            parent: None,
            dirs,
            implied: BTreeSet::new(),
            opaques: BTreeSet::new(),
            whiteouts: BTreeSet::new(),
            links: BTreeMap::new(),
            applied: Applied { highest_id: Some(0), ..Applied::default() },
        })
    }

    fn take(&mut self, reader: &mut Reader<'_>, entry: &Entry) -> Result<(), Error> {
        self.applied.entries += 1;
        if self.applied.entries > self.options.max_entries {
            return Err(Error::Limit(format!("more than {} entries", self.options.max_entries)));
        }
        self.applied.bytes = self.applied.bytes.saturating_add(entry.size);
        if self.applied.bytes > self.options.max_bytes {
            return Err(Error::Limit(format!("more than {} bytes of content", self.options.max_bytes)));
        }
        self.applied.disk = self.applied.disk.saturating_add(on_disk(entry.kind, entry.size));
        let name = match self.plain {
            true => names::plain(&entry.path),
            false => names::classify(&entry.path),
        };
        match name.map_err(|what| reader.bad(what))? {
            Name::Ignored => Ok(()),
            Name::Whiteout(path) => {
                self.whiteouts.insert(path);
                Ok(())
            }
            Name::Opaque(path) => {
                self.opaques.insert(path);
                Ok(())
            }
            Name::Entry(path) => {
                self.applied.names_root |= path.as_os_str().is_empty();
                self.create(reader, entry, &path)
            }
        }
    }

    /// Open a directory, making it and those above it where they are missing. `None` when something that is not a
    /// directory is in the way.
    fn enter(&mut self, dir: &Path) -> Result<Option<Rc<Parent>>, Error> {
        if let Some(parent) = self.parent.as_ref().filter(|parent| parent.asked == dir) {
            return Ok(Some(Rc::clone(parent)));
        }
        let (fd, path) = match self.root.open_plain(dir, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => (fd, dir.to_owned()),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => match self.root.mkdir_all(dir, IMPLIED_MODE) {
                Ok(made) => {
                    made.made.into_iter().for_each(|path| self.imply(path));
                    (made.fd, made.path)
                }
                Err(error) if error.errno() == Some(Errno::NOTDIR.raw_os_error()) => return Ok(None),
                Err(error) => return Err(error.into()),
            },
            Err(errno) => return Err(SysError::path("open", dir, errno).into()),
        };
        let parent = Rc::new(Parent { asked: dir.to_owned(), path, fd });
        self.parent = Some(Rc::clone(&parent));
        Ok(Some(parent))
    }

    fn imply(&mut self, path: PathBuf) {
        let meta =
            DirMeta { mode: IMPLIED_MODE, current: Some(IMPLIED_MODE & !self.umask), mtime: Time::default() };
        self.dirs.insert(path.clone(), meta);
        self.implied.insert(path);
    }
}

/// What the root may have inherited from where it was made must not be passed on to what is made in it: a set-group-id
/// bit and default access control lists.
fn prepare_root(root: BorrowedFd<'_>) -> Result<(), Errno> {
    let fd =
        rustix::fs::openat(root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o700))?;
    // Most file systems have none to remove; where one is kept, chmod at the end still tells the mode.
    let _ = xattr::remove(&fd, "system.posix_acl_default");
    Ok(())
}

/// The file creation mask, read without changing it for a moment, as umask(2) would. Unknown counts as one that takes
/// everything away, so that every mode is then set.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
}

#[cfg(test)]
mod tests;
