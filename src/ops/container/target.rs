//! The process of a running container, seen from any other process of the user.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::Uid;

use super::Error;
use crate::runtime::{self, Process};
use crate::storage::ContainerDir;
use crate::sys::SysError;

/// The main process of a container that runs.
#[derive(Debug)]
pub struct Target {
    process: Process,
}

impl Target {
    /// The process of `dir`, if it runs.
    ///
    /// # Errors
    /// [`Error::NotRunning`]
    pub fn of(dir: &ContainerDir) -> Result<Self, Error> {
        let gone = || Error::NotRunning(dir.record.name.clone());
        let state = dir.state()?;
        let pid = state.pid.filter(|_| state.is_running()).ok_or_else(gone)?;
        let pidfd = open(pid).map_err(|_| gone())?;
        // The descriptor holds on to one process for good; that it is the right one is checked after it was opened.
        if dir.state()?.pid != Some(pid) {
            return Err(gone());
        }
        Ok(Self { process: Process { pid, pidfd, terminal: None, stubs: Vec::new() } })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// The descriptor alone.
    #[must_use]
    pub fn into_pidfd(self) -> OwnedFd {
        self.process.pidfd
    }

    /// The descriptor of the process.
    #[must_use]
    pub fn pidfd(&self) -> &OwnedFd {
        &self.process.pidfd
    }

    /// Send a signal.
    ///
    /// # Errors
    /// [`runtime::Error::NotRunning`] when it has ended.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        Ok(signal_as_owner(&self.process, signal)?)
    }

    /// Wait for its end, at most so long, for ever where that is beyond all clocks; `false` when it still runs.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| rustix::event::Timespec::try_from(left).ok());
            let mut fds = [PollFd::from_borrowed_fd(self.process.pidfd.as_fd(), PollFlags::IN)];
            match rustix::event::poll(&mut fds, left.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(SysError::new("wait for", "the container", error).into()),
            }
        }
    }
}

/// A descriptor of a process.
///
/// # Errors
/// When there is no such process.
pub fn open(pid: i32) -> Result<OwnedFd, SysError> {
    let failed = |error| SysError::new("find", format!("process {pid}"), error);
    let raw = Pid::from_raw(pid).ok_or_else(|| failed(rustix::io::Errno::SRCH))?;
    rustix::process::pidfd_open(raw, PidfdFlags::empty()).map_err(failed)
}

/// Signal a process. Two commands of one user live in sibling user namespaces, of which neither has power over the
/// other; but a sender with the receiver's own user id needs none, and every id of the one is there in the other.
pub fn signal_as_owner(process: &Process, signal: i32) -> Result<(), runtime::Error> {
    let denied = match process.kill(signal) {
        Err(runtime::Error::Sys(error)) if error.errno() == Some(libc::EPERM) => error,
        other => return other,
    };
    let Ok(owner) = std::fs::metadata(format!("/proc/{}", process.pid)).map(|meta| meta.uid()) else {
        return Err(denied.into());
    };
    // Only this thread's effective id changes, and only for one call.
    let own = rustix::process::getuid();
    if rustix::thread::set_thread_res_uid(own, Uid::from_raw(owner), own).is_err() {
        return Err(denied.into());
    }
    let result = process.kill(signal);
    let _ = rustix::thread::set_thread_res_uid(own, own, own);
    result
}
