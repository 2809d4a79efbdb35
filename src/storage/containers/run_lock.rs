//! The lock on a container's directory.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{ContainerDir, ContainerState};
use crate::storage::Error;
use crate::sys::{SysError, flock};

/// Proof that no program of the container runs but the holder's own. It passes on to forked children with its
/// descriptor, and is released with the last of them.
#[derive(Debug)]
pub struct RunLock {
    dir: OwnedFd,
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty()).map_err(|error| SysError::path("open", path, error))?)
}

/// A file in the directory where who waits for the end finds the exit code even when the container is removed at once.
const EXIT: &str = "exit";

impl RunLock {
    /// What was told about the last run is not the code of the next. The file stays: who waits holds it open, and should
    /// not miss what is told then.
    pub(super) fn forget_exit(&self) {
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let _ = rustix::fs::openat(&self.dir, EXIT, flags, Mode::empty());
    }

    /// Lock a directory that has no record yet; fails when somebody else works on it.
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let dir = open(path)?;
        match flock::try_lock(&dir, true)? {
            true => Ok(Self { dir }),
            false => Err(SysError::path("lock", path, io::Error::from(io::ErrorKind::WouldBlock)).into()),
        }
    }

    /// The descriptor that carries the lock.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Write the state; atomic for readers. It is not synced: after a reboot the boot id in it tells the truth anyway.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_state(&self, state: &ContainerState) -> Result<(), Error> {
        let path = Path::new("state.json");
        let bytes = serde_json::to_vec(state).map_err(|source| Error::Json { path: path.into(), source })?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let written = rustix::fs::openat(&self.dir, ".state.json", flags, Mode::from_raw_mode(0o644))
            .map_err(io::Error::from)
            .and_then(|file| fs::File::from(file).write_all(&bytes));
        written.map_err(|error| SysError::path("write", path, error))?;
        rustix::fs::renameat(&self.dir, ".state.json", &self.dir, path)
            .map_err(|error| SysError::path("write", path, error))?;
        if let (false, Some(code)) = (state.is_running(), state.exit_code) {
            self.tell_waiters(code);
        }
        Ok(())
    }

    /// Tell the exit code of a container that goes away at once. Somebody who waits made the file and holds it open;
    /// usually nobody does.
    pub fn tell_waiters(&self, code: i32) {
        // A waiter reads all of it: nothing of a longer code may stay.
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::openat(&self.dir, EXIT, flags, Mode::empty()) {
            let _ = fs::File::from(file).write_all(format!("{code}\n").as_bytes());
        }
    }
}

impl ContainerDir {
    /// Take the lock if no program of the container runs and nobody else works on it.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`] when it was removed meanwhile.
    pub fn try_lock(&self) -> Result<Option<RunLock>, Error> {
        let dir = self.open()?;
        match flock::try_lock(&dir, true)? {
            true => self.still_there(dir).map(Some),
            false => Ok(None),
        }
    }

    /// Wait for the lock: for the end of the program and of whoever watches over it.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`] when it was removed meanwhile.
    pub fn lock(&self) -> Result<RunLock, Error> {
        let dir = self.open()?;
        flock::lock(&dir, true)?;
        self.still_there(dir)
    }

    /// Wait for the end of the program; its exit code, if it is known, also when the container removes itself.
    ///
    /// # Errors
    /// When the container is gone before the wait begins.
    pub fn wait_for_end(&self) -> Result<Option<i32>, Error> {
        let dir = self.open()?;
        // Made before the state is read: from here on the end is told in one of the two.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let exit = rustix::fs::openat(&dir, EXIT, flags, Mode::from_raw_mode(0o644));
        let state = self.state()?;
        if !state.is_running() {
            return Ok(state.exit_code);
        }
        flock::lock(&dir, false)?;
        if let Ok(state) = self.state() {
            return Ok(state.exit_code);
        }
        let text = exit.map_err(io::Error::from).and_then(|file| io::read_to_string(fs::File::from(file)));
        Ok(text.ok().and_then(|text| text.trim().parse().ok()))
    }

    fn open(&self) -> Result<OwnedFd, Error> {
        match open(&self.path) {
            Err(Error::Sys(error)) if error.errno() == Some(libc::ENOENT) => Err(self.gone()),
            other => other,
        }
    }

    fn gone(&self) -> Error {
        Error::NoSuchContainer(self.record.name.clone())
    }

    /// A removed container's directory can still be locked by who opened it before: see that it is the one in place.
    fn still_there(&self, dir: OwnedFd) -> Result<RunLock, Error> {
        let ours = rustix::fs::fstat(&dir).map_err(|error| SysError::path("look at", &self.path, error))?;
        match fs::metadata(&self.path) {
            Ok(there) if there.ino() == ours.st_ino && there.dev() == ours.st_dev => Ok(RunLock { dir }),
            _ => Err(self.gone()),
        }
    }
}
