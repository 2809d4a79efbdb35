//! `import-store`: from podman's store into ours.

use std::path::{Path, PathBuf};

use crate::support::{Env, must, need, shared_registry};

/// A store of podman's with two names of one image in it, filled by skopeo.
fn theirs(env: &Env, image: &str) -> PathBuf {
    let root = env.work().join("theirs");
    for name in ["docker.io/library/moved:1", "quay.io/some/other:2"] {
        let to =
            format!("containers-storage:[vfs@{}+{}]{name}", root.display(), env.work().join("run").display());
        let from = format!("docker://{image}");
        must(env.program("skopeo").args([
            "--insecure-policy",
            "copy",
            "-q",
            "--src-tls-verify=false",
            &from,
            &to,
        ]));
    }
    root
}

fn from(root: &Path) -> String {
    format!("--from={}", root.display())
}

#[test]
fn images_of_podman_come_over_with_their_names_and_ids() {
    need!("docker-registry", "skopeo", "busybox");
    let image = shared_registry().image("busybox:latest");
    let env = Env::new();
    let from = from(&theirs(&env, &image));
    let kind = "containers-storage";
    env.run(["import-store", kind, &from, "--dry-run"])
        .success()
        .stdout_has("Would import: moved:1, quay.io/");
    env.run(["images", "-q"]).success().prints("");
    env.run(["import-store", kind, &from]).success().stdout_has("Imported: moved:1");
    env.run(["pull", "-q", &image]).success();
    let id = |name: &str| env.run(["images", "-q", "--no-trunc", name]).success().text().to_owned();
    assert!(
        !id(&image).is_empty() && id(&image) == id("moved:1") && id("moved:1") == id("quay.io/some/other:2")
    );
    env.run(["run", "--rm", "--network", "none", "moved:1", "echo", "works"]).success().prints("works");
    // Again: nothing is left to do; a name that was lost is given again without copying.
    env.run(["import-store", kind, &from]).success().stdout_has("Present: ");
    env.run(["rmi", "moved:1"]).success();
    env.run(["import-store", kind, &from, "moved:1"]).success().stdout_has("Named: ");
    // A name that means something else here is left alone.
    env.write("Dockerfile", "FROM scratch\nLABEL a=b\n");
    env.run(["build", "-q", "-t", "moved:1", "."]).success();
    let other = id("moved:1");
    env.run(["import-store", kind, &from]).success().stderr_has("`moved:1` stands for another image");
    assert_eq!(id("moved:1"), other);
    env.run(["system", "check"]).success();
}

#[test]
fn what_cannot_be_imported_is_said_with_what_helps() {
    let env = Env::new();
    let kind = "containers-storage";
    env.run(["import-store", "docker"]).code(2).stderr_has("containers-storage");
    env.run(["import-store", kind, "--from", "/nonexistent"])
        .code(1)
        .stderr_has("`/nonexistent` is no store");
    let list = env.write("theirs/overlay-images/images.json", "[");
    let root = list.parent().unwrap().parent().unwrap().to_owned();
    env.run(["import-store", kind, &from(&root)]).code(1).stderr_has("is no list of images");
    let id = "a".repeat(64);
    let text = format!(r#"[{{"id":"{id}","names":["localhost/x:1"]}},{{"id":"; rm -rf /","names":["y"]}}]"#);
    env.write("theirs/overlay-images/images.json", text);
    env.run(["import-store", kind, &from(&root), "none"]).code(1).stderr_has("`none` is not in");
    env.run(["import-store", kind, &from(&root), "-n"]).success().prints("Would import: localhost/x:1");
    let bare = Env::new().with("PATH", "/nonexistent");
    bare.run(["import-store", kind, &from(&root)])
        .code(1)
        .stderr_has("skopeo, podman and buildah")
        .stderr_has("hint: ");
    if crate::support::program("skopeo").is_some() {
        let failed = env.run(["import-store", kind, &from(&root)]).code(1);
        assert!(failed.stderr.contains("cannot import `localhost/x:1`: skopeo failed: "), "{failed}");
    }
}
