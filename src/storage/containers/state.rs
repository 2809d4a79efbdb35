//! Where a container stands: what was written, corrected by a look at the process.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ContainerDir;
use crate::storage::Error;
use crate::sys::boot::boot_id;
use crate::sys::{SysError, regular};

/// Where a container stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never started.
    #[default]
    Created,
    /// Its program runs.
    Running,
    /// Its program runs and is frozen. Never written: see [`ContainerDir::paused_by`].
    Paused,
    /// Its program has ended, and whoever watches over it is about to start it again.
    Restarting,
    /// Its program has ended.
    Exited,
    /// Its program ran in an earlier boot or lost its monitor.
    Dead,
}

/// What changes of a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ContainerState {
    /// As last written; ask [`ContainerDir::state`], which looks whether a running one still is.
    pub status: Status,
    /// Host process id of the program, while it runs.
    pub pid: Option<i32>,
    /// The program's start time in clock ticks since boot (`/proc/PID/stat` field 22), against reused process ids.
    pub pid_start: Option<u64>,
    /// The boot it was started in.
    pub boot_id: Option<String>,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub finished_at: Option<String>,
    /// Why it could not be started.
    pub error: Option<String>,
    /// Nothing of this was written: the record of the state cannot be read.
    #[serde(skip)]
    pub damaged: bool,
    /// Absolute paths that were made in the container's tree only to mount on, in all its runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stubs: Vec<String>,
    /// Its published ports: those that it has while it runs, else those that it last had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<crate::oci::Published>,
    /// How often the restart policy has started it again since somebody started it.
    #[serde(default)]
    pub restarts: u32,
    /// The kernel has killed a process of its last run for want of memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom_killed: bool,
    /// Flags whose limits were not in force when it was last started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_effect: Vec<String>,
    /// Host process id and start time of the monitor, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watcher: Option<(i32, u64)>,
}

/// The exit code of a container that nobody saw end, as docker shows it.
const UNSEEN: i32 = 255;

/// How often a look at the state waits five milliseconds for who watches to write the end.
const PATIENCE: u32 = 200;

impl ContainerState {
    /// A program that runs from now on.
    #[must_use]
    pub fn running(pid: i32, started_at: String) -> Self {
        Self {
            status: Status::Running,
            pid: Some(pid),
            pid_start: start_time(pid),
            boot_id: Some(boot_id().to_owned()),
            started_at: Some(started_at),
            ..Self::default()
        }
    }

    /// The same program, ended.
    #[must_use]
    pub fn exited(self, exit_code: i32, finished_at: String) -> Self {
        Self {
            status: Status::Exited,
            pid: None,
            pid_start: None,
            exit_code: Some(exit_code),
            finished_at: Some(finished_at),
            ..self
        }
    }

    /// The same program, ended, and about to be started again by the monitor.
    #[must_use]
    pub fn restarting(self, exit_code: i32, finished_at: String) -> Self {
        Self { status: Status::Restarting, ..self.exited(exit_code, finished_at) }
    }

    /// With this process as the one that watches over the program.
    #[must_use]
    pub fn watched(self) -> Self {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        Self { watcher: start_time(own).map(|start| (own, start)), ..self }
    }

    /// Whether the program runs, frozen or not, or is about to be started again: as docker counts it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused | Status::Restarting)
    }

    fn still_runs(&self) -> bool {
        let lives = |pid: i32, start: u64| start_time(pid) == Some(start);
        self.boot_id.as_deref() == Some(boot_id())
            && match self.status {
                Status::Restarting => self.watcher.is_some_and(|(pid, start)| lives(pid, start)),
                _ => self.pid.zip(self.pid_start).is_some_and(|(pid, start)| lives(pid, start)),
            }
    }

    fn corrected(self) -> Self {
        if !self.is_running() || self.still_runs() {
            return self;
        }
        // The end of the last run was seen when only the next start was not.
        let seen = self.exit_code.filter(|_| self.status == Status::Restarting);
        let exit_code = Some(seen.unwrap_or(UNSEEN));
        Self { status: Status::Dead, pid: None, pid_start: None, exit_code, ..self }
    }
}

impl ContainerDir {
    /// The state now: what was written, corrected by a look at the process and the boot id.
    ///
    /// # Errors
    /// When the state cannot be read; [`Error::NoSuchContainer`] when the container is gone.
    pub fn state(&self) -> Result<ContainerState, Error> {
        let state = self.unfrozen_state()?;
        let paused = state.status == Status::Running && self.paused_by().is_some();
        Ok(if paused { ContainerState { status: Status::Paused, ..state } } else { state })
    }

    fn unfrozen_state(&self) -> Result<ContainerState, Error> {
        let path = self.path.join("state.json");
        let mut unwatched = false;
        for _ in 0..PATIENCE {
            let state = self.written_state(&path)?;
            let corrected = state.clone().corrected();
            // A dead process that nobody waits for looks like one that runs, but its watcher's lock is free.
            let lost = state.is_running() && state.pid.is_some_and(is_zombie) && unwatched;
            if lost {
                return Ok(ContainerState { boot_id: None, ..state }.corrected());
            }
            // When the program has ended and somebody still watches over it, they are about to write how; when nobody
            // does, they may have written it since the last look.
            let ending = corrected.status != state.status || state.pid.is_some_and(is_zombie);
            if !ending || unwatched {
                return Ok(corrected);
            }
            unwatched = self.try_lock()?.is_some();
            if !unwatched {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        Ok(self.written_state(&path)?.corrected())
    }

    fn written_state(&self, path: &Path) -> Result<ContainerState, Error> {
        match regular::read_small(path) {
            // A power cut can leave an empty file of what was not synced, or worse; nobody wrote down how it ended.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| ContainerState {
                status: Status::Dead,
                exit_code: Some(UNSEEN),
                error: Some("the record of its state is damaged".into()),
                damaged: true,
                ..ContainerState::default()
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path.exists() => {
                Ok(ContainerState::default())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NoSuchContainer(self.record.name.clone()))
            }
            Err(error) => Err(SysError::path("read", path, error).into()),
        }
    }
}

/// Field 22 of `/proc/PID/stat` (`man 5 proc_pid_stat`): start time in clock ticks since boot.
fn start_time(pid: i32) -> Option<u64> {
    stat_fields(pid)?.split_whitespace().nth(19)?.parse().ok()
}

/// Field 3. Also true of a process whose first thread has ended before others.
fn is_zombie(pid: i32) -> bool {
    stat_fields(pid).is_some_and(|fields| fields.trim_start().starts_with('Z'))
}

/// What follows the program's name, which stands in parentheses and may hold anything, parentheses included.
fn stat_fields(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_state_is_believed_only_while_its_process_lives() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let state = ContainerState::running(pid, "2026-01-01T00:00:00Z".into());
        assert!(state.clone().corrected().is_running());
        let reused = ContainerState { pid_start: Some(1), ..state.clone() };
        assert_eq!(reused.corrected().status, Status::Dead);
        let rebooted = ContainerState { boot_id: Some("other".into()), ..state.clone() };
        assert_eq!(rebooted.corrected().exit_code, Some(255));
        let exited = state.exited(3, "2026-01-01T00:00:01Z".into()).corrected();
        assert_eq!((exited.status, exited.exit_code, exited.pid), (Status::Exited, Some(3), None));
    }
}
