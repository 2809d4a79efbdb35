//! Indexes under a name: which image of one is meant, how one is published, and where the rest of it can be had.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{Entry, ORIGINS, REF_NAME};
use super::{Error, Image, ImageRecord, Store};
use crate::image::select_platform;
use crate::oci::{Descriptor, Digest, Index, Parsed, Platform, RawManifest, Reference, digest_of};

/// When something was made (image-spec `annotations.md`).
pub(super) const CREATED_ANNOTATION: &str = "org.opencontainers.image.created";

/// What a name stands for, as far as this machine can use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A container image, perhaps one of an index.
    Image,
    /// An index none of whose images is here for this machine's platform.
    Index,
    /// Something else that goes by a manifest: an OCI artifact.
    Artifact,
}

impl Kind {
    pub(super) const ARTIFACT: &str = "artifact";
}

/// An index on its way into the store.
#[derive(Debug)]
pub struct NewIndex<'a> {
    /// The document.
    pub raw: &'a RawManifest,
    /// Where its images can be had that are not here.
    pub origins: &'a BTreeMap<Digest, Reference>,
    /// The index that the name must stand for until now; `None`: the name must be free.
    pub replaces: Option<&'a Digest>,
}

impl Store {
    /// Give an index a name, if nobody else has moved that name meanwhile (`false` then). What the name stood for
    /// before is an earlier state of the same index, and is not kept.
    ///
    /// # Errors
    /// When the index cannot be kept or the names cannot be written; nothing has changed then.
    pub fn publish_index(&self, name: &Reference, new: &NewIndex<'_>) -> Result<bool, Error> {
        let children = match new.raw.parse()? {
            Parsed::Index(index) => members_of(&index),
            Parsed::Manifest(_) => {
                return Err(Error::Inconsistent(format!("{} is an image, not an index", new.raw.digest)));
            }
        };
        self.pin(&children)?;
        self.bring_children(new.raw)?;
        let target = self.put_bytes(&new.raw.media_type, &new.raw.bytes)?;
        let mut annotations = self.describe_target(&target)?;
        if !new.origins.is_empty() {
            annotations.insert(ORIGINS.to_owned(), origins_text(new.origins));
        }
        let entry = Entry::new(&target, annotations);
        let text = name.to_string();
        self.edit_index(|index| {
            let named = |e: &Entry| e.annotations.get(REF_NAME) == Some(&text);
            let now = index.manifests.iter().find(|e| named(e)).map(Entry::digest);
            match (now, new.replaces) {
                (None, None) => {}
                (Some(Some(now)), Some(before)) if now == *before => {
                    index.take(named);
                }
                _ => return Ok(false),
            }
            index.set_name(name, entry);
            Ok(true)
        })
    }

    /// The documents of children that lie in additional stores.
    fn bring_children(&self, raw: &RawManifest) -> Result<(), Error> {
        let Parsed::Index(index) = raw.parse()? else { return Ok(()) };
        for child in index.manifests().iter().filter(|child| self.has_manifest(child)) {
            if digest_of(child).is_ok_and(|digest| !self.layout.blob(&digest).is_file()) {
                self.bring_documents(child)?;
            }
        }
        Ok(())
    }

    /// The image that a record stands for, of an index the one for `platform` (without one: this machine's).
    ///
    /// # Errors
    /// [`Error::NoPlatform`] when it has none for it, or not here; [`Error::NotAnImage`] for an artifact.
    pub fn image_for(&self, record: &ImageRecord, platform: Option<&Platform>) -> Result<Image, Error> {
        match self.image_of(record, platform) {
            // A peer was faster: nothing is broken.
            Err(Error::MissingBlob(_)) if !self.images()?.contains(record) => {
                Err(Error::NoSuchImage(record.label()))
            }
            other => other,
        }
    }

    fn image_of(&self, record: &ImageRecord, platform: Option<&Platform>) -> Result<Image, Error> {
        if record.kind == Kind::Artifact {
            return Err(Error::NotAnImage { name: record.label(), what: self.artifact_type(record) });
        }
        if record.is_index() && (platform.is_some() || record.kind == Kind::Index) {
            let wanted = platform.cloned().unwrap_or_else(Platform::host);
            return self.image_of_index(record, wanted);
        }
        let image = self.image(&record.manifest)?;
        let found = image.config.platform();
        match platform {
            Some(wanted) if found.fit(wanted).is_none() => Err(Error::NoPlatform {
                name: record.label(),
                wanted: wanted.clone(),
                here: vec![found.to_string()],
                elsewhere: Vec::new(),
            }),
            _ => Ok(image),
        }
    }

    fn image_of_index(&self, record: &ImageRecord, wanted: Platform) -> Result<Image, Error> {
        let index = self.index_of(record)?;
        if let Ok(child) = select_platform(&index, &wanted)
            && let Some(digest) = self.here(child)
        {
            return self.image(&digest);
        }
        let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
        for child in index.manifests() {
            let Some(platform) = child.platform().as_ref().map(Platform::from) else { continue };
            if platform.os != "unknown" {
                let list = if self.here(child).is_some() { &mut here } else { &mut elsewhere };
                list.push(platform.to_string());
            }
        }
        Err(Error::NoPlatform { name: record.label(), wanted, here, elsewhere })
    }

    /// The index that a record stands for.
    ///
    /// # Errors
    /// When it stands for an image, or the document cannot be read.
    pub fn index_of(&self, record: &ImageRecord) -> Result<Box<Index>, Error> {
        match self.document(record)? {
            Parsed::Index(index) => Ok(index),
            Parsed::Manifest(_) => {
                Err(Error::Inconsistent(format!("{} is an image, not an index", record.digest)))
            }
        }
    }

    /// The manifest or index that a name stands for.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn document(&self, record: &ImageRecord) -> Result<Parsed, Error> {
        Ok(self.raw_document(record)?.parse()?)
    }

    /// The bytes of the manifest or index that a name stands for.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn raw_document(&self, record: &ImageRecord) -> Result<RawManifest, Error> {
        let digest = digest_of(&record.target).map_err(crate::oci::ManifestError::from)?;
        Ok(RawManifest::new(self.read_blob(&digest)?, Some(record.target.media_type().as_ref()))?)
    }

    /// The image of an index that this machine runs, when it is here.
    pub(super) fn chosen(&self, index: &Digest) -> Result<Option<Image>, Error> {
        let raw = RawManifest::new(self.read_blob(index)?, None)?;
        let Parsed::Index(parsed) = raw.parse()? else { return Ok(None) };
        let fitting = select_platform(&parsed, &Platform::host()).ok();
        let here = fitting.and_then(|child| self.here(child));
        Ok(here.and_then(|digest| self.image(&digest).ok()))
    }

    /// The digests of the images that a record's index names; none when it stands for no index.
    pub(super) fn members(&self, record: &ImageRecord) -> BTreeSet<Digest> {
        if !record.is_index() {
            return BTreeSet::new();
        }
        self.index_of(record).map(|index| members_of(&index)).unwrap_or_default()
    }

    /// The digests of those images of an index that are here.
    pub(super) fn members_here(&self, index: &Descriptor) -> Result<BTreeSet<Digest>, Error> {
        let digest = digest_of(index).map_err(crate::oci::ManifestError::from)?;
        match RawManifest::new(self.read_blob(&digest)?, None)?.parse()? {
            Parsed::Index(index) => {
                Ok(index.manifests().iter().filter_map(|child| self.here(child)).collect())
            }
            Parsed::Manifest(_) => Ok(BTreeSet::new()),
        }
    }

    /// The digest of a manifest when it is here. Manifests are put after everything that they name.
    fn here(&self, child: &Descriptor) -> Option<Digest> {
        digest_of(child).ok().filter(|digest| self.holds(digest))
    }

    /// Whether a manifest is here, and so everything that it names.
    #[must_use]
    pub fn has_manifest(&self, manifest: &Descriptor) -> bool {
        self.here(manifest).is_some()
    }

    /// What an artifact calls itself: its `artifactType`, else the type of its config (image-spec, manifest).
    #[must_use]
    pub fn artifact_type(&self, record: &ImageRecord) -> String {
        match self.document(record) {
            Ok(Parsed::Manifest(manifest)) => {
                let own = manifest.artifact_type().as_ref();
                own.unwrap_or_else(|| manifest.config().media_type()).to_string()
            }
            _ => record.target.media_type().to_string(),
        }
    }
}

fn members_of(index: &Index) -> BTreeSet<Digest> {
    index.manifests().iter().filter_map(|child| digest_of(child).ok()).collect()
}

/// [`ORIGINS`] as text. Repositories only: the digest is the key.
fn origins_text(origins: &BTreeMap<Digest, Reference>) -> String {
    let all = origins.iter().map(|(digest, origin)| {
        (digest.to_string(), format!("{}/{}", origin.registry(), origin.repository()).into())
    });
    serde_json::Value::Object(all.collect()).to_string()
}

/// [`ORIGINS`] from text; what makes no sense is left out.
pub(super) fn parse_origins(text: Option<&str>) -> BTreeMap<Digest, Reference> {
    let Some(text) = text else { return BTreeMap::new() };
    let all: BTreeMap<String, String> = serde_json::from_str(text).unwrap_or_default();
    let parse = |(digest, origin): (String, String)| {
        let digest: Digest = digest.parse().ok()?;
        let origin = Reference::parse(&origin).ok()?.with_digest(digest.clone());
        Some((digest, origin))
    };
    all.into_iter().filter_map(parse).collect()
}
