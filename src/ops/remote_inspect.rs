//! `inspect docker://…` and its like: an image where it is, without bringing it here. A registry is asked for
//! documents only; nothing is written anywhere.

use std::io::Read;

use serde_json::{Map, Value, json};

use super::remote::RemoteOptions;
use super::transport::{self, Input};
use crate::context::Context;
use crate::image::{BoxError, Location, Reporter, Source, select_platform};
use crate::layer::VerifiedReader;
use crate::oci::{
    Descriptor, Digest, ImageConfig, Index, Manifest, Parsed, Platform, RawManifest, digest_of,
};
use crate::registry::{self, Action, Client};

/// The largest config that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// What to look at.
#[derive(Debug, Clone)]
pub struct Request {
    /// The image.
    pub place: Location,
    /// The platform that was asked for; without one this machine's, else whatever there is.
    pub platform: Option<Platform>,
    /// List the repository's tags too.
    pub tags: bool,
    /// Registry options.
    pub remote: RemoteOptions,
}

/// Why an image cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place cannot be used.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// The config cannot be read.
    #[error("cannot read the config {digest} of `{place}`")]
    Config {
        /// The location.
        place: String,
        /// The config.
        digest: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// An index has no image at all, or none for the platform that was asked for.
    #[error("cannot choose an image of `{place}`")]
    Choose {
        /// The location.
        place: String,
        /// What there is.
        #[source]
        source: crate::image::SelectError,
    },
    /// Its index names another index where an image should be.
    #[error("`{0}` is an index of indexes: name one of them by its digest")]
    Nested(String),
    /// The tags cannot be listed.
    #[error("cannot list the tags of `{place}`")]
    Tags {
        /// The location.
        place: String,
        /// Why.
        #[source]
        source: registry::Error,
    },
}

/// The exact bytes of the manifest or index that the place names.
///
/// # Errors
/// When they cannot be read.
pub fn raw(cx: &Context, request: &Request, report: &dyn Reporter) -> Result<Vec<u8>, Error> {
    let input = Input::open(cx, &request.place, &request.remote, report)?;
    let mut raw = input.document()?;
    // A platform that was asked for picks a manifest out of an index.
    if let (Some(wanted), Parsed::Index(index)) = (&request.platform, input.parse(&raw)?) {
        let source = |source| Error::Choose { place: input.place.clone(), source };
        raw = input.manifest(select_platform(&index, wanted).map_err(source)?)?;
    }
    Ok(raw.bytes)
}

/// The exact bytes of the image's config.
///
/// # Errors
/// When they cannot be read.
pub fn config(cx: &Context, request: &Request, report: &dyn Reporter) -> Result<Vec<u8>, Error> {
    let input = Input::open(cx, &request.place, &request.remote, report)?;
    let raw = input.document()?;
    let (_, manifest) = image_of(&input, &raw, request.platform.as_ref())?;
    config_bytes(&input, &manifest)
}

/// The digest of the manifest or index that the place names: a HEAD request, at a registry.
///
/// # Errors
/// When it cannot be found out.
pub fn digest(cx: &Context, request: &Request, report: &dyn Reporter) -> Result<Digest, Error> {
    let input = Input::open(cx, &request.place, &request.remote, report)?;
    let target = match &request.platform {
        None => input.target.clone(),
        Some(_) => image_of(&input, &input.document()?, request.platform.as_ref())?.0,
    };
    Ok(digest_of(&target).map_err(|source| input.bad_digest(source))?)
}

/// What `skopeo inspect` says about an image, with the index's platforms beside it.
///
/// # Errors
/// When a document cannot be read.
pub fn inspect(cx: &Context, request: &Request, report: &dyn Reporter) -> Result<Value, Error> {
    let input = Input::open(cx, &request.place, &request.remote, report)?;
    let root = input.document()?;
    let parsed = input.parse(&root)?;
    let mut all = Map::new();
    if let Some(reference) = &input.reference {
        all.insert("Name".into(), format!("{}/{}", reference.registry(), reference.repository()).into());
    }
    all.insert("Digest".into(), root.digest.to_string().into());
    if request.tags
        && let Some(tags) = tags_of(cx, request, &input, report)?
    {
        all.insert("RepoTags".into(), tags.into());
    }
    let (chosen, manifest) = image_of(&input, &root, request.platform.as_ref())?;
    let config = config_of(&input, &manifest)?;
    describe(&mut all, &manifest, &config);
    all.insert("MediaType".into(), root.media_type.as_str().into());
    if let Some(kind) = manifest.artifact_type() {
        all.insert("ArtifactType".into(), kind.to_string().into());
    }
    if let Parsed::Index(index) = &parsed {
        all.insert("ManifestDigest".into(), chosen.digest().to_string().into());
        all.insert("Manifests".into(), platforms_of(index));
    }
    Ok(Value::Object(all))
}

fn tags_of(
    cx: &Context,
    request: &Request,
    input: &Input<'_>,
    report: &dyn Reporter,
) -> Result<Option<Vec<String>>, Error> {
    let Some(reference) = &input.reference else { return Ok(None) };
    let failed = |source| Error::Tags { place: input.place.clone(), source };
    let client =
        Client::new(&request.remote.settings(cx), reference, Action::Pull, report).map_err(failed)?;
    client.tags().map(Some).map_err(failed)
}

/// The one image of a place. Of an index: the platform's that was asked for; else this machine's; else the first.
fn image_of(
    input: &Input<'_>,
    root: &RawManifest,
    platform: Option<&Platform>,
) -> Result<(Descriptor, Manifest), Error> {
    let index = match input.parse(root)? {
        Parsed::Manifest(manifest) => return Ok((root.descriptor(), *manifest)),
        Parsed::Index(index) => index,
    };
    let host = Platform::host();
    let chosen = select_platform(&index, platform.unwrap_or(&host));
    let chosen = match (chosen, platform) {
        (Ok(chosen), _) => chosen,
        (Err(source), None) => {
            let first = index.manifests().iter().find(|child| !is_attestation(child));
            first.ok_or_else(|| Error::Choose { place: input.place.clone(), source })?
        }
        (Err(source), Some(_)) => return Err(Error::Choose { place: input.place.clone(), source }),
    };
    match input.parse(&input.manifest(chosen)?)? {
        Parsed::Manifest(manifest) => Ok((chosen.clone(), *manifest)),
        Parsed::Index(_) => Err(Error::Nested(input.place.clone())),
    }
}

fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.platform().as_ref().is_some_and(|platform| Platform::from(platform).os == "unknown")
}

fn config_bytes(input: &Input<'_>, manifest: &Manifest) -> Result<Vec<u8>, Error> {
    let descriptor = manifest.config();
    let failed = |source: BoxError| Error::Config {
        place: input.place.clone(),
        digest: descriptor.digest().to_string(),
        source,
    };
    if descriptor.size() > MAX_CONFIG_BYTES {
        return Err(failed("it is larger than 4 MiB".into()));
    }
    read_small(input.source.as_ref(), descriptor).map_err(failed)
}

fn read_small(source: &dyn Source, descriptor: &Descriptor) -> Result<Vec<u8>, BoxError> {
    let digest = digest_of(descriptor)?;
    let (_, stream) = source.raw_blob(descriptor, 0)?;
    let mut bytes = Vec::new();
    VerifiedReader::new(stream, digest, descriptor.size()).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The image's config; nothing for an artifact, whose config is anything.
fn config_of(input: &Input<'_>, manifest: &Manifest) -> Result<Option<ImageConfig>, Error> {
    if !crate::image::is_container_image(manifest) {
        return Ok(None);
    }
    let bytes = config_bytes(input, manifest)?;
    let parsed = serde_json::from_slice(&bytes).map_err(|source| Error::Config {
        place: input.place.clone(),
        digest: manifest.config().digest().to_string(),
        source: source.into(),
    })?;
    Ok(Some(parsed))
}

/// skopeo's fields about one image.
fn describe(all: &mut Map<String, Value>, manifest: &Manifest, config: &Option<ImageConfig>) {
    if let Some(config) = config {
        let docker_version = config.extra.get("docker_version").cloned().unwrap_or_else(|| "".into());
        let labels = &config.config.labels;
        all.insert("Created".into(), json!(config.created));
        all.insert("DockerVersion".into(), docker_version);
        all.insert("Labels".into(), if labels.is_empty() { Value::Null } else { json!(labels) });
        all.insert("Architecture".into(), config.architecture.as_str().into());
        if let Some(variant) = &config.variant {
            all.insert("Variant".into(), variant.as_str().into());
        }
        all.insert("Os".into(), config.os.as_str().into());
    }
    let digests: Vec<String> = manifest.layers().iter().map(|layer| layer.digest().to_string()).collect();
    let layers: Vec<Value> = manifest
        .layers()
        .iter()
        .map(|layer| {
            json!({
                "MIMEType": layer.media_type().to_string(),
                "Digest": layer.digest().to_string(),
                "Size": layer.size(),
                "Annotations": layer.annotations(),
            })
        })
        .collect();
    all.insert("Layers".into(), digests.into());
    all.insert("LayersData".into(), layers.into());
    if let Some(config) = config {
        let env = &config.config.env;
        all.insert("Env".into(), if env.is_empty() { Value::Null } else { json!(env) });
    }
    if let Some(annotations) = manifest.annotations() {
        all.insert("Annotations".into(), json!(annotations));
    }
}

/// The images of an index.
fn platforms_of(index: &Index) -> Value {
    let one = |child: &Descriptor| {
        let platform = child.platform().as_ref().map(|platform| Platform::from(platform).to_string());
        json!({
            "Platform": platform,
            "Digest": child.digest().to_string(),
            "MediaType": child.media_type().to_string(),
            "Size": child.size(),
        })
    };
    index.manifests().iter().map(one).collect()
}
