//! An image in another form: manifests of the other kind, layers compressed in another way. The config, and so the
//! image's id, stays as it is; whatever of an image the other form cannot hold is an error or said.
//!
//! The result depends on the image and on what is asked for alone: the same image converts to the same digests again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::convert_layers::{Made, convert_layers};
use super::{
    BoxError, Event, Patience, Platforms, Reporter, Source, StreamFailure, is_container_image,
    select_platform,
};
use crate::layer::Compression;
use crate::oci::{
    Descriptor, Digest, DigestError, Index, Manifest, ManifestError, Parsed, RawManifest, Reference,
    digest_of, media_type,
};

/// A docker layer that is not compressed.
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// A docker layer with zstd: outside docker's specification, and yet to be found.
const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// The annotation by which BuildKit's attestations name their image.
const ATTESTED: &str = "vnd.docker.reference.digest";
/// Annotations of layers that describe their compressed bytes.
const OF_BYTES: [&str; 3] =
    ["io.github.containers.zstd-chunked.", "containerd.io/snapshot/stargz", "io.containers.estargz."];

/// A kind of manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OCI image-spec.
    Oci,
    /// Docker's image manifest version 2, schema 2.
    Docker,
}

/// Which layers are compressed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that are not compressed.
    Plain,
    /// Those that are not compressed in the wanted way.
    Other,
    /// Every layer.
    All,
}

/// How layers are to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recompression {
    /// The kind.
    pub to: Compression,
    /// Its level; see [`crate::layer::levels`].
    pub level: Option<i32>,
    /// Which layers.
    pub which: Which,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conversion {
    /// The kind of manifests; without it they stay as they are, where that is possible.
    pub format: Option<Format>,
    /// The compression of layers; without it they stay as they are.
    pub layers: Option<Recompression>,
}

/// Why an image cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A document could not be read.
    #[error("cannot read {digest}")]
    Read {
        /// The document.
        digest: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A layer could not be converted.
    #[error("cannot convert layer {digest}")]
    Layer {
        /// The layer.
        digest: Digest,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A document is unusable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A descriptor names an unusable digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// Docker has no zstd.
    #[error("layer {0} is compressed with zstd, for which docker's schema 2 has no media type")]
    NoZstd(Digest),
    /// Docker has no such thing.
    #[error("{digest} {what}, which docker's schema 2 cannot express")]
    NotInDocker {
        /// The manifest.
        digest: Digest,
        /// What it has or is.
        what: String,
    },
    /// A layer of an unknown kind.
    #[error("layer {digest} is of the type `{media_type}`, which is not known to be a layer's")]
    UnknownLayer {
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// The image has not the platform.
    #[error(transparent)]
    Platform(#[from] super::SelectError),
    /// An index cannot be converted without what it names.
    #[error("index {0} cannot be converted without the images that it names")]
    IndexAlone(Digest),
    /// An index in an index.
    #[error("index {0} names another index")]
    Nested(Digest),
}

impl ConvertError {
    /// What the user can do.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::NoZstd(_) => vec![
                "compress with gzip too: --compression-format gzip".into(),
                "or keep the OCI form: --format oci".into(),
            ],
            Self::NotInDocker { .. } => vec!["--format oci keeps it".into()],
            _ => Vec::new(),
        }
    }
}

/// What a conversion works with.
pub struct Workshop<'a> {
    /// Makes an empty file that goes away when it is closed.
    pub scratch: &'a (dyn Fn() -> io::Result<File> + Sync),
    /// How many layers are worked on at once.
    pub jobs: usize,
    /// Is told what is dropped.
    pub report: &'a dyn Reporter,
}

impl std::fmt::Debug for Workshop<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workshop").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}

/// What a conversion made; what stayed as it was is still at the source.
#[derive(Debug)]
pub struct Converted {
    /// The manifest or index of the result.
    pub target: Descriptor,
    documents: HashMap<Digest, RawManifest>,
    layers: HashMap<Digest, Arc<File>>,
}

/// Convert an image. `name` is what it was asked for by, for the policy; an image of an index is chosen by `platforms`
/// as [`copy`](super::copy()) would. Layers are converted through scratch files, in bounded memory.
///
/// # Errors
/// See [`ConvertError`].
pub fn convert(
    from: &dyn Source,
    name: Option<&Reference>,
    target: &Descriptor,
    platforms: &Platforms,
    wanted: &Conversion,
    workshop: &Workshop<'_>,
) -> Result<Converted, ConvertError> {
    let mut converter = Converter {
        from,
        wanted,
        workshop,
        documents: HashMap::new(),
        made: HashMap::new(),
        dropped_annotations: false,
    };
    let raw = converter.read(target)?;
    let admit = |documents: &[&RawManifest]| {
        let read = |source| ConvertError::Read { digest: raw.digest.to_string(), source };
        from.admit(name, documents).map_err(read)
    };
    let made = match raw.parse()? {
        Parsed::Manifest(manifest) => {
            admit(&[&raw])?;
            converter.image(&raw, &manifest)?
        }
        Parsed::Index(index) => match platforms {
            Platforms::Best(platform) | Platforms::Alone(platform) => {
                let child = converter.read(select_platform(&index, platform)?)?;
                admit(&[&raw, &child])?;
                let Parsed::Manifest(manifest) = child.parse()? else {
                    return Err(ConvertError::Nested(raw.digest));
                };
                converter.image(&child, &manifest)?
            }
            _ => {
                admit(&[&raw])?;
                converter.index(&raw, &index, platforms)?
            }
        },
    };
    if converter.dropped_annotations {
        workshop.report.event(Event::Note("docker's schema 2 has no annotations: they are left out".into()));
    }
    let layers = converter.made.into_values().filter_map(|made| Some((made.digest, made.file?))).collect();
    Ok(Converted { target: made.descriptor(), documents: converter.documents, layers })
}

struct Converter<'a> {
    from: &'a dyn Source,
    wanted: &'a Conversion,
    workshop: &'a Workshop<'a>,
    documents: HashMap<Digest, RawManifest>,
    /// By the digest that the layer had.
    made: HashMap<Digest, Made>,
    dropped_annotations: bool,
}

impl Converter<'_> {
    fn read(&self, descriptor: &Descriptor) -> Result<RawManifest, ConvertError> {
        let digest = descriptor.digest().to_string();
        self.from.manifest(descriptor).map_err(|source| ConvertError::Read { digest, source })
    }

    /// The form that a document gets: zstd makes docker's an OCI one, when nobody insists.
    fn format_for(&self, raw: &RawManifest) -> Format {
        let own = match raw.media_type.as_str() {
            media_type::DOCKER_MANIFEST | media_type::DOCKER_INDEX => Format::Docker,
            _ => Format::Oci,
        };
        let zstd = self.wanted.layers.is_some_and(|layers| layers.to == Compression::Zstd);
        self.wanted.format.unwrap_or(if zstd { Format::Oci } else { own })
    }

    /// One image: its layers, then its manifest.
    fn image(&mut self, raw: &RawManifest, manifest: &Manifest) -> Result<RawManifest, ConvertError> {
        let format = self.format_for(raw);
        if !is_container_image(manifest) {
            return self.artifact(raw, manifest, format);
        }
        let made = convert_layers(self.from, manifest, self.wanted.layers, self.workshop, &self.made)?;
        self.made.extend(made);
        let mut layers = Vec::with_capacity(manifest.layers().len());
        for layer in manifest.layers() {
            layers.push(self.layer(layer, format)?);
        }
        let own = self.format_for_bytes(raw);
        if format == own && layers.iter().all(Option::is_none) {
            return Ok(raw.clone());
        }
        let value: Value = document(raw)?;
        let value = match format {
            Format::Oci => oci_manifest(value, layers),
            Format::Docker => self.docker_manifest(raw, manifest, &value, layers)?,
        };
        self.keep(&value)
    }

    fn format_for_bytes(&self, raw: &RawManifest) -> Format {
        if raw.media_type == media_type::DOCKER_MANIFEST || raw.media_type == media_type::DOCKER_INDEX {
            Format::Docker
        } else {
            Format::Oci
        }
    }

    /// An artifact has nothing to convert; docker's form has no place for it.
    fn artifact(
        &self,
        raw: &RawManifest,
        manifest: &Manifest,
        format: Format,
    ) -> Result<RawManifest, ConvertError> {
        if self.wanted.format == Some(Format::Docker) && format == Format::Docker {
            let kind = manifest
                .artifact_type()
                .as_ref()
                .map_or_else(|| manifest.config().media_type().to_string(), ToString::to_string);
            let what = format!("is no container image but `{kind}`");
            return Err(ConvertError::NotInDocker { digest: raw.digest.clone(), what });
        }
        Ok(raw.clone())
    }

    /// The descriptor that a layer gets; `None` when it keeps its own.
    fn layer(&self, layer: &Descriptor, format: Format) -> Result<Option<Value>, ConvertError> {
        let digest = digest_of(layer)?;
        let own = layer.media_type().to_string();
        let made = self.made.get(&digest);
        if media_type::is_foreign_layer(&own) {
            return match format {
                Format::Oci if own.contains("docker") => {
                    Err(ConvertError::UnknownLayer { digest, media_type: own })
                }
                Format::Docker if !own.contains("docker") => Err(ConvertError::NotInDocker {
                    digest,
                    what: "is a layer that is not to be distributed".into(),
                }),
                _ => Ok(None),
            };
        }
        let kind = match (made, compression_of(&own)) {
            (Some(made), _) => made.kind,
            (None, Some(kind)) => kind,
            (None, None) => return Err(ConvertError::UnknownLayer { digest, media_type: own }),
        };
        let wanted = match (format, kind) {
            (Format::Oci, Compression::None) => media_type::OCI_LAYER,
            (Format::Oci, Compression::Gzip) => media_type::OCI_LAYER_GZIP,
            (Format::Oci, Compression::Zstd) => media_type::OCI_LAYER_ZSTD,
            (Format::Docker, Compression::None) => DOCKER_LAYER,
            (Format::Docker, Compression::Gzip) => media_type::DOCKER_LAYER_GZIP,
            (Format::Docker, Compression::Zstd) => return Err(ConvertError::NoZstd(digest)),
        };
        let changed = made.filter(|made| made.digest != digest);
        if changed.is_none() && wanted == own {
            return Ok(None);
        }
        let (name, size) = changed.map_or((digest, layer.size()), |made| (made.digest.clone(), made.size));
        let mut value = json!({ "mediaType": wanted, "digest": name.as_str(), "size": size });
        if let Some(annotations) = layer.annotations().as_ref().filter(|_| format == Format::Oci) {
            let of_bytes =
                |key: &str| changed.is_some() && OF_BYTES.iter().any(|start| key.starts_with(start));
            let kept: std::collections::BTreeMap<_, _> =
                annotations.iter().filter(|(key, _)| !of_bytes(key)).collect();
            if !kept.is_empty() {
                value["annotations"] = json!(kept);
            }
        }
        Ok(Some(value))
    }

    /// Schema 2 has just these members.
    fn docker_manifest(
        &mut self,
        raw: &RawManifest,
        manifest: &Manifest,
        value: &Value,
        layers: Vec<Option<Value>>,
    ) -> Result<Value, ConvertError> {
        let cannot = |what: &str| ConvertError::NotInDocker { digest: raw.digest.clone(), what: what.into() };
        if value.get("subject").is_some() {
            return Err(cannot("refers to another manifest (`subject`)"));
        }
        if value.get("artifactType").is_some() {
            return Err(cannot("has a type of its own (`artifactType`)"));
        }
        let annotated = |layer: &Descriptor| layer.annotations().as_ref().is_some_and(|all| !all.is_empty());
        self.dropped_annotations |=
            value.get("annotations").is_some() || manifest.layers().iter().any(annotated);
        let slim = |kind: &str, descriptor: &Descriptor| json!({ "mediaType": kind, "size": descriptor.size(), "digest": descriptor.digest().to_string() });
        let layers: Vec<Value> = layers
            .into_iter()
            .zip(manifest.layers())
            .map(|(new, old)| new.unwrap_or_else(|| slim(old.media_type().as_ref(), old)))
            .collect();
        Ok(json!({
            "schemaVersion": 2,
            "mediaType": media_type::DOCKER_MANIFEST,
            "config": slim(media_type::DOCKER_CONFIG, manifest.config()),
            "layers": layers,
        }))
    }

    /// The images of an index, then the index.
    fn index(
        &mut self,
        raw: &RawManifest,
        index: &Index,
        platforms: &Platforms,
    ) -> Result<RawManifest, ConvertError> {
        let chosen = self.chosen(raw, index, platforms)?;
        let format = self.format_for(raw);
        let mut renamed: HashMap<String, RawManifest> = HashMap::new();
        for (child, wanted) in index.manifests().iter().zip(&chosen) {
            if !wanted || attested(child).is_some() {
                continue;
            }
            let own = self.read(child)?;
            let Parsed::Manifest(manifest) = own.parse()? else {
                return Err(ConvertError::Nested(raw.digest.clone()));
            };
            let made = self.image(&own, &manifest)?;
            renamed.insert(own.digest.to_string(), made);
        }
        let same = renamed.iter().all(|(digest, made)| *digest == made.digest.as_str());
        if same && format == self.format_for_bytes(raw) {
            return Ok(raw.clone());
        }
        let mut value = document(raw)?;
        let entries = value.get_mut("manifests").and_then(Value::as_array_mut).map(std::mem::take);
        let mut kept = Vec::new();
        let mut attestations = 0;
        for (entry, child) in entries.unwrap_or_default().into_iter().zip(index.manifests()) {
            // What an attestation says is about the image as it was.
            let about = attested(child);
            let stale =
                about.is_some_and(|about| renamed.get(about).is_some_and(|m| m.digest.as_str() != about));
            if stale || (about.is_some() && format == Format::Docker) {
                attestations += 1;
                continue;
            }
            kept.push(self.entry(entry, renamed.get(&child.digest().to_string()), format));
        }
        if attestations > 0 {
            self.workshop.report.event(Event::Note(format!(
                "{attestations} attestations speak of the image before its conversion: they are left out"
            )));
        }
        self.index_document(value, kept, format)
    }

    /// Which images of an index are converted.
    fn chosen(
        &self,
        raw: &RawManifest,
        index: &Index,
        platforms: &Platforms,
    ) -> Result<Vec<bool>, ConvertError> {
        let all = index.manifests();
        Ok(match platforms {
            Platforms::IndexOnly => return Err(ConvertError::IndexAlone(raw.digest.clone())),
            Platforms::Only(wanted) => {
                let mut chosen = Vec::new();
                for platform in wanted {
                    chosen.push(select_platform(index, platform)?);
                }
                all.iter().map(|child| chosen.contains(&child)).collect()
            }
            Platforms::Present => {
                let has = |child: &Descriptor| {
                    let digest = child.digest().to_string();
                    self.from.has(child).map_err(|source| ConvertError::Read { digest, source })
                };
                all.iter().map(has).collect::<Result<_, _>>()?
            }
            Platforms::All | Platforms::Best(_) | Platforms::Alone(_) => vec![true; all.len()],
        })
    }

    /// An entry of an index, for what its manifest has become.
    fn entry(&mut self, mut entry: Value, made: Option<&RawManifest>, format: Format) -> Value {
        if let Some(made) = made {
            entry["mediaType"] = json!(made.media_type);
            entry["digest"] = json!(made.digest.as_str());
            entry["size"] = json!(made.bytes.len());
        }
        if format == Format::Docker
            && let Some(members) = entry.as_object_mut()
        {
            self.dropped_annotations |= members.contains_key("annotations");
            members.retain(|key, _| ["mediaType", "digest", "size", "platform"].contains(&key.as_str()));
        }
        entry
    }

    fn index_document(
        &mut self,
        value: Value,
        entries: Vec<Value>,
        format: Format,
    ) -> Result<RawManifest, ConvertError> {
        let value = match format {
            Format::Docker => {
                self.dropped_annotations |= value.get("annotations").is_some();
                json!({ "schemaVersion": 2, "mediaType": media_type::DOCKER_INDEX, "manifests": entries })
            }
            Format::Oci => {
                let mut value = headed(value, media_type::OCI_INDEX);
                value["manifests"] = Value::Array(entries);
                value
            }
        };
        self.keep(&value)
    }

    fn keep(&mut self, value: &Value) -> Result<RawManifest, ConvertError> {
        let raw = RawManifest::new(value.to_string().into_bytes(), None)?;
        self.documents.insert(raw.digest.clone(), raw.clone());
        Ok(raw)
    }
}

/// The image that an attestation is about.
fn attested(child: &Descriptor) -> Option<&str> {
    child.annotations().as_ref()?.get(ATTESTED).map(String::as_str)
}

fn document(raw: &RawManifest) -> Result<Value, ConvertError> {
    Ok(serde_json::from_slice(&raw.bytes).map_err(|source| ManifestError::Invalid {
        digest: raw.digest.clone(),
        media_type: raw.media_type.clone(),
        source,
    })?)
}

/// A document that begins by saying what it is; what else it says stays.
fn headed(value: Value, kind: &str) -> Value {
    let mut members = Map::new();
    members.insert("schemaVersion".into(), json!(2));
    members.insert("mediaType".into(), json!(kind));
    if let Value::Object(rest) = value {
        members.extend(rest.into_iter().filter(|(key, _)| key != "schemaVersion" && key != "mediaType"));
    }
    Value::Object(members)
}

fn oci_manifest(value: Value, layers: Vec<Option<Value>>) -> Value {
    let mut value = headed(value, media_type::OCI_MANIFEST);
    if value["config"]["mediaType"] == media_type::DOCKER_CONFIG {
        value["config"]["mediaType"] = json!(media_type::OCI_CONFIG);
    }
    if let Some(old) = value.get_mut("layers").and_then(Value::as_array_mut) {
        for (old, new) in old.iter_mut().zip(layers) {
            if let Some(new) = new {
                *old = new;
            }
        }
    }
    value
}

/// The compression that a layer's media type promises; `None` when the type is not known.
pub(super) fn compression_of(media_type: &str) -> Option<Compression> {
    match media_type {
        media_type::OCI_LAYER | DOCKER_LAYER => Some(Compression::None),
        media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Some(Compression::Gzip),
        media_type::OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD => Some(Compression::Zstd),
        _ => None,
    }
}

impl Converted {
    /// The converted image as a source: what was made, and from `from` what stayed as it was.
    #[must_use]
    pub fn source<'a>(&'a self, from: &'a dyn Source) -> impl Source + 'a {
        ConvertedSource { made: self, from }
    }
}

struct ConvertedSource<'a> {
    made: &'a Converted,
    from: &'a dyn Source,
}

impl Source for ConvertedSource<'_> {
    fn resolve(&self, _: &Reference) -> Result<Descriptor, BoxError> {
        Ok(self.made.target.clone())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, BoxError> {
        match self.made.documents.get(&digest_of(descriptor)?) {
            Some(raw) => Ok(raw.clone()),
            None => self.from.manifest(descriptor),
        }
    }

    fn admit(&self, _: Option<&Reference>, _: &[&RawManifest]) -> Result<(), BoxError> {
        Ok(()) // the policy was asked about the image as it was, before its conversion
    }

    fn raw_blob(
        &self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<(u64, Box<dyn Read + Send>), BoxError> {
        match self.made.layers.get(&digest_of(descriptor)?) {
            Some(file) => Ok((offset, Box::new(FileAt { file: file.clone(), at: offset }))),
            None => self.from.raw_blob(descriptor, offset),
        }
    }

    fn has(&self, descriptor: &Descriptor) -> Result<bool, BoxError> {
        if self.made.documents.contains_key(&digest_of(descriptor)?) {
            return Ok(true);
        }
        self.from.has(descriptor)
    }

    fn patience(&self) -> Patience {
        self.from.patience()
    }

    fn blob_failed(&self, descriptor: &Descriptor, how: StreamFailure) -> bool {
        self.from.blob_failed(descriptor, how)
    }
}

/// A file that several readers read at once.
struct FileAt {
    file: Arc<File>,
    at: u64,
}

impl Read for FileAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
