//! The tables of contents that are written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::{CONTAINERD_NAME, Error, Format, REF_NAME};
use crate::image::select_platform;
use crate::oci::{
    Descriptor, Digest, Index, Manifest, Parsed, Platform, RawManifest, Reference, digest_of, media_type,
};

/// The content of `oci-layout`.
pub(super) const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// What the tables will say.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// One for each name, or one for an image without: what the archive calls it, and what it is.
    names: Vec<(Option<String>, Descriptor)>,
    /// What docker's table needs of the documents.
    documents: BTreeMap<Digest, Document>,
}

#[derive(Debug)]
enum Document {
    /// Paths of the config and the layers.
    Image { config: String, layers: Vec<String> },
    /// The images of it, this machine's first.
    Index(Vec<Digest>),
    /// Nothing that docker could load.
    Other,
}

impl Contents {
    /// Call `target` by a name. A name stands for one image.
    pub(super) fn name(&mut self, label: Option<&str>, target: &Descriptor) {
        let label = label.map(str::to_owned);
        self.names
            .retain(|(old, before)| *old != label || (label.is_none() && before.digest() != target.digest()));
        self.names.push((label, target.clone()));
    }

    /// The image that a directory without names holds.
    pub(super) fn only(&self) -> Option<&Descriptor> {
        match self.names.as_slice() {
            [(_, first), rest @ ..] if rest.iter().all(|(_, t)| t.digest() == first.digest()) => Some(first),
            _ => None,
        }
    }

    /// Remember what docker's table needs of a manifest or index.
    pub(super) fn take(&mut self, raw: &RawManifest) -> Result<(), Error> {
        let document = match raw.parse()? {
            Parsed::Manifest(manifest) => image(&manifest)?,
            Parsed::Index(index) => in_order(&index),
        };
        self.documents.insert(raw.digest.clone(), document);
        Ok(())
    }

    /// `manifest.json` (moby `image/spec`, "Combined Image JSON + Filesystem Changeset Format").
    pub(super) fn docker_table(&self) -> Result<Vec<u8>, Error> {
        let mut images: Vec<(&Digest, Vec<String>)> = Vec::new();
        for (label, target) in &self.names {
            let Some(shown) = self.shown(&digest_of(target)?) else { continue };
            let tag = label.as_deref().and_then(|label| Reference::parse(label).ok());
            let tag = tag.filter(|name| name.tag().is_some()).map(|name| name.familiar());
            match images.iter_mut().find(|(digest, _)| *digest == shown) {
                Some((_, tags)) => tags.extend(tag),
                None => images.push((shown, tag.into_iter().collect())),
            }
        }
        let lines = images.iter().filter_map(|(digest, tags)| match &self.documents[*digest] {
            Document::Image { config, layers } => {
                Some(json!({ "Config": config, "RepoTags": tags, "Layers": layers }))
            }
            _ => None,
        });
        to_bytes("manifest.json", &Value::Array(lines.collect()))
    }

    /// The image that docker would show for a target.
    fn shown(&self, target: &Digest) -> Option<&Digest> {
        let (digest, document) = self.documents.get_key_value(target)?;
        match document {
            Document::Image { .. } => Some(digest),
            Document::Index(images) => images.iter().find_map(|image| {
                let (digest, document) = self.documents.get_key_value(image)?;
                matches!(document, Document::Image { .. }).then_some(digest)
            }),
            Document::Other => None,
        }
    }

    /// `index.json`, with what was in it before. Whatever else the old one said is kept.
    pub(super) fn index(
        &self,
        format: Format,
        before: Option<Vec<u8>>,
        path: &Path,
    ) -> Result<Vec<u8>, Error> {
        let old = before.map(|bytes| serde_json::from_slice::<Value>(&bytes)).transpose();
        let old = old.map_err(|source| Error::Json { path: path.to_owned(), source })?;
        let mut index = old.filter(Value::is_object).unwrap_or_else(
            || json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] }),
        );
        let kept = index["manifests"].as_array().cloned().unwrap_or_default();
        let new: Vec<Value> = self.names.iter().map(|(name, target)| entry(format, name, target)).collect();
        // A name that moves leaves its old place; an image listed without a name need not be listed so again.
        let kept = kept.into_iter().filter(|old| {
            let name = &old["annotations"][REF_NAME];
            !new.iter().any(|new| match name.is_string() {
                true => new["annotations"][REF_NAME] == *name,
                false => new["digest"] == old["digest"],
            })
        });
        index["manifests"] = kept.chain(new.iter().cloned()).collect();
        to_bytes("index.json", &index)
    }
}

fn image(manifest: &Manifest) -> Result<Document, Error> {
    let config = manifest.config();
    let kind = config.media_type().to_string();
    if ![media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&kind.as_str()) {
        return Ok(Document::Other);
    }
    let layers = manifest.layers().iter().map(|layer| Ok(blob_path(&digest_of(layer)?)));
    Ok(Document::Image {
        config: blob_path(&digest_of(config)?),
        layers: layers.collect::<Result<_, Error>>()?,
    })
}

fn in_order(index: &Index) -> Document {
    let host = select_platform(index, &Platform::host()).ok();
    let digests = host.into_iter().chain(index.manifests()).filter_map(|child| digest_of(child).ok());
    Document::Index(digests.collect())
}

/// Where a layout keeps a blob.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// The directories that a layout with these blobs has.
pub(super) fn directories(digests: &BTreeSet<Digest>) -> BTreeSet<String> {
    let mut algorithms: BTreeSet<String> = digests.iter().map(|d| d.algorithm().to_owned()).collect();
    algorithms.insert("sha256".into());
    algorithms
}

/// A descriptor of `index.json`. docker's readers take the full name from containerd's annotation and expect a tag in
/// the OCI one; readers of plain OCI layouts know only that, and find images by whatever it holds.
fn entry(format: Format, label: &Option<String>, target: &Descriptor) -> Value {
    let mut entry = json!({
        "mediaType": target.media_type().to_string(),
        "digest": target.digest().to_string(),
        "size": target.size(),
    });
    let Some(label) = label else { return entry };
    let name = Reference::parse(label).ok();
    entry["annotations"] = match (format, name) {
        (Format::DockerArchive, Some(name)) => json!({
            CONTAINERD_NAME: name.to_string(),
            REF_NAME: name.tag().unwrap_or_default(),
        }),
        _ => json!({ REF_NAME: label }),
    };
    entry
}

fn to_bytes(path: &str, value: &Value) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|source| Error::Json { path: path.into(), source })
}
