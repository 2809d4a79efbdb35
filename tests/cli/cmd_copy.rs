//! `copy`

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::fake::{OCI_INDEX, digest, noise};
use crate::support::{Env, Fake, FakeLayer, Fault, Proxy, Registry, is_root, must, need};

/// A registry with an image for this machine (`own`), one for another (`other`), and an index of both (`both`).
pub fn two_platforms() -> Fake {
    let mut fake = Fake::default();
    let shared = || FakeLayer::gzip(&[("shared", &noise(1, 100_000))]);
    let own = fake.image("own", &[shared(), FakeLayer::gzip(&[("own", b"own\n")])]);
    let architecture = if cfg!(target_arch = "x86_64") { "s390x" } else { "amd64" };
    let other =
        fake.image_with("other", &[shared(), FakeLayer::gzip(&[("other", b"other\n")])], |_, config| {
            config["architecture"] = architecture.into()
        });
    let own_architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let with = |mut descriptor: serde_json::Value, architecture: &str| {
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        descriptor
    };
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [with(other, architecture), with(own, own_architecture)],
    });
    fake.manifest("both", OCI_INDEX, &index);
    fake
}

/// Every file below a directory, with its content.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(root).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap_or_default())
        })
        .collect()
}

#[test]
fn every_pair_of_places_keeps_the_digest() {
    need!("docker-registry", "skopeo");
    let (env, registry, source) = (Env::new(), Registry::start(), two_platforms().serve());
    let from = format!("docker://{}", source.image("x:both"));
    let digest = env.run(["digest", &from]).success().text().to_owned();
    let place = |kind: &str, name: &str| match kind {
        "docker" => format!("docker://{}", registry.image(&format!("{name}:1"))),
        "store" => format!("store:{name}:1"),
        "oci" => format!("oci:{name}.oci:image"),
        "dir" => format!("dir:{name}.dir"),
        kind => format!("{kind}:{name}-{kind}.tar:local/{name}:1"),
    };
    let kinds = ["docker", "oci", "oci-archive", "docker-archive", "dir", "store"];
    for kind in kinds {
        env.run(["copy", "--all", "-q", &from, &place(kind, "first")]).success().prints(&digest);
    }
    for (n, kind) in kinds.iter().enumerate() {
        for other in [kinds[(n + 1) % kinds.len()], "docker"] {
            let to = place(other, &format!("{kind}-{other}"));
            env.run(["copy", "--all", "-q", &place(kind, "first"), &to]).success().prints(&digest);
            env.run(["digest", &to]).success().prints(&digest);
        }
    }
    // What is in a directory is what skopeo puts there, file by file; and skopeo reads the others.
    let mut skopeo = env.program("skopeo");
    let first = place("docker", "first");
    must(skopeo.args(["copy", "-q", "--all", "--src-tls-verify=false", &first, "dir:theirs"]));
    assert_eq!(files(&env.work().join("theirs")), files(&env.work().join("first.dir")));
    // skopeo gives what it unpacks of a tar to root, which only root can.
    let read_by_skopeo: &[&str] = if is_root() { &["oci", "oci-archive"] } else { &["oci"] };
    for kind in read_by_skopeo {
        let raw = must(env.program("skopeo").args(["inspect", "--raw", &place(kind, "first")]));
        assert_eq!(format!("sha256:{}", hex(&raw)), digest, "{kind}");
    }
    assert_eq!(registry.inspect("dir-docker:1", &["--no-tags"])["Digest"], digest.as_str());
}

fn hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn registry_to_registry_needs_no_store_and_no_home() {
    need!("docker-registry", "skopeo");
    let (env, registry, source) = (Env::new(), Registry::start(), two_platforms().serve());
    let door = Proxy::start(&registry.host(), |_| Fault::Pass);
    let run = |args: &[&str]| {
        let output = env.command(args).env_remove("HOME").output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let from = format!("docker://{}", source.image("x:both"));
    let first = format!("docker://{}", door.image("team/first:1"));
    let second = format!("docker://{}", door.image("team/second:1"));
    let digest = run(&["copy", "-a", &from, &first]);
    assert_eq!(run(&["digest", &first]), digest);
    // Within one registry no layer moves: it is told to take them over.
    let before = door.seen().len();
    assert_eq!(run(&["copy", "-a", "--additional-tag", "2,3", &first, &second]), digest);
    let after = &door.seen()[before..];
    assert!(after.iter().any(|seen| seen.target.contains("mount=")), "{:?}", door.log());
    let sent: u64 = after.iter().map(|seen| seen.sent).sum();
    assert!(sent < 20_000, "{sent} bytes were sent");
    let read = after.iter().filter(|seen| seen.is_blob()).count();
    assert_eq!(read, 2, "only configs are read: {:?}", door.log());
    assert_eq!(run(&["digest", &second.replace(":1", ":3").replace("127.0.0.3", "127.0.0.1")]), digest);
    for verb in [["inspect", &second], ["list-tags", "docker://"]] {
        let place = if verb[1] == "docker://" { second.rsplit_once(':').unwrap().0 } else { verb[1] };
        run(&[verb[0], place]);
    }
    assert!(std::fs::read_dir(env.home()).unwrap().next().is_none(), "the home is as it was");
}

#[test]
fn of_an_index_the_wanted_images_are_taken() {
    need!("docker-registry", "skopeo");
    let (env, registry, source) = (Env::new(), Registry::start(), two_platforms().serve());
    let from = format!("docker://{}", source.image("x:both"));
    let digest = |name: &str| {
        env.run(["digest", &format!("docker://{}", source.image(&format!("x:{name}")))]).text().to_owned()
    };
    let other = if cfg!(target_arch = "x86_64") { "linux/s390x" } else { "linux/amd64" };
    let to = |name: &str| format!("docker://{}", registry.image(name));
    env.run(["copy", &from, &to("a:own")]).success().prints(&digest("own"));
    env.run(["copy", "--platform", other, &from, &to("a:other")]).success().prints(&digest("other"));
    let architecture = &other["linux/".len()..];
    env.run(["copy", "--override-arch", architecture, &from, "dir:d"]).success().prints(&digest("other"));
    env.run(["copy", "--platform", "linux/riscv64", &from, &to("a:none")]).code(1).stderr_has("s390x");
    // The index alone goes where its images are, and nowhere else.
    env.run(["copy", "--multi-arch", "index-only", &from, &to("a:both")]).success().prints(&digest("both"));
    env.run(["copy", "--multi-arch", "index-only", &from, &to("b:both")]).code(1);
    env.run(["digest", &to("b:both")]).code(1);
}

#[test]
fn a_damaged_layer_leaves_nothing_named() {
    need!("docker-registry", "skopeo");
    let (env, registry) = (Env::new(), Registry::start());
    let source = two_platforms().serve_with(|seen| {
        if seen.is_blob() && !seen.target.contains("config") { Fault::Flip(100) } else { Fault::Pass }
    });
    let from = format!("docker://{}", source.image("x:own"));
    let docker = format!("docker://{}", registry.image("a:1"));
    for to in [docker.as_str(), "oci:o:1", "oci-archive:o.tar", "docker-archive:d.tar:a:1", "dir:d"] {
        env.run(["copy", "--retry", "0", &from, to]).code(1).stderr_has("caused by");
    }
    env.run(["digest", &docker]).code(1);
    for file in ["o/index.json", "o.tar", "d.tar", "d/manifest.json"] {
        assert!(!env.work().join(file).exists(), "{file}");
    }
}

#[test]
fn what_an_archive_holds_is_not_replaced_by_a_copy() {
    let (env, source) = (Env::new(), two_platforms().serve());
    let (from, other) =
        (format!("docker://{}", source.image("x:own")), format!("docker://{}", source.image("x:other")));
    env.write("archive.tar", "");
    env.run(["copy", &from, "docker-archive:archive.tar:x:own"]).success();
    let before = std::fs::read(env.work().join("archive.tar")).unwrap();
    env.run(["copy", &other, "docker-archive:archive.tar:x:other"])
        .code(1)
        .stderr_has("nothing can be added to a docker archive")
        .stderr_has("strate save -o");
    assert_eq!(std::fs::read(env.work().join("archive.tar")).unwrap(), before);
    // Several places: each digest with its place.
    let copied = env.run(["copy", "--digestfile", "digests", &from, "dir:a", "dir:b"]).success();
    let digest = copied.stdout.lines().next().unwrap();
    let lines = std::fs::read_to_string(env.work().join("digests")).unwrap();
    let ends: Vec<_> = lines.lines().map(|line| line.strip_prefix(digest).unwrap()).collect();
    assert!(ends[0].ends_with("/a") && ends[1].ends_with("/b") && ends.len() == 2, "{lines}");
    copied.stderr_has("2 layers moved");
}

#[test]
fn each_side_has_its_own_login() {
    need!("docker-registry", "skopeo", "htpasswd");
    let env = Env::new();
    let (locked, source) = (Registry::start_with_password("me", "secret"), two_platforms().serve());
    let from = format!("docker://{}", source.image("x:own"));
    let to = format!("docker://{}", locked.image("a:1"));
    env.run(["copy", &from, &to]).code(1).stderr_has("strate login");
    env.run(["copy", "--dest-creds", "me:wrong", &from, &to]).code(1);
    env.run(["copy", "--dest-creds", "me:secret", "--digestfile", "digest", &from, &to]).success();
    let digest = std::fs::read_to_string(env.work().join("digest")).unwrap();
    env.run(["digest", "--creds", "me:secret", &to]).success().prints(&digest);
    env.run(["copy", "--src-username", "me", "--src-password", "secret", &to, "dir:d"])
        .success()
        .prints(&digest);
    env.run(["copy", "--src-creds", "me:secret", "--src-no-creds", &to, "dir:d"]).code(2);
    env.run_with_input(["login", "-u", "me", "--password-stdin", &locked.host()], "secret\n").success();
    env.run(["copy", &to, "dir:e"]).success().prints(&digest);
    env.run(["copy", "--src-no-creds", &to, "dir:f"]).code(1).stderr_has("without a login");
    // The source never sees what is for the destination.
    assert_eq!(source.count(|seen| seen.header("authorization").is_some()), 0);
}

#[test]
fn an_archive_goes_through_a_pipe() {
    need!("skopeo");
    let (env, source) = (Env::new(), two_platforms().serve());
    let from = format!("docker://{}", source.image("x:own"));
    let mut save = env.command(["copy", "-q", &from, "oci-archive:-"]);
    let output = save.output().unwrap();
    assert!(output.status.success());
    let digest = String::from_utf8(output.stderr).unwrap().trim().to_owned();
    assert!(digest.starts_with("sha256:"), "the digest keeps out of the archive: {digest}");
    std::fs::write(env.work().join("archive.tar"), &output.stdout).unwrap();
    let mut load = Command::new("sh");
    load.args(["-c", "cat archive.tar | \"$0\" copy -q oci-archive:- dir:d"]).arg(crate::support::strate());
    load.current_dir(env.work()).env("HOME", env.home());
    assert_eq!(String::from_utf8(must(&mut load)).unwrap().trim(), digest);
}

#[test]
fn what_cannot_be_done_is_said_by_name() {
    let env = Env::new();
    for (args, part) in [
        (vec!["copy", "alpine", "dir:d"], "write `docker://alpine`"),
        (vec!["copy", "zip://a", "dir:d"], "there are docker://, oci:"),
        (vec!["copy", "--sign-by", "k", "dir:a", "dir:d"], "--sign-by"),
        (vec!["copy", "--encryption-key", "k", "dir:a", "dir:d"], "--encryption-key"),
        (vec!["copy", "--dest-shared-blob-dir", "k", "dir:a", "dir:d"], "--dest-shared-blob-dir"),
        (vec!["copy", "dir:nowhere", "dir:d"], "nowhere"),
        (vec!["copy", "store:nothing", "dir:d"], "nothing"),
    ] {
        let output = env.run(&args);
        assert!(output.code != 0 && output.stderr.contains(part), "{part}: {output}");
    }
}

#[test]
fn a_stream_that_breaks_goes_on_at_both_ends() {
    need!("docker-registry");
    let (env, registry) = (Env::new(), Registry::start());
    let door = Proxy::start(&registry.host(), |_| Fault::Pass);
    let mut fake = Fake::default();
    let size = 3_000_000;
    let layer = FakeLayer::gzip(&[("noise", &noise(7, size))]);
    let blob = digest(&layer.blob);
    fake.image("big", &[layer]);
    // The first answer ends after a megabyte.
    let first = std::sync::atomic::AtomicBool::new(true);
    let source = fake.serve_with(move |seen| {
        let cut = seen.target.ends_with(&blob) && first.swap(false, std::sync::atomic::Ordering::Relaxed);
        if cut { Fault::Cut(1_000_000) } else { Fault::Pass }
    });
    let from = format!("docker://{}", source.image("x:big"));
    env.run(["copy", &from, &format!("docker://{}", door.image("a:1"))]).success();
    assert!(source.count(|seen| seen.header("range").is_some()) > 0, "{:?}", source.log());
    let sent: u64 = door.seen().iter().map(|seen| seen.sent).sum();
    assert!(sent < size as u64 * 3 / 2, "{sent} bytes were sent for {size}");
}

#[test]
fn another_form_is_another_image_and_only_then() {
    need!("skopeo");
    let (env, source) = (Env::new(), two_platforms().serve());
    let from = format!("docker://{}", source.image("x:both"));
    env.run(["copy", "-a", "--preserve-digests", "--format", "v2s2", &from, "dir:no"]).code(1);
    let kind = |place: &str| env.run(["inspect", "--raw", place]).success().json();
    env.run(["copy", "-a", "--format", "v2s2", &from, "dir:docker"]).success();
    let list = kind("dir:./docker");
    assert_eq!(list["mediaType"], "application/vnd.docker.distribution.manifest.list.v2+json");
    env.run(["copy", "--dest-compress-format", "zstd", &from, "oci:layout:zstd", "dir:zstd"]).success();
    let image = kind("oci:./layout:zstd");
    assert_eq!(image["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd", "{image}");
    assert_eq!(kind("dir:./zstd"), image, "converted once, the same at each place");
    must(env.program("skopeo").args(["inspect", "oci:layout:zstd"]));
    env.run(["copy", "--dest-compress-format", "zstd", "--format", "v2s2", &from, "dir:no"]).code(1);
    env.run(["copy", "--format", "v2s1", &from, "dir:no"]).code(1).stderr_has("schema 1");
}
