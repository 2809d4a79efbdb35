//! Stores of other formats, on other file systems, and made under other umasks.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Env, Output, need, shared_registry, skip, strate};

/// Verbs that only look at the store, and verbs that change it. `x` is no image and no container.
const READS: [&[&str]; 8] = [
    &["images"],
    &["ps", "-a"],
    &["inspect", "x"],
    &["history", "x"],
    &["save", "x", "-o", "out.tar"],
    &["push", "x"],
    &["logs", "x"],
    &["manifest", "inspect", "x"],
];
const WRITES: [&[&str]; 14] = [
    &["pull", "127.0.0.1:1/x"],
    &["run", "x"],
    &["create", "x"],
    &["build", "-f", "Dockerfile", "."],
    &["load", "-i", "x.tar"],
    &["import", "x.tar"],
    &["tag", "x", "y"],
    &["rmi", "x"],
    &["commit", "x"],
    &["rm", "x"],
    &["start", "x"],
    &["image", "prune", "-f"],
    &["container", "prune", "-f"],
    &["manifest", "create", "x"],
];

/// A store that a newer strate has made.
fn future(text: &str) -> Env {
    let env = Env::new();
    env.write("Dockerfile", "FROM scratch\nLABEL a=b\n");
    env.write("x.tar", "");
    env.run(["info"]).success();
    fs::write(env.store().join("strate.json"), text).unwrap();
    env
}

fn refused(env: &Env, args: &[&str], parts: &[&str]) {
    let output = env.run(args);
    assert!(output.code != 0 && output.stdout.is_empty(), "{output}");
    for part in parts {
        assert!(output.stderr.contains(part), "expected {part:?} of {args:?} in {output}");
    }
    assert!(output.stderr.contains("hint: use a newer strate, or another store with --root"), "{output}");
}

#[test]
fn a_newer_store_is_refused_by_every_verb_and_not_touched() {
    let env = future(r#"{"format": 9, "needs": "4.2.0"}"#);
    let before = tree(&env.store());
    let root = env.store().display().to_string();
    for args in READS.iter().chain(&WRITES) {
        refused(&env, args, &["has format 9", "strate 4.2.0 or later", &root]);
    }
    env.run(["doctor"]).code(1).stdout_has("has format 9");
    env.run(["version"]).success();
    assert_eq!(tree(&env.store()), before);
}

#[test]
fn an_unknown_feature_is_refused_as_its_class_says() {
    let env = future(r#"{"format": 2, "incompatible": ["holograms"]}"#);
    refused(&env, &["images"], &["`holograms`", "cannot be read", "a newer strate"]);
    refused(&env, &["tag", "x", "y"], &["`holograms`"]);
    let env = future(r#"{"format": 2, "read-only-compatible": ["quotas"], "compatible": ["whatever"]}"#);
    env.run(["images", "-q"]).success().prints("");
    env.run(["ps", "-q"]).success().prints("");
    // Committing looks for the container first.
    for args in WRITES.iter().filter(|args| args[0] != "commit") {
        refused(&env, args, &["`quotas`", "cannot be written"]);
    }
    let env = future(r#"{"format": 2, "compatible": ["whatever"]}"#);
    env.run(["build", "-q", "-t", "y", "."]).success();
}

/// Paths with modes and what files hold.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            let bytes = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            if meta.is_dir() {
                dirs.push(entry.path());
            }
            all.insert(entry.path(), (meta.permissions().mode() & 0o7777, bytes));
        }
    }
    all
}

/// A store of format 1 with a volume that is a plain directory.
fn old_store() -> Env {
    let env = Env::new();
    env.write("Dockerfile", "FROM scratch\nLABEL a=b\n");
    env.run(["build", "-q", "-t", "old", "."]).success();
    fs::write(env.store().join("strate.json"), r#"{"format":1}"#).unwrap();
    fs::create_dir(env.store().join("volumes/data")).unwrap();
    fs::write(env.store().join("volumes/data/file"), "kept").unwrap();
    env
}

#[test]
fn an_old_store_is_read_as_it_is_and_upgraded_by_the_first_command_that_writes() {
    let env = old_store();
    let before = tree(&env.store());
    env.run(["images", "--format", "{{.Repository}}"]).success().prints("old");
    env.run(["inspect", "old"]).success();
    assert_eq!(tree(&env.store()), before, "reading changes nothing");
    env.run(["system", "check"]).success().stderr_has("the store is of format 1");
    env.check_store().sound();
    assert!(!env.store().join("volumes/data/volume.json").exists(), "a check upgrades nothing");
    env.run(["tag", "old", "new"]).success().stderr_has("was brought from format 1 to 2");
    env.run(["tag", "old", "newer"]).success().stderr_lacks("format");
    assert_eq!(fs::read_to_string(env.store().join("volumes/data/_data/file")).unwrap(), "kept");
    assert!(env.store().join("volumes/data/volume.json").is_file());
}

/// Each system call that changes something, killed at its k-th time.
#[test]
fn an_upgrade_that_is_killed_is_finished_by_the_next_command() {
    need!("strace");
    let mut killed = 0;
    for call in ["mkdir", "rename", "fdatasync", "fsync"] {
        for k in 1..20 {
            let env = old_store();
            let inject = format!("inject={call}:signal=KILL:when={k}");
            let mut strace = env.program("strace");
            strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
            let cut = Output::of(strace.arg(strate()).args(["tag", "old", "new"]));
            if cut.stderr.contains("PTRACE") || cut.stderr.contains("ptrace") {
                return skip("strace cannot trace here");
            }
            env.run(["tag", "old", "new"]).success();
            let volumes = env.store().join("volumes");
            assert_eq!(fs::read_to_string(volumes.join("data/_data/file")).unwrap(), "kept", "{call} {k}");
            assert_eq!(fs::read_dir(&volumes).unwrap().count(), 1, "{call} {k}");
            let format = fs::read_to_string(env.store().join("strate.json")).unwrap();
            assert!(format.contains("\"format\": 2"), "{call} {k}: {format}");
            if cut.code == 0 {
                break;
            }
            killed += 1;
        }
    }
    assert!(killed >= 8, "only {killed} upgrades were cut short");
}

#[test]
fn a_part_of_the_store_that_lies_elsewhere_is_refused_with_the_reason() {
    let env = old_store();
    env.run(["tag", "old", "new"]).success();
    let blobs = env.store().join("blobs");
    fs::rename(&blobs, env.work().join("blobs")).unwrap();
    std::os::unix::fs::symlink(env.work().join("blobs"), &blobs).unwrap();
    env.run(["tag", "old", "newer"]).code(1).stderr_has("blobs` is a link").stderr_has("hint: ");
    env.run(["images", "-q", "new"]).success(); // reading is no harm
    fs::remove_file(&blobs).unwrap();
    fs::rename(env.work().join("blobs"), &blobs).unwrap();
    // The store itself may lie behind a link.
    let link = env.work().join("link");
    std::os::unix::fs::symlink(env.store(), &link).unwrap();
    env.run(["--root", link.to_str().unwrap(), "tag", "old", "newer"]).success();
}

#[test]
fn the_umask_changes_neither_digests_nor_what_others_may_see() {
    need!("docker-registry", "skopeo", "busybox");
    let image = shared_registry().image("busybox:latest");
    let mut digests = Vec::new();
    let env = Env::new().with("SOURCE_DATE_EPOCH", "1");
    let file = env.write("file", "x");
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    let run = "RUN mkdir /d && echo y > /d/y && touch -d @1 /d/y /d /";
    env.write("Dockerfile", format!("FROM {image}\nCOPY file /file\n{run}\n"));
    for umask in ["077", "000", "027"] {
        let store = env.work().join(umask);
        let script = format!(
            "umask {umask}; exec \"$0\" --root {} build -q -t made --output type=image,rewrite-timestamp=true .",
            store.display()
        );
        env.write(".dockerignore", "0*\n");
        let built = Output::of(env.program("sh").args(["-c", &script]).arg(strate())).success();
        digests.push(built.text().to_owned());
        for (path, (mode, _)) in tree_of_store(&store) {
            assert_eq!(mode & 0o022, 0, "{umask}: {} may be written by others: {mode:o}", path.display());
        }
        let top = fs::metadata(&store).unwrap().permissions().mode();
        assert_eq!(top & 0o777, 0o700, "{umask}");
    }
    assert!(digests[0] == digests[1] && digests[1] == digests[2], "{digests:?}");
}

/// What the store itself is made of; what images are made of has its own modes.
fn tree_of_store(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for name in ["blobs", "cache", "locks", "containers", "volumes", "partial"] {
        all.extend(tree(&root.join(name)));
    }
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        all.insert(entry.path(), (entry.metadata().unwrap().permissions().mode() & 0o7777, Vec::new()));
    }
    all
}

/// A mounted image of a file system, for as long as it lives.
struct Mount(PathBuf);

impl Mount {
    fn new(point: &Path, args: &[&str]) -> Option<Self> {
        fs::create_dir_all(point).unwrap();
        let done = Command::new("mount").args(args).arg(point).output().unwrap();
        done.status.success().then(|| Self(point.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn what_file_systems_can_do_is_found_by_trying() {
    need!(root);
    let disk = Env::new();
    let dir = disk.work();
    let shown = |path: &Path| path.display().to_string();
    for name in ["lower", "upper", "work"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    let overlay = format!(
        "lowerdir={},upperdir={},workdir={}",
        shown(&dir.join("lower")),
        shown(&dir.join("upper")),
        shown(&dir.join("work"))
    );
    let mut table = vec![
        ("tmpfs", Mount::new(&dir.join("tmpfs"), &["-t", "tmpfs", "-o", "size=32m", "tmpfs"]), false),
        ("overlay", Mount::new(&dir.join("overlay"), &["-t", "overlay", "-o", &overlay, "overlay"]), true),
    ];
    for (kind, megabytes) in [("ext4", 64), ("xfs", 320), ("btrfs", 128)] {
        let image = dir.join(format!("{kind}.img"));
        fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let made = Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image).output();
        if made.is_ok_and(|made| made.status.success()) {
            table.push((kind, Mount::new(&dir.join(kind), &["-o", "loop", &shown(&image)]), false));
        }
    }
    let mut tried = 0;
    for (kind, mount, word) in table {
        let Some(mount) = mount else { continue };
        tried += 1;
        let store = mount.0.join("store");
        let info = disk.run(["--root", store.to_str().unwrap(), "info", "--format", "json"]).success();
        let probe = &info.json()["Strate"]["Probe"];
        assert_eq!(probe["file-system"], kind, "{info}");
        assert!(probe["locks"] == "exclusive" && probe["rename-over"] == true, "{info}");
        let build = |name: &str| {
            disk.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /x\n");
            disk.run(["--root", store.to_str().unwrap(), "build", "-q", "-t", name, "."]).success()
        };
        build("one");
        let fresh = mount.0.join("fresh");
        let made = disk.run(["--root", fresh.to_str().unwrap(), "pull", "-q", "127.0.0.1:1/x"]);
        assert_eq!(made.stderr.contains(&format!("lies on {kind}: ")), word, "{made}");
        let again = disk.run(["--root", fresh.to_str().unwrap(), "pull", "-q", "127.0.0.1:1/x"]);
        assert!(!again.stderr.contains("lies on"), "it is said once: {again}");
        let doctor = disk.run(["--root", store.to_str().unwrap(), "doctor"]);
        let mark = if kind == "tmpfs" || word { "warn" } else { "ok" };
        let line = doctor.stdout.lines().find(|line| line.contains("file system ")).unwrap_or_default();
        assert!(line.starts_with(&format!("[{mark}]")) && line.contains(kind), "{doctor}");
    }
    if tried == 0 {
        skip("nothing can be mounted here");
    }
}

#[test]
fn a_mount_inside_the_store_is_refused() {
    need!(root);
    let env = old_store();
    env.run(["tag", "old", "new"]).success();
    let Some(_mount) = Mount::new(&env.store().join("tmp"), &["-t", "tmpfs", "tmpfs"]) else {
        return skip("nothing can be mounted here");
    };
    env.run(["tag", "old", "newer"]).code(1).stderr_has("tmp` is on another file system");
    drop(_mount);
    let blobs = env.store().join("blobs");
    let Some(_mount) = Mount::new(&blobs, &["--bind", blobs.to_str().unwrap()]) else { return };
    env.run(["tag", "old", "newer"]).code(1).stderr_has("blobs` is a mount of its own");
}
