//! `load`

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::cmd_save::{env_with_image, listed, pipe};
use crate::support::{Env, need, program};

/// An archive in docker's old form with any table and files.
fn archive(env: &Env, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let path = env.work().join(name);
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.finish().unwrap();
    path
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn layer(text: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", text.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

fn config(layer: &[u8]) -> Vec<u8> {
    let diff_id = format!("sha256:{}", sha256(layer));
    json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [diff_id] } })
        .to_string()
        .into_bytes()
}

fn table(tags: Value) -> Vec<u8> {
    json!([{ "Config": "c.json", "RepoTags": tags, "Layers": ["l.tar"] }]).to_string().into_bytes()
}

#[test]
fn every_compression_is_loaded_from_a_file_and_a_pipe() {
    need!("skopeo", "busybox");
    let env = env_with_image();
    let before = listed(&env);
    env.run(["save", "-o", "x.tar", "app:1"]).success();
    for tool in ["gzip", "xz", "zstd", "bzip2"] {
        if program(tool).is_none() {
            continue;
        }
        let packed = env.work().join(tool);
        let done = Command::new(tool)
            .arg("-c")
            .stdin(File::open(env.work().join("x.tar")).unwrap())
            .stdout(File::create(&packed).unwrap())
            .status();
        assert!(done.unwrap().success());
        let other = Env::new();
        other.run(["load", "-q", "-i", packed.to_str().unwrap()]).success().prints("Loaded image: app:1");
        assert_eq!(listed(&other), before, "{tool}");
    }
    let other = Env::new();
    let read = other.command(["load"]).stdin(File::open(env.work().join("gzip")).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout), "Loaded image: app:1\n");
    assert!(std::fs::read_dir(other.store().join("tmp")).unwrap().next().is_none(), "scratch files stay");
}

#[test]
fn m7_a_name_that_moves_is_told() {
    let env = Env::new();
    let mut ids = Vec::new();
    for text in ["one", "two"] {
        let layer = layer(text);
        let config = config(&layer);
        let table = table(json!(["victim:1", "-v", "a/../b:1", "UPPER:1", "good/name:\u{1b}[31m"]));
        let path = archive(&env, text, &[("manifest.json", &table), ("c.json", &config), ("l.tar", &layer)]);
        let loaded =
            env.run(["load", "-i", path.to_str().unwrap()]).success().prints("Loaded image: victim:1");
        ids.push(sha256(&config));
        if text == "two" {
            loaded.stderr_has("victim:1").stderr_has(&ids[0]);
        } else {
            loaded.stderr_has("UPPER:1").stderr_lacks("was image");
        }
    }
    // The one that lost its name is still here.
    let all = env.run(["images", "-aq", "--no-trunc"]).success();
    assert!(all.stdout.contains(&ids[0]) && all.stdout.contains(&ids[1]), "{all}");
}

#[test]
fn an_index_keeps_its_platforms_and_artifacts_their_blobs() {
    need!("skopeo", "busybox");
    let env = env_with_image();
    let layout = env.work().join("layout");
    env.run(["save", "--format", "oci-dir", "-o", "layout", "app:1"]).success();
    let put = |kind: &str, bytes: &[u8]| {
        let digest = sha256(bytes);
        std::fs::write(layout.join("blobs/sha256").join(&digest), bytes).unwrap();
        json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() })
    };
    let text = |value: Value| value.to_string().into_bytes();
    let (manifest, index) =
        ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json");
    let mut image: Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let mut first = image["manifests"][0].take();
    first.as_object_mut().unwrap().remove("annotations");
    first["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    let tar = layer("arm");
    let second_config = put(
        "application/vnd.oci.image.config.v1+json",
        &text(json!({ "os": "linux", "architecture": "arm64",
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&tar))] } })),
    );
    let second_layer = put("application/vnd.oci.image.layer.v1.tar", &tar);
    let mut second = put(
        manifest,
        &text(
            json!({ "schemaVersion": 2, "mediaType": manifest, "config": second_config, "layers": [second_layer] }),
        ),
    );
    second["platform"] = json!({ "os": "linux", "architecture": "arm64" });
    let blob = put("text/plain", b"any bytes");
    let empty = put("application/vnd.oci.empty.v1+json", b"{}");
    let artifact = json!({ "schemaVersion": 2, "mediaType": manifest, "artifactType": "text/x",
        "config": empty, "layers": [blob] });
    let mut artifact = put(manifest, &text(artifact));
    let mut multi =
        put(index, &text(json!({ "schemaVersion": 2, "mediaType": index, "manifests": [first, second] })));
    let name = "org.opencontainers.image.ref.name";
    multi["annotations"] = json!({ name: "docker.io/library/multi:1" });
    artifact["annotations"] = json!({ name: "docker.io/library/artifact:1" });
    let table = json!({ "schemaVersion": 2, "manifests": [multi, artifact] });
    std::fs::write(layout.join("index.json"), table.to_string()).unwrap();

    let one = Env::new();
    one.run(["load", "-i", layout.to_str().unwrap()]).success().stdout_has("Loaded image: multi:1");
    let before = listed(&one);
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        let other = Env::new();
        one.run(["save", "--format", format, "-o", format, "multi:1", "artifact:1"]).success();
        let saved = one.work().join(format);
        other.run(["load", "-i", saved.to_str().unwrap()]).success().stdout_has("Loaded image: artifact:1");
        assert_eq!(listed(&other), before, "{format}");
        for descriptor in [&second_layer, &second_config, &second, &blob, &multi, &artifact] {
            let digest = descriptor["digest"].as_str().unwrap().replace("sha256:", "");
            assert!(other.store().join("blobs/sha256").join(&digest).is_file(), "{format}: {descriptor}");
        }
    }
    // One platform alone keeps the index and its digest.
    let other = Env::new();
    one.run(["save", "--platform", "linux/arm64", "-o", "arm.tar", "multi:1"]).success();
    let saved = one.work().join("arm.tar");
    other.run(["load", "-i", saved.to_str().unwrap()]).success().prints("Loaded image: multi:1");
    assert!(listed(&other)[0].contains(multi["digest"].as_str().unwrap()), "{:?}", listed(&other));
    other
        .run(["load", "--platform", "linux/s390x", "-i", saved.to_str().unwrap()])
        .code(1)
        .stderr_has("linux/arm64");
    one.run(["save", "--platform", "linux/s390x", "-o", "none.tar", "multi:1"]).code(1).stderr_has("s390x");
    env.run(["save", "--platform", "linux/s390x", "-o", "none.tar", "app:1"])
        .code(1)
        .stderr_has("linux/amd64");
}

#[test]
fn what_is_no_image_archive_is_refused_with_a_reason() {
    let env = Env::new();
    env.write("text", "just some text\n".repeat(100));
    env.write("empty", "");
    std::fs::create_dir(env.work().join("dir")).unwrap();
    let rootfs = archive(&env, "rootfs.tar", &[("etc/passwd", b"root")]);
    let old = archive(&env, "old.tar", &[("repositories", b"{}"), ("abc/json", b"{}")]);
    for (path, expected) in [
        ("text", "not an image archive"),
        ("empty", "neither an index.json nor a manifest.json"),
        ("dir", "neither an index.json nor a manifest.json"),
        (rootfs.to_str().unwrap(), "strate import"),
        (old.to_str().unwrap(), "docker"),
        ("missing.tar", "missing.tar"),
    ] {
        env.run(["load", "-i", path]).code(1).stderr_has(expected);
    }
    env.run_with_input(["load"], "no tar").code(1).stderr_has("standard input");
    env.run(["images", "-aq"]).success().prints("");
    let mut pty = env.pty(["load"]);
    pty.expect("refusing to read an archive from a terminal");
}

#[test]
fn p3_a_damaged_archive_loads_nothing_wrong() {
    let env = Env::new();
    let (good, bad) = (layer("good"), layer("evil"));
    let (config, table) = (config(&good), table(json!(["app:1"])));
    let swapped =
        archive(&env, "swapped.tar", &[("manifest.json", &table), ("c.json", &config), ("l.tar", &bad)]);
    env.run(["load", "-i", swapped.to_str().unwrap()]).code(1).stderr_has("l.tar").stderr_has("corrupt");
    for layers in ["../l.tar", "/etc/passwd", "a/../../l.tar"] {
        let table = json!([{ "Config": "c.json", "RepoTags": ["app:1"], "Layers": [layers] }]).to_string();
        let path = archive(
            &env,
            "x.tar",
            &[("manifest.json", table.as_bytes()), ("c.json", &config), ("l.tar", &good)],
        );
        env.run(["load", "-i", path.to_str().unwrap()]).code(1).stderr_has("no path inside");
    }
    env.run(["images", "-aq"]).success().prints("");
    // A file cut anywhere: an error, and the store stays as it was.
    let whole =
        archive(&env, "whole.tar", &[("manifest.json", &table), ("c.json", &config), ("l.tar", &good)]);
    let bytes = std::fs::read(&whole).unwrap();
    for cut in [100, 512, 700, 1600, 2600] {
        let mut file = File::create(env.work().join("cut.tar")).unwrap();
        file.write_all(&bytes[..cut]).unwrap();
        env.run(["load", "-i", "cut.tar"]).code(1);
        env.run(["images", "-aq"]).success().prints("");
    }
    env.run(["load", "-i", whole.to_str().unwrap()]).success();
}

#[test]
fn an_archive_that_breaks_off_in_the_pipe_is_an_error() {
    need!("skopeo", "busybox");
    let env = env_with_image();
    env.run(["save", "-o", "x.tar", "app:1"]).success();
    let bytes = std::fs::read(env.work().join("x.tar")).unwrap();
    std::fs::write(env.work().join("cut.tar"), &bytes[..bytes.len() / 2]).unwrap();
    let other = Env::new();
    let read =
        other.command(["load"]).stdin(File::open(env.work().join("cut.tar")).unwrap()).output().unwrap();
    assert_eq!(read.status.code(), Some(1));
    let mut child = other.command(["load"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(&bytes[..bytes.len() / 2]);
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    other.run(["images", "-aq"]).success().prints("");
    pipe((&env, &["save", "app:1"]), (&other, &["load"])).success();
}
