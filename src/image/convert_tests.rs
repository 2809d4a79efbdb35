use std::io::Write;
use std::sync::Mutex;

use super::*;
use crate::image::Silent;
use crate::layer::{LayerWriter, decompressor};
use crate::oci::Platform;

/// An image, or an index of images, in memory.
#[derive(Default)]
struct Memory {
    blobs: Mutex<HashMap<Digest, Vec<u8>>>,
}

impl Memory {
    fn put(&self, bytes: impl Into<Vec<u8>>) -> (Digest, usize) {
        let bytes = bytes.into();
        let (digest, size) = (Digest::sha256(&bytes), bytes.len());
        self.blobs.lock().unwrap().insert(digest.clone(), bytes);
        (digest, size)
    }

    fn part(&self, kind: &str, bytes: impl Into<Vec<u8>>) -> Value {
        let (digest, size) = self.put(bytes);
        json!({ "mediaType": kind, "digest": digest.as_str(), "size": size })
    }

    fn document(&self, value: &Value) -> Descriptor {
        let raw = RawManifest::new(value.to_string().into_bytes(), None).unwrap();
        self.put(raw.bytes.clone());
        raw.descriptor()
    }

    /// An image whose layers are compressed as said; `form` is `oci` or `docker`.
    fn image(&self, form: Format, kinds: &[Compression]) -> Value {
        let tars: Vec<Vec<u8>> = (0..kinds.len()).map(tar).collect();
        let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::sha256(tar).to_string()).collect();
        let config = json!({ "architecture": "amd64", "os": "linux", "config": { "Healthcheck": { "Test": ["NONE"] } },
            "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let layers: Vec<Value> = tars
            .iter()
            .zip(kinds)
            .map(|(tar, kind)| self.part(layer_type(form, *kind), packed(tar, *kind)))
            .collect();
        let (manifest, config_type) = match form {
            Format::Oci => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
            Format::Docker => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        };
        json!({ "schemaVersion": 2, "mediaType": manifest,
            "config": self.part(config_type, config.to_string()), "layers": layers })
    }
}

fn tar(n: usize) -> Vec<u8> {
    format!("layer {n}: {}", "some words again and again, ".repeat(500)).into_bytes()
}

fn packed(tar: &[u8], kind: Compression) -> Vec<u8> {
    let mut writer = LayerWriter::new(Vec::new(), kind, None, 1).unwrap();
    writer.write_all(tar).unwrap();
    writer.finish().unwrap()
}

fn layer_type(form: Format, kind: Compression) -> &'static str {
    match (form, kind) {
        (Format::Oci, Compression::None) => media_type::OCI_LAYER,
        (Format::Oci, Compression::Gzip) => media_type::OCI_LAYER_GZIP,
        (Format::Oci, Compression::Zstd) => media_type::OCI_LAYER_ZSTD,
        (Format::Docker, Compression::None) => DOCKER_LAYER,
        (Format::Docker, Compression::Gzip) => media_type::DOCKER_LAYER_GZIP,
        (Format::Docker, Compression::Zstd) => DOCKER_LAYER_ZSTD,
    }
}

impl Source for Memory {
    fn resolve(&self, _: &Reference) -> Result<Descriptor, BoxError> {
        Err("not by name".into())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, BoxError> {
        let bytes = self.blobs.lock().unwrap().get(&digest_of(descriptor)?).cloned().ok_or("no manifest")?;
        Ok(RawManifest::new(bytes, Some(descriptor.media_type().as_ref()))?)
    }

    fn admit(&self, _: Option<&Reference>, _: &[&RawManifest]) -> Result<(), BoxError> {
        Ok(())
    }

    fn raw_blob(&self, descriptor: &Descriptor, _: u64) -> Result<(u64, Box<dyn Read + Send>), BoxError> {
        let bytes = self.blobs.lock().unwrap().get(&digest_of(descriptor)?).cloned().ok_or("no blob")?;
        Ok((0, Box::new(io::Cursor::new(bytes))))
    }
}

fn scratch() -> io::Result<File> {
    tempfile::tempfile()
}

fn to(format: Option<Format>, layers: Option<(Compression, Which)>) -> Conversion {
    let layers = layers.map(|(to, which)| Recompression { to, level: None, which });
    Conversion { format, layers }
}

fn run(from: &Memory, target: &Descriptor, wanted: &Conversion) -> Result<Converted, ConvertError> {
    let workshop = Workshop { scratch: &scratch, jobs: 2, report: &Silent };
    convert(from, None, target, &Platforms::All, wanted, &workshop)
}

/// The manifest that came out, and the kinds of its layers, whose tars must be what they were.
fn result(from: &Memory, converted: &Converted) -> (Value, Vec<String>) {
    let source = converted.source(from);
    let raw = source.manifest(&converted.target).unwrap();
    let Parsed::Manifest(manifest) = raw.parse().unwrap() else { panic!("an index") };
    let mut kinds = Vec::new();
    for (n, layer) in manifest.layers().iter().enumerate() {
        let (_, stream) = source.raw_blob(layer, 0).unwrap();
        let mut bytes = Vec::new();
        let verified = crate::layer::VerifiedReader::new(stream, digest_of(layer).unwrap(), layer.size());
        decompressor(Box::new(verified)).unwrap().1.read_to_end(&mut bytes).unwrap();
        assert!(bytes == tar(n), "layer {n}");
        kinds.push(layer.media_type().to_string());
    }
    (serde_json::from_slice(&raw.bytes).unwrap(), kinds)
}

use Compression::{Gzip, None as Plain, Zstd};

#[test]
fn forms_change_and_the_config_does_not() {
    for (own, other) in [(Format::Oci, Format::Docker), (Format::Docker, Format::Oci)] {
        let memory = Memory::default();
        let image = memory.image(own, &[Gzip, Plain]);
        let target = memory.document(&image);
        let same = run(&memory, &target, &to(Some(own), None)).unwrap();
        assert_eq!(same.target.digest(), target.digest(), "nothing to convert: nothing changes");
        let converted = run(&memory, &target, &to(Some(other), None)).unwrap();
        let (manifest, kinds) = result(&memory, &converted);
        assert_eq!(kinds, [layer_type(other, Gzip), layer_type(other, Plain)]);
        assert_eq!(manifest["config"]["digest"], image["config"]["digest"]);
        assert_eq!(
            manifest["layers"][0]["digest"], image["layers"][0]["digest"],
            "no byte of a layer changes"
        );
        assert_eq!(manifest["mediaType"], converted.target.media_type().to_string());
    }
}

#[test]
fn layers_are_compressed_as_asked_and_to_the_same_digest_each_time() {
    for (wanted, which, expected) in [
        (Zstd, Which::Other, [Zstd, Zstd, Zstd]),
        (Gzip, Which::Other, [Gzip, Gzip, Gzip]),
        (Gzip, Which::Plain, [Gzip, Gzip, Zstd]),
        (Zstd, Which::Plain, [Gzip, Zstd, Zstd]),
        (Gzip, Which::All, [Gzip, Gzip, Gzip]),
    ] {
        let memory = Memory::default();
        let image = memory.image(Format::Oci, &[Gzip, Plain, Zstd]);
        let target = memory.document(&image);
        let wish = to(None, Some((wanted, which)));
        let converted = run(&memory, &target, &wish).unwrap();
        let (manifest, kinds) = result(&memory, &converted);
        assert_eq!(kinds, expected.map(|kind| layer_type(Format::Oci, kind)), "{wanted:?} {which:?}");
        let again = run(&memory, &target, &wish).unwrap();
        assert_eq!(again.target.digest(), converted.target.digest());
        if wanted == Gzip && which == Which::Other {
            assert_eq!(manifest["layers"][0]["digest"], image["layers"][0]["digest"], "gzip stays as it is");
        }
    }
}

#[test]
fn zstd_and_docker_do_not_go_together() {
    let memory = Memory::default();
    let docker = memory.document(&memory.image(Format::Docker, &[Gzip]));
    // Nobody insists on docker's form: it becomes an OCI one.
    let converted = run(&memory, &docker, &to(None, Some((Zstd, Which::Other)))).unwrap();
    let (manifest, kinds) = result(&memory, &converted);
    assert_eq!(
        (kinds[0].as_str(), &manifest["mediaType"]),
        (media_type::OCI_LAYER_ZSTD, &json!(media_type::OCI_MANIFEST))
    );
    let error = run(&memory, &docker, &to(Some(Format::Docker), Some((Zstd, Which::Other)))).unwrap_err();
    assert!(matches!(error, ConvertError::NoZstd(_)), "{error}");
    let zstd = memory.document(&memory.image(Format::Oci, &[Zstd]));
    let error = run(&memory, &zstd, &to(Some(Format::Docker), None)).unwrap_err();
    assert!(matches!(error, ConvertError::NoZstd(_)) && !error.hints().is_empty(), "{error}");
    let both = to(Some(Format::Docker), Some((Gzip, Which::Other)));
    assert_eq!(result(&memory, &run(&memory, &zstd, &both).unwrap()).1, [media_type::DOCKER_LAYER_GZIP]);
}

#[test]
fn what_docker_cannot_hold_is_an_error() {
    let memory = Memory::default();
    let subject = memory.part(media_type::OCI_MANIFEST, "x");
    for (member, value) in [("subject", subject), ("artifactType", json!("application/vnd.x"))] {
        let mut image = memory.image(Format::Oci, &[Gzip]);
        image[member] = value;
        let error = run(&memory, &memory.document(&image), &to(Some(Format::Docker), None)).unwrap_err();
        assert!(matches!(error, ConvertError::NotInDocker { .. }), "{error}");
    }
    let mut artifact = memory.image(Format::Oci, &[Gzip]);
    artifact["config"]["mediaType"] = json!("application/vnd.helm.config");
    let target = memory.document(&artifact);
    let error = run(&memory, &target, &to(Some(Format::Docker), None)).unwrap_err();
    assert!(matches!(error, ConvertError::NotInDocker { .. }), "{error}");
    let kept = run(&memory, &target, &to(None, Some((Zstd, Which::All)))).unwrap();
    assert_eq!(kept.target.digest(), target.digest());
}

#[test]
fn odd_types_are_looked_at_and_wrong_bytes_are_refused() {
    let memory = Memory::default();
    let mut image = memory.image(Format::Oci, &[Zstd]);
    image["layers"][0]["mediaType"] = json!("application/x-layer");
    let converted = run(&memory, &memory.document(&image), &to(None, Some((Gzip, Which::Other)))).unwrap();
    assert_eq!(result(&memory, &converted).1, [media_type::OCI_LAYER_GZIP]);
    // A layer that is not what the config says.
    let mut image = memory.image(Format::Oci, &[Gzip]);
    image["layers"][0] = memory.part(media_type::OCI_LAYER_GZIP, packed(b"another tar", Gzip));
    let error = run(&memory, &memory.document(&image), &to(None, Some((Zstd, Which::Other)))).unwrap_err();
    assert!(matches!(error, ConvertError::Layer { .. }), "{error}");
    // A blob that is not what the manifest says.
    let image = memory.image(Format::Oci, &[Gzip]);
    let digest: Digest = image["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    memory.blobs.lock().unwrap().get_mut(&digest).unwrap()[40] ^= 1;
    let error = run(&memory, &memory.document(&image), &to(None, Some((Zstd, Which::Other)))).unwrap_err();
    assert!(matches!(error, ConvertError::Layer { .. }), "{error}");
}

#[test]
fn an_index_is_converted_whole_and_stale_attestations_go() {
    let memory = Memory::default();
    let platform = |arch: &str| json!({ "architecture": arch, "os": "linux" });
    let entry = |image: &Value, rest: Value| {
        let target = memory.document(image);
        let mut entry = json!({ "mediaType": image["mediaType"], "digest": target.digest().to_string(), "size": target.size() });
        entry.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        entry
    };
    let (one, two) = (memory.image(Format::Oci, &[Gzip]), memory.image(Format::Oci, &[Gzip, Plain]));
    let attestation = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": memory.part(media_type::OCI_CONFIG, "{}"), "layers": [memory.part("application/vnd.in-toto+json", "{}")] });
    let about = memory.document(&one).digest().to_string();
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "annotations": { "a": "b" }, "manifests": [
        entry(&one, json!({ "platform": platform("amd64") })),
        entry(&two, json!({ "platform": platform("arm64") })),
        entry(&attestation, json!({ "platform": platform("unknown"), "annotations": { ATTESTED: about } })),
    ] });
    let target = memory.document(&index);
    let kept = run(&memory, &target, &to(None, Some((Gzip, Which::Plain)))).unwrap();
    let read = |made: &Converted| -> Value {
        serde_json::from_slice(&made.source(&memory).manifest(&made.target).unwrap().bytes).unwrap()
    };
    // The first image needed nothing, so what is said about it still holds.
    let value = read(&kept);
    assert_eq!(value["manifests"].as_array().unwrap().len(), 3);
    assert_eq!(
        (&value["manifests"][0], &value["annotations"]),
        (&index["manifests"][0], &index["annotations"])
    );
    assert_ne!(value["manifests"][1]["digest"], index["manifests"][1]["digest"]);
    let docker = run(&memory, &target, &to(Some(Format::Docker), None)).unwrap();
    let value = read(&docker);
    assert_eq!(value["mediaType"], media_type::DOCKER_INDEX);
    let entries = value["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| entry["mediaType"] == media_type::DOCKER_MANIFEST));
    assert_eq!(entries[1]["platform"], platform("arm64"));
    let workshop = Workshop { scratch: &scratch, jobs: 2, report: &Silent };
    let alone = Platforms::Alone("linux/arm64".parse::<Platform>().unwrap());
    let wish = to(Some(Format::Docker), None);
    let made = convert(&memory, None, &target, &alone, &wish, &workshop).unwrap();
    assert_eq!(made.target.digest().to_string(), entries[1]["digest"].as_str().unwrap());
}
