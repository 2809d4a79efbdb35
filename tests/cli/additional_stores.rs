//! Stores of others, used where they lie.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use crate::support::{Env, Output, is_root, need, not_for, shared_registry, strate};

/// Sizes and times of everything in a directory.
fn state(dir: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let meta = entry.metadata().unwrap();
            all.insert(entry.path(), (meta.len(), meta.mtime(), meta.ctime()));
            if meta.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    all
}

/// Bytes of regular files in a part of the store.
fn bytes(dir: &Path) -> u64 {
    state(dir).iter().filter(|(path, _)| path.is_file()).map(|(_, (size, ..))| size).sum()
}

/// A store at `site` with busybox in it, and an environment that reads it.
fn site(env: &Env) -> (PathBuf, String) {
    let image = shared_registry().image("busybox:latest");
    let site = env.work().join("site");
    env.run(["--root", site.to_str().unwrap(), "pull", "-q", &image]).success();
    (site, image)
}

#[test]
fn images_of_an_additional_store_are_used_without_copying() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let (site, image) = site(&env);
    let env = env.with("STRATE_IMAGESTORE", &site);
    let before = state(&site);

    let listed = env.run(["images"]).success().stdout_has("R/O");
    assert!(listed.stdout.lines().any(|line| line.trim_end().ends_with("true")), "{listed}");
    env.run(["images", "--format", "{{.ReadOnly}}"]).success().prints("true");
    env.run(["inspect", "--format", "{{.Architecture}}", &image]).success();
    env.run(["history", &image]).success();
    env.run(["run", "--rm", "--network", "none", &image, "echo", "it runs"]).success().prints("it runs");
    assert_eq!(bytes(&env.store().join("blobs")), 0, "no blob is copied");
    let unpacked = fs::read_dir(env.store().join("snapshots")).unwrap().count();
    assert_eq!(unpacked, 1, "nothing but CACHEDIR.TAG: no layer is unpacked again");

    env.write("Dockerfile", format!("FROM {image}\nRUN echo new > /new\n"));
    env.run(["build", "-q", "--network", "none", "-t", "made", "."]).success();
    env.run(["tag", &image, "mine:1"]).success();
    env.run(["save", "-o", "made.tar", "made"]).success();
    let base = bytes(&site.join("blobs"));
    let own = bytes(&env.store().join("blobs"));
    assert!(own * 4 < base, "{own} bytes of blobs beside {base} of the additional store");
    env.run(["pull", "-q", &image]).success();
    assert!(bytes(&env.store().join("blobs")) * 4 < base, "a pull finds the layers there");
    env.check_store().sound();
    env.run(["system", "check"]).success();
    env.run(["image", "prune", "-af"]).success();
    env.run(["run", "--rm", "--network", "none", &image, "true"]).success();
    assert_eq!(state(&site), before, "the additional store is never written");
}

#[test]
fn what_another_store_holds_is_not_removed_and_a_gone_one_is_named() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let (site, image) = site(&env);
    let env = env.with("STRATE_IMAGESTORE", &site);
    let shown = site.display().to_string();
    env.run(["rmi", &image]).code(1).stderr_has("only read").stderr_has(&format!("--root {shown} rmi"));
    env.run(["tag", &image, "mine:1"]).success();
    env.run(["rmi", "mine:1"]).success();
    env.run(["images", "-q", "mine"]).success().prints("");
    env.run(["tag", &image, "mine:2"]).success();
    env.run(["system", "check"]).success();

    fs::rename(&site, env.work().join("moved")).unwrap();
    let listed = env.run(["images"]).success().stderr_has(&shown).stderr_has("is not used");
    assert_eq!(listed.stderr.matches("is not used").count(), 1, "{listed}");
    assert!(listed.stdout.contains("mine") && !listed.stdout.contains(&image), "{listed}");
    let shown_by_check = env.run(["system", "check"]).code(1);
    assert!(shown_by_check.stdout.contains("it lay in the additional store"), "{shown_by_check}");
    env.check_store().has_defect("needs it as layer");
    let gone = env.run(["run", "--rm", "--network", "none", "mine:2", "true"]).code(125);
    assert!(gone.stderr.contains("took it from the additional store"), "{gone}");
    env.run(["save", "-o", "x.tar", "mine:2"]).code(1).stderr_has("took it from the additional store");
    // What lacks is simply fetched.
    env.run(["pull", "-q", &image]).success();
    env.run(["run", "--rm", "--network", "none", "mine:2", "true"]).success();
}

/// What is wrong there cannot be mended from here: it is said where it lies, and a pull gets a good one.
#[test]
fn a_corrupt_blob_of_an_additional_store_is_told_by_its_place() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let (site, image) = site(&env);
    let env = env.with("STRATE_IMAGESTORE", &site);
    let largest = state(&site.join("blobs")).into_iter().filter(|(path, _)| path.is_file());
    let (layer, _) = largest.max_by_key(|(_, (size, ..))| *size).unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&layer, bytes).unwrap();
    for snapshot in fs::read_dir(site.join("snapshots")).unwrap().flatten() {
        if snapshot.path().is_dir() {
            fs::remove_dir_all(snapshot.path()).unwrap();
        }
    }
    let before = state(&site);
    let run = ["run", "--rm", "--network", "none", &image, "true"];
    let shown = site.display().to_string();
    env.run(run)
        .code(125)
        .stderr_has(&format!("in the additional store `{shown}` is corrupt"))
        .stderr_has(&format!("--root {shown} system check --repair"));
    env.run(["tag", &image, "mine:1"]).success();
    env.check_store().has_defect("in the additional store");
    env.run(["pull", "-q", &image]).success();
    env.run(run).success();
    env.check_store().sound();
    assert_eq!(state(&site), before, "the additional store is never written");
}

/// Keep a document as a blob; the descriptor's digest and size.
fn put_blob(store: &Path, document: &serde_json::Value) -> (String, usize) {
    let bytes = serde_json::to_vec(document).unwrap();
    let hex: String = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(store.join("blobs/sha256").join(&hex), &bytes).unwrap();
    (format!("sha256:{hex}"), bytes.len())
}

fn blob(store: &Path, digest: &serde_json::Value) -> serde_json::Value {
    let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
    serde_json::from_slice(&fs::read(store.join("blobs/sha256").join(hex)).unwrap()).unwrap()
}

/// Anything can stand in the list of a store that belongs to somebody else: digests there count only as far as the blobs
/// bear them out, and a config does not get at layers of ours by naming them.
#[test]
fn what_somebody_elses_store_claims_is_not_believed() {
    need!("docker-registry", "skopeo", "busybox");
    if !is_root() {
        return not_for("an ordinary user, who cannot make files of others");
    }
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    env.run(["pull", "-q", &image]).success();
    let diff_id =
        env.run(["inspect", "--format", "{{index .RootFS.Layers 0}}", &image]).success().text().to_owned();
    let site = env.work().join("site");
    let root = site.to_str().unwrap();
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    env.run(["--root", root, "build", "-q", "-t", "evil", "."]).success();
    let path = site.join("index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let true_entry = index["manifests"][0].clone();
    let mut manifest = blob(&site, &true_entry["digest"]);
    let mut config = blob(&site, &manifest["config"]["digest"]);
    config["rootfs"]["diff_ids"][0] = diff_id.clone().into();
    let (digest, size) = put_blob(&site, &config);
    manifest["config"]["digest"] = digest.into();
    manifest["config"]["size"] = size.into();
    let (digest, size) = put_blob(&site, &manifest);
    let (pinned, id) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
    let entry = |name: &str, digest: &str, size: usize| {
        serde_json::json!({
            "mediaType": true_entry["mediaType"], "digest": digest, "size": size,
            "annotations": {
                "org.opencontainers.image.ref.name": name, "io.strate.index.digest": pinned,
                "io.strate.config": id, "io.strate.size": "1"
            }
        })
    };
    let (true_digest, true_size) =
        (true_entry["digest"].as_str().unwrap(), true_entry["size"].as_u64().unwrap() as usize);
    index["manifests"] = serde_json::json!([
        entry("docker.io/library/liar:1", &digest, size),
        entry("docker.io/library/other:1", true_digest, true_size),
        entry(&format!("docker.io/library/debian@{pinned}"), true_digest, true_size),
    ]);
    fs::write(&path, index.to_string()).unwrap();
    let env = env.with("STRATE_IMAGESTORE", &site);
    // As long as the store is ours it is believed, which shows that the claims are understood.
    env.run(["inspect", &format!("other@{pinned}")]).success();
    std::os::unix::fs::chown(&site, Some(12345), None).unwrap();
    let listed = env.run(["images", "--no-trunc", "--digests"]).success();
    assert!(listed.stdout.contains("other") && !listed.stdout.contains("debian"), "{listed}");
    assert!(!listed.stdout.contains(&pinned) && !listed.stdout.contains(&id), "{listed}");
    for text in [format!("other@{pinned}"), format!("debian@{pinned}"), id.clone()] {
        env.run(["image", "inspect", &text]).code(1);
    }
    env.run(["inspect", &format!("other@{true_digest}")]).success();
    let run = ["run", "--rm", "--network", "none", "liar:1", "echo", "from our layer"];
    env.run(run).code(125).stderr_has(&diff_id);
}

#[test]
fn stores_are_named_by_flag_environment_and_configuration() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let (site, image) = site(&env);
    let theirs = env.work().join("theirs");
    fs::create_dir_all(theirs.join("overlay-images")).unwrap();
    let conf = format!("[storage.options]\nadditionalimagestores = [{:?}, {:?}]\n", theirs, site);
    let conf = env.write("storage.conf", conf);
    let ids = |output: Output| output.success().stderr_lacks("not used").stdout.lines().count();
    let flag = site.display().to_string();
    assert_eq!(ids(env.run(["images", "-q"])), 0);
    assert_eq!(ids(env.run(["--imagestore", &flag, "images", "-q"])), 1);
    assert_eq!(ids(env.run(["images", "-q", "--imagestore", &flag, "--imagestore", &flag])), 1);
    let configured = env.with("CONTAINERS_STORAGE_CONF", &conf);
    assert_eq!(ids(configured.run(["images", "-q"])), 1);
    configured.run(["info", "--format", "{{json .Strate.AdditionalStores}}"]).success().stdout_has("site");
    configured.run(["doctor"]).stdout_has("theirs");
    // One of podman that holds images is told, once a command; an empty one is nobody's loss.
    fs::write(theirs.join("overlay-images/images.json"), r#"[{"id":"x"}]"#).unwrap();
    let told = configured.run(["images", "-q"]).success();
    assert_eq!(told.stderr.matches("import-store containers-storage").count(), 1, "{told}");
    assert_eq!(told.stdout.lines().count(), 1, "{told}");
    let named = configured.run(["--imagestore", theirs.to_str().unwrap(), "images", "-q"]).success();
    assert!(named.stderr.contains("import-store containers-storage"), "{named}");
    let complete = configured.command(["--imagestore", &flag, "inspect", &image]);
    drop(complete);
    configured.write("storage.conf", "not toml [");
    configured.run(["images", "-q"]).success().stderr_has("storage.conf").prints("");
}

/// An ordinary user reads what root shares, and nothing more.
#[test]
fn a_shared_store_serves_other_users_and_keeps_its_files_to_itself() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let (site, image) = site(&env);
    let root = site.to_str().unwrap();
    env.run(["--root", root, "system", "share"]).success().stderr_has("--imagestore");
    let mode = |path: &str| fs::metadata(site.join(path)).unwrap().permissions().mode() & 0o777;
    for open in ["", "blobs", "blobs/sha256", "cache/layers"] {
        assert_eq!(mode(open), 0o755, "{open}");
    }
    for closed in ["snapshots", "containers", "volumes", "tmp", "locks", "partial", "cache/records"] {
        assert_eq!(mode(closed), 0o700, "{closed}");
    }
    // What comes later is readable too, whatever the umask says.
    env.write("Dockerfile", format!("FROM {image}\nLABEL later=yes\n"));
    let script = format!("umask 077; exec \"$0\" --root {root} build -q -t later .");
    Output::of(env.program("sh").args(["-c", &script]).arg(strate())).success();
    let closed = |dir: &str| {
        let entries = fs::read_dir(site.join(dir)).unwrap().flatten();
        entries.filter(|entry| entry.metadata().unwrap().permissions().mode() & 0o044 != 0o044).count()
    };
    assert_eq!(closed("blobs/sha256") + closed("cache/layers"), 0);
    assert_eq!(mode("index.json") & 0o044, 0o044);
    env.run(["--root", root, "system", "check"]).success();
    env.run(["--root", root, "system", "share", "--off"]).success();
    assert_eq!(mode(""), 0o700);
}

/// As root: another user, with a store of its own.
#[test]
fn an_ordinary_user_runs_what_root_shares() {
    need!(root);
    need!("docker-registry", "skopeo", "busybox", "runuser");
    let Some(user) = ["tester", "nobody"].into_iter().find(|user| {
        std::process::Command::new("id").arg(user).output().is_ok_and(|output| output.status.success())
    }) else {
        return;
    };
    let env = Env::new();
    let (site, image) = site(&env);
    env.run(["--root", site.to_str().unwrap(), "system", "share"]).success();
    // The way there, and a place for what is the user's.
    let home = env.work().join("theirs");
    fs::create_dir(&home).unwrap();
    let top = env.work();
    for dir in [top.as_path(), top.parent().unwrap()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = env.work().join("strate");
    fs::copy(strate(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    crate::support::must(std::process::Command::new("chown").arg(user).arg(&home));
    let run = |args: &[&str]| {
        let mut command = env.program("runuser");
        command.args(["-u", user, "--", "env"]).arg(format!("HOME={}", home.display())).arg(&program);
        Output::of(command.current_dir(&home).arg("--imagestore").arg(&site).args(args))
    };
    let before = state(&site);
    run(&["images", "--format", "{{.ReadOnly}}"]).success().prints("true");
    run(&["inspect", &image]).success();
    run(&["tag", &image, "mine:1"]).success();
    run(&["save", "-o", "out.tar", "mine:1"]).success();
    let ran = run(&["run", "--rm", "--network", "none", "mine:1", "id", "-u"]);
    if !ran.stderr.contains("user namespace") {
        ran.success().prints("0");
    }
    let own = home.join(".local/share/strate");
    assert!(bytes(&own.join("blobs")) * 4 < bytes(&site.join("blobs")), "no layer's blob is copied");
    assert_eq!(state(&site), before);
}

/// A container knows where the layers lie that it runs from, and finds them again without being told.
#[test]
fn a_container_says_which_store_it_came_from_when_that_is_gone() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let (site, image) = site(&env);
    let (root, shown) = (site.to_str().unwrap(), site.display().to_string());
    let create = ["create", "--network", "none", "--name", "web", &image, "echo", "it runs"];
    env.run(["--imagestore", root].iter().chain(&create)).success();
    env.run(["inspect", "-f", "{{json .ImageStores}}", "web"])
        .success()
        .prints(&format!("[\"{shown}\"]"))
        .stderr_lacks("is not there");
    env.run(["start", "-a", "web"]).success().prints("it runs");
    env.check_store().sound();

    let moved = env.work().join("moved");
    fs::rename(&site, &moved).unwrap();
    env.run(["inspect", "web"])
        .success()
        .stderr_has(&format!("container `web` needs layers of the additional image store `{shown}`"));
    env.run(["start", "-a", "web"])
        .code(125)
        .stderr_has(&format!("took it from the additional store `{shown}`"))
        .stderr_has(&format!("--imagestore {shown}"));
    fs::rename(&moved, &site).unwrap();
    env.run(["start", "-a", "web"]).success().prints("it runs");
    // One that was made from what is here names none.
    env.run(["pull", "-q", &image]).success();
    env.run(["create", "--network", "none", "--name", "own", &image, "true"]).success();
    env.run(["inspect", "-f", "{{json .ImageStores}}", "own"]).success().prints("[]");
}

/// In a shared store too only what others are to read is open: unpacked layers hold set-user-id programs.
#[test]
fn what_is_open_further_than_a_shared_store_is_closed_again() {
    let env = Env::new();
    env.run(["system", "share"]).success();
    let mode = |name: &str| fs::metadata(env.store().join(name)).unwrap().permissions().mode() & 0o777;
    let open = |name: &str, mode| {
        fs::set_permissions(env.store().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    env.run(["system", "check"]).success();
    for wide in [0o755, 0o777, 0o701] {
        for name in ["snapshots", "containers", "volumes", "tmp", "locks"] {
            open(name, wide);
        }
        env.run(["system", "check"]).code(1).stdout_has(&format!("is open to others (mode {wide:04o})"));
        env.run(["system", "check", "--repair"]).success().stdout_has("was closed to others");
        for name in ["snapshots", "containers", "volumes", "tmp", "locks"] {
            assert_eq!(mode(name), 0o700, "{name} was {wide:o}");
        }
    }
    open("blobs", 0o777);
    open("cache", 0o755);
    env.run(["system", "check", "--repair"]).success();
    assert_eq!((mode("."), mode("blobs"), mode("cache")), (0o755, 0o755, 0o711));
    env.run(["system", "check"]).success();
}
