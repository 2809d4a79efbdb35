//! `inspect` of images: docker's document, with what podman's has beyond it.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use crate::image::IndexDraft;
use crate::oci::{ContainerConfig, Parsed, Platform, Reference};
use crate::storage::{Error, Image, ImageRecord, Kind, Store};

/// Everything about an image, in docker's keys. Of an index it is the image for `platform` (without one: this machine's;
/// where that lacks, only what the index itself says).
///
/// # Errors
/// When the image is unknown or its documents cannot be read.
pub fn inspect_image(store: &Store, text: &str, platform: Option<&Platform>) -> Result<Value, Error> {
    let record = store.find_image(text)?;
    if record.kind == Kind::Image || platform.is_some() {
        let image = store.image_for(&record, platform)?;
        let same = store.same_image(&record)?;
        return with_members(store, &record, document(store, &record, &image, &same));
    }
    let mut same = store.images()?;
    same.retain(|other| other.target == record.target);
    with_members(store, &record, bare_document(store, &record, &same)?)
}

/// What there is to say of an index none of whose images is here, or of an artifact: docker's keys, as far as they mean
/// something.
fn bare_document(store: &Store, record: &ImageRecord, same: &[ImageRecord]) -> Result<Value, Error> {
    let (tags, digests) = names(same);
    let annotations = match store.document(record)? {
        Parsed::Index(index) => index.annotations().clone(),
        Parsed::Manifest(manifest) => manifest.annotations().clone(),
    };
    let mut all = json!({
        "Id": record.id.to_string(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": record.created,
        "Config": config_value(&ContainerConfig::default()),
        "Architecture": "",
        "Os": "",
        "Size": record.size,
        "VirtualSize": record.size,
        "RootFS": { "Type": "layers", "Layers": [] },
        "Descriptor": descriptor_value(record),
        "Digest": record.digest.to_string(),
        "Labels": {},
        "Annotations": sorted(annotations),
        "ManifestType": record.target.media_type().to_string(),
    });
    if record.kind == Kind::Artifact {
        all["ArtifactType"] = store.artifact_type(record).into();
    }
    Ok(all)
}

fn descriptor_value(record: &ImageRecord) -> Value {
    json!({
        "mediaType": record.target.media_type().to_string(),
        "digest": record.target.digest().to_string(),
        "size": record.target.size(),
    })
}

/// Add docker's list of what an index names, with what of it is here.
fn with_members(store: &Store, record: &ImageRecord, mut all: Value) -> Result<Value, Error> {
    if !record.is_index() {
        return Ok(all);
    }
    let index = IndexDraft::parse(&store.raw_document(record)?).map_err(|error| Error::Edit(error.into()))?;
    let members = index.members().iter().map(|child| {
        let kind = match child.attests() {
            Some(_) => "attestation",
            None if child.runs() => "image",
            None => "unknown",
        };
        let mut member = json!({
            "ID": child.digest.to_string(),
            "Descriptor": child,
            "Available": store.has_manifest(&child.descriptor()),
            "Kind": kind,
        });
        if let Some(platform) = child.platform.as_ref().filter(|_| kind == "image") {
            member["ImageData"] = json!({ "Platform": platform });
        }
        if let Some(image) = child.attests() {
            member["AttestationData"] = json!({ "For": image });
        }
        member
    });
    all["Manifests"] = members.collect();
    Ok(all)
}

/// Maps of `oci_spec` have no order; ours have.
fn sorted(map: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().collect()
}

fn document(store: &Store, record: &ImageRecord, image: &Image, same: &[ImageRecord]) -> Value {
    let config = &image.config;
    let (tags, digests) = names(same);
    let last = config.history.last();
    let size = store.layer_sizes(image).iter().sum::<u64>();
    let annotations = sorted(image.manifest.annotations().clone());
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
        "Size": size,
        "VirtualSize": size,
        "GraphDriver": { "Name": "overlay", "Data": graph_data(store, image) },
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
        "Metadata": { "LastTagTime": "0001-01-01T00:00:00Z" },
        "Descriptor": descriptor_value(record),
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
    if record.is_index() {
        all["ManifestDigest"] = image.raw.digest.to_string().into();
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
