//! Unpacked layers: each is compared with its blob, which is unpacked again beside it.

use std::os::fd::AsFd;
use std::path::Path;

use super::compare::{Tree, compare};
use super::others::is_of_earlier_boot;
use super::references::{LayerOf, Needs, files_of};
use super::{Check, Fault, Progress, in_parallel};
use crate::oci::{DiffId, Digest, chain_ids, digest_of};
use crate::storage::snapshots::{Marker, read_owners};
use crate::storage::unpack::open_dir;
use crate::storage::{Error, Snapshot, Store, layout};

/// A snapshot: its key, and its id map where its name has one.
pub(super) type Named = (Digest, Option<String>);

/// What came of the look at a snapshot.
pub(super) enum Verdict {
    Good,
    /// It cannot be told, and why: not a fault.
    Unknown(String),
    Bad(String),
}

impl Check<'_> {
    /// Every snapshot.
    pub(super) fn snapshots(&mut self, needs: &Needs) {
        let mut keys: Vec<Named> = Vec::new();
        for entry in files_of(&self.store.layout().snapshots()) {
            let name = entry.file_name();
            match name.to_str().and_then(layout::parse_snapshot_name) {
                Some((key, map)) => keys.push((key, map.map(str::to_owned))),
                None if name == "CACHEDIR.TAG" => {}
                None => self.stray(&entry.path()),
            }
        }
        keys.sort();
        self.report.counts.snapshots = keys.len();
        let (needed, others): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|(key, _)| needs.snapshots.contains_key(key));
        for (key, map) in others.iter().filter(|(key, _)| !needs.kept.contains(key)) {
            let dir = self.store.layout().snapshot_under(key, map.as_deref());
            let marker = Marker::read(&dir).ok().flatten();
            self.report.collectable.add(marker.map_or(0, |marker| marker.size));
        }
        self.compare_snapshots(needs, &needed);
    }

    /// Look at some of them.
    pub(super) fn compare_snapshots(&mut self, needs: &Needs, keys: &[Named]) {
        let can = self.store.abilities.is_some_and(|abilities| abilities.unpack);
        let can = can && (self.options.quick || self.store.staging().is_ok());
        if !keys.is_empty() && !self.options.quick && !can {
            self.report.remark(
                "unpacked layers were not compared with their blobs: that needs a store \
                 that can be written, and a user namespace",
            );
        }
        let full = can && !self.options.quick;
        let bad: Vec<Digest> = self.bad_blobs();
        let total = keys.len();
        let done = std::sync::atomic::AtomicUsize::new(0);
        let verdicts = in_parallel(keys, |named| {
            let verdict = look(self.store, named, &needs.snapshots[&named.0], full, &bad);
            let done = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            (self.options.progress)(Progress::Snapshots { done, total });
            verdict
        });
        for ((key, map), verdict) in keys.iter().zip(verdicts) {
            let fault = |what| Fault::Snapshot { key: key.clone(), map: map.clone(), what };
            match verdict {
                Ok(Verdict::Good) => {}
                Ok(Verdict::Unknown(why)) => {
                    self.report.remark(&format!("layer {} was not compared: {why}", key.short()));
                }
                Ok(Verdict::Bad(what)) => self.report.faults.push(fault(what)),
                Err(error) => {
                    self.report.faults.push(fault(format!("cannot be read: {}", chain_text(&error))));
                }
            }
        }
    }

    fn bad_blobs(&self) -> Vec<Digest> {
        let digest = |fault: &Fault| match fault {
            Fault::Blob { digest, .. } => Some(digest.clone()),
            _ => None,
        };
        self.report.faults.iter().filter_map(digest).collect()
    }
}

/// An error with its causes, in a line.
pub(super) fn chain_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// One snapshot. One that a next use would make anew anyway is no fault.
fn look(
    store: &Store,
    (key, map): &Named,
    layer: &LayerOf,
    full: bool,
    bad: &[Digest],
) -> Result<Verdict, Error> {
    let dir = store.layout().snapshot_under(key, map.as_deref());
    if full {
        store.pin([key])?;
    }
    let Some(marker) = Marker::read(&dir)? else {
        return Ok(match dir.exists() {
            // What a power cut leaves of one that was not synced: nobody takes it for a snapshot.
            true if Marker::is_unwritten(&dir) && is_of_earlier_boot(&dir) => {
                Verdict::Unknown("it was not written to its end, and is made anew when it is used".to_owned())
            }
            true => Verdict::Bad("has no marker that makes sense".to_owned()),
            false => Verdict::Good, // collected meanwhile
        });
    };
    let (descriptor, diff_id) = &layer.stack[layer.at];
    if marker.diff_id != *diff_id {
        return Ok(Verdict::Bad(format!("says that it is {}", marker.diff_id)));
    }
    if !marker.is_safe() {
        // Of an earlier boot and never synced: it is made anew when it is used.
        return Ok(Verdict::Good);
    }
    let Some(owners) = read_owners(&dir, &marker) else {
        return Ok(Verdict::Bad("has no table of owners that makes sense".to_owned()));
    };
    if !dir.join("fs").is_dir() {
        return Ok(Verdict::Bad("has no files".to_owned()));
    }
    if !full {
        return Ok(Verdict::Good);
    }
    if !store.is_usable(&marker, diff_id) {
        return Ok(Verdict::Unknown("it was unpacked with other user ids than there are here".to_owned()));
    }
    if digest_of(descriptor).is_ok_and(|digest| bad.contains(&digest)) {
        return Ok(Verdict::Unknown("its blob is not what it should be".to_owned()));
    }
    let stored = Snapshot { fs: dir.join("fs"), owners: owners.into(), size: marker.size };
    again(store, &stored, layer)
}

/// Unpack the blob again and compare.
fn again(store: &Store, stored: &Snapshot, layer: &LayerOf) -> Result<Verdict, Error> {
    let (descriptor, diff_id) = &layer.stack[layer.at];
    let mut fresh = match store.unpack_to_compare(descriptor, diff_id) {
        Ok(fresh) => fresh,
        Err(
            error @ (Error::MissingBlob(_)
            | Error::BlobElsewhere { .. }
            | Error::CorruptBlob { .. }
            | Error::CorruptElsewhere { .. }
            | Error::Layer { .. }),
        ) => {
            return Ok(Verdict::Unknown(chain_text(&error)));
        }
        Err(error) => return Err(error),
    };
    if !fresh.applied.stands_alone() {
        let diff_ids: Vec<DiffId> = layer.stack[..layer.at].iter().map(|(_, id)| id.clone()).collect();
        let mut below = Vec::new();
        for (diff_id, chain_id) in diff_ids.iter().zip(chain_ids(&diff_ids)) {
            match store.find_snapshot(diff_id, &chain_id)? {
                Some(snapshot) => below.push(snapshot),
                None => return Ok(Verdict::Unknown("a layer below it is not unpacked".to_owned())),
            }
        }
        store.complete(&mut fresh, &below)?;
    }
    let (is, should) = (open_dir(&stored.fs)?, open_dir(&fresh.fs())?);
    let is = Tree { root: is.as_fd(), owners: &stored.owners };
    let should_owners = &fresh.applied.owners;
    let found = compare(&is, &Tree { root: should.as_fd(), owners: should_owners })?;
    Ok(match found {
        Some((at, what)) => Verdict::Bad(format!("`/{}` {what}", shown(&at))),
        None if stored.size != fresh.applied.bytes => {
            Verdict::Bad(format!("says that it has {} bytes instead of {}", stored.size, fresh.applied.bytes))
        }
        None => Verdict::Good,
    })
}

fn shown(path: &Path) -> String {
    path.display().to_string().trim_start_matches('/').escape_debug().to_string()
}
