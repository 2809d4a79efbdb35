//! What the file system under a store can do, by trying when the store is made, and again when it lies on another file
//! system or kernel than before. The result is kept in `probe.json`; nothing but messages depends on that file.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::storage::{Error, Store, layout::Layout};
use crate::sys::atomic::{Durability, replace_file};
use crate::sys::{SysError, SysResult, flock, tree, unnamed::UnnamedFile, xattr};

mod kind;

use kind::Nature;

/// What the names of directories begin with in which a file system is tried.
const PREFIX: &str = "probe-";

/// `probe.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Probe {
    version: u32,
    /// What the file system is called: `ext4`, `nfs4`, `fuse.sshfs`.
    pub file_system: String,
    /// `statfs(2)`'s `f_fsid`, which tells one file system from another.
    id: u64,
    /// The kernel's release.
    kernel: String,
    /// `flock(2)` works: `exclusive`; or does not keep others out; or fails.
    pub locks: Locks,
    /// Locks keep out only processes of this machine, while the files are seen by others.
    #[serde(default)]
    pub local_locks: bool,
    /// A rename replaces what is there.
    pub rename_over: bool,
    /// `O_TMPFILE`, and giving such a file its name.
    pub unnamed_files: bool,
    /// A file can have two names.
    pub hard_links: bool,
    /// `user.*` extended attributes.
    pub user_xattrs: bool,
    /// A directory says what its entries are.
    pub entry_types: bool,
}

/// How locks fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Locks {
    /// Who holds one keeps others out.
    Exclusive,
    /// Two descriptors got the same exclusive lock.
    Ineffective,
    /// The file system has none.
    None,
}

impl Probe {
    /// Try everything in a fresh directory below `dir`.
    pub(super) fn take(layout: &Layout, dir: &Path) -> Result<Self, Error> {
        let (scratch, _held) = scratch(dir)?;
        let path = scratch.path();
        let nature = Nature::of(layout.root());
        let probe = Self {
            version: 1,
            locks: try_locks(path)?,
            local_locks: nature.local_locks,
            rename_over: try_rename(path)?,
            unnamed_files: try_unnamed(path)?,
            hard_links: try_link(path)?,
            user_xattrs: try_xattr(path)?,
            entry_types: try_types(path)?,
            file_system: nature.name,
            id: id(layout.root()),
            kernel: kernel(),
        };
        // The guard would remove it too, and say nothing when it cannot.
        tree::remove_path(path)?;
        Ok(probe)
    }

    /// What was found before; `None` when there is nothing that makes sense.
    #[must_use]
    pub(super) fn read(layout: &Layout) -> Option<Self> {
        let bytes = fs::read(layout.probe()).ok()?;
        serde_json::from_slice(&bytes).ok().filter(|probe: &Self| probe.version == 1)
    }

    pub(super) fn write(&self, layout: &Layout, temp: &Path) -> Result<(), Error> {
        let path = layout.probe();
        let bytes =
            serde_json::to_vec_pretty(self).map_err(|source| Error::Json { path: path.clone(), source })?;
        Ok(replace_file(&path, temp, &bytes, Durability::Fast)?)
    }

    /// Refuse a file system on which two processes could ruin each other's work, or a crash could ruin a file. With
    /// `unsafe_allowed` one on which locks are not what they should be is taken.
    pub(super) fn refuse(&self, root: &Path, unsafe_allowed: bool) -> Result<(), Error> {
        let unfit = |why: &str, negotiable| {
            Err(Error::Unfit {
                path: root.to_owned(),
                why: format!("its file system ({}) {why}", self.file_system),
                negotiable,
            })
        };
        if !self.rename_over {
            return unfit("does not replace a file by a rename", false);
        }
        match self.locks {
            // Without any, there is nothing to do without.
            Locks::None => unfit("has no file locks", false),
            _ if unsafe_allowed => Ok(()),
            Locks::Ineffective => unfit("gives the same exclusive lock twice", true),
            Locks::Exclusive if self.local_locks => {
                unfit("is mounted so that locks do not reach other machines", true)
            }
            Locks::Exclusive => Ok(()),
        }
    }

    /// What a user should know of where the store lies; nothing on a local disk.
    #[must_use]
    pub fn word(&self, root: &Path) -> Option<String> {
        let what = self.meaning()?;
        Some(format!(
            "the store at `{}` lies on {}: {what}; a directory on a local disk is better (--root DIR or STRATE_ROOT)",
            root.display(),
            self.file_system
        ))
    }

    /// What the kind of file system means for the store.
    #[must_use]
    pub fn meaning(&self) -> Option<&'static str> {
        kind::meaning(&self.file_system)
    }

    /// What it lacks that a store makes use of, in words.
    #[must_use]
    pub fn lacks(&self) -> Vec<&'static str> {
        let table = [
            (self.locks == Locks::Exclusive, "locks"),
            (!self.local_locks, "locks that reach other machines"),
            (self.user_xattrs, "user extended attributes"),
            (self.unnamed_files, "unnamed files"),
            (self.hard_links, "hard links"),
            (self.entry_types, "types of directory entries"),
        ];
        table.into_iter().filter(|(there, _)| !there).map(|(_, what)| what).collect()
    }

    /// Whether it still speaks of the file system and the kernel at hand.
    fn is_of_here(&self, root: &Path) -> bool {
        self.id == id(root) && self.kernel == kernel()
    }
}

impl Store {
    /// What the store's file system can do, as it was found when the store was made or came here.
    #[must_use]
    pub fn probe(&self) -> Option<Probe> {
        Probe::read(&self.layout)
    }

    /// Probe again when the store lies on another file system or kernel than before.
    pub(in crate::storage) fn probe_again(&self, unsafe_allowed: bool) -> Result<(), Error> {
        let root = self.layout.root();
        let before = Probe::read(&self.layout);
        let probe = match before.filter(|probe| probe.is_of_here(root)) {
            Some(probe) => probe,
            None => {
                let probe = Probe::take(&self.layout, &self.stage_dir("probe")?)?;
                probe.write(&self.layout, &self.stage_path("probe")?)?;
                probe
            }
        };
        probe.refuse(root, unsafe_allowed)
    }
}

/// How many fresh directories are tried when a sweep takes each for a dead one's.
const ATTEMPTS: u32 = 16;

/// A fresh directory, locked so that a sweep tells it from what a dead process left; where there are no locks without
/// one.
fn scratch(dir: &Path) -> Result<(TempDir, Option<File>), Error> {
    let fault = |error| SysError::path("create a directory in", dir, error);
    for _ in 0..ATTEMPTS {
        let scratch = tempfile::Builder::new().prefix(PREFIX).tempdir_in(dir).map_err(fault)?;
        match File::open(scratch.path()) {
            Ok(held) => match flock::try_lock(&held, true) {
                Ok(true) if scratch.path().exists() => return Ok((scratch, Some(held))),
                Ok(_) => {} // a sweep was faster
                Err(_) => return Ok((scratch, None)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(fault(error).into()),
        }
    }
    Err(fault(ErrorKind::AlreadyExists.into()).into())
}

/// Remove what processes left that died while they tried a file system. The bytes on disk that it took are returned.
pub(in crate::storage) fn sweep(layout: &Layout) -> Result<u64, Error> {
    let mut remover = tree::Remover::counting();
    for path in layout.entries(&layout.locks())? {
        let named =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
        let flags = libc::O_NOFOLLOW | libc::O_DIRECTORY;
        if named
            && let Ok(dir) = OpenOptions::new().read(true).custom_flags(flags).open(&path)
            && matches!(flock::try_lock(&dir, true), Ok(true))
        {
            // What stays is tried again next time: nothing depends on it.
            let _ = remover.remove_path(&path);
        }
    }
    Ok(remover.bytes())
}

fn id(root: &Path) -> u64 {
    rustix::fs::statvfs(root).map_or(0, |stat| stat.f_fsid)
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn create(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    let made = options.read(true).write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| SysError::path("create", path, error).into())
}

/// Two descriptors of one file, as two processes would have.
fn try_locks(dir: &Path) -> Result<Locks, Error> {
    let path = dir.join("lock");
    let first = create(&path)?;
    let second = File::open(&path).map_err(|error| SysError::path("open", &path, error))?;
    Ok(match (flock::try_lock(&first, true), flock::try_lock(&second, true)) {
        (Ok(true), Ok(false)) => Locks::Exclusive,
        (Ok(_), Ok(_)) => Locks::Ineffective,
        // On NFS a lock for writing needs a descriptor for writing; then nobody else got it either.
        (Ok(true), Err(error)) if error.errno() == Some(libc::EBADF) => Locks::Exclusive,
        _ => Locks::None,
    })
}

fn try_rename(dir: &Path) -> Result<bool, Error> {
    let (old, new) = (dir.join("old"), dir.join("new"));
    for (path, text) in [(&old, "old"), (&new, "new")] {
        create(path)?.write_all(text.as_bytes()).map_err(|error| SysError::path("write", path, error))?;
    }
    let renamed = answer(fs::rename(&new, &old).map_err(|error| SysError::path("rename to", &old, error)))?;
    let text = match fs::read(&old) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        read => read.map_err(|error| SysError::path("read", &old, error))?,
    };
    Ok(renamed && text == b"new" && !new.exists())
}

/// What an attempt says about the file system: a full or broken disk says nothing, and is an error.
fn answer<T>(attempt: SysResult<T>) -> Result<bool, Error> {
    match attempt {
        Ok(_) => Ok(true),
        Err(error) => match error.errno() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EIO | libc::EMFILE | libc::ENFILE | libc::ENOMEM) => {
                Err(error.into())
            }
            _ => Ok(false),
        },
    }
}

/// As [`UnnamedFile`] does it, where the file system can.
fn try_unnamed(dir: &Path) -> Result<bool, Error> {
    let mode = Mode::RUSR | Mode::WUSR;
    let unnamed = rustix::fs::openat(CWD, dir, OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE, mode);
    Ok(answer(unnamed.map_err(|error| SysError::path("create a file in", dir, error)))?
        && answer(UnnamedFile::create_in(dir).and_then(|file| file.publish(&dir.join("unnamed"))))?)
}

fn try_link(dir: &Path) -> Result<bool, Error> {
    let link = dir.join("link");
    let linked = rustix::fs::linkat(CWD, dir.join("old"), CWD, &link, AtFlags::empty());
    answer(linked.map_err(|error| SysError::path("create", &link, error)))
}

fn try_xattr(dir: &Path) -> Result<bool, Error> {
    let file = create(&dir.join("xattr"))?;
    let set = xattr::set(file.as_fd(), b"user.strate.probe", b"1");
    let set = answer(set.map_err(|error| SysError::path("set an attribute of a file in", dir, error)))?;
    Ok(set && xattr::get(&file, "user.strate.probe").is_ok_and(|value| value.as_deref() == Some(b"1")))
}

fn try_types(dir: &Path) -> Result<bool, Error> {
    let opened = File::open(dir).map_err(|error| SysError::path("open", dir, error))?;
    let names = tree::sorted_names(&opened)?;
    Ok(names.iter().all(|name| name.kind != FileType::Unknown))
}

#[cfg(test)]
mod tests;
