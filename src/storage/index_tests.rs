//! Indexes and artifacts in the store.

use std::collections::BTreeMap;

use super::tests::{image, layer, open, scratch};
use super::*;
use crate::image::{Edit, NewLayer, Sink};
use crate::oci::{
    Descriptor, Digest, History, ImageConfig, Platform, RawManifest, Reference, descriptor, media_type,
};

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// An image of one layer for a platform.
fn image_of(store: &Store, named: Option<&str>, platform: &str, content: &str) -> Image {
    let one = layer(&[("f", content)]);
    super::tests::put(store, &one);
    let edit = Edit {
        config: ImageConfig::empty(&platform.parse().unwrap()),
        base_layers: Vec::new(),
        new_layers: vec![NewLayer { descriptor: one.plan.descriptor.clone(), diff_id: one.diff_id() }],
        history: vec![History { comment: Some(content.into()), ..History::default() }],
        docker_types: false,
        annotations: std::collections::BTreeMap::new(),
    };
    let names: Vec<Reference> = named.into_iter().map(name).collect();
    store.publish_image(edit, &names).unwrap()
}

/// An index of manifests with their platforms.
fn index(children: &[(&RawManifest, &str)]) -> RawManifest {
    let children: Vec<serde_json::Value> = children
        .iter()
        .map(|(raw, platform)| {
            let mut child = serde_json::to_value(raw.descriptor()).unwrap();
            let platform: Platform = platform.parse().unwrap();
            child["platform"] = serde_json::to_value(platform).unwrap();
            child
        })
        .collect();
    let text = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children
    });
    RawManifest::new(text.to_string().into_bytes(), None).unwrap()
}

fn publish(store: &Store, to: &str, raw: &RawManifest, replaces: Option<&Digest>) -> bool {
    let origins = BTreeMap::new();
    store.publish_index(&name(to), &NewIndex { raw, origins: &origins, replaces }).unwrap()
}

fn foreign() -> &'static str {
    if Platform::host().architecture == "riscv64" { "linux/arm64" } else { "linux/riscv64" }
}

fn host() -> String {
    Platform::host().to_string()
}

#[test]
fn an_index_shows_this_machines_image_or_itself() {
    let (_dir, store) = scratch();
    let own = image_of(&store, None, &host(), "own");
    let other = image_of(&store, None, foreign(), "other");
    let both = index(&[(&other.raw, foreign()), (&own.raw, &host())]);
    assert!(publish(&store, "both", &both, None));
    let found = store.find_image("both").unwrap();
    assert_eq!((found.kind, &found.id, &found.manifest), (Kind::Image, &own.id, &own.raw.digest));
    assert_eq!(store.image_for(&found, None).unwrap().id, own.id);
    assert_eq!(store.image_for(&found, Some(&foreign().parse().unwrap())).unwrap().id, other.id);

    let gone = descriptor(media_type::OCI_MANIFEST, &Digest::sha256("gone"), 7);
    let mut text: serde_json::Value =
        serde_json::from_slice(&index(&[(&other.raw, foreign())]).bytes).unwrap();
    let mut child = serde_json::to_value(&gone).unwrap();
    child["platform"] = serde_json::to_value(Platform::host()).unwrap();
    text["manifests"].as_array_mut().unwrap().push(child);
    let sparse = RawManifest::new(text.to_string().into_bytes(), None).unwrap();
    assert!(publish(&store, "sparse", &sparse, None));
    let found = store.find_image("sparse").unwrap();
    assert_eq!((found.kind, &found.id.0, &found.manifest), (Kind::Index, &sparse.digest, &sparse.digest));
    assert_eq!(store.find_image(sparse.digest.short()).unwrap().name, Some(name("sparse")));
    match store.image_for(&found, None) {
        Err(Error::NoPlatform { here, elsewhere, .. }) => {
            assert_eq!((here, elsewhere), (vec![foreign().to_owned()], vec![host()]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_index_is_replaced_only_by_who_knows_its_last_state() {
    let (_dir, store) = scratch();
    let own = image_of(&store, None, &host(), "own");
    let (one, two) = (index(&[]), index(&[(&own.raw, &host())]));
    assert!(publish(&store, "list", &one, None));
    assert!(!publish(&store, "list", &two, None), "the name is not free");
    assert!(!publish(&store, "list", &two, Some(&Digest::sha256("x"))), "another was faster");
    assert!(publish(&store, "list", &two, Some(&one.digest)));
    let names: Vec<_> = store.images().unwrap().into_iter().map(|record| record.name).collect();
    assert_eq!(names.iter().filter(|n| **n == Some(name("list"))).count(), 1);
    assert!(store.find_image(one.digest.as_str()).is_err(), "earlier states of a list are not kept");
}

#[test]
fn an_image_of_an_index_stays_when_its_name_goes_and_goes_with_the_index() {
    let (_dir, store) = scratch();
    let own = image_of(&store, Some("own"), &host(), "own");
    let other = image_of(&store, Some("other"), foreign(), "other");
    publish(&store, "list", &index(&[(&own.raw, &host()), (&other.raw, foreign())]), None);
    store.tag(&store.find_image("list").unwrap(), &name("also")).unwrap();
    for gone in ["own", "other"] {
        let untagged = Removed::Untagged(format!("{gone}:latest"));
        assert_eq!(store.remove_image(gone, false).unwrap(), [untagged]);
    }
    store.prune_images(false, &|_, _| true).unwrap();
    assert_eq!(store.images().unwrap().len(), 2);
    let found = store.find_image("list").unwrap();
    let other_platform = foreign().parse().unwrap();
    let layer = store.image_for(&found, Some(&other_platform)).unwrap().layers()[0].0.clone();
    let here = |layer: &Descriptor| {
        Store::has_blob(&store, &crate::oci::digest_of(layer).unwrap(), layer.size()).unwrap()
    };
    assert!(here(&layer));
    assert_eq!(store.remove_image("also", false).unwrap(), [Removed::Untagged("also:latest".into())]);
    let removed = store.remove_image("list", false).unwrap();
    assert_eq!(removed[1], Removed::Deleted(crate::oci::digest_of(&found.target).unwrap().to_string()));
    assert_eq!(removed.len(), 4, "both layers went: {removed:?}");
    assert!(!here(&layer));
}

#[test]
fn a_pin_on_a_manifest_does_not_hide_what_an_index_holds() {
    let (dir, store) = scratch();
    let other = image_of(&store, None, foreign(), "other");
    publish(&store, "list", &index(&[(&other.raw, foreign())]), None);
    store.remove_image(&other.id.to_string(), true).unwrap();
    drop(store);
    let (busy, collecting) = (open(&dir), open(&dir));
    busy.pin([&other.raw.digest]).unwrap();
    collecting.collect(Unlink::Now).unwrap();
    let found = collecting.find_image("list").unwrap();
    let again = collecting.image_for(&found, Some(&foreign().parse().unwrap())).unwrap();
    let (layer, _) = &again.layers()[0];
    assert!(collecting.open_blob(&crate::oci::digest_of(layer).unwrap()).is_ok());
}

#[test]
fn an_artifact_is_listed_and_never_run() {
    let (_dir, store) = scratch();
    image(&store, Some("image"), &[], "x");
    let config = store.put_bytes("application/vnd.oci.empty.v1+json", b"{}").unwrap();
    let blob = store.put_bytes("text/plain", b"hello").unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/x-note",
        "config": config, "layers": [blob],
        "annotations": {"org.opencontainers.image.created": "2024-05-06T07:08:09Z"}
    });
    let raw = RawManifest::new(manifest.to_string().into_bytes(), None).unwrap();
    store.put_manifest(&raw).unwrap();
    store.set_name(&name("note"), &raw.descriptor()).unwrap();
    let found = store.find_image("note").unwrap();
    assert_eq!((found.kind, &found.id.0, found.size), (Kind::Artifact, &raw.digest, 5));
    assert_eq!(found.created.as_deref(), Some("2024-05-06T07:08:09Z"));
    assert_eq!(store.images().unwrap().len(), 2);
    match store.image_for(&found, None) {
        Err(Error::NotAnImage { name, what }) => {
            assert_eq!((name.as_str(), what.as_str()), ("note:latest", "application/x-note"));
        }
        other => panic!("{other:?}"),
    }
    store.remove_image("note", false).unwrap();
    assert!(store.read_blob(&raw.digest).is_err());
}
