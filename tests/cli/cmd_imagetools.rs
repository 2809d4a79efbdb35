//! `buildx imagetools`: as CI merges what was built for each architecture.

use std::process::Command;

use serde_json::Value;
use sha2::Digest;

use crate::support::{Env, Registry, must, need};

fn digest_of(bytes: &[u8]) -> String {
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn raw(image: &str) -> Vec<u8> {
    let place = format!("docker://{image}");
    must(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &place]))
}

/// A registry with `app:amd64` and `app:arm64`, and an environment without any store.
fn built() -> (Registry, Env) {
    let registry = Registry::start();
    let builder = Env::new();
    builder.write("Dockerfile", "FROM scratch\nCOPY arch /arch\n");
    for architecture in ["amd64", "arm64"] {
        builder.write("arch", architecture);
        let name = registry.image(&format!("app:{architecture}"));
        builder.run(["build", "-q", "--platform", architecture, "-t", &name, "."]).success();
        builder.run(["push", "-q", &name]).success();
    }
    (registry, Env::new())
}

fn architectures(document: &[u8]) -> Vec<String> {
    let index: Value = serde_json::from_slice(document).unwrap();
    let all = index["manifests"].as_array().unwrap();
    all.iter().map(|m| m["platform"]["architecture"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn images_of_each_architecture_become_one() {
    need!("docker-registry", "skopeo");
    let (registry, env) = built();
    let image = |name: &str| registry.image(name);
    let tool = |args: &[&str]| env.run(["buildx", "imagetools"].iter().chain(args));
    let (amd, arm) = (image("app:amd64"), image("app:arm64"));
    tool(&["create", "-t", &image("app:1"), "-t", &image("other/app:1"), &amd, &arm]).success();
    let document = raw(&image("app:1"));
    assert_eq!(architectures(&document), ["amd64", "arm64"]);
    assert_eq!(raw(&image("other/app:1")), document);
    for architecture in ["amd64", "arm64"] {
        let mut copy = Command::new("skopeo");
        copy.args(["copy", "--quiet", "--src-tls-verify=false", "--override-arch", architecture]);
        copy.arg(format!("docker://{}", image("other/app:1")));
        must(copy.arg(format!("dir:{}", env.work().join(architecture).display())));
    }
    let dry = tool(&["create", "--dry-run", &amd, &arm]).success();
    assert_eq!(dry.stdout.trim_end().as_bytes(), document);

    // As CI does it: digests of pushes by digest, collected in files.
    let digest = digest_of(&raw(&amd));
    let file = env.write("one", format!("{{\"digest\":\"{}\"}}", digest_of(&raw(&arm))));
    assert!(file.exists());
    let descriptor = format!(
        "{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"{}\",\"size\":{},\
         \"annotations\":{{\"k\":\"v\"}}}}",
        digest_of(&raw(&arm)),
        raw(&arm).len()
    );
    env.write("descriptor", descriptor + "\n");
    let name = image("app:2");
    tool(&["create", "-t", &name, "--metadata-file", "meta.json", "-f", "descriptor", &digest]).success();
    let document = raw(&name);
    assert_eq!(architectures(&document), ["arm64", "amd64"]);
    let index: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(index["manifests"][0]["annotations"]["k"], "v");
    let meta: Value = serde_json::from_slice(&std::fs::read(env.work().join("meta.json")).unwrap()).unwrap();
    assert_eq!(meta["containerimage.digest"], digest_of(&document));
    assert_eq!(meta["image.name"], name);
    assert!(!env.store().exists(), "no store is needed");
}

#[test]
fn one_source_is_copied_and_more_can_be_added() {
    need!("docker-registry", "skopeo");
    let (registry, env) = built();
    let image = |name: &str| registry.image(name);
    let tool = |args: &[&str]| env.run(["buildx", "imagetools"].iter().chain(args));
    let (amd, arm) = (image("app:amd64"), image("app:arm64"));
    tool(&["create", "-t", &image("app:list"), &amd]).success();
    assert_eq!(architectures(&raw(&image("app:list"))), ["amd64"]);
    tool(&["create", "-t", &image("app:list"), "--append", &arm]).success();
    let both = raw(&image("app:list"));
    assert_eq!(architectures(&both), ["amd64", "arm64"]);
    tool(&["create", "-t", &image("new/app:copy"), &image("app:list")]).success();
    assert_eq!(raw(&image("new/app:copy")), both, "an index alone is copied as it is");
    for place in ["app:same", "new/app:same"] {
        tool(&["create", "--prefer-index=false", "-t", &image(place), &amd]).success();
        assert_eq!(raw(&image(place)), raw(&amd));
    }
    tool(&["create", "--platform", "linux/arm64", "-t", &image("app:arm"), &image("app:list")]).success();
    assert_eq!(architectures(&raw(&image("app:arm"))), ["arm64"]);
    tool(&["create", "--platform", "linux/s390x", "-t", &image("app:x"), &amd])
        .code(1)
        .stderr_has("linux/s390x");
    let notes = ["create", "--annotation", "a=1", "--annotation", "manifest-descriptor[linux/amd64]:b=2"];
    tool(&[&notes[..], &["-t", &image("app:noted"), &image("app:list")]].concat()).success();
    let index: Value = serde_json::from_slice(&raw(&image("app:noted"))).unwrap();
    assert_eq!(
        (&index["annotations"]["a"], &index["manifests"][0]["annotations"]["b"]),
        (&"1".into(), &"2".into())
    );
    assert!(index["manifests"][1]["annotations"].is_null());
    tool(&["create", "-t", &image("app:x")]).code(1).stderr_has("no sources");
    tool(&["create", &amd]).code(1).stderr_has("--tag");
    let digest = digest_of(&raw(&amd));
    tool(&["create", "-t", &image("else:x"), &digest, &arm]).code(1).stderr_has("in which repository");
    tool(&["create", "-t", &image("app:x"), &image("app:missing")]).code(1).stderr_has("app:missing");
}

#[test]
fn an_image_is_inspected_where_it_is() {
    need!("docker-registry", "skopeo");
    let (registry, env) = built();
    let image = |name: &str| registry.image(name);
    let tool = |args: &[&str]| env.run(["buildx", "imagetools"].iter().chain(args));
    let name = image("app:1");
    tool(&["create", "-t", &name, &image("app:amd64"), &image("app:arm64")]).success();
    let document = raw(&name);
    let digest = digest_of(&document);
    assert_eq!(tool(&["inspect", "--raw", &name]).success().stdout.as_bytes(), document);
    let shown = tool(&["inspect", &name]).success();
    let amd = digest_of(&raw(&image("app:amd64")));
    let expected = format!(
        "Name:      {name}\nMediaType: application/vnd.oci.image.index.v1+json\nDigest:    {digest}\n\nManifests:\n  \
         Name:      {name}@{amd}\n  MediaType: application/vnd.oci.image.manifest.v1+json\n  \
         Platform:  linux/amd64\n\n  Name: "
    );
    assert!(shown.stdout.starts_with(&expected), "{shown}");
    tool(&["inspect", "--format", "{{.Manifest.Digest}}", &name]).success().prints(&digest);
    tool(&["inspect", "--format", "{{.Name}}", &name]).success().prints(&name);
    let manifest = tool(&["inspect", "--format", "{{json .Manifest}}", &name]).success().json();
    assert_eq!(
        (&manifest["digest"], manifest["manifests"].as_array().unwrap().len()),
        (&digest.clone().into(), 2)
    );
    let images = tool(&["inspect", "--format", "{{json .Image}}", &name]).success().json();
    assert_eq!(images["linux/arm64"]["architecture"], "arm64");
    let one = tool(&["inspect", "--format", "{{.Image.Architecture}}", &image("app:arm64")]).success();
    one.prints("arm64");
    tool(&["inspect", &image("app:no")]).code(1).stderr_has("app:no");
    assert!(!env.store().exists());
}
