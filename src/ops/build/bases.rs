//! Where base images come from.

use std::time::Duration;

use super::BuildRequest;
use crate::build::Bases;
use crate::context::Context;
use crate::image::{BoxError, Location, Reporter, Silent};
use crate::oci::{ImageConfig, Platform, Reference};
use crate::ops::pull::{self, PullPolicy, PullRequest};
use crate::ops::remote::{self, RemoteOptions};
use crate::ops::remote_inspect;
use crate::registry;
use crate::storage::{self, Image, Store};

/// How long looking at an image may take that is not to be built from.
const LOOK: Duration = Duration::from_secs(15);

/// Base images: what is here, else from a registry.
pub(super) struct BaseImages<'a> {
    pub cx: &'a Context,
    pub store: &'a Store,
    pub request: &'a BuildRequest,
}

/// How often an image is pulled that peers remove before it can be used.
const PULLS: u32 = 5;

impl Bases for BaseImages<'_> {
    fn reference(&self, name: &str) -> Result<Reference, BoxError> {
        Ok(remote::image_name(self.cx, self.store, name)?.reference)
    }

    fn image(
        &self,
        reference: &Reference,
        platform: &Platform,
        report: &dyn Reporter,
    ) -> Result<Image, BoxError> {
        if !self.request.pull
            && let Some(image) = self.local(reference, platform)?
        {
            return Ok(image);
        }
        let policy = if self.request.offline { PullPolicy::Never } else { PullPolicy::Always };
        let request = PullRequest {
            all_platforms: false,
            reference: reference.clone(),
            platform: Some(platform.clone()),
            policy,
            remote: self.request.remote.clone(),
        };
        for _ in 0..PULLS {
            let pulled = pull::pull(self.cx, &request, report).map_err(base_error)?;
            match self.store.image(&pulled.manifest) {
                Err(storage::Error::MissingBlob(_)) => {}
                image => return Ok(image?),
            }
        }
        Err(storage::Error::NoSuchImage(reference.familiar()).into())
    }
}

/// A base image that no registry has, in the words that people search for.
#[derive(Debug, thiserror::Error)]
#[error("not found")]
struct NoBase(#[source] BoxError);

fn base_error(error: pull::Error) -> BoxError {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = next {
        let unknown = matches!(
            cause.downcast_ref(),
            Some(registry::Error::UnknownManifest { .. } | registry::Error::UnknownRepository { .. })
        );
        if unknown {
            return NoBase(error.into()).into();
        }
        next = cause.source();
    }
    error.into()
}

impl BaseImages<'_> {
    /// The config of an image that is here or in a registry, without its layers; nothing when it cannot be had: what
    /// is asked for it then goes unsaid.
    pub(super) fn config(&self, name: &str, platform: &Platform) -> Option<ImageConfig> {
        let reference = self.reference(name).ok()?;
        if let Ok(Some(image)) = self.local(&reference, platform) {
            return Some(image.config);
        }
        if self.request.offline {
            return None;
        }
        let request = remote_inspect::Request {
            place: Location::Registry(reference),
            platform: Some(platform.clone()),
            tags: false,
            remote: RemoteOptions { retries: Some(0), timeout: Some(LOOK), ..self.request.remote.clone() },
        };
        serde_json::from_slice(&remote_inspect::config(self.cx, &request, &Silent).ok()?).ok()
    }

    /// The image of that name, when it is here and fits the platform.
    fn local(&self, reference: &Reference, platform: &Platform) -> Result<Option<Image>, BoxError> {
        let record = match self.store.find_image(&reference.to_string()) {
            Ok(record) => record,
            Err(storage::Error::NoSuchImage(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match self.store.image_for(&record, Some(platform)) {
            Ok(image) => Ok(Some(image)),
            // The second: a peer removed it since the look.
            Err(storage::Error::NoPlatform { .. } | storage::Error::NoSuchImage(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
