//! Containers that should have removed themselves.
//!
//! `containers/auto-remove/<id>` is made before the program of such a container starts. Who watches over the program holds
//! the container's lock and removes both at the end; when they were killed, or the machine stopped, the lock is free and
//! the file is still there. So a sweep looks at the few files of this directory, not at every container.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{ContainerDir, RunLock, Store, is_id};
use crate::storage::Error;
use crate::storage::layout::Layout;
use crate::sys::{SysError, atomic};

fn mark(layout: &Layout, id: &str) -> PathBuf {
    layout.auto_removes().join(id)
}

pub(super) fn forget(layout: &Layout, id: &str) {
    // One that stays is removed by the next sweep.
    let _ = fs::remove_file(mark(layout, id));
}

impl ContainerDir {
    /// Whether it goes when its program ends, and was started.
    #[must_use]
    pub fn removes_itself(&self) -> bool {
        mark(&self.layout, &self.record.id).exists()
    }

    /// It stays this once: it is started again at once. `_lock` is held.
    pub fn keep_this_once(&self, _lock: &RunLock) {
        forget(&self.layout, &self.record.id);
    }

    /// Write down that this container goes when its program ends, whoever sees it end. `_lock` keeps sweepers away until
    /// then.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn mark_auto_remove(&self, _lock: &RunLock) -> Result<(), Error> {
        let path = mark(&self.layout, &self.record.id);
        let make = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let made = match make() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                atomic::create_dirs(&self.layout.auto_removes(), 0o700)?;
                make()
            }
            other => other,
        };
        made.map(drop).map_err(|error| SysError::path("create", &path, error).into())
    }
}

impl Store {
    /// Remove the containers that should have removed themselves and did not come to it, with their own volumes. What
    /// cannot be removed is said, and tried again next time.
    pub fn sweep_ended(&self) {
        let marks = fs::read_dir(self.layout().auto_removes()).into_iter().flatten().flatten();
        for id in marks.filter_map(|mark| mark.file_name().into_string().ok()) {
            if !is_id(&id) || !self.layout().container(&id).is_dir() {
                forget(self.layout(), &id);
            } else if let Err(error) = self.remove_ended(&id) {
                self.notice.say(&format!("container {id:.12} has ended and cannot be removed: {error}"));
            }
        }
    }

    fn remove_ended(&self, id: &str) -> Result<(), Error> {
        // Locked: its program runs, or somebody works on it.
        let Ok(lock) = RunLock::new(&self.layout().container(id)) else { return Ok(()) };
        match ContainerDir::read(self.layout(), id) {
            Ok(Some(dir)) => self.remove_container(&dir, lock, true),
            Ok(None) => Ok(()),
            Err(_) => ContainerDir::of_damaged(self.layout(), id).remove(lock),
        }
    }
}
