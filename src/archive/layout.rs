//! The tables of OCI layouts (image-spec `image-layout.md`), as other tools write them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::reader::{At, ImageEntry};
use super::{CONTAINERD_NAME, Error, REF_NAME};
use crate::oci::{Descriptor, Digest, Platform, Reference, descriptor};

/// What is read of `index.json`: some tools leave out what the specification asks for.
#[derive(Deserialize)]
struct Table {
    #[serde(default)]
    manifests: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

/// The images that `index.json` names.
pub(super) fn images(archive: &Path, bytes: &[u8]) -> Result<Vec<ImageEntry>, Error> {
    let json = |source| Error::Json { path: archive.join("index.json"), source };
    let table: Table = serde_json::from_slice(bytes).map_err(json)?;
    table.manifests.unwrap_or_default().into_iter().map(Entry::image).collect()
}

impl Entry {
    fn image(self) -> Result<ImageEntry, Error> {
        let digest: Digest = self.digest.parse()?;
        let target: Descriptor = descriptor(&self.media_type, &digest, self.size);
        let annotations = self.annotations.unwrap_or_default();
        let full = annotations.get(CONTAINERD_NAME).filter(|text| !text.is_empty());
        let short = annotations.get(REF_NAME).filter(|text| !text.is_empty());
        // A word alone is a tag, by the specification's own example, and no name of an image.
        let name = |text: &String| text.contains(['/', ':']).then(|| Reference::parse(text).ok()).flatten();
        let names = match (full, short) {
            (Some(full), _) => Reference::parse(full).ok(),
            (None, Some(short)) => name(short),
            (None, None) => None,
        };
        Ok(ImageEntry {
            names: names.into_iter().filter(|name| name.tag().is_some()).collect(),
            labels: full.into_iter().chain(short).cloned().collect(),
            platform: self.platform.map(|p| Platform::new(&p.os, &p.architecture, p.variant.as_deref())),
            at: At::Target(Box::new(target)),
        })
    }
}
