//! Snapshots: one unpacked layer each, disposable, rebuilt from blobs when missing or damaged.
//!
//! `snapshots/<key>/` holds `fs/`, `meta.json` (the [`Marker`]) and, where the disk does not tell every owner,
//! `owners`. The key is the layer's diff id when its tar stands on its own, else its chain id. A snapshot is not synced
//! when it is made; the marker says in which boot that was, and one of an earlier boot that nobody has synced since is
//! made again from its blob.

mod ids;
mod marker;
mod places;

pub(super) use ids::{IdMap, is_tag};
pub(super) use marker::{Marker, read_owners};
pub(super) use places::User;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::lock::{LockMode, LockName};
use super::unpack::Unpacked;
use super::{Error, Image, Store};
use crate::image::{Event, Reporter};
use crate::layer::OwnerTable;
use crate::oci::{ChainId, Descriptor, DiffId, Digest, chain_ids, digest_of};
use crate::sys::{SysError, atomic, boot};

/// How many layers are unpacked at once.
const THREADS: usize = 2;

/// A snapshot is marked synced by a command that comes so many seconds after it was made: the kernel has written most
/// of it by then, and a pull that is followed by a run does not wait for the disk.
const SETTLE_SECONDS: u64 = 600;

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
