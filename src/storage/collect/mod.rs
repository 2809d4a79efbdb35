//! Collecting what is unreachable from names, containers, build records and the living.
//!
//! Names went first, durably (`remove.rs`). What the documents of images name is read before anything is locked
//! (`graph.rs`). Then, under the collect lock, what is reachable is marked and the rest renamed into the trash, which is
//! quick whatever there is to remove; the files are unlinked after the lock is released (`trash.rs`). The leases of
//! other processes are read *before* the names: whoever published and ended in between has put its content under a name
//! by then.

mod contents;
mod forecast;
mod graph;
mod room;
mod trash;

pub(super) use graph::{Graph, Marked, snapshot_keys};
pub(super) use trash::Trash;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::cache::Records;
use super::index::IndexFile;
use super::lock::{LockMode, LockName, Locked};
use super::{ContainerDir, Error, Store, layout};
use crate::oci::{DiffId, Digest, digest_of};
use crate::sys::{SysError, atomic};

/// Partial downloads that nobody touched for so long are given up.
const PARTIAL_DAYS: u64 = 7;

/// When the files of what was collected are unlinked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlink {
    /// Before the collection returns, which then knows what it freed.
    Now,
    /// Soon: nobody waits for it.
    Behind,
}

/// What a collection did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Digests of blobs and keys of snapshots that are gone.
    pub gone: BTreeSet<Digest>,
    /// Bytes on disk that were freed, measured; 0 with [`Unlink::Behind`].
    pub bytes: u64,
    /// What is gone from its place but could not be removed.
    pub stuck: Vec<SysError>,
}

/// What a collector needs to know and can find out without a lock.
#[derive(Debug)]
struct Prepared {
    graph: Graph,
    records: Records,
}

impl Store {
    /// The containers; none while the directory is not even there.
    pub(super) fn all_containers(&self) -> Result<Vec<ContainerDir>, Error> {
        match fs::read_dir(self.layout.containers()).map(|mut entries| entries.next().is_some()) {
            Ok(true) => self.containers(),
            _ => Ok(Vec::new()),
        }
    }

    /// Collect everything unreachable.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn collect(&self, unlink: Unlink) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        self.with_room(|| self.collect_into(&mut swept, unlink))?;
        Ok(swept)
    }

    fn collect_into(&self, swept: &mut Swept, unlink: Unlink) -> Result<(), Error> {
        let staging = self.staging()?;
        let mut prepared = self.prepare()?;
        let mut trash = Trash::default();
        let alone = self.lock(&LockName::Collect, LockMode::Exclusive)?;
        self.sweep_staging(&staging, &alone, &mut trash)?;
        let marked = self.mark(&mut prepared, &alone)?;
        let keeps_snapshots = self.has_damaged_container()?;
        let mut unmarked = self.contents()?;
        unmarked
            .retain(|content| !(marked.contains(&content.digest) || keeps_snapshots && content.is_snapshot));
        if !unmarked.is_empty() {
            // Whoever wrote the list that names none of this may have been killed before that was durable.
            atomic::sync_dir(self.layout.root())?;
        }
        alone.verify()?;
        for content in unmarked {
            match trash.take(&self.layout, &content.path) {
                Ok(_) => _ = swept.gone.insert(content.digest),
                // Something is mounted on it, say. The rest can go all the same.
                Err(Error::Sys(error)) if !room::is_short(&error) => swept.stuck.push(error),
                Err(error) => return Err(error),
            }
        }
        drop(alone);
        swept.bytes += self.forget_layers(&swept.gone) + self.sweep_partials()?;
        self.sweep_places();
        match unlink {
            Unlink::Behind => trash.discard(),
            Unlink::Now => {
                let emptied = trash.empty();
                swept.bytes += emptied.bytes;
                swept.stuck.extend(emptied.stuck);
            }
        }
        Ok(())
    }

    fn prepare(&self) -> Result<Prepared, Error> {
        let mut roots = roots(&IndexFile::read(&self.layout)?);
        roots.extend(self.all_containers()?.into_iter().map(|container| container.record.manifest));
        Ok(Prepared { graph: Graph::read(&self.layout, &roots), records: Records::fresh(&self.layout)? })
    }

    /// Everything that a living process, a name, a container or a build record needs.
    fn mark(&self, prepared: &mut Prepared, alone: &Locked) -> Result<Marked, Error> {
        let mut marked = self.pins_of_others(alone)?;
        for root in roots(&IndexFile::read(&self.layout)?) {
            prepared.graph.reach(&self.layout, &root, &mut marked);
        }
        let containers = self.all_containers()?;
        for container in &containers {
            reach_container(&self.layout, container, &mut prepared.graph, &mut marked);
        }
        let known: BTreeSet<&str> = containers.iter().map(|container| container.record.id.as_str()).collect();
        for id in self.container_ids()?.iter().filter(|id| !known.contains(id.as_str())) {
            // Its record is damaged: what can still be read in it is kept.
            let bytes = fs::read(self.layout.container(id).join("config.json")).unwrap_or_default();
            marked.extend(graph::digests_in(&bytes));
        }
        marked.extend(prepared.records.kept_now(&self.layout)?);
        Ok(marked)
    }

    /// What was computed from blobs that are gone is of no use any more. The bytes on disk that it took are returned.
    fn forget_layers(&self, gone: &BTreeSet<Digest>) -> u64 {
        let lost = gone.iter().filter(|digest| !self.layout.blob(digest).exists());
        lost.map(|digest| room::unlink(&self.layout.layer_fact(digest))).sum()
    }

    /// Partial downloads that nobody touched for long.
    pub(super) fn old_partials(&self) -> Result<Vec<PathBuf>, Error> {
        let mut old = self.layout.entries(&self.layout.partials())?;
        old.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let modified = fs::symlink_metadata(path).and_then(|meta| meta.modified());
            let age = modified.ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
            layout::parse_file_name(name).is_some() && age.as_secs() >= PARTIAL_DAYS * 86_400
        });
        Ok(old)
    }

    /// Give up old partial downloads that nobody is working on.
    fn sweep_partials(&self) -> Result<u64, Error> {
        let mut bytes = 0;
        for path in self.old_partials()? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(digest) = layout::parse_file_name(name)
                && let Ok(Some(_lock)) = self.try_lock(&LockName::Blob(&digest), LockMode::Exclusive)
            {
                bytes += room::unlink(&path);
            }
        }
        Ok(bytes)
    }

    /// Lock files of blobs, layers and containers, which may go when nobody writes.
    pub(super) fn old_locks(&self) -> Result<Vec<PathBuf>, Error> {
        let mut old = self.layout.entries(&self.layout.locks())?;
        old.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            ["blob-", "layer-", "container-", "run-"].iter().any(|kind| name.starts_with(kind))
        });
        Ok(old)
    }

    /// Remove the lock files of blobs, layers and containers that are gone, and probes cut short, when no other writer is here. Ours is the
    /// only shared hold then, and turning it into an exclusive one fails if another came first. The bytes on disk that they
    /// took are returned.
    pub(super) fn sweep_locks(&self) -> Result<u64, Error> {
        let Some(own) = &self._lock else { return Ok(0) };
        let mut bytes = 0;
        if crate::sys::flock::try_lock(own, true)? {
            bytes += super::format::sweep_probes(&self.layout)?;
            bytes += self.old_locks()?.iter().map(|path| room::unlink(path)).sum::<u64>();
        }
        // Back to shared; a failed conversion may have lost it (`man 2 flock`).
        crate::sys::flock::lock(own, false)?;
        // Who came in between may have removed the store.
        own.verify()?;
        Ok(bytes)
    }
}

/// The documents that an index file leads to.
pub(super) fn roots(index: &IndexFile) -> BTreeSet<Digest> {
    let from = crate::image::INDEX_DIGEST_ANNOTATION;
    index
        .manifests
        .iter()
        .flat_map(|entry| entry.digest().into_iter().chain(entry.digest_annotation(from)))
        .collect()
}

/// Add what a container needs.
fn reach_container(
    layout: &layout::Layout,
    container: &ContainerDir,
    graph: &mut Graph,
    marked: &mut Marked,
) {
    let record = &container.record;
    graph.reach(layout, &record.manifest, marked);
    let diff_ids: Vec<DiffId> = record.layers.iter().map(|(_, id)| id.clone()).collect();
    marked.extend(snapshot_keys(&diff_ids));
    marked.extend(record.layers.iter().filter_map(|(layer, _)| digest_of(layer).ok()));
    marked.insert(record.image.0.clone());
}
