//! What says that a snapshot is whole, and what it was made of.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::IdMap;
use crate::layer::{Applied, OwnerTable};
use crate::oci::DiffId;
use crate::storage::Error;
use crate::sys::{SysError, atomic, boot};

/// Bytes that a snapshot takes beside what its tar names: its directory, the top of the tree and the marker, a block each.
const MARKER_BLOCKS: u64 = 3 * 4096;

/// `meta.json`: written before the rename that publishes a snapshot, so a snapshot without it does not exist.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::storage) struct Marker {
    version: u32,
    pub(in crate::storage) diff_id: DiffId,
    pub(super) boot_id: String,
    /// Seconds since boot.
    pub(super) made: u64,
    pub(super) synced: bool,
    /// Bytes of file content.
    pub(in crate::storage) size: u64,
    /// Bytes on disk, as near as was known; absent in markers of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disk: Option<u64>,
    /// Ids below it could be put on disk.
    mapped_ids: u32,
    /// The map that it was unpacked with; absent in markers of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    map: Option<IdMap>,
    /// The highest id that is on disk, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    highest_id: Option<u32>,
    /// Whether `owners` lies beside it.
    owners: bool,
}

impl Marker {
    pub(in crate::storage) fn new(diff_id: &DiffId, applied: &Applied, mapped_ids: u32, map: &IdMap) -> Self {
        let nothing_but_ours = mapped_ids <= 1 && applied.owners.is_empty();
        Self {
            version: 1,
            diff_id: diff_id.clone(),
            boot_id: boot::boot_id().to_owned(),
            made: boot::uptime(),
            synced: false,
            size: applied.bytes,
            disk: Some(applied.disk),
            mapped_ids,
            map: Some(map.clone()),
            highest_id: applied.highest_id.or(nothing_but_ours.then_some(0)),
            owners: !applied.owners.is_empty(),
        }
    }

    /// Write the marker (last) and the owner table into an unpublished snapshot.
    pub(in crate::storage) fn write(&self, dir: &Path, owners: &OwnerTable) -> Result<(), Error> {
        if self.owners {
            let path = dir.join("owners");
            atomic::write_file(&path, &owners.to_bytes())?;
        }
        let path = dir.join("meta.json");
        Ok(atomic::write_file(&path, &self.to_bytes(&path)?)?)
    }

    /// Bytes on disk, the directory and the marker too.
    pub(in crate::storage) fn on_disk(&self) -> u64 {
        self.disk.unwrap_or(self.size) + MARKER_BLOCKS
    }

    pub(super) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(|source| Error::Json { path: path.to_owned(), source })
    }

    /// Read back; `None` when there is none that makes sense.
    pub(in crate::storage) fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join("meta.json");
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok().filter(|marker: &Self| marker.version == 1)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(SysError::path("read", path, error).into()),
        }
    }

    /// Whether there is no marker, or one that was not written to its end.
    pub(in crate::storage) fn is_unwritten(dir: &Path) -> bool {
        match fs::read(dir.join("meta.json")) {
            Ok(bytes) => bytes.last() != Some(&b'}'),
            Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        }
    }

    /// Whether no power cut can have hit it.
    pub(in crate::storage) fn is_safe(&self) -> bool {
        self.synced || self.boot_id == boot::boot_id()
    }

    /// Whether the snapshot can be trusted to be the layer, and whole as far as can be told at a glance.
    pub(super) fn is_sound(&self, dir: &Path, diff_id: &DiffId) -> bool {
        self.is_safe()
            && self.diff_id == *diff_id
            && dir.join("fs").is_dir()
            && read_owners(dir, self).is_some()
    }

    /// Whether the snapshot can be trusted and shows its owners under the present id map too: the same one, or one that
    /// agrees about all ids that are on disk, when all of them are.
    pub(in crate::storage) fn usable(&self, diff_id: &DiffId, mapped_ids: u32, map: &IdMap) -> bool {
        let fits = match (&self.map, self.highest_id) {
            (Some(made), _) if made == map => true,
            (Some(made), Some(highest)) => !self.owners && made.agrees_with(map, highest),
            (Some(_), None) => false,
            // With more ids more owners could be put on disk than were; with fewer there may be some that none stands for.
            (None, _) if mapped_ids > self.mapped_ids => !self.owners,
            (None, _) => mapped_ids == self.mapped_ids,
        };
        self.is_safe() && self.diff_id == *diff_id && fits
    }
}

/// The owner table beside a marker; `None` when it should be there and does not make sense.
pub(in crate::storage) fn read_owners(dir: &Path, marker: &Marker) -> Option<OwnerTable> {
    if !marker.owners {
        return Some(OwnerTable::default());
    }
    OwnerTable::from_bytes(&fs::read(dir.join("owners")).ok()?)
}
