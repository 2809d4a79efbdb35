//! Containers of one image under different id maps, side by side.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::support::{Env, Output, is_root, must, need, shared_registry};

/// How many files the layer has whose owner is not the user's own.
const FILES: usize = 8;

/// An image with a layer of files that belong to user 33, each with its number in it.
fn image(env: &Env) {
    let base = shared_registry().image("busybox:latest");
    for n in 0..FILES {
        env.write(&format!("context/www/{n}"), format!("{n}\n"));
    }
    env.write("context/context/file", "plain\n");
    env.write(
        "context/Dockerfile",
        format!("FROM {base}\nCOPY --chown=33:33 www /www\nCOPY --chown=0:0 context /plain\n"),
    );
    env.run(["build", "-q", "-t", "img", "context"]).success();
}

fn start(env: &Env, mode: &str, name: &str) {
    let mut args = vec!["--userns-mode", mode, "run", "-d", "--network", "none", "--name", name, "img"];
    args.extend(["sleep", "100"]);
    env.run(args).success();
}

/// The container still has the files of its image: the next one, which nobody has looked at yet, too.
#[track_caller]
fn reads(env: &Env, name: &str, file: usize) {
    let path = format!("/www/{file}");
    env.run(["exec", name, "cat", &path]).success().prints(&file.to_string());
    env.run(["exec", name, "ls", "/bin/busybox"]).success();
}

fn once(env: &Env, mode: &str, command: &[&str]) -> Output {
    let args = ["--userns-mode", mode, "run", "--rm", "--network", "none", "img"];
    env.run(args.iter().chain(command)).success()
}

/// The snapshots and what tells that one is still the same directory.
fn snapshots(env: &Env) -> BTreeMap<PathBuf, u64> {
    let entries = std::fs::read_dir(env.store().join("snapshots")).unwrap().flatten();
    let dirs = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    dirs.map(|path| (path.clone(), path.metadata().unwrap().ino())).collect()
}

fn rebuild_nothing(env: &Env, before: &BTreeMap<PathBuf, u64>) {
    assert_eq!(snapshots(env), *before, "what was unpacked is used again");
}

/// Whether the user can have more than one id.
fn maps() -> Option<[&'static str; 2]> {
    match is_root() {
        true => Some(["root", "single"]),
        false => ["newuidmap", "newgidmap"]
            .iter()
            .all(|name| crate::support::program(name).is_some())
            .then_some(["full", "single"]),
    }
}

#[test]
fn an_id_map_does_not_take_the_files_of_another_away() {
    need!("docker-registry", "skopeo", "busybox");
    let Some([wide, single]) = maps() else { return crate::support::skip("newuidmap is not installed") };
    for [first, second] in [[wide, single], [single, wide]] {
        let env = Env::new();
        image(&env);
        // As a pull leaves it, without what the build took over.
        env.run(["save", "-o", "img.tar", "img"]).success();
        env.run(["system", "prune", "-af"]).success();
        env.run(["--userns-mode", first, "load", "-q", "-i", "img.tar"]).success();
        start(&env, first, "first");
        let alone = snapshots(&env);
        reads(&env, "first", 0);
        once(&env, second, &["cat", "/www/1"]).prints("1");
        reads(&env, "first", 2);
        let both = snapshots(&env);
        let twice = |file: &str| both.keys().filter(|dir| dir.join("fs").join(file).is_dir()).count();
        assert_eq!(
            (twice("www"), twice("plain")),
            (2, 1),
            "only layers with other owners are there twice: {both:?}"
        );
        assert!(alone.iter().all(|(path, inode)| both.get(path) == Some(inode)), "{alone:?} {both:?}");
        start(&env, second, "second");
        once(&env, first, &["true"]);
        reads(&env, "first", 3);
        reads(&env, "second", 3);
        rebuild_nothing(&env, &both);
        if wide == "root" {
            // Root's own namespace with all ids: the same on disk.
            once(&env, "full", &["stat", "-c", "%u", "/www/0"]).prints("33");
            rebuild_nothing(&env, &both);
        }
        once(&env, wide, &["stat", "-c", "%u:%g", "/www/0"]).prints("33:33");

        // Checks, sums and collections know both.
        for mode in [first, second] {
            env.run(["--userns-mode", mode, "system", "check"]).success();
        }
        env.check_store().sound();
        env.run(["rmi", "-f", "img"]);
        env.run(["system", "prune", "-af"]).success();
        rebuild_nothing(&env, &both);
        reads(&env, "first", 4);
        reads(&env, "second", 4);
        env.run(["rm", "-f", "first", "second"]).success();
        env.run(["system", "prune", "-af"]).success();
        assert_eq!(snapshots(&env), BTreeMap::new());
        env.check_store().sound();
    }
}

fn only(dirs: impl IntoIterator<Item = PathBuf>) -> PathBuf {
    let dirs: Vec<PathBuf> = dirs.into_iter().collect();
    assert_eq!(dirs.len(), 1, "{dirs:?}");
    dirs[0].clone()
}

fn damage(env: &Env, file: &Path) {
    let script = "rm -f \"$1/0\"; echo wrong >\"$1/1\"";
    let mut command = match is_root() {
        true => env.program("sh"),
        false => {
            let mut unshare = env.program("unshare");
            unshare.args(["--user", "--map-root-user", "--map-auto", "sh"]);
            unshare
        }
    };
    must(command.args(["-c", script, "sh"]).arg(file));
}

#[test]
fn a_repair_leaves_what_a_container_runs_from() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    image(&env);
    let run = ["run", "-d", "--network", "none", "--name", "web", "img", "sleep", "100"];
    env.run(run).success();
    let www = only(snapshots(&env).into_keys().map(|dir| dir.join("fs/www")).filter(|dir| dir.is_dir()));
    damage(&env, &www);
    env.run(["system", "check"]).code(1).stdout_has("www/0");
    let before = snapshots(&env);
    env.run(["system", "check", "--repair"])
        .code(1)
        .stdout_has("stays as it is while container `web` runs from it")
        .stdout_has("strate stop web");
    rebuild_nothing(&env, &before);
    env.run(["exec", "web", "cat", "/www/5"]).success().prints("5");

    env.run(["stop", "-t", "0", "web"]).success();
    env.run(["system", "check", "--repair"]).success().stdout_has("was unpacked again");
    env.run(["system", "check", "--repair"]).success();
    env.run(["start", "web"]).success();
    env.run(["exec", "web", "cat", "/www/0", "/www/1"]).success().prints("0\n1");
    env.check_store().sound();
}

/// A marker that makes no sense is no reason either: who needs the layer anew gets a place of his own.
#[test]
fn a_lost_marker_takes_no_files_away_from_who_runs() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    image(&env);
    env.run(["run", "-d", "--network", "none", "--name", "web", "img", "sleep", "100"]).success();
    let before = snapshots(&env);
    let dir = only(before.keys().filter(|dir| dir.join("fs/www").is_dir()).cloned());
    std::fs::write(dir.join("meta.json"), "{}").unwrap();
    env.run(["run", "--rm", "--network", "none", "img", "cat", "/www/6"]).success().prints("6");
    reads(&env, "web", 7);
    assert_eq!(snapshots(&env).len(), before.len() + 1);
    env.run(["rm", "-f", "web"]).success();
    env.run(["system", "check", "--repair"]).success();
    env.run(["system", "check"]).success();
    env.run(["run", "--rm", "--network", "none", "img", "cat", "/www/6"]).success().prints("6");
}
