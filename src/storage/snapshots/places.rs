//! Where the snapshot of a layer lies. Usually there is one, `snapshots/<key>/`: the first that was unpacked. A process whose
//! ids stand for others on disk, so that it would see other owners in it, has one of its own beside it, with its id map in
//! the name: neither takes the other's files away, which containers run from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{IdMap, Marker, Snapshot, read_owners};
use crate::oci::{ChainId, DiffId, Digest};
use crate::storage::collect::snapshot_keys;
use crate::storage::layout::Layout;
use crate::storage::{ContainerDir, Error, Store, staging};

/// What uses a snapshot now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) enum User {
    /// A container whose program runs, or that somebody works on: its name.
    Container(String),
    /// A process that relies on it: a build, say.
    Process,
}

impl Store {
    /// The id map of this process.
    pub(in crate::storage) fn ids(&self) -> &IdMap {
        self.ids.get_or_init(|| IdMap::here(self.abilities.map_or(u32::MAX, |a| a.mapped_ids)))
    }

    /// A layer's snapshot, when there is one that can be used.
    pub(in crate::storage) fn find_snapshot(
        &self,
        diff_id: &DiffId,
        chain_id: &ChainId,
    ) -> Result<Option<Snapshot>, Error> {
        let keys = [&diff_id.0, &chain_id.0];
        let keys = if keys[0] == keys[1] { &keys[..1] } else { &keys[..] };
        for key in keys {
            for dir in self.places_of(&self.layout, key) {
                if let Some(marker) = Marker::read(&dir)?
                    && let Some(snapshot) = self.take_snapshot(&dir, &marker, diff_id)
                {
                    return Ok(Some(snapshot));
                }
            }
            for (dir, marker) in self.markers_elsewhere(key) {
                if let Some(snapshot) = self.take_snapshot(&dir, &marker, diff_id) {
                    return Ok(Some(snapshot));
                }
            }
        }
        Ok(None)
    }

    fn take_snapshot(&self, dir: &Path, marker: &Marker, diff_id: &DiffId) -> Option<Snapshot> {
        if !self.is_usable(marker, diff_id) {
            return None;
        }
        let owners = Arc::new(read_owners(dir, marker)?);
        Some(Snapshot { fs: dir.join("fs"), owners, size: marker.size })
    }

    /// Whether a snapshot shows its owners to this process. One that only looks takes any that is whole.
    pub(in crate::storage) fn is_usable(&self, marker: &Marker, diff_id: &DiffId) -> bool {
        match self.abilities {
            Some(abilities) => marker.usable(diff_id, abilities.mapped_ids, self.ids()),
            None => marker.is_safe() && marker.diff_id == *diff_id,
        }
    }

    /// The places of a snapshot in a store, the first that counts.
    pub(in crate::storage) fn places_of(&self, layout: &Layout, key: &Digest) -> [PathBuf; 2] {
        [layout.snapshot(key), layout.snapshot_under(key, Some(&self.ids().tag()))]
    }

    /// The place for a new snapshot: where none lies, or one that is good for nobody. What is there then makes way.
    ///
    /// # Errors
    /// [`Error::SnapshotInUse`]
    pub(in crate::storage) fn place_for(&self, key: &Digest, diff_id: &DiffId) -> Result<PathBuf, Error> {
        let [usual, ours] = self.places_of(&self.layout, key);
        if usual.symlink_metadata().is_err() {
            return Ok(usual);
        }
        let sound = Marker::read(&usual)?.is_some_and(|marker| marker.is_sound(&usual, diff_id));
        if !sound && self.users_of(key)?.is_empty() {
            return Ok(usual);
        }
        // Others who rely on the key may only be waiting for what is made here.
        let runs = |user: User| match user {
            User::Container(name) => Some(name),
            User::Process => None,
        };
        let containers: Vec<String> = match ours.symlink_metadata() {
            Ok(_) => self.users_of(key)?.into_iter().filter_map(runs).collect(),
            Err(_) => Vec::new(),
        };
        if containers.is_empty() {
            Ok(ours)
        } else {
            Err(Error::SnapshotInUse { key: key.clone(), containers })
        }
    }

    /// Who may be reading the files of a snapshot now, this process aside: certain under the collect lock, else a glance.
    /// A container whose record cannot be read may use any.
    pub(in crate::storage) fn users_of(&self, key: &Digest) -> Result<Vec<User>, Error> {
        let mut users = Vec::new();
        for container in ContainerDir::every(&self.layout)? {
            let record = &container.record;
            let diff_ids: Vec<DiffId> = record.layers.iter().map(|(_, id)| id.clone()).collect();
            let may = container.is_damaged() || snapshot_keys(&diff_ids).any(|one| one == *key);
            if may && container.is_in_use() {
                users.push(User::Container(record.name.clone()));
            }
        }
        if staging::pins(&self.layout, self.own_staging().as_deref())?.contains(key) {
            users.push(User::Process);
        }
        Ok(users)
    }
}
