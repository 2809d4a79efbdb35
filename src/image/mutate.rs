//! Pure edits: an image and a change give a new config and manifest.

use std::collections::BTreeMap;

use oci_spec::image::ImageManifestBuilder;

use super::BoxError;
use crate::oci::{
    Descriptor, DiffId, History, ImageConfig, ImageId, Manifest, RawManifest, descriptor, media_type,
};

/// A layer that was just made.
#[derive(Debug, Clone)]
pub struct NewLayer {
    /// The compressed blob.
    pub descriptor: Descriptor,
    /// The digest of its tar.
    pub diff_id: DiffId,
}

/// An edit of an image: what the next config and manifest hold beyond the base's.
#[derive(Debug, Clone)]
pub struct Edit {
    /// The config to start from, already changed as wanted except for layers and history.
    pub config: ImageConfig,
    /// The base's layers, lowest first (their diff ids are in `config.rootfs`).
    pub base_layers: Vec<Descriptor>,
    /// Layers to put on top.
    pub new_layers: Vec<NewLayer>,
    /// History entries to append.
    pub history: Vec<History>,
    /// Under docker's media types and not the OCI ones.
    pub docker_types: bool,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// Config and manifest of the edited image, ready to be published: config first.
///
/// # Errors
/// When a value cannot be serialised.
pub fn append(edit: Edit) -> Result<(ImageId, Vec<u8>, RawManifest), BoxError> {
    let Edit { mut config, base_layers, new_layers, history, docker_types, annotations } = edit;
    let mut layers: Vec<Descriptor> = base_layers.into_iter().map(to_oci_layer).collect();
    for layer in new_layers {
        config.rootfs.diff_ids.push(layer.diff_id);
        layers.push(layer.descriptor);
    }
    config.history.extend(history);
    if let Some(last) = config.history.last().and_then(|entry| entry.created.clone()) {
        config.created = Some(last);
    }
    let bytes = serde_json::to_vec(&config)?;
    let id = ImageId(crate::oci::Digest::sha256(&bytes));
    let manifest: Manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(media_type::OCI_MANIFEST)
        .config(descriptor(media_type::OCI_CONFIG, id.digest(), bytes.len() as u64))
        .layers(layers)
        .build()?;
    if annotations.is_empty() && !docker_types {
        return Ok((id, bytes, RawManifest::from_manifest(&manifest)?));
    }
    let mut document = serde_json::to_value(&manifest)?;
    if docker_types {
        document["mediaType"] = media_type::DOCKER_MANIFEST.into();
        document["config"]["mediaType"] = media_type::DOCKER_CONFIG.into();
        for layer in document["layers"].as_array_mut().into_iter().flatten() {
            layer["mediaType"] = docker_layer(layer["mediaType"].as_str().unwrap_or_default())?.into();
        }
    }
    if !annotations.is_empty() {
        // `oci_spec` keeps them in an order that changes from one process to the next, and with it the digest would.
        document["annotations"] = serde_json::to_value(annotations)?;
    }
    Ok((id, bytes, RawManifest::new(serde_json::to_vec_pretty(&document)?, None)?))
}

/// A docker layer descriptor under its OCI media type: the bytes are the same, and a manifest must not mix both.
fn to_oci_layer(layer: Descriptor) -> Descriptor {
    let Ok(digest) = crate::oci::digest_of(&layer) else { return layer };
    match layer.media_type().to_string().as_str() {
        media_type::DOCKER_LAYER_GZIP => descriptor(media_type::OCI_LAYER_GZIP, &digest, layer.size()),
        "application/vnd.docker.image.rootfs.diff.tar" => {
            descriptor(media_type::OCI_LAYER, &digest, layer.size())
        }
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            descriptor(media_type::OCI_LAYER_ZSTD, &digest, layer.size())
        }
        _ => layer,
    }
}

fn docker_layer(media_type: &str) -> Result<&'static str, BoxError> {
    match media_type {
        media_type::OCI_LAYER_GZIP => Ok(media_type::DOCKER_LAYER_GZIP),
        media_type::OCI_LAYER => Ok("application/vnd.docker.image.rootfs.diff.tar"),
        other => Err(format!("docker has no media type for a layer of type {other}").into()),
    }
}
