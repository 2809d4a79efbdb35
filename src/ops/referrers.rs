//! `referrers`: signatures, attestations and other artifacts that name an image as their subject.

use super::remote::RemoteOptions;
use super::transport::{self, Input};
use crate::context::Context;
use crate::image::{Event, Location, Reporter, select_platform};
use crate::oci::{Descriptor, Digest, Parsed, Platform, Reference, digest_of};
use crate::registry::{self, Action, Client};

pub use crate::registry::artifact_type_of;

/// Whose referrers to list.
#[derive(Debug, Clone)]
pub struct Request {
    /// The image.
    pub reference: Reference,
    /// Those of this platform's image, and not of the index.
    pub platform: Option<Platform>,
    /// Only artifacts of this type.
    pub artifact_type: Option<String>,
    /// Registry options.
    pub remote: RemoteOptions,
}

/// An image's referrers.
#[derive(Debug, Clone)]
pub struct Referrers {
    /// Registry and repository.
    pub repository: String,
    /// The manifest that they refer to.
    pub subject: Digest,
    /// What refers to it.
    pub manifests: Vec<Descriptor>,
}

/// Why referrers cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image cannot be found.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// The registry does not list them.
    #[error("cannot list what refers to `{reference}`")]
    List {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: registry::Error,
    },
    /// The index has nothing for the platform.
    #[error("cannot choose an image of `{reference}`")]
    Platform {
        /// The image.
        reference: String,
        /// What there is.
        #[source]
        source: crate::image::SelectError,
    },
    /// The registry names an unusable digest.
    #[error("cannot tell the digest of `{reference}`")]
    Digest {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: crate::oci::DigestError,
    },
}

/// List an image's referrers: by the registry's API, else by the tag that stands in for it, which is said.
///
/// # Errors
/// See [`Error`]. An image that nothing refers to is no error.
pub fn referrers(cx: &Context, request: &Request, report: &dyn Reporter) -> Result<Referrers, Error> {
    let reference = &request.reference;
    let name = reference.to_string();
    let subject = match (reference.digest(), &request.platform) {
        (Some(digest), None) => digest.clone(),
        _ => {
            let target = subject_of(cx, request, report)?;
            digest_of(&target).map_err(|source| Error::Digest { reference: name.clone(), source })?
        }
    };
    let failed = |source| Error::List { reference: name.clone(), source };
    let settings = request.remote.settings(cx);
    let client = Client::new(&settings, reference, Action::Pull, report).map_err(failed)?;
    let found = client.referrers(&subject, request.artifact_type.as_deref()).map_err(failed)?;
    if found.from_tag {
        report.event(Event::Note(format!(
            "{} has no referrers API: what the tag {}-{} lists is shown",
            reference.registry(),
            subject.algorithm(),
            subject.hex()
        )));
    }
    Ok(Referrers { repository: super::tags::name_of(reference), subject, manifests: found.manifests })
}

fn subject_of(cx: &Context, request: &Request, report: &dyn Reporter) -> Result<Descriptor, Error> {
    let input = Input::open(cx, &Location::Registry(request.reference.clone()), &request.remote, report)?;
    let Some(wanted) = &request.platform else { return Ok(input.target) };
    match input.parse(&input.document()?)? {
        Parsed::Manifest(_) => Ok(input.target),
        Parsed::Index(index) => {
            let chosen = select_platform(&index, wanted);
            let reference = request.reference.to_string();
            Ok(chosen.map_err(|source| Error::Platform { reference, source })?.clone())
        }
    }
}
