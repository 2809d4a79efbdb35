//! Removing names, and with the last of them images.
//!
//! Names go first, durably; then what is unreachable is collected (`gc.rs`). An index is a thing of its own, as an image
//! is: an image that an index holds stays when its own last name goes.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{Entry, IndexFile};
use super::{ContainerDir, Error, ImageRecord, Status, Store, Unlink};
use crate::oci::{Descriptor, DiffId, Digest, ImageId, Reference, chain_ids, digest_of};
use crate::sys::SysError;

/// What removing did, in docker's order: names first, then content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(String),
    /// An image or layer is gone: `sha256:…`.
    Deleted(String),
}

/// What a prune freed.
#[derive(Debug, Default)]
pub struct Collected {
    /// What went, in order.
    pub removed: Vec<Removed>,
    /// Bytes freed on disk, measured.
    pub bytes: u64,
    /// What is out of the way but could not be removed.
    pub stuck: Vec<SysError>,
}

/// An image that `image prune` would take.
#[derive(Debug, Clone)]
pub struct DoomedImage {
    /// Its names.
    pub names: Vec<Reference>,
    /// Its id; of an index the digest.
    pub digest: Digest,
    /// Bytes on disk that go with it and with none before it.
    pub bytes: u64,
}

/// What `image prune` would do.
#[derive(Debug, Clone, Default)]
pub struct PrunePlan {
    /// The images.
    pub images: Vec<DoomedImage>,
    /// Bytes on disk that nothing needs already: what dead processes and old downloads left, content without a name, lock
    /// files.
    pub leftovers: u64,
    /// What images and containers would go on to need.
    pub(super) held: BTreeSet<Digest>,
}

impl PrunePlan {
    /// Bytes on disk, all in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.leftovers + self.images.iter().map(|image| image.bytes).sum::<u64>()
    }
}

/// Picks images for a prune.
pub type Pick<'a> = dyn Fn(&ImageRecord, &Store) -> bool + 'a;

/// What a name can be removed from: an image (by its id), or an index (by its digest).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Image(ImageId),
    Index(Digest),
}

impl Thing {
    fn of(record: &ImageRecord) -> Self {
        match digest_of(&record.target) {
            Ok(digest) if record.is_index() => Self::Index(digest),
            _ => Self::Image(record.id.clone()),
        }
    }

    /// As `rmi` prints it.
    fn digest(&self) -> &Digest {
        match self {
            Self::Image(id) => id.digest(),
            Self::Index(digest) => digest,
        }
    }
}

/// Everything that is here: what holds an image, and who needs it.
struct Census {
    images: Vec<ImageRecord>,
    /// What each index of `images` names.
    members: Vec<BTreeSet<Digest>>,
    containers: Vec<ContainerDir>,
}

impl Census {
    /// Whether an image is one of an index that is here, under a name or without one.
    fn held_by_index(&self, record: &ImageRecord) -> bool {
        !record.is_index() && self.members.iter().any(|members| members.contains(&record.manifest))
    }

    /// The containers that need an image; of an index those that need one of its images and find it in nothing else
    /// but what is `doomed`.
    fn users(&self, record: &ImageRecord, doomed: &BTreeSet<Thing>) -> Vec<&ContainerDir> {
        if !record.is_index() {
            return self.containers.iter().filter(|container| container.record.image == record.id).collect();
        }
        let thing = Thing::of(record);
        let (mut own, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
        for (other, members) in self.images.iter().zip(&self.members) {
            let its = Thing::of(other);
            if its == thing {
                own.extend(members);
            } else if !doomed.contains(&its) {
                elsewhere.extend(members);
                elsewhere.insert(&other.manifest);
            }
        }
        let needs = |manifest: &Digest| own.contains(manifest) && !elsewhere.contains(manifest);
        self.containers.iter().filter(|container| needs(&container.record.manifest)).collect()
    }
}

impl Store {
    /// Remove an image by the name or id that the user typed, as `docker rmi` does.
    ///
    /// # Errors
    /// When it is unknown, used by a container, or has several names and `force` is not set.
    pub fn remove_image(&self, text: &str, force: bool) -> Result<Vec<Removed>, Error> {
        self.writable()?;
        let found = self.find_image(text)?;
        if let Some(store) = found.store {
            return Err(Error::NotOurs { image: text.into(), store });
        }
        let census = self.census()?;
        let images = &census.images;
        let thing = Thing::of(&found);
        let same: Vec<_> = images.iter().filter(|r| r.name.is_some() && Thing::of(r) == thing).collect();
        let by_name = Reference::parse(text).is_ok_and(|wanted| match (&found.name, wanted.digest()) {
            (Some(name), None) => *name == wanted,
            (name, Some(_)) => name.is_some(),
            (None, None) => false,
        });
        if !by_name && same.len() > 1 && !force {
            return Err(Error::SeveralNames {
                id: thing.digest().short().to_owned(),
                names: same.iter().filter_map(|r| Some(r.name.as_ref()?.familiar())).collect(),
            });
        }
        let last = !by_name || same.len() <= 1;
        let doomed: Vec<Reference> = match by_name {
            true => found.name.iter().cloned().collect(),
            false => same.iter().filter_map(|r| r.name.clone()).collect(),
        };
        if last && census.held_by_index(&found) {
            return self.drop_names(&doomed, Some(&targets_of(images, &thing)));
        }
        let keep_image = last && check_unused(&census.users(&found, &BTreeSet::new()), text, by_name, force)?;
        let layers = self.layers_below(&found);
        let targets = targets_of(images, &thing);
        let mut removed = self.drop_names(&doomed, (last && !keep_image).then_some(&targets))?;
        if last && !keep_image {
            removed.push(Removed::Deleted(thing.digest().to_string()));
            removed.extend(gone_layers(&layers, &self.collect(Unlink::Behind)?.gone));
        }
        Ok(removed)
    }

    /// Everything that is here.
    fn census(&self) -> Result<Census, Error> {
        let images = self.own_images()?;
        let members = images.iter().map(|record| self.members(record)).collect();
        Ok(Census { images, members, containers: self.all_containers()? })
    }

    /// The layers of an image, of an index those of every image that is here.
    fn layers_below(&self, record: &ImageRecord) -> Vec<(Descriptor, DiffId)> {
        let manifests = match record.is_index() {
            true => self.members(record),
            false => [record.manifest.clone()].into_iter().collect(),
        };
        manifests.iter().filter_map(|one| Some(self.image(one).ok()?.layers())).flatten().collect()
    }

    /// Take names out of the list; with `image` (its targets) also its entries without a name.
    fn drop_names(
        &self,
        names: &[Reference],
        image: Option<&BTreeSet<Digest>>,
    ) -> Result<Vec<Removed>, Error> {
        let is_of = |entry: &Entry| {
            entry.name().is_none()
                && image.is_some_and(|targets| entry.digest().is_some_and(|digest| targets.contains(&digest)))
        };
        let taken = self.take_entries(|index| {
            let taken = index.take(|e| e.name().is_some_and(|name| names.contains(&name)) || is_of(e));
            if image.is_none() {
                // The image stays: a container uses it, or it has other names.
                for entry in &taken {
                    index.add_untagged(entry.clone());
                }
            }
            Ok(taken)
        })?;
        let named = taken.iter().filter_map(Entry::name);
        Ok(named.map(|name| Removed::Untagged(name.familiar())).collect())
    }

    /// Take entries out of the list, on a full disk too.
    fn take_entries(
        &self,
        take: impl Fn(&mut IndexFile) -> Result<Vec<Entry>, Error>,
    ) -> Result<Vec<Entry>, Error> {
        let mut taken = Vec::new();
        self.with_room(|| {
            self.edit_index(|index| {
                let now = take(index)?;
                // A second try finds nothing when the first one failed after the list was replaced.
                if !now.is_empty() {
                    taken = now;
                }
                Ok(())
            })
        })?;
        Ok(taken)
    }

    /// Remove unused images that `pick` takes, untagged ones alone unless `all`, and collect the garbage.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn prune_images(&self, all: bool, pick: &Pick<'_>) -> Result<Collected, Error> {
        self.writable()?;
        let census = self.census()?;
        let doomed = self.choose(&census, all, pick);
        let layers: Vec<_> = doomed.values().map(|one| self.layers_below(one.record)).collect();
        let mut collected = Collected { removed: self.drop_images(&doomed)?, ..Collected::default() };
        let swept = self.collect(Unlink::Now)?;
        let mut told = BTreeSet::new();
        for layer in layers.iter().flat_map(|layers| gone_layers(layers, &swept.gone)) {
            if let Removed::Deleted(text) = &layer
                && told.insert(text.clone())
            {
                collected.removed.push(layer);
            }
        }
        (collected.bytes, collected.stuck) = (swept.bytes, swept.stuck);
        collected.bytes += self.sweep_locks()?;
        self.settle()?;
        Ok(collected)
    }

    /// What [`Store::prune_images`] would do, as if the containers with the ids `without` were gone.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn plan_prune(
        &self,
        all: bool,
        pick: &Pick<'_>,
        without: &BTreeSet<String>,
    ) -> Result<PrunePlan, Error> {
        let mut census = self.census()?;
        census.containers.retain(|container| !without.contains(&container.record.id));
        let doomed = self.choose(&census, all, pick);
        let mut forecast = self.forecast(&|entry| doomed.values().any(|one| one.owns(entry)), without)?;
        let targets = doomed.values().flat_map(|one| one.targets.iter().cloned()).collect();
        let reach = self.reach_of(&targets);
        let mut plan = PrunePlan::default();
        for (thing, one) in doomed.iter().filter(|(_, one)| !one.held) {
            let parts = one.targets.iter().filter_map(|target| reach.get(target)).flatten();
            let bytes = parts.filter_map(|part| forecast.gone.remove(part)).sum();
            let names = one.names.iter().cloned().collect();
            plan.images.push(DoomedImage { names, digest: thing.digest().clone(), bytes });
        }
        let locks: u64 = self.old_locks()?.iter().map(|path| crate::sys::tree::on_disk(path)).sum();
        plan.leftovers = forecast.leftovers + locks + forecast.gone.values().sum::<u64>();
        plan.held = forecast.held;
        Ok(plan)
    }

    /// The images that a prune takes.
    fn choose<'c>(&self, census: &'c Census, all: bool, pick: &Pick<'_>) -> BTreeMap<Thing, Doomed<'c>> {
        let images = &census.images;
        let named: BTreeSet<Thing> = images.iter().filter(|r| r.name.is_some()).map(Thing::of).collect();
        let mut doomed: BTreeSet<Thing> = BTreeSet::new();
        let mut chosen = BTreeMap::new();
        for record in images {
            let thing = Thing::of(record);
            let wanted = all || !named.contains(&thing);
            if !wanted || doomed.contains(&thing) || !pick(record, self) {
                continue;
            }
            if !census.users(record, &doomed).is_empty() {
                continue;
            }
            let of_thing = images.iter().filter(|r| Thing::of(r) == thing);
            let one = Doomed {
                record,
                names: of_thing.filter_map(|r| r.name.clone()).collect(),
                targets: targets_of(images, &thing),
                held: !all && census.held_by_index(record),
            };
            doomed.insert(thing.clone());
            chosen.insert(thing, one);
        }
        chosen
    }

    /// Take images out of the list, all at once. A name that stands for something else by now stays, and so does an
    /// image that a container has come to use meanwhile: containers are published under the same lock.
    fn drop_images(&self, doomed: &BTreeMap<Thing, Doomed<'_>>) -> Result<Vec<Removed>, Error> {
        if doomed.is_empty() {
            return Ok(Vec::new());
        }
        let taken = self.take_entries(|index| {
            let used: BTreeSet<Digest> = self
                .all_containers()?
                .into_iter()
                .flat_map(|container| [container.record.manifest, container.record.image.0])
                .collect();
            let free = |one: &&Doomed<'_>| {
                !used.contains(&one.record.manifest) && !used.contains(one.record.id.digest())
            };
            let free: Vec<&Doomed<'_>> = doomed.values().filter(free).collect();
            Ok(index.take(|entry| free.iter().any(|one| one.owns(entry))))
        })?;
        let mut removed = Vec::new();
        for (thing, one) in doomed {
            let own = taken.iter().filter(|entry| one.owns(entry));
            let mut any = false;
            for entry in own {
                any = true;
                removed.extend(entry.name().map(|name| Removed::Untagged(name.familiar())));
            }
            if any && !one.held {
                removed.push(Removed::Deleted(thing.digest().to_string()));
            }
        }
        Ok(removed)
    }
}

/// An image that is to go.
struct Doomed<'c> {
    record: &'c ImageRecord,
    names: BTreeSet<Reference>,
    /// What its entries point to.
    targets: BTreeSet<Digest>,
    /// Whether an index holds it: only its own entry goes.
    held: bool,
}

impl Doomed<'_> {
    /// Whether an entry of the list is one of its own.
    fn owns(&self, entry: &Entry) -> bool {
        entry.digest().is_some_and(|digest| self.targets.contains(&digest))
            && entry.name().is_none_or(|name| self.names.contains(&name))
    }
}

/// Whether a container stands in the way of deleting an image. `true`: only the name may go, as somebody who forces
/// it keeps their container.
fn check_unused(users: &[&ContainerDir], text: &str, by_name: bool, force: bool) -> Result<bool, Error> {
    let mut users: Vec<(&ContainerDir, bool)> = users
        .iter()
        .map(|&c| {
            let runs = |s: super::ContainerState| matches!(s.status, Status::Running | Status::Paused);
            (c, c.state().is_ok_and(runs))
        })
        .collect();
    users.sort_by_key(|(_, running)| !running);
    let Some((container, running)) = users.first() else { return Ok(false) };
    if force && (by_name || !running) {
        return Ok(true);
    }
    Err(Error::ImageInUse {
        image: text.into(),
        state: if *running { "running" } else { "stopped" },
        container: format!("{:.12} ({})", container.record.id, container.record.name),
    })
}

/// What the entries of a thing point to.
fn targets_of(images: &[ImageRecord], thing: &Thing) -> BTreeSet<Digest> {
    images.iter().filter(|r| Thing::of(r) == *thing).filter_map(|r| digest_of(&r.target).ok()).collect()
}

/// The layers of an image whose content went with it, top first, by chain id, as docker lists them.
fn gone_layers(layers: &[(Descriptor, DiffId)], gone: &BTreeSet<Digest>) -> Vec<Removed> {
    let diff_ids: Vec<DiffId> = layers.iter().map(|(_, diff_id)| diff_id.clone()).collect();
    let went = |layer: &Descriptor| digest_of(layer).is_ok_and(|digest| gone.contains(&digest));
    let pairs = layers.iter().zip(chain_ids(&diff_ids)).rev();
    pairs
        .filter(|((layer, _), _)| went(layer))
        .map(|(_, chain_id)| Removed::Deleted(chain_id.to_string()))
        .collect()
}
