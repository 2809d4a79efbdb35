//! `rmi`, `image prune`

use crate::support::{Env, need, shared_registry};

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
