//! One entry of the archive becomes one of the tree.

use std::ffi::OsStr;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::super::complete::copy_to;
use super::super::names;
use super::{DirMeta, Entry, Error, Kind, Parent, Reader, Time, Unpacker};
use crate::layer::Owner;
use crate::sys::{SysError, tree, xattr};

/// Where an entry goes: an open directory and a name in it.
pub(super) struct Place<'p> {
    pub(super) parent: Rc<Parent>,
    pub(super) name: &'p OsStr,
    /// The same from the root, without links.
    pub(super) real: PathBuf,
}

impl Place<'_> {
    fn dir(&self) -> BorrowedFd<'_> {
        self.parent.fd.as_fd()
    }

    fn error(&self, operation: &'static str, errno: Errno) -> Error {
        SysError::path(operation, &self.real, errno).into()
    }
}

impl Unpacker<'_> {
    pub(super) fn create(
        &mut self,
        reader: &mut Reader<'_>,
        entry: &Entry,
        path: &Path,
    ) -> Result<(), Error> {
        let Some(name) = path.file_name() else {
            return self.root_entry(reader, entry);
        };
        let dir = path.parent().unwrap_or(Path::new(""));
        let Some(parent) = self.enter(dir)? else {
            return Err(
                reader.bad(format!("`{}` lies below something that is not a directory", path.display()))
            );
        };
        let real = parent.path.join(name);
        let place = Place { parent, name, real };
        match entry.kind {
            Kind::File => self.file(reader, entry, &place),
            Kind::Directory => self.directory(entry, path, place),
            Kind::Symlink => self.symlink(reader, entry, &place),
            Kind::HardLink => self.hard_link(reader, entry, &place),
            Kind::CharDevice => self.node(entry, &place, FileType::CharacterDevice),
            Kind::BlockDevice => self.node(entry, &place, FileType::BlockDevice),
            Kind::Fifo => self.node(entry, &place, FileType::Fifo),
        }
    }

    /// The root can only be described, not replaced.
    fn root_entry(&mut self, reader: &Reader<'_>, entry: &Entry) -> Result<(), Error> {
        if entry.kind != Kind::Directory {
            return Err(reader.bad("the root is not a directory"));
        }
        let fd = self.root.open_dir("")?;
        let mode =
            self.own(entry, Path::new(""), libc::S_IFDIR, |uid, gid| rustix::fs::fchown(&fd, uid, gid))?;
        self.attributes(&fd, entry, Path::new(""))?;
        self.dirs.insert(PathBuf::new(), DirMeta { mode, current: None, mtime: entry.mtime });
        Ok(())
    }

    /// Make something under a name; what has the name is removed.
    fn put<T>(
        &mut self,
        place: &Place<'_>,
        make: impl Fn(BorrowedFd<'_>, &OsStr) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if !self.links.is_empty() {
            self.links.remove(&place.real);
        }
        match make(place.dir(), place.name) {
            Err(Errno::EXIST) => {
                tree::remove_all(place.dir(), place.name)
                    .map_err(|error| Errno::from_io_error(&error.source).unwrap_or(Errno::IO))?;
                self.forget(&place.real);
                make(place.dir(), place.name)
            }
            answer => answer,
        }
    }

    /// Drop what is known of a path and all below it.
    fn forget(&mut self, path: &Path) {
        let below = (Bound::Included(path), Bound::Unbounded);
        let inside = |entry: &&PathBuf| entry.starts_with(path);
        let dirs: Vec<PathBuf> =
            self.dirs.range::<Path, _>(below).map(|(dir, _)| dir).take_while(inside).cloned().collect();
        for dir in dirs {
            self.dirs.remove(&dir);
            self.implied.remove(&dir);
        }
        let links: Vec<PathBuf> =
            self.links.range::<Path, _>(below).map(|(link, _)| link).take_while(inside).cloned().collect();
        for link in links {
            self.links.remove(&link);
        }
        self.applied.owners.remove_tree(path);
    }

    fn file(&mut self, reader: &mut Reader<'_>, entry: &Entry, place: &Place<'_>) -> Result<(), Error> {
        // Attributes can be set by who may write, which an owner without capabilities does by mode.
        let first = if entry.xattrs.is_empty() { entry.mode & 0o777 } else { entry.mode & 0o777 | 0o600 };
        let fd = self.create_file(place, first).map_err(|errno| place.error("create", errno))?;
        match &entry.sparse {
            None => {
                while let Some(chunk) = reader.chunk()? {
                    write_all(&fd, chunk).map_err(|errno| place.error("write", errno))?;
                }
            }
            Some(_) => sparse(reader, entry, &fd, place)?,
        }
        let mode =
            self.own(entry, &place.real, libc::S_IFREG, |uid, gid| rustix::fs::fchown(&fd, uid, gid))?;
        self.attributes(&fd, entry, &place.real)?;
        if mode != first & !self.umask {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))
                .map_err(|errno| place.error("set the mode of", errno))?;
        }
        rustix::fs::futimens(&fd, &times(entry.mtime)).map_err(|errno| place.error("set the time of", errno))
    }

    fn create_file(&mut self, place: &Place<'_>, mode: u32) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.put(place, |dir, name| rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode)))
    }

    fn directory(&mut self, entry: &Entry, asked: &Path, place: Place<'_>) -> Result<(), Error> {
        // Ours to work in until the end, whatever the archive says.
        let first = entry.mode & 0o777 | 0o700;
        let is_dir = |dir: BorrowedFd<'_>, name: &OsStr| {
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        };
        let made =
            self.put(&place, |dir, name| match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(first)) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) if is_dir(dir, name)? => Ok(false),
                Err(errno) => Err(errno),
            });
        let made = made.map_err(|errno| place.error("create directory", errno))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(place.dir(), place.name, flags, Mode::empty())
            .map_err(|errno| place.error("open", errno))?;
        let mode =
            self.own(entry, &place.real, libc::S_IFDIR, |uid, gid| rustix::fs::fchown(&fd, uid, gid))?;
        self.attributes(&fd, entry, &place.real)?;
        let current = made.then_some(first & !self.umask);
        self.dirs.insert(place.real.clone(), DirMeta { mode, current, mtime: entry.mtime });
        self.implied.remove(&place.real);
        // Archives name a directory before what is in it.
        self.parent = Some(Rc::new(Parent { asked: asked.to_owned(), path: place.real, fd }));
        Ok(())
    }

    fn symlink(&mut self, reader: &Reader<'_>, entry: &Entry, place: &Place<'_>) -> Result<(), Error> {
        if entry.link.is_empty() || entry.link.contains(&0) {
            return Err(reader.bad(format!("`{}` is a link to nothing", place.real.display())));
        }
        let target = OsStr::from_bytes(&entry.link);
        self.put(place, |dir, name| rustix::fs::symlinkat(target, dir, name))
            .map_err(|errno| place.error("create link", errno))?;
        self.own(entry, &place.real, libc::S_IFLNK, |uid, gid| {
            rustix::fs::chownat(place.dir(), place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        })?;
        place.set_time(entry.mtime)
    }

    /// A device or a pipe. A device that cannot be made stands on disk as an empty file, and so does one with the
    /// numbers of an overlay whiteout, which would hide a file instead of being one.
    fn node(&mut self, entry: &Entry, place: &Place<'_>, kind: FileType) -> Result<(), Error> {
        let (major, minor) = entry.device;
        let device = rustix::fs::makedev(major, minor);
        let is_whiteout = kind == FileType::CharacterDevice && (major, minor) == (0, 0);
        let first = Mode::from_raw_mode(entry.mode & 0o777);
        let made = if is_whiteout {
            Err(Errno::PERM)
        } else {
            self.put(place, |dir, name| rustix::fs::mknodat(dir, name, kind, first, device))
        };
        match made {
            Err(Errno::PERM | Errno::INVAL) if kind != FileType::Fifo => {
                self.create_file(place, entry.mode & 0o777).map_err(|errno| place.error("create", errno))?;
                let mode = kind.as_raw_mode() | entry.mode;
                let owner = Owner { uid: entry.uid, gid: entry.gid, mode, rdev: device };
                self.applied.owners.insert(place.real.clone(), owner);
            }
            Err(errno) => return Err(place.error("create", errno)),
            Ok(()) => {
                let mode = self.own(entry, &place.real, kind.as_raw_mode(), |uid, gid| {
                    rustix::fs::chownat(place.dir(), place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                })?;
                // Nobody else works in here: what we just made is not a link.
                rustix::fs::chmodat(place.dir(), place.name, Mode::from_raw_mode(mode), AtFlags::empty())
                    .map_err(|errno| place.error("set the mode of", errno))?;
            }
        }
        place.set_time(entry.mtime)
    }

    fn hard_link(&mut self, reader: &Reader<'_>, entry: &Entry, place: &Place<'_>) -> Result<(), Error> {
        let target = names::normalise(&entry.link).map_err(|what| reader.bad(what))?;
        if target.as_os_str().is_empty() {
            return Err(reader.bad(format!("`{}` is a hard link to the root", place.real.display())));
        }
        if !self.link(place, &target)? {
            // It may come later in this layer, or be in one below.
            self.put(place, |dir, name| match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => Ok(()),
                Ok(_) => Err(Errno::EXIST),
                Err(errno) => Err(errno),
            })
            .map_err(|errno| place.error("create hard link", errno))?;
            self.links.insert(place.real.clone(), target);
            return Ok(());
        }
        self.own_link(entry, place, &target)
    }

    /// The last entry of a file speaks for it, also when it is a link: docker and containerd do so, GNU tar does not.
    fn own_link(&mut self, entry: &Entry, place: &Place<'_>, target: &Path) -> Result<(), Error> {
        let now = rustix::fs::statat(place.dir(), place.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| place.error("look at", errno))?;
        let same = (now.st_uid, now.st_gid, now.st_mode & 0o7777) == (entry.uid, entry.gid, entry.mode);
        let kind = FileType::from_raw_mode(now.st_mode);
        if same || kind == FileType::Symlink {
            return Ok(());
        }
        let chown =
            |uid, gid| rustix::fs::chownat(place.dir(), place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
        if self.options.mapped_ids > 1 && (now.st_uid, now.st_gid) != self.ids {
            // `own` takes it that the file is as we make them.
            let (uid, gid) = self.ids;
            chown(Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|errno| place.error("set the owner of", errno))?;
        }
        let mode = self.own(entry, &place.real, kind.as_raw_mode(), chown)?;
        rustix::fs::chmodat(place.dir(), place.name, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(|errno| place.error("set the mode of", errno))?;
        if let Some(from) = self.find(target)? {
            match self.applied.owners.get(&place.real) {
                Some(owner) => self.applied.owners.insert(from.real, owner),
                None => self.applied.owners.remove(&from.real),
            }
        }
        Ok(())
    }

    /// Link a name to a target of this layer; false when the layer has none.
    pub(super) fn link(&mut self, place: &Place<'_>, target: &Path) -> Result<bool, Error> {
        let Some(from) = self.find(target)? else { return Ok(false) };
        if from.real == place.real {
            return Ok(rustix::fs::statat(from.dir(), from.name, AtFlags::SYMLINK_NOFOLLOW).is_ok());
        }
        let make = |dir: BorrowedFd<'_>, name: &OsStr| {
            rustix::fs::linkat(from.dir(), from.name, dir, name, AtFlags::empty())
        };
        match self.put(place, make) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            // The file has as many names as the file system can keep: this one is of a copy.
            Err(Errno::MLINK) => copy_to(from.dir(), from.name, place.dir(), place.name, &place.real)?,
            Err(errno) => return Err(place.error("create hard link", errno)),
        }
        match self.applied.owners.get(&from.real) {
            Some(owner) => self.applied.owners.insert(place.real.clone(), owner),
            None => self.applied.owners.remove(&place.real),
        }
        Ok(true)
    }

    /// The directory that a path of this layer lies in, if there is one.
    fn find<'p>(&self, path: &'p Path) -> Result<Option<Place<'p>>, Error> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        if let Some(parent) = self.parent.as_ref().filter(|parent| parent.asked == dir) {
            return Ok(Some(Place { parent: Rc::clone(parent), name, real: parent.path.join(name) }));
        }
        let found = match self.root.open_plain(dir, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => Ok((fd, dir.to_owned())),
            Err(Errno::LOOP | Errno::NOTDIR) => self.root.locate(path, false).map(|found| {
                let dir = found.path.parent().unwrap_or(Path::new("")).to_owned();
                (found.parent, dir)
            }),
            Err(errno) => Err(SysError::path("open", dir, errno)),
        };
        let missing = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].map(|errno| Some(errno.raw_os_error()));
        match found {
            Ok((fd, dir)) => {
                let real = dir.join(name);
                let parent = Rc::new(Parent { asked: PathBuf::new(), path: dir, fd });
                Ok(Some(Place { parent, name, real }))
            }
            Err(error) if missing.contains(&error.errno()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Give an entry its owner, as far as the disk can hold it, and remember what it cannot. The mode for the disk:
    /// without the set-id bits of an owner that is not there, lest they give somebody else's rights.
    fn own(
        &mut self,
        entry: &Entry,
        real: &Path,
        kind: u32,
        chown: impl FnOnce(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
    ) -> Result<u32, Error> {
        let mapped = self.options.mapped_ids;
        let (mut uid_fits, mut gid_fits) = (entry.uid < mapped.max(1), entry.gid < mapped.max(1));
        let uid = if uid_fits { entry.uid } else { 0 };
        let gid = if gid_fits { entry.gid } else { 0 };
        // With a single id everything is ours already.
        if mapped > 1 && (uid, gid) != self.ids {
            match chown(Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
                Ok(()) => {}
                Err(Errno::INVAL | Errno::PERM) => (uid_fits, gid_fits) = (false, false),
                Err(errno) => return Err(SysError::path("set the owner of", real, errno).into()),
            }
        }
        if uid_fits && gid_fits {
            self.applied.highest_id = self.applied.highest_id.max(Some(uid.max(gid)));
            if !self.applied.owners.is_empty() {
                self.applied.owners.remove(real);
            }
            return Ok(entry.mode);
        }
        let owner = Owner { uid: entry.uid, gid: entry.gid, mode: kind | entry.mode, rdev: 0 };
        self.applied.owners.insert(real.to_owned(), owner);
        let lost = if uid_fits { 0 } else { 0o4000 } | if gid_fits { 0 } else { 0o2000 };
        Ok(entry.mode & !lost)
    }

    fn attributes(&mut self, fd: &OwnedFd, entry: &Entry, real: &Path) -> Result<(), Error> {
        for (name, value) in &entry.xattrs {
            if !is_wanted(name, entry.kind) {
                continue;
            }
            match xattr::set(fd, name, value) {
                Ok(()) => {}
                // Too much for the place that the file system has for attributes; a full disk shows elsewhere too.
                Err(Errno::NOSPC) if value.len() < 1024 => {
                    return Err(SysError::path("set an attribute of", real, Errno::NOSPC).into());
                }
                Err(
                    Errno::NOSPC
                    | Errno::OPNOTSUPP
                    | Errno::PERM
                    | Errno::TOOBIG
                    | Errno::RANGE
                    | Errno::INVAL,
                ) => self.applied.dropped_xattrs += 1,
                Err(errno) => return Err(SysError::path("set an attribute of", real, errno).into()),
            }
        }
        Ok(())
    }
}

impl Place<'_> {
    fn set_time(&self, mtime: Time) -> Result<(), Error> {
        rustix::fs::utimensat(self.dir(), self.name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.error("set the time of", errno))
    }
}

/// Attributes that may come in with a layer. Those of overlayfs would redirect or hide files, those in `trusted.` are
/// overlayfs's when mounted by root, and `user.containers.` is what fuse-overlayfs believes before the inode. Labels
/// and access control lists belong to a host.
fn is_wanted(name: &[u8], kind: Kind) -> bool {
    if name == b"security.capability" {
        return kind == Kind::File;
    }
    name.starts_with(b"user.")
        && !name.starts_with(b"user.overlay.")
        && !name.starts_with(b"user.containers.")
}

/// Access and change both: an access time of our own would make two unpacked trees differ.
pub(super) fn times(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn write_all(fd: &OwnedFd, mut data: &[u8]) -> Result<(), Errno> {
    while !data.is_empty() {
        match rustix::io::write(fd, data) {
            Ok(0) => return Err(Errno::IO),
            Ok(length) => data = &data[length..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn sparse(reader: &mut Reader<'_>, entry: &Entry, fd: &OwnedFd, place: &Place<'_>) -> Result<(), Error> {
    let failed = |errno| place.error("write", errno);
    rustix::fs::ftruncate(fd, entry.size).map_err(failed)?;
    let mut extents = entry.sparse.iter().flatten().filter(|extent| extent.length > 0).copied();
    let mut extent = extents.next();
    while let Some(mut chunk) = reader.chunk()? {
        while !chunk.is_empty() {
            // The map is as long as the data: the reader saw to that.
            let Some(at) = &mut extent else { break };
            let length = chunk.len().min(usize::try_from(at.length).unwrap_or(usize::MAX));
            rustix::fs::seek(fd, rustix::fs::SeekFrom::Start(at.offset)).map_err(failed)?;
            write_all(fd, &chunk[..length]).map_err(failed)?;
            chunk = &chunk[length..];
            at.offset += length as u64;
            at.length -= length as u64;
            if at.length == 0 {
                extent = extents.next();
            }
        }
    }
    Ok(())
}
