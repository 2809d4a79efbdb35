//! `system check`: whether everything in the store is as `doc/storage.md` says.
//!
//! It only looks, and takes no lock that anybody waits for: others go on pulling, building and removing beside it. So
//! whatever seems wrong is looked at once more at the end, and what has vanished or come right by then is not told.

mod blobs;
mod compare;
mod fault;
mod files;
mod kept;
mod mend;
mod others;
mod references;
mod repair;
mod salvage;
mod snapshots;

pub use fault::Fault;
pub(in crate::storage) use files::OCI_LAYOUT;
pub use kept::Kept;
pub use repair::LostBlob;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::format::{self, Found};
use super::index::IndexFile;
use super::lock::{self, LockMode, LockName};
use super::{Abilities, ContainerDir, Error, Opening, Store, check_known, layout::Layout};
use references::Needs;

/// How a store is checked.
#[derive(Clone, Copy)]
pub struct CheckOptions<'a> {
    /// Believe the size of large blobs, and the markers of unpacked layers.
    pub quick: bool,
    /// Told how far it is; called from several threads.
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

impl std::fmt::Debug for CheckOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CheckOptions {{ quick: {} }}", self.quick)
    }
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of blobs.
    Blobs {
        /// Read so far.
        done: u64,
        /// In all.
        total: u64,
    },
    /// Unpacked layers.
    Snapshots {
        /// Compared so far.
        done: usize,
        /// In all.
        total: usize,
    },
}

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries of the list of names.
    pub images: usize,
    /// Blobs.
    pub blobs: usize,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Unpacked layers.
    pub snapshots: usize,
    /// Containers.
    pub containers: usize,
    /// Volumes.
    pub volumes: usize,
    /// Build records.
    pub records: usize,
}

/// A number of things and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// What could not be told, and what lies here that is none of ours.
    pub remarks: Vec<String>,
    /// What was looked at.
    pub counts: Counts,
    /// Blobs and unpacked layers that nothing needs: a prune takes them.
    pub collectable: Amount,
    /// Downloads that were cut short: the next pull goes on with them.
    pub partial: Amount,
    /// What dead processes left: the next command that writes clears it.
    pub leftovers: usize,
}

impl CheckReport {
    fn remark(&mut self, text: &str) {
        if !self.remarks.iter().any(|known| known == text) {
            self.remarks.push(text.to_owned());
        }
    }
}

/// Whether there is nothing yet, or a store whose making was cut short: the next command that writes finishes it.
fn is_half_made(layout: &Layout) -> bool {
    let is_empty = |dir: &Path| !files_below(dir);
    let contents = [layout.blobs(), layout.snapshots(), layout.containers(), layout.volumes()];
    IndexFile::read(layout).is_ok_and(|index| index.manifests.is_empty())
        && contents.iter().all(|dir| is_empty(dir))
}

/// Whether anything but empty directories and the mark of a cache lies below.
pub(super) fn files_below(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name() != "CACHEDIR.TAG")
        .any(|entry| !entry.file_type().is_ok_and(|kind| kind.is_dir()) || files_below(&entry.path()))
}

/// A check under way.
struct Check<'a> {
    store: &'a Store,
    options: &'a CheckOptions<'a>,
    report: CheckReport,
    /// The store is of a format that the next command which writes brings up to date.
    is_old: bool,
}

impl Store {
    /// Open a store that may be damaged, to check it: for writing where that is possible, as layers can then be
    /// unpacked and compared. `None` when there is no store at all.
    ///
    /// # Errors
    /// When its format is newer than this binary, or it cannot be read.
    pub fn open_to_check(root: &Path, abilities: Abilities, how: Opening) -> Result<Option<Self>, Error> {
        check_known(root)?;
        let layout = Layout::new(root);
        let found = match format::check(&layout, false) {
            Ok(Found::Nothing) if is_half_made(&layout) => return Ok(None),
            Ok(found) => found,
            Err(Error::Json { .. }) => Found::Nothing,
            Err(error) => return Err(error),
        };
        let can_write = matches!(format::check(&layout, true), Ok(Found::Current(_) | Found::Older(_)))
            && format::check_owner(root).is_ok()
            && super::refuse_read_only(root).is_ok();
        let patience = lock::Patience::usual();
        if can_write && let Ok(lock) = lock::lock(&layout, &LockName::Store, LockMode::Shared, &patience) {
            return Ok(Some(Self { _lock: Some(lock), ..Self::new(layout, how, &found, Some(abilities)) }));
        }
        Ok(Some(Self::new(layout, how, &found, None)))
    }

    /// Look at everything in the store. Nothing is changed.
    #[must_use]
    pub fn check(&self, options: &CheckOptions<'_>) -> CheckReport {
        let mut check = Check { store: self, options, report: CheckReport::default(), is_old: false };
        check.leftovers();
        check.format();
        check.directories();
        check.strays();
        check.kept();
        let index = check.index();
        let needs = Needs::of(self, index.as_ref());
        check.report.counts.images = needs.images;
        check.report.faults.extend(needs.faults.iter().cloned());
        check.blobs(&needs);
        check.snapshots(&needs);
        check.containers();
        check.volumes();
        check.caches(&needs);
        check.confirm();
        check.report
    }

    /// The containers whose records can be read.
    fn readable_containers(&self) -> Vec<ContainerDir> {
        let ids = self.container_ids().unwrap_or_default();
        ids.iter().filter_map(|id| self.read_container(id).ok().flatten()).collect()
    }
}

impl Check<'_> {
    /// Others may have been at work: look again at what seems wrong, and tell what still is.
    fn confirm(&mut self) {
        if self.report.faults.is_empty() {
            return;
        }
        let first = std::mem::take(&mut self.report.faults);
        let (report, mut second) = (self.report.clone(), Check { report: CheckReport::default(), ..*self });
        second.format();
        second.directories();
        let index = second.index();
        let needs = Needs::of(self.store, index.as_ref());
        second.report.faults.extend(needs.faults.iter().cloned());
        for fault in &first {
            if let Fault::Blob { digest, .. } = fault {
                second.blob_again(&needs, digest);
            }
        }
        let keys: Vec<_> = first
            .iter()
            .filter_map(|fault| match fault {
                Fault::Snapshot { key, map, .. } if needs.snapshots.contains_key(key) => {
                    Some((key.clone(), map.clone()))
                }
                _ => None,
            })
            .collect();
        second.compare_snapshots(&needs, &keys);
        second.containers();
        second.volumes();
        second.caches(&needs);
        let again = second.report.faults;
        self.report = report;
        self.report.faults = first
            .into_iter()
            .filter_map(|fault| again.iter().find(|other| other.is_about_same(&fault)).cloned())
            .collect();
    }
}

/// Do something to each, on as many threads as there are processors, at most four. The results are in order.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(4);
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let run = || {
        while let Some((at, item)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            items.get(at).map(|item| (at, item))
        } {
            let result = work(item);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            // Without another thread the work is done on this one.
            let _ = std::thread::Builder::new().spawn_scoped(scope, run);
        }
        run();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
