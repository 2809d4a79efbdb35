//! `manifest`, and indexes in the store.

use std::process::Command;

use sha2::Digest;

use crate::support::{Env, Output, Registry, must, need, program, shared_registry, skip};

/// The architecture of this machine, in Go's words, and another one.
fn architectures() -> (&'static str, &'static str) {
    match std::env::consts::ARCH {
        "x86_64" => ("amd64", "arm64"),
        "aarch64" => ("arm64", "amd64"),
        other => (other, "amd64"),
    }
}

/// Build a small image for an architecture.
fn build(env: &Env, architecture: &str, name: &str) {
    env.write("Dockerfile", "FROM scratch\nCOPY arch /arch\n");
    env.write("arch", architecture);
    let platform = format!("linux/{architecture}");
    env.run(["build", "-q", "--platform", &platform, "-t", name, "."]).success();
}

/// An environment with `own` and `other`, images for two architectures.
fn two_images() -> Env {
    let env = Env::new();
    let (own, other) = architectures();
    build(&env, own, "own");
    build(&env, other, "other");
    env
}

fn digest_of(bytes: &[u8]) -> String {
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The exact bytes that skopeo gets for a name.
fn raw(image: &str) -> Vec<u8> {
    must(Command::new("skopeo").args([
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{image}"),
    ]))
}

fn platforms(index: &serde_json::Value) -> Vec<String> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let all = index["manifests"].as_array().unwrap();
    all.iter()
        .map(|m| format!("{}/{}", text(&m["platform"]["os"]), text(&m["platform"]["architecture"])))
        .collect()
}

#[test]
fn an_index_of_local_images_is_pushed_whole_and_read_by_others() {
    need!("docker-registry", "skopeo");
    let (own, other) = architectures();
    let env = two_images();
    let registry = Registry::start();
    let name = registry.image("both:1");
    env.run(["manifest", "create", &name, "own", "other"])
        .success()
        .prints(&format!("Created manifest list {name}"));
    env.run(["manifest", "create", &name]).code(1).stderr_has("--amend");
    env.run(["manifest", "exists", &name]).success();
    env.run(["manifest", "exists", "own"]).code(1);
    let shown = env.run(["manifest", "inspect", &name]).success();
    assert_eq!(platforms(&shown.json()), [format!("linux/{own}"), format!("linux/{other}")]);
    let exact = env.run(["manifest", "inspect", "--raw", &name]).success().stdout;
    let digest = digest_of(exact.as_bytes());

    env.run(["manifest", "push", "--digestfile", "digest", &name]).success().prints(&digest);
    assert_eq!(std::fs::read_to_string(env.work().join("digest")).unwrap(), digest);
    assert_eq!(raw(&name), exact.as_bytes());
    let inspected = registry.inspect("both:1", &["--override-arch", other]);
    assert_eq!(inspected["Architecture"], other);
    let dir = env.work().join("copy");
    must(
        Command::new("skopeo")
            .args(["copy", "--quiet", "--all", "--src-tls-verify=false", &format!("docker://{name}")])
            .arg(format!("oci:{}:x", dir.display())),
    );

    // Another user pulls either platform.
    for architecture in [own, other] {
        let fresh = Env::new();
        fresh.run(["pull", "-q", "--platform", &format!("linux/{architecture}"), &name]).success();
        let found = fresh.run(["inspect", "-f", "{{.Architecture}} {{.Digest}}", &name]).success();
        assert_eq!(found.text(), format!("{architecture} {digest}"));
    }
}

#[test]
fn an_index_is_an_image_like_others() {
    need!("skopeo");
    let (own, other) = architectures();
    let env = two_images();
    env.run(["manifest", "create", "both", "own", "other"]).success();
    let ids = env.run(["images", "--format", "{{.Repository}} {{.ID}}"]).success().stdout;
    let id = |name: &str| {
        let line = ids.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.split_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(id("both"), id("own"), "{ids}");
    env.run(["inspect", "-f", "{{.Architecture}}", "both"]).success().prints(own);
    let platform = format!("linux/{other}");
    env.run(["inspect", "--platform", &platform, "-f", "{{.Architecture}}", "both"]).success().prints(other);
    env.run(["image", "inspect", "--platform", "linux/s390x", "both"]).code(1).stderr_has("linux/s390x");
    env.run(["history", "--platform", &platform, "both"]).success();
    let members = env.run(["inspect", "-f", "{{range .Manifests}}{{.Kind}}:{{.Available}} {{end}}", "both"]);
    members.success().prints("image:true image:true ");
    env.run(["tag", "both", "again:2"]).success();
    env.run(["rmi", "own", "other"]).success();
    // What is freed are the lock files of builds that ended: nothing of the images.
    let blobs = || std::fs::read_dir(env.store().join("blobs/sha256")).unwrap().count();
    let before = blobs();
    let pruned = env.run(["image", "prune", "-f"]).success().stdout_has("Total reclaimed space: ");
    assert_eq!((pruned.stdout.lines().count(), blobs()), (1, before), "{pruned}");
    env.run(["image", "prune", "-f"]).success().prints("Total reclaimed space: 0B");
    env.run(["inspect", "--platform", &platform, "-f", "{{.Architecture}}", "again:2"])
        .success()
        .prints(other);
    let dir = env.work().join("saved");
    env.run(["save", "--format", "oci-dir", "-o", dir.to_str().unwrap(), "again:2"]).success();
    let index = must(
        Command::new("skopeo")
            .args(["inspect", "--raw"])
            .arg(format!("oci:{}:docker.io/library/again:2", dir.display())),
    );
    assert_eq!(platforms(&serde_json::from_slice(&index).unwrap()).len(), 2);
    env.run(["rmi", "both"]).success().prints("Untagged: both:latest");
    env.run(["manifest", "rm", "again:2"]).success().stdout_has("Deleted: sha256:");
    env.run(["images", "-aq"]).success().prints("");
}

#[test]
fn an_index_without_this_platform_is_listed_and_says_what_it_has() {
    need!("docker-registry", "skopeo");
    let (_, other) = architectures();
    let env = Env::new();
    build(&env, other, "other");
    env.run(["manifest", "create", "foreign", "other"]).success();
    let listed = env.run(["images", "--no-trunc", "--format", "{{.ID}}", "foreign"]).success();
    let exact = env.run(["manifest", "inspect", "--raw", "foreign"]).success().stdout;
    assert_eq!(listed.text(), digest_of(exact.as_bytes()));
    env.run(["run", "--rm", "foreign", "/arch"]).code(125).stderr_has(&format!("linux/{other}"));
    env.run(["history", "foreign"]).code(1).stderr_has(&format!("linux/{other}"));
    let bare = env.run(["inspect", "foreign"]).success().json();
    assert_eq!(bare[0]["RepoTags"][0], "foreign:latest");
    assert_eq!(bare[0]["Manifests"][0]["Descriptor"]["platform"]["architecture"], other);
    env.run(["manifest", "create", "empty"]).success();
    env.run(["images", "empty"]).success().stdout_has("empty");
    env.run(["run", "--rm", "empty"]).code(125).stderr_has("it names no platform");
    env.run(["rmi", "empty", "foreign"]).success();
}

#[test]
fn images_of_registries_are_named_without_being_pulled_and_copied_when_pushed() {
    need!("docker-registry", "skopeo", "busybox");
    let (own, other) = architectures();
    let (from, to) = (Registry::start(), Registry::start());
    let builder = two_images();
    let (first, second) = (from.image("a:own"), from.image("b:other"));
    builder.run(["push", "-q", "own", &first]).success();
    builder.run(["push", "-q", "other", &second]).success();

    let env = Env::new();
    env.run(["manifest", "create", "both", &first]).success();
    env.run(["manifest", "add", "both", &format!("docker://{second}")]).success();
    env.run(["images", "-q"]).success();
    let blobs = std::fs::read_dir(env.store().join("blobs/sha256")).unwrap().count();
    assert_eq!(blobs, 2, "two states of the index and nothing else");
    env.run(["tag", "both", "same"]).success();
    for place in [to.image("x/both:1"), from.image("x/both:1")] {
        env.run(["manifest", "push", "same", &place]).success();
        let index: serde_json::Value = serde_json::from_slice(&raw(&place)).unwrap();
        assert_eq!(platforms(&index), [format!("linux/{own}"), format!("linux/{other}")]);
        for architecture in [own, other] {
            must(
                Command::new("skopeo")
                    .args([
                        "copy",
                        "--quiet",
                        "--src-tls-verify=false",
                        "--override-arch",
                        architecture,
                        &format!("docker://{place}"),
                    ])
                    .arg(format!("dir:{}", env.work().join("out").display())),
            );
        }
    }
    // Run takes the image from where the index has it from.
    let mixed = Env::new();
    let busybox = shared_registry().image("busybox:latest");
    mixed.run(["manifest", "create", "tools", &busybox, &second]).success();
    mixed.run(["run", "--rm", "--network", "none", "tools", "echo", "hi"]).success().prints("hi");
}

#[test]
fn what_an_index_says_can_be_changed() {
    need!("skopeo");
    let (own, _) = architectures();
    let env = two_images();
    env.run(["manifest", "create", "--annotation", "a=1", "both", "own"]).success();
    env.run([
        "manifest",
        "add",
        "--variant",
        "v9",
        "--os-version",
        "10.1",
        "--annotation",
        "x=y",
        "both",
        "other",
    ])
    .success();
    env.run(["manifest", "annotate", "--os-features", "f1,f2", "--features", "sse", "both", "own"]).success();
    env.run(["manifest", "annotate", "--index", "--annotation", "b=2", "--annotation", "a=", "both"])
        .success();
    env.run(["manifest", "annotate", "both", "nothing/like/it"]).code(1);
    let index = env.run(["manifest", "inspect", "both"]).success().json();
    let (first, second) = (&index["manifests"][0], &index["manifests"][1]);
    assert_eq!(first["platform"]["os.features"], serde_json::json!(["f1", "f2"]));
    assert_eq!(first["platform"]["features"], serde_json::json!(["sse"]));
    assert_eq!(first["platform"]["architecture"], own);
    assert_eq!(
        (&second["platform"]["variant"], &second["platform"]["os.version"]),
        (&"v9".into(), &"10.1".into())
    );
    assert_eq!(second["annotations"], serde_json::json!({"x": "y"}));
    assert_eq!(index["annotations"], serde_json::json!({"b": "2"}));
    // The same image once more changes what is said of it; another one for the same platform is told of.
    env.run(["manifest", "add", "both", "own"]).success();
    build(&env, own, "newer");
    env.write("arch", "changed");
    env.run(["build", "-q", "-t", "newer", "."]).success();
    env.run(["manifest", "add", "both", "newer"]).success();
    let digest = second["digest"].as_str().unwrap();
    let removed = env.run(["manifest", "remove", "both", digest]).success();
    assert!(removed.text().starts_with("sha256:"), "{removed}");
    env.run(["manifest", "remove", "both", digest]).code(1).stderr_has("does not hold");
    let index = env.run(["manifest", "inspect", "both"]).success().json();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    let subject = env.run(["manifest", "inspect", "--raw", "containers-storage:own"]).success();
    env.run(["manifest", "annotate", "--subject", "containers-storage:own", "both"]).success();
    let index = env.run(["manifest", "inspect", "both"]).success().json();
    assert_eq!(index["subject"]["digest"], digest_of(subject.stdout.as_bytes()));
    env.run(["manifest", "push", "--format", "v2s2", "both", "127.0.0.1:1/x"])
        .code(1)
        .stderr_has("no place for");
    env.run(["manifest", "add", "own", "other"]).code(1).stderr_has("is an image, not an index");
    env.run(["manifest", "create", "--amend", "own"]).code(1).stderr_has("is an image, not an index");
    env.run(["manifest", "add", "missing", "own"]).code(1).stderr_has("no such index");
    env.run(["manifest", "rm", "-i", "missing"]).success();
    env.run(["manifest", "rm", "missing"]).code(1);
}

#[test]
fn concurrent_additions_lose_nothing() {
    let env = Env::new();
    env.run(["manifest", "create", "many"]).success();
    let names: Vec<String> = (0..6).map(|i| format!("i{i}")).collect();
    for name in &names {
        env.write("Dockerfile", format!("FROM scratch\nLABEL n={name}\nCOPY Dockerfile /\n"));
        env.run(["build", "-q", "-t", name, "."]).success();
    }
    let running: Vec<_> =
        names.iter().map(|name| env.spawn(["manifest", "add", "--variant", name, "many", name])).collect();
    for one in running {
        one.finish().success();
    }
    let index = env.run(["manifest", "inspect", "many"]).success().json();
    assert_eq!(index["manifests"].as_array().unwrap().len(), names.len());
}

#[test]
fn anything_in_a_registry_is_inspected_without_pulling_it() {
    need!("docker-registry", "skopeo", "busybox");
    let image = shared_registry().image("busybox:latest");
    let env = Env::new();
    let bytes = raw(&image);
    let shown = env.run(["manifest", "inspect", "--raw", &image]).success();
    assert_eq!(shown.stdout.as_bytes(), bytes);
    let one = env.run(["manifest", "inspect", "-v", &image]).success().json();
    assert_eq!(one["Ref"], image);
    assert_eq!(one["Descriptor"]["digest"], digest_of(&bytes));
    assert_eq!(one["Descriptor"]["platform"]["os"], "linux");
    assert_eq!(one["OCIManifest"]["schemaVersion"], 2);
    env.run(["manifest", "inspect", &shared_registry().image("busybox:no")]).code(1);
    assert!(!env.store().exists(), "nothing is made for that");

    // A single image that is here too is asked of the registry: this is how scripts see whether it is there.
    let builder = two_images();
    let missing = shared_registry().image("not/there:1");
    builder.run(["tag", "own", &missing]).success();
    builder.run(["manifest", "inspect", &missing]).code(1);
    let registry = Registry::start();
    let name = registry.image("both:1");
    builder.run(["manifest", "create", &name, "own", "other"]).success();
    builder.run(["manifest", "push", "--purge", &name]).success();
    builder.run(["manifest", "exists", &name]).code(1);
    let all = builder.run(["manifest", "inspect", "-v", &name]).success().json();
    let refs: Vec<&str> = all.as_array().unwrap().iter().map(|one| one["Ref"].as_str().unwrap()).collect();
    assert!(refs.iter().all(|one| one.starts_with(&format!("{name}@sha256:"))), "{refs:?}");
    let (_, other) = architectures();
    let digest = all[1]["Descriptor"]["digest"].as_str().unwrap();
    assert_eq!(all[1]["Descriptor"]["platform"]["architecture"], other);
    let child = builder.run(["manifest", "inspect", "--raw", &name, digest]).success();
    assert_eq!(digest_of(child.stdout.as_bytes()), digest);
}

/// Put a document into a registry as it is.
fn put_manifest(registry: &Registry, name: &str, kind: &str, text: &str) -> Output {
    let (repository, tag) = name.split_once(':').unwrap();
    let url = format!("http://{}/v2/{repository}/manifests/{tag}", registry.host());
    let header = format!("Content-Type: {kind}");
    Output::of(Command::new("curl").args([
        "-sS",
        "-f",
        "-X",
        "PUT",
        "-H",
        &header,
        "--data-binary",
        text,
        &url,
    ]))
}

#[test]
fn attestations_travel_with_their_image() {
    need!("docker-registry", "skopeo", "curl", "busybox");
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let (own, other) = architectures();
    let registry = Registry::start();
    let env = two_images();
    for name in ["own", "other"] {
        env.run(["push", "-q", name, &registry.image(&format!("app:{name}"))]).success();
    }
    let child = |tag: &str, os: &str, architecture: &str, of: Option<&str>| {
        let bytes = raw(&registry.image(&format!("app:{tag}")));
        let mut value = serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest_of(&bytes), "size": bytes.len(),
            "platform": {"os": os, "architecture": architecture}
        });
        if let Some(of) = of {
            value["annotations"] = serde_json::json!({
                "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of
            });
        }
        value
    };
    let image = child("own", "linux", own, None);
    // Any manifest will do for what is attested.
    let attestation = child("other", "unknown", "unknown", image["digest"].as_str());
    let index =
        serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [image, attestation]});
    put_manifest(&registry, "app:built", INDEX, &index.to_string()).success();
    // One platform beside an attestation: there is nothing to choose.
    env.run(["manifest", "create", "list", &registry.image("app:built")]).success().stderr_lacks("--all");
    let members = env.run(["manifest", "inspect", "list"]).success().json();
    assert_eq!(platforms(&members), [format!("linux/{own}"), "unknown/unknown".to_owned()]);
    env.run(["manifest", "push", "list", &registry.image("copy/app:1")]).success();
    let digest = members["manifests"][0]["digest"].as_str().unwrap();
    env.run(["manifest", "remove", "list", digest]).success();
    let members = env.run(["manifest", "inspect", "list"]).success().json();
    assert_eq!(members["manifests"].as_array().unwrap().len(), 0);
    // Of several platforms one is taken, and that is said.
    env.run(["manifest", "create", "two", "own", "other"]).success();
    env.run(["manifest", "push", "two", &registry.image("app:two")]).success();
    env.run(["manifest", "add", "list", &registry.image("app:two")]).success().stderr_has("--all");
    env.run(["manifest", "add", "--arch", other, "list", &registry.image("app:two")]).success();
    env.run(["manifest", "create", "every", "--all", &registry.image("app:two")]).success();
    for list in ["list", "every"] {
        let members = env.run(["manifest", "inspect", list]).success().json();
        assert_eq!(platforms(&members), [format!("linux/{own}"), format!("linux/{other}")], "{list}");
    }
}

#[test]
fn m5_an_index_in_an_index_and_absurd_indexes_are_refused() {
    need!("docker-registry", "skopeo", "curl", "busybox");
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let registry = Registry::start();
    let env = two_images();
    env.run(["manifest", "create", "two", "own", "other"]).success();
    env.run(["manifest", "push", "two", &registry.image("app:two")]).success();
    let bytes = raw(&registry.image("app:two"));
    let nested = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": INDEX, "digest": digest_of(&bytes), "size": bytes.len()}
    ]});
    put_manifest(&registry, "app:nested", INDEX, &nested.to_string()).success();
    let nested = registry.image("app:nested");
    env.run(["manifest", "create", "--all", "list", &nested])
        .code(1)
        .stderr_has("an index holds images only");
    env.run(["manifest", "inspect", &nested]).success();
    env.run(["manifest", "inspect", "-v", &nested]).success();
    let mut entry = serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["manifests"][0].clone();
    entry["platform"] = serde_json::json!({"os": "linux", "architecture": "amd64"});
    let many = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": vec![entry; 3000]});
    let file = env.write("many", many.to_string());
    put_manifest(&registry, "app:many", INDEX, &format!("@{}", file.display())).success();
    env.run(["manifest", "create", "--all", "list", &registry.image("app:many")]).code(1).stderr_has("1024");
    env.run(["images"]).success();
    env.run(["manifest", "exists", "list"]).code(1);
}

#[test]
fn lists_of_podman_and_skopeo_are_read() {
    need!("docker-registry", "skopeo", "busybox");
    let registry = Registry::start();
    let env = two_images();
    env.run(["manifest", "create", "two", "own", "other"]).success();
    env.run(["manifest", "push", "--format", "v2s2", "two", &registry.image("app:docker")]).success();
    let index: serde_json::Value = serde_json::from_slice(&raw(&registry.image("app:docker"))).unwrap();
    assert_eq!(index["mediaType"], "application/vnd.docker.distribution.manifest.list.v2+json");
    // Docker's types all through, by skopeo.
    let (from, to) = (registry.image("app:docker"), registry.image("app:v2s2"));
    must(Command::new("skopeo").args([
        "copy",
        "--quiet",
        "--all",
        "--format",
        "v2s2",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        &format!("docker://{from}"),
        &format!("docker://{to}"),
    ]));
    let fresh = Env::new();
    fresh.run(["manifest", "create", "--all", "list", &to]).success();
    fresh.run(["manifest", "push", "list", &registry.image("again:1")]).success();
    let verbose = fresh.run(["manifest", "inspect", "-v", &to]).success().json();
    assert!(verbose[0]["SchemaV2Manifest"].is_object());
    must(
        Command::new("skopeo")
            .args([
                "copy",
                "--quiet",
                "--all",
                "--src-tls-verify=false",
                &format!("docker://{}", registry.image("again:1")),
            ])
            .arg(format!("dir:{}", fresh.work().join("out").display())),
    );
    // A layout and an archive of several platforms.
    let layout = fresh.work().join("layout");
    must(
        Command::new("skopeo")
            .args(["copy", "--quiet", "--all", "--src-tls-verify=false", &format!("docker://{to}")])
            .arg(format!("oci:{}:two", layout.display())),
    );
    fresh.run(["manifest", "create", "--all", "of-files", "oci:./layout:two"]).success();
    fresh.run(["manifest", "push", "of-files", "oci-archive:./list.tar:x"]).success();
    let index = fresh.run(["manifest", "inspect", "--raw", "oci-archive:./list.tar:x"]).success();
    assert_eq!(platforms(&index.json()).len(), 2);
    fresh.run(["manifest", "push", "of-files", "dir:./as-files"]).success();
    let file = std::fs::read(fresh.work().join("as-files/manifest.json")).unwrap();
    assert_eq!(file, index.stdout.as_bytes());
}

#[test]
fn files_become_an_artifact_of_an_index() {
    need!("docker-registry", "skopeo");
    let registry = Registry::start();
    let env = two_images();
    env.write("note.txt", "hello\n");
    env.run(["manifest", "create", "list", "own"]).success();
    let add = ["manifest", "add", "--artifact", "--artifact-type", "text/x-note", "--annotation", "k=v"];
    env.run(add.iter().chain(&["--artifact-subject", "own", "list", "note.txt"])).success();
    env.run(["manifest", "add", "--artifact", "list", "missing"]).code(1).stderr_has("missing");
    env.run(["manifest", "add", "--artifact", "list", "."]).code(1).stderr_has("not a regular file");
    env.run(["image", "prune", "-f"]).success();
    let name = registry.image("list:1");
    env.run(["manifest", "push", "list", &name]).success();
    let index: serde_json::Value = serde_json::from_slice(&raw(&name)).unwrap();
    let member = &index["manifests"][1];
    assert_eq!((&member["artifactType"], &member["annotations"]["k"]), (&"text/x-note".into(), &"v".into()));
    let place = format!("{}@{}", registry.image("list"), member["digest"].as_str().unwrap());
    let manifest: serde_json::Value = serde_json::from_slice(&raw(&place)).unwrap();
    assert_eq!(manifest["layers"][0]["annotations"]["org.opencontainers.image.title"], "note.txt");
    assert_eq!(manifest["layers"][0]["digest"], digest_of(b"hello\n"));
    assert_eq!(manifest["subject"]["digest"], index["manifests"][0]["digest"]);
    // What is no image is pulled, listed and shown, and never run.
    let fresh = Env::new();
    fresh.run(["pull", "-q", &place]).success();
    fresh.run(["images", "-q"]).success();
    fresh.run(["inspect", "-f", "{{.ArtifactType}}", &place]).success().prints("text/x-note");
    fresh.run(["run", &place]).code(125).stderr_has("is an artifact (text/x-note)");
    fresh.run(["rmi", &place]).success();
}

#[test]
fn podman_reads_our_indexes_and_we_read_podmans() {
    need!(user);
    need!("docker-registry", "skopeo", "podman");
    let registry = Registry::start();
    let (own, other) = architectures();
    let env = two_images();
    let podman = |args: &[&str]| {
        let output = env.program(program("podman").unwrap()).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (works, _, why) = podman(&["info"]);
    if !works {
        return skip(&format!("podman does not work here: {why}"));
    }
    let good = |args: &[&str]| {
        let (good, text, why) = podman(args);
        assert!(good, "podman {args:?}: {why}");
        text.trim().to_owned()
    };
    let ours = registry.image("ours:1");
    env.run(["manifest", "create", &ours, "own", "other"]).success();
    let digest = env.run(["manifest", "push", "-q", &ours]).success().text().to_owned();
    for architecture in [own, other] {
        let platform = format!("linux/{architecture}");
        good(&["pull", "-q", "--tls-verify=false", "--platform", &platform, &ours]);
        let found = good(&["image", "inspect", "--format", "{{.Architecture}} {{.Digest}}", &ours]);
        assert_eq!(found, format!("{architecture} {digest}"));
    }
    good(&["manifest", "create", "list"]);
    good(&["manifest", "add", "--tls-verify=false", "--all", "list", &format!("docker://{ours}")]);
    let theirs = registry.image("theirs:1");
    good(&["manifest", "push", "--tls-verify=false", "--all", "list", &format!("docker://{theirs}")]);
    assert_eq!(platforms(&serde_json::from_str(&good(&["manifest", "inspect", "list"])).unwrap()).len(), 2);
    let shown = env.run(["manifest", "inspect", "--raw", &theirs]).success();
    assert_eq!(shown.stdout.as_bytes(), raw(&theirs));
    for architecture in [own, other] {
        let fresh = Env::new();
        fresh.run(["pull", "-q", "--platform", architecture, &theirs]).success();
        fresh.run(["inspect", "-f", "{{.Architecture}}", &theirs]).success().prints(architecture);
    }
    podman(&["unshare", "rm", "-rf", env.home().join(".local/share/containers").to_str().unwrap()]);
}
