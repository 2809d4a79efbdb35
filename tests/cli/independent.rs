//! The store as somebody else sees it: the independent checker after workloads, and on damaged stores.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{Env, busybox_image, check_store, need, shared_registry};

/// A store with two images of two builds, a container, a volume and an image of another tool.
fn worked_in(image: &str) -> Env {
    let env = Env::new();
    env.write("file", "content\n");
    env.write(
        "Dockerfile",
        format!("FROM {image}\nCOPY file /data/\nRUN rm /data/same && mkdir -m 1711 /d && chown 7:8 /d\n"),
    );
    env.run(["build", "-q", "-t", "made:1", "."]).success();
    env.run([
        "run",
        "--network",
        "none",
        "--name",
        "c",
        "-v",
        "vol:/v",
        "made:1",
        "sh",
        "-c",
        "echo x > /new",
    ])
    .success();
    env.run(["commit", "-q", "c", "kept:1"]).success();
    env.run(["tag", "made:1", "also:2"]).success();
    env
}

#[test]
fn what_the_verbs_leave_is_sound_for_another_reader() {
    need!("docker-registry", "skopeo", "busybox", "python3");
    let env = worked_in(&shared_registry().image("busybox:latest"));
    let found = env.check_store().sound();
    assert!(found.garbage.is_empty(), "{found:#?}");
    for (what, number) in
        [("names", 4), ("containers", 1), ("volumes", 1), ("layers", 4), ("snapshots", 3), ("manifests", 3)]
    {
        assert_eq!(found.counts[what], number, "{what} of {found:#?}");
    }
    env.run(["save", "-q", "-o", "a.tar", "made:1", "kept:1"]).success();
    env.run(["rm", "c"]).success();
    env.run(["rmi", "-f", "made:1", "also:2", "kept:1"]).success();
    env.check_store().sound();
    env.run(["load", "-q", "-i", "a.tar"]).success();
    env.run(["image", "prune", "-f"]).success();
    let found = env.check_store().sound();
    assert_eq!(found.counts["names"], 3, "{found:#?}");
}

#[test]
fn what_other_tools_put_into_the_store_is_sound() {
    need!("docker-registry", "skopeo", "busybox", "python3");
    let env = Env::new();
    env.run(["tag", "nothing", "at-all"]).code(1);
    env.run(["volume", "create", "vol"]);
    env.run(["load", "-q", "-i", busybox_image().trim_end_matches(":latest")]).success();
    let place = format!("oci:{}:docker.io/library/other:1", env.store().display());
    crate::support::must(
        env.program("skopeo").args(["copy", "-q"]).arg(format!("oci:{}", busybox_image())).arg(place),
    );
    env.check_store().sound();
    env.run(["run", "--rm", "--network", "none", "other:1", "true"]).success();
    let found = env.check_store().sound();
    assert_eq!(found.counts["names"], 1, "{found:#?}");
}

/// Do something to a file, look, and put the file back.
fn damaged(env: &Env, path: &Path, damage: impl FnOnce(&Path), expected: &str) {
    let bytes = fs::read(path).unwrap();
    let mode = fs::metadata(path).unwrap().permissions();
    damage(path);
    // What is damaged below `snapshots/` is only seen by a look at every file.
    let whole = path.starts_with(env.store().join("snapshots"));
    check_store(&env.store(), if whole { &[] } else { &["--quick"] }).has_defect(expected);
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, mode).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn only_entry(dir: PathBuf, fits: impl Fn(&str) -> bool) -> PathBuf {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| fits(path.file_name().unwrap().to_str().unwrap())).unwrap()
}

#[test]
fn every_damage_is_seen() {
    need!("docker-registry", "skopeo", "busybox", "python3");
    let env = worked_in(&shared_registry().image("busybox:latest"));
    env.check_store().sound();
    let store = env.store();
    for blob in fs::read_dir(store.join("blobs/sha256")).unwrap() {
        let (path, name) = {
            let blob = blob.unwrap();
            (blob.path(), blob.file_name())
        };
        let name = name.to_str().unwrap();
        damaged(&env, &path, flip, &format!("{name}: its "));
        damaged(&env, &path, |path| fs::remove_file(path).unwrap(), &format!("missing: sha256:{name}"));
    }
    let index = store.join("index.json");
    damaged(&env, &index, cut, "index: index.json: it is not JSON");
    damaged(&env, &index, |path| fs::remove_file(path).unwrap(), "index: index.json: it is missing");
    let renamed = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.replace("docker.io/library/also:2", "docker.io/library/made:1")).unwrap();
    };
    damaged(&env, &index, renamed, "it is there twice");
    damaged(&env, &store.join("strate.json"), cut, "format: strate.json");
    damaged(&env, &store.join("oci-layout"), cut, "layout: oci-layout");
    let volume = store.join("volumes/vol");
    damaged(&env, &volume.join("volume.json"), cut, "volume: volumes/vol/volume.json: it is not JSON");
    let container = only_entry(store.join("containers"), |name| name.len() == 64);
    damaged(&env, &container.join("config.json"), cut, "config.json: it is not JSON");
    let data = |dir: &Path| dir.join("fs/data/file").exists();
    let snapshots = fs::read_dir(store.join("snapshots")).unwrap().map(|entry| entry.unwrap().path());
    let snapshot = snapshots.into_iter().find(|dir| data(dir)).unwrap();
    let file = snapshot.join("fs/data/file");
    damaged(&env, &file, |path| fs::write(path, "kontent\n").unwrap(), "`data/file` has other content");
    damaged(&env, &file, cut, "`data/file` has 4 bytes and should have 8");
    damaged(&env, &file, |path| fs::remove_file(path).unwrap(), "`data/file` is missing");
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    damaged(&env, &file, open, "`data/file` has mode 777 and should have 644");
    fs::write(snapshot.join("fs/more"), "x").unwrap();
    env.check_store().has_defect("`more` is too much");
    fs::remove_file(snapshot.join("fs/more")).unwrap();
    env.check_store().sound();
}
