//! What goes wrong, said clearly, with nothing lost.

use std::net::TcpListener;
use std::time::Duration;

use crate::support::{Env, Registry, busybox_image, eventually, need, shared_registry, skip};

#[test]
fn unknown_images_tags_and_registries() {
    need!("docker-registry", "skopeo", "busybox");
    let registry = shared_registry();
    let env = Env::new();
    registry.image("busybox:latest");
    env.run(["pull", &registry.image("no-such:1")]).code(1).stderr_has("no-such");
    env.run(["pull", &registry.image("busybox:no-such")]).code(1).stderr_has("no-such");
    env.run(["pull", "UPPER/case"]).code(1).stderr_has("upper");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    env.run(["pull", "--retry", "0", &format!("127.0.0.1:{port}/x:1")])
        .code(1)
        .stderr_has(&format!("127.0.0.1:{port}"));
    env.run(["inspect", "no-such"]).code(1).stderr_has("no-such");
    env.run(["tag", "no-such", "x"]).code(1).stderr_has("no-such").stderr_has("strate images");
    env.run(["images", "-aq"]).success().prints("");
}

#[test]
fn slips_of_the_keyboard_are_told_before_anything_is_asked() {
    let env = Env::new();
    env.run(["pull", "--platform", "bogus", "127.0.0.1:1/x"]).code(1).stderr_has("`bogus` is not a platform");
    env.run(["pull", "docker-daemon:x:1"]).code(1).stderr_has("docker save IMAGE | strate load");
    env.run(["copy", "docker-daemon:x:1", "oci:out"]).code(1).stderr_has("docker save IMAGE | strate load");
    env.run(["copy", "tarball:x", "oci:out"]).code(1).stderr_has("strate import");
    env.run(["save", "--compress", "x"]).code(1).stderr_has("gzip");
    env.run(["pull", "--creds", "name", "127.0.0.1:1/x"]).code(1).stderr_has("NAME:PASSWORD");
}

#[test]
fn a_registry_that_lies_is_not_believed() {
    need!("docker-registry", "skopeo", "busybox");
    let registry = Registry::start();
    let image = registry.put(&busybox_image(), "lies:1");
    let layer = registry.inspect("lies:1", &[])["Layers"][0].as_str().unwrap().to_owned();
    let path = registry.blob_file(&layer);
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    let env = Env::new();
    env.run(["pull", "--retry", "0", &image]).code(1).stderr_has("corrupt");
    env.run(["images", "-aq"]).success().prints("");
    // The truth, later, is taken.
    std::fs::write(&path, &good).unwrap();
    env.run(["pull", &image]).success();
    env.run(["run", "--rm", "--network", "none", &image, "cat", "/data/same"]).success().prints("one");
}

#[test]
fn a_full_disk_loses_nothing() {
    need!("docker-registry", "skopeo", "busybox", "unshare");
    let image = shared_registry().image("busybox:latest");
    let env = Env::new();
    let mount = env.work().join("small");
    std::fs::create_dir(&mount).unwrap();
    // A small tmpfs in a mount namespace of the test's own.
    let script = "mount -t tmpfs -o size=1m tmpfs \"$1\" && shift && \"$@\"; code=$?; \
                  \"$1\" --root \"$3\" images -aq; exit $code";
    let store = mount.join("store").display().to_string();
    let mut command = env.program("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh"]).arg(&mount);
    command.arg(crate::support::strate()).args(["--root", &store, "pull", "--retry", "0", &image]);
    let output = crate::support::Output::of(&mut command);
    if output.stderr.contains("unshare failed") || output.stderr.contains("must be superuser") {
        return skip("no mount namespace can be made here");
    }
    let output = output.code(1).prints("");
    let told = ["space", "Space"].iter().any(|word| output.stderr.contains(word));
    assert!(told, "{output}");
}

#[test]
fn a_store_that_cannot_be_written_says_so() {
    need!("docker-registry", "skopeo", "busybox", "unshare");
    let image = shared_registry().image("busybox:latest");
    let env = Env::new();
    env.run(["pull", "-q", &image]).success();
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let read_only = |args: &[&str]| {
        let mut command = env.program("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh"]).arg(env.store());
        command.arg(crate::support::strate()).args(args);
        crate::support::Output::of(&mut command)
    };
    let listed = read_only(&["images", "-q"]);
    if listed.stderr.contains("unshare failed") || listed.stderr.contains("mount:") {
        return skip("no mount namespace can be made here");
    }
    assert_eq!(listed.success().text().len(), 12);
    read_only(&["tag", &image, "x:1"]).code(1).stderr_has("cannot be written").stderr_has("--root");
}

#[test]
fn an_interrupted_pull_leaves_a_good_store() {
    need!("docker-registry", "skopeo", "busybox");
    let registry = Registry::start();
    let env = Env::new();
    // A layer that takes a while: noise does not compress.
    let mut noise = vec![0; 64 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut noise).unwrap();
    let image = registry.put(&busybox_image(), "base:1");
    env.write("noise", &noise);
    env.write("Dockerfile", format!("FROM {image}\nCOPY noise /noise\n"));
    let target = registry.image("noise:1");
    env.run(["build", "-q", "-t", &target, "."]).success();
    env.run(["push", "-q", &target]).success();
    let other = Env::new();
    for wait in [5, 30, 100] {
        let pull = other.spawn(["pull", &target]);
        std::thread::sleep(Duration::from_millis(wait));
        pull.signal("INT");
        let output = pull.finish();
        assert!([0, 130].contains(&output.code), "{output}");
    }
    other.run(["pull", &target]).success();
    let size =
        other.run(["run", "--rm", "--network", "none", &target, "stat", "-c", "%s", "/noise"]).success();
    assert_eq!(size.text(), noise.len().to_string());
}

#[test]
fn an_interrupted_step_leaves_nothing_running() {
    need!("docker-registry", "skopeo", "busybox", "pgrep");
    let image = shared_registry().image("busybox:latest");
    let env = Env::new();
    env.run(["pull", "-q", &image]).success();
    let marker = format!("86{}", std::process::id());
    env.write("Dockerfile", format!("FROM {image}\nRUN sleep {marker}\n"));
    let sleeping = || {
        let found =
            std::process::Command::new("pgrep").args(["-f", &format!("^sleep {marker}")]).output().unwrap();
        !found.stdout.is_empty()
    };
    let build = env.spawn(["build", "--progress", "plain", "-t", "never", "."]);
    eventually("the start of the step", Duration::from_secs(30), || sleeping().then_some(()));
    build.signal("INT");
    build.finish().code(130);
    eventually("the end of the step", Duration::from_secs(10), || (!sleeping()).then_some(()));
    env.run(["images", "-q", "never"]).success().prints("");
}
