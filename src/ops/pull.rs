//! `pull`: resolve, compare with what is here, copy what lacks, move the name.

use super::remote::{RemoteOptions, inner, remember};
use crate::context::Context;
use crate::image::{BoxError, CopyError, Event, Platforms, Reporter, Selection, What, copy};
use crate::oci::{Digest, ImageId, Platform, Reference};
use crate::registry::{self, Action, Client};
use crate::storage::{self, ImageRecord, Store};

/// Layers that move at once (docker's number).
pub const JOBS: usize = 3;

/// When the registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always.
    Always,
    /// When the image is not here.
    Missing,
    /// Never: an image that is not here is an error.
    Never,
    /// Always, but what is here will do when the registry cannot be asked.
    Newer,
}

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// The image.
    pub reference: Reference,
    /// The platform that was asked for; without one, this machine's.
    pub platform: Option<Platform>,
    /// Every image of an index, which the name then stands for.
    pub all_platforms: bool,
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// Registry options.
    pub remote: RemoteOptions,
}

/// What is here now.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The image.
    pub reference: Reference,
    /// The digest its name stands for at the registry: an index's, where it is one.
    pub digest: Digest,
    /// The image id.
    pub id: ImageId,
    /// The manifest of the chosen platform.
    pub manifest: Digest,
    /// Whether the registry was asked.
    pub asked: bool,
    /// Whether the name stood for something else, or nothing, before.
    pub changed: bool,
}

/// Why a pull failed. Names are as they were.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image could not be brought over.
    #[error("cannot pull `{reference}`")]
    Pull {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The tags of a repository cannot be listed.
    #[error("cannot list the tags of `{repository}`")]
    Tags {
        /// Registry and repository.
        repository: String,
        /// Why.
        #[source]
        source: registry::Error,
    },
    /// The policy forbids to ask, and the image is not here.
    #[error("image `{reference}` is not here, and the pull policy is never to ask a registry")]
    NotHere {
        /// The image.
        reference: String,
    },
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The registry is not usable by its settings.
    #[error(transparent)]
    Registry(#[from] registry::Error),
}

/// Bring an image into the store, by the policy.
///
/// # Errors
/// See [`Error`].
pub fn pull(cx: &Context, request: &PullRequest, report: &dyn Reporter) -> Result<Pulled, Error> {
    let reference = &request.reference;
    if request.policy != PullPolicy::Always
        && let Some(record) = here(&super::store::read(cx)?, request)?
    {
        match request.policy {
            PullPolicy::Newer => return newer(cx, request, report, &record),
            _ => return Ok(unchanged(reference, &record, false)),
        }
    }
    if request.policy == PullPolicy::Never {
        return Err(Error::NotHere { reference: reference.to_string() });
    }
    fetch(cx, request, report)
}

/// The tags of a repository, for a pull of all of them. What refers to an image by a tag made of its digest
/// (signatures, attestations) is no image and is left out.
///
/// # Errors
/// When the registry cannot be asked or does not know the repository.
pub fn tags(
    cx: &Context,
    repository: &Reference,
    remote: &RemoteOptions,
    report: &dyn Reporter,
) -> Result<Vec<Reference>, Error> {
    let client = Client::new(&remote.settings(cx), repository, Action::Pull, report)?;
    let failed = |source: registry::Error| Error::Tags {
        repository: format!("{}/{}", repository.registry(), repository.repository()),
        source,
    };
    let tags = client.tags().map_err(failed)?;
    // A tag that is none cannot be asked for.
    let images = tags.iter().filter(|tag| !is_of_digest(tag));
    Ok(images.filter_map(|tag| repository.with_tag(tag).ok()).collect())
}

/// Whether a tag is `sha256-<hex>`, with or without an ending: the referrers tag of distribution-spec and what cosign
/// makes of it.
fn is_of_digest(tag: &str) -> bool {
    let digest = tag.split('.').next().and_then(|digest| digest.split_once('-'));
    digest.is_some_and(|(algorithm, hex)| format!("{algorithm}:{hex}").parse::<Digest>().is_ok())
}

/// Whether a pull failed as the image is not there for the platform.
#[must_use]
pub fn is_for_other_platforms(error: &Error) -> bool {
    let Error::Pull { source, .. } = error else { return false };
    matches!(source.downcast_ref(), Some(CopyError::Platform(_)))
}

/// Ask, and be content with what is here when the registry is out of reach. What it or a policy refuses is an error.
fn newer(
    cx: &Context,
    request: &PullRequest,
    report: &dyn Reporter,
    record: &ImageRecord,
) -> Result<Pulled, Error> {
    match fetch(cx, request, report) {
        Err(Error::Pull { source, .. })
            if source.downcast_ref().is_some_and(registry::Error::is_out_of_reach) =>
        {
            report.event(Event::Note(format!(
                "the registry cannot be asked whether `{}` has changed ({source}): what is here is used",
                request.reference.familiar()
            )));
            Ok(unchanged(&request.reference, record, true))
        }
        result => result,
    }
}

/// The image when it is here, for the platform that was asked for.
fn here(store: &Store, request: &PullRequest) -> Result<Option<ImageRecord>, Error> {
    let record = match store.find_image(&request.reference.to_string()) {
        Ok(record) => record,
        Err(storage::Error::NoSuchImage(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match store.image_for(&record, request.platform.as_ref()) {
        Ok(_) => Ok(Some(record)),
        Err(storage::Error::NoPlatform { .. } | storage::Error::NoSuchImage(_)) => Ok(None),
        // What is no container image has no platform.
        Err(storage::Error::NotAnImage { .. }) => Ok(Some(record)),
        Err(error) => Err(error.into()),
    }
}

fn unchanged(reference: &Reference, record: &ImageRecord, asked: bool) -> Pulled {
    Pulled {
        reference: reference.clone(),
        digest: record.digest.clone(),
        id: record.id.clone(),
        manifest: record.manifest.clone(),
        asked,
        changed: false,
    }
}

fn fetch(cx: &Context, request: &PullRequest, report: &dyn Reporter) -> Result<Pulled, Error> {
    let reference = &request.reference;
    let failed = |source: BoxError| Error::Pull { reference: reference.to_string(), source };
    // A store that cannot be written fails before any request.
    let store = super::store::write_plainly(cx)?;
    store.settle()?;
    let client = Client::new(&request.remote.settings(cx), reference, Action::Pull, report)?;
    // A list of names that cannot be read is told before anything is asked of the registry.
    let before = match store.find_image(&reference.to_string()) {
        Err(error @ (storage::Error::Json { .. } | storage::Error::Damaged { .. })) => {
            return Err(error.into());
        }
        found => found.ok(),
    };
    let selection = Selection {
        from: What::Name(reference.clone()),
        to: Some(reference.clone()),
        platforms: match request.all_platforms {
            true => Platforms::All,
            false => Platforms::Best(request.platform.clone().unwrap_or_else(Platform::host)),
        },
        jobs: JOBS,
    };
    let copied = copy(&client, &store, &selection, report).map_err(|error| failed(inner(error)))?;
    remember(&store, reference, &copied);
    store.tell("image", "pull", &reference.familiar(), &[("name", &reference.familiar())]);
    let record = match store.find_image(&reference.to_string()) {
        // A peer has taken the name away again: the pull has done its work all the same.
        Err(storage::Error::NoSuchImage(_)) => store.record_of(reference, &copied.target)?,
        record => record?,
    };
    Ok(Pulled {
        reference: reference.clone(),
        changed: before.is_none_or(|before| before.digest != record.digest || before.id != record.id),
        digest: record.digest,
        id: record.id,
        manifest: record.manifest,
        asked: true,
    })
}
