//! Where an image comes from.

use std::io::Read;

use super::BoxError;
use crate::oci::{Descriptor, RawManifest, Reference};

/// A place that images can be read from: a registry, the store, an archive.
pub trait Source: Send + Sync {
    /// The descriptor (manifest or index) that a name stands for now.
    ///
    /// # Errors
    /// When the name is unknown or the place cannot be asked.
    fn resolve(&self, reference: &Reference) -> Result<Descriptor, BoxError>;

    /// The exact bytes of a manifest or index, verified against the descriptor's digest and size.
    ///
    /// # Errors
    /// When it is missing, corrupt or of an unknown type.
    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, BoxError>;

    /// The bytes of a blob from `offset` on, as they come: **not verified**, the sink does that.
    /// The offset actually served is returned beside the stream; it is 0 when the place cannot start in the middle.
    /// An error of the stream of kind `InvalidData` will not pass by itself.
    ///
    /// # Errors
    /// When the blob is missing or the place cannot be asked.
    fn raw_blob(&self, descriptor: &Descriptor, offset: u64)
    -> Result<(u64, Box<dyn Read + Send>), BoxError>;

    /// Learn that a blob's stream failed. Whether the next try is served by other means (another place, another kind of
    /// request) comes back: then it starts with a clean slate.
    fn blob_failed(&self, descriptor: &Descriptor, how: StreamFailure) -> bool {
        let _ = (descriptor, how);
        false
    }
}

/// How a blob's stream failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFailure {
    /// It broke off.
    Broken,
    /// Its bytes are not what the digest names.
    Wrong,
}
