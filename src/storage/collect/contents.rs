//! What lies in the store under digests: blobs and snapshots.

use std::path::PathBuf;

use crate::oci::Digest;
use crate::storage::layout::{self, Layout};
use crate::storage::snapshots::Marker;
use crate::storage::{Error, Store};
use crate::sys::tree;

/// A blob or a snapshot.
#[derive(Debug)]
pub(in crate::storage) struct Content {
    pub path: PathBuf,
    /// The blob's digest, or the snapshot's key.
    pub digest: Digest,
    pub is_snapshot: bool,
}

impl Content {
    /// Bytes on disk that go with it: of a blob as the file system says, with what is known of it, of a snapshot as its
    /// marker does.
    pub(in crate::storage) fn on_disk(&self, layout: &Layout) -> u64 {
        if self.is_snapshot {
            return Marker::read(&self.path).ok().flatten().map_or(0, |marker| marker.on_disk());
        }
        tree::on_disk(&self.path) + tree::on_disk(&layout.layer_fact(&self.digest))
    }
}

impl Store {
    /// All blobs and snapshots.
    pub(in crate::storage) fn contents(&self) -> Result<Vec<Content>, Error> {
        let mut all = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            for path in self.layout.entries(&self.layout.blob_dir(algorithm))? {
                let hex = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if let Ok(digest) = format!("{algorithm}:{hex}").parse() {
                    all.push(Content { path, digest, is_snapshot: false });
                }
            }
        }
        all.extend(snapshots(&self.layout)?);
        Ok(all)
    }
}

/// All snapshots.
fn snapshots(layout: &Layout) -> Result<impl Iterator<Item = Content>, Error> {
    let entries = layout.entries(&layout.snapshots())?;
    Ok(entries.into_iter().filter_map(|path| {
        let (digest, _) = layout::parse_snapshot_name(path.file_name()?.to_str()?)?;
        Some(Content { path, digest, is_snapshot: true })
    }))
}
