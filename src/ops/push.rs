//! `push`: what the destination lacks, then the manifest, then the name.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use super::manifest::{self, Content};
use super::pull::JOBS;
use super::remote::{RemoteOptions, inner, mount_sources, remember};
use super::transport::{self, Input, Output};
use crate::context::Context;
use crate::image::{
    BoxError, Conversion, Converted, Copied, Location, Platforms, Reporter, SelectError, Selection, Source,
    What, Workshop, convert, copy, select_platform,
};
use crate::oci::{Descriptor, Digest, Index, Manifest, Parsed, Platform, RawManifest, Reference, digest_of};
use crate::registry::{self, Action, Client};
use crate::storage::{self, ImageRecord, Store};
use crate::sys::unnamed::UnnamedFile;

pub use crate::image::{Format, Recompression, Which};
pub use crate::layer::{Compression, levels};

/// Where scratch files go when the store takes none.
const SCRATCH: &str = "/var/tmp";

/// What to push where.
#[derive(Debug, Clone, Default)]
pub struct PushRequest {
    /// The image, as the user named it: a name or an id. With `all_tags` a repository.
    pub image: String,
    /// Where it goes, one after the other; without any, the name it has here.
    pub destinations: Vec<Location>,
    /// Every tag of the repository that is here.
    pub all_tags: bool,
    /// One image of an index, instead of the index.
    pub platform: Option<Platform>,
    /// Another form than it has here.
    pub conversion: Conversion,
    /// Registry options.
    pub remote: RemoteOptions,
}

/// One image on its way to one place.
#[derive(Debug, Clone)]
pub struct Job {
    record: ImageRecord,
    /// The place.
    pub to: Location,
}

/// What was pushed.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Where it is now.
    pub place: Location,
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Why a push failed. The name at the destination is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image could not be sent.
    #[error("cannot push `{place}`")]
    Push {
        /// The name at the registry, or the other place.
        place: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// An id says which image, but not where to.
    #[error("`{0}` is an image id: say where to push it to")]
    NoDestination(String),
    /// All tags were asked for, and one was named.
    #[error("`{0}` names one image: all tags are those of a repository, without a tag")]
    TagWithAllTags(String),
    /// There is nothing of the repository here.
    #[error("no image of the repository `{0}` is here")]
    NoTags(String),
    /// The image is for another platform.
    #[error("`{image}` is for {found}, not for {wanted}")]
    OtherPlatform {
        /// The image.
        image: String,
        /// Its platform.
        found: Platform,
        /// What was asked for.
        wanted: Platform,
    },
    /// The index has no image for the platform.
    #[error("cannot push `{image}`")]
    Platform {
        /// The image.
        image: String,
        /// What there is.
        #[source]
        source: SelectError,
    },
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The registry is not usable by its settings.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The place cannot be used.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// Images of an index cannot be found.
    #[error(transparent)]
    Index(#[from] Box<manifest::Error>),
}

impl Error {
    /// What the user can do.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Index(_) => vec!["to push one image of the index alone: --platform OS/ARCH".into()],
            Self::TagWithAllTags(name) => vec![format!("strate push {name}")],
            Self::NoTags(_) => vec!["`strate images` lists the images that are here".into()],
            _ => Vec::new(),
        }
    }
}

/// What a request comes to: which image goes where, in order. Nothing is asked of a registry.
///
/// # Errors
/// When there is no such image, or it is not clear where to.
pub fn plan(cx: &Context, request: &PushRequest) -> Result<Vec<Job>, Error> {
    let store = super::store::read(cx)?;
    if request.all_tags {
        return all_tags(&store, &request.image);
    }
    let record = store.find_image(&request.image)?;
    let mut places = request.destinations.clone();
    if places.is_empty() {
        let own = Reference::parse(&request.image).ok().filter(|_| record.name.is_some());
        places.push(Location::Registry(own.ok_or_else(|| Error::NoDestination(request.image.clone()))?));
    }
    for place in &places {
        if let Location::Registry(name) = place
            && name.tag().is_none()
        {
            return Err(registry::Error::PushByDigest { reference: name.to_string() }.into());
        }
    }
    Ok(places.into_iter().map(|to| Job { record: record.clone(), to }).collect())
}

fn all_tags(store: &Store, text: &str) -> Result<Vec<Job>, Error> {
    let names_one = text.contains('@') || text.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if names_one {
        return Err(Error::TagWithAllTags(text.to_owned()));
    }
    let repository = Reference::parse(text).map_err(|_| Error::NoTags(text.to_owned()))?;
    let mut found: Vec<(Reference, ImageRecord)> = store
        .images()?
        .into_iter()
        .filter_map(|record| Some((record.name.clone()?, record)))
        .filter(|(name, _)| {
            (name.registry(), name.repository()) == (repository.registry(), repository.repository())
                && name.tag().is_some()
        })
        .collect();
    if found.is_empty() {
        return Err(Error::NoTags(text.to_owned()));
    }
    found.sort_by_key(|(name, _)| name.to_string());
    Ok(found.into_iter().map(|(name, record)| Job { record, to: Location::Registry(name) }).collect())
}

/// Send an image to everywhere that a request names.
///
/// # Errors
/// At the first place that fails; see [`Error`].
pub fn push_all(cx: &Context, request: &PushRequest, report: &dyn Reporter) -> Result<Vec<Pushed>, Error> {
    let mut done = Done::default();
    plan(cx, request)?.iter().map(|job| push(cx, request, job, &mut done, report)).collect()
}

/// What was converted, by what it was: several destinations get the same without the work being done again.
#[derive(Debug, Default)]
pub struct Done(HashMap<Digest, Converted>);

/// Send an image to its place.
///
/// # Errors
/// See [`Error`].
pub fn push(
    cx: &Context,
    request: &PushRequest,
    job: &Job,
    done: &mut Done,
    report: &dyn Reporter,
) -> Result<Pushed, Error> {
    let store = super::store::hold(cx)?;
    store.hold(&job.record)?;
    let push = Push { cx, request, job, store: &store, report };
    let (content, target) = push.content()?;
    let (target, converted) = match request.conversion == Conversion::default() {
        true => (target, None),
        false => {
            let digest = digest_of(&target).map_err(|error| push.failed(error.into()))?;
            if !done.0.contains_key(&digest) {
                done.0.insert(digest.clone(), push.convert(&content, &target)?);
            }
            let converted = done.0.get(&digest);
            (converted.map_or(target, |converted| converted.target.clone()), converted)
        }
    };
    let mounts = |name: &Reference| content.mounts(name);
    let copied = match converted {
        Some(converted) => push.send(&converted.source(&content), target, mounts)?,
        None => push.send(&content, target, mounts)?,
    };
    if let Location::Registry(name) = &job.to {
        remember(&store, name, &copied);
    }
    let digest = digest_of(&copied.target).map_err(|error| push.failed(error.into()))?;
    Ok(Pushed { place: job.to.clone(), digest, size: copied.target.size() })
}

/// One push under way.
struct Push<'a> {
    cx: &'a Context,
    request: &'a PushRequest,
    job: &'a Job,
    store: &'a Store,
    report: &'a dyn Reporter,
}

impl<'a> Push<'a> {
    /// The image and what of it goes: an index whole, with those of its images that are not here found at the registry
    /// that they came from.
    fn content(&self) -> Result<(Content<'a>, Descriptor), Error> {
        let record = &self.job.record;
        let root = self.store.raw_document(record)?;
        let parsed = root.parse().map_err(storage::Error::from)?;
        let target = match (&parsed, &self.request.platform) {
            (_, None) => root.descriptor(),
            (Parsed::Index(index), Some(platform)) => self.chosen(index, platform)?,
            (Parsed::Manifest(manifest), Some(platform)) => {
                self.check_platform(&root, manifest, platform)?;
                root.descriptor()
            }
        };
        let whole = target.digest() == root.descriptor().digest();
        if matches!(parsed, Parsed::Index(_)) && (whole || !self.store.has_manifest(&target)) {
            // A login that was given is the destination's, and is not shown to other registries.
            let elsewhere =
                RemoteOptions { creds: None, registry_token: None, ..self.request.remote.clone() };
            let wanted = (!whole).then_some(&target);
            let content = Content::of_record(self.cx, self.store, record, wanted, &elsewhere, self.report);
            return Ok((content.map_err(Box::new)?, target));
        }
        Ok((Content::bare(root, Some(self.store)), target))
    }

    fn chosen(&self, index: &Index, platform: &Platform) -> Result<Descriptor, Error> {
        let image = self.job.record.label();
        let child = select_platform(index, platform).map_err(|source| Error::Platform { image, source })?;
        Ok(child.clone())
    }

    fn check_platform(&self, raw: &RawManifest, _: &Manifest, wanted: &Platform) -> Result<(), Error> {
        let found = self.store.image(&raw.digest)?.config.platform();
        if found.fit(wanted).is_some() {
            return Ok(());
        }
        Err(Error::OtherPlatform { image: self.job.record.label(), found, wanted: wanted.clone() })
    }

    fn convert(&self, from: &dyn Source, target: &Descriptor) -> Result<Converted, Error> {
        let tmp = self.store.layout().tmp();
        let workshop = Workshop {
            scratch: &|| scratch(&tmp).or_else(|_| scratch(Path::new(SCRATCH))),
            jobs: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            report: self.report,
        };
        convert(from, None, target, &Platforms::All, &self.request.conversion, &workshop)
            .map_err(|error| self.failed(error.into()))
    }

    fn send(
        &self,
        source: &dyn Source,
        target: Descriptor,
        mounts: impl Fn(&Reference) -> HashMap<Digest, String>,
    ) -> Result<Copied, Error> {
        let label = self.job.record.label();
        let what = What::Found { label: label.clone(), target: target.clone() };
        let selection = Selection { from: what, to: None, platforms: Platforms::All, jobs: JOBS };
        let remote = &self.request.remote;
        if let Location::Registry(name) = &self.job.to {
            let (known, streamed) = (mount_sources(self.store, name), mounts(name));
            let client = Client::new(&remote.settings(self.cx), name, Action::Push, self.report)?
                .with_mounts(move |digest| {
                    streamed.get(digest).cloned().into_iter().chain(known(digest)).collect()
                });
            let selection = Selection { to: Some(name.clone()), ..selection };
            return copy(source, &client, &selection, self.report).map_err(|error| self.failed(inner(error)));
        }
        let input = Input { place: label, source: std::sync::Arc::new(source), target, reference: None };
        let output = Output::open(self.cx, &self.job.to, &input, remote, self.report)?;
        let copied = copy(source, output.sink(), &selection, self.report)
            .map_err(|error| self.failed(inner(error)))?;
        output.finish(&copied.target, &[]).map_err(|error| self.failed(error))?;
        Ok(copied)
    }

    fn failed(&self, source: BoxError) -> Error {
        let place = match &self.job.to {
            Location::Registry(name) => name.to_string(),
            other => other.to_string(),
        };
        Error::Push { place, source }
    }
}

/// A file without a name.
fn scratch(dir: &Path) -> io::Result<File> {
    UnnamedFile::create_in(dir).map_err(|error| error.source)?.file().try_clone()
}
