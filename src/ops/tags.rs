//! `list-tags`: what a repository offers, or what an archive calls its images.

use super::remote::RemoteOptions;
use super::transport;
use crate::context::Context;
use crate::image::{Location, Reporter};
use crate::oci::Reference;
use crate::registry::{self, Action, Client};

/// Tags, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags {
    /// Registry and repository; `None` for an archive.
    pub repository: Option<String>,
    /// The tags, in the order they are listed there.
    pub tags: Vec<String>,
}

/// Why tags cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry does not list them.
    #[error("cannot list the tags of `{repository}`")]
    List {
        /// The repository.
        repository: String,
        /// Why.
        #[source]
        source: registry::Error,
    },
    /// The place has no tags.
    #[error("`{0}` has no tags to list: name a repository as docker://REPOSITORY, or an archive or layout")]
    NoTags(String),
    /// The place cannot be used.
    #[error(transparent)]
    Transport(#[from] transport::Error),
}

/// List tags.
///
/// # Errors
/// See [`Error`].
pub fn tags(
    cx: &Context,
    place: &Location,
    remote: &RemoteOptions,
    report: &dyn Reporter,
) -> Result<Tags, Error> {
    match place {
        Location::Registry(reference) => {
            let repository = name_of(reference);
            let failed = |source| Error::List { repository: repository.clone(), source };
            let client =
                Client::new(&remote.settings(cx), reference, Action::Pull, report).map_err(failed)?;
            let tags = client.tags().map_err(failed)?;
            Ok(Tags { repository: Some(repository), tags })
        }
        Location::DockerArchive { .. } | Location::OciArchive { .. } | Location::OciDir { .. } => {
            Ok(Tags { repository: None, tags: transport::labels(cx, place)? })
        }
        Location::Store(_) | Location::Dir(_) => Err(Error::NoTags(place.to_string())),
    }
}

/// Registry and repository.
#[must_use]
pub fn name_of(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}
