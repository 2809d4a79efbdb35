//! The one copy behind pull, push, save and load.

use super::{BoxError, Reporter, Sink, Source};
use crate::oci::{Descriptor, Digest, ImageId, Platform, Reference};

/// What to copy.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The name at the source.
    pub from: Reference,
    /// The name at the sink; `None` leaves the image unnamed there.
    pub to: Option<Reference>,
    /// The platform to choose from an index; `None` copies the index whole.
    pub platform: Option<Platform>,
    /// How many layers move at once.
    pub jobs: usize,
}

/// What was copied.
#[derive(Debug, Clone)]
pub struct Copied {
    /// The manifest or index that the name at the source stood for.
    pub resolved: Descriptor,
    /// The manifest or index that the name at the sink now stands for.
    pub target: Descriptor,
    /// The digest of the config, when a single image was copied.
    pub id: Option<ImageId>,
    /// Layers that had to be moved.
    pub moved: Vec<Digest>,
    /// Layers that were there already.
    pub reused: Vec<Digest>,
}

/// Why a copy ended early. Nothing that was named before has changed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source failed.
    #[error("cannot read `{reference}`")]
    Source {
        /// What was read.
        reference: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The sink failed.
    #[error("cannot write `{reference}`")]
    Sink {
        /// What was written.
        reference: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// One layer failed.
    #[error("cannot copy layer {digest}")]
    Layer {
        /// The layer.
        digest: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The image contradicts itself.
    #[error("image `{reference}` is inconsistent: {what}")]
    Inconsistent {
        /// The image.
        reference: String,
        /// Which parts disagree.
        what: String,
    },
    /// No manifest fits the platform.
    #[error(transparent)]
    Platform(#[from] super::SelectError),
}

/// Copy one image: resolve, compare, move what lacks, then config, manifest and, last, the name.
///
/// # Errors
/// See [`CopyError`].
pub fn copy(
    _from: &dyn Source,
    _to: &dyn Sink,
    _what: &Selection,
    _report: &dyn Reporter,
) -> Result<Copied, CopyError> {
    todo!()
}
