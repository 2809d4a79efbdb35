//! `delete`: a manifest leaves its repository, or a tag alone does.

use super::remote::RemoteOptions;
use crate::context::Context;
use crate::image::{BoxError, Reporter, Source};
use crate::oci::{Digest, Reference, digest_of};
use crate::registry::{self, Action, Client};

/// What to remove.
#[derive(Debug, Clone)]
pub struct Request {
    /// The image, in its registry.
    pub reference: Reference,
    /// The tag alone: what it stands for, and its other tags, stay.
    pub tag_only: bool,
    /// Registry options.
    pub remote: RemoteOptions,
}

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image cannot be found or removed.
    #[error("cannot delete `{reference}`")]
    Delete {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The registry's settings forbid it.
    #[error("{registry} does not allow to delete {what}")]
    NotAllowed {
        /// The registry.
        registry: String,
        /// `manifests` or `tags`.
        what: &'static str,
        /// What it answered.
        #[source]
        source: registry::Error,
    },
    /// There is no tag to remove.
    #[error("`{0}` names no tag")]
    NoTag(String),
}

/// Remove a manifest and with it every tag that stands for it; or one tag. The digest of what was removed comes back.
///
/// # Errors
/// See [`Error`].
pub fn delete(cx: &Context, request: &Request, report: &dyn Reporter) -> Result<Digest, Error> {
    let reference = &request.reference;
    let failed = |source: BoxError| Error::Delete { reference: reference.to_string(), source };
    let settings = request.remote.settings(cx);
    let client = Client::new(&settings, reference, Action::Delete, report).map_err(|e| failed(e.into()))?;
    // What a tag stands for is asked even when a digest is given: a digest that is not there must not pass silently.
    let target = client.resolve(reference).map_err(failed)?;
    let digest = digest_of(&target).map_err(|error| failed(error.into()))?;
    let result = if request.tag_only {
        let tag = reference.tag().ok_or_else(|| Error::NoTag(reference.to_string()))?;
        client.delete_manifest(tag)
    } else {
        client.delete_manifest(digest.as_str())
    };
    match result {
        Ok(()) => Ok(digest),
        Err(source) if is_not_allowed(&source) => Err(Error::NotAllowed {
            registry: reference.registry().to_owned(),
            what: if request.tag_only { "tags" } else { "manifests" },
            source,
        }),
        Err(source) => Err(failed(source.into())),
    }
}

fn is_not_allowed(error: &registry::Error) -> bool {
    match error {
        registry::Error::Refused { answer, .. } => {
            let code = answer.code.as_deref();
            // A registry that wants a digest where a tag was given says that the digest is invalid.
            answer.status == 405 || matches!(code, Some("UNSUPPORTED" | "DIGEST_INVALID"))
        }
        _ => false,
    }
}
