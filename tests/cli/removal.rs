//! Removing containers and volumes: at once, and never what a damaged container may use. And what else is said of those.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::{Env, eventually, need, shared_registry};

fn small_image(env: &Env) {
    env.write("ctx/file", "content\n");
    env.write("ctx/Dockerfile", "FROM scratch\nCOPY file /file\nVOLUME /v\n");
    env.run(["build", "-q", "-t", "img", "ctx"]).success();
}

fn container(env: &Env, name: &str) -> PathBuf {
    let id = env.run(["inspect", "-f", "{{.Id}}", name]).success();
    env.store().join("containers").join(id.text())
}

fn fill(dir: &Path, files: usize) {
    for part in 0..files / 1000 {
        let sub = dir.join(part.to_string());
        std::fs::create_dir_all(&sub).unwrap();
        (0..1000).for_each(|file| drop(std::fs::File::create(sub.join(file.to_string())).unwrap()));
    }
}

fn left_in_tmp(env: &Env) -> usize {
    std::fs::read_dir(env.store().join("tmp")).unwrap().count()
}

#[test]
fn large_containers_and_volumes_go_at_once_and_their_files_after() {
    let env = Env::new();
    small_image(&env);
    env.run(["create", "--name", "big", "--network", "none", "img", "/x"]).success();
    env.run(["volume", "create", "data"]).success();
    fill(&container(&env, "big").join("upper"), 20_000);
    fill(&env.store().join("volumes/data/_data"), 20_000);
    let prune = ["system", "prune", "-f", "--dry-run", "--format", "{{.SpaceReclaimed}}"];
    for args in [&["rm", "big"][..], &["volume", "rm", "data"]] {
        let began = Instant::now();
        env.run(args).success();
        let took = began.elapsed();
        // Whoever looks now sees what is left as work in progress, and a prune neither counts nor removes it twice.
        env.run(["system", "df"]).success();
        let planned: u64 = env.run(prune).success().text().parse().unwrap();
        assert!(planned < 64 << 10, "{args:?}: {planned} bytes are counted that are on their way out");
        eventually("the files go", Duration::from_secs(20), || (left_in_tmp(&env) == 0).then_some(()));
        assert!(took < Duration::from_secs(2), "{args:?} waits for its files: {took:?}");
    }
    env.run(["ps", "-aq"]).success().prints("");
    env.run(["system", "check"]).success();
}

#[test]
fn a_volume_that_a_damaged_container_may_use_stays() {
    let env = Env::new();
    small_image(&env);
    for name in ["mine", "other"] {
        env.run(["volume", "create", name]).success();
    }
    env.run(["create", "--name", "bad", "--network", "none", "-v", "mine:/m", "img", "/x"]).success();
    let dir = container(&env, "bad");
    std::fs::create_dir(dir.join("upper")).unwrap();
    let short = dir.file_name().unwrap().to_str().unwrap()[..12].to_owned();
    for record in [Some("{"), Some(""), None] {
        match record {
            Some(text) => std::fs::write(dir.join("config.json"), text).unwrap(),
            None => std::fs::remove_file(dir.join("config.json")).unwrap(),
        }
        let refused = env.run(["volume", "rm", "mine"]).code(2).stderr_has(&short);
        assert!(refused.stderr.contains(&format!("strate rm -f {short}")), "{refused}");
        env.run(["volume", "rm", "-a"]).code(2);
        assert_eq!(env.run(["volume", "ls", "-q"]).success().text().lines().count(), 3);
    }
    env.run(["volume", "rm", "-f", "other"]).success().prints("other");
    let info = env.run(["info", "--format", "{{.Strate.ContainersDamaged}}"]).success();
    assert_eq!(info.text(), "1");
    env.run(["info"]).success().stderr_has("1 container is damaged and not counted");
    env.run(["rm", "-f", &short]).success();
    env.run(["volume", "rm", "mine"]).success();
    env.run(["info"]).success().stderr_lacks("damaged");
}

#[test]
fn a_container_that_never_started_holds_nothing_but_its_record() {
    let env = Env::new();
    small_image(&env);
    env.run(["create", "--name", "new", "--network", "none", "-v", "mine:/m", "img", "/x"]).success();
    let dir = container(&env, "new");
    std::fs::write(env.store().join("volumes/mine/_data/f"), "x").unwrap();
    let names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["config.json"], "what else it holds would be lost with its record");
    let volumes = env.run(["volume", "ls", "-q"]).success().stdout;
    std::fs::remove_file(dir.join("config.json")).unwrap();
    env.run(["system", "check", "--repair"]).success();
    assert!(!dir.exists(), "it is half made, and swept");
    env.run(["volume", "ls", "-q"]).success().prints(volumes.trim_end());
    assert!(env.store().join("volumes/mine/_data/f").exists());
    env.run(["create", "--name", "new", "--network", "none", "img", "/x"]).success();
}

#[test]
fn a_commit_has_the_time_that_it_is_given() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    let made = |name: &str, time: &str| {
        let script = format!("echo x >/f; touch -d {time} /f");
        env.run(["run", "--network", "none", "--name", name, &image, "sh", "-c", &script]).success();
    };
    made("a", "@1700000000");
    made("b", "@1700000001");
    let commit = |args: &[&str]| {
        let id = env.run([&["commit"], args].concat()).success();
        let created = env.run(["inspect", "-f", "{{.Created}}", id.text()]).success();
        (id.text().to_owned(), created.text().to_owned())
    };
    let (one, created) = commit(&["--timestamp", "1600000000", "a"]);
    assert!(created.starts_with("2020-09-13T12:26:40"), "{created}");
    let two = commit(&["--timestamp", "1600000000", "b"]).0;
    let clamped = commit(&["--source-date-epoch=1600000000", "--rewrite-timestamp", "b"]).0;
    assert!(!one.is_empty() && two.starts_with("sha256:"));
    let layers = |id: &str| env.run(["inspect", "-f", "{{index .RootFS.Layers 1}}", id]).success().stdout;
    assert_eq!(layers(&one), layers(&two), "all times are the same");
    assert_eq!(layers(&two), layers(&clamped), "none is later");
    let (kept, created) = commit(&["--source-date-epoch", "1600000000", "b"]);
    assert!(created.starts_with("2020-09-13T12:26:40") && layers(&kept) != layers(&one));
    let env = env.with("SOURCE_DATE_EPOCH", "0");
    let id = env.run(["commit", "a"]).success();
    env.run(["inspect", "-f", "{{.Created}}", id.text()]).success().stdout_has("1970-01-01T00:00:00");
    let env = env.with("SOURCE_DATE_EPOCH", "soon");
    env.run(["commit", "a"]).code(1).stderr_has("SOURCE_DATE_EPOCH").stderr_has("soon");
}

#[test]
fn a_commit_on_a_full_disk_changes_nothing_and_works_when_there_is_room() {
    need!("unshare", "mount");
    let env = Env::new();
    let script = r#"
        set -e
        strate="$0 --root $PWD/store/s"
        mkdir -p store && mount -t tmpfs -o size=6m tmpfs store
        echo x > file && printf 'FROM scratch\nCOPY file /\n' > Dockerfile
        $strate build -q -t x . > /dev/null
        id=$($strate create --network none x /y)
        mkdir store/s/containers/$id/upper
        head -c 400000 /dev/urandom > store/s/containers/$id/upper/noise
        cat /dev/zero > store/fill 2> /dev/null || true
        $strate commit $id made 2> error && { echo "it says that it has worked"; exit 9; }
        grep -q 'No space left' error || { cat error; exit 8; }
        $strate images --format '{{.Repository}}'
        rm store/fill
        $strate system check --quick > /dev/null
        $strate commit $id made > /dev/null
        $strate images --format '{{.Repository}}' | sort
        $strate system check > /dev/null
        ls store/s/tmp
    "#;
    let mut command = env.program("unshare");
    command.args(if crate::support::is_root() { &["-m"][..] } else { &["-Urm"] });
    command.args(["sh", "-c", script]).arg(crate::support::strate());
    let output = crate::support::Output::of(&mut command);
    if output.stderr.contains("unshare failed") {
        return crate::support::skip("no user namespaces");
    }
    output.success().prints("x\nmade\nx");
}
