use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::*;
use crate::image::{Copied, Platforms, Selection, Silent, Sink, Source, What, copy};
use crate::oci::{Descriptor, Digest, Platform, RawManifest, Reference, descriptor, digest_of, media_type};

/// An OCI layout made by hand.
pub(super) struct Layout {
    pub(super) dir: tempfile::TempDir,
    entries: Vec<Value>,
}

impl Layout {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci-layout"), contents::LAYOUT).unwrap();
        Self { dir, entries: Vec::new() }
    }

    pub(super) fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = Digest::sha256(bytes);
        fs::write(self.dir.path().join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": kind, "digest": digest.as_str(), "size": bytes.len() })
    }

    pub(super) fn image(&self, architecture: &str, text: &str) -> Value {
        let tar = tar_of(&[("file", text.as_bytes())]);
        let diff_id = Digest::sha256(&tar);
        let mut gzip = crate::layer::gzip_writer(Vec::new(), 1);
        gzip.write_all(&tar).unwrap();
        let layer = self.blob(media_type::OCI_LAYER_GZIP, &gzip.finish().unwrap());
        let config = json!({
            "os": "linux", "architecture": architecture,
            "rootfs": { "type": "layers", "diff_ids": [diff_id.as_str()] },
        });
        let config = self.blob(media_type::OCI_CONFIG, config.to_string().as_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [layer],
        });
        self.blob(media_type::OCI_MANIFEST, manifest.to_string().as_bytes())
    }

    pub(super) fn index(&self, children: &[(&str, Value)]) -> Value {
        let children: Vec<Value> = children
            .iter()
            .map(|(architecture, child)| {
                let mut child = child.clone();
                child["platform"] = json!({ "os": "linux", "architecture": architecture });
                child
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children });
        self.blob(media_type::OCI_INDEX, index.to_string().as_bytes())
    }

    pub(super) fn name(&mut self, name: Option<&str>, mut target: Value) {
        if let Some(name) = name {
            target["annotations"] = json!({ REF_NAME: name });
        }
        self.entries.push(target);
        let index = json!({ "schemaVersion": 2, "manifests": self.entries });
        fs::write(self.dir.path().join("index.json"), index.to_string()).unwrap();
    }

    pub(super) fn open(&self) -> Reader {
        Reader::open(self.dir.path(), None, Path::new("/nowhere")).unwrap()
    }
}

pub(super) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // As it is: some of the names are not what a builder would let through.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(super) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn value_digest(value: &Value) -> Digest {
    value["digest"].as_str().unwrap().parse().unwrap()
}

pub(super) fn copy_to(
    reader: &Reader,
    writer: &dyn Sink,
    target: &Descriptor,
    platforms: Platforms,
) -> Result<Copied, crate::image::CopyError> {
    let from = What::Found { label: "x".into(), target: target.clone() };
    copy(reader, writer, &Selection { from, to: None, platforms, jobs: 2 }, &Silent)
}

/// Every blob that a target needs, as its digest and bytes.
fn everything(reader: &Reader, target: &Descriptor) -> BTreeMap<String, Vec<u8>> {
    let sink = scratch();
    let out = sink.path().join("all");
    let writer = Writer::create(&out, Format::OciDir).unwrap();
    copy_to(reader, &writer, target, Platforms::Present).unwrap();
    writer.finish().unwrap();
    let blobs = fs::read_dir(out.join("blobs/sha256")).unwrap();
    blobs
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn example() -> (Layout, Value) {
    let mut layout = Layout::new();
    let one = layout.image("amd64", "one");
    let two = layout.image("arm64", "two");
    let index = layout.index(&[("amd64", one), ("arm64", two)]);
    layout.name(Some("docker.io/library/multi:1"), index.clone());
    (layout, index)
}

#[test]
fn every_form_keeps_the_digests() {
    let (layout, index) = example();
    let reader = layout.open();
    let target = reader.target(reader.find(None).unwrap()).unwrap();
    assert_eq!(digest_of(&target).unwrap(), value_digest(&index));
    let before = everything(&reader, &target);
    assert_eq!(before.len(), 7);
    for format in [Format::OciDir, Format::OciArchive, Format::DockerArchive, Format::Dir] {
        for announced in [true, false] {
            let temp = scratch();
            let out = temp.path().join("out");
            let writer = Writer::create(&out, format).unwrap();
            let name = "docker.io/library/multi:1";
            if announced {
                let member = Member { names: vec![name.into()], target: target.clone() };
                writer.announce(&reader, &[member], &Platforms::All).unwrap();
            }
            copy_to(&reader, &writer, &target, Platforms::All).unwrap();
            if !announced {
                writer.name(Some(name), &target);
            }
            writer.finish().unwrap();
            assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "{format:?} leaves something");
            let form = (format == Format::Dir).then_some(Format::Dir);
            let again = Reader::open(&out, form, temp.path()).unwrap();
            let wanted = (format != Format::Dir).then_some("multi:1");
            let found = again.target(again.find(wanted).unwrap()).unwrap();
            assert_eq!(found.digest(), target.digest(), "{format:?}");
            assert!(everything(&again, &found) == before, "{format:?} {announced}");
        }
    }
}

#[test]
fn compressed_and_piped_archives_are_read_as_they_come() {
    let (layout, _) = example();
    let reader = layout.open();
    let target = reader.target(reader.find(None).unwrap()).unwrap();
    let before = everything(&reader, &target);
    for announced in [true, false] {
        let temp = scratch();
        let out = temp.path().join("x.tar");
        let writer = Writer::create(&out, Format::DockerArchive).unwrap();
        let member = Member { names: vec!["docker.io/library/multi:1".into()], target: target.clone() };
        if announced {
            writer.announce(&reader, &[member], &Platforms::All).unwrap();
        }
        copy_to(&reader, &writer, &target, Platforms::All).unwrap();
        writer.name(Some("docker.io/library/multi:1"), &target);
        writer.finish().unwrap();
        for program in ["cat", "gzip", "xz", "zstd", "bzip2"] {
            let Ok(packed) = Command::new(program).stdin(File::open(&out).unwrap()).output() else {
                continue;
            };
            assert!(packed.status.success());
            let input = Box::new(Cursor::new(packed.stdout.clone()));
            let again = Reader::open_stream(input, Path::new("pipe"), temp.path()).unwrap();
            let found = again.target(again.find(Some("multi:1")).unwrap()).unwrap();
            assert!(everything(&again, &found) == before, "{program}");
            again.finish().unwrap();
            let cut = packed.stdout[..packed.stdout.len() / 2 + 7].to_vec();
            let cut = Reader::open_stream(Box::new(Cursor::new(cut)), Path::new("pipe"), temp.path());
            let failed = cut.and_then(|reader| reader.finish().map(|()| reader));
            assert!(failed.is_err(), "{program}: a cut archive is an error");
        }
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}

/// An archive as docker wrote them before 25: links for layers that are shared.
fn old_archive(links: bool) -> (Vec<u8>, Digest) {
    let layer = tar_of(&[("etc/file", b"text")]);
    let config = json!({
        "os": "linux", "architecture": "amd64",
        "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(&layer).as_str()] },
        "container_config": { "Kept": "as it is" },
    })
    .to_string();
    let table = json!([
        { "Config": "abc.json", "RepoTags": ["app:1", "app:latest", "BAD NAME"], "Layers": ["one/layer.tar"] },
        { "Config": "abc.json", "RepoTags": null, "Layers": ["./one/layer.tar"] },
    ])
    .to_string();
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    add("abc.json", config.as_bytes());
    add(if links { "two.tar" } else { "one/layer.tar" }, &layer);
    add("manifest.json", table.as_bytes());
    if links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "one/layer.tar", "../two.tar").unwrap();
    }
    (tar.into_inner().unwrap(), Digest::sha256(&config))
}

#[test]
fn old_docker_archives_get_manifests_that_never_vary() {
    let temp = scratch();
    let mut digests = Vec::new();
    for links in [false, true] {
        let (bytes, id) = old_archive(links);
        let path = temp.path().join("old.tar");
        fs::write(&path, &bytes).unwrap();
        let reader = Reader::open(&path, Some(Format::DockerArchive), temp.path()).unwrap();
        assert_eq!(reader.images().len(), 2);
        let names: Vec<String> = reader.images()[0].names.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["app:1", "app:latest"]);
        assert_eq!(reader.images()[0].labels.len(), 3);
        let found = reader.target(reader.find(Some("app")).unwrap()).unwrap();
        assert_eq!(found, reader.target(reader.find(Some("@1")).unwrap()).unwrap());
        assert_eq!(found.media_type().to_string(), media_type::OCI_MANIFEST);
        let blobs = everything(&reader, &found);
        assert!(blobs.contains_key(id.hex()), "the config stays as it is");
        assert_eq!(blobs.len(), 3);
        digests.push(digest_of(&found).unwrap());
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn an_index_with_missing_images_is_taken_as_far_as_it_goes() {
    let mut layout = Layout::new();
    let one = layout.image("amd64", "one");
    let two = layout.image("arm64", "two");
    fs::remove_file(layout.dir.path().join("blobs/sha256").join(value_digest(&two).hex())).unwrap();
    let index = layout.index(&[("amd64", one), ("arm64", two)]);
    layout.name(None, index);
    let reader = layout.open();
    let target = reader.target(reader.find(None).unwrap()).unwrap();
    let out = scratch();
    let writer = Writer::create(&out.path().join("x"), Format::OciArchive).unwrap();
    copy_to(&reader, &writer, &target, Platforms::Present).unwrap();
    let failed = copy_to(&reader, &writer, &target, Platforms::All).unwrap_err();
    assert!(std::error::Error::source(&failed).unwrap().to_string().contains("lacks"), "{failed:?}");
    assert!(
        copy_to(&reader, &writer, &target, Platforms::Only(vec![Platform::new("linux", "arm64", None)]))
            .is_err()
    );
}

#[test]
fn images_are_found_by_any_of_their_names() {
    let mut layout = Layout::new();
    let one = layout.image("amd64", "one");
    let two = layout.image("arm64", "two");
    layout.name(Some("latest"), one.clone());
    layout.name(Some("localhost/app:1"), two.clone());
    let reader = layout.open();
    let digest = |name: &str| {
        let image = reader.find(Some(name)).unwrap();
        digest_of(&reader.target(image).unwrap()).unwrap()
    };
    assert_eq!(digest("latest"), value_digest(&one));
    assert_eq!(digest("@0"), value_digest(&one));
    assert_eq!(digest("localhost/app:1"), value_digest(&two));
    assert_eq!(digest("@1"), value_digest(&two));
    assert!(reader.images()[0].names.is_empty(), "a tag alone is no name");
    for name in ["@2", "@x", "other", "localhost/app"] {
        let error = reader.find(Some(name)).unwrap_err().to_string();
        assert!(error.contains("`latest`") && error.contains("`localhost/app:1`"), "{error}");
    }
    assert!(matches!(reader.find(None), Err(Error::SeveralImages { .. })));
}

#[test]
fn a_layout_keeps_its_other_images_and_unknown_fields() {
    let (layout, _) = example();
    let reader = layout.open();
    let target = reader.target(reader.find(None).unwrap()).unwrap();
    let out = scratch();
    let path = out.path().join("layout");
    for name in ["a:1", "b:1", "a:1"] {
        let writer = Writer::create(&path, Format::OciDir).unwrap();
        copy_to(&reader, &writer, &target, Platforms::All).unwrap();
        writer.name(Some(name), &target);
        writer.finish().unwrap();
        let mut index: Value = serde_json::from_slice(&fs::read(path.join("index.json")).unwrap()).unwrap();
        index["annotations"]["kept"] = "yes".into();
        fs::write(path.join("index.json"), index.to_string()).unwrap();
    }
    let index: Value = serde_json::from_slice(&fs::read(path.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["annotations"]["kept"], "yes");
    let names: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["annotations"][REF_NAME].as_str().unwrap())
        .collect();
    assert_eq!(names, ["b:1", "a:1"]);
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let out = scratch();
    fs::write(out.path().join("letter.txt"), "dear").unwrap();
    for format in [Format::OciDir, Format::Dir] {
        let error = Writer::create(out.path(), format).unwrap_err();
        assert!(matches!(error, Error::NotOurs { .. }), "{error}");
    }
    assert!(Writer::create(out.path(), Format::OciArchive).is_err());
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
}

#[test]
fn a_dir_is_replaced_by_the_next_image() {
    let mut layout = Layout::new();
    let (one, two) = (layout.image("amd64", "one"), layout.image("amd64", "two"));
    layout.name(Some("one:1"), one);
    layout.name(Some("two:1"), two);
    let reader = layout.open();
    let out = scratch();
    let path = out.path().join("dir");
    for name in ["one:1", "two:1"] {
        let target = reader.target(reader.find(Some(name)).unwrap()).unwrap();
        let writer = Writer::create(&path, Format::Dir).unwrap();
        copy_to(&reader, &writer, &target, Platforms::All).unwrap();
        writer.name(None, &target);
        writer.finish().unwrap();
        fs::write(path.join("signature-1"), "of the old one").unwrap();
        let again = Reader::open(&path, None, out.path()).unwrap();
        assert_eq!(again.target(again.find(None).unwrap()).unwrap().digest(), target.digest());
        assert_eq!(
            fs::read_dir(&path).unwrap().count(),
            5,
            "manifest.json, version, config, layer, signature-1"
        );
    }
}

#[test]
fn wrong_bytes_are_never_written_under_a_digest() {
    let layout = Layout::new();
    let blob: Descriptor = descriptor(media_type::OCI_CONFIG, &Digest::sha256("right"), 5);
    drop(layout);
    for format in [Format::OciArchive, Format::OciDir, Format::Dir] {
        let temp = scratch();
        let out = temp.path().join("out");
        let writer = Writer::create(&out, format).unwrap();
        for wrong in ["wrong", "righ", "right!"] {
            assert!(writer.put_blob(&blob, wrong.as_bytes()).is_err(), "{format:?} {wrong}");
        }
        writer.put_blob(&blob, b"right").unwrap();
        assert!(writer.has_blob(&blob).unwrap());
        if format != Format::OciArchive {
            // What lies there is not believed by its name and size.
            fs::write(find(&out, blob.digest().digest()), "wrong").unwrap();
            let writer = reopen(&out, format);
            assert!(!writer.has_blob(&blob).unwrap());
        }
    }
}

fn reopen(out: &Path, format: Format) -> Writer {
    let mark = if format == Format::Dir { "version" } else { "oci-layout" };
    fs::write(out.join(mark), "x").unwrap();
    Writer::create(out, format).unwrap()
}

fn find(root: &Path, name: &str) -> PathBuf {
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.ends_with(name) {
                return path;
            }
        }
    }
    panic!("no {name} in {}", root.display());
}

#[test]
fn a_manifest_without_a_type_in_the_table_is_read_by_its_shape() {
    let mut layout = Layout::new();
    let mut image = layout.image("amd64", "one");
    image.as_object_mut().unwrap().remove("mediaType");
    layout.name(None, image);
    let reader = layout.open();
    let target = reader.target(reader.find(None).unwrap()).unwrap();
    let raw: RawManifest = reader.manifest(&target).unwrap();
    assert_eq!(raw.media_type, media_type::OCI_MANIFEST);
}

#[test]
fn an_announced_tar_begins_with_its_tables() {
    let (layout, _) = example();
    let reader = layout.open();
    let target = reader.target(reader.find(None).unwrap()).unwrap();
    let temp = scratch();
    let out = temp.path().join("x.tar");
    let writer = Writer::create(&out, Format::DockerArchive).unwrap();
    let member = Member { names: vec!["docker.io/library/multi:1".into()], target: target.clone() };
    writer.announce(&reader, &[member], &Platforms::All).unwrap();
    copy_to(&reader, &writer, &target, Platforms::All).unwrap();
    writer.finish().unwrap();
    let mut tar = tar::Archive::new(File::open(&out).unwrap());
    let names: Vec<String> =
        tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names[..5], ["blobs/", "blobs/sha256/", "oci-layout", "manifest.json", "index.json"]);
    assert_eq!(names.len(), 5 + 7);
    let mut table = String::new();
    let mut tar = tar::Archive::new(File::open(&out).unwrap());
    let mut entry = tar.entries().unwrap().map(Result::unwrap).nth(3).unwrap();
    entry.read_to_string(&mut table).unwrap();
    let table: Value = serde_json::from_str(&table).unwrap();
    assert_eq!(table.as_array().unwrap().len(), 1, "docker is shown one image of the index: {table}");
    assert_eq!(table[0]["RepoTags"], json!(["multi:1"]));
}
