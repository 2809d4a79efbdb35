//! What takes how much room on disk. Everything in the store is counted once: under images what images need, under
//! containers what only they need, under the build cache what only that keeps, and the rest by itself.
//!
//! Sizes are blocks on disk. Those of snapshots come from their markers; only what changes by itself (containers,
//! volumes, cache mounts) is walked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::cache::CacheItem;
use super::collect::{Graph, Marked, roots, snapshot_keys};
use super::index::IndexFile;
use super::staging::{is_alive, pins};
use super::{ContainerDir, ContainerState, Error, ImageRecord, PrunePlan, Store};
use crate::oci::{DiffId, Digest, digest_of};
use crate::sys::tree;

/// What takes how much room.
#[derive(Debug, Default)]
pub struct Usage {
    /// A line for each name, and for each image without one.
    pub images: Vec<ImageUsage>,
    /// Bytes of all that images need, each blob and snapshot once.
    pub images_size: u64,
    /// Bytes of that which `image prune -a` would free: neither a container, nor a process, nor the build cache needs it.
    pub images_evictable: u64,
    /// The containers.
    pub containers: Vec<ContainerUsage>,
    /// The volumes: names and bytes.
    pub volumes: Vec<(String, u64)>,
    /// The parts of the build cache, the least recently used first.
    pub cache: Vec<CacheItem>,
    /// Everything else.
    pub other: Vec<OtherUsage>,
}

/// A name's image.
#[derive(Debug)]
pub struct ImageUsage {
    /// Its line of the list.
    pub record: ImageRecord,
    /// Bytes of its blobs and snapshots.
    pub size: u64,
    /// Bytes of those that other images need too.
    pub shared: u64,
    /// Containers that use it.
    pub containers: usize,
}

/// A container.
#[derive(Debug)]
pub struct ContainerUsage {
    /// Its directory and record.
    pub dir: ContainerDir,
    /// Where it stands.
    pub state: ContainerState,
    /// Bytes on disk of all that is its own: what its removal frees.
    pub size: u64,
}

/// Something that is neither image nor container nor volume nor cache.
#[derive(Debug)]
pub struct OtherUsage {
    /// What it is.
    pub what: &'static str,
    /// How many there are.
    pub count: usize,
    /// How many of them are in use.
    pub active: usize,
    /// Bytes.
    pub size: u64,
    /// Bytes that a collection would free.
    pub evictable: u64,
}

/// What is needed to tell who needs what.
struct Survey {
    graph: Graph,
    images: Vec<ImageRecord>,
    containers: Vec<ContainerDir>,
    /// Bytes under each digest: a blob, a snapshot, or both.
    sizes: BTreeMap<Digest, u64>,
    /// What images need.
    by_images: Marked,
    /// What images and containers need.
    held: Marked,
    /// What living processes and the build cache need.
    kept: Marked,
}

impl Survey {
    fn size_of<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> u64 {
        digests.into_iter().filter_map(|digest| self.sizes.get(digest)).sum()
    }
}

impl Store {
    fn survey(&self) -> Result<Survey, Error> {
        let roots = roots(&IndexFile::read(&self.layout)?);
        let mut graph = Graph::read(&self.layout, &roots);
        let mut by_images = Marked::new();
        for root in &roots {
            graph.reach(&self.layout, root, &mut by_images);
        }
        let containers = self.all_containers()?;
        let mut held = by_images.clone();
        for container in &containers {
            held.extend(needs(container));
        }
        let mut kept: BTreeSet<Digest> = pins(&self.layout, None)?;
        let records = super::cache::Records::read(&self.layout)?;
        kept.extend(records.iter().flat_map(|record| record.keeps().clone()));
        let mut sizes = BTreeMap::new();
        for content in self.contents()? {
            *sizes.entry(content.digest.clone()).or_default() += content.on_disk(&self.layout);
        }
        Ok(Survey { graph, images: self.own_images()?, containers, sizes, by_images, held, kept })
    }

    /// The parts of the build cache, the least recently used first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn build_cache(&self) -> Result<Vec<CacheItem>, Error> {
        self.build_cache_after(None)
    }

    /// The same, as if a prune of images had come before.
    pub(super) fn build_cache_after(&self, plan: Option<&PrunePlan>) -> Result<Vec<CacheItem>, Error> {
        let survey = self.survey()?;
        self.cache_items(&survey.sizes, plan.map_or(&survey.held, |plan| &plan.held))
    }

    /// What takes how much room.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn usage(&self) -> Result<Usage, Error> {
        let mut survey = self.survey()?;
        let cache = self.cache_items(&survey.sizes, &survey.held)?;
        let mut usage = Usage { images_size: survey.size_of(&survey.by_images), cache, ..Usage::default() };
        self.usage_of_images(&mut survey, &mut usage);
        self.usage_of_containers(&survey, &mut usage);
        for volume in self.layout.entries(&self.layout.volumes())? {
            let name = volume.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            usage.volumes.push((name, tree::on_disk(&volume)));
        }
        usage.volumes.sort();
        self.usage_of_rest(&survey, &mut usage)?;
        Ok(usage)
    }

    fn usage_of_images(&self, survey: &mut Survey, usage: &mut Usage) {
        let mut reach: BTreeMap<Digest, Marked> = BTreeMap::new();
        for record in &survey.images {
            if let Ok(target) = digest_of(&record.target) {
                reach.entry(target.clone()).or_insert_with(|| {
                    let mut marked = Marked::new();
                    survey.graph.reach(&self.layout, &target, &mut marked);
                    marked.insert(record.digest.clone());
                    marked
                });
            }
        }
        let mut wanted: BTreeMap<&Digest, u32> = BTreeMap::new();
        for digest in reach.values().flatten() {
            *wanted.entry(digest).or_default() += 1;
        }
        let mut active: BTreeSet<&Digest> = BTreeSet::new();
        for record in std::mem::take(&mut survey.images) {
            let Some(parts) = digest_of(&record.target).ok().and_then(|target| reach.get(&target)) else {
                continue;
            };
            let users = survey.containers.iter().filter(|c| parts.contains(&c.record.manifest)).count();
            if users > 0 {
                active.extend(parts);
            }
            let shared = parts.iter().filter(|digest| wanted.get(digest).is_some_and(|count| *count > 1));
            let (size, shared) = (survey.size_of(parts), survey.size_of(shared));
            usage.images.push(ImageUsage { record, size, shared, containers: users });
        }
        let in_use: BTreeSet<Digest> = survey.containers.iter().flat_map(needs).collect();
        let idle = survey.by_images.iter();
        let idle = idle.filter(|d| !active.contains(d) && !in_use.contains(d) && !survey.kept.contains(d));
        usage.images_evictable = survey.size_of(idle);
    }

    fn usage_of_containers(&self, survey: &Survey, usage: &mut Usage) {
        let mut alone = Marked::new();
        for dir in self.all_containers().unwrap_or_default() {
            // One that went meanwhile takes no room.
            let Ok(state) = dir.state() else { continue };
            alone.extend(needs(&dir).filter(|d| !survey.by_images.contains(d)));
            let size = dir.size();
            usage.containers.push(ContainerUsage { dir, state, size });
        }
        let count = alone.iter().filter(|digest| survey.sizes.contains_key(digest)).count();
        // It is garbage once they are gone.
        usage.other.push(OtherUsage {
            what: "Content that only containers need",
            count,
            active: count,
            size: survey.size_of(&alone),
            evictable: 0,
        });
    }

    fn usage_of_rest(&self, survey: &Survey, usage: &mut Usage) -> Result<(), Error> {
        let layout = &self.layout;
        let loose: Vec<&Digest> =
            survey.sizes.keys().filter(|digest| !survey.held.contains(digest)).collect();
        let garbage: Vec<&Digest> =
            loose.iter().copied().filter(|digest| !survey.kept.contains(digest)).collect();
        let size = survey.size_of(garbage.iter().copied());
        usage.other.push(OtherUsage {
            what: "Unreferenced content",
            count: garbage.len(),
            active: 0,
            size,
            evictable: size,
        });
        let partials = layout.entries(&layout.partials())?;
        let old = self.old_partials()?;
        usage.other.push(OtherUsage {
            what: "Partial downloads",
            count: partials.len(),
            // The next pull goes on with them.
            active: partials.len().saturating_sub(old.len()),
            size: sum(&partials),
            evictable: sum(&old),
        });
        let mut scratch =
            OtherUsage { what: "Work in progress and leftovers", count: 0, active: 0, size: 0, evictable: 0 };
        for path in layout.entries(&layout.tmp())? {
            let size = tree::on_disk(&path);
            scratch.count += 1;
            scratch.size += size;
            if is_alive(&path) {
                scratch.active += 1;
            } else {
                scratch.evictable += size;
            }
        }
        usage.other.push(scratch);
        let kept = self.kept()?;
        usage.other.push(OtherUsage {
            what: "Damaged, kept by repairs",
            count: kept.paths.len(),
            active: 0,
            size: kept.bytes,
            // A prune takes them when it is told to.
            evictable: 0,
        });
        let known = [layout.places(), layout.locks()];
        let lists = [layout.index(), layout.previous_index(), layout.budget()];
        let files = [layout.format(), layout.format_copy(), layout.oci_layout(), layout.probe()];
        let files: Vec<_> = files.into_iter().chain(lists).collect();
        let size = known.iter().chain(&files).map(|path| tree::on_disk(path)).sum();
        let count = known.len() + files.len();
        usage.other.push(OtherUsage {
            what: "The store's own notes",
            count,
            active: count,
            size,
            evictable: sum(&self.old_locks()?),
        });
        Ok(())
    }
}

/// Bytes on disk.
fn sum(paths: &[PathBuf]) -> u64 {
    paths.iter().map(|path| tree::on_disk(path)).sum()
}

/// What a container needs whatever becomes of its image.
fn needs(container: &ContainerDir) -> impl Iterator<Item = Digest> {
    let record = &container.record;
    let diff_ids: Vec<DiffId> = record.layers.iter().map(|(_, id)| id.clone()).collect();
    let blobs: Vec<Digest> = record.layers.iter().filter_map(|(layer, _)| digest_of(layer).ok()).collect();
    let keys: Vec<Digest> = snapshot_keys(&diff_ids).collect();
    keys.into_iter().chain(blobs).chain([record.manifest.clone(), record.image.0.clone()])
}
