//! Keeping an image from being collected while it is read: by a push, a save or a copy, which can take long.

use std::path::Path;

use super::{Abilities, Error, ImageRecord, Opening, Store};
use crate::oci::{Digest, ManifestError, Parsed, RawManifest, digest_of};

impl Store {
    /// Open for a verb that only reads, but for so long that a peer may remove what it reads: where the store can be
    /// written it is opened so, and [`Store::hold`] keeps an image. Where it cannot, nobody removes anything either, or
    /// somebody does whom we cannot tell. Nothing is made where there is no store.
    ///
    /// # Errors
    /// As [`Store::open`]; [`Error::Busy`].
    pub fn open_holding(root: &Path, abilities: Abilities, how: Opening) -> Result<Self, Error> {
        let store = Self::open_as(root, how.clone())?;
        if !store.layout.format().exists() {
            return Ok(store);
        }
        match Self::open_writable_as(root, abilities, how) {
            Err(Error::ReadOnly { .. } | Error::NotYours { .. } | Error::Feature { .. } | Error::Sys(_)) => {
                Ok(store)
            }
            other => other,
        }
    }

    /// Keep all that a record leads to and that is here, as long as this store is open.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] when it was removed meanwhile, or when its documents cannot be read.
    pub fn hold(&self, record: &ImageRecord) -> Result<(), Error> {
        let root = digest_of(&record.target).map_err(ManifestError::from)?;
        let mut parts = Vec::new();
        match self.parts_of(&root, &mut parts, 0) {
            Err(Error::MissingBlob(_)) if !self.images()?.contains(record) => {
                return Err(Error::NoSuchImage(record.label()));
            }
            other => other?,
        }
        if self.abilities.is_none() {
            return Ok(());
        }
        if let Err(error) = self.pin(&parts) {
            // Reading must go on where nothing can be written: on a full disk it is how one gets things off it.
            self.notice.say(&format!(
                "{} is not protected from being removed while it is read: {error}",
                record.label()
            ));
        }
        // A collector that was faster has taken the root with all the rest.
        if self.holds(&root) { Ok(()) } else { Err(Error::NoSuchImage(record.label())) }
    }

    /// The digests that a manifest leads to, or an index by way of those of its images that are here.
    fn parts_of(&self, digest: &Digest, parts: &mut Vec<Digest>, depth: u32) -> Result<(), Error> {
        parts.push(digest.clone());
        match RawManifest::new(self.read_blob(digest)?, None)?.parse()? {
            Parsed::Manifest(manifest) => {
                let named = manifest.layers().iter().chain([manifest.config()]);
                parts.extend(named.filter_map(|part| digest_of(part).ok()));
            }
            Parsed::Index(index) if depth == 0 => {
                for child in index.manifests().iter().filter_map(|child| digest_of(child).ok()) {
                    if self.holds(&child) {
                        self.parts_of(&child, parts, depth + 1)?;
                    }
                }
            }
            Parsed::Index(_) => {}
        }
        Ok(())
    }
}
