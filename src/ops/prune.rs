//! `image prune`, `builder prune`, `system prune`: what nothing uses goes. Each can be asked first what it would do.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::images::{self, Filters};
use super::{container, rm, store, volume, when};
use crate::context::Context;
use crate::storage::{self, ImageRecord, Store, Unlink};

pub use crate::storage::{Budget, CacheItem, Collected, Kept, Limits, PrunePlan, Swept, parse_size};

/// Why nothing was pruned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A filter of the build cache that makes no sense.
    #[error("invalid filter `{0}`: {1}")]
    Filter(String, &'static str),
    /// A filter of images that makes no sense.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// Containers could not be pruned.
    #[error(transparent)]
    Container(#[from] container::Error),
    /// Volumes could not be pruned.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// Which images `image prune` takes.
#[derive(Debug, Clone, Default)]
pub struct Images {
    /// Named images that no container uses too, not only untagged ones.
    pub all: bool,
    /// Filters as those of `images`.
    pub filters: Vec<String>,
}

impl Images {
    /// Whether all go, and the filters. docker's spelling of `--all` is a filter.
    fn filters(&self, store: &Store) -> Result<(bool, Filters), Error> {
        let mut all = self.all;
        let mut rest = Vec::new();
        for text in &self.filters {
            match text.split_once('=') {
                Some(("dangling", value)) => {
                    let bad = || images::Error::BadValue { key: "dangling".into(), value: value.into() };
                    all = !images::flag(value).ok_or_else(bad)?;
                }
                _ => rest.push(text.clone()),
            }
        }
        Ok((all, Filters::parse(&rest, store)?))
    }
}

/// What `image prune` would do.
///
/// # Errors
/// When a filter makes no sense or the store cannot be read.
pub fn plan_images(cx: &Context, what: &Images) -> Result<PrunePlan, Error> {
    plan_images_without(cx, what, &BTreeSet::new())
}

/// The same, as if the containers with these ids were gone.
fn plan_images_without(cx: &Context, what: &Images, without: &BTreeSet<String>) -> Result<PrunePlan, Error> {
    let store = store::read(cx)?;
    let (all, filters) = what.filters(&store)?;
    Ok(store.plan_prune(all, &|record: &ImageRecord, store: &Store| filters.pick(record, store), without)?)
}

/// Remove the images that are picked and collect the garbage.
///
/// # Errors
/// When a filter makes no sense or the store cannot be written.
pub fn prune_images(
    cx: &Context,
    what: &Images,
    notice: impl Fn(&str) + Send + Sync + 'static,
) -> Result<Collected, Error> {
    let store = store::write(cx, notice)?;
    let (all, filters) = what.filters(&store)?;
    // What should have removed itself uses nothing any more.
    store.sweep_ended();
    let pick = |record: &ImageRecord, store: &Store| filters.pick(record, store);
    Ok(store.prune_images(all, &pick)?)
}

/// Which parts of the build cache go.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    /// Also what the builder remembers of its own work, and what images keep anyway.
    pub all: bool,
    /// How much is kept.
    pub limits: Limits,
    filters: CacheFilters,
}

#[derive(Debug, Clone, Default)]
struct CacheFilters {
    until: Option<i64>,
    ids: Vec<String>,
    kinds: Vec<String>,
    about: Vec<String>,
    flags: Vec<(&'static str, bool)>,
}

/// Filters of the build cache that are yes or no.
const FLAGS: [&str; 6] = ["inuse", "mutable", "immutable", "shared", "private", "reclaimable"];

impl Cache {
    /// Without filters.
    #[must_use]
    pub fn new(all: bool, limits: Limits) -> Self {
        Self { all, limits, filters: CacheFilters::default() }
    }

    /// Take one `--filter`.
    ///
    /// # Errors
    /// [`Error::Filter`]
    pub fn add_filter(&mut self, text: &str) -> Result<(), Error> {
        let bad = |why| Err(Error::Filter(text.into(), why));
        let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
        // BuildKit's own spelling has two signs, and `~=` for a part of a text.
        let value = value.map(|value| value.strip_prefix('=').unwrap_or(value));
        let key = key.strip_suffix('~').unwrap_or(key);
        match (key, value) {
            ("until" | "unused-for", Some(value)) => match when::parse(value, Timestamp::now()) {
                Some(time) => self.filters.until = Some(time.as_second()),
                None => return bad("it is no time"),
            },
            ("id", Some(value)) => self.filters.ids.push(value.into()),
            ("type", Some(value)) => self.filters.kinds.push(value.into()),
            ("description", Some(value)) => self.filters.about.push(value.into()),
            (key, value) => {
                let Some(flag) = FLAGS.iter().find(|flag| **flag == key) else {
                    return bad(
                        "there are until, id, type, description, inuse, mutable, immutable, shared and private",
                    );
                };
                match value.map_or(Some(true), images::flag) {
                    Some(wanted) => self.filters.flags.push((flag, wanted)),
                    None => return bad("expected true or false"),
                }
            }
        }
        Ok(())
    }

    /// Whether an item fits the filters.
    #[must_use]
    pub fn fits(&self, item: &CacheItem) -> bool {
        let filters = &self.filters;
        let any = |list: &[String], fits: &dyn Fn(&String) -> bool| list.is_empty() || list.iter().any(fits);
        let is = |flag: &str| match flag {
            "inuse" => item.in_use,
            "mutable" => item.is_mutable(),
            "immutable" => !item.is_mutable(),
            "shared" => item.shared,
            "private" => !item.shared,
            _ => !item.in_use,
        };
        filters.until.is_none_or(|until| item.used < until)
            && any(&filters.ids, &|id| item.id.starts_with(id.as_str()))
            && any(&filters.kinds, &|kind| item.kind.name() == kind)
            && any(&filters.about, &|text| item.about.contains(text.as_str()))
            && filters.flags.iter().all(|(flag, wanted)| is(flag) == *wanted)
    }

    /// Whether a prune takes an item: what the builder remembers of its own work, and what images keep anyway, only when
    /// all is to go or it is asked for by name.
    fn takes(&self, item: &CacheItem) -> bool {
        let named = !self.filters.ids.is_empty() || !self.filters.kinds.is_empty();
        let useful = !item.is_internal() && !item.shared;
        self.fits(item) && (self.all || named || useful)
    }
}

/// The build cache, the least recently used first.
///
/// # Errors
/// When the store cannot be read.
pub fn cache(cx: &Context, what: &Cache) -> Result<Vec<CacheItem>, Error> {
    let mut items = store::read(cx)?.build_cache()?;
    items.retain(|item| what.fits(item));
    Ok(items)
}

/// What `builder prune` would remove.
///
/// # Errors
/// When the store cannot be read.
pub fn plan_cache(cx: &Context, what: &Cache) -> Result<Vec<CacheItem>, Error> {
    Ok(store::read(cx)?.doomed_cache(&what.limits, &|item| what.takes(item), None)?)
}

/// Remove parts of the build cache.
///
/// # Errors
/// When the store cannot be written.
pub fn prune_cache(
    cx: &Context,
    what: &Cache,
    notice: impl Fn(&str) + Send + Sync + 'static,
) -> Result<(Vec<CacheItem>, Swept), Error> {
    let store = store::write(cx, notice)?;
    Ok(store.prune_cache(&what.limits, &|item| what.takes(item), Unlink::Now)?)
}

/// What `system prune` takes.
#[derive(Debug, Clone, Default)]
pub struct System {
    /// Containers that do not run.
    pub containers: bool,
    /// All unused images and all of the build cache, not only untagged images and what nothing keeps.
    pub all: bool,
    /// Also anonymous volumes that no container uses.
    pub volumes: bool,
    /// Also what repairs have kept.
    pub damaged: bool,
    /// `until=`, `label=`, `label!=`
    pub filters: Vec<String>,
}

/// What `system prune` did, or would do.
#[derive(Debug, Default)]
pub struct SystemPruned {
    /// Containers.
    pub containers: rm::Pruned,
    /// Volumes: names and bytes.
    pub volumes: Vec<(String, u64)>,
    /// Images and layers that went.
    pub images: Collected,
    /// Images that would go.
    pub plan: PrunePlan,
    /// Parts of the build cache.
    pub cache: Vec<CacheItem>,
    /// What could not be removed of the cache's.
    pub cache_swept: Swept,
    /// What repairs had kept.
    pub damaged: Kept,
}

impl SystemPruned {
    /// Bytes on disk that were freed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let volumes: u64 = self.volumes.iter().map(|(_, bytes)| bytes).sum();
        self.containers.bytes + volumes + self.images.bytes + self.cache_swept.bytes + self.damaged.bytes
    }

    /// Bytes on disk that would be freed.
    #[must_use]
    pub fn planned_bytes(&self) -> u64 {
        let cache: u64 = self.cache.iter().map(|item| item.own).sum();
        self.bytes() + self.plan.bytes() + cache
    }
}

impl System {
    fn container_filter(&self) -> Result<rm::PruneFilter, Error> {
        let mut filter = rm::PruneFilter::default();
        for text in &self.filters {
            filter.add(text)?;
        }
        Ok(filter)
    }

    fn images(&self) -> Images {
        Images { all: self.all, filters: self.filters.clone() }
    }

    /// The build cache has no labels: with a filter for them nothing of it goes.
    fn cache(&self) -> Result<Option<Cache>, Error> {
        let mut cache = Cache { all: self.all, ..Cache::default() };
        for text in &self.filters {
            match text.split_once('=') {
                Some(("until", _)) => cache.add_filter(text)?,
                _ => return Ok(None),
            }
        }
        Ok(Some(cache))
    }
}

/// What `system prune` would remove.
///
/// # Errors
/// When a filter makes no sense or the store cannot be read.
pub fn plan_system(
    cx: &Context,
    what: &System,
    notice: impl Fn(&str) + Send + Sync + Clone + 'static,
) -> Result<SystemPruned, Error> {
    let mut plan = prune_used(cx, what, notice, true)?;
    let gone: BTreeSet<String> = plan.containers.removed.iter().cloned().collect();
    plan.plan = plan_images_without(cx, &what.images(), &gone)?;
    if let Some(cache) = what.cache()? {
        let takes = |item: &CacheItem| cache.takes(item);
        plan.cache = store::read(cx)?.doomed_cache(&cache.limits, &takes, Some(&plan.plan))?;
    }
    if what.damaged {
        plan.damaged = store::read(cx)?.kept()?;
    }
    Ok(plan)
}

/// Remove everything that nothing uses: containers first, since they use the rest.
///
/// # Errors
/// When a filter makes no sense or the store cannot be written.
pub fn prune_system(
    cx: &Context,
    what: &System,
    notice: impl Fn(&str) + Send + Sync + Clone + 'static,
) -> Result<SystemPruned, Error> {
    let cache = what.cache()?;
    let mut pruned = prune_used(cx, what, notice.clone(), false)?;
    pruned.images = prune_images(cx, &what.images(), notice.clone())?;
    if let Some(cache) = cache {
        (pruned.cache, pruned.cache_swept) = prune_cache(cx, &cache, notice.clone())?;
    }
    if what.damaged {
        let store = store::write(cx, notice)?;
        pruned.damaged = store.kept()?;
        pruned.damaged.bytes = store.drop_kept()?;
    }
    Ok(pruned)
}

/// What uses other things: containers, and volumes after them.
fn prune_used(
    cx: &Context,
    what: &System,
    notice: impl Fn(&str) + Send + Sync + 'static,
    dry_run: bool,
) -> Result<SystemPruned, Error> {
    let mut pruned = SystemPruned::default();
    if !what.containers {
        return Ok(pruned);
    }
    let filter = what.container_filter()?;
    // Volumes are asked about under their lock, also when nothing is to go.
    let store = if dry_run && !what.volumes { store::read(cx)? } else { store::write(cx, notice)? };
    pruned.containers = rm::prune(&store, &filter, dry_run)?;
    if what.volumes {
        let mut filter = volume::PruneFilter::default();
        for text in &what.filters {
            filter.add(text)?;
        }
        let without = pruned.containers.removed.iter().cloned().collect();
        let gone = volume::prune(&store, &filter, dry_run, &without)?;
        pruned.volumes = gone.into_iter().map(|volume| (volume.name, volume.bytes)).collect();
    }
    Ok(pruned)
}
