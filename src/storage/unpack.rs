//! A layer's stream becomes a snapshot, privately first.

use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::facts::{LayerFact, layer_error};
use super::snapshots::Marker;
use super::{Error, Snapshot, Store};
use crate::layer::{self, Applied, ApplyOptions, HashingReader, Lower, VerifiedReader, decompressor};
use crate::oci::{Descriptor, DiffId, Digest, digest_of};
use crate::sys::{SysError, tree};

/// The most entries of a layer.
const MAX_ENTRIES: u64 = 10_000_000;
/// The most bytes of a layer's files: 1 TiB. What the disk can hold is the real limit.
const MAX_BYTES: u64 = 1 << 40;

/// An unpacked layer that is not published yet; its directory goes away when it is dropped.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// The future snapshot: `fs/` and beside it the marker.
    dir: PathBuf,
    /// What was unpacked.
    pub applied: Applied,
    /// The digest of the tar.
    pub diff_id: DiffId,
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        let _ = tree::remove_path(&self.dir);
    }
}

impl Unpacked {
    pub(super) fn fact(&self) -> LayerFact {
        LayerFact { diff_id: self.diff_id.clone(), size: self.applied.bytes }
    }

    pub(super) fn fs(&self) -> PathBuf {
        self.dir.join("fs")
    }
}

impl Store {
    /// Decompress and unpack a layer's blob into a private directory, hashing the tar on the way. The blob's own bytes
    /// are verified by the reader that is passed in, or by the caller before it publishes.
    pub(super) fn unpack(&self, blob: Box<dyn Read + Send + '_>) -> Result<Unpacked, layer::Error> {
        let abilities = self.writable().map_err(into_layer_error)?;
        let dir = self.stage_dir("layer").map_err(into_layer_error)?;
        let mut unpacked = Unpacked { dir, applied: Applied::default(), diff_id: DiffId(Digest::sha256("")) };
        let root = make_root(&unpacked.fs())?;
        let (_, tar) = decompressor(blob).map_err(layer_error)?;
        let mut tar = HashingReader::new(tar);
        let options =
            ApplyOptions { mapped_ids: abilities.mapped_ids, max_entries: MAX_ENTRIES, max_bytes: MAX_BYTES };
        unpacked.applied = layer::apply(&mut tar, root.as_fd(), &options).map_err(unwrap_io)?;
        unpacked.diff_id = DiffId(tar.finish().0);
        Ok(unpacked)
    }

    /// Unpack a layer from the store's own blob. A blob that turns out to be corrupt is moved away, so that the next
    /// pull fetches it again; it is kept until then.
    pub(super) fn unpack_blob(&self, layer: &Descriptor, diff_id: &DiffId) -> Result<Unpacked, Error> {
        let unpacked = self.unpack_to_compare(layer, diff_id);
        match &unpacked {
            Ok(unpacked) => {
                let digest = digest_of(layer).map_err(crate::oci::ManifestError::from)?;
                self.remember_layer(&digest, &unpacked.fact());
            }
            Err(Error::CorruptBlob { digest, source }) => {
                // One that stays is found again.
                let _ = self.keep_wrong_blob(digest, &source.to_string());
            }
            Err(_) => {}
        }
        unpacked
    }

    /// The same, but nothing of the store changes by it.
    pub(super) fn unpack_to_compare(&self, layer: &Descriptor, diff_id: &DiffId) -> Result<Unpacked, Error> {
        let digest = digest_of(layer).map_err(crate::oci::ManifestError::from)?;
        let file = self.open_blob(&digest).map_err(|error| self.say_where(error))?;
        let blob = VerifiedReader::new(file, digest.clone(), layer.size());
        let unpacked = match self.unpack(Box::new(blob)) {
            Ok(unpacked) => unpacked,
            Err(source @ (layer::Error::Digest { .. } | layer::Error::Size { .. })) => {
                return Err(self.corrupt(&digest, source));
            }
            // Wrong bytes seldom come as far as their end.
            Err(source) if self.is_wrong(&digest) => return Err(self.corrupt(&digest, source)),
            Err(source) => return Err(Error::Layer { digest, source }),
        };
        if unpacked.diff_id != *diff_id {
            let source =
                layer::Error::Digest { expected: diff_id.0.clone(), found: unpacked.diff_id.0.clone() };
            return Err(Error::Layer { digest, source });
        }
        Ok(unpacked)
    }

    /// Give a layer that does not stand on its own what it takes from the layers below (lowest first).
    pub(super) fn complete(&self, unpacked: &mut Unpacked, below: &[Snapshot]) -> Result<(), Error> {
        let failed = |source| Error::Layer { digest: unpacked.diff_id.0.clone(), source };
        let root = open_dir(&unpacked.fs())?;
        let lowers = below.iter().map(|lower| open_dir(&lower.fs)).collect::<Result<Vec<File>, Error>>()?;
        let lowers: Vec<Lower<'_>> = lowers
            .iter()
            .zip(below)
            .map(|(root, lower)| Lower { root: root.as_fd(), owners: &lower.owners })
            .collect();
        // Owners came from below too.
        unpacked.applied.highest_id = None;
        layer::complete(root.as_fd(), &mut unpacked.applied, &lowers).map_err(failed)
    }

    /// Publish an unpacked layer under `key`: marker, then rename. What lay there before is good for nobody and makes way.
    pub(super) fn publish_snapshot(&self, unpacked: &Unpacked, key: &Digest) -> Result<Snapshot, Error> {
        let marker =
            Marker::new(&unpacked.diff_id, &unpacked.applied, self.writable()?.mapped_ids, self.ids());
        self.publish_tree(&unpacked.dir, key, &marker, &unpacked.applied.owners)
    }

    /// Publish a directory with `fs/` in it as the snapshot `key`. The caller holds the layer's lock.
    pub(super) fn publish_tree(
        &self,
        dir: &Path,
        key: &Digest,
        marker: &Marker,
        owners: &layer::OwnerTable,
    ) -> Result<Snapshot, Error> {
        self.pin([key])?;
        marker.write(dir, owners)?;
        let target = self.place_for(key, &marker.diff_id)?;
        let failed = |error| SysError::path("rename to", &target, error);
        if let Err(error) = fs::rename(dir, &target) {
            if !target.exists() {
                return Err(failed(error).into());
            }
            fs::rename(&target, self.stage_path("stale")?).map_err(failed)?;
            fs::rename(dir, &target).map_err(failed)?;
        }
        let owners = std::sync::Arc::new(owners.clone());
        Ok(Snapshot { fs: target.join("fs"), owners, size: marker.size })
    }
}

/// The root of a layer that does not name it: 0755, as everybody expects of `/`.
fn make_root(path: &Path) -> Result<File, layer::Error> {
    DirBuilder::new()
        .mode(0o755)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .and_then(|()| File::open(path))
        .map_err(|error| SysError::path("create", path, error).into())
}

pub(super) fn open_dir(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|error| SysError::path("open", path, error).into())
}

/// A store error on its way through a worker that speaks of layers.
fn into_layer_error(error: Error) -> layer::Error {
    match error {
        Error::Sys(error) => layer::Error::Sys(error),
        other => layer::Error::Io { operation: "write", source: std::io::Error::other(other) },
    }
}

/// A digest mismatch that came through the tar reader as an I/O error, as itself.
fn unwrap_io(error: layer::Error) -> layer::Error {
    match error {
        layer::Error::Io { operation, source } => match source.downcast::<layer::Error>() {
            Ok(inner) => inner,
            Err(source) => layer::Error::Io { operation, source },
        },
        other => other,
    }
}
