//! Removing volumes that nobody uses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::Volume;
use crate::storage::collect::Trash;
use crate::storage::containers::{self, Users};
use crate::storage::layout::Layout;
use crate::storage::lock::{LockMode, LockName, Locked, Patience, lock};
use crate::storage::{Error, Store, VolumeUsage};
use crate::sys::atomic::sync_dir;
use crate::sys::tree;

impl Store {
    /// The names of the containers that use each volume, whether they run or not.
    ///
    /// # Errors
    /// When the containers cannot be listed.
    pub fn volume_users(&self) -> Result<BTreeMap<String, Vec<String>>, Error> {
        Ok(containers::volume_users(self.layout())?.by_volume)
    }

    /// Remove a volume that no container uses, and what is in it: it is gone at once, its files shortly after, by a
    /// process that stays behind where that takes long. While a container's record is damaged nobody knows what that one
    /// uses, and only `force` removes a volume.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`], [`Error::VolumeInUse`], [`Error::VolumeMaybeInUse`], or when it cannot be moved away.
    pub fn remove_volume(&self, name: &str, force: bool) -> Result<(), Error> {
        self.writable()?;
        let alone = self.lock(&LockName::Volumes, LockMode::Exclusive)?;
        // A damaged one may go: nothing else helps it.
        match Volume::read(self.layout(), name) {
            Ok(None) => return Err(Error::NoSuchVolume(name.into())),
            Ok(Some(_)) | Err(Error::DamagedVolume { .. }) => {}
            Err(error) => return Err(error),
        }
        let users = containers::volume_users(self.layout())?;
        let sure = users.of(name);
        if !sure.is_empty() {
            return Err(Error::VolumeInUse { name: name.into(), containers: sure });
        }
        if let Some(id) = users.damaged.first().filter(|_| !force) {
            let container = id.get(..12).unwrap_or(id).to_owned();
            return Err(Error::VolumeMaybeInUse { name: name.into(), container });
        }
        let mut trash = Trash::default();
        discard(self.layout(), name, &alone, &mut trash)?;
        sync_dir(&self.layout().volumes())?;
        drop(alone);
        self.tell("volume", "destroy", name, &[("driver", "local")]);
        // What cannot be removed with the ids we have now is left to a later sweep.
        trash.discard();
        Ok(())
    }

    /// Remove all volumes that no container uses and that `takes` picks; with `dry_run` only say which, as if the
    /// containers with the ids `without` were gone. While a container's record is damaged nobody knows what it uses:
    /// nothing is removed then, and that is said.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn prune_volumes(
        &self,
        takes: &dyn Fn(&Volume) -> bool,
        dry_run: bool,
        without: &BTreeSet<String>,
    ) -> Result<Vec<VolumeUsage>, Error> {
        self.writable()?;
        let alone = self.lock(&LockName::Volumes, LockMode::Exclusive)?;
        let users = containers::volume_users_but(self.layout(), without)?;
        let mut unused = self.volumes()?;
        unused.retain(|volume| users.of(&volume.record.name).is_empty() && takes(volume));
        if let Some(id) = users.damaged.first().filter(|_| !unused.is_empty()) {
            self.notice.say(&format!(
                "no volume is removed while the record of container {id:.12} is damaged, as it may use one: \
                 `strate rm -f {id:.12}` removes that container"
            ));
            return Ok(Vec::new());
        }
        let usage = |name, bytes| VolumeUsage { name, links: 0, bytes };
        if dry_run {
            let would = |volume: Volume| usage(volume.record.name, tree::on_disk(&volume.dir));
            return Ok(unused.into_iter().map(would).collect());
        }
        let (mut gone, mut trash) = (Vec::new(), Trash::default());
        for volume in unused {
            let path = discard(self.layout(), &volume.record.name, &alone, &mut trash)?;
            gone.push((volume.record.name, path));
        }
        if !gone.is_empty() {
            sync_dir(&self.layout().volumes())?;
        }
        drop(alone);
        let mut pruned = Vec::new();
        for (name, path) in gone {
            let mut remover = tree::Remover::counting();
            // What cannot be removed is tried once more with the trash, and then left to a sweep.
            let _ = remover.remove_path(&path);
            pruned.push(usage(name, remover.bytes()));
        }
        trash.empty();
        Ok(pruned)
    }
}

/// Move those of these volumes to the trash that are there and that no container uses. While a container's record is
/// damaged they stay for a later prune. It needs no open store: a monitor ends the volumes of its own container, and the
/// volumes lock is never swept. `durable`: they stay away after a power cut, as they were made to outlive one.
pub(in crate::storage) fn take_unused(
    layout: &Layout,
    names: &[String],
    durable: bool,
    trash: &mut Trash,
) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let alone = lock(layout, &LockName::Volumes, LockMode::Exclusive, &Patience::usual())?;
    let users: Users = containers::volume_users(layout)?;
    if !users.damaged.is_empty() {
        return Ok(());
    }
    let goes = |name: &&String| {
        containers::is_name(name) && users.of(name).is_empty() && layout.volume(name).exists()
    };
    let gone: Vec<&String> = names.iter().filter(goes).collect();
    let taken = gone.iter().try_for_each(|name| discard(layout, name, &alone, trash).map(drop));
    if durable && !gone.is_empty() {
        // Before their files go, also those that went before one that could not.
        sync_dir(&layout.volumes())?;
    }
    taken
}

/// Move a volume to the trash. Where it lies then comes back.
fn discard(layout: &Layout, name: &str, _alone: &Locked, trash: &mut Trash) -> Result<PathBuf, Error> {
    trash.take_anyhow(layout, &layout.volume(name))
}
