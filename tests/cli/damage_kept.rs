//! A repair never destroys what cannot be had again: wrong bytes and old lists are kept aside until somebody says so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Env, must};

/// A store with an image that is nowhere else, made of two layers, under two names.
fn local_image() -> Env {
    let env = Env::new();
    env.write("ctx/file", "content of a file\n");
    env.write("ctx/other", "more of it\n");
    env.write("ctx/Dockerfile", "FROM scratch\nCOPY file /file\nCOPY other /other\n");
    env.run(["build", "-q", "-t", "here:1", "ctx"]).success();
    env.run(["tag", "here:1", "here:2"]).success();
    env.run(["builder", "prune", "-af"]).success();
    env
}

/// The contents of all files below, but for those of directories that are made again.
fn contents(root: &Path) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let meta = entry.metadata().unwrap();
            let name = entry.file_name();
            if meta.is_dir() && !["cache", "locks", "tmp"].iter().any(|aside| name == *aside) {
                dirs.push(entry.path());
            } else if meta.is_file() {
                found.insert(fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

fn blobs(env: &Env) -> Vec<PathBuf> {
    let entries = fs::read_dir(env.store().join("blobs/sha256")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn remove_snapshots(env: &Env) {
    let dir = env.store().join("snapshots");
    must(Command::new("chmod").args(["-R", "u+rwx"]).arg(&dir));
    fs::remove_dir_all(&dir).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn wrong_blobs_that_nobody_has_are_kept_until_their_bytes_come() {
    let env = local_image();
    let archive = env.work().join("here.tar");
    env.run(["save", "-q", "-o", archive.to_str().unwrap(), "here:1"]).success();
    for with_snapshots in [true, false] {
        for blob in blobs(&env) {
            let name = blob.file_name().unwrap().to_str().unwrap().to_owned();
            if !with_snapshots {
                remove_snapshots(&env);
            }
            flip(&blob);
            let before = contents(&env.store());
            let mended = env.run(["system", "check", "--repair"]);
            let kept = env.store().join(format!("damaged/sha256-{name}"));
            if mended.code == 0 {
                // Made again, byte for byte, from the unpacked files.
                assert!(with_snapshots && !kept.exists(), "{name}: {mended}");
                continue;
            }
            mended.code(1).stdout_has("damaged/sha256-").stdout_has("here:1");
            let after = contents(&env.store());
            assert!(before.is_subset(&after), "{name}: something is lost");
            assert!(kept.is_file() && !blob.exists(), "{name}");
            let note = fs::read_to_string(kept.with_extension("json")).unwrap();
            assert!(note.contains("has other bytes") && note.contains("\"when\""), "{note}");
            let again = env.run(["system", "check", "--repair"]).code(1);
            assert_eq!(contents(&env.store()), after, "a second repair changes something: {again}");
            again.stderr_has("system prune --damaged").stdout_lacks("damaged/sha256-");
            assert_eq!(env.run(["images", "-q"]).success().text().lines().count(), 2, "names are kept");
            env.run(["load", "-q", "-i", archive.to_str().unwrap()]).success();
            assert!(
                !kept.exists() && !kept.with_extension("json").exists(),
                "{name}: the right bytes are here"
            );
            env.run(["system", "check", "--repair"]).success();
            env.run(["system", "check"]).success();
        }
    }
}

#[test]
fn an_unpacked_layer_whose_blob_is_lost_is_kept() {
    let env = local_image();
    let layers: Vec<_> = fs::read_dir(env.store().join("snapshots")).unwrap().flatten().collect();
    let markers: Vec<_> = layers.iter().map(|l| l.path().join("meta.json")).filter(|m| m.exists()).collect();
    assert_eq!(markers.len(), 2);
    for marker in markers {
        fs::write(marker, "{").unwrap();
    }
    for blob in blobs(&env) {
        if fs::read(&blob).unwrap().starts_with(&[0x1f, 0x8b]) {
            fs::remove_file(blob).unwrap();
        }
    }
    let before = contents(&env.store());
    env.run(["system", "check", "--repair"]).code(1).stdout_has("damaged/snapshot-sha256-");
    assert!(before.is_subset(&contents(&env.store())), "files are lost that were nowhere else");
    env.run(["system", "check", "--repair", "--force"]).success().stdout_has("given up");
    env.run(["images", "-q"]).success().prints("");
}

#[test]
fn a_corrupt_layer_that_a_program_meets_is_kept_too() {
    let env = local_image();
    remove_snapshots(&env);
    let layer = blobs(&env).into_iter().find(|b| fs::read(b).unwrap().starts_with(&[0x1f, 0x8b])).unwrap();
    flip(&layer);
    let wrong = fs::read(&layer).unwrap();
    env.run(["create", "--name", "c", "here:1", "/x"]);
    env.run(["start", "c"]);
    env.run(["run", "--rm", "here:1", "/x"]);
    assert!(contents(&env.store()).contains(&wrong), "the only bytes of a layer are gone");
}

#[test]
fn names_in_a_damaged_list_stay_until_they_are_given_up() {
    let env = local_image();
    let index = env.store().join("index.json");
    let digest = env.run(["images", "--digests", "--format", "{{.Digest}}", "here:1"]).success();
    let manifest = env.store().join("blobs/sha256").join(digest.text().trim_start_matches("sha256:"));
    let saved = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    let list = fs::read_to_string(&index).unwrap();
    let cut = list.trim_end().trim_end_matches('}').to_owned();
    fs::write(&index, &cut).unwrap();
    let mended = env.run(["system", "check", "--repair"]).code(1);
    for name in ["here:1", "here:2"] {
        assert!(mended.stdout.contains(&format!("`{name}` stays in the list")), "{mended}");
    }
    let kept = env.store().join("index.json.damaged");
    assert_eq!(fs::read_to_string(&kept).unwrap(), cut);
    let after = contents(&env.store());
    env.run(["system", "check", "--repair"]).code(1).stdout_lacks("put together");
    assert_eq!(contents(&env.store()), after);
    // The manifest comes back: so does everything.
    fs::write(&manifest, &saved).unwrap();
    env.run(["system", "check"]).success();
    assert_eq!(env.run(["images", "-q"]).success().text().lines().count(), 2);
    // A second time beside the first one, and then for good.
    fs::remove_file(&manifest).unwrap();
    fs::write(&index, &cut[1..]).unwrap();
    let given_up = env.run(["system", "check", "--repair", "--force"]).success();
    assert!(given_up.stdout.contains("`here:1` was given up"), "{given_up}");
    assert_eq!(fs::read_to_string(env.store().join("index.json.damaged.1")).unwrap(), cut[1..]);
    env.run(["system", "check"]).success();
}

#[test]
fn what_repairs_have_kept_is_told_and_goes_when_it_is_told_to() {
    let env = local_image();
    remove_snapshots(&env);
    blobs(&env).iter().for_each(|blob| flip(blob));
    let list = env.store().join("index.json");
    fs::write(&list, fs::read_to_string(&list).unwrap() + "}").unwrap();
    env.run(["system", "check", "--repair"]).code(1);
    let rows = env.run(["system", "df", "-v"]).success();
    let row = rows.stdout.lines().find(|line| line.contains("kept by repairs")).unwrap().to_owned();
    assert!(!row.contains(" 0 "), "{row}");
    let before = contents(&env.store());
    env.run(["system", "prune", "-af"]).success();
    env.run(["image", "prune", "-af"]).success();
    assert!(env.store().join("damaged").is_dir() && env.store().join("index.json.damaged").exists());
    assert!(before.len() > 3);
    let json = ["system", "prune", "-f", "--damaged", "--format", "{{.SpaceReclaimed}}"];
    let dry = env.run([&json[..], &["--dry-run"]].concat()).success();
    let done = env.run(json).success();
    assert_eq!(dry.text(), done.text());
    assert!(done.text().parse::<u64>().unwrap() > 4096);
    assert!(!env.store().join("damaged").exists() && !env.store().join("index.json.damaged").exists());
    assert!(!env.run(["system", "check"]).stderr.contains("--damaged"));
    // A reset takes it as the store's own.
    fs::create_dir(env.store().join("damaged")).unwrap();
    fs::write(env.store().join("index.json.damaged.3"), "x").unwrap();
    env.run(["system", "reset", "-f"]).success();
    assert!(!env.store().exists());
}
