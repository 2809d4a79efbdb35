//! `pull` of an image in a file or directory: `oci:`, `oci-archive:`, `docker-archive:` and `dir:`.

use super::transport::{parts, scratch};
use super::{pull, remote};
use crate::archive::{self, Reader};
use crate::context::Context;
use crate::image::{CopyError, Location, Platforms, Reporter, Selection, Sink, What, copy};
use crate::oci::{Platform, Reference};
use crate::storage;

/// Which image.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where it is.
    pub location: Location,
    /// The platform that was asked for; without one, this machine's.
    pub platform: Option<Platform>,
    /// Every image of an index that is there, and the index.
    pub all_platforms: bool,
}

/// What is here now.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The names that the file gives the image; it may have none.
    pub names: Vec<Reference>,
    /// The digest of the manifest or index.
    pub digest: String,
    /// The image id; of an index, its digest.
    pub id: String,
}

/// Why it failed. Names are as they were.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is unusable.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The image could not be brought over.
    #[error("cannot pull `{place}`")]
    Copy {
        /// Where it is.
        place: String,
        /// Why.
        #[source]
        source: CopyError,
    },
    /// It could not be named.
    #[error("cannot name an image `{name}`")]
    Name {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: crate::image::BoxError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// Bring one image of a file into the store, under the names that it has there.
///
/// # Errors
/// See [`Error`].
pub fn pull_file(cx: &Context, request: &Request, report: &dyn Reporter) -> Result<Taken, Error> {
    let store = super::store::write_plainly(cx)?;
    store.settle()?;
    let (path, format, name) = parts(&request.location);
    let reader = Reader::open(&cx.cwd.join(path), Some(format), &scratch(cx))?;
    let reader = reader.with_gate(remote::gate(cx, &request.location));
    let image = reader.find(name)?;
    let place = request.location.to_string();
    let selection = Selection {
        from: What::Found { label: place.clone(), target: reader.target(image)? },
        to: None,
        platforms: match request.all_platforms {
            true => Platforms::Present,
            false => Platforms::Best(request.platform.clone().unwrap_or_else(Platform::host)),
        },
        jobs: pull::JOBS,
    };
    let copied = copy(&reader, &store, &selection, report).map_err(|source| Error::Copy { place, source })?;
    for name in &image.names {
        let failed = |source| Error::Name { name: name.familiar(), source };
        store.set_name(name, &copied.target).map_err(failed)?;
    }
    if image.names.is_empty() {
        store.keep_untagged(&copied.target)?;
    }
    let digest = copied.resolved.digest().to_string();
    let id = copied.id.map_or_else(|| digest.clone(), |id| id.to_string());
    Ok(Taken { names: image.names.clone(), digest, id })
}
