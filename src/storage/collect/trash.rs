//! What is on its way out: directories in `tmp/` that this process holds, to be emptied now, in a while, or by a process
//! that stays behind for it.
//!
//! Such a directory is a staging directory like any other: whoever empties it holds its lease. When they die, or cannot
//! remove a part with the ids they have, the lease is free and the next process takes it over where it lies.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::room::is_short;
use crate::storage::lock::{LockMode, LockName, Patience, lock};
use crate::storage::staging::{LEASE, claim_dir};
use crate::storage::{Error, layout::Layout};
use crate::sys::tree::{Removal, Remover};
use crate::sys::{SysError, detach, flock};

/// So long a command removes by itself what it does not have to wait for.
const PATIENCE: Duration = Duration::from_millis(10);

/// How the process that stays behind is called in listings of processes.
const NAME: &str = "strate: removing what is no longer used";

/// Directories on their way out.
#[derive(Debug, Default)]
pub(in crate::storage) struct Trash {
    held: Vec<Held>,
    /// Names given out in the directory that things are moved to.
    next: u64,
    /// Whether the first of `held` was made to move things to.
    own: bool,
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    /// Locked. Absent where there was no room for one: whoever else empties the directory does no harm.
    lease: Option<File>,
    /// Made by us for what was moved: its own room was free before.
    made: bool,
}

/// What emptying the trash did.
#[derive(Debug, Default)]
pub(in crate::storage) struct Emptied {
    /// Bytes on disk that were freed.
    pub bytes: u64,
    /// What could not be removed.
    pub stuck: Vec<SysError>,
}

impl Trash {
    /// Move something to the trash: it is gone from its place, and its room is free when the trash is emptied. Call it
    /// under the collect lock. Where it lies now comes back.
    pub(in crate::storage) fn take(&mut self, layout: &Layout, path: &Path) -> Result<PathBuf, Error> {
        if !self.own {
            let (dir, lease) = claim_dir(&layout.tmp())?;
            self.held.insert(0, Held { path: dir, lease: Some(lease), made: true });
            self.own = true;
        }
        self.next += 1;
        let to = self.held[0].path.join(self.next.to_string());
        fs::rename(path, &to).map_err(|error| SysError::path("remove", path, error))?;
        Ok(to)
    }

    /// The same without a lock that is held already, and also where there is no room for a directory to move it to: it
    /// gets a name of its own in `tmp/` then, and whoever comes by may remove it too.
    pub(in crate::storage) fn take_anyhow(&mut self, layout: &Layout, path: &Path) -> Result<PathBuf, Error> {
        let collect = lock(layout, &LockName::Collect, LockMode::Shared, &Patience::usual())?;
        let error = match self.take(layout, path) {
            Err(Error::Sys(error)) if is_short(&error) => error,
            other => return other,
        };
        drop(collect);
        let Some(name) = path.file_name() else { return Err(error.into()) };
        let to = layout.tmp().join(format!("removed-{}-{}", std::process::id(), name.to_string_lossy()));
        fs::rename(path, &to).map_err(|error| SysError::path("remove", path, error))?;
        self.held.push(Held { path: to.clone(), lease: None, made: false });
        Ok(to)
    }

    /// Take over the directory of a process that is dead. Call it under the collect lock, exclusively: a process that
    /// makes a directory holds it shared until the lease is there and locked.
    pub(in crate::storage) fn adopt(&mut self, path: &Path) {
        // A link is removed as a link: nothing is made or locked behind it.
        let is_dir = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let lease = match is_dir.then(|| options.open(path.join(LEASE))).transpose() {
            Ok(Some(lease)) => match flock::try_lock(&lease, true) {
                Ok(true) => Some(lease),
                _ => return, // alive after all, or being emptied
            },
            Ok(None) => None,
            // It has one, which cannot be opened now: somebody may hold it.
            Err(_) if fs::symlink_metadata(path.join(LEASE)).is_ok_and(|meta| meta.is_file()) => return,
            // No room for a lease, or something else in its place.
            Err(_) => None,
        };
        self.held.push(Held { path: path.to_owned(), lease, made: false });
    }

    /// Empty it and wait for that.
    pub(in crate::storage) fn empty(self) -> Emptied {
        let mut remover = Remover::counting();
        let mut stuck = Vec::new();
        for held in &self.held {
            // Without a limit there is an end.
            let _ = held.remove(&mut remover, &mut stuck);
        }
        Emptied { bytes: remover.bytes(), stuck }
    }

    /// Empty it without making anybody wait: what takes long is left to a process that stays behind, and what that
    /// cannot remove to the next sweep.
    pub(in crate::storage) fn discard(self) {
        if self.held.is_empty() {
            return;
        }
        let mut remover = Remover::default().until(Instant::now() + PATIENCE);
        let mut stuck = Vec::new();
        if self.held.iter().all(|held| held.remove(&mut remover, &mut stuck) == Removal::Done) {
            return;
        }
        let keep: Vec<_> =
            self.held.iter().filter_map(|held| held.lease.as_ref().map(AsRawFd::as_raw_fd)).collect();
        let rest = || {
            for held in &self.held {
                let _ = held.remove(&mut Remover::default(), &mut Vec::new());
            }
        };
        // Where no process can be made the next command goes on with it.
        let _ = detach::leave_behind(NAME, &keep, rest);
    }
}

impl Held {
    /// Remove what is in it, the lease last, and the directory.
    fn remove(&self, remover: &mut Remover, stuck: &mut Vec<SysError>) -> Removal {
        let before = stuck.len();
        let mut remove = |path: &Path| match remover.remove_path(path) {
            Ok(Removal::Unfinished) => Removal::Unfinished,
            Ok(Removal::Done) => Removal::Done,
            Err(error) => {
                stuck.push(error);
                Removal::Done
            }
        };
        let is_dir = fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.is_dir());
        for entry in is_dir.then(|| fs::read_dir(&self.path)).into_iter().flatten().flatten().flatten() {
            if entry.file_name() != LEASE && remove(&entry.path()) == Removal::Unfinished {
                return Removal::Unfinished;
            }
        }
        if stuck.len() > before {
            return Removal::Done;
        }
        let mut uncounted = Remover::default();
        let last = if self.made { &mut uncounted } else { remover };
        last.remove_path(&self.path).unwrap_or_else(|error| {
            stuck.push(error);
            Removal::Done
        })
    }
}
