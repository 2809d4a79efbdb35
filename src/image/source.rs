//! Where an image comes from.

use std::io::Read;
use std::time::Duration;

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

    /// Whether the user's policy (containers-policy.json(5)) lets an image in. [`copy`](super::copy()) asks before it
    /// writes anything of the image.
    ///
    /// `documents` leads from what the name stood for to what is copied: a manifest or index alone, or an index and
    /// the manifest chosen from it. A signature of any of them will do, as each names the next by digest. `name` is
    /// what the image was asked for by, where that is a reference.
    ///
    /// Every source says it itself, so that none forgets it: one that no policy speaks of returns `Ok`, one around
    /// another source asks that one.
    ///
    /// # Errors
    /// When the policy refuses the image, or cannot be read.
    fn admit(&self, name: Option<&Reference>, documents: &[&RawManifest]) -> Result<(), BoxError>;

    /// The bytes of a blob from `offset` on, as they come: **not verified**, the sink does that.
    /// The offset actually served is returned beside the stream; it is 0 when the place cannot start in the middle.
    /// An error of the stream of kind `InvalidData` will not pass by itself.
    ///
    /// # Errors
    /// When the blob is missing or the place cannot be asked.
    fn raw_blob(&self, descriptor: &Descriptor, offset: u64)
    -> Result<(u64, Box<dyn Read + Send>), BoxError>;

    /// Whether the place has a manifest or index at all. Of an image of which only some platforms were pulled or saved,
    /// the index names manifests that are not here. A place that cannot tell cheaply says yes.
    ///
    /// # Errors
    /// When the place cannot be asked.
    fn has(&self, descriptor: &Descriptor) -> Result<bool, BoxError> {
        let _ = descriptor;
        Ok(true)
    }

    /// How patient to be with blobs of this place.
    fn patience(&self) -> Patience {
        Patience::default()
    }

    /// Learn that a blob's stream failed. Whether the next try is served by other means (another place, another kind of
    /// request) comes back: then it starts with a clean slate.
    fn blob_failed(&self, descriptor: &Descriptor, how: StreamFailure) -> bool {
        let _ = (descriptor, how);
        false
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn resolve(&self, reference: &Reference) -> Result<Descriptor, BoxError> {
        (**self).resolve(reference)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, BoxError> {
        (**self).manifest(descriptor)
    }

    fn admit(&self, name: Option<&Reference>, documents: &[&RawManifest]) -> Result<(), BoxError> {
        (**self).admit(name, documents)
    }

    fn raw_blob(
        &self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<(u64, Box<dyn Read + Send>), BoxError> {
        (**self).raw_blob(descriptor, offset)
    }

    fn has(&self, descriptor: &Descriptor) -> Result<bool, BoxError> {
        (**self).has(descriptor)
    }

    fn blob_failed(&self, descriptor: &Descriptor, how: StreamFailure) -> bool {
        (**self).blob_failed(descriptor, how)
    }

    fn patience(&self) -> Patience {
        (**self).patience()
    }
}

/// How often, and after which pause, the stream of a blob is asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Tries that get no further, the first one included.
    pub tries: u32,
    /// The pause before each further try; without one, pauses grow.
    pub pause: Option<Duration>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { tries: 5, pause: None }
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
