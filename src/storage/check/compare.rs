//! Two unpacked trees of the same layer: the one in the store and one unpacked just now from the blob.
//!
//! What counts is what a container would see: types, content, permission bits, owners (those of the owner tables where the
//! disk does not tell them), devices, links, attributes, deletions. Times do not.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::layer::{Owner, OwnerTable};
use crate::sys::{SysError, SysResult, tree, xattr};

/// One of the trees.
pub(super) struct Tree<'a> {
    pub root: BorrowedFd<'a>,
    pub owners: &'a OwnerTable,
}

/// The first difference: where, and what is wrong with the first tree.
pub(super) type Difference = Option<(PathBuf, String)>;

/// Compare the stored tree with the fresh one.
pub(super) fn compare(stored: &Tree<'_>, fresh: &Tree<'_>) -> SysResult<Difference> {
    let mut walk =
        Walk { stored: stored.owners, fresh: fresh.owners, links: [HashMap::new(), HashMap::new()] };
    if is_opaque(stored.root)? != is_opaque(fresh.root)? {
        return Ok(Some((PathBuf::from("/"), "hides other files below".to_owned())));
    }
    walk.dir(stored.root, fresh.root, Path::new(""))
}

struct Walk<'a> {
    stored: &'a OwnerTable,
    fresh: &'a OwnerTable,
    /// The first name of each file with several, by its inode, in each tree.
    links: [HashMap<u64, PathBuf>; 2],
}

/// An entry of one tree.
struct Side<'a> {
    dir: BorrowedFd<'a>,
    name: &'a OsStr,
    stat: Stat,
}

impl Walk<'_> {
    fn dir(&mut self, stored: BorrowedFd<'_>, fresh: BorrowedFd<'_>, path: &Path) -> SysResult<Difference> {
        let names = |dir| -> SysResult<Vec<std::ffi::OsString>> {
            Ok(tree::sorted_names(dir)?.into_iter().map(|name| name.name).collect())
        };
        let (ours, theirs) = (names(stored)?, names(fresh)?);
        if let Some(more) = ours.iter().find(|name| theirs.binary_search(name).is_err()) {
            return Ok(Some((path.join(more), "is not in the layer".to_owned())));
        }
        if let Some(lacks) = theirs.iter().find(|name| ours.binary_search(name).is_err()) {
            return Ok(Some((path.join(lacks), "is missing".to_owned())));
        }
        for name in &ours {
            let at = path.join(name);
            let look = |dir: BorrowedFd<'_>| {
                rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| SysError::path("look at", &at, error))
            };
            let mine = Side { dir: stored, name, stat: look(stored)? };
            let other = Side { dir: fresh, name, stat: look(fresh)? };
            let found = self.entry(&mine, &other, &at)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn entry(&mut self, mine: &Side<'_>, other: &Side<'_>, at: &Path) -> SysResult<Difference> {
        let differs = |what: &str| Ok(Some((at.to_owned(), what.to_owned())));
        match (is_whiteout(mine)?, is_whiteout(other)?) {
            (true, true) => return Ok(None),
            (false, false) => {}
            _ => return differs("is deleted in one and not in the other"),
        }
        let kinds = [mine, other].map(|side| FileType::from_raw_mode(side.stat.st_mode));
        if kinds[0] != kinds[1] {
            return differs("is another kind of file");
        }
        let (is, should) = (owner_of(self.stored, mine, at), owner_of(self.fresh, other, at));
        if (is.uid, is.gid) != (should.uid, should.gid) {
            return differs(&format!(
                "belongs to {}:{} instead of {}:{}",
                is.uid, is.gid, should.uid, should.gid
            ));
        }
        // Links have no permissions of their own.
        if kinds[0] != FileType::Symlink && is.mode != should.mode {
            return differs(&format!(
                "has mode {:04o} instead of {:04o}",
                is.mode & 0o7777,
                should.mode & 0o7777
            ));
        }
        if is.rdev != should.rdev {
            return differs("is another device");
        }
        if self.first_name(0, mine, at) != self.first_name(1, other, at) {
            return differs("is linked to another file");
        }
        match kinds[0] {
            FileType::Directory => self.subdir(mine, other, at),
            FileType::RegularFile => file(mine, other, at),
            FileType::Symlink => {
                let target = |side: &Side<'_>| {
                    rustix::fs::readlinkat(side.dir, side.name, Vec::new())
                        .map_err(|error| SysError::path("read", at, error))
                };
                if target(mine)? == target(other)? { Ok(None) } else { differs("leads elsewhere") }
            }
            _ => Ok(None),
        }
    }

    fn subdir(&mut self, mine: &Side<'_>, other: &Side<'_>, at: &Path) -> SysResult<Difference> {
        let (a, b) = (open(mine, OFlags::DIRECTORY, at)?, open(other, OFlags::DIRECTORY, at)?);
        if is_opaque(&a)? != is_opaque(&b)? {
            return Ok(Some((at.to_owned(), "hides other files below".to_owned())));
        }
        if attributes(&a)? != attributes(&b)? {
            return Ok(Some((at.to_owned(), "has other attributes".to_owned())));
        }
        self.dir(a.as_fd(), b.as_fd(), at)
    }

    /// The first name of a file that has several.
    fn first_name(&mut self, tree: usize, side: &Side<'_>, at: &Path) -> Option<PathBuf> {
        let is_dir = FileType::from_raw_mode(side.stat.st_mode) == FileType::Directory;
        if is_dir || side.stat.st_nlink < 2 {
            return None;
        }
        let first = self.links[tree].entry(side.stat.st_ino).or_insert_with(|| at.to_owned());
        (first != at).then(|| first.clone())
    }
}

fn file(mine: &Side<'_>, other: &Side<'_>, at: &Path) -> SysResult<Difference> {
    if mine.stat.st_size != other.stat.st_size {
        let what = format!("has {} bytes instead of {}", mine.stat.st_size, other.stat.st_size);
        return Ok(Some((at.to_owned(), what)));
    }
    let (a, b) = (open(mine, OFlags::NONBLOCK, at)?, open(other, OFlags::NONBLOCK, at)?);
    if attributes(&a)? != attributes(&b)? {
        return Ok(Some((at.to_owned(), "has other attributes".to_owned())));
    }
    let same = same_bytes(File::from(a), File::from(b)).map_err(|error| SysError::path("read", at, error))?;
    Ok((!same).then(|| (at.to_owned(), "has other content".to_owned())))
}

fn same_bytes(mut a: File, mut b: File) -> std::io::Result<bool> {
    let (mut left, mut right) = (vec![0_u8; 128 << 10], vec![0_u8; 128 << 10]);
    loop {
        let (n, m) = (fill(&mut a, &mut left)?, fill(&mut b, &mut right)?);
        if left[..n] != right[..m] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn open(side: &Side<'_>, flags: OFlags, at: &Path) -> SysResult<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(side.dir, side.name, flags, Mode::empty())
        .map_err(|error| SysError::path("open", at, error))
}

/// The true owner, mode and device: the table's where it has an entry, else the disk's.
fn owner_of(table: &OwnerTable, side: &Side<'_>, at: &Path) -> Owner {
    let stat = &side.stat;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    table.get(at).unwrap_or(Owner {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode,
        rdev: if is_device { stat.st_rdev } else { 0 },
    })
}

fn is_whiteout(side: &Side<'_>) -> SysResult<bool> {
    match FileType::from_raw_mode(side.stat.st_mode) {
        FileType::CharacterDevice => Ok(side.stat.st_rdev == 0),
        FileType::RegularFile if side.stat.st_size == 0 => {
            let file = open(side, OFlags::NONBLOCK, Path::new(side.name))?;
            Ok(xattr::get(&file, "user.overlay.whiteout")?.is_some())
        }
        _ => Ok(false),
    }
}

fn is_opaque(dir: impl AsFd) -> SysResult<bool> {
    Ok(xattr::get(dir, "user.overlay.opaque")?.is_some_and(|value| value == b"y"))
}

/// What a layer brings of attributes. Those of overlayfs say how the tree came about and not what it is.
fn attributes(fd: impl AsFd) -> SysResult<BTreeMap<Vec<u8>, Vec<u8>>> {
    let fd = fd.as_fd();
    let mut all = BTreeMap::new();
    for name in xattr::list(fd)? {
        let counts = (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
            || name == b"security.capability";
        if counts
            && let Ok(text) = std::str::from_utf8(&name)
            && let Some(value) = xattr::get(fd, text)?
        {
            all.insert(name, value);
        }
    }
    Ok(all)
}
