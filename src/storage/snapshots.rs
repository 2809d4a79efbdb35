//! Snapshots: one unpacked layer each, disposable, rebuilt from blobs when missing or damaged.
//!
//! `snapshots/<key>/` holds `fs/`, `meta.json` (the [`Marker`]) and, where the disk does not tell every owner,
//! `owners`. The key is the layer's diff id when its tar stands on its own, else its chain id. A snapshot is not synced
//! when it is made; the marker says in which boot that was, and one of an earlier boot that nobody has synced since is
//! made again from its blob.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::lock::{LockMode, LockName};
use super::unpack::Unpacked;
use super::{Error, Image, Store};
use crate::image::{Event, Reporter};
use crate::layer::{Applied, OwnerTable};
use crate::oci::{ChainId, Descriptor, DiffId, Digest, chain_ids, digest_of};
use crate::sys::{SysError, atomic, boot};

/// How many layers are unpacked at once.
const THREADS: usize = 2;

/// A snapshot is marked synced by a command that comes so many seconds after it was made: the kernel has written most
/// of it by then, and a pull that is followed by a run does not wait for the disk.
const SETTLE_SECONDS: u64 = 600;

/// Bytes that a snapshot takes beside what its tar names: its directory, the top of the tree and the marker, a block each.
const MARKER_BLOCKS: u64 = 3 * 4096;

/// One unpacked layer.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The directory with the layer's entries.
    pub fs: PathBuf,
    /// What the disk cannot hold; empty with the full id map and an image within it.
    pub owners: Arc<OwnerTable>,
    /// Bytes of file content.
    pub size: u64,
}

/// The unpacked layers of an image, lowest first; a collector leaves them alone while this lives.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    /// Lowest first.
    pub layers: Vec<Snapshot>,
    /// Their diff ids.
    pub diff_ids: Vec<DiffId>,
    /// True owners of what was changed on top and not committed yet, where the disk could not hold them.
    pub changes: OwnerTable,
}

/// `meta.json`: written before the rename that publishes a snapshot, so a snapshot without it does not exist.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Marker {
    version: u32,
    pub diff_id: DiffId,
    boot_id: String,
    /// Seconds since boot.
    made: u64,
    synced: bool,
    /// Bytes of file content.
    pub size: u64,
    /// Bytes on disk, as near as was known; absent in markers of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disk: Option<u64>,
    /// Ids below it could be put on disk.
    pub mapped_ids: u32,
    /// Whether `owners` lies beside it.
    owners: bool,
}

impl Marker {
    pub(super) fn new(diff_id: &DiffId, applied: &Applied, mapped_ids: u32) -> Self {
        Self {
            version: 1,
            diff_id: diff_id.clone(),
            boot_id: boot::boot_id().to_owned(),
            made: boot::uptime(),
            synced: false,
            size: applied.bytes,
            disk: Some(applied.disk),
            mapped_ids,
            owners: !applied.owners.is_empty(),
        }
    }

    /// Write the marker (last) and the owner table into an unpublished snapshot.
    pub(super) fn write(&self, dir: &Path, owners: &OwnerTable) -> Result<(), Error> {
        if self.owners {
            let path = dir.join("owners");
            atomic::write_file(&path, &owners.to_bytes())?;
        }
        let path = dir.join("meta.json");
        Ok(atomic::write_file(&path, &self.to_bytes(&path)?)?)
    }

    /// Bytes on disk, the directory and the marker too.
    pub(super) fn on_disk(&self) -> u64 {
        self.disk.unwrap_or(self.size) + MARKER_BLOCKS
    }

    fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(|source| Error::Json { path: path.to_owned(), source })
    }

    /// Read back; `None` when there is none that makes sense.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join("meta.json");
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok().filter(|marker: &Self| marker.version == 1)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(SysError::path("read", path, error).into()),
        }
    }

    /// Whether there is no marker, or one that was not written to its end.
    pub(super) fn is_unwritten(dir: &Path) -> bool {
        match fs::read(dir.join("meta.json")) {
            Ok(bytes) => bytes.last() != Some(&b'}'),
            Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        }
    }

    /// Whether no power cut can have hit it.
    pub(super) fn is_safe(&self) -> bool {
        self.synced || self.boot_id == boot::boot_id()
    }

    /// Whether the snapshot can be trusted and its owners fit the present id map: with a larger map more owners could
    /// be put on disk than were, and with a smaller one there may be owners on disk that no id stands for.
    pub(super) fn usable(&self, diff_id: &DiffId, mapped_ids: u32) -> bool {
        let fits = if mapped_ids > self.mapped_ids { !self.owners } else { mapped_ids == self.mapped_ids };
        self.is_safe() && self.diff_id == *diff_id && fits
    }
}

/// One layer of a stack being put together.
struct Wanted<'a> {
    layer: &'a Descriptor,
    diff_id: &'a DiffId,
    chain_id: ChainId,
}

/// What became of a layer that lacked.
enum Made {
    Published(Snapshot),
    /// Needs the layers below before it is whole.
    Dependent(Unpacked),
}

impl Store {
    /// The unpacked layers of an image. What lacks is unpacked from its blob, once even when several processes ask.
    ///
    /// # Errors
    /// When a blob is missing or corrupt, or unpacking is not possible here.
    pub fn stack(&self, image: &Image, report: &dyn Reporter) -> Result<Stack, Error> {
        self.stack_of(&image.layers(), report)
    }

    /// The unpacked layers of a list of layers that need not belong to a named image (build steps).
    ///
    /// # Errors
    /// As [`Store::stack`].
    pub fn stack_of(&self, layers: &[(Descriptor, DiffId)], report: &dyn Reporter) -> Result<Stack, Error> {
        let diff_ids: Vec<DiffId> = layers.iter().map(|(_, diff_id)| diff_id.clone()).collect();
        let wanted: Vec<Wanted<'_>> = layers
            .iter()
            .zip(chain_ids(&diff_ids))
            .map(|((layer, diff_id), chain_id)| Wanted { layer, diff_id, chain_id })
            .collect();
        if self.abilities.is_some() {
            let blobs: Vec<Digest> = layers.iter().filter_map(|(layer, _)| digest_of(layer).ok()).collect();
            let keys = wanted.iter().flat_map(|w| [&w.diff_id.0, &w.chain_id.0]);
            self.pin(keys.chain(&blobs))?;
        }
        let mut found = wanted
            .iter()
            .map(|w| self.find_snapshot(w.diff_id, &w.chain_id))
            .collect::<Result<Vec<_>, _>>()?;
        for (wanted, _) in wanted.iter().zip(&found).filter(|(_, found)| found.is_some()) {
            self.verify_pair(wanted.layer, wanted.diff_id)?;
        }
        if found.iter().any(Option::is_none) {
            self.make_missing(&wanted, &mut found, report)?;
        }
        Ok(Stack { layers: found.into_iter().flatten().collect(), diff_ids, changes: OwnerTable::default() })
    }

    /// A layer's snapshot, when there is one that can be used.
    pub(super) fn find_snapshot(
        &self,
        diff_id: &DiffId,
        chain_id: &ChainId,
    ) -> Result<Option<Snapshot>, Error> {
        let keys = [&diff_id.0, &chain_id.0];
        let keys = if keys[0] == keys[1] { &keys[..1] } else { &keys[..] };
        for key in keys {
            let own = self.layout.snapshot(key);
            let marker = Marker::read(&own)?;
            let own = marker.map(|marker| (own, marker));
            for (dir, marker) in own.into_iter().chain(self.markers_elsewhere(key)) {
                let mapped_ids = self.abilities.map_or(marker.mapped_ids, |a| a.mapped_ids);
                if marker.usable(diff_id, mapped_ids)
                    && let Some(owners) = read_owners(&dir, &marker)
                {
                    let (fs, owners) = (dir.join("fs"), Arc::new(owners));
                    return Ok(Some(Snapshot { fs, owners, size: marker.size }));
                }
            }
        }
        Ok(None)
    }

    /// Where the unpacked layers of an image lie, lowest first: those that are unpacked.
    #[must_use]
    pub fn unpacked_layers(&self, image: &Image) -> Vec<PathBuf> {
        let diff_ids = &image.config.rootfs.diff_ids;
        let chain = chain_ids(diff_ids);
        let found = diff_ids.iter().zip(&chain).filter_map(|(d, c)| self.find_snapshot(d, c).ok().flatten());
        found.map(|snapshot| snapshot.fs).collect()
    }

    fn make_missing(
        &self,
        wanted: &[Wanted<'_>],
        found: &mut [Option<Snapshot>],
        report: &dyn Reporter,
    ) -> Result<(), Error> {
        if !self.abilities.is_some_and(|a| a.unpack) {
            return Err(Error::CannotUnpack);
        }
        let missing: Vec<usize> = (0..wanted.len()).filter(|i| found[*i].is_none()).collect();
        let mut made = self.make_in_parallel(wanted, &missing, report)?;
        made.sort_by_key(|(i, _)| *i);
        for (i, made) in made {
            found[i] = Some(match made {
                Made::Published(snapshot) => snapshot,
                Made::Dependent(unpacked) => self.make_dependent(&wanted[i], unpacked, &found[..i])?,
            });
        }
        Ok(())
    }

    fn make_in_parallel(
        &self,
        wanted: &[Wanted<'_>],
        missing: &[usize],
        report: &dyn Reporter,
    ) -> Result<Vec<(usize, Made)>, Error> {
        let next = AtomicUsize::new(0);
        let (made, failure) = (Mutex::new(Vec::new()), Mutex::new(None));
        let work = || {
            while let Some(i) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.make_one(&wanted[*i], report) {
                    Ok(one) => made.lock().unwrap_or_else(PoisonError::into_inner).push((*i, one)),
                    Err(error) => {
                        next.store(missing.len(), Ordering::Relaxed);
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..THREADS.min(missing.len()) {
                // Without another thread the work is done on this one.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(made.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Unpack one layer under its lock, unless another process was faster.
    fn make_one(&self, wanted: &Wanted<'_>, report: &dyn Reporter) -> Result<Made, Error> {
        let _lock = self.lock(&LockName::Layer(&wanted.diff_id.0), LockMode::Exclusive)?;
        if let Some(snapshot) = self.find_snapshot(wanted.diff_id, &wanted.chain_id)? {
            return Ok(Made::Published(snapshot));
        }
        let unpacked = self.unpack_blob(wanted.layer, wanted.diff_id)?;
        if let Ok(digest) = digest_of(wanted.layer) {
            report.event(Event::Unpacked { digest, bytes: wanted.layer.size() });
        }
        if unpacked.applied.stands_alone() {
            Ok(Made::Published(self.publish_snapshot(&unpacked, &wanted.diff_id.0)?))
        } else {
            Ok(Made::Dependent(unpacked))
        }
    }

    /// Publish a layer that takes something from those below under its chain id. The lock is taken anew: holding it
    /// while waiting for another layer's would let two processes wait for each other.
    fn make_dependent(
        &self,
        wanted: &Wanted<'_>,
        mut unpacked: Unpacked,
        below: &[Option<Snapshot>],
    ) -> Result<Snapshot, Error> {
        let _lock = self.lock(&LockName::Layer(&wanted.diff_id.0), LockMode::Exclusive)?;
        if let Some(snapshot) = self.find_snapshot(wanted.diff_id, &wanted.chain_id)? {
            return Ok(snapshot);
        }
        let below: Vec<Snapshot> = below.iter().flatten().cloned().collect();
        self.complete(&mut unpacked, &below)?;
        self.publish_snapshot(&unpacked, &wanted.chain_id.0)
    }

    /// Sync snapshots of this boot that were made a while ago, and say so in their markers, so that the next boot need
    /// not make them again. Costs nothing when there are none.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn settle(&self) -> Result<(), Error> {
        self.settle_older(SETTLE_SECONDS)
    }

    /// [`Store::settle`] of all that there is.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn settle_all(&self) -> Result<(), Error> {
        self.settle_older(0)
    }

    fn settle_older(&self, seconds: u64) -> Result<(), Error> {
        let dir = self.layout.snapshots();
        let entries = fs::read_dir(&dir).map_err(|error| SysError::path("read", &dir, error))?;
        let mut fresh = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            if let Some(marker) = Marker::read(&path)?
                && !marker.synced
                && marker.boot_id == boot::boot_id()
                && boot::uptime().saturating_sub(marker.made) >= seconds
            {
                fresh.push((path, marker));
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        atomic::sync_file_system(&dir)?;
        for (path, mut marker) in fresh {
            marker.synced = true;
            let target = path.join("meta.json");
            // One that a collector took meanwhile needs no marker any more.
            let _ = self.replace_file(&target, &marker.to_bytes(&target)?, atomic::Durability::Fast);
        }
        Ok(())
    }
}

/// The owner table beside a marker; `None` when it should be there and does not make sense.
pub(super) fn read_owners(dir: &Path, marker: &Marker) -> Option<OwnerTable> {
    if !marker.owners {
        return Some(OwnerTable::default());
    }
    OwnerTable::from_bytes(&fs::read(dir.join("owners")).ok()?)
}
