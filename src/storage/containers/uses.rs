//! Which volumes containers use.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ContainerDir, ContainerRecord, RECORD, Store, ids};
use crate::storage::Error;
use crate::storage::collect::Trash;
use crate::storage::layout::Layout;
use crate::storage::volumes::take_unused;

/// A volume that a container mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeUse {
    /// The volume's name.
    pub name: String,
    /// Made for this container: goes with it when it removes itself, or with `rm --volumes`.
    pub own: bool,
}

impl ContainerRecord {
    /// The volumes that the container mounts.
    #[must_use]
    pub fn volume_uses(&self) -> Vec<VolumeUse> {
        if let Some(volumes) = &self.volumes {
            return volumes.clone();
        }
        // A record of an older binary, which kept them in the description alone.
        let spec: serde_json::Value = serde_json::from_str(self.spec.get()).unwrap_or_default();
        let mounts = spec.get("mounts").and_then(|mounts| mounts.as_array());
        let volume = |mount: &serde_json::Value| {
            (mount.get("type")? == "volume").then_some(())?;
            let own = mount.get("anonymous").and_then(serde_json::Value::as_bool).unwrap_or(false);
            Some(VolumeUse { name: mount.get("name")?.as_str()?.to_owned(), own })
        };
        mounts.into_iter().flatten().filter_map(volume).collect()
    }
}

/// Who uses which volumes.
#[derive(Debug, Default)]
pub(in crate::storage) struct Users {
    /// The names of the containers, by volume.
    pub(in crate::storage) by_volume: BTreeMap<String, Vec<String>>,
    /// The ids of containers whose record cannot be read: what they use is not known for certain.
    pub(in crate::storage) damaged: Vec<String>,
    /// Their records' bytes.
    bytes: Vec<Vec<u8>>,
}

impl Users {
    /// The names of the containers that use a volume; a damaged container whose record has the name counts.
    pub(in crate::storage) fn of(&self, volume: &str) -> Vec<String> {
        let mut names = self.by_volume.get(volume).cloned().unwrap_or_default();
        let quoted = format!("\"{volume}\"");
        for (id, bytes) in self.damaged.iter().zip(&self.bytes) {
            // A record that is whole says it; what is left of one may.
            if bytes.windows(quoted.len()).any(|window| window == quoted.as_bytes()) {
                names.push(id.get(..12).unwrap_or(id).to_owned());
            }
        }
        names
    }
}

/// Look at every container's record. It needs no open store.
pub(in crate::storage) fn volume_users(layout: &Layout) -> Result<Users, Error> {
    volume_users_but(layout, &BTreeSet::new())
}

/// The same, as if the containers with these ids were gone.
pub(in crate::storage) fn volume_users_but(
    layout: &Layout,
    without: &BTreeSet<String>,
) -> Result<Users, Error> {
    let mut users = Users::default();
    for id in ids(layout)?.into_iter().filter(|id| !without.contains(id)) {
        match ContainerDir::read(layout, &id) {
            Ok(None) => {}
            Ok(Some(dir)) => {
                for used in dir.record.volume_uses() {
                    let names = users.by_volume.entry(used.name).or_default();
                    if !names.contains(&dir.record.name) {
                        names.push(dir.record.name.clone());
                    }
                }
            }
            Err(_) => {
                users.bytes.push(std::fs::read(layout.container(&id).join(RECORD)).unwrap_or_default());
                users.damaged.push(id);
            }
        }
    }
    Ok(users)
}

impl ContainerDir {
    /// Remove the volumes that were made for this container, which has removed itself, and that no other container uses.
    /// They were not made to outlive a power cut.
    ///
    /// # Errors
    /// When one cannot be moved away.
    pub fn remove_own_volumes(&self) -> Result<(), Error> {
        let mut trash = Trash::default();
        take_unused(&self.layout, &self.own_volumes(), false, &mut trash)?;
        trash.discard();
        Ok(())
    }

    fn own_volumes(&self) -> Vec<String> {
        let uses = self.record.volume_uses();
        uses.into_iter().filter(|used| used.own).map(|used| used.name).collect()
    }
}

impl Store {
    /// Remove a container, whose lock proves that its program does not run, and with `volumes` those made for it.
    ///
    /// # Errors
    /// When a directory cannot be moved away.
    pub fn remove_container(
        &self,
        dir: &ContainerDir,
        lock: super::RunLock,
        volumes: bool,
    ) -> Result<(), Error> {
        let mut trash = Trash::default();
        self.move_container(dir, lock, volumes, &mut trash)?;
        trash.discard();
        Ok(())
    }

    /// The same, and wait until its files are gone. The bytes on disk that this freed come back.
    ///
    /// # Errors
    /// As [`Store::remove_container`].
    pub fn remove_container_now(
        &self,
        dir: &ContainerDir,
        lock: super::RunLock,
        volumes: bool,
    ) -> Result<u64, Error> {
        let mut trash = Trash::default();
        self.move_container(dir, lock, volumes, &mut trash)?;
        // What cannot be removed with the ids we have now is left to a later sweep.
        Ok(trash.empty().bytes)
    }

    fn move_container(
        &self,
        dir: &ContainerDir,
        lock: super::RunLock,
        volumes: bool,
        trash: &mut Trash,
    ) -> Result<(), Error> {
        self.writable()?;
        // One that removes itself was not made to outlive a power cut.
        let durable = !dir.removes_itself();
        dir.take_away(lock, durable, trash)?;
        if volumes { take_unused(&self.layout, &dir.own_volumes(), durable, trash) } else { Ok(()) }
    }
}
