//! Collecting what is unreachable from names, containers, fresh build records and the living.
//!
//! Names went first, durably (`remove.rs`). Then, under the collect lock, what is reachable is marked and the rest renamed into the
//! trash, which is quick; the files are unlinked after the lock is released. The leases of other processes are read
//! *before* the names: whoever published and ended in between has put its content under a name by then.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::index::IndexFile;
use super::lock::{LockMode, LockName, Locked};
use super::snapshots::Marker;
use super::{ContainerDir, Error, Store, layout};
use crate::oci::{DiffId, Digest, ImageConfig, Parsed, RawManifest, chain_ids, digest_of};
use crate::sys::tree;

/// Partial downloads that nobody touched for so long are given up.
const PARTIAL_DAYS: u64 = 7;

/// What a collector keeps: digests of blobs and keys of snapshots.
type Marked = BTreeSet<Digest>;

impl Store {
    /// The containers; none while the directory is not even there.
    pub(super) fn all_containers(&self) -> Result<Vec<ContainerDir>, Error> {
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
        alone.verify()?;
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
        // What somebody pinned was not looked into: that is what this remembers.
        let mut seen = Marked::new();
        for entry in &IndexFile::read(&self.layout)?.manifests {
            let from = entry.digest_annotation(crate::image::INDEX_DIGEST_ANNOTATION);
            for digest in entry.digest().into_iter().chain(from) {
                self.mark_manifest(&digest, &mut marked, &mut seen, 0);
            }
        }
        for container in self.all_containers()? {
            self.mark_manifest(&container.record.manifest, &mut marked, &mut seen, 0);
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
    fn mark_manifest(&self, digest: &Digest, marked: &mut Marked, seen: &mut Marked, depth: u32) {
        marked.insert(digest.clone());
        if !seen.insert(digest.clone()) {
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
                        self.mark_manifest(&digest, marked, seen, depth + 1);
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
    pub(super) fn sweep_locks(&self) -> Result<(), Error> {
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

/// Both keys that each layer's snapshot may go by.
fn mark_snapshots(diff_ids: &[DiffId], marked: &mut Marked) {
    marked.extend(diff_ids.iter().map(|diff_id| diff_id.0.clone()));
    marked.extend(chain_ids(diff_ids).into_iter().map(|chain_id| chain_id.0));
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
