//! What volumes take on disk.

use super::Volume;
use crate::storage::{Error, Store, containers};
use crate::sys::tree;

/// What a volume takes, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Its name.
    pub name: String,
    /// How many containers use it, running or not.
    pub links: usize,
    /// Bytes on disk of its files and its record in the store, as far as they can be seen. Directories of the host and memory
    /// count as nothing.
    pub bytes: u64,
}

impl Store {
    /// Every volume with its size, which is measured now by going through its files: nobody else knows it.
    ///
    /// # Errors
    /// When volumes or containers cannot be listed.
    pub fn volumes_usage(&self) -> Result<Vec<VolumeUsage>, Error> {
        let users = containers::volume_users(self.layout())?;
        let usage = |volume: Volume| VolumeUsage {
            links: users.of(&volume.record.name).len(),
            bytes: tree::on_disk(&volume.dir),
            name: volume.record.name,
        };
        Ok(self.volumes()?.into_iter().map(usage).collect())
    }
}
