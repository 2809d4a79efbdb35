//! `inspect` of images: docker's document, with what podman's has beyond it.

use serde_json::{Map, Value, json};

use crate::oci::{ContainerConfig, Reference, media_type};
use crate::storage::{Error, Image, ImageRecord, Store};

/// Everything about an image, in docker's keys.
///
/// # Errors
/// When the image is unknown or its documents cannot be read.
pub fn inspect_image(store: &Store, text: &str) -> Result<Value, Error> {
    let record = store.find_image(text)?;
    let image = store.image(&record.manifest)?;
    let same: Vec<ImageRecord> = store.images()?.into_iter().filter(|r| r.id == record.id).collect();
    Ok(document(store, &record, &image, &same))
}

fn document(store: &Store, record: &ImageRecord, image: &Image, same: &[ImageRecord]) -> Value {
    let config = &image.config;
    let (tags, digests) = names(same);
    let last = config.history.last();
    let annotations = image.manifest.annotations().clone().unwrap_or_default();
    let mut all = json!({
        "Id": image.id.to_string(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": last.and_then(|entry| entry.comment.clone()).unwrap_or_default(),
        "Created": config.created,
        "DockerVersion": "",
        "Author": config.author.clone().unwrap_or_default(),
        "Config": config_value(&config.config),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": record.size,
        "VirtualSize": record.size,
        "GraphDriver": { "Name": "overlay", "Data": graph_data(store, image) },
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
        "Metadata": { "LastTagTime": "0001-01-01T00:00:00Z" },
        "Descriptor": {
            "mediaType": record.target.media_type().to_string(),
            "digest": record.target.digest().to_string(),
            "size": record.target.size(),
        },
        "Digest": record.digest.to_string(),
        "Labels": config.config.labels,
        "Annotations": annotations,
        "ManifestType": image.raw.media_type,
        "User": config.config.user,
        "History": config.history,
        "NamesHistory": [],
    });
    if let Some(variant) = &config.variant {
        all["Variant"] = variant.as_str().into();
    }
    if media_type::is_index(record.target.media_type().as_ref()) {
        all["ManifestDigest"] = record.manifest.to_string().into();
    }
    all
}

/// `RepoTags` and `RepoDigests`.
fn names(same: &[ImageRecord]) -> (Vec<String>, Vec<String>) {
    let (mut tags, mut digests) = (Vec::new(), Vec::new());
    for record in same {
        let Some(name) = &record.name else { continue };
        if name.digest().is_none() {
            tags.push(name.familiar());
        }
        let digest = Reference::with_digest(name, record.digest.clone()).familiar();
        if !digests.contains(&digest) {
            digests.push(digest);
        }
    }
    tags.sort();
    digests.sort();
    (tags, digests)
}

/// The config with the keys that scripts ask for always there.
fn config_value(config: &ContainerConfig) -> Value {
    let mut all = Map::new();
    let always = json!({
        "User": config.user,
        "ExposedPorts": config.exposed_ports,
        "Env": config.env,
        "Cmd": config.cmd,
        "Volumes": config.volumes,
        "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint,
        "OnBuild": config.on_build,
        "Labels": config.labels,
    });
    if let Value::Object(always) = always {
        all.extend(always);
    }
    if let Ok(Value::Object(said)) = serde_json::to_value(config) {
        for (key, value) in said {
            all.entry(key).or_insert(value);
        }
    }
    Value::Object(all)
}

/// Where the unpacked layers lie, topmost first, as far as they are unpacked.
fn graph_data(store: &Store, image: &Image) -> Value {
    let dirs = store.unpacked_layers(image);
    let dirs: Vec<String> = dirs.iter().rev().map(|dir| dir.display().to_string()).collect();
    match dirs.split_first() {
        None => Value::Null,
        Some((upper, [])) => json!({ "UpperDir": upper }),
        Some((upper, lower)) => json!({ "LowerDir": lower.join(":"), "UpperDir": upper }),
    }
}
