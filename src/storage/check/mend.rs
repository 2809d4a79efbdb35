//! Repair of what can be made again at any time: damaged snapshots and caches.

use super::Fault;
use super::references::Needs;
use super::snapshots::Named;
use crate::image::Silent;
use crate::oci::Digest;
use crate::storage::collect::Trash;
use crate::storage::index::IndexFile;
use crate::storage::lock::{LockMode, LockName};
use crate::storage::snapshots::User;
use crate::storage::{Error, Store};

impl Store {
    /// Take damaged snapshots and caches away. They are made again: snapshots here and now, where their blobs are.
    /// Those that somebody reads now are left, which is said. What was done is returned.
    ///
    /// # Errors
    /// When they cannot be moved.
    pub fn mend_caches(&self, faults: &[Fault]) -> Result<Vec<String>, Error> {
        let mut done = Vec::new();
        let mut broken: Vec<Named> = Vec::new();
        for fault in faults {
            match fault {
                Fault::Cache { path, .. } => {
                    self.move_away(path)?;
                    done.push(format!("`{}` was removed: it is computed again", path.display()));
                }
                Fault::Snapshot { key, map, .. } => broken.push((key.clone(), map.clone())),
                _ => {}
            }
        }
        if broken.is_empty() {
            return Ok(done);
        }
        let keys = self.take_unused(&broken)?;
        let index = IndexFile::read(&self.layout).ok();
        let needs = Needs::of(self, index.as_ref());
        for key in keys {
            let Some(layer) = needs.snapshots.get(&key) else { continue };
            done.push(match self.stack_of(&layer.stack[..=layer.at], &Silent) {
                Ok(_) => format!("layer {} was unpacked again", key.short()),
                Err(_) => format!("layer {} was removed: it is unpacked when it is used", key.short()),
            });
        }
        Ok(done)
    }

    /// Take away those of some snapshots that nobody reads; their keys come back. Who mounts one has pinned it before,
    /// under the collect lock, and after that finds that it is gone.
    fn take_unused(&self, broken: &[Named]) -> Result<Vec<Digest>, Error> {
        self.staging()?;
        let (mut taken, mut trash) = (Vec::new(), Trash::default());
        let alone = self.lock(&LockName::Collect, LockMode::Exclusive)?;
        alone.verify()?;
        for (key, map) in broken {
            let path = self.layout.snapshot_under(key, map.as_deref());
            let users = self.users_of(key)?;
            if !users.is_empty() {
                self.say_left(key, &users);
            } else if path.symlink_metadata().is_ok() {
                trash.take(&self.layout, &path)?;
                taken.push(key.clone());
            }
        }
        drop(alone);
        // What cannot be removed now goes with a later sweep.
        drop(trash.empty());
        Ok(taken)
    }

    fn say_left(&self, key: &Digest, users: &[User]) {
        let names: Vec<&str> = users
            .iter()
            .filter_map(|user| match user {
                User::Container(name) => Some(name.as_str()),
                User::Process => None,
            })
            .collect();
        let key = key.short();
        self.notice.say(&match names.as_slice() {
            [] => format!(
                "layer {key} was left as it is: another process works with its files; try again when it has ended"
            ),
            names => format!(
                "layer {key} was left as it is: container `{}` runs from its files; \
                 `strate stop {}` and then `strate system check --repair` mends it",
                names.join("`, `"),
                names.join(" ")
            ),
        });
    }
}
