//! Which cgroups containers have, so that none stays when whoever would remove it was killed.
//!
//! `containers/cgroups/<id>` is written before the cgroup is made and removed after it. Who watches over the program holds
//! the container's lock meanwhile: where that is free, or the container gone, the cgroup is a left-over.

use std::fs;
use std::path::PathBuf;

use super::{ContainerDir, RunLock, Store, is_id};
use crate::storage::Error;
use crate::storage::layout::Layout;
use crate::sys::atomic::{self, Durability};
use crate::sys::regular;

fn mark(layout: &Layout, id: &str) -> PathBuf {
    layout.cgroups().join(id)
}

impl ContainerDir {
    /// Write down which cgroup the container is about to get, as a document that is none of the store's business. The
    /// caller holds the container's lock.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn mark_cgroup(&self, text: &str) -> Result<(), Error> {
        let path = mark(&self.layout, &self.record.id);
        // It lies beside its place until it is whole.
        let staged = self.path.join(".cgroup");
        atomic::create_dirs(&self.layout.cgroups(), 0o700)?;
        Ok(atomic::replace_file(&path, &staged, text.as_bytes(), Durability::Fast)?)
    }

    /// What was written down.
    #[must_use]
    pub fn cgroup_mark(&self) -> Option<String> {
        read(&self.layout, &self.record.id)
    }

    /// The cgroup is gone.
    pub fn forget_cgroup(&self) {
        forget(&self.layout, &self.record.id);
    }
}

fn read(layout: &Layout, id: &str) -> Option<String> {
    String::from_utf8(regular::read_small(&mark(layout, id)).ok()?).ok()
}

fn forget(layout: &Layout, id: &str) {
    // One that stays is looked at by the next sweep.
    let _ = fs::remove_file(mark(layout, id));
}

impl Store {
    /// Have `remove` take away the cgroups of containers whose program nobody watches over. What it cannot take away is
    /// left for the next time.
    pub fn sweep_cgroups(&self, remove: &dyn Fn(&str) -> bool) {
        let marks = fs::read_dir(self.layout().cgroups()).into_iter().flatten().flatten();
        for id in marks.filter_map(|mark| mark.file_name().into_string().ok()) {
            let path = self.layout().container(&id);
            if !is_id(&id) {
                continue;
            }
            let lock = if path.is_dir() { RunLock::new(&path).ok() } else { None };
            if lock.is_none() && path.is_dir() {
                continue;
            }
            if read(self.layout(), &id).is_none_or(|text| remove(&text)) {
                forget(self.layout(), &id);
            }
            drop(lock);
        }
    }
}
