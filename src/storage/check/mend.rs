//! Repair of what can be made again at any time: damaged snapshots and caches.

use std::path::Path;

use super::Fault;
use super::references::{LayerOf, Needs};
use crate::image::Silent;
use crate::oci::{Digest, digest_of};
use crate::storage::collect::Trash;
use crate::storage::index::IndexFile;
use crate::storage::lock::{LockMode, LockName};
use crate::storage::snapshots::User;
use crate::storage::{Error, Store};

/// What became of a damaged snapshot.
enum Moved {
    /// It was taken away.
    Away,
    /// It was kept aside, or left where it is: as a line for the user.
    Told(String),
}

impl Store {
    /// Take damaged snapshots and caches away. They are made again: snapshots here and now, where their blobs are. One
    /// whose blob is not here is kept aside unless `insist`, and one that somebody reads now stays where it is. What was
    /// done is returned.
    ///
    /// # Errors
    /// When they cannot be moved.
    pub fn mend_caches(&self, faults: &[Fault], insist: bool) -> Result<Vec<String>, Error> {
        let mut done = Vec::new();
        let index = IndexFile::read(&self.layout).ok();
        let needs = Needs::of(self, index.as_ref());
        for fault in faults {
            match fault {
                Fault::Cache { path, .. } => {
                    self.move_away(path)?;
                    done.push(format!("`{}` was removed: it is computed again", path.display()));
                }
                Fault::Snapshot { key, map, what } => {
                    if let Some(layer) = needs.snapshots.get(key) {
                        let path = self.layout.snapshot_under(key, map.as_deref());
                        done.push(self.mend_snapshot(key, &path, what, layer, insist)?);
                    }
                }
                _ => {}
            }
        }
        Ok(done)
    }

    fn mend_snapshot(
        &self,
        key: &Digest,
        path: &Path,
        why: &str,
        layer: &LayerOf,
        insist: bool,
    ) -> Result<String, Error> {
        let has_blob = digest_of(&layer.stack[layer.at].0)
            .is_ok_and(|digest| self.holds(&digest) && !self.is_wrong(&digest));
        let why_kept = (!has_blob && !insist).then_some(why);
        if let Moved::Told(line) = self.take_unless_used(key, path, why_kept)? {
            return Ok(line);
        }
        let short = key.short();
        Ok(match self.stack_of(&layer.stack[..=layer.at], &Silent) {
            Ok(_) => format!("layer {short} was unpacked again"),
            Err(_) => format!("layer {short} was removed: it is unpacked when it is used"),
        })
    }

    /// Take a snapshot away, or keep it aside for a reason, unless somebody reads it. Who mounts one has pinned it before,
    /// under the collect lock, and finds after that that it is gone.
    fn take_unless_used(&self, key: &Digest, path: &Path, kept: Option<&str>) -> Result<Moved, Error> {
        self.staging()?;
        let mut trash = Trash::default();
        let alone = self.lock(&LockName::Collect, LockMode::Exclusive)?;
        alone.verify()?;
        let users = self.users_of(key)?;
        if !users.is_empty() {
            return Ok(Moved::Told(left_for(key, &users)));
        }
        if let Some(why) = kept
            && let Some(to) = self.keep_snapshot(path, why)?
        {
            let (short, to) = (key.short(), to.display());
            return Ok(Moved::Told(format!(
                "layer {short} was moved to `{to}`: its blob is not here to unpack it again"
            )));
        }
        if path.symlink_metadata().is_ok() {
            trash.take(&self.layout, path)?;
        }
        drop(alone);
        // What cannot be removed now goes with a later sweep.
        drop(trash.empty());
        Ok(Moved::Away)
    }
}

fn left_for(key: &Digest, users: &[User]) -> String {
    let names: Vec<&str> = users
        .iter()
        .filter_map(|user| match user {
            User::Container(name) => Some(name.as_str()),
            User::Process => None,
        })
        .collect();
    let key = key.short();
    match names.as_slice() {
        [] => format!(
            "layer {key} stays as it is while another process works with it: try again when that has ended"
        ),
        names => format!(
            "layer {key} stays as it is while container `{}` runs from it: `strate stop {}`, and repair again",
            names.join("`, `"),
            names.join(" ")
        ),
    }
}
