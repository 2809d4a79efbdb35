//! Small files in a container's directory by which commands and whoever watches over the program tell each other things.
//! None is synced and none is waited for: what they say is about this boot's program.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::{ContainerDir, RunLock};
use crate::storage::Error;
use crate::sys::SysError;
use crate::sys::atomic::{Durability, replace_file};

/// Somebody wants the program to end: no restart policy starts it again.
const STOP: &str = "stop";
/// Where the program's processes are frozen.
const PAUSED: &str = "paused";
/// The monitor's socket.
const SOCKET: &str = "attach";
/// How the health checks of this run went.
const HEALTH: &str = "health.json";

/// Why somebody wants the program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMark {
    /// For good.
    Stop,
    /// To start it again: a container with auto-remove stays.
    Restart,
}

impl ContainerDir {
    /// Tell whoever watches over the program that its end is wanted. A container that is gone has ended already.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn mark_stop(&self, why: StopMark) -> Result<(), Error> {
        let text: &[u8] = match why {
            StopMark::Stop => b"stop",
            StopMark::Restart => b"restart",
        };
        let path = self.path.join(STOP);
        match fs::write(&path, text) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| SysError::path("write", path, error).into()),
        }
    }

    /// What was marked since the last start.
    #[must_use]
    pub fn stop_mark(&self) -> Option<StopMark> {
        match fs::read(self.path.join(STOP)).ok()?.as_slice() {
            b"restart" => Some(StopMark::Restart),
            _ => Some(StopMark::Stop),
        }
    }

    /// Write down which freezer holds the program's processes, before they are frozen.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn mark_paused(&self, freezer: &str) -> Result<(), Error> {
        let (path, staged) = (self.path.join(PAUSED), self.path.join(".paused"));
        Ok(replace_file(&path, &staged, freezer.as_bytes(), Durability::Fast)?)
    }

    /// The freezer that holds the program's processes.
    #[must_use]
    pub fn paused_by(&self) -> Option<String> {
        fs::read_to_string(self.path.join(PAUSED)).ok().filter(|text| !text.is_empty())
    }

    /// They are free again.
    pub fn forget_paused(&self) {
        let _ = fs::remove_file(self.path.join(PAUSED));
    }

    /// Where `mount` makes its files reachable.
    #[must_use]
    pub fn mount_point(&self) -> PathBuf {
        self.path.join("merged")
    }

    /// Where the health of the running program is written.
    #[must_use]
    pub fn health_file(&self) -> PathBuf {
        self.path.join(HEALTH)
    }

    /// A name for the monitor's socket that is short enough for an address (`man 7 unix`: 108 bytes) wherever the store
    /// lies, and a descriptor that must stay open while it is used.
    ///
    /// # Errors
    /// When the container's directory cannot be opened.
    pub fn socket(&self) -> Result<(OwnedFd, PathBuf), Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.path, flags, Mode::empty())
            .map_err(|error| SysError::path("open", &self.path, error))?;
        let path = socket_below(&dir);
        Ok((dir, path))
    }
}

fn socket_below(dir: &impl AsFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_fd().as_raw_fd()))
}

impl RunLock {
    /// Forget what was told about the last run: a new one begins.
    ///
    /// # Errors
    /// When a file is there and cannot be removed.
    pub fn clear_marks(&self) -> Result<(), Error> {
        self.forget_exit();
        for name in [STOP, PAUSED, SOCKET, HEALTH] {
            match rustix::fs::unlinkat(self.as_fd(), name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => {
                    return Err(SysError::path("remove", name, io::Error::from(error)).into());
                }
            }
        }
        Ok(())
    }

    /// The socket of the monitor that holds this lock.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_below(&self.as_fd())
    }

    /// The socket goes with the run.
    pub fn forget_socket(&self) {
        let _ = rustix::fs::unlinkat(self.as_fd(), SOCKET, AtFlags::empty());
    }
}
