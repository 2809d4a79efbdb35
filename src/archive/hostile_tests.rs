//! Archives that mean harm, by their numbers in the attack checklist: layers and paths (L1, P3), documents (M1 to M8).

use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::tests::{Layout, copy_to, scratch, tar_of};
use super::*;
use crate::image::{Platforms, Source};
use crate::oci::{Digest, media_type};

fn open_tar(bytes: &[u8]) -> Result<Reader, Error> {
    let dir = scratch();
    let path = dir.path().join("x.tar");
    fs::write(&path, bytes).unwrap();
    // The file stays open; its directory may go.
    Reader::open(&path, None, Path::new("/var/tmp"))
}

fn refused(files: &[(&str, &[u8])]) -> String {
    let reader = match open_tar(&tar_of(files)) {
        Ok(reader) => reader,
        Err(error) => return error.to_string(),
    };
    match reader.images().iter().find_map(|image| reader.target(image).err()) {
        Some(error) => error.to_string(),
        None => panic!("accepted: {:?}", reader.images()),
    }
}

fn table(config: &str, layers: &[&str]) -> Vec<u8> {
    json!([{ "Config": config, "RepoTags": ["x:1"], "Layers": layers }]).to_string().into_bytes()
}

fn config(diff_ids: &[&str]) -> Vec<u8> {
    json!({ "rootfs": { "type": "layers", "diff_ids": diff_ids } }).to_string().into_bytes()
}

#[test]
fn p3_paths_of_the_table_stay_in_the_archive() {
    for path in ["../x", "/etc/passwd", "a/../../x", "..", "", ".", "a\0b", "./../../x"] {
        let error = refused(&[("manifest.json", &table(path, &[]))]);
        assert!(error.contains("no path inside"), "{path}: {error}");
        let id = config(&[Digest::sha256("x").as_str()]);
        let error = refused(&[("manifest.json", &table("c", &[path])), ("c", &id)]);
        assert!(error.contains("no path inside"), "{path}: {error}");
    }
    let error = refused(&[("manifest.json", &table("missing", &[]))]);
    assert!(error.contains("lacks `missing`"), "{error}");
}

fn with_link(kind: tar::EntryType, name: &str, to: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let id = config(&[Digest::sha256("x").as_str()]);
    for (name, bytes) in [("manifest.json", table("c", &["layer"])), ("c", id)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    tar.append_link(&mut header, name, to).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn p3_links_never_leave_the_archive_nor_go_in_circles() {
    for to in ["/etc/passwd", "../../etc/passwd", "..", "a/../../../x"] {
        let reader = open_tar(&with_link(tar::EntryType::Symlink, "layer", to)).unwrap();
        let error = reader.target(&reader.images()[0]).unwrap_err().to_string();
        assert!(error.contains("out of the archive"), "{to}: {error}");
    }
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link] {
        let reader = open_tar(&with_link(kind, "layer", "layer")).unwrap();
        let error = reader.target(&reader.images()[0]).unwrap_err().to_string();
        assert!(error.contains("leads to no file"), "{error}");
        let reader = open_tar(&with_link(kind, "layer", "nowhere")).unwrap();
        let error = reader.target(&reader.images()[0]).unwrap_err().to_string();
        assert!(error.contains("lacks"), "{error}");
    }
}

#[test]
fn p3_the_same_name_twice_is_ambiguous() {
    let table = table("c", &[]);
    let error = refused(&[("manifest.json", &table), ("c", b"{}"), ("manifest.json", b"[]")]);
    assert!(error.contains("twice"), "{error}");
    let error = refused(&[("manifest.json", &table), ("c", &config(&[])), ("./c", b"{}")]);
    assert!(error.contains("twice"), "{error}");
    let error = refused(&[("index.json", br#"{"manifests":[]}"#), ("/index.json", b"{}")]);
    assert!(error.contains("twice"), "{error}");
}

#[test]
fn p3_giant_tables_and_documents_are_not_read() {
    // The header alone claims the size: nothing of it is there, and nothing is allocated.
    for name in ["manifest.json", "index.json"] {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_size(10 << 30);
        header.set_cksum();
        assert!(open_tar(header.as_bytes()).is_err());
        let stream = Box::new(std::io::Cursor::new(header.as_bytes().to_vec()).chain(std::io::repeat(b' ')));
        let error = Reader::open_stream(stream, Path::new("pipe"), scratch().path()).unwrap_err().to_string();
        assert!(error.contains("at most"), "{error}");
    }
    let big = vec![b' '; 5 << 20];
    let error = refused(&[("manifest.json", &table("c", &[])), ("c", &big)]);
    assert!(error.contains("passes a limit"), "{error}");
}

#[test]
fn p3_an_archive_of_a_million_files_ends_early() {
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    let mut bytes = Vec::new();
    for n in 0..100_002 {
        header.set_path(format!("f{n}")).unwrap();
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
    }
    let error = open_tar(&bytes).unwrap_err();
    assert!(matches!(error, Error::NotAnArchive { .. }), "{error}");
    let with_table = [tar_of(&[("manifest.json", &table("c", &[]))]), bytes].concat();
    // The end of the first archive is not the end of the second.
    let joined: Vec<u8> = with_table[..1024].iter().chain(&with_table[2048..]).copied().collect();
    let error = open_tar(&joined).unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{error}");
}

#[test]
fn p3_zeros_without_end_cost_no_disk() {
    // 40 MB of zeros in an entry nobody asks for: a hole in the kept copy.
    let dir = scratch();
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(40 << 20);
    header.set_cksum();
    let tables = tar_of(&[("index.json", br#"{"manifests":[]}"#)]);
    let body = std::io::Cursor::new(header.as_bytes().to_vec())
        .chain(std::io::repeat(0).take(40 << 20))
        .chain(std::io::Cursor::new(tables));
    let tar = tarfile::Tar::spool(Path::new("pipe"), Box::new(body), dir.path()).unwrap();
    let files = tarfile::TarFiles(std::sync::Arc::clone(&tar));
    files::Files::finish(&files).unwrap();
    assert!(tar.kept_blocks() * 512 < 1 << 20, "{} blocks", tar.kept_blocks());
    let mut stream = files::Files::open(&files, "zeros", 39 << 20).unwrap().unwrap().1;
    let mut out = Vec::new();
    stream.read_to_end(&mut out).unwrap();
    assert!(out.len() == 1 << 20 && out.iter().all(|byte| *byte == 0));
}

#[test]
fn m1_a_document_that_is_two_things_is_refused() {
    let mut layout = Layout::new();
    let both = json!({ "schemaVersion": 2, "manifests": [], "layers": [],
        "config": { "mediaType": media_type::OCI_CONFIG, "digest": Digest::sha256("").as_str(), "size": 0 } });
    let both = layout.blob(media_type::OCI_MANIFEST, both.to_string().as_bytes());
    layout.name(Some("x:1"), both);
    let lying = layout.image("amd64", "text");
    let mut lying: Value = lying;
    lying["mediaType"] = media_type::OCI_INDEX.into();
    layout.name(Some("x:2"), lying);
    let schema1 = layout.blob(media_type::OCI_MANIFEST, br#"{"schemaVersion":1,"fsLayers":[]}"#);
    layout.name(Some("x:3"), schema1);
    let reader = layout.open();
    for name in ["x:1", "x:2", "x:3"] {
        let target = reader.target(reader.find(Some(name)).unwrap()).unwrap();
        let error = reader.manifest(&target).unwrap_err().to_string();
        assert!(error.contains("ambiguous") || error.contains("schema 1"), "{name}: {error}");
    }
}

#[test]
fn m2_content_that_is_not_its_digest_is_refused() {
    let mut layout = Layout::new();
    let image = layout.image("amd64", "text");
    layout.name(Some("x:1"), image.clone());
    let blobs = layout.dir.path().join("blobs/sha256");
    for entry in fs::read_dir(&blobs).unwrap() {
        let path = entry.unwrap().path();
        let good = fs::read(&path).unwrap();
        let mut longer = good.clone();
        longer.push(b' ');
        let mut flipped = good.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        for bad in [&flipped, &longer, &good[..good.len() - 1].to_vec()] {
            fs::write(&path, bad).unwrap();
            let reader = layout.open();
            let target = reader.target(reader.find(None).unwrap()).unwrap();
            let out = scratch();
            let to = out.path().join("out");
            let writer = Writer::create(&to, Format::OciArchive).unwrap();
            assert!(copy_to(&reader, &writer, &target, Platforms::All).is_err(), "{}", path.display());
            drop(writer);
            assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
        }
        fs::write(&path, good).unwrap();
    }
}

#[test]
fn m5_indexes_in_indexes_are_refused() {
    let mut layout = Layout::new();
    let image = layout.image("amd64", "text");
    let inner = layout.index(&[("amd64", image)]);
    let outer = layout.index(&[("amd64", inner)]);
    layout.name(Some("x:1"), outer);
    let reader = layout.open();
    let target = reader.target(reader.find(None).unwrap()).unwrap();
    let out = scratch();
    let writer = Writer::create(&out.path().join("out"), Format::OciArchive).unwrap();
    let error = copy_to(&reader, &writer, &target, Platforms::All).unwrap_err().to_string();
    assert!(error.contains("names another index"), "{error}");
}

#[test]
fn m6_bad_digests_never_become_paths() {
    let sixty_four = "a".repeat(64);
    for digest in [
        "sha256:../../x".to_owned(),
        format!("md5:{}", "a".repeat(32)),
        format!("sha256:{}", sixty_four.to_uppercase()),
        format!("sha256:{}", "a".repeat(63)),
        format!("sha256/../x:{sixty_four}"),
        String::new(),
    ] {
        let index =
            json!({ "manifests": [{ "mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": 2 }] });
        let error = refused(&[("index.json", index.to_string().as_bytes())]);
        assert!(error.contains("unusable digest"), "{digest}: {error}");
    }
}

#[test]
fn m7_names_that_are_none_are_no_names() {
    let tags = ["../x", "x:..", "-flag", "UPPER", "x@sha256:12", "", "a b", "x:\u{1b}[0m", "host:99999/x y"];
    let table = json!([{ "Config": "c", "RepoTags": tags, "Layers": [] }]).to_string();
    let reader = open_tar(&tar_of(&[("manifest.json", table.as_bytes()), ("c", &config(&[]))])).unwrap();
    assert_eq!(reader.images()[0].names, Vec::new());
    assert_eq!(reader.images()[0].labels.len(), tags.len());
    for tag in tags {
        assert!(reader.find(Some(&format!("{tag}!"))).is_err());
    }
}

#[test]
fn m8_a_config_that_contradicts_the_table_is_refused() {
    let layer = tar_of(&[("f", b"x")]);
    let right = Digest::sha256(&layer);
    let other = Digest::sha256("other");
    let files =
        |config: Vec<u8>| refused(&[("manifest.json", &table("c", &["l"])), ("c", &config), ("l", &layer)]);
    for diff_ids in [&[][..], &[right.as_str(), right.as_str()]] {
        assert!(files(config(diff_ids)).contains("layers, the table 1"), "{diff_ids:?}");
    }
    assert!(files(config(&[other.as_str()])).contains("corrupt"));
    for text in ["", "[]", "{\"rootfs\":7}", "\u{0}"] {
        assert!(files(text.into()).contains("JSON"), "{text}");
    }
}

#[test]
fn l1_odd_entries_are_passed_over() {
    let mut layout = Layout::new();
    let image = layout.image("amd64", "text");
    layout.name(Some("x:1"), image);
    let long = "n".repeat(99);
    let mut files: Vec<(String, Vec<u8>)> = ["../out", "/../../out", "..", "a/../b", &long, "x\u{1b}y"]
        .iter()
        .map(|name| ((*name).to_owned(), b"harm".to_vec()))
        .collect();
    for path in ["index.json", "oci-layout"] {
        files.push((path.to_owned(), fs::read(layout.dir.path().join(path)).unwrap()));
    }
    for entry in fs::read_dir(layout.dir.path().join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        let name = format!("blobs/sha256/{}", entry.file_name().to_str().unwrap());
        files.push((name, fs::read(entry.path()).unwrap()));
    }
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
    let reader = open_tar(&tar_of(&files)).unwrap();
    let target = reader.target(reader.find(Some("x:1")).unwrap()).unwrap();
    let out = scratch();
    let writer = Writer::create(&out.path().join("out"), Format::OciDir).unwrap();
    copy_to(&reader, &writer, &target, Platforms::All).unwrap();
}

#[test]
fn a_pipe_or_device_in_the_place_of_a_blob_does_not_block() {
    let mut layout = Layout::new();
    let image = layout.image("amd64", "text");
    let digest: Digest = image["digest"].as_str().unwrap().parse().unwrap();
    layout.name(None, image);
    let path = layout.dir.path().join("blobs/sha256").join(digest.hex());
    let fifo = rustix::fs::FileType::Fifo;
    let reader = layout.open();
    let target = reader.target(reader.find(None).unwrap()).unwrap();
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, 0o600.into(), 0).unwrap();
    assert!(reader.manifest(&target).unwrap_err().to_string().contains("not a regular file"));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(reader.manifest(&target).unwrap_err().to_string().contains("not a regular file"));
}
