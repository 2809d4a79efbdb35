//! The build cache as a list: what each part of it is and what it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;

use super::{Record, Records, mounts};
use crate::oci::Digest;
use crate::storage::collect::Marked;
use crate::storage::{Error, Store, staging};
use crate::sys::tree;

/// Clocks that differ by so many seconds are as good as the same.
const SKEW: i64 = 300;

/// What a part of the build cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// The layer that a step made.
    Step,
    /// A file that was fetched from elsewhere.
    Http,
    /// What is known of the files of a build context.
    Local,
    /// What the builder remembers of its own work.
    Internal,
    /// A directory that steps keep things in.
    Mount,
}

impl CacheKind {
    /// What BuildKit calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "regular",
            Self::Http => "source.http",
            Self::Local => "source.local",
            Self::Internal => "internal",
            Self::Mount => "exec.cachemount",
        }
    }

    fn of_key(key: &str) -> Self {
        match key.split_once('-').map_or("", |(kind, _)| kind) {
            "step" => Self::Step,
            "http" => Self::Http,
            "context" => Self::Local,
            _ => Self::Internal,
        }
    }
}

/// A part of the build cache.
#[derive(Debug, Clone)]
pub struct CacheItem {
    /// 64 hex digits.
    pub id: String,
    /// What it is.
    pub kind: CacheKind,
    /// What it came from, for people; may be empty.
    pub about: String,
    /// Bytes on disk of it and of all that it keeps.
    pub size: u64,
    /// Bytes of that which nothing else keeps, neither an image nor a container nor a part that was used since.
    pub own: u64,
    /// Whether images or containers need some of it too.
    pub shared: bool,
    /// Whether a running process relies on it.
    pub in_use: bool,
    /// When it was made, where that is known: Unix seconds.
    pub made: Option<i64>,
    /// When it was of use last: Unix seconds.
    pub used: i64,
    pub(super) place: Place,
}

impl CacheItem {
    /// Whether steps write to it.
    #[must_use]
    pub fn is_mutable(&self) -> bool {
        self.kind == CacheKind::Mount
    }

    /// Whether it is of the builder's own, or takes nothing that an image does not keep anyway: what is left alone
    /// unless everything is to go.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        matches!(self.kind, CacheKind::Internal | CacheKind::Local)
    }
}

/// Where a part of the cache lies.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Record(PathBuf),
    Mount { name: String, path: PathBuf },
}

/// What a list of the cache needs to know of the rest of the store.
struct Surroundings<'a> {
    /// Bytes on disk of what lies under each digest: a blob, a snapshot, or both.
    sizes: &'a BTreeMap<Digest, u64>,
    /// What images and containers need.
    held: &'a Marked,
}

impl Store {
    /// The parts of the build cache, the least recently used first. `sizes` are bytes on disk by digest, `held` is what
    /// images and containers need.
    pub(in crate::storage) fn cache_items(
        &self,
        sizes: &BTreeMap<Digest, u64>,
        held: &Marked,
    ) -> Result<Vec<CacheItem>, Error> {
        let around = &Surroundings { sizes, held };
        let records = Records::read(&self.layout)?;
        let pins = staging::pins(&self.layout, None)?;
        let mut items: Vec<CacheItem> =
            records.iter().map(|record| of_record(record, around, &pins)).collect();
        // What several keep belongs to the one that was used last: it goes with that.
        let mut latest: Vec<&Record> = records.iter().collect();
        let now = unix(SystemTime::now());
        latest.sort_by_key(|record| std::cmp::Reverse(order(unix(record.used), now)));
        let mut claimed = BTreeSet::new();
        let mut own: BTreeMap<String, u64> = BTreeMap::new();
        for record in latest {
            let free = |digest: &&Digest| !around.held.contains(digest);
            let kept: u64 = record
                .keeps()
                .iter()
                .filter(free)
                .filter(|d| claimed.insert(*d))
                .map(|d| size(around, d))
                .sum();
            own.insert(id_of(record), record.bytes + kept);
        }
        for item in &mut items {
            item.own = own.get(&item.id).copied().unwrap_or(item.own);
        }
        for mount in mounts::all(&self.layout)? {
            let size =
                tree::on_disk(&mount.path) + tree::on_disk(&self.layout().cache_mount_facts(&mount.name));
            items.push(CacheItem {
                id: Digest::sha256(&mount.name).hex().to_owned(),
                kind: CacheKind::Mount,
                about: format!("cached mount {}", mount.facts.about),
                size,
                own: size,
                shared: false,
                in_use: pins.contains(&mounts::pin(&mount.name)),
                made: Some(mount.facts.made).filter(|made| *made > 0),
                used: unix(mount.used),
                place: Place::Mount { name: mount.name, path: mount.path },
            });
        }
        items.sort_by_key(|item| order(item.used, now));
        Ok(items)
    }
}

fn size(around: &Surroundings<'_>, digest: &Digest) -> u64 {
    around.sizes.get(digest).copied().unwrap_or(0)
}

fn id_of(record: &Record) -> String {
    record.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn of_record(record: &Record, around: &Surroundings<'_>, pins: &BTreeSet<Digest>) -> CacheItem {
    let kept: u64 = record.keeps().iter().map(|digest| size(around, digest)).sum();
    CacheItem {
        id: id_of(record),
        kind: CacheKind::of_key(&record.head.key),
        about: record.head.about.clone(),
        size: record.bytes + kept,
        own: 0,
        shared: record.keeps().iter().any(|digest| around.held.contains(digest)),
        in_use: record.keeps().iter().any(|digest| pins.contains(digest)),
        made: Some(record.head.made).filter(|made| *made > 0),
        used: unix(record.used),
        place: Place::Record(record.path.clone()),
    }
}

/// Where a time stands in the order of use. One that is still to come is of a clock that was wrong: what was used since
/// it was set is newer.
fn order(used: i64, now: i64) -> i64 {
    if used > now + SKEW { 0 } else { used }
}

pub(super) fn unix(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(0)
}
