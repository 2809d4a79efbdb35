//! Locks: flock on files under `locks/`, released by the kernel when their holder dies.
//!
//! Order: store (shared always, exclusive only to sweep lock files) → container → volumes → blob → layer → collect →
//! names. The
//! files lie flat in one directory and are unlinked only by who holds the store lock exclusively, so two processes can
//! never hold "the same" lock on two different files.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Error, layout::Layout};
use crate::oci::Digest;
use crate::sys::{SysError, flock};

/// How long a wait stays silent.
const QUIET: Duration = Duration::from_secs(1);

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
            Self::Collect => f.write_str("a collection of garbage"),
            Self::Names => f.write_str("the list of images"),
        }
    }
}

/// Where a wait for a lock is announced, once it lasted a second.
#[derive(Clone, Default)]
pub struct Notice(Option<Arc<Announcer>>);

struct Announcer {
    tell: Box<Tell>,
    /// What was said already: nobody wants to read it again.
    said: Mutex<Vec<String>>,
}

/// Takes a line for the user.
type Tell = dyn Fn(&str) + Send + Sync;

impl Notice {
    /// Announce by calling `tell`.
    pub fn new(tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(Announcer { tell: Box::new(tell), said: Mutex::default() })))
    }

    /// Say something, once.
    pub fn say(&self, text: &str) {
        let Some(announcer) = &self.0 else { return };
        let mut said = announcer.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.iter().any(|line| line == text) {
            said.push(text.to_owned());
            (announcer.tell)(text);
        }
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notice({})", self.0.is_some())
    }
}

/// Take a lock, waiting for it if need be. After a second the wait is announced through `say`.
///
/// # Errors
/// When the lock file cannot be made or the file system has no locks.
pub fn lock(
    layout: &Layout,
    name: &LockName<'_>,
    mode: LockMode,
    say: &dyn Fn(&str),
) -> Result<Locked, Error> {
    let mut file = open(layout, name)?;
    let exclusive = mode == LockMode::Exclusive;
    if !try_quietly(&file, exclusive)? {
        say(&format!("waiting for {name}{}", holder(&mut file)));
        flock::lock(&file, exclusive)?;
    }
    Ok(held(file, mode))
}

/// Take the lock of an open directory, alone. After a second the wait is announced.
///
/// # Errors
/// When the file system has no locks.
pub(super) fn wait(dir: &OwnedFd, name: &dyn Fn() -> String, say: &dyn Fn(&str)) -> Result<(), Error> {
    if !try_quietly(dir, true)? {
        say(&format!("waiting for {}, which another process works on", name()));
        flock::lock(dir, true)?;
    }
    Ok(())
}

/// Try for a second.
fn try_quietly(file: impl AsFd, exclusive: bool) -> Result<bool, Error> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    while !flock::try_lock(file.as_fd(), exclusive)? {
        if start.elapsed() >= QUIET {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(25));
    }
    Ok(true)
}

/// Take a lock if nobody is in the way.
///
/// # Errors
/// When the lock file cannot be made or the file system has no locks.
pub fn try_lock(layout: &Layout, name: &LockName<'_>, mode: LockMode) -> Result<Option<Locked>, Error> {
    let file = open(layout, name)?;
    let got = flock::try_lock(&file, mode == LockMode::Exclusive)?;
    Ok(got.then(|| held(file, mode)))
}

fn open(layout: &Layout, name: &LockName<'_>) -> Result<File, Error> {
    let path = layout.lock(&name.file_name());
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(
        |error| Error::ReadOnly {
            path: layout.root().to_owned(),
            source: SysError::path("open", &path, error),
        },
    )
}

/// The process id goes into the file so that who waits can name the holder. It is only a remark: the lock is the lock.
fn held(mut file: File, mode: LockMode) -> Locked {
    if mode == LockMode::Exclusive {
        let _ = file.rewind();
        let _ = file.write_all(format!("{:<10}\n", std::process::id()).as_bytes());
    }
    Locked { file: file.into() }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.rewind();
    let _ = file.take(32).read_to_string(&mut text);
    match text.trim().parse::<u32>() {
        Ok(pid) => format!(", held by process {pid}"),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_wait_of_more_than_a_second_is_announced_with_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        std::fs::create_dir(layout.locks()).unwrap();
        let first = lock(&layout, &LockName::Names, LockMode::Exclusive, &|_| ()).unwrap();
        assert!(try_lock(&layout, &LockName::Names, LockMode::Shared).unwrap().is_none());
        let said = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let say = |text: &str| said.lock().unwrap().push(text.to_owned());
                lock(&layout, &LockName::Names, LockMode::Shared, &say).unwrap();
            });
            std::thread::sleep(Duration::from_millis(1300));
            drop(first);
        });
        let said = said.into_inner().unwrap();
        assert_eq!(said, [format!("waiting for the list of images, held by process {}", std::process::id())]);
        let shared = try_lock(&layout, &LockName::Names, LockMode::Shared).unwrap();
        assert!(shared.is_some());
        assert!(try_lock(&layout, &LockName::Names, LockMode::Shared).unwrap().is_some());
        assert!(try_lock(&layout, &LockName::Names, LockMode::Exclusive).unwrap().is_none());
    }
}
