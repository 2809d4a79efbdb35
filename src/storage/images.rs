//! Names: `index.json` holds one descriptor per name, with what listing needs as annotations.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use super::index::{CONFIG, CREATED, Entry, KIND, MANIFEST, ORIGINS, REF_NAME, SIZE, STORES};
use super::indexes::{Kind, parse_origins};
use super::listing::{Gathered, Line, ListedImage, Notes, gather};
use super::{Error, Store};
use crate::image::{Edit, INDEX_DIGEST_ANNOTATION, append, is_container_image};
use crate::oci::{
    Descriptor, Digest, ImageConfig, ImageId, Manifest, Parsed, RawManifest, Reference, descriptor,
    digest_of, media_type,
};

/// The shortest id prefix that is looked up: shorter ones are more likely a name.
const SHORTEST_PREFIX: usize = 2;

/// One line of `index.json`: a name (or none) and the image it stands for, without opening any blob.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRecord {
    /// The name; `None` for an untagged image.
    pub name: Option<Reference>,
    /// What that is, as far as this machine can use it.
    pub kind: Kind,
    /// What the name stands for: a manifest, or an index, of which not every image need be here.
    pub target: Descriptor,
    /// The digest the name was pulled or pushed by, when it is an index's.
    pub digest: Digest,
    /// The manifest of this machine's platform: `target` itself, or the one chosen from it. Of an index of which none
    /// is here, the index.
    pub manifest: Digest,
    /// The config's digest; of what is no container image here, the target's.
    pub id: ImageId,
    /// The config's `created`, RFC 3339.
    pub created: Option<String>,
    /// Sum of the unpacked layers' sizes in bytes, as docker shows it.
    pub size: u64,
    /// Where those images of an index can be had that are not here: repositories, by the digest of the manifest.
    pub origins: BTreeMap<Digest, Reference>,
    /// The additional store that it lies in; `None` for one of our own.
    pub store: Option<PathBuf>,
}

impl ImageRecord {
    /// Whether the name stands for an index.
    #[must_use]
    pub fn is_index(&self) -> bool {
        media_type::is_index(self.target.media_type().as_ref())
    }

    /// The digest of what the name stands for.
    ///
    /// # Errors
    /// When another tool wrote one that is unusable.
    pub fn target_digest(&self) -> Result<Digest, Error> {
        Ok(digest_of(&self.target).map_err(crate::oci::ManifestError::from)?)
    }

    /// How messages call it: its name, else its id.
    #[must_use]
    pub fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| self.id.to_string(), Reference::familiar)
    }
}

/// An image with its documents read and verified.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest as bytes.
    pub raw: RawManifest,
    /// The manifest.
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
    /// The config's digest.
    pub id: ImageId,
}

impl Image {
    /// The layers, lowest first, each with its diff id.
    #[must_use]
    pub fn layers(&self) -> Vec<(Descriptor, crate::oci::DiffId)> {
        let diff_ids = self.config.rootfs.diff_ids.iter().cloned();
        self.manifest.layers().iter().cloned().zip(diff_ids).collect()
    }
}

impl Store {
    /// Every name and every untagged image, newest first, those of additional stores with them.
    ///
    /// # Errors
    /// When `index.json` cannot be read.
    pub fn images(&self) -> Result<Vec<ImageRecord>, Error> {
        let mut records = self.own_images()?;
        let others = self.images_elsewhere(&records);
        if !others.is_empty() {
            records.extend(others);
            newest_first(&mut records);
        }
        Ok(records)
    }

    /// Every name and every untagged image of this store itself, newest first.
    ///
    /// # Errors
    /// When `index.json` cannot be read.
    pub fn own_images(&self) -> Result<Vec<ImageRecord>, Error> {
        let mut records = self.gather(|line| self.record(line))?;
        newest_first(&mut records);
        Ok(records)
    }

    /// What a listing shows of every name and every untagged image, newest first, those of additional stores with them.
    ///
    /// # Errors
    /// When `index.json` cannot be read.
    pub fn listed_images(&self) -> Result<Vec<ListedImage>, Error> {
        let mut listed = match self.additional.is_empty() {
            true => self.gather(|line| {
                ListedImage::of_line(line).or_else(|| self.record(line).as_ref().map(ListedImage::of))
            })?,
            false => self.images()?.iter().map(ListedImage::of).collect(),
        };
        ListedImage::newest_first(&mut listed);
        Ok(listed)
    }

    /// What is made of each line of `index.json`; that lines were left out is said.
    fn gather<T>(&self, take: impl FnMut(&Line<'_>) -> Option<T>) -> Result<Vec<T>, Error> {
        let Gathered { found, lines } = gather(&self.layout, take)?;
        let skipped = lines - found.len();
        if skipped > 0 {
            let entries = if skipped == 1 { "entry" } else { "entries" };
            self.notice.say(&format!(
                "{skipped} {entries} of the list of images cannot be read and left out: `strate system check` says why"
            ));
        }
        Ok(found)
    }

    /// All names as docker shows them, with whether each stands for an index, in no order: what completion needs.
    ///
    /// # Errors
    /// When `index.json` cannot be read.
    pub fn image_names(&self) -> Result<Vec<(String, bool)>, Error> {
        let name =
            |line: &Line<'_>| Some((line.name_parts()?.familiar(), media_type::is_index(line.media_type())));
        let mut names = gather(&self.layout, name)?.found;
        let elsewhere = self.images_elsewhere(&[]);
        let known: HashSet<String> = match elsewhere.is_empty() {
            true => HashSet::new(),
            false => names.iter().map(|(name, _)| name.clone()).collect(),
        };
        for record in elsewhere {
            let is_index = record.is_index();
            if let Some(name) = record.name.map(|name| name.familiar())
                && !known.contains(&name)
            {
                names.push((name, is_index));
            }
        }
        Ok(names)
    }

    /// What the listing would say of a name that stands for something that is here.
    ///
    /// # Errors
    /// When its documents cannot be read.
    pub fn record_of(&self, name: &Reference, target: &Descriptor) -> Result<ImageRecord, Error> {
        let mut notes = self.describe_target(target)?;
        notes.insert(REF_NAME.to_owned(), name.to_string());
        let digest = digest_of(target).map_err(crate::oci::ManifestError::from)?;
        let media_type = target.media_type().to_string();
        let line = Line::new(&media_type, digest.as_str(), target.size(), Notes::of(&notes));
        self.record(&line).ok_or_else(|| Error::NoSuchImage(name.familiar()))
    }

    /// The names that stand for the same image as `record`, itself among them, newest first.
    ///
    /// # Errors
    /// When `index.json` cannot be read.
    pub fn same_image(&self, record: &ImageRecord) -> Result<Vec<ImageRecord>, Error> {
        // What another tool wrote says nothing of its config before it was looked into.
        let may_be = |line: &Line<'_>| match line.annotations.get(CONFIG) {
            Some(config) => config == record.id.digest().as_str(),
            None => true,
        };
        let record_of = |line: &Line<'_>| may_be(line).then(|| self.record(line)).flatten();
        let mut found = gather(&self.layout, record_of)?.found;
        found.retain(|found| found.id == record.id);
        if record.store.is_some() {
            let others = self.images_elsewhere(&found);
            found.extend(others.into_iter().filter(|found| found.id == record.id));
        }
        found.sort_by_cached_key(|found| found.name.as_ref().map(Reference::familiar));
        Ok(found)
    }

    /// Find an image as a user names it: a name wins over an id prefix; `name@digest`, `sha256:<prefix>` and bare hex
    /// prefixes work.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] or [`Error::AmbiguousImage`].
    pub fn find_image(&self, text: &str) -> Result<ImageRecord, Error> {
        let wanted = Reference::parse(text).ok();
        if let Some(wanted) = &wanted
            && let Some(found) = self.find_exactly(wanted)?
        {
            return Ok(found);
        }
        let records = self.images()?;
        if let Some(wanted) = &wanted
            && let Some(found) = by_name(&records, wanted)
        {
            return Ok(found.clone());
        }
        match records.iter().any(|record| record.store.is_some()) {
            true => {
                // What is ours comes before what others hold.
                let own: Vec<_> = records.iter().filter(|record| record.store.is_none()).cloned().collect();
                by_id(&own, text).or_else(|_| by_id(&records, text))
            }
            false => by_id(&records, text),
        }
    }

    /// The image whose name is written just so: the usual case, without a look at all the others.
    fn find_exactly(&self, wanted: &Reference) -> Result<Option<ImageRecord>, Error> {
        let name = wanted.to_string();
        let named = |line: &Line<'_>| line.annotations.get(REF_NAME) == Some(&name);
        let found = gather(&self.layout, |line| named(line).then(|| self.record(line)))?.found;
        // Of lines with one name the first counts, as everywhere.
        Ok(found.into_iter().next().flatten())
    }

    /// Read and verify an image's documents. Opened for writing, the store keeps a collector from taking any part of
    /// the image from here on.
    ///
    /// # Errors
    /// When a blob is missing or corrupt, or the documents contradict each other.
    pub fn image(&self, manifest: &Digest) -> Result<Image, Error> {
        let raw = RawManifest::new(self.read_blob(manifest)?, None)?;
        let Parsed::Manifest(parsed) = raw.parse()? else {
            return Err(Error::Inconsistent(format!("{manifest} is an index, not an image")));
        };
        let config_digest = digest_of(parsed.config()).map_err(crate::oci::ManifestError::from)?;
        if self.abilities.is_some() {
            let mut parts = vec![manifest.clone(), config_digest.clone()];
            parts.extend(parsed.layers().iter().filter_map(|layer| digest_of(layer).ok()));
            self.pin(&parts)?;
            // A collector that was faster has taken the manifest with all the rest.
            if !self.holds(manifest) {
                return Err(Error::MissingBlob(manifest.clone()));
            }
        }
        let bytes = self.read_blob(&config_digest)?;
        let config: ImageConfig = serde_json::from_slice(&bytes)
            .map_err(|source| Error::Json { path: self.layout.blob(&config_digest), source })?;
        let (layers, diff_ids) = (parsed.layers().len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(Error::Inconsistent(format!(
                "manifest {manifest} lists {layers} layers, its config {diff_ids}"
            )));
        }
        Ok(Image { raw, manifest: *parsed, config, id: ImageId(config_digest) })
    }

    /// Publish an edited image: config, manifest, then the names (none: it stays reachable untagged). Names that stood
    /// for another image leave that one untagged, as docker does.
    ///
    /// # Errors
    /// When a step fails; names are then unchanged.
    pub fn publish_image(&self, edit: Edit, names: &[Reference]) -> Result<Image, Error> {
        let image = self.keep_image(edit)?;
        let entry = Entry::new(&image.raw.descriptor(), self.describe(&image));
        self.edit_index(|index| {
            if names.is_empty() {
                index.add_untagged(entry);
                return Ok(());
            }
            for name in names {
                index.set_name(name, entry.clone());
            }
            Ok(())
        })?;
        Ok(image)
    }

    /// Keep the documents of an edited image without listing it: what no name or index comes to lead to is collected
    /// once this process has ended.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep_image(&self, edit: Edit) -> Result<Image, Error> {
        let (_, config, manifest) = append(edit).map_err(Error::Edit)?;
        self.put_bytes(media_type::OCI_CONFIG, &config)?;
        self.put_bytes(&manifest.media_type, &manifest.bytes)?;
        self.image(&manifest.digest)
    }

    /// Give an image that is here, or in an additional store, another name. Of one there the documents are copied, and
    /// the layers are used where they lie.
    ///
    /// # Errors
    /// When it cannot be written, or the image has been removed meanwhile.
    pub fn tag(&self, image: &ImageRecord, name: &Reference) -> Result<(), Error> {
        let target = digest_of(&image.target).map_err(crate::oci::ManifestError::from)?;
        let foreign = match &image.store {
            Some(_) => {
                self.bring_documents(&image.target)?;
                Some(Entry::new(&image.target, self.describe_target(&image.target)?))
            }
            None => None,
        };
        self.edit_index(|index| {
            let entry = index.manifests.iter().find(|e| e.digest().as_ref() == Some(&target)).cloned();
            let entry = entry.or(foreign);
            index.set_name(name, entry.ok_or_else(|| Error::NoSuchImage(image.label()))?);
            Ok(())
        })
    }

    /// Move a name to a manifest or index that is here (the commit point of a pull). What the descriptor's
    /// [`INDEX_DIGEST_ANNOTATION`] says is kept.
    pub(super) fn move_name(&self, name: &Reference, target: &Descriptor) -> Result<(), Error> {
        self.set_names(&[(target.clone(), vec![name.clone()])])
    }

    /// Move many names at once, each to a manifest or index that is here: the list of names is written and synced once.
    /// What has no name is kept without one.
    ///
    /// # Errors
    /// When one cannot be described or the list not be written: no name is moved then.
    pub fn set_names(&self, all: &[(Descriptor, Vec<Reference>)]) -> Result<(), Error> {
        let entry = |target: &Descriptor| {
            let mut annotations = self.describe_target(target)?;
            let from = target.annotations().as_ref().and_then(|all| all.get(INDEX_DIGEST_ANNOTATION));
            if let Some(index) = from {
                annotations.insert(INDEX_DIGEST_ANNOTATION.to_owned(), index.clone());
            }
            Ok::<_, Error>(Entry::new(target, annotations))
        };
        let entries = all.iter().map(|(target, _)| entry(target)).collect::<Result<Vec<_>, _>>()?;
        self.edit_index(|index| {
            for (entry, (_, names)) in entries.into_iter().zip(all) {
                if names.is_empty() {
                    index.add_untagged(entry);
                    continue;
                }
                for name in names {
                    // A digest is the stronger statement of the two, and docker keeps no tag beside it either.
                    let digest = name.digest();
                    let name = digest.map_or_else(|| name.clone(), |digest| name.with_digest(digest.clone()));
                    index.set_name(&name, entry.clone());
                }
            }
            Ok(())
        })
    }

    /// Keep an image that is here without a name, unless it has one.
    ///
    /// # Errors
    /// When it cannot be described or the index not be written.
    pub fn keep_untagged(&self, target: &Descriptor) -> Result<(), Error> {
        let entry = Entry::new(target, self.describe_target(target)?);
        self.edit_index(|index| {
            index.add_untagged(entry);
            Ok(())
        })
    }

    /// What a listing needs of what a name stands for. Of an index without an image for this
    /// machine it is what all the others that are here come to.
    pub(super) fn describe_target(&self, target: &Descriptor) -> Result<BTreeMap<String, String>, Error> {
        let digest = digest_of(target).map_err(crate::oci::ManifestError::from)?;
        if !media_type::is_index(target.media_type().as_ref()) {
            return match self.artifact_notes(&digest)? {
                Some(notes) => Ok(notes),
                None => Ok(self.describe(&self.image(&digest)?)),
            };
        }
        let Some(chosen) = self.chosen(&digest)? else { return self.describe_rest(target) };
        let mut notes = self.describe(&chosen);
        notes.insert(MANIFEST.to_owned(), chosen.raw.digest.to_string());
        Ok(notes)
    }

    /// What the images of an index come to that are here.
    fn describe_rest(&self, index: &Descriptor) -> Result<BTreeMap<String, String>, Error> {
        let (mut size, mut created) = (0, None);
        for digest in self.members_here(index)? {
            let Ok(image) = self.image(&digest) else { continue };
            size += self.layer_sizes(&image).iter().sum::<u64>();
            created = created.max(image.config.created);
        }
        let mut notes = BTreeMap::new();
        notes.insert(SIZE.to_owned(), size.to_string());
        notes.extend(created.map(|created| (CREATED.to_owned(), created)));
        Ok(notes)
    }

    /// What a listing needs of an image.
    fn describe(&self, image: &Image) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        all.insert(CONFIG.to_owned(), image.id.to_string());
        all.insert(SIZE.to_owned(), self.layer_sizes(image).iter().sum::<u64>().to_string());
        let stores = self.stores_needed(image.manifest.layers());
        all.extend(stores.map(|stores| (STORES.to_owned(), stores)));
        if let Some(created) = &image.config.created {
            all.insert(CREATED.to_owned(), created.clone());
        }
        all
    }

    /// What a listing needs of an artifact; `None` for a container image.
    fn artifact_notes(&self, digest: &Digest) -> Result<Option<BTreeMap<String, String>>, Error> {
        let Parsed::Manifest(manifest) = RawManifest::new(self.read_blob(digest)?, None)?.parse()? else {
            return Ok(None);
        };
        if is_container_image(&manifest) {
            return Ok(None);
        }
        let mut notes = BTreeMap::new();
        notes.insert(KIND.to_owned(), Kind::ARTIFACT.to_owned());
        notes
            .insert(SIZE.to_owned(), manifest.layers().iter().map(Descriptor::size).sum::<u64>().to_string());
        let all = manifest.annotations().as_ref();
        if let Some(created) = all.and_then(|all| all.get(super::indexes::CREATED_ANNOTATION)) {
            notes.insert(CREATED.to_owned(), created.clone());
        }
        Ok(Some(notes))
    }

    /// Unpacked size in bytes of each layer of an image, lowest first; the compressed size where nothing else is known.
    #[must_use]
    pub fn layer_sizes(&self, image: &Image) -> Vec<u64> {
        let size = |layer: &Descriptor| {
            let fact = digest_of(layer).ok().and_then(|digest| self.layer_fact(&digest));
            fact.map_or(layer.size(), |fact| fact.size)
        };
        image.manifest.layers().iter().map(size).collect()
    }

    /// What an entry says; what another tool left out is read from the blobs. An entry whose documents are gone or
    /// cannot be read is left out.
    pub(super) fn record(&self, line: &Line<'_>) -> Option<ImageRecord> {
        let digest: Digest = line.digest().parse().ok()?;
        let target = descriptor(line.media_type(), &digest, line.size);
        let is_index = media_type::is_index(line.media_type());
        let noted = |key| line.annotations.get(key).is_some();
        let complete = noted(SIZE) && (noted(KIND) || (noted(CONFIG) && noted(MANIFEST) == is_index));
        let from_blobs;
        let notes = if complete {
            line.annotations.clone()
        } else {
            from_blobs = self.describe_target(&target).ok()?;
            Notes::of(&from_blobs)
        };
        let kind = match notes.get(CONFIG) {
            Some(_) => Kind::Image,
            None if is_index => Kind::Index,
            None => Kind::Artifact,
        };
        let id = match kind {
            Kind::Image => notes.get(CONFIG)?.parse().ok()?,
            Kind::Index | Kind::Artifact => digest.clone(),
        };
        let from = line.annotations.get(INDEX_DIGEST_ANNOTATION).and_then(|text| text.parse().ok());
        Some(ImageRecord {
            name: line.name(),
            kind,
            digest: from.unwrap_or_else(|| digest.clone()),
            manifest: notes.get(MANIFEST).and_then(|text| text.parse().ok()).unwrap_or(digest),
            id: ImageId(id),
            created: notes.get(CREATED).map(str::to_owned),
            size: notes.get(SIZE).and_then(|size| size.parse().ok()).unwrap_or(0),
            store: None,
            origins: parse_origins(line.annotations.get(ORIGINS)),
            target,
        })
    }
}

fn newest_first(records: &mut [ImageRecord]) {
    records.sort_by_cached_key(|record| {
        let created = record.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        (Reverse(created), record.name.as_ref().map(Reference::familiar))
    });
}

fn by_name<'a>(records: &'a [ImageRecord], wanted: &Reference) -> Option<&'a ImageRecord> {
    let exact = records.iter().find(|record| record.name.as_ref() == Some(wanted));
    exact.or_else(|| {
        let digest = wanted.digest()?;
        records.iter().find(|record| {
            let same_repository = record.name.as_ref().is_some_and(|name| {
                (name.registry(), name.repository()) == (wanted.registry(), wanted.repository())
            });
            same_repository && (record.digest == *digest || record.manifest == *digest)
        })
    })
}

fn by_id(records: &[ImageRecord], text: &str) -> Result<ImageRecord, Error> {
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    let good = prefix.len() >= SHORTEST_PREFIX
        && prefix.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !good {
        return Err(Error::NoSuchImage(text.into()));
    }
    let whole = |digest: &Digest| prefix.len() == digest.hex().len() && digest.hex() == prefix;
    let of_index = |r: &ImageRecord| {
        r.is_index() && digest_of(&r.target).is_ok_and(|digest| digest.hex().starts_with(prefix))
    };
    let fits: Vec<&ImageRecord> = records
        .iter()
        .filter(|r| {
            r.id.digest().hex().starts_with(prefix) || whole(&r.digest) || whole(&r.manifest) || of_index(r)
        })
        .collect();
    let ids: BTreeSet<&ImageId> = fits.iter().map(|record| &record.id).collect();
    // An image's own name says more than that of an index that holds it.
    match fits.iter().find(|record| !record.is_index()).or(fits.first()) {
        None => Err(Error::NoSuchImage(text.into())),
        Some(first) if ids.len() == 1 => Ok((*first).clone()),
        Some(_) => Err(Error::AmbiguousImage {
            prefix: text.into(),
            fits: ids.iter().map(|id| id.digest().short().to_owned()).collect(),
        }),
    }
}
