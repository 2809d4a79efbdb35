//! The one copy behind pull, push, save and load: the documents of an image. Its layers are `copy_layers.rs`.

use std::io::Read;

use super::copy_layers::{copy_layers, unwrap};
use super::{BoxError, Event, LayerPlace, LayerPlan, Reporter, Sink, Source, StreamFailure, select_platform};
use crate::layer::VerifiedReader;
use crate::oci::{
    Descriptor, Digest, ImageConfig, ImageId, Index, Manifest, Parsed, Platform, RawManifest, Reference,
    chain_ids, digest_of, media_type,
};

/// What to copy.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The image at the source.
    pub from: What,
    /// The name at the sink; `None` leaves the image unnamed there.
    pub to: Option<Reference>,
    /// What to take of an index.
    pub platforms: Platforms,
    /// How many layers move at once.
    pub jobs: usize,
}

/// Which image a copy starts from.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one value a copy")]
pub enum What {
    /// A name, which the source resolves.
    Name(Reference),
    /// A manifest or index that the caller found at the source already.
    Found {
        /// How messages call it.
        label: String,
        /// Its descriptor.
        target: Descriptor,
    },
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Found { label, .. } => f.write_str(label),
        }
    }
}

/// What a copy takes of an index. A single image is taken whatever its platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platforms {
    /// The one image that fits best; the name then stands for its manifest.
    Best(Platform),
    /// The same image alone: the index it was chosen from is not kept beside it.
    Alone(Platform),
    /// The index, with every image in it.
    All,
    /// The index, with the images that fit one of these; the others are named in it but not copied.
    Only(Vec<Platform>),
    /// The index, with those of its images that the source has ([`Source::has`]).
    Present,
    /// The index alone: everything that it names is at the sink already, or is not wanted there.
    IndexOnly,
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
    /// The sink cannot take the layers in. Nothing was moved.
    #[error("cannot take in the layers")]
    Room {
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The config could not be read.
    #[error("cannot read image config {digest}")]
    Config {
        /// The config.
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

/// The annotation of a named descriptor that holds the digest of the index its manifest was chosen from.
pub const INDEX_DIGEST_ANNOTATION: &str = "io.strate.index.digest";

/// The largest config that is read, in bytes (the limit of containers/image).
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// The most layers an image may have. Overlay stacks at most 500.
const MAX_LAYERS: usize = 1024;
/// The most manifests of an index that are copied whole.
const MAX_MANIFESTS: usize = 1024;
/// How often a small blob is asked for when its stream breaks.
const SMALL_TRIES: u32 = 3;

/// Copy one image: resolve, compare, move what lacks, then config, manifest and, last, the name.
///
/// With a platform, one image of an index is copied; the name then stands for its manifest, and the descriptor says
/// in [`INDEX_DIGEST_ANNOTATION`] which index it came from. Without one, every image of the index is copied.
///
/// # Errors
/// See [`CopyError`].
pub fn copy(
    from: &dyn Source,
    to: &dyn Sink,
    what: &Selection,
    report: &dyn Reporter,
) -> Result<Copied, CopyError> {
    let copier = Copier { from, to, what, report, name: what.from.to_string() };
    let resolved = match &what.from {
        What::Name(name) => from.resolve(name).map_err(|source| copier.source_error(source))?,
        What::Found { target, .. } => target.clone(),
    };
    let root = copier.manifest(&resolved)?;
    let mut copied = match copier.parse(&root)? {
        Parsed::Manifest(manifest) => {
            copier.admit(&[&root])?;
            copier.image(&root, &manifest)?
        }
        Parsed::Index(index) => copier.index(&root, &index)?,
    };
    copied.resolved = root.descriptor();
    if let Some(name) = &what.to {
        to.set_name(name, &copied.target).map_err(|source| copier.sink_error(source))?;
    }
    Ok(copied)
}

/// One copy under way.
struct Copier<'a> {
    from: &'a dyn Source,
    to: &'a dyn Sink,
    what: &'a Selection,
    report: &'a dyn Reporter,
    name: String,
}

impl Copier<'_> {
    /// One image: layers in parallel, config, manifest.
    fn image(&self, raw: &RawManifest, manifest: &Manifest) -> Result<Copied, CopyError> {
        let config_bytes = self.config(manifest)?;
        let plans = if is_container_image(manifest) {
            let config = self.parse_config(manifest, &config_bytes)?;
            self.warn_of_platform(&config);
            self.plans(manifest, &config)?
        } else {
            self.artifact_plans(manifest)?
        };
        let layers = copy_layers(self.from, self.to, &plans, self.what.jobs, self.report)?;
        let descriptor = manifest.config();
        if !self.to.has_blob(descriptor).map_err(|source| self.sink_error(source))? {
            self.to.put_blob(descriptor, &config_bytes).map_err(|source| self.sink_error(source))?;
        }
        self.to.put_manifest(raw).map_err(|source| self.sink_error(source))?;
        Ok(Copied {
            resolved: raw.descriptor(),
            target: raw.descriptor(),
            id: Some(ImageId(self.digest(descriptor)?)),
            moved: layers.moved,
            reused: layers.reused,
        })
    }

    fn index(&self, raw: &RawManifest, index: &Index) -> Result<Copied, CopyError> {
        match &self.what.platforms {
            Platforms::Best(platform) => {
                let mut copied = self.chosen(raw, select_platform(index, platform)?)?;
                self.keep_index(raw, &mut copied)?;
                Ok(copied)
            }
            Platforms::Alone(platform) => self.chosen(raw, select_platform(index, platform)?),
            Platforms::All => self.images_of(raw, index, index.manifests().iter().collect()),
            Platforms::Present => {
                let mut present = Vec::new();
                for child in index.manifests() {
                    if self.from.has(child).map_err(|source| self.source_error(source))? {
                        present.push(child);
                    }
                }
                if present.is_empty() && !index.manifests().is_empty() {
                    return Err(self.inconsistent("none of the images that its index names is there"));
                }
                self.images_of(raw, index, present)
            }
            Platforms::Only(wanted) => {
                let mut chosen: Vec<&Descriptor> = Vec::new();
                for platform in wanted {
                    let child = select_platform(index, platform)?;
                    if !chosen.contains(&child) {
                        chosen.push(child);
                    }
                }
                self.images_of(raw, index, chosen)
            }
            Platforms::IndexOnly => self.images_of(raw, index, Vec::new()),
        }
    }

    /// The one image of an index that was asked for.
    fn chosen(&self, index: &RawManifest, child: &Descriptor) -> Result<Copied, CopyError> {
        let raw = self.manifest(child)?;
        let Parsed::Manifest(manifest) = self.parse(&raw)? else {
            return Err(self.inconsistent("its index names another index where an image should be"));
        };
        self.admit(&[index, &raw])?;
        let mut copied = self.image(&raw, &manifest)?;
        if child.platform().is_some() {
            copied.target.set_platform(child.platform().clone());
        }
        Ok(copied)
    }

    /// The index is kept beside the image chosen from it, so that its digest stays known.
    fn keep_index(&self, index: &RawManifest, copied: &mut Copied) -> Result<(), CopyError> {
        self.to.put_manifest(index).map_err(|source| self.sink_error(source))?;
        let annotation = (INDEX_DIGEST_ANNOTATION.to_owned(), index.digest.to_string());
        copied.target.set_annotations(Some([annotation].into_iter().collect()));
        Ok(())
    }

    /// Some images of an index, then the index as it is.
    fn images_of(
        &self,
        raw: &RawManifest,
        index: &Index,
        children: Vec<&Descriptor>,
    ) -> Result<Copied, CopyError> {
        if index.manifests().len() > MAX_MANIFESTS {
            return Err(self.inconsistent("its index names more than 1024 manifests"));
        }
        self.admit(&[raw])?;
        let (mut moved, mut reused) = (Vec::new(), Vec::new());
        for child in children {
            let child = self.manifest(child)?;
            let Parsed::Manifest(manifest) = self.parse(&child)? else {
                return Err(self.inconsistent("its index names another index"));
            };
            let copied = self.image(&child, &manifest)?;
            moved.extend(copied.moved);
            reused.extend(copied.reused);
        }
        self.to.put_manifest(raw).map_err(|source| self.sink_error(source))?;
        Ok(Copied { resolved: raw.descriptor(), target: raw.descriptor(), id: None, moved, reused })
    }

    /// A manifest or index: from the sink when it has it, else from the source.
    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, CopyError> {
        if let Some(bytes) = self.known(descriptor)?
            && let Ok(raw) = RawManifest::new(bytes, Some(descriptor.media_type().as_ref()))
        {
            return Ok(raw);
        }
        self.from.manifest(descriptor).map_err(|source| self.source_error(source))
    }

    fn config(&self, manifest: &Manifest) -> Result<Vec<u8>, CopyError> {
        let descriptor = manifest.config();
        if descriptor.size() > MAX_CONFIG_BYTES {
            return Err(self.inconsistent("its config is larger than 4 MiB"));
        }
        match self.known(descriptor)? {
            Some(bytes) => Ok(bytes),
            None => self.fetch_small(descriptor),
        }
    }

    /// Ask the source's policy before anything is written.
    fn admit(&self, documents: &[&RawManifest]) -> Result<(), CopyError> {
        let name = match &self.what.from {
            What::Name(name) => Some(name.clone()),
            What::Found { label, .. } => Reference::parse(label).ok(),
        };
        self.from.admit(name.as_ref(), documents).map_err(|source| self.source_error(source))
    }

    /// What the sink has under a descriptor, when the bytes are right.
    fn known(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, CopyError> {
        let expected = self.digest(descriptor)?;
        let bytes = self.to.small_blob(descriptor).map_err(|source| self.sink_error(source))?;
        Ok(bytes.filter(|bytes| {
            let mut hasher = expected.hasher();
            hasher.update(bytes);
            bytes.len() as u64 == descriptor.size() && hasher.finish() == expected
        }))
    }

    fn fetch_small(&self, descriptor: &Descriptor) -> Result<Vec<u8>, CopyError> {
        let digest = self.digest(descriptor)?;
        let mut tries = 0;
        loop {
            let (_, stream) =
                self.from.raw_blob(descriptor, 0).map_err(|source| self.source_error(source))?;
            let mut bytes = Vec::new();
            match VerifiedReader::new(stream, digest.clone(), descriptor.size()).read_to_end(&mut bytes) {
                Ok(_) => return Ok(bytes),
                Err(error) => {
                    tries += 1;
                    let wrong = error.kind() == std::io::ErrorKind::InvalidData;
                    let how = if wrong { StreamFailure::Wrong } else { StreamFailure::Broken };
                    let elsewhere = self.from.blob_failed(descriptor, how);
                    if !elsewhere && (wrong || tries >= SMALL_TRIES) {
                        return Err(CopyError::Config { digest: digest.to_string(), source: unwrap(error) });
                    }
                }
            }
        }
    }

    fn parse(&self, raw: &RawManifest) -> Result<Parsed, CopyError> {
        raw.parse().map_err(|error| self.source_error(error.into()))
    }

    fn parse_config(&self, manifest: &Manifest, bytes: &[u8]) -> Result<ImageConfig, CopyError> {
        serde_json::from_slice(bytes).map_err(|source| CopyError::Config {
            digest: manifest.config().digest().to_string(),
            source: source.into(),
        })
    }

    /// The blobs of something that is no container image: moved, never unpacked.
    fn artifact_plans(&self, manifest: &Manifest) -> Result<Vec<LayerPlan>, CopyError> {
        if manifest.layers().len() > MAX_LAYERS {
            return Err(self.inconsistent("it has more than 1024 blobs"));
        }
        Ok(manifest
            .layers()
            .iter()
            .map(|descriptor| LayerPlan { descriptor: descriptor.clone(), place: None })
            .collect())
    }

    /// Pair the manifest's layers with the config's diff ids.
    fn plans(&self, manifest: &Manifest, config: &ImageConfig) -> Result<Vec<LayerPlan>, CopyError> {
        let (layers, diff_ids) = (manifest.layers(), &config.rootfs.diff_ids);
        if layers.len() != diff_ids.len() {
            return Err(self.inconsistent(&format!(
                "its manifest lists {} layers, its config {}",
                layers.len(),
                diff_ids.len()
            )));
        }
        if layers.len() > MAX_LAYERS {
            return Err(self.inconsistent(&format!("it has {} layers: more than 1024", layers.len())));
        }
        let chain = chain_ids(diff_ids);
        let mut plans = Vec::with_capacity(layers.len());
        for (i, descriptor) in layers.iter().enumerate() {
            self.digest(descriptor)?;
            let place = LayerPlace {
                diff_id: diff_ids[i].clone(),
                chain_id: chain[i].clone(),
                below: diff_ids[..i].to_vec(),
            };
            plans.push(LayerPlan { descriptor: descriptor.clone(), place: Some(place) });
        }
        Ok(plans)
    }

    /// A single image is taken at its word, but a platform that was asked for and not got is said.
    fn warn_of_platform(&self, config: &ImageConfig) {
        let (Platforms::Best(wanted) | Platforms::Alone(wanted)) = &self.what.platforms else { return };
        if config.os.is_empty() || config.architecture.is_empty() {
            return;
        }
        let found = Platform::new(&config.os, &config.architecture, config.variant.as_deref());
        if found.fit(wanted).is_none() {
            self.report.event(Event::Note(format!("`{}` is for {found} and not for {wanted}", self.name)));
        }
    }

    fn digest(&self, descriptor: &Descriptor) -> Result<Digest, CopyError> {
        digest_of(descriptor).map_err(|error| self.source_error(error.into()))
    }

    fn inconsistent(&self, what: &str) -> CopyError {
        CopyError::Inconsistent { reference: self.name.clone(), what: what.into() }
    }

    fn source_error(&self, source: BoxError) -> CopyError {
        CopyError::Source { reference: self.name.clone(), source }
    }

    fn sink_error(&self, source: BoxError) -> CopyError {
        let name = self.what.to.as_ref().map_or_else(|| self.name.clone(), ToString::to_string);
        CopyError::Sink { reference: name, source }
    }
}

/// Whether a manifest is a container image and not some other artifact (image-spec, manifest, `artifactType`).
/// BuildKit's attestations have an image's config, and documents where layers would be.
#[must_use]
pub fn is_container_image(manifest: &Manifest) -> bool {
    let config = manifest.config().media_type().to_string();
    let document = |layer: &Descriptor| {
        let kind = layer.media_type().to_string();
        kind.ends_with("+json") || kind.ends_with("/json")
    };
    [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&config.as_str())
        && !manifest.layers().iter().any(document)
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
