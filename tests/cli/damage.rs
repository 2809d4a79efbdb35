//! A damaged store: every file of a small one is cut, emptied, changed in one bit and removed, one after the other.
//!
//! Reading commands then neither crash nor hang, and what they say is about the store; `system check` finds the damage,
//! unless the file is one whose content does not count; `--repair` mends it, from the registry where it must, or names
//! what is lost; the same pull gives the same digest; and a second check is content.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Env, Output, Registry, must, need};

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Cut,
    Emptied,
    Flipped,
    Removed,
}

const ALL: [Damage; 4] = [Damage::Cut, Damage::Emptied, Damage::Flipped, Damage::Removed];

impl Damage {
    fn inflict(self, path: &Path) {
        let mode = fs::symlink_metadata(path).unwrap().permissions().mode();
        let bytes = fs::read(path).unwrap();
        match self {
            Self::Cut => fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
            Self::Emptied => fs::write(path, b"").unwrap(),
            Self::Flipped => {
                let mut bytes = bytes;
                let middle = bytes.len() / 2;
                bytes[middle] ^= 4;
                fs::write(path, bytes).unwrap();
            }
            Self::Removed => return fs::remove_file(path).unwrap(),
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// A store with an image that a registry has, a container, a volume and build records; and a copy of it for each case.
struct Prepared {
    env: Env,
    registry: Registry,
    image: String,
    digest: String,
}

impl Prepared {
    fn new() -> Self {
        let registry = Registry::start();
        let env = Env::new();
        let image = registry.image("small:1");
        env.write("ctx/file", "content of a file\n");
        env.write("ctx/sub/other", "more\n");
        env.write("ctx/Dockerfile", "FROM scratch\nCOPY file /file\nCOPY --chmod=750 sub /sub\nLABEL a=b\n");
        env.run(["build", "-q", "-t", &image, "ctx"]).success();
        env.run(["push", "-q", &image]).success();
        env.run(["create", "--name", "kept", "--network", "none", "-v", "vol:/v", &image, "/x"]).success();
        env.run(["system", "check"]).success();
        let digest = env.run(["images", "--digests", "--format", "{{.Digest}}"]).success().text().to_owned();
        Self { env, registry, image, digest }
    }

    /// A fresh copy of the store under the name of the case.
    fn copy(&self, name: &str) -> Case<'_> {
        let root = self.env.work().join(name);
        remove(&root);
        must(Command::new("cp").arg("-a").arg(self.env.store()).arg(&root));
        Case { prepared: self, root }
    }
}

fn remove(root: &Path) {
    if root.exists() {
        must(Command::new("chmod").args(["-R", "u+rwx"]).arg(root));
        fs::remove_dir_all(root).unwrap();
    }
}

/// One damaged copy.
struct Case<'a> {
    prepared: &'a Prepared,
    root: PathBuf,
}

impl Case<'_> {
    fn run(&self, args: &[&str]) -> Output {
        let root = self.root.to_str().unwrap();
        let start = Instant::now();
        let output = self.prepared.env.run([&["--root", root], args].concat());
        assert!(start.elapsed() < Duration::from_secs(20), "it hangs: {output}");
        assert!(output.code < 126 && !output.stderr.contains("panicked"), "it breaks: {output}");
        output
    }

    /// The regular files of the store, by the part they belong to. A container's lock and log have no content yet.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![self.root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let meta = entry.metadata().unwrap();
                if meta.is_dir() {
                    dirs.push(entry.path());
                } else if meta.is_file() {
                    let path = entry.path().strip_prefix(&self.root).unwrap().to_str().unwrap().to_owned();
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

/// Files whose content does not count, or whose loss nobody can see: the list is the promise of `doc/storage.md`.
fn is_harmless(path: &str, damage: Damage) -> bool {
    let lost_cache = ["cache/records/", "cache/layers/", "index.json.bak"];
    path.starts_with("locks/")
        || path.starts_with("cache/places/")
        || path.ends_with("CACHEDIR.TAG")
        || path == "probe.json"
        || path == "cache/budget"
        || path == "index.json.bak"
        || path == "strate.json.bak"
        // What happened is told, and nothing relies on it.
        || path == "containers/events"
        // A container's and a volume's own files are whatever programs wrote.
        || path.contains("/_data/")
        || path.contains("/upper/")
        // What is computed again is not missed, and a record's own document is the build's.
        || lost_cache.iter().any(|part| path.starts_with(part)) && damage == Damage::Removed
        || path.starts_with("cache/records/") && matches!(damage, Damage::Flipped | Damage::Cut)
        // Free text and switches.
        || path == "strate.json" && damage == Damage::Flipped
        || path.starts_with("snapshots/") && path.ends_with("meta.json") && damage == Damage::Flipped
        || path.starts_with("containers/") && damage == Damage::Flipped
        || path.starts_with("volumes/") && damage == Damage::Flipped
        // A container without its record is half made or half removed: a leftover.
        || path.starts_with("containers/") && damage == Damage::Removed
}

/// What only its owner has: it is named, and stays as it is.
fn is_beyond_repair(path: &str) -> bool {
    path.starts_with("containers/") || path.starts_with("volumes/")
}

/// Those of the files that are tried: all, but of those that are alike only the first.
fn chosen(files: Vec<String>) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let alike = |path: &str| {
        ["cache/records/", "cache/layers/", "cache/places/", "locks/"]
            .iter()
            .any(|part| path.starts_with(part))
    };
    let mut part = |path: &String| {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned();
        let n = seen.entry(dir).or_default();
        *n += 1;
        *n
    };
    files.into_iter().filter(|path| part(path) == 1 || !alike(path)).collect()
}

#[test]
fn every_file_of_a_store_may_be_damaged() {
    need!("docker-registry");
    let prepared = Prepared::new();
    let files = chosen(prepared.copy("all").files());
    for part in ["blobs/", "snapshots/", "containers/", "cache/", "index.json", "oci-layout", "strate.json"] {
        assert!(files.iter().any(|file| file.starts_with(part)), "{part} is not tried: {files:?}");
    }
    let cases: Vec<(&String, Damage)> =
        files.iter().flat_map(|file| ALL.map(|damage| (file, damage))).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let (next, cases, prepared) = (&next, &cases, &prepared);
            scope.spawn(move || {
                while let Some((file, damage)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let case = prepared.copy(&format!("case{worker}"));
                    let path = case.root.join(file);
                    let is_known =
                        is_harmless(file, *damage) && matches!(damage, Damage::Cut | Damage::Emptied);
                    let is_empty = *damage != Damage::Removed && fs::metadata(&path).unwrap().size() == 0;
                    if !is_known && !is_empty {
                        damage.inflict(&path);
                        look(&case, file, *damage);
                    }
                }
            });
        }
    });
}

fn look(case: &Case<'_>, file: &str, damage: Damage) {
    let what = format!("{file} {damage:?}");
    let prepared = case.prepared;
    for args in [&["images"][..], &["ps", "-a"], &["inspect", &prepared.image], &["history", &prepared.image]]
    {
        let output = case.run(args);
        assert!(output.code == 0 || output.stderr.contains("error:"), "{what}: {output}");
    }
    let found = case.run(&["system", "check"]);
    let sound = is_harmless(file, damage);
    assert!(sound || found.code == 1, "{what} was not found: {found}");
    if damage == Damage::Cut {
        let again = case.run(&["system", "check"]);
        assert_eq!(
            (&again.stdout, again.code),
            (&found.stdout, found.code),
            "{what}: a check mends something"
        );
    }
    let mended = case.run(&["system", "check", "--repair"]);
    let left = u8::from(is_beyond_repair(file) && found.code == 1);
    assert_eq!(mended.code, i32::from(left), "{what}: {found}\n{mended}");
    let second = case.run(&["system", "check", "--repair"]);
    assert_eq!(second.stdout.lines().count(), 1 + usize::from(left), "{what} is mended twice: {second}");
    if left == 1 {
        return;
    }
    case.run(&["pull", "-q", &prepared.image]).success();
    let digest = case.run(&["images", "--digests", "--format", "{{.Digest}}", &prepared.image]).success();
    assert_eq!(digest.text(), prepared.digest, "{what}");
    case.run(&["system", "check", "--quick"]).success();
}

#[test]
fn a_lost_list_of_images_is_no_empty_one() {
    need!("docker-registry");
    let prepared = Prepared::new();
    for text in [None, Some(""), Some("{"), Some("{}"), Some("[]"), Some("{\"schemaVersion\":2}")] {
        let case = prepared.copy("case");
        let path = case.root.join("index.json");
        match text {
            None => fs::remove_file(&path).unwrap(),
            Some(text) => fs::write(&path, text).unwrap(),
        }
        let blobs = case.files().len();
        let line: [&[&str]; 7] = [
            &["images"],
            &["inspect", &prepared.image],
            &["tag", &prepared.image, "other:1"],
            &["rmi", "-a", "-f"],
            &["image", "prune", "-a", "-f"],
            &["pull", "-q", &prepared.image],
            &["system", "check"],
        ];
        for args in line {
            let output = case.run(args).code(1);
            assert!((output.stdout.clone() + &output.stderr).contains("index.json"), "{text:?}: {output}");
            let hinted = output.stderr.contains("system check --repair") || args[0] == "inspect";
            assert!(hinted, "{text:?}: {output}");
        }
        assert!(case.files().len() + 1 >= blobs, "{text:?}: something was thrown away");
        case.run(&["system", "check", "--repair"]).success().stdout_has("put together anew");
        let names = case.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).success();
        assert_eq!(names.text().lines().count(), 1, "{text:?}: {names}");
        case.run(&["system", "check"]).success();
    }
}

#[test]
fn what_cannot_be_had_again_is_named_and_given_up_only_by_force() {
    need!("docker-registry");
    let mut prepared = Prepared::new();
    prepared.registry.stop();
    let case = prepared.copy("case");
    case.run(&["rm", "kept"]).success();
    remove(&case.root.join("snapshots"));
    for entry in fs::read_dir(case.root.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        Damage::Flipped.inflict(&path);
    }
    let mended = case.run(&["system", "check", "--repair"]).code(1);
    assert!(mended.stdout.contains("small:1") && mended.stderr.contains("--force"), "{mended}");
    case.run(&["images", "-q"]).success();
    let given_up = case.run(&["system", "check", "--repair", "--force"]).success();
    assert!(given_up.stdout.contains("given up"), "{given_up}");
    case.run(&["images", "-q"]).success().prints("");
    case.run(&["system", "check"]).success();
}

#[test]
fn a_damaged_blob_is_found_before_the_other_side_believes_it() {
    need!("docker-registry");
    let prepared = Prepared::new();
    let case = prepared.copy("case");
    let blobs = case.root.join("blobs/sha256");
    let layers = |digest: &str| digest.len() == 64;
    let mut by_size: Vec<_> = fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap()).collect();
    by_size.retain(|entry| layers(entry.file_name().to_str().unwrap()));
    let gzip =
        by_size.iter().find(|entry| fs::read(entry.path()).unwrap().starts_with(&[0x1f, 0x8b])).unwrap();
    Damage::Flipped.inflict(&gzip.path());
    let elsewhere = Registry::start();
    let target = elsewhere.image("copy:1");
    case.run(&["tag", &prepared.image, &target]).success();
    let refused = case.run(&["push", "-q", &target]).code(1);
    assert!(
        refused.stderr.contains("in the store is corrupt") && refused.stderr.contains("hint:"),
        "{refused}"
    );
    // The same size, and listed as if it were here: a pull looks at it all the same, as its file was written to.
    case.run(&["pull", "-q", &prepared.image]).success();
    case.run(&["push", "-q", &target]).success();
    case.run(&["system", "check"]).success();
}

#[test]
fn a_directory_that_is_no_store_is_not_repaired_into_one() {
    let env = Env::new();
    env.write("p/index.json", "{\"name\":\"web\"}");
    env.write("p/tmp/thesis", "x");
    env.write("q/locks/mine", "x");
    env.write("q/tmp/thesis", "x");
    let (p, q) = (env.work().join("p"), env.work().join("q"));
    let root = |dir: &Path| dir.to_str().unwrap().to_owned();
    env.run(["--root", &root(&p), "system", "check", "--repair"]).code(125).stderr_has("not a store");
    env.run(["--root", &root(&p), "volume", "create", "kept"]).code(1).stderr_has("not a store");
    env.run(["--root", &root(&q), "volume", "create", "kept"]).code(1).stderr_has("not a store");
    assert_eq!(fs::read_to_string(p.join("index.json")).unwrap(), "{\"name\":\"web\"}");
    for dir in [p, q] {
        assert_eq!(fs::read_to_string(dir.join("tmp/thesis")).unwrap(), "x");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "nothing is added to {dir:?}");
    }
    // A store that lost its marker is one all the same.
    env.run(["volume", "create", "kept"]).success();
    fs::remove_file(env.store().join("strate.json")).unwrap();
    env.run(["system", "check", "--repair"]).success().stdout_has("strate.json");
    env.run(["volume", "ls", "-q"]).success().prints("kept");
}
