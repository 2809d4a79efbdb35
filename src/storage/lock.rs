//! Locks: flock on files under `locks/`, released by the kernel when their holder dies.
//!
//! Order: store (shared always, exclusive only to sweep lock files) → container → volumes → blob → layer → collect →
//! names. The files lie flat in one directory and are unlinked only by who holds the store lock exclusively, so two
//! processes can never hold "the same" lock on two different files. Where somebody else deletes or replaces one, it is noticed: a lock
//! counts only if its file is the one in place ([`Locked::verify`]).
//!
//! `collect` has a gate before it. Who wants it exclusively holds the gate while it waits, so that those who come and
//! go with shared holds cannot keep it out for ever.

mod holder;
mod notice;
mod wait;

pub use notice::Notice;
pub(super) use wait::Patience;

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use super::{Error, layout::Layout};
use crate::oci::Digest;
use crate::sys::{SysError, flock};

/// Shared with others of its kind, or alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Together with other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct Locked {
    file: OwnedFd,
    path: PathBuf,
}

impl Locked {
    /// See that the lock file was neither deleted nor replaced while it was held: another process could hold the same
    /// lock then. Ask before the first change that must not happen twice.
    ///
    /// # Errors
    /// [`Error::LockLost`]
    pub(super) fn verify(&self) -> Result<(), Error> {
        if in_place(&self.file, &self.path) { Ok(()) } else { Err(Error::LockLost(self.path.clone())) }
    }
}

impl AsFd for Locked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What can be locked.
#[derive(Debug, Clone, Copy)]
pub enum LockName<'a> {
    /// The store: shared by every writer.
    Store,
    /// One container.
    Container(&'a str),
    /// A container's program: held exclusively as long as it runs, so that others can wait for its end.
    Run(&'a str),
    /// Which volumes there are: shared while a container that uses some is made, exclusively to remove one.
    Volumes,
    /// One blob being downloaded.
    Blob(&'a Digest),
    /// One layer being unpacked, by its diff id.
    Layer(&'a Digest),
    /// Marking and sweeping; shared while something is pinned against it.
    Collect,
    /// Passed on the way to `Collect`.
    CollectGate,
    /// `index.json` and the names of containers and volumes: held for one read, change and rename.
    Names,
}

impl LockName<'_> {
    /// The file under `locks/`.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self {
            Self::Store => "store".into(),
            Self::Container(id) => format!("container-{id}"),
            Self::Run(id) => format!("run-{id}"),
            Self::Volumes => "volumes".into(),
            Self::Blob(digest) => format!("blob-{}", super::layout::file_name(digest)),
            Self::Layer(digest) => format!("layer-{}", super::layout::file_name(digest)),
            Self::Collect => "collect".into(),
            Self::CollectGate => "collect-gate".into(),
            Self::Names => "names".into(),
        }
    }
}

impl fmt::Display for LockName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => f.write_str("the store"),
            Self::Container(id) | Self::Run(id) => write!(f, "container {:.12}", id),
            Self::Volumes => f.write_str("the list of volumes"),
            Self::Blob(digest) => write!(f, "the download of {}", digest.short()),
            Self::Layer(digest) => write!(f, "the unpacking of layer {}", digest.short()),
            Self::Collect | Self::CollectGate => f.write_str("a collection of garbage"),
            Self::Names => f.write_str("the list of images"),
        }
    }
}

/// Take a lock, waiting for it if need be, as long as `patience` says.
///
/// # Errors
/// [`Error::Busy`], or when the lock file cannot be made or the file system has no locks.
pub(super) fn lock(
    layout: &Layout,
    name: &LockName<'_>,
    mode: LockMode,
    patience: &Patience<'_>,
) -> Result<Locked, Error> {
    let _gate = match name {
        LockName::Collect => Some(lock(layout, &LockName::CollectGate, mode, patience)?),
        _ => None,
    };
    loop {
        let file = open(layout, name)?;
        if !flock::try_lock(&file, mode == LockMode::Exclusive)? {
            let grows = match name {
                LockName::Blob(digest) => Some(layout.partial(digest)),
                _ => None,
            };
            let awaited = wait::Awaited { what: name, path: layout.lock(&name.file_name()), grows };
            wait::wait(&awaited, mode, &file, patience)?;
        }
        // Also false when the wait ended as the file has gone.
        if let Some(locked) = held(layout, name, mode, file) {
            return Ok(locked);
        }
    }
}

/// Take the lock of the open directory that lies at `path`, alone, waiting as long as `patience` says. `None` when
/// another or none lies there by then.
///
/// # Errors
/// [`Error::Busy`], or when the file system has no locks.
pub(super) fn lock_dir(
    dir: OwnedFd,
    path: PathBuf,
    what: &dyn fmt::Display,
    patience: &Patience<'_>,
) -> Result<Option<OwnedFd>, Error> {
    let dir = File::from(dir);
    let awaited = wait::Awaited { what, path, grows: None };
    if !flock::try_lock(&dir, true)? {
        wait::wait(&awaited, LockMode::Exclusive, &dir, patience)?;
    }
    Ok(in_place(&dir, &awaited.path).then(|| dir.into()))
}

/// Take a lock if nobody is in the way.
///
/// # Errors
/// When the lock file cannot be made or the file system has no locks.
pub(super) fn try_lock(
    layout: &Layout,
    name: &LockName<'_>,
    mode: LockMode,
) -> Result<Option<Locked>, Error> {
    loop {
        let file = open(layout, name)?;
        if !flock::try_lock(&file, mode == LockMode::Exclusive)? {
            return Ok(None);
        }
        if let Some(locked) = held(layout, name, mode, file) {
            return Ok(Some(locked));
        }
    }
}

fn open(layout: &Layout, name: &LockName<'_>) -> Result<File, Error> {
    let path = layout.lock(&name.file_name());
    let open =
        || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = match open() {
        // The directory holds nothing that matters: it may have been cleared away.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let made = DirBuilder::new().mode(0o700).create(layout.locks());
            made.or_else(exists_is_fine).and_then(|()| open())
        }
        other => other,
    };
    file.map_err(|error| match SysError::path("open", &path, error) {
        // Not the store's fault, and no other place would help.
        source
            if matches!(source.errno(), Some(libc::EMFILE | libc::ENFILE | libc::ENOSPC | libc::EDQUOT)) =>
        {
            Error::Sys(source)
        }
        source => Error::ReadOnly { path: layout.root().to_owned(), source },
    })
}

fn exists_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

/// A lock that was got, if its file is still the one in place. The process id goes into the file so that who waits can
/// name the holder where the kernel does not tell. It is only a remark: the lock is the lock.
fn held(layout: &Layout, name: &LockName<'_>, mode: LockMode, mut file: File) -> Option<Locked> {
    let path = layout.lock(&name.file_name());
    if !in_place(&file, &path) {
        return None;
    }
    if mode == LockMode::Exclusive {
        let _ = file.rewind();
        let _ = file.write_all(format!("{:<10}\n", std::process::id()).as_bytes());
    }
    Some(Locked { file: file.into(), path })
}

/// Whether a descriptor's file is what lies at the path.
fn in_place(file: impl AsFd, path: &std::path::Path) -> bool {
    match (rustix::fs::fstat(file), rustix::fs::stat(path)) {
        (Ok(ours), Ok(there)) => {
            ours.st_nlink > 0 && (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
