//! The images that a user names: in the store, in a registry, or in a file.

use std::collections::BTreeMap;
use std::io::Read;

use super::Error;
use crate::context::Context;
use crate::image::{
    BoxError, Event, IndexDraft, Location, Member, MemberPlatform, Platforms, Reporter, Selection, Source,
    What, copy, is_container_image, select_platform,
};
use crate::layer::VerifiedReader;
use crate::oci::{
    Descriptor, Digest, ImageConfig, Manifest, Parsed, Platform, RawManifest, Reference, digest_of,
};
use crate::ops::pull::JOBS;
use crate::ops::remote::{self, RemoteOptions, inner};
use crate::ops::transport::Input;
use crate::storage::{self, ImageRecord, Store};

/// The largest config that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// What to take of an image that is an index itself.
#[derive(Debug, Clone, Default)]
pub struct Pick {
    /// Everything.
    pub all: bool,
    /// The image for this platform; without it the only one, else this machine's.
    pub platform: Option<Platform>,
}

/// Images found, ready to be named by an index.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Their descriptors.
    pub members: Vec<Member>,
    /// Where those can be had that are not in the store.
    pub origins: BTreeMap<Digest, Reference>,
}

/// Finds images.
#[derive(Clone, Copy)]
pub struct Finder<'a> {
    /// The invocation.
    pub cx: &'a Context,
    /// The store, writable when images of files are to be found.
    pub store: &'a Store,
    /// Registry options.
    pub remote: &'a RemoteOptions,
    /// Where remarks and progress go.
    pub report: &'a dyn Reporter,
}

impl std::fmt::Debug for Finder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Finder").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Where a name was found.
enum At<'a> {
    Store(Box<ImageRecord>),
    Registry(Reference, Input<'a>),
    File(Input<'a>),
}

impl<'a> Finder<'a> {
    /// Find several images.
    ///
    /// # Errors
    /// When one cannot be found or read.
    pub fn find_all(&self, images: &[String], pick: &Pick) -> Result<Found, Error> {
        let mut all = Found::default();
        for image in images {
            let found = self.find(image, pick)?;
            all.members.extend(found.members);
            all.origins.extend(found.origins);
        }
        Ok(all)
    }

    /// Find an image: a name or id that is here, else in a registry; or a location.
    ///
    /// # Errors
    /// When it cannot be found or read.
    pub fn find(&self, image: &str, pick: &Pick) -> Result<Found, Error> {
        match self.locate(image)? {
            At::Store(record) => self.in_store(image, &record, pick),
            At::Registry(reference, input) => {
                let members = self.members(image, input.source.as_ref(), &input.target, pick)?;
                let origin = |m: &Member| (m.digest.clone(), reference.with_digest(m.digest.clone()));
                Ok(Found { origins: members.iter().map(origin).collect(), members })
            }
            At::File(input) => {
                let members = self.members(image, input.source.as_ref(), &input.target, pick)?;
                for member in &members {
                    self.bring(image, input.source.as_ref(), member)?;
                }
                Ok(Found { members, origins: BTreeMap::new() })
            }
        }
    }

    /// The manifest or index that a name stands for.
    ///
    /// # Errors
    /// When it cannot be found or read.
    pub fn document(&self, image: &str) -> Result<RawManifest, Error> {
        match self.locate(image)? {
            At::Store(record) => Ok(self.store.raw_document(&record)?),
            At::Registry(_, input) | At::File(input) => Ok(input.document()?),
        }
    }

    /// Every digest that a user's word may stand for: a digest, the start of one that the index holds, or a name.
    ///
    /// # Errors
    /// When a name cannot be looked up.
    pub fn digests(&self, image: &str, index: &IndexDraft) -> Result<Vec<Digest>, Error> {
        if let Some((_, digest)) = image.rsplit_once('@')
            && let Ok(digest) = digest.parse()
        {
            return Ok(vec![digest]);
        }
        let hex = image.strip_prefix("sha256:").unwrap_or(image);
        let by_digest: Vec<Digest> = index
            .members()
            .iter()
            .filter(|member| hex.len() >= 4 && member.digest.hex().starts_with(hex))
            .map(|member| member.digest.clone())
            .collect();
        if !by_digest.is_empty() || image.starts_with("sha256:") {
            return Ok(by_digest);
        }
        let raw = self.document(image)?;
        let mut digests = vec![raw.digest.clone()];
        if let Ok(index) = IndexDraft::parse(&raw) {
            digests.extend(index.members().iter().filter(|m| m.runs()).map(|m| m.digest.clone()));
        }
        if let Ok(record) = self.store.find_image(image) {
            digests.push(record.manifest);
        }
        digests.dedup();
        Ok(digests)
    }

    /// The descriptor that an index gets for a manifest, with the platform that its config says.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn member(source: &dyn Source, raw: &RawManifest) -> Result<Member, BoxError> {
        match raw.parse()? {
            Parsed::Manifest(manifest) => one(source, raw, &manifest),
            Parsed::Index(_) => Ok(Member::new(raw, None)),
        }
    }

    /// The config of an image.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn config(source: &dyn Source, manifest: &Manifest) -> Result<serde_json::Value, BoxError> {
        Ok(serde_json::from_slice(&small(source, manifest.config())?)?)
    }

    fn locate(&self, image: &str) -> Result<At<'a>, Error> {
        let open = |location: &Location| Input::open(self.cx, location, self.remote, self.report);
        if Location::is_meant(image) {
            let location = Location::parse(image).map_err(crate::ops::transport::Error::from)?;
            return Ok(match &location {
                Location::Registry(reference) => At::Registry(reference.clone(), open(&location)?),
                Location::Store(name) => At::Store(Box::new(self.store.find_image(name)?)),
                _ => At::File(open(&location)?),
            });
        }
        match self.store.find_image(image) {
            Ok(record) => Ok(At::Store(Box::new(record))),
            Err(storage::Error::NoSuchImage(_)) => {
                let reference = remote::told_name(self.cx, image, self.report)?;
                let input = open(&Location::Registry(reference.clone()))?;
                Ok(At::Registry(reference, input))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn in_store(&self, image: &str, record: &ImageRecord, pick: &Pick) -> Result<Found, Error> {
        let mut target = record.target.clone();
        if pick.all && digest_of(&target).is_ok_and(|digest| digest != record.digest) {
            // One image of an index that was pulled: the index is here too.
            let raw = RawManifest::new(self.store.read_blob(&record.digest)?, None);
            target = raw.map_err(storage::Error::from)?.descriptor();
        }
        let members = self.members(image, self.store, &target, pick)?;
        let mut origins = BTreeMap::new();
        for member in members.iter().filter(|member| !self.store.has_manifest(&member.descriptor())) {
            let origin = origin(self.store, record, &member.digest);
            let lost = || Error::Lost { image: image.to_owned(), digest: member.digest.clone() };
            origins.insert(member.digest.clone(), origin.ok_or_else(lost)?);
        }
        Ok(Found { members, origins })
    }

    /// The descriptors that an index gets for an image, with their platforms.
    fn members(
        &self,
        image: &str,
        source: &dyn Source,
        target: &Descriptor,
        pick: &Pick,
    ) -> Result<Vec<Member>, Error> {
        let failed = |source: BoxError| Error::Read { image: image.to_owned(), source };
        let raw = source.manifest(target).map_err(failed)?;
        let name = Reference::parse(image.strip_prefix("docker://").unwrap_or(image)).ok();
        source.admit(name.as_ref(), &[&raw]).map_err(failed)?;
        match raw.parse().map_err(|error| failed(error.into()))? {
            Parsed::Manifest(manifest) => Ok(vec![one(source, &raw, &manifest).map_err(failed)?]),
            Parsed::Index(_) => {
                let mut members = self.of_index(image, &raw, pick)?;
                for member in members.iter_mut().filter(|member| member.platform.is_none()) {
                    complete(source, member).map_err(failed)?;
                }
                Ok(members)
            }
        }
    }

    fn of_index(&self, image: &str, raw: &RawManifest, pick: &Pick) -> Result<Vec<Member>, Error> {
        let read = |source: BoxError| Error::Read { image: image.to_owned(), source };
        let draft = IndexDraft::parse(raw).map_err(|error| read(error.into()))?;
        if pick.all {
            return Ok(draft.members().to_vec());
        }
        let running: Vec<&Member> = draft.members().iter().filter(|member| member.runs()).collect();
        let chosen = match (running.as_slice(), &pick.platform) {
            ([only], None) => only.digest.clone(),
            _ => {
                let Parsed::Index(index) = raw.parse().map_err(|error| read(error.into()))? else {
                    return Ok(Vec::new());
                };
                let wanted = pick.platform.clone().unwrap_or_else(Platform::host);
                let child = select_platform(&index, &wanted)
                    .map_err(|source| Error::Platform { image: image.to_owned(), source })?;
                digest_of(child).map_err(|error| read(error.into()))?
            }
        };
        if running.len() > 1 {
            let platform = running.iter().find(|m| m.digest == chosen).and_then(|m| m.platform.as_ref());
            self.report.event(Event::Note(format!(
                "`{image}` has {} platforms: only {} is added; --all adds every one",
                running.len(),
                platform.map_or_else(|| chosen.to_string(), |platform| Platform::from(platform).to_string()),
            )));
        }
        let belongs = |m: &&Member| m.digest == chosen || m.attests() == Some(chosen.as_str());
        Ok(draft.members().iter().filter(belongs).cloned().collect())
    }

    /// Copy an image of a file into the store, where the index keeps it.
    fn bring(&self, image: &str, source: &dyn Source, member: &Member) -> Result<(), Error> {
        let selection = Selection {
            from: What::Found { label: image.to_owned(), target: member.descriptor() },
            to: None,
            platforms: Platforms::All,
            jobs: JOBS,
        };
        copy(source, self.store, &selection, self.report)
            .map_err(|error| Error::Read { image: image.to_owned(), source: inner(error) })?;
        Ok(())
    }
}

/// Where an image of an index can be had that is not here: where it was added from, else where it or the index was seen
/// last, else where the name is.
fn origin(store: &Store, record: &ImageRecord, digest: &Digest) -> Option<Reference> {
    let known = record.origins.get(digest).cloned();
    let seen = |blob: &Digest| store.places(blob).first().and_then(|place| place.manifest(digest));
    known
        .or_else(|| seen(digest))
        .or_else(|| record.target_digest().ok().and_then(|index| seen(&index)))
        .or_else(|| Some(record.name.as_ref()?.with_digest(digest.clone())))
}

/// Where everything of an index can be had that is not here.
pub(super) fn origins(
    store: &Store,
    record: &ImageRecord,
    index: &IndexDraft,
) -> BTreeMap<Digest, Reference> {
    let absent = index.members().iter().filter(|member| !store.has_manifest(&member.descriptor()));
    absent.filter_map(|m| Some((m.digest.clone(), origin(store, record, &m.digest)?))).collect()
}

/// The descriptor of a single image or artifact.
fn one(source: &dyn Source, raw: &RawManifest, manifest: &Manifest) -> Result<Member, BoxError> {
    let mut member = Member::new(raw, None);
    if is_container_image(manifest) {
        member.platform = Some(platform(source, manifest)?);
    } else {
        let own = manifest.artifact_type().as_ref();
        member.artifact_type = Some(own.unwrap_or_else(|| manifest.config().media_type()).to_string());
    }
    Ok(member)
}

/// Find out the platform that an index does not say.
fn complete(source: &dyn Source, member: &mut Member) -> Result<(), BoxError> {
    let raw = source.manifest(&member.descriptor())?;
    if let Parsed::Manifest(manifest) = raw.parse()?
        && is_container_image(&manifest)
    {
        member.platform = Some(platform(source, &manifest)?);
    }
    Ok(())
}

/// The platform that an image's config says, word for word.
pub(super) fn platform(source: &dyn Source, manifest: &Manifest) -> Result<MemberPlatform, BoxError> {
    let bytes = small(source, manifest.config())?;
    let config: ImageConfig = serde_json::from_slice(&bytes)?;
    let strings = |key: &str| -> Vec<String> {
        let list = config.extra.get(key).and_then(|value| value.as_array());
        list.into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let mut platform = MemberPlatform::from(&config.platform());
    if !config.os.is_empty() && !config.architecture.is_empty() {
        platform.os.clone_from(&config.os);
        platform.architecture.clone_from(&config.architecture);
        platform.variant = config.variant.clone().filter(|variant| !variant.is_empty());
    }
    platform.os_version = config.extra.get("os.version").and_then(|v| v.as_str()).map(str::to_owned);
    platform.os_features = strings("os.features");
    Ok(platform)
}

/// A config, verified.
fn small(source: &dyn Source, config: &Descriptor) -> Result<Vec<u8>, BoxError> {
    let digest = digest_of(config)?;
    if config.size() > MAX_CONFIG_BYTES {
        return Err(format!("its config {digest} is larger than 4 MiB").into());
    }
    let (_, stream) = source.raw_blob(config, 0)?;
    let mut bytes = Vec::new();
    VerifiedReader::new(stream, digest, config.size()).read_to_end(&mut bytes)?;
    Ok(bytes)
}
