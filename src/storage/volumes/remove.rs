//! Removing volumes that nobody uses.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::{Volume, usage};
use crate::storage::containers::{self, Users};
use crate::storage::layout::Layout;
use crate::storage::lock::{LockMode, LockName, Locked, Patience, lock};
use crate::storage::{Error, Store, VolumeUsage};
use crate::sys::atomic::sync_dir;
use crate::sys::{SysError, tree};

impl Store {
    /// The names of the containers that use each volume, whether they run or not.
    ///
    /// # Errors
    /// When the containers cannot be listed.
    pub fn volume_users(&self) -> Result<BTreeMap<String, Vec<String>>, Error> {
        Ok(containers::volume_users(self.layout())?.by_volume)
    }

    /// Remove a volume that no container uses, and what is in it: it is gone at once, its files shortly after.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`], [`Error::VolumeInUse`], or when it cannot be moved away.
    pub fn remove_volume(&self, name: &str) -> Result<(), Error> {
        self.writable()?;
        let alone = self.lock(&LockName::Volumes, LockMode::Exclusive)?;
        // A damaged one may go: nothing else helps it.
        match Volume::read(self.layout(), name) {
            Ok(None) => return Err(Error::NoSuchVolume(name.into())),
            Ok(Some(_)) | Err(Error::DamagedVolume { .. }) => {}
            Err(error) => return Err(error),
        }
        let users = containers::volume_users(self.layout())?.of(name);
        if !users.is_empty() {
            return Err(Error::VolumeInUse { name: name.into(), containers: users });
        }
        let trash = discard(self.layout(), name, &alone)?;
        sync_dir(&self.layout().volumes())?;
        drop(alone);
        // What cannot be removed with the ids we have now is left to a later sweep.
        let _ = tree::remove_path(&trash);
        Ok(())
    }

    /// Remove all volumes that no container uses and that `takes` picks; with `dry_run` only say which. While a
    /// container's record is damaged nobody knows what it uses: nothing is removed then, and that is said.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn prune_volumes(
        &self,
        takes: &dyn Fn(&Volume) -> bool,
        dry_run: bool,
    ) -> Result<Vec<VolumeUsage>, Error> {
        self.writable()?;
        let alone = self.lock(&LockName::Volumes, LockMode::Exclusive)?;
        let users = containers::volume_users(self.layout())?;
        let mut unused = self.volumes()?;
        unused.retain(|volume| users.of(&volume.record.name).is_empty() && takes(volume));
        if let Some(id) = users.damaged.first().filter(|_| !unused.is_empty()) {
            self.notice.say(&format!(
                "no volume is removed while the record of container {id:.12} is damaged, as it may use one: \
                 `strate rm -f {id:.12}` removes that container"
            ));
            return Ok(Vec::new());
        }
        let mut gone = Vec::new();
        for volume in unused {
            let path = match dry_run {
                true => volume.dir.clone(),
                false => discard(self.layout(), &volume.record.name, &alone)?,
            };
            gone.push((volume.record.name, path));
        }
        if !dry_run && !gone.is_empty() {
            sync_dir(&self.layout().volumes())?;
        }
        drop(alone);
        let mut pruned = Vec::new();
        for (name, path) in gone {
            pruned.push(VolumeUsage { name, links: 0, bytes: usage::data_size(&path) });
            if !dry_run {
                let _ = tree::remove_path(&path);
            }
        }
        Ok(pruned)
    }
}

/// Remove those of these volumes that are there and that no container uses. While a container's record is damaged they
/// stay for a later prune. It needs no open store: a monitor ends the volumes of its own container, and the volumes lock is
/// never swept.
pub(in crate::storage) fn remove_unused(layout: &Layout, names: &[String]) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let alone = lock(layout, &LockName::Volumes, LockMode::Exclusive, &Patience::usual())?;
    let users: Users = containers::volume_users(layout)?;
    if !users.damaged.is_empty() {
        return Ok(());
    }
    let mut trash = Vec::new();
    for name in names {
        if containers::is_name(name) && users.of(name).is_empty() && layout.volume(name).exists() {
            trash.push(discard(layout, name, &alone)?);
        }
    }
    drop(alone);
    for path in trash {
        let _ = tree::remove_path(&path);
    }
    Ok(())
}

/// Move a volume to where the next sweep of staging directories removes it, should this process not come to it.
fn discard(layout: &Layout, name: &str, _alone: &Locked) -> Result<PathBuf, Error> {
    let dir = layout.volume(name);
    for attempt in 0..u32::MAX {
        let trash = layout.tmp().join(format!("removed-volume-{}-{attempt}", std::process::id()));
        match fs::rename(&dir, &trash) {
            Ok(()) => return Ok(trash),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) => {}
            Err(error) => return Err(SysError::path("remove", dir, error).into()),
        }
    }
    Err(SysError::path("remove", dir, io::Error::from(io::ErrorKind::AlreadyExists)).into())
}
