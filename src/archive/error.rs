//! What can go wrong with an archive.

use std::path::PathBuf;

use crate::image::BoxError;
use crate::oci::{DigestError, ManifestError};

/// What can go wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image could not be read from where it lives.
    #[error("cannot read {what} of the image")]
    Source {
        /// Which part.
        what: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A manifest is unusable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A digest is unusable.
    #[error("a descriptor names an unusable digest")]
    Digest(#[from] DigestError),
    /// The archive could not be written.
    #[error("cannot write `{path}` to the archive")]
    Write {
        /// Which file in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A table of contents could not be written as JSON or read back.
    #[error("`{path}` does not hold the expected JSON")]
    Json {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
}
