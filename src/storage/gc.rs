//! Removing names and collecting what is unreachable from names, containers, fresh build records and the living.
//!
//! Names go first, durably. Then, under the collect lock, what is reachable is marked and the rest renamed into the
//! trash, which is quick; the files are unlinked after the lock is released. The leases of other processes are read
//! *before* the names: whoever published and ended in between has put its content under a name by then.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::index::{Entry, IndexFile};
use super::lock::{LockMode, LockName, Locked};
use super::snapshots::Marker;
use super::{ContainerDir, Error, Status, Store, layout};
use crate::oci::{
    Descriptor, DiffId, Digest, ImageConfig, Parsed, RawManifest, Reference, chain_ids, digest_of,
};
use crate::sys::tree;

/// Partial downloads that nobody touched for so long are given up.
const PARTIAL_DAYS: u64 = 7;

/// What removing did, in docker's order: names first, then content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(String),
    /// An image or layer is gone: `sha256:…`.
    Deleted(String),
}

/// What a collection freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// What went, in order.
    pub removed: Vec<Removed>,
    /// Bytes freed on disk.
    pub bytes: u64,
}

/// Which images `image prune` takes.
#[derive(Debug, Clone, Default)]
pub struct PruneImages {
    /// Named images that no container uses too, not only untagged ones.
    pub all: bool,
    /// Only images created before this time (Unix seconds).
    pub until: Option<i64>,
    /// Only images with all of these labels (`key` or `key=value`).
    pub labels: Vec<String>,
    /// Only images with none of these labels.
    pub not_labels: Vec<String>,
}

/// What a collector keeps: digests of blobs and keys of snapshots.
type Marked = BTreeSet<Digest>;

impl Store {
    /// Remove an image by the name or id that the user typed, as `docker rmi` does.
    ///
    /// # Errors
    /// When it is unknown, used by a container, or has several names and `force` is not set.
    pub fn remove_image(&self, text: &str, force: bool) -> Result<Vec<Removed>, Error> {
        self.writable()?;
        let found = self.find_image(text)?;
        let images = self.images()?;
        let same: Vec<_> = images.iter().filter(|r| r.id == found.id && r.name.is_some()).collect();
        let by_name = Reference::parse(text).is_ok_and(|wanted| match (&found.name, wanted.digest()) {
            (Some(name), None) => *name == wanted,
            (name, Some(_)) => name.is_some(),
            (None, None) => false,
        });
        if !by_name && same.len() > 1 && !force {
            return Err(Error::SeveralNames {
                id: found.id.digest().short().to_owned(),
                names: same.iter().filter_map(|r| Some(r.name.as_ref()?.familiar())).collect(),
            });
        }
        let last = !by_name || same.len() <= 1;
        let keep_image = last && self.check_unused(&found.id, text, by_name, force)?;
        let doomed: Vec<Reference> = match by_name {
            true => found.name.iter().cloned().collect(),
            false => same.iter().filter_map(|r| r.name.clone()).collect(),
        };
        let layers = self.image(&found.manifest).map(|image| image.layers()).unwrap_or_default();
        let targets = targets_of(&images, &found.id);
        let mut removed = self.drop_names(&doomed, (last && !keep_image).then_some(&targets))?;
        if last && !keep_image {
            removed.push(Removed::Deleted(found.id.to_string()));
            let (gone, _) = self.collect()?;
            removed.extend(gone_layers(&layers, &gone));
        }
        Ok(removed)
    }

    /// Whether a container stands in the way of deleting an image. `true`: only the name may go, as somebody who forces
    /// it keeps their container.
    fn check_unused(
        &self,
        id: &crate::oci::ImageId,
        text: &str,
        by_name: bool,
        force: bool,
    ) -> Result<bool, Error> {
        let users: Vec<ContainerDir> =
            self.all_containers()?.into_iter().filter(|c| c.record.image == *id).collect();
        let mut users: Vec<(&ContainerDir, bool)> = users
            .iter()
            .map(|c| {
                let runs = |s: super::ContainerState| matches!(s.status, Status::Running | Status::Paused);
                (c, c.state().is_ok_and(runs))
            })
            .collect();
        users.sort_by_key(|(_, running)| !running);
        let Some((container, running)) = users.first() else { return Ok(false) };
        if force && (by_name || !running) {
            return Ok(true);
        }
        Err(Error::ImageInUse {
            image: text.into(),
            state: if *running { "running" } else { "stopped" },
            container: format!("{:.12} ({})", container.record.id, container.record.name),
        })
    }

    /// Take names out of the list; with `image` (its targets) also its entries without a name.
    fn drop_names(
        &self,
        names: &[Reference],
        image: Option<&BTreeSet<Digest>>,
    ) -> Result<Vec<Removed>, Error> {
        let is_of = |entry: &Entry| {
            entry.name().is_none()
                && image.is_some_and(|targets| entry.digest().is_some_and(|digest| targets.contains(&digest)))
        };
        let taken = self.edit_index(|index| {
            let taken = index.take(|e| e.name().is_some_and(|name| names.contains(&name)) || is_of(e));
            if image.is_none() {
                // The image stays: a container uses it, or it has other names.
                for entry in &taken {
                    index.add_untagged(entry.clone());
                }
            }
            Ok(taken)
        })?;
        let named = taken.iter().filter_map(Entry::name);
        Ok(named.map(|name| Removed::Untagged(name.familiar())).collect())
    }

    /// Remove unused images and collect the garbage.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn prune_images(&self, what: &PruneImages) -> Result<Collected, Error> {
        self.writable()?;
        let used: BTreeSet<_> = self.all_containers()?.into_iter().map(|c| c.record.image).collect();
        let images = self.images()?;
        let named: BTreeSet<_> = images.iter().filter(|r| r.name.is_some()).map(|r| &r.id).collect();
        let mut collected = Collected::default();
        let mut layers = Vec::new();
        let mut doomed = BTreeSet::new();
        for image in &images {
            let wanted = (what.all || !named.contains(&image.id)) && !used.contains(&image.id);
            if wanted && !doomed.contains(&image.id) && self.passes(what, image) {
                doomed.insert(image.id.clone());
                if let Ok(image) = self.image(&image.manifest) {
                    layers.push(image.layers());
                }
            }
        }
        for id in &doomed {
            let names: Vec<Reference> =
                images.iter().filter(|r| r.id == *id).filter_map(|r| r.name.clone()).collect();
            collected.removed.extend(self.drop_names(&names, Some(&targets_of(&images, id)))?);
            collected.removed.push(Removed::Deleted(id.to_string()));
        }
        let (gone, bytes) = self.collect()?;
        let mut told = BTreeSet::new();
        for layer in layers.iter().flat_map(|layers| gone_layers(layers, &gone)) {
            if let Removed::Deleted(text) = &layer
                && told.insert(text.clone())
            {
                collected.removed.push(layer);
            }
        }
        collected.bytes = bytes;
        self.sweep_locks()?;
        self.settle()?;
        Ok(collected)
    }

    /// Whether the filters of a prune pick an image.
    fn passes(&self, what: &PruneImages, image: &super::ImageRecord) -> bool {
        let created = image.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        if let Some(until) = what.until
            && created.is_none_or(|created| created.as_second() >= until)
        {
            return false;
        }
        if what.labels.is_empty() && what.not_labels.is_empty() {
            return true;
        }
        let Ok(image) = self.image(&image.manifest) else { return false };
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => image.config.config.labels.get(key).is_some_and(|found| found == value),
            None => image.config.config.labels.contains_key(wanted),
        };
        what.labels.iter().all(has) && !what.not_labels.iter().any(has)
    }

    /// The containers; none while the directory is not even there.
    fn all_containers(&self) -> Result<Vec<ContainerDir>, Error> {
        match fs::read_dir(self.layout.containers()).map(|mut entries| entries.next().is_some()) {
            Ok(true) => self.containers(),
            _ => Ok(Vec::new()),
        }
    }

    /// Collect everything unreachable. What went (digests of blobs, keys of snapshots) and the bytes it took are
    /// returned.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn collect(&self) -> Result<(BTreeSet<Digest>, u64), Error> {
        let staging = self.staging()?;
        let alone = self.lock(&LockName::Collect, LockMode::Exclusive)?;
        let trash = self.sweep_staging(&staging, &alone)?;
        let marked = self.mark(&alone)?;
        let (mut gone, mut bytes) = (BTreeSet::new(), 0);
        for (path, digest) in self.contents()? {
            if marked.contains(&digest) {
                continue;
            }
            let size = size_of(&path);
            let to = trash.join(format!("{}-{}", gone.len(), layout::file_name(&digest)));
            if fs::rename(&path, to).is_ok() {
                let _ = fs::remove_file(self.layout.layer_fact(&digest));
                gone.insert(digest);
                bytes += size;
            }
        }
        drop(alone);
        bytes += self.sweep_partials();
        self.sweep_places();
        // What cannot be removed with the ids we have now stays in the staging directory for a later sweep.
        let _ = tree::remove_path(&trash);
        Ok((gone, bytes))
    }

    /// Everything that a living process, a name, a container or a fresh build record needs.
    fn mark(&self, alone: &Locked) -> Result<Marked, Error> {
        let mut marked = self.pins_of_others(alone)?;
        for entry in &IndexFile::read(&self.layout)?.manifests {
            let from = entry.digest_annotation(crate::image::INDEX_DIGEST_ANNOTATION);
            for digest in entry.digest().into_iter().chain(from) {
                self.mark_manifest(&digest, &mut marked, 0);
            }
        }
        for container in self.all_containers()? {
            self.mark_manifest(&container.record.manifest, &mut marked, 0);
            let diff_ids: Vec<DiffId> = container.record.layers.iter().map(|(_, id)| id.clone()).collect();
            mark_snapshots(&diff_ids, &mut marked);
            marked.extend(container.record.layers.iter().filter_map(|(layer, _)| digest_of(layer).ok()));
            marked.insert(container.record.image.0);
        }
        marked.extend(self.kept_by_records());
        Ok(marked)
    }

    /// Mark a manifest and what it names, or an index and the manifests of it that are here. What cannot be read has
    /// nothing to mark: an image without its manifest is gone already.
    fn mark_manifest(&self, digest: &Digest, marked: &mut Marked, depth: u32) {
        if !marked.insert(digest.clone()) && depth > 0 {
            return;
        }
        let Ok(raw) =
            self.read_blob(digest).map_err(drop).and_then(|b| RawManifest::new(b, None).map_err(drop))
        else {
            return;
        };
        match raw.parse() {
            Ok(Parsed::Index(index)) if depth == 0 => {
                for digest in index.manifests().iter().filter_map(|d| digest_of(d).ok()) {
                    if self.layout.blob(&digest).exists() {
                        self.mark_manifest(&digest, marked, depth + 1);
                    }
                }
            }
            Ok(Parsed::Manifest(manifest)) => {
                marked.extend(manifest.layers().iter().filter_map(|layer| digest_of(layer).ok()));
                let Ok(config) = digest_of(manifest.config()) else { return };
                if let Ok(bytes) = self.read_blob(&config)
                    && let Ok(config) = serde_json::from_slice::<ImageConfig>(&bytes)
                {
                    mark_snapshots(&config.rootfs.diff_ids, marked);
                }
                marked.insert(config);
            }
            _ => {}
        }
    }

    /// All blobs and snapshots, with the digest in their name.
    fn contents(&self) -> Result<Vec<(PathBuf, Digest)>, Error> {
        let mut all = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            for path in list(&self.layout.blob_dir(algorithm)) {
                let hex = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if let Ok(digest) = format!("{algorithm}:{hex}").parse() {
                    all.push((path, digest));
                }
            }
        }
        for path in list(&self.layout.snapshots()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(digest) = layout::parse_file_name(name) {
                all.push((path, digest));
            }
        }
        Ok(all)
    }

    /// Give up old partial downloads that nobody is working on.
    fn sweep_partials(&self) -> u64 {
        let mut bytes = 0;
        for path in list(&self.layout.partials()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(digest) = layout::parse_file_name(name) else { continue };
            let Ok(meta) = fs::metadata(&path) else { continue };
            let age = meta.modified().ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
            if age.as_secs() >= PARTIAL_DAYS * 86_400
                && let Ok(Some(_lock)) = self.try_lock(&LockName::Blob(&digest), LockMode::Exclusive)
                && fs::remove_file(&path).is_ok()
            {
                bytes += meta.len();
            }
        }
        bytes
    }

    /// Remove the lock files of blobs, layers and containers that are gone, when no other writer is here. Ours is the
    /// only shared hold then, and turning it into an exclusive one fails if another came first.
    fn sweep_locks(&self) -> Result<(), Error> {
        let Some(own) = &self._lock else { return Ok(()) };
        if crate::sys::flock::try_lock(own, true)? {
            for path in list(&self.layout.locks()) {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if ["blob-", "layer-", "container-", "run-"].iter().any(|kind| name.starts_with(kind)) {
                    let _ = fs::remove_file(path);
                }
            }
        }
        // Back to shared; a failed conversion may have lost it (`man 2 flock`).
        Ok(crate::sys::flock::lock(own, false)?)
    }
}

/// What the entries of an image point to.
fn targets_of(images: &[super::ImageRecord], id: &crate::oci::ImageId) -> BTreeSet<Digest> {
    images.iter().filter(|r| r.id == *id).filter_map(|r| digest_of(&r.target).ok()).collect()
}

/// Both keys that each layer's snapshot may go by.
fn mark_snapshots(diff_ids: &[DiffId], marked: &mut Marked) {
    marked.extend(diff_ids.iter().map(|diff_id| diff_id.0.clone()));
    marked.extend(chain_ids(diff_ids).into_iter().map(|chain_id| chain_id.0));
}

/// The layers of an image whose content went with it, top first, by chain id, as docker lists them.
fn gone_layers(layers: &[(Descriptor, DiffId)], gone: &BTreeSet<Digest>) -> Vec<Removed> {
    let diff_ids: Vec<DiffId> = layers.iter().map(|(_, diff_id)| diff_id.clone()).collect();
    let went = |layer: &Descriptor| digest_of(layer).is_ok_and(|digest| gone.contains(&digest));
    let pairs = layers.iter().zip(chain_ids(&diff_ids)).rev();
    pairs
        .filter(|((layer, _), _)| went(layer))
        .map(|(_, chain_id)| Removed::Deleted(chain_id.to_string()))
        .collect()
}

fn list(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// Bytes of a blob, or of a snapshot as its marker says.
fn size_of(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => Marker::read(path).ok().flatten().map_or(0, |marker| marker.size),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    }
}
