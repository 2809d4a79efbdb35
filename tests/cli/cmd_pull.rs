//! `pull`

use serde_json::json;

use crate::support::fake::{self, OCI_INDEX, OCI_LAYER};
use crate::support::{
    Env, Fake, FakeLayer, Registry, busybox_image, debian, is_root, need, shared_registry, skip,
};

#[test]
fn a_pull_fetches_and_the_next_one_nothing() {
    need!("docker-registry", "skopeo", "busybox");
    let registry = Registry::start();
    let image = registry.put(&busybox_image(), "library/busybox:1");
    let env = Env::new();
    let first = env.run(["pull", &image]).success();
    assert!(first.stdout.contains("Status: Downloaded newer image for"), "{first}");
    let digest = registry.inspect("library/busybox:1", &[])["Digest"].as_str().unwrap().to_owned();
    assert!(first.stdout.contains(&format!("Digest: {digest}")), "{first}");
    assert_eq!(first.text().lines().last(), Some(image.as_str()), "{first}");
    // From here on the layer's bytes are gone from the server: who asks for them again fails.
    for layer in registry.inspect("library/busybox:1", &[])["Layers"].as_array().unwrap() {
        std::fs::remove_file(registry.blob_file(layer.as_str().unwrap())).unwrap();
    }
    env.run(["pull", &image]).success().stdout_has("Status: Image is up to date for");
    let quiet = env.run(["pull", "-q", &image]).success();
    assert_eq!((quiet.text(), quiet.stderr.as_str()), (image.as_str(), ""), "{quiet}");
}

#[test]
fn a_real_debian_is_pulled_and_looks_as_skopeo_says() {
    need!("docker-registry", "skopeo", "mmdebstrap");
    let Some(image) = debian() else { return skip("no Debian image can be made: is there a mirror?") };
    let env = Env::new();
    env.run(["pull", &image]).success();
    let config = shared_registry().inspect("debian:12", &["--config"]);
    let inspect = env.run(["inspect", &image]).success().json();
    assert_eq!(inspect[0]["RootFS"]["Layers"], config["rootfs"]["diff_ids"]);
    assert_eq!(inspect[0]["Config"]["Env"], config["config"]["Env"]);
    assert_eq!(inspect[0]["Config"]["Cmd"], config["config"]["Cmd"]);
    let raw: serde_json::Value = shared_registry().inspect("debian:12", &["--raw"]);
    assert_eq!(inspect[0]["Id"], raw["config"]["digest"]);
    env.run(["run", "--rm", "--network", "none", &image, "cat", "/etc/debian_version"])
        .success()
        .stdout_has("12");
    // The owners and modes that matter are true ones.
    let stat = env.run([
        "run",
        "--rm",
        "--network",
        "none",
        &image,
        "stat",
        "-c",
        "%a %u %G",
        "/etc/shadow",
        "/tmp",
    ]);
    if is_root() || env.run(["info", "-f", "{{.Strate.Rung}}"]).text() == "full" {
        stat.success().prints("640 0 shadow\n1777 0 root");
    }
}

#[test]
fn images_lists_what_was_pulled_in_every_form() {
    need!("docker-registry", "skopeo", "busybox");
    let image = shared_registry().image("busybox:latest");
    let env = Env::new();
    env.run(["pull", "-q", &image]).success();
    let table = env.run(["images"]).success();
    let header = table.stdout.lines().next().unwrap_or_default().to_owned();
    assert_eq!(
        header.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>(),
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"],
        "{table}"
    );
    assert_eq!(env.run(["image", "ls"]).success().stdout, table.stdout);
    let id = env.run(["images", "-q"]).success().text().to_owned();
    assert_eq!(id.len(), 12);
    let full = env.run(["images", "-q", "--no-trunc"]).success().text().to_owned();
    assert!(full.starts_with(&format!("sha256:{id}")), "{full}");
    env.run(["images", "--format", "{{.Repository}}:{{.Tag}}"]).success().prints(&image);
    env.run(["images", "--digests"]).success().stdout_has("sha256:");
    let row = env.run(["images", "--format", "json"]).success().json();
    assert_eq!(row["ID"], id.as_str());
    env.run(["image", "inspect", "-f", "{{.Id}}", &image]).success().prints(&full);
    env.run(["history", "-q", &id]).success().stdout_has(&id);
}

/// A file of what was pulled, wherever its layer was unpacked.
fn unpacked(env: &Env, path: &str) -> String {
    let snapshots = std::fs::read_dir(env.store().join("snapshots")).unwrap().flatten();
    let mut files = snapshots.map(|entry| entry.path().join("fs").join(path));
    files.find_map(|file| std::fs::read_to_string(file).ok()).unwrap_or_default()
}

/// An index with an image for amd64, one for arm64 and an attestation, under `tag`.
fn two_platforms(fake: &mut Fake, tag: &str) -> String {
    let mut children = Vec::new();
    for arch in ["amd64", "arm64"] {
        let layer = FakeLayer::gzip(&[("arch", format!("{arch} {tag}\n").as_bytes())]);
        let mut child = fake.image_with(&format!("{tag}-{arch}"), &[layer], |_, config| {
            config["architecture"] = json!(arch);
        });
        child["platform"] = json!({"os": "linux", "architecture": arch});
        children.push(child);
    }
    let mut attestation = fake.image_with(&format!("{tag}-att"), &[], |manifest, config| {
        config["architecture"] = json!("unknown");
        config["os"] = json!("unknown");
        manifest["layers"] = json!([]);
    });
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    children.push(attestation);
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children});
    fake.manifest(tag, OCI_INDEX, &index)["digest"].as_str().unwrap().to_owned()
}

#[test]
fn several_names_are_pulled_and_one_that_fails_does_not_stop_the_others() {
    let mut fake = Fake::small();
    fake.image("other", &[FakeLayer::gzip(&[("other", b"x")])]);
    let registry = fake.serve();
    let env = Env::new();
    let (one, two, none) =
        (registry.image("app:latest"), registry.image("app:other"), registry.image("app:none"));
    let output = env.run(["pull", "-q", &one, &none, &two]).code(1);
    assert_eq!(output.text(), format!("{one}\n{two}"), "{output}");
    output.stderr_has("app:none");
    env.run(["pull", "-q", &format!("docker://{one}")]).success().prints(&one);
}

#[test]
fn an_index_is_pulled_for_one_platform_or_whole() {
    let mut fake = Fake::default();
    let digest = two_platforms(&mut fake, "multi");
    let registry = fake.serve();
    let name = registry.image("app:multi");
    let env = Env::new();
    let one = env.run(["pull", "--arch", "arm64", &name]).success();
    one.stdout_has(&format!("Digest: {digest}"));
    env.run(["inspect", "-f", "{{.Architecture}}", &name]).success().prints("arm64");
    assert_eq!(registry.count(|seen| seen.is_blob()), 2, "one config, one layer: {:?}", registry.log());
    env.run(["pull", "--platform", "linux/s390x", &name]).code(1).stderr_has("linux/amd64, linux/arm64");
    // Whole: what is here already is not asked for again.
    let whole = Env::new();
    whole.run(["pull", "-q", "--all-platforms", &name]).success();
    let manifests = whole.store().join("blobs/sha256");
    assert!(manifests.join(digest.trim_start_matches("sha256:")).is_file());
    let listed = whole.run(["images", "--digests", "--format", "{{.Digest}}"]).success();
    assert_eq!(listed.text(), digest, "{listed}");
    let asked = registry.log().len();
    whole.run(["pull", "--all-platforms", &name]).success().stdout_has("Image is up to date");
    assert!(registry.log().len() - asked <= 2, "{:?}", &registry.log()[asked..]);
    env.run(["pull", "--arch", "arm64", "--platform", "linux/amd64", &name]).code(2);
}

#[test]
fn every_tag_of_a_repository_is_pulled_for_the_platform() {
    let mut fake = Fake::default();
    two_platforms(&mut fake, "a");
    two_platforms(&mut fake, "b");
    // What refers to an image is no image, however it is kept.
    let hex = "0".repeat(64);
    let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []});
    fake.manifest(&format!("sha256-{hex}"), OCI_INDEX, &list);
    fake.image(&format!("sha256-{hex}.sig"), &[FakeLayer::gzip(&[("s", b"s\n")])]);
    let registry = fake.serve();
    let name = registry.image("app");
    let env = Env::new();
    let all = env.run(["pull", "-a", "--platform", "linux/arm64", &name]).success();
    let all = all.stdout_has(&format!("{name}:a\n")).stdout_has(&format!("{name}:b\n"));
    env.run(["inspect", "-f", "{{.Architecture}}", &format!("{name}:b")]).success().prints("arm64");
    assert!(!all.stdout.contains(&hex), "{all}");
    env.run(["pull", "-a", &format!("{name}:a")]).code(1).stderr_has("without a tag");
}

#[test]
fn a_name_with_tag_and_digest_means_the_digest() {
    let mut fake = Fake::small();
    let other = fake.image("other", &[FakeLayer::gzip(&[("other", b"x")])]);
    let digest = other["digest"].as_str().unwrap().to_owned();
    let registry = fake.serve();
    let env = Env::new();
    let name = registry.image(&format!("app:latest@{digest}"));
    env.run(["pull", &name]).success().stdout_has(&format!("Digest: {digest}"));
    assert!(registry.log().iter().all(|line| !line.ends_with("/latest")), "{:?}", registry.log());
}

#[test]
fn layers_are_what_their_first_bytes_say() {
    need!("gzip", "zstd");
    let zstd = |tar: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tar"), tar).unwrap();
        crate::support::must(std::process::Command::new("zstd").arg("-qc").arg(dir.path().join("tar")))
    };
    let tar = |n: u8| fake::tar(&[(&format!("file{n}"), &[b'0' + n, b'\n'])]);
    let layers = [
        FakeLayer { kind: OCI_LAYER.into(), blob: zstd(&tar(1)), tar: tar(1) },
        FakeLayer {
            kind: "application/vnd.oci.image.layer.v1.tar+zstd".into(),
            blob: fake::gzip(&tar(2)),
            tar: tar(2),
        },
        FakeLayer {
            kind: "application/vnd.docker.image.rootfs.diff.tar.gzip".into(),
            blob: tar(3),
            tar: tar(3),
        },
        FakeLayer { kind: "application/octet-stream".into(), blob: zstd(&tar(4)), tar: tar(4) },
        FakeLayer { kind: "application/x-tar".into(), blob: tar(5), tar: tar(5) },
    ];
    let mut fake = Fake::default();
    fake.image("latest", &layers);
    let registry = fake.serve();
    let env = Env::new();
    env.run(["pull", "-q", &registry.image("odd")]).success();
    for n in 1..=5 {
        assert_eq!(unpacked(&env, &format!("file{n}")), format!("{n}\n"));
    }
}

#[test]
fn an_artifact_is_kept_and_not_unpacked() {
    let mut fake = Fake::default();
    let title = json!({"org.opencontainers.image.title": "../../x"});
    let mut layer = fake.blob("application/vnd.example.data", "no tar at all");
    layer["annotations"] = title;
    let config = fake.blob("application/vnd.oci.empty.v1+json", "{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": fake::OCI_MANIFEST, "artifactType": "application/vnd.example",
        "config": config, "layers": [layer],
    });
    fake.manifest("latest", fake::OCI_MANIFEST, &manifest);
    let registry = fake.serve();
    let env = Env::new();
    env.run(["pull", "-q", &registry.image("artifact")]).success().prints(&registry.image("artifact:latest"));
    env.run(["images"]).success();
    let snapshots = std::fs::read_dir(env.store().join("snapshots")).into_iter().flatten().flatten();
    assert_eq!(snapshots.filter(|entry| entry.path().is_dir()).count(), 0);
}

#[test]
fn schema_1_is_refused_in_one_line() {
    let mut fake = Fake::default();
    let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let old = json!({"schemaVersion": 1, "name": "x", "tag": "latest", "fsLayers": [], "history": []});
    fake.manifest("latest", kind, &old);
    let registry = fake.serve();
    let output = Env::new().run(["pull", &registry.image("old")]).code(1);
    output.stderr_has("docker schema 1");
}

#[test]
fn a_foreign_layer_is_asked_of_the_registry_and_nobody_else() {
    let elsewhere = Fake::small().serve();
    let urls = json!([
        format!("http://{}/x", elsewhere.host()),
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
    ]);
    for there in [true, false] {
        let mut fake = Fake::default();
        let layer = FakeLayer {
            kind: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into(),
            ..FakeLayer::gzip(&[("file", b"foreign\n")])
        };
        fake.image_with("latest", &[layer], |manifest, _| {
            manifest["layers"][0]["urls"] = urls.clone();
        });
        let registry = fake.serve_with(move |seen| match there || !seen.target.contains("/blobs/") {
            true => crate::support::Fault::Pass,
            false if seen.nth > 2 => crate::support::Fault::reply(404, &[], ""),
            false => crate::support::Fault::Pass,
        });
        let env = Env::new();
        let output = env.run(["pull", &registry.image("win")]);
        if there {
            output.success();
        } else {
            output.code(1).stderr_has("foreign layer").stderr_has("never followed");
        }
        assert!(elsewhere.log().is_empty(), "{:?}", elsewhere.log());
    }
}

#[test]
fn images_in_files_are_pulled_by_their_transport() {
    need!("docker-registry", "skopeo", "busybox");
    let layout = crate::support::busybox_image();
    let env = Env::new();
    let source = format!("oci:{layout}");
    let out = env.work();
    for (to, from) in [
        (None, source.clone()),
        (Some("docker-archive:d.tar:example.org/app:1"), "docker-archive:d.tar".to_owned()),
        (Some("oci-archive:o.tar:example.org/app:2"), "oci-archive:o.tar".to_owned()),
        (Some("dir:d"), "dir:d".to_owned()),
    ] {
        if let Some(to) = to {
            let mut skopeo = std::process::Command::new("skopeo");
            crate::support::must(skopeo.args(["copy", "-q", &source, to]).current_dir(&out));
        }
        let pulled = env.run(["pull", "-q", &from]).success();
        env.run(["inspect", "-f", "{{.Os}}", pulled.text()]).success().prints("linux");
    }
    env.run(["inspect", "-f", "{{.Os}}", "example.org/app:1", "example.org/app:2"]).success();
    env.run(["pull", "oci:nowhere"]).code(1);
    env.run(["pull", "-a", "dir:d"]).code(1).stderr_has("not for files");
}
