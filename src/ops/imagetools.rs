//! `buildx imagetools`: indexes put together in a registry, of what is in registries, without any store.

mod inspect;

use std::collections::BTreeMap;

pub use inspect::{Inspected, inspect};

use super::manifest::{Content, Error as ManifestError, Finder};
use super::remote::{self, RemoteOptions};
use crate::context::Context;
use crate::image::{BoxError, DraftError, IndexDraft, Member, Reporter, Source};
use crate::oci::{Descriptor, Digest, Platform, RawManifest, Reference, ReferenceError, descriptor};
use crate::registry::{self, Action, Client};

/// One thing that a new image is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// A name in a registry, as it was typed.
    Name(String),
    /// A digest, in the one repository that is spoken of.
    Digest(Digest),
    /// A descriptor, in the one repository that is spoken of; what it says counts more than what is found.
    Descriptor(Box<Member>),
}

/// A text that names no part.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// No reference.
    #[error("`{0}` is no source: a source is a name, a digest or a descriptor")]
    Reference(String, #[source] ReferenceError),
    /// No descriptor.
    #[error("the source is no descriptor")]
    Descriptor(#[source] serde_json::Error),
}

impl std::str::FromStr for Part {
    type Err = PartError;

    fn from_str(text: &str) -> Result<Self, PartError> {
        let text = text.trim();
        if text.starts_with('{') {
            let member = serde_json::from_str(text).map_err(PartError::Descriptor)?;
            return Ok(Self::Descriptor(Box::new(member)));
        }
        if let Ok(digest) = text.parse() {
            return Ok(Self::Digest(digest));
        }
        let name = text.strip_prefix("docker://").unwrap_or(text);
        Reference::parse(name).map_err(|source| PartError::Reference(text.to_owned(), source))?;
        Ok(Self::Name(name.to_owned()))
    }
}

/// `imagetools create`
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// What it is made of.
    pub parts: Vec<Part>,
    /// Its names.
    pub tags: Vec<Reference>,
    /// Add to what the first name stands for.
    pub append: bool,
    /// Only put it together.
    pub dry_run: bool,
    /// Make an index of a single image too.
    pub prefer_index: bool,
    /// Only images for these platforms; empty: all.
    pub platforms: Vec<Platform>,
    /// Annotations of the index.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of descriptors: of one platform, or of all.
    pub on_descriptors: Vec<(Option<Platform>, String, String)>,
    /// Registry options.
    pub remote: RemoteOptions,
}

/// Why an image could not be put together. Names are as they were.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to make it of.
    #[error("no sources: name at least one image")]
    NoParts,
    /// Nowhere to put it.
    #[error("no name: say where the image goes with --tag, or only look with --dry-run")]
    NoTags,
    /// A digest, and several repositories that it may be in.
    #[error("cannot tell in which repository {0} is: name it as REPOSITORY@{0}")]
    WhichRepository(Digest),
    /// A descriptor that does not fit what is there.
    #[error("{digest} has {found} bytes, and the descriptor says {said}")]
    Size {
        /// The manifest.
        digest: Digest,
        /// Its size.
        found: u64,
        /// What was said.
        said: u64,
    },
    /// No image left.
    #[error("no source has an image for {0}")]
    NoPlatform(String),
    /// An annotation of something that is no index.
    #[error("a single image has no place for annotations: leave out --prefer-index=false")]
    NotAnIndex,
    /// A part cannot be read.
    #[error("cannot read `{part}`")]
    Read {
        /// The part.
        part: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The index makes no sense.
    #[error("cannot put the index together")]
    Draft(#[from] DraftError),
    /// What it is made of cannot be had.
    #[error(transparent)]
    Content(#[from] ManifestError),
    /// It could not be sent.
    #[error("cannot push `{tag}`")]
    Push {
        /// The name.
        tag: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A name that means nothing at registries.
    #[error(transparent)]
    Name(#[from] remote::Error),
    /// A registry is not usable by its settings.
    #[error(transparent)]
    Registry(#[from] registry::Error),
}

/// A part, found.
struct Found {
    origin: Reference,
    raw: RawManifest,
    member: Member,
}

/// Put an image together and send it. `sent` is told of each name when it is there.
///
/// # Errors
/// See [`Error`].
pub fn create(
    cx: &Context,
    request: &CreateRequest,
    report: &dyn Reporter,
    sent: &mut dyn FnMut(&Reference),
) -> Result<RawManifest, Error> {
    if request.parts.is_empty() {
        return Err(Error::NoParts);
    }
    if request.tags.is_empty() && !request.dry_run {
        return Err(Error::NoTags);
    }
    let mut sources = Vec::new();
    for name in placed(cx, request, report)? {
        sources.push(find(cx, request, name, report)?);
    }
    let (raw, index, origins) = combine(request, &sources)?;
    if !request.dry_run {
        for tag in &request.tags {
            let parts = (raw.clone(), &index);
            let content = Content::open(cx, parts, None, (&origins, Some(tag)), &request.remote, report)?;
            let client = Client::new(&request.remote.settings(cx), tag, Action::Push, report)?;
            let mounts = content.mounts(tag);
            let client = client.with_mounts(move |digest| mounts.get(digest).cloned().into_iter().collect());
            content
                .send(&client, (&tag.to_string(), Some(tag)), report)
                .map_err(|source| Error::Push { tag: tag.to_string(), source })?;
            sent(tag);
        }
    }
    Ok(raw)
}

/// Every part with the name that it is asked for by.
fn placed<'r>(
    cx: &Context,
    request: &'r CreateRequest,
    report: &dyn Reporter,
) -> Result<Vec<(Reference, Option<&'r Member>)>, Error> {
    let mut names = Vec::new();
    for part in &request.parts {
        names.push(match part {
            Part::Name(typed) => Some(remote::told_name(cx, typed, report)?),
            Part::Digest(_) | Part::Descriptor(_) => None,
        });
    }
    let repositories: Vec<&Reference> = names.iter().flatten().chain(&request.tags).collect();
    let one = repositories.first().filter(|first| {
        repositories
            .iter()
            .all(|name| (name.registry(), name.repository()) == (first.registry(), first.repository()))
    });
    let here = |digest: &Digest| {
        let place = one.ok_or_else(|| Error::WhichRepository(digest.clone()))?;
        Ok::<_, Error>(place.with_digest(digest.clone()))
    };
    let mut all = Vec::new();
    if request.append
        && let Some(tag) = request.tags.first()
    {
        all.push((tag.clone(), None));
    }
    for (part, name) in request.parts.iter().zip(&names) {
        all.push(match (part, name) {
            (_, Some(name)) => (name.clone(), None),
            (Part::Digest(digest), None) => (here(digest)?, None),
            (Part::Descriptor(member), None) => (here(&member.digest)?, Some(member.as_ref())),
            (Part::Name(_), None) => continue,
        });
    }
    Ok(all)
}

fn find(
    cx: &Context,
    request: &CreateRequest,
    (origin, said): (Reference, Option<&Member>),
    report: &dyn Reporter,
) -> Result<Found, Error> {
    let failed = |source: BoxError| Error::Read { part: origin.to_string(), source };
    let client = Client::new(&request.remote.settings(cx), &origin, Action::Pull, report)?;
    let target: Descriptor = client.resolve(&origin).map_err(failed)?;
    let raw = client.manifest(&target).map_err(failed)?;
    client.admit(Some(&origin), &[&raw]).map_err(failed)?;
    let mut member = Finder::member(&client, &raw).map_err(failed)?;
    if let Some(said) = said {
        if said.size != 0 && said.size != member.size {
            return Err(Error::Size { digest: said.digest.clone(), found: member.size, said: said.size });
        }
        if !said.annotations.is_empty() {
            member.annotations.clone_from(&said.annotations);
        }
        if let Some(platform) = &said.platform {
            let found = member.platform.take().unwrap_or_default();
            let mut platform = platform.clone();
            if platform.os.is_empty() {
                platform.os = found.os;
            }
            if platform.architecture.is_empty() {
                (platform.architecture, platform.variant) =
                    (found.architecture, platform.variant.or(found.variant));
            }
            member.platform = Some(platform);
        }
    }
    Ok(Found { origin, raw, member })
}

type Combined = (RawManifest, IndexDraft, BTreeMap<Digest, Reference>);

/// The new document, what it names, and where that is.
fn combine(request: &CreateRequest, sources: &[Found]) -> Result<Combined, Error> {
    let annotated = !request.annotations.is_empty() || !request.on_descriptors.is_empty();
    let mut origins = BTreeMap::new();
    let mut draft = IndexDraft::default();
    for source in sources {
        let members = match IndexDraft::parse(&source.raw) {
            Ok(index) => index.members().to_vec(),
            Err(DraftError::NotAnIndex(_)) => vec![source.member.clone()],
            Err(error) => return Err(error.into()),
        };
        for member in members {
            origins
                .entry(member.digest.clone())
                .or_insert_with(|| source.origin.with_digest(member.digest.clone()));
            draft.add(member)?;
        }
    }
    if let ([only], true) = (sources, request.platforms.is_empty() && !annotated) {
        let is_index = crate::oci::media_type::is_index(&only.raw.media_type);
        if is_index || !request.prefer_index {
            // The image itself: nothing is named beside it, but it may be in another repository.
            return Ok((only.raw.clone(), draft, origins));
        }
    }
    if !request.prefer_index && sources.len() == 1 && annotated {
        return Err(Error::NotAnIndex);
    }
    if !request.platforms.is_empty() {
        keep(&mut draft, &request.platforms)?;
    }
    draft.annotations.clone_from(&request.annotations);
    for (platform, key, value) in &request.on_descriptors {
        draft.annotate_where(platform.as_ref(), key, value);
    }
    if draft.is_docker() && !annotated {
        draft = draft.into_docker()?;
    }
    Ok((draft.to_raw()?, draft, origins))
}

/// Keep the images for some platforms, and what attests something of them.
fn keep(draft: &mut IndexDraft, platforms: &[Platform]) -> Result<(), Error> {
    let wanted = |member: &Member| {
        let own = member.platform.as_ref().map(Platform::from);
        own.is_some_and(|own| platforms.contains(&own))
    };
    let dropped: Vec<Digest> =
        draft.members().iter().filter(|m| m.runs() && !wanted(m)).map(|m| m.digest.clone()).collect();
    for digest in &dropped {
        draft.remove(digest)?;
    }
    if draft.members().iter().any(Member::runs) {
        return Ok(());
    }
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    Err(Error::NoPlatform(names.join(", ")))
}

/// The descriptor that buildx writes into its metadata file.
#[must_use]
pub fn metadata(raw: &RawManifest, tags: &[Reference]) -> serde_json::Value {
    let names: Vec<String> = tags.iter().map(ToString::to_string).collect();
    serde_json::json!({
        "containerimage.descriptor": descriptor(&raw.media_type, &raw.digest, raw.bytes.len() as u64),
        "containerimage.digest": raw.digest,
        "image.name": names.join(","),
    })
}
