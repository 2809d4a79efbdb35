//! `rmi`, `image prune`

use std::time::{Duration, Instant};

use crate::support::{Env, Output, Registry, eventually, is_root, need, shared_registry, skip, strate};

#[test]
fn a_used_image_stays_and_names_go_first() {
    need!("docker-registry", "skopeo", "busybox");
    let image = shared_registry().image("busybox:latest");
    let env = Env::new();
    env.run(["pull", "-q", &image]).success();
    let id = env.run(["images", "-q", "--no-trunc", &image]).success().text().to_owned();
    env.run(["create", "--name", "user", "--network", "none", &image, "true"]).success();
    env.run(["rmi", &image]).code(2).stderr_has("user");
    env.run(["start", "-a", "user"]).success();
    env.run(["rm", "user"]).success();
    env.run(["tag", &image, "other:1"]).success();
    let untagged = env.run(["rmi", "other:1"]).success();
    assert!(untagged.stdout.starts_with("Untagged: other:1"), "{untagged}");
    assert!(!untagged.stdout.contains("Deleted:"), "{untagged}");
    env.run(["tag", &image, "other:2"]).success();
    env.run(["rmi", &id]).code(1).stderr_has("--force");
    let gone = env.run(["rmi", "-f", &id]).success();
    assert!(gone.stdout.contains("Untagged: ") && gone.stdout.contains(&format!("Deleted: {id}")), "{gone}");
    env.run(["images", "-aq"]).success().prints("");
    env.run(["rmi", &image]).code(1).stderr_has("busybox");
    env.run(["rmi", "-f", &image]).success();
}

#[test]
fn prune_takes_what_nothing_uses() {
    need!("docker-registry", "skopeo", "busybox");
    let image = shared_registry().image("busybox:latest");
    let env = Env::new();
    env.run(["pull", "-q", &image]).success();
    for label in ["one", "two"] {
        env.write("Dockerfile", format!("FROM {image}\nLABEL made={label}\nCOPY {label} /\n"));
        env.write(label, label);
        env.run(["build", "-q", "-t", "made", "."]).success();
    }
    // The first build's image has lost its name to the second.
    env.run(["images", "-q", "--filter", "dangling=true"]).success();
    let pruned = env.run(["image", "prune", "-f"]).success().stdout_has("Total reclaimed space:");
    assert_eq!(
        pruned.stdout.lines().filter(|line| line.starts_with("deleted: ")).count().min(1),
        1,
        "{pruned}"
    );
    env.run(["images", "--format", "{{.Repository}}", "made"]).success().prints("made");
    env.run(["create", "--name", "keeper", "--network", "none", &image, "true"]).success();
    env.run(["image", "prune", "-af"]).success();
    env.run(["images", "--format", "{{.Repository}}", "made"]).success().prints("");
    env.run(["start", "-a", "keeper"]).success();
    env.run(["rm", "keeper"]).success();
    env.run(["image", "prune", "-a", "-f"]).success();
    env.run(["images", "-aq"]).success().prints("");
    let left: Vec<_> =
        std::fs::read_dir(env.store().join("snapshots")).map(Iterator::collect).unwrap_or_default();
    let left: Vec<String> = left
        .into_iter()
        .map(|entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "CACHEDIR.TAG")
        .collect();
    assert!(left.len() <= 2, "snapshots of build records may stay for a while, no others: {left:?}");
}

#[test]
fn removing_beside_everything_else_harms_nobody() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    let other = Registry::start();
    let pushed = other.image("made:1");
    env.write("Dockerfile", format!("FROM {image}\nCOPY Dockerfile /made\n"));
    let end = Instant::now() + Duration::from_secs(4);
    let again = |line: &[&str]| {
        let (mut went, mut refused) = (0, Vec::new());
        while Instant::now() < end {
            let output = env.run(line);
            match output.code {
                0 => went += 1,
                _ => refused.push(output),
            }
        }
        (went, refused)
    };
    let lines: [&[&str]; 5] = [
        &["pull", "-q", &image],
        &["run", "--rm", "--network", "none", &image, "true"],
        &["build", "-q", "-t", &pushed, "."],
        &["push", "-q", &pushed],
        &["rmi", "-f", &image, &pushed],
    ];
    let again = &again;
    std::thread::scope(|scope| {
        let running = lines.map(|line| (line, scope.spawn(move || again(line))));
        let pruning = scope.spawn(|| again(&["image", "prune", "-af"]));
        for (line, worker) in running {
            let (went, refused) = worker.join().unwrap();
            assert!(went > 0 || line[0] == "push", "{line:?} never works: {:?}", refused.last());
            // Whose name was taken away in between is told so, and nothing else goes wrong.
            for output in refused {
                let told = ["no such image", "in use", "used by"];
                assert!(told.iter().any(|part| output.stderr.contains(part)), "{output}");
            }
        }
        let (went, refused) = pruning.join().unwrap();
        assert!(went > 0 && refused.is_empty(), "{:?}", refused.first());
    });
    env.run(["system", "check"]).success();
    env.run(["pull", "-q", &image]).success();
    env.run(["run", "--rm", "--network", "none", &image, "true"]).success();
}

#[test]
fn files_of_other_ids_and_without_any_permission_go_too() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    env.write(
        "Dockerfile",
        format!(
            "FROM {image}\nRUN mkdir -p /d/e && echo x > /d/e/f && chmod 000 /d/e/f && chmod 000 /d/e \
             && chown -R 1000:1000 /d && chmod 000 /d\n"
        ),
    );
    env.run(["build", "-q", "-t", "odd", "."]).success();
    env.run(["run", "--rm", "--network", "none", "odd", "true"]).success();
    env.run(["rmi", "-f", "odd", &image]).success();
    env.run(["builder", "prune", "-af"]).success();
    env.run(["image", "prune", "-af"]).success();
    let left = |dir: &str| std::fs::read_dir(env.store().join(dir)).unwrap().count();
    assert_eq!(left("snapshots"), 1, "the tag alone");
    eventually("all to be removed", Duration::from_secs(10), || (left("tmp") == 0).then_some(()));
}

#[test]
fn removal_stops_at_a_mount() {
    need!("unshare", "mount");
    let env = Env::new();
    let script = r#"
        set -e
        mkdir -p content/dir && echo x > content/dir/f && printf 'FROM scratch\nCOPY content /content\n' > Dockerfile
        "$0" build -q -t x . > /dev/null
        "$0" builder prune -af > /dev/null
        mount -t tmpfs tmpfs "$1"/snapshots/sha256-*/fs/content/dir
        echo precious > "$(echo "$1"/snapshots/sha256-*/fs/content/dir)/kept"
        "$0" rmi x || true
        "$0" image prune -af || true
        find "$1" -name kept
    "#;
    let mut command = env.program("unshare");
    command.args(if is_root() { &["-m"][..] } else { &["-Urm"] });
    command.args(["sh", "-c", script]).arg(strate()).arg(env.store());
    let output = Output::of(&mut command);
    if output.stderr.contains("unshare failed") {
        return skip("no user namespaces");
    }
    let output = output.success();
    assert!(output.stdout.lines().last().is_some_and(|line| line.ends_with("/kept")), "{output}");
}
