//! What lies in a store, seen from outside: its files, its names, and whether what they promise is true.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sha2::Digest as _;

use super::support::{is_root, must};

/// Files by their path in the store, with their size where that is always the same.
pub type Listing = BTreeMap<String, Option<u64>>;

/// Every file and directory of a store.
///
/// Without a size: records with times in them, whose length is not always the same. Left out: `locks/`, whose empty
/// files are bounded by what was ever locked and swept when nobody else is there; remarks about what happened; the generation before `index.json`.
pub fn listing(store: &Path) -> Listing {
    let mut all = Listing::new();
    walk(store, store, &mut all);
    all
}

fn walk(top: &Path, dir: &Path, all: &mut Listing) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let mut name = without_id(&path.strip_prefix(top).unwrap().display().to_string());
        let Ok(meta) = path.symlink_metadata() else { continue };
        let left_out =
            ["locks/", "cache/places", "containers/events"].iter().any(|start| name.starts_with(start));
        if left_out || name.ends_with(".json.bak") || is_of_another_map(&name) {
            continue;
        }
        while all.contains_key(&name) {
            name.push('+');
        }
        let varies = name.ends_with(".json") || name.starts_with("cache/");
        all.insert(name, (meta.is_file() && !varies).then_some(meta.len()));
        if meta.is_dir() {
            walk(top, &path, all);
        }
    }
}

/// Whether it is a layer unpacked for another id map: a command that could not have its usual one, since a fork failed once,
/// goes on with a lesser one, and what it unpacked stays as a cache beside the usual.
fn is_of_another_map(name: &str) -> bool {
    let of_map = |dir: &str| {
        dir.rsplit_once('.')
            .is_some_and(|(_, map)| map.len() == 8 && map.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    name.strip_prefix("snapshots/").is_some_and(|rest| of_map(rest.split('/').next().unwrap_or_default()))
}

/// A container's id is another one each time.
fn without_id(name: &str) -> String {
    match name.strip_prefix("containers/").and_then(|rest| rest.split_at_checked(64)) {
        Some((id, rest)) if id.bytes().all(|b| b.is_ascii_hexdigit()) => format!("containers/ID{rest}"),
        _ => name.to_owned(),
    }
}

/// The same without digests: only how many there are.
pub fn without_digests(listing: &Listing) -> Listing {
    let mut all = Listing::new();
    for (name, size) in listing {
        let parts = name.split('/').map(|part| if part.len() >= 64 { "DIGEST" } else { part });
        let mut short = parts.collect::<Vec<_>>().join("/");
        let size = size.filter(|_| short == *name);
        while all.contains_key(&short) {
            short.push('+');
        }
        all.insert(short, size);
    }
    all
}

/// What one listing has and the other has not. A cache may lack anything: it is made again when it is needed.
pub fn difference(found: &Listing, expected: &Listing) -> Vec<String> {
    let more = found.iter().filter(|(name, size)| expected.get(*name) != Some(size));
    let is_cache = |name: &str| name.starts_with("snapshots/") || name.starts_with("cache/");
    let lost = |name: &String| !found.contains_key(name) && is_cache(name);
    let less = expected.iter().filter(|(name, size)| found.get(*name) != Some(size) && !lost(name));
    more.map(|(name, size)| format!("+ {name} {size:?}"))
        .chain(less.map(|(name, size)| format!("- {name} {size:?}")))
        .collect()
}

/// The names of a store and what they point to; containers and volumes.
pub fn names(store: &Path) -> BTreeSet<String> {
    let mut all = images(store);
    for dir in files(&store.join("containers")) {
        if let Ok(bytes) = std::fs::read(dir.join("config.json")) {
            let record: Value = serde_json::from_slice(&bytes).expect("a container's record is whole");
            all.insert(format!("container {}", record["name"]));
        }
    }
    for dir in files(&store.join("volumes")) {
        all.insert(format!("volume {}", dir.file_name().unwrap().display()));
    }
    all
}

fn images(store: &Path) -> BTreeSet<String> {
    let Ok(bytes) = std::fs::read(store.join("index.json")) else { return BTreeSet::new() };
    let index: Value = serde_json::from_slice(&bytes).expect("index.json is whole");
    let name = |entry: &Value| {
        let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or("-");
        format!("{name} {}", entry["digest"].as_str().unwrap())
    };
    index["manifests"].as_array().unwrap().iter().map(name).collect()
}

/// What is wrong in a store: names without their content, blobs and snapshots that are not whole, records that cannot
/// be read, locks that are held.
pub fn defects(store: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for path in files(&store.join("blobs/sha256")) {
        let hex: String =
            sha2::Sha256::digest(std::fs::read(&path).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
        if path.file_name().unwrap().to_str() != Some(&hex) {
            all.push(format!("{} has other bytes than its name says", path.display()));
        }
    }
    if let Ok(bytes) = std::fs::read(store.join("index.json")) {
        match serde_json::from_slice::<Value>(&bytes) {
            Ok(index) => references(store, &index, true, &mut all),
            Err(error) => all.push(format!("index.json: {error}")),
        }
    }
    for path in files(&store.join("snapshots")).into_iter().filter(|path| path.is_dir()) {
        let marker = std::fs::read(path.join("meta.json")).unwrap_or_default();
        if serde_json::from_slice::<Value>(&marker).is_err() || !path.join("fs").is_dir() {
            all.push(format!("{} is not whole", path.display()));
        }
    }
    for path in files(&store.join("locks")) {
        let file = std::fs::File::open(&path).unwrap();
        if rustix::fs::flock(file.as_fd(), rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            all.push(format!("{} is held", path.display()));
        }
    }
    all
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir).map(|all| all.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
}

fn references(store: &Path, document: &Value, named: bool, all: &mut Vec<String>) {
    let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
    for descriptor in list("manifests") {
        let here = blob(store, &descriptor).exists();
        if here || named {
            check(store, &descriptor, all);
        }
        if here
            && let Ok(Ok(inner)) = std::fs::read(blob(store, &descriptor)).map(|b| serde_json::from_slice(&b))
        {
            references(store, &inner, false, all);
        }
    }
    for descriptor in list("layers").iter().chain(document.get("config").filter(|c| c["digest"].is_string()))
    {
        check(store, descriptor, all);
    }
}

fn check(store: &Path, descriptor: &Value, all: &mut Vec<String>) {
    let size = std::fs::metadata(blob(store, descriptor)).map(|meta| meta.len()).ok();
    if size != descriptor["size"].as_u64() {
        all.push(format!(
            "{} is promised with {} bytes and has {size:?}",
            descriptor["digest"], descriptor["size"]
        ));
    }
}

fn blob(store: &Path, descriptor: &Value) -> std::path::PathBuf {
    store.join("blobs").join(descriptor["digest"].as_str().unwrap_or("?").replace(':', "/"))
}

/// Make a store as another one is, if that is there.
pub fn copy(from: &Path, to: &Path) {
    remove(to);
    if from.exists() {
        // The directory that overlayfs works in forbids everything, to its owner too.
        let mut command = Command::new(if is_root() { "cp" } else { "unshare" });
        if !is_root() {
            command.args(["--user", "--map-root-user", "cp"]);
        }
        must(command.arg("-a").arg(from).arg(to));
    }
}

/// Remove a tree, files of subordinate ids among it.
pub fn remove(path: &Path) {
    if path.exists() && std::fs::remove_dir_all(path).is_err() {
        let mut command = Command::new("unshare");
        must(command.args(["--user", "--map-root-user", "--map-auto", "rm", "-rf", "--"]).arg(path));
    }
}
