//! `push`: what the registry lacks, then the manifest, then the tag.

use std::io::Read;

use super::pull::JOBS;
use super::remote::{RemoteOptions, inner, mount_sources, remember};
use crate::context::Context;
use crate::image::{BoxError, Platforms, Reporter, Selection, Source, What, copy};
use crate::oci::{Descriptor, Digest, RawManifest, Reference, digest_of};
use crate::registry::{self, Action, Client};
use crate::storage::{self, ImageRecord, Store};

/// What to push where.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// The image, as the user named it: a name or an id.
    pub image: String,
    /// Its name at the registry; without one, the name it has here.
    pub destination: Option<Reference>,
    /// Registry options.
    pub remote: RemoteOptions,
}

/// What was pushed.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The name at the registry.
    pub reference: Reference,
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Why a push failed. The name at the registry is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image could not be sent.
    #[error("cannot push `{reference}`")]
    Push {
        /// The name at the registry.
        reference: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// An id says which image, but not where to.
    #[error("`{0}` is an image id: say where to push it to")]
    NoDestination(String),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The registry is not usable by its settings.
    #[error(transparent)]
    Registry(#[from] registry::Error),
}

/// Where a push would go.
///
/// # Errors
/// [`Error::NoDestination`], or when the destination has a digest and no tag.
pub fn destination(request: &PushRequest) -> Result<Reference, Error> {
    let reference = match &request.destination {
        Some(reference) => reference.clone(),
        None => Reference::parse(&request.image).map_err(|_| Error::NoDestination(request.image.clone()))?,
    };
    if reference.tag().is_none() {
        return Err(registry::Error::PushByDigest { reference: reference.to_string() }.into());
    }
    Ok(reference)
}

/// Send an image to a registry.
///
/// # Errors
/// See [`Error`].
pub fn push(cx: &Context, request: &PushRequest, report: &dyn Reporter) -> Result<Pushed, Error> {
    let reference = destination(request)?;
    let store = Store::open(&cx.root)?;
    let record = store.find_image(&request.image)?;
    let client = Client::new(&request.remote.settings(cx), &reference, Action::Push, report)?
        .with_mounts(mount_sources(&store, &reference));
    let selection = Selection {
        from: What::Name(reference.clone()),
        to: Some(reference.clone()),
        platforms: Platforms::All,
        jobs: JOBS,
    };
    let local = Local { store: &store, record: &record };
    let copied = copy(&local, &client, &selection, report)
        .map_err(|error| Error::Push { reference: reference.to_string(), source: inner(error) })?;
    remember(&store, &reference, &copied);
    let digest = digest_of(&copied.target)
        .map_err(|error| Error::Push { reference: reference.to_string(), source: error.into() })?;
    Ok(Pushed { reference, digest, size: copied.target.size() })
}

/// One image of the store, under whatever name it is asked for.
struct Local<'a> {
    store: &'a Store,
    record: &'a ImageRecord,
}

impl Source for Local<'_> {
    fn resolve(&self, _: &Reference) -> Result<Descriptor, BoxError> {
        Ok(self.record.target.clone())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, BoxError> {
        Source::manifest(self.store, descriptor)
    }

    fn admit(&self, _: Option<&Reference>, _: &[&RawManifest]) -> Result<(), BoxError> {
        Ok(()) // what is in the store was let in before
    }

    fn raw_blob(
        &self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<(u64, Box<dyn Read + Send>), BoxError> {
        self.store.raw_blob(descriptor, offset)
    }
}
