//! `save`, and what other tools make of it

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Env, Output, busybox_image, must, need, program, shared_registry};

const FORMATS: [&str; 4] = ["docker-archive", "oci-archive", "oci-dir", "docker-dir"];

/// Every name with its digest and id.
pub fn listed(env: &Env) -> Vec<String> {
    let format = "{{.Repository}}:{{.Tag}} {{.Digest}} {{.ID}}";
    let output = env.run(["images", "--digests", "--no-trunc", "--format", format]).success();
    output.stdout.lines().map(str::to_owned).collect()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    let digits: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// A store with one image under the name `app:1`.
pub fn env_with_image() -> Env {
    let env = Env::new();
    let layout = busybox_image();
    let loaded = env.run(["load", "-i", layout.trim_end_matches(":latest")]).success();
    let id = loaded.text().trim_start_matches("Loaded image ID: ").to_owned();
    env.run(["tag", &id, "app:1"]).success();
    env
}

/// `left | right` in one environment each.
pub fn pipe(left: (&Env, &[&str]), right: (&Env, &[&str])) -> Output {
    let mut writer = left.0.command(left.1).stdout(Stdio::piped()).spawn().unwrap();
    let out = writer.stdout.take().unwrap();
    let read = Output::of(right.0.command(right.1).stdin(out));
    assert!(writer.wait().unwrap().success(), "{:?} failed before {read}", left.1);
    read
}

#[test]
fn a_saved_image_comes_back_with_the_same_digests() {
    need!("skopeo", "busybox");
    let env = env_with_image();
    let before = listed(&env);
    for format in FORMATS {
        let out = env.work().join(format);
        env.run(["save", "--format", format, "-q", "-o", out.to_str().unwrap(), "app:1"])
            .success()
            .prints("");
        let other = Env::new();
        let loaded = other.run(["load", "-i", out.to_str().unwrap()]).success();
        if format == "docker-dir" {
            // This form has no names.
            let id = loaded.text().trim_start_matches("Loaded image ID: ");
            other.run(["tag", id, "app:1"]).success();
        } else {
            assert_eq!(loaded.text(), "Loaded image: app:1");
        }
        assert_eq!(listed(&other), before, "{format}");
        other.run(["run", "--rm", "app:1", "cat", "/data/one"]).success().prints("one");
    }
    for format in ["docker-archive", "oci-archive"] {
        let other = Env::new();
        pipe((&env, &["save", "--format", format, "app:1"]), (&other, &["load"]))
            .success()
            .prints("Loaded image: app:1");
        assert_eq!(listed(&other), before, "{format}");
    }
    env.run(["save", "--format", "oci-dir", "app:1"]).code(1).stderr_has("--output");
}

#[test]
fn what_is_saved_loaded_and_pushed_has_the_digest_it_had() {
    need!("docker-registry", "skopeo", "busybox");
    let registry = shared_registry();
    let env = Env::new();
    let image = registry.image("busybox:latest");
    env.run(["pull", "-q", &image]).success();
    let before = registry.inspect("busybox:latest", &[])["Digest"].as_str().unwrap().to_owned();
    let other = Env::new();
    pipe((&env, &["save", &image]), (&other, &["load", "-q"])).success();
    let target = registry.image("saved-and-loaded:1");
    other.run(["tag", &image, &target]).success();
    other.run(["push", "-q", &target]).success();
    assert_eq!(registry.inspect("saved-and-loaded:1", &[])["Digest"], before.as_str());
}

#[test]
fn skopeo_reads_every_form() {
    need!("skopeo", "busybox");
    let env = env_with_image();
    let digest = listed(&env)[0].split(' ').nth(1).unwrap().to_owned();
    let id = env.run(["image", "inspect", "--format", "{{.Id}}", "app:1"]).success().text().to_owned();
    for format in FORMATS {
        let out = env.work().join(format);
        env.run(["save", "--format", format, "-o", out.to_str().unwrap(), "app:1"]).success();
        let at = out.display();
        let place = match format {
            "docker-archive" => format!("docker-archive:{at}:app:1"),
            "oci-archive" => format!("oci-archive:{at}:docker.io/library/app:1"),
            "oci-dir" => format!("oci:{at}:docker.io/library/app:1"),
            _ => format!("dir:{at}"),
        };
        let skopeo = |args: &[&str]| must(env.program(program("skopeo").unwrap()).args(args).arg(&place));
        let config = skopeo(&["inspect", "--config", "--raw"]);
        assert_eq!(sha256(&config), id, "{format}");
        if format != "docker-archive" {
            // skopeo looks at the docker table only, and makes a manifest of its own.
            assert_eq!(sha256(&skopeo(&["inspect", "--raw"])), digest, "{format}");
        }
        // Reading the layers verifies them.
        let copy = format!("dir:{}", env.work().join(format!("{format}-copy")).display());
        must(env.program(program("skopeo").unwrap()).args(["copy", "-q", &place, &copy]));
    }
}

#[test]
fn what_skopeo_writes_is_loaded() {
    need!("skopeo", "busybox");
    let layout = busybox_image();
    let id = env_with_image().run(["images", "-q", "--no-trunc"]).success().text().to_owned();
    let env = Env::new();
    for (place, expected) in [
        ("oci-archive:a.tar:localhost/a:1", "Loaded image: localhost/a:1".to_owned()),
        ("oci:layout:localhost/a:2", "Loaded image: localhost/a:2".into()),
        ("docker-archive:d.tar:localhost/a:3", "Loaded image: localhost/a:3".into()),
        ("docker-archive:e.tar", format!("Loaded image ID: {id}")),
        ("dir:plain", format!("Loaded image ID: {id}")),
    ] {
        let source = format!("oci:{layout}");
        must(env.program(program("skopeo").unwrap()).args(["copy", "-q", &source, place]));
        let path = place.split(':').nth(1).unwrap();
        let fresh = Env::new();
        let path = env.work().join(path);
        fresh.run(["load", "-i", path.to_str().unwrap()]).success().prints(&expected);
        fresh.run(["images", "-q", "--no-trunc"]).success().prints(&id);
        fresh.run(["run", "--rm", &id, "cat", "/data/same"]).success().prints("one");
    }
}

#[test]
fn podman_loads_what_is_saved_and_the_other_way_round() {
    need!(user);
    need!("podman", "skopeo", "busybox");
    let env = env_with_image();
    let id = env.run(["images", "-q", "--no-trunc"]).success().text().replace("sha256:", "");
    let podman = |args: &[&str]| {
        let output = env.program(program("podman").unwrap()).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (works, _, why) = podman(&["info"]);
    if !works {
        return crate::support::skip(&format!("podman does not work here: {why}"));
    }
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        env.run(["save", "--format", format, "-o", format, "app:1"]).success();
        let (loaded, text, why) = podman(&["load", "-q", "-i", format]);
        // podman calls the image of a directory by the directory's name.
        assert!(loaded && (text.contains("app:1") || format == "oci-dir"), "{format}: {text} {why}");
        let (_, ids, _) = podman(&["images", "-q", "--no-trunc"]);
        assert!(ids.contains(&id), "{format}: {ids}");
        podman(&["tag", &id, "localhost/app:1"]);
        let back = format!("back-{format}");
        let (saved, _, why) = podman(&["save", "-q", "--format", format, "-o", &back, "localhost/app:1"]);
        assert!(saved, "{why}");
        let other = Env::new();
        let back = env.work().join(&back);
        let loaded = other.run(["load", "-i", back.to_str().unwrap()]).success();
        assert!(loaded.stdout.contains("app:1") || format == "oci-dir", "{format}: {loaded}");
        other.run(["images", "-q", "--no-trunc"]).success().prints(&format!("sha256:{id}"));
        podman(&["rmi", "-f", &id]);
    }
    podman(&["unshare", "rm", "-rf", env.home().join(".local/share/containers").to_str().unwrap()]);
}

#[test]
fn umoci_unpacks_a_saved_layout() {
    need!("umoci", "skopeo", "busybox");
    let env = env_with_image();
    env.run(["save", "--format", "oci-dir", "-o", "layout", "app:1"]).success();
    let tags = must(env.program(program("umoci").unwrap()).args(["ls", "--layout", "layout"]));
    let tag = String::from_utf8(tags).unwrap().trim().to_owned();
    assert_eq!(tag, "docker.io/library/app:1");
    // umoci wants a tag without a slash on its command line.
    must(env.program(program("skopeo").unwrap()).args([
        "copy",
        "-q",
        &format!("oci:layout:{tag}"),
        "oci:layout:one",
    ]));
    let mut unpack = env.program(program("umoci").unwrap());
    must(unpack.args(["unpack", "--rootless", "--image", "layout:one", "bundle"]));
    assert_eq!(std::fs::read_to_string(env.work().join("bundle/rootfs/data/one")).unwrap(), "one\n");
}

#[test]
fn several_images_and_names_stay_apart() {
    need!("skopeo", "busybox");
    let env = env_with_image();
    env.run(["tag", "app:1", "other/name:2"]).success();
    env.write("Dockerfile", "FROM app:1\nLABEL a=b\n");
    env.run(["build", "-q", "-t", "second:1", "."]).success();
    let before = listed(&env);
    env.run(["save", "-o", "all.tar", "app:1", "second:1", "other/name:2", "app:1"]).success();
    let other = Env::new();
    let archive = env.work().join("all.tar");
    let loaded = other.run(["load", "-i", archive.to_str().unwrap()]).success();
    let mut lines: Vec<&str> = loaded.text().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["Loaded image: app:1", "Loaded image: other/name:2", "Loaded image: second:1"]);
    assert_eq!(listed(&other), before);
    // Each layer is in the archive once, and nothing else.
    let names = must(Command::new("tar").arg("tf").arg(&archive));
    let names = String::from_utf8(names).unwrap();
    let mut blobs: Vec<&str> =
        names.lines().filter(|name| name.starts_with("blobs/sha256/") && name.len() > 20).collect();
    let all = blobs.len();
    blobs.dedup();
    assert_eq!((all, blobs.len()), (5, 5), "{names}");
    env.run(["save", "--format", "docker-dir", "-o", "dir", "app:1", "second:1"])
        .code(1)
        .stderr_has("one image");
    assert!(!env.work().join("dir").exists());
}

#[test]
fn p4_a_saved_file_replaces_whole_or_not_at_all() {
    need!("skopeo", "busybox");
    let env = env_with_image();
    let canary = env.write("canary", "safe");
    std::os::unix::fs::symlink(&canary, env.work().join("out.tar")).unwrap();
    env.run(["save", "-o", "out.tar", "app:1"]).success();
    assert_eq!(std::fs::read_to_string(&canary).unwrap(), "safe");
    assert!(env.work().join("out.tar").symlink_metadata().unwrap().is_file());
    env.write("old.tar", "old");
    damage_a_layer(&env);
    let names = || -> usize { std::fs::read_dir(env.work()).unwrap().count() };
    let before = names();
    env.run(["save", "-o", "old.tar", "app:1"]).code(1).stderr_has("corrupt");
    env.run(["save", "-o", "none.tar", "app:1"]).code(1);
    assert_eq!(std::fs::read_to_string(env.work().join("old.tar")).unwrap(), "old");
    assert_eq!(names(), before, "a failure leaves nothing");
    env.run(["save", "-o", "missing/x.tar", "app:1"]).code(1).stderr_has("missing");
    env.run(["save", "-o", "x.tar", "no-such-image"]).code(1).stderr_has("strate images");
}

fn damage_a_layer(env: &Env) {
    let blobs = std::fs::read_dir(env.store().join("blobs/sha256")).unwrap();
    let largest =
        blobs.map(|entry| entry.unwrap()).max_by_key(|entry| entry.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(largest.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(largest.path()).unwrap();
    std::fs::write(largest.path(), bytes).unwrap();
}

#[test]
fn standard_output_may_be_a_file_that_is_named() {
    need!("skopeo", "busybox");
    let env = env_with_image();
    let file = std::fs::File::create(env.work().join("out.tar")).unwrap();
    let output = env.command(["save", "-o", "/dev/stdout", "app:1"]).stdout(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(Path::new("/dev/stdout").symlink_metadata().unwrap().is_symlink());
    let other = Env::new();
    let archive = env.work().join("out.tar");
    other.run(["load", "-i", archive.to_str().unwrap()]).success().prints("Loaded image: app:1");
}

#[test]
fn a_terminal_gets_no_archive() {
    need!("skopeo", "busybox");
    let env = env_with_image();
    let mut pty = env.pty(["save", "app:1"]);
    pty.expect("refusing to write an archive to a terminal");
}
