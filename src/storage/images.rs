//! Names: `index.json` holds one descriptor per name, with what listing needs as annotations.

use super::{Error, Store};
use crate::image::Edit;
use crate::oci::{Descriptor, Digest, ImageConfig, ImageId, Manifest, RawManifest, Reference};

/// One line of `index.json`: a name (or none) and the image it stands for, without opening any blob.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRecord {
    /// The name; `None` for an untagged image.
    pub name: Option<Reference>,
    /// What the name stands for: a manifest, or an index whose other platforms are not here.
    pub target: Descriptor,
    /// The digest the name was pulled or pushed by, when it is an index's.
    pub digest: Digest,
    /// The manifest of this machine's platform: `target` itself, or the one chosen from it.
    pub manifest: Digest,
    /// The config's digest.
    pub id: ImageId,
    /// The config's `created`, RFC 3339.
    pub created: Option<String>,
    /// Sum of the unpacked layers' sizes in bytes, as docker shows it.
    pub size: u64,
}

/// An image with its documents read and verified.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest as bytes.
    pub raw: RawManifest,
    /// The manifest.
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
    /// The config's digest.
    pub id: ImageId,
}

impl Store {
    /// Every name and every untagged image, newest first.
    ///
    /// # Errors
    /// When `index.json` cannot be read.
    pub fn images(&self) -> Result<Vec<ImageRecord>, Error> {
        todo!()
    }

    /// Find an image as a user names it: a name wins over an id prefix; `name@digest`, `sha256:<prefix>` and bare hex
    /// prefixes work.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] or [`Error::AmbiguousImage`].
    pub fn find_image(&self, text: &str) -> Result<ImageRecord, Error> {
        let _ = text;
        todo!()
    }

    /// Read and verify an image's documents.
    ///
    /// # Errors
    /// When a blob is missing or corrupt, or the documents contradict each other.
    pub fn image(&self, manifest: &Digest) -> Result<Image, Error> {
        let _ = manifest;
        todo!()
    }

    /// Publish an edited image: config, manifest, then the names (none: it stays reachable untagged). Names that stood
    /// for another image leave that one untagged, as docker does.
    ///
    /// # Errors
    /// When a step fails; names are then unchanged.
    pub fn publish_image(&self, edit: Edit, names: &[Reference]) -> Result<Image, Error> {
        let _ = (edit, names);
        todo!()
    }

    /// Give an image that is here another name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn tag(&self, image: &ImageRecord, name: &Reference) -> Result<(), Error> {
        let _ = (image, name);
        todo!()
    }
}
