//! Pure edits: an image and a change give a new config and manifest.

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
}

/// Config and manifest of the edited image, ready to be published: config first.
///
/// # Errors
/// When a value cannot be serialised.
pub fn append(edit: Edit) -> Result<(ImageId, Vec<u8>, RawManifest), BoxError> {
    let Edit { mut config, base_layers, new_layers, history } = edit;
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
    Ok((id, bytes, RawManifest::from_manifest(&manifest)?))
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
