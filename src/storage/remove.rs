//! Removing names, and with the last of them images.
//!
//! Names go first, durably; then what is unreachable is collected (`gc.rs`). An index is a thing of its own, as an image
//! is: an image that an index holds stays when its own last name goes.

use std::collections::BTreeSet;

use super::index::Entry;
use super::{ContainerDir, Error, ImageRecord, Status, Store};
use crate::oci::{Descriptor, DiffId, Digest, ImageId, Reference, chain_ids, digest_of};

/// What removing did, in docker's order: names first, then content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(String),
    /// An image or layer is gone: `sha256:…`.
    Deleted(String),
}

/// What a collection freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// What went, in order.
    pub removed: Vec<Removed>,
    /// Bytes freed on disk.
    pub bytes: u64,
}

/// Which images `image prune` takes.
#[derive(Debug, Clone, Default)]
pub struct PruneImages {
    /// Named images that no container uses too, not only untagged ones.
    pub all: bool,
    /// Only images created before this time (Unix seconds).
    pub until: Option<i64>,
    /// Only images with all of these labels (`key` or `key=value`).
    pub labels: Vec<String>,
    /// Only images with none of these labels.
    pub not_labels: Vec<String>,
}

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
            let (gone, _) = self.collect()?;
            removed.extend(gone_layers(&layers, &gone));
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
        let taken = self.edit_index(|index| {
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

    /// Remove unused images and collect the garbage.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn prune_images(&self, what: &PruneImages) -> Result<Collected, Error> {
        self.writable()?;
        let census = self.census()?;
        let images = &census.images;
        let named: BTreeSet<Thing> = images.iter().filter(|r| r.name.is_some()).map(Thing::of).collect();
        let mut collected = Collected::default();
        let mut layers = Vec::new();
        let mut doomed: BTreeSet<Thing> = BTreeSet::new();
        let mut held = BTreeSet::new();
        for image in images {
            let thing = Thing::of(image);
            let wanted = what.all || !named.contains(&thing);
            if !wanted || doomed.contains(&thing) || !self.passes(what, image) {
                continue;
            }
            if !census.users(image, &doomed).is_empty() {
                continue;
            }
            layers.push(self.layers_below(image));
            if !what.all && census.held_by_index(image) {
                held.insert(thing.clone());
            }
            doomed.insert(thing);
        }
        for thing in &doomed {
            let of_thing = images.iter().filter(|r| Thing::of(r) == *thing);
            let names: Vec<Reference> = of_thing.filter_map(|r| r.name.clone()).collect();
            collected.removed.extend(self.drop_names(&names, Some(&targets_of(images, thing)))?);
            if !held.contains(thing) {
                collected.removed.push(Removed::Deleted(thing.digest().to_string()));
            }
        }
        let (gone, bytes) = self.collect()?;
        let mut told = BTreeSet::new();
        for layer in layers.iter().flat_map(|layers| gone_layers(layers, &gone)) {
            if let Removed::Deleted(text) = &layer
                && told.insert(text.clone())
            {
                collected.removed.push(layer);
            }
        }
        collected.bytes = bytes;
        self.sweep_locks()?;
        self.settle()?;
        Ok(collected)
    }

    /// Whether the filters of a prune pick an image.
    fn passes(&self, what: &PruneImages, image: &ImageRecord) -> bool {
        let created = image.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        if let Some(until) = what.until
            && created.is_none_or(|created| created.as_second() >= until)
        {
            return false;
        }
        if what.labels.is_empty() && what.not_labels.is_empty() {
            return true;
        }
        let Ok(image) = self.image(&image.manifest) else { return false };
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => image.config.config.labels.get(key).is_some_and(|found| found == value),
            None => image.config.config.labels.contains_key(wanted),
        };
        what.labels.iter().all(has) && !what.not_labels.iter().any(has)
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
