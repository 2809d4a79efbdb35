//! `diff`: what a container changed of its image's files.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, OFlags};

use super::commit::{is_stub, stubs_of};
use super::container::Error;
use crate::image::{BoxError, Silent};
use crate::layer::{Marked, is_whiteout, marked};
use crate::storage::Store;
use crate::sys::{RootDir, SysError, tree};

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It is new.
    Added,
    /// It is another, or something in it changed.
    Changed,
    /// It is gone.
    Deleted,
}

impl Change {
    /// Docker's letter.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// What a container changed, in the order of the paths, which are absolute.
///
/// # Errors
/// When it is unknown or its files cannot be read.
pub fn diff(store: &mut Store, text: &str) -> Result<BTreeMap<PathBuf, Change>, Error> {
    let dir = store.find_container(text)?;
    let failed = |source: BoxError| Error::Diff { id: dir.short_id().into(), source };
    let (upper, copied) = (dir.path.join("upper"), dir.path.join("rootfs"));
    let is_copied = copied.is_dir();
    let changes = if is_copied { copied } else { upper };
    if !changes.is_dir() {
        return Ok(BTreeMap::new());
    }
    store.read_stores_of(&dir.record);
    let stack = store.stack_of(&dir.record.layers, &Silent)?;
    let image = store.mount_read_only(&stack)?;
    let stubs = stubs_of(&dir)?;
    let mut walk = Walk { image: RootDir::new(image.root.as_fd()), is_copied, found: BTreeMap::new() };
    let root = File::open(&changes).map_err(|error| SysError::path("open", &changes, error))?;
    let skip = |path: &Path| is_stub(&changes, path, &stubs);
    walk.directory(root.as_fd(), Path::new(""), &skip).map_err(failed)?;
    Ok(walk.found.into_iter().map(|(path, change)| (Path::new("/").join(path), change)).collect())
}

struct Walk<'a> {
    image: RootDir<'a>,
    /// The tree is whole, not only the changes.
    is_copied: bool,
    found: BTreeMap<PathBuf, Change>,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &Path,
        skip: &dyn Fn(&Path) -> bool,
    ) -> Result<(), BoxError> {
        let mark = marked(dir)?;
        let mut names = std::collections::BTreeSet::new();
        for entry in tree::sorted_names(dir)? {
            let inner = path.join(&entry.name);
            if skip(&inner) {
                continue;
            }
            let stat = rustix::fs::statat(dir, &entry.name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| SysError::path("look at", &inner, error))?;
            names.insert(entry.name.clone());
            let below = self.image.lstat(&inner).ok();
            if is_whiteout(dir, &entry.name, &stat, mark)? {
                if below.is_some() {
                    self.note(inner, Change::Deleted);
                }
                continue;
            }
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            match &below {
                None => self.note(inner.clone(), Change::Added),
                Some(below) if self.is_copied && same(&stat, below, is_dir) => {}
                Some(_) => self.note(inner.clone(), Change::Changed),
            }
            if is_dir {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(dir, &entry.name, flags, rustix::fs::Mode::empty())
                    .map_err(|error| SysError::path("open", &inner, error))?;
                self.directory(fd.as_fd(), &inner, skip)?;
            }
        }
        // What a whole directory hides, or a whole tree lacks, is gone.
        if self.is_copied || mark == Marked::Opaque {
            self.missing(path, &names)?;
        }
        Ok(())
    }

    fn missing(
        &mut self,
        path: &Path,
        names: &std::collections::BTreeSet<std::ffi::OsString>,
    ) -> Result<(), BoxError> {
        let Ok(below) = self.image.open_dir(path) else { return Ok(()) };
        for entry in tree::sorted_names(&below)? {
            if !names.contains::<OsStr>(&entry.name) {
                self.note(path.join(&entry.name), Change::Deleted);
            }
        }
        Ok(())
    }

    /// A change in a directory changes those above it.
    fn note(&mut self, path: PathBuf, change: Change) {
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            self.found.entry(above.to_owned()).or_insert(Change::Changed);
        }
        self.found.insert(path, change);
    }
}

/// Whether a copied file is as it was: content is not read, what changes it changes the time.
fn same(now: &rustix::fs::Stat, then: &rustix::fs::Stat, is_dir: bool) -> bool {
    let facts = |stat: &rustix::fs::Stat| {
        let (size, time) =
            if is_dir { (0, (0, 0)) } else { (stat.st_size, (stat.st_mtime, stat.st_mtime_nsec)) };
        (stat.st_mode, stat.st_uid, stat.st_gid, size, time)
    };
    facts(now) == facts(then)
}
