//! policy.json: what lets images in and what does not, in every verb that reads one.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Env, Registry, busybox_image, must, need, shared_registry};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An environment whose user has this policy.
fn with_policy(policy: &Value) -> Env {
    let env = Env::new();
    let directory = env.home().join(".config/containers");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("policy.json"), policy.to_string()).unwrap();
    env
}

/// A policy that demands this of the images of one registry and refuses all others.
fn demand(registry: &Registry, requirement: &Value) -> Value {
    json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {registry.host(): [requirement]}}
    })
}

#[test]
fn what_is_rejected_comes_in_by_no_verb() {
    need!("docker-registry", "skopeo");
    let registry = shared_registry();
    let image = registry.image("busybox");
    let env = with_policy(&json!({"default": [{"type": "reject"}]}));
    env.write("Dockerfile", format!("FROM {image}\n"));
    let layout = format!("oci:{}", busybox_image());
    let remote = format!("docker://{image}");
    for verb in [
        vec!["pull", &image],
        vec!["create", &image],
        vec!["build", "."],
        vec!["copy", &remote, "oci:out"],
        vec!["copy", &layout, "store:here"],
    ] {
        let said = env.run(&verb);
        assert_ne!(said.code, 0, "{said}");
        said.stderr_has("policy.json").stderr_has("reject");
    }
    assert_eq!(env.run(["images", "-aq"]).success().text(), "");
    let archive = env.work().join("a.tar");
    let target = format!("docker-archive:{}:here:1", archive.display());
    must(Command::new("skopeo").args(["--insecure-policy", "copy", "-q", &layout, &target]));
    let said = env.run(["load", "-i", archive.to_str().unwrap()]);
    assert_ne!(said.code, 0, "{said}");
    said.stderr_has("policy.json");
    assert_eq!(env.run(["images", "-aq"]).success().text(), "");
    // What is said on the command line wins over the file, and a file that is wrong stops everything.
    let accept =
        env.write("accept.json", json!({"default": [{"type": "insecureAcceptAnything"}]}).to_string());
    env.run(["copy", "--insecure-policy", &remote, "oci:out"]).success();
    env.run(["--insecure-policy", "--signature-policy", "x", "pull", &image]).code(2);
    env.run(["pull", "--signature-policy", accept.to_str().unwrap(), &image]).success();
    let wrong =
        env.write("wrong.json", "{\"default\": [{\"type\": \"insecureAcceptAnything\", \"extra\": 1}]}");
    env.run(["pull", "--signature-policy", wrong.to_str().unwrap(), &image]).code(1).stderr_has("wrong.json");
    env.run(["pull", "--signature-policy", "none.json", &image]).code(1).stderr_has("none.json");
}

/// The most specific scope counts alone.
#[test]
fn a_repository_may_be_let_in_where_its_registry_is_not() {
    need!("docker-registry", "skopeo");
    let registry = Registry::start();
    for name in ["good/a:1", "bad/a:1"] {
        registry.put(&busybox_image(), name);
    }
    let policy = json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {format!("{}/good", registry.host()): [{"type": "insecureAcceptAnything"}]}}
    });
    let env = with_policy(&policy);
    env.run(["pull", &registry.image("good/a:1")]).success();
    env.run(["pull", &registry.image("bad/a:1")]).code(1).stderr_has("default");
}

/// A key pair for sigstore signatures.
struct Key {
    private: PathBuf,
    public: PathBuf,
}

impl Key {
    fn make(env: &Env, name: &str, kind: &[&str]) -> Self {
        let (private, public) =
            (env.work().join(format!("{name}.key")), env.work().join(format!("{name}.pub")));
        must(Command::new("openssl").arg("genpkey").args(kind).arg("-out").arg(&private));
        must(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public));
        Self { private, public }
    }

    fn sign(&self, env: &Env, payload: &[u8]) -> String {
        let path = env.write("payload", payload);
        let signature =
            must(Command::new("openssl").args(["dgst", "-sha256", "-sign"]).arg(&self.private).arg(path));
        let path = env.write("signature", signature);
        let text = must(Command::new("openssl").args(["base64", "-A", "-in"]).arg(path));
        String::from_utf8(text).unwrap()
    }

    fn requirement(&self, identity: Option<Value>) -> Value {
        let mut requirement = json!({"type": "sigstoreSigned", "keyPath": self.public});
        if let Some(identity) = identity {
            requirement["signedIdentity"] = identity;
        }
        requirement
    }
}

fn put(url: &str, kind: &str, bytes: &[u8]) {
    let response = ureq::put(url).content_type(kind).send(bytes).unwrap();
    assert_eq!(response.status(), 201, "{url}");
}

fn put_blob(registry: &Registry, repository: &str, bytes: &[u8]) -> String {
    let digest = digest_of(bytes);
    let start = format!("http://{}/v2/{repository}/blobs/uploads/", registry.host());
    let response = ureq::post(&start).send_empty().unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let separator = if location.contains('?') { '&' } else { '?' };
    put(&format!("{location}{separator}digest={digest}"), "application/octet-stream", bytes);
    digest
}

fn digest_of(bytes: &[u8]) -> String {
    strate::oci::Digest::sha256(bytes).to_string()
}

/// Attach signatures to an image as cosign does: `(docker-reference, digest, signature of the payload)`.
fn attach(registry: &Registry, repository: &str, digest: &str, payloads: &[(Vec<u8>, String)]) {
    let config = b"{\"architecture\":\"\",\"os\":\"\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}";
    let config_digest = put_blob(registry, repository, config);
    let layers: Vec<Value> = payloads
        .iter()
        .map(|(payload, signature)| {
            json!({
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": put_blob(registry, repository, payload),
                "size": payload.len(),
                "annotations": {"dev.cosignproject.cosign/signature": signature}
            })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len()},
        "layers": layers
    });
    let tag = format!("{}.sig", digest.replace(':', "-"));
    let url = format!("http://{}/v2/{repository}/manifests/{tag}", registry.host());
    put(&url, OCI_MANIFEST, manifest.to_string().as_bytes());
}

fn payload(name: &str, digest: &str) -> Vec<u8> {
    json!({
        "critical": {
            "identity": {"docker-reference": name},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature"
        },
        "optional": null
    })
    .to_string()
    .into_bytes()
}

/// `sigstoreSigned` is verified: the key, the document and the name that a signature is for. skopeo agrees.
#[test]
fn a_sigstore_signature_by_the_key_and_for_the_name_lets_in() {
    need!("docker-registry", "skopeo", "openssl");
    let registry = Registry::start();
    let image = registry.put(&busybox_image(), "team/a:1");
    let digest = registry.inspect("team/a:1", &[])["Digest"].as_str().unwrap().to_owned();
    let tools = Env::new();
    let key = Key::make(&tools, "one", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let other = Key::make(&tools, "two", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let env = with_policy(&demand(&registry, &key.requirement(None)));
    env.run(["pull", &image]).code(1).stderr_has("the image has none");

    let signed = |key: &Key, name: &str, digest: &str| {
        let payload = payload(name, digest);
        let signature = key.sign(&tools, &payload);
        (payload, signature)
    };
    let wrong_digest = digest_of(b"something else");
    for (signature, why) in [
        (signed(&other, &image, &digest), "not by this key"),
        (signed(&key, &image, &wrong_digest), &*wrong_digest),
        (signed(&key, &registry.image("team/a:2"), &digest), "team/a:2"),
        (signed(&key, &registry.image("team/a"), &digest), "team/a`"),
    ] {
        attach(&registry, "team/a", &digest, &[signature]);
        env.run(["pull", &image]).code(1).stderr_has(why);
    }
    // One good signature among bad ones is enough.
    attach(&registry, "team/a", &digest, &[signed(&other, &image, &digest), signed(&key, &image, &digest)]);
    env.run(["pull", &image]).success();
    let policy = env.home().join(".config/containers/policy.json");
    skopeo_agrees(&tools, &registry, &policy, &image);

    // What cosign writes by itself says no tag: the policy must allow that.
    attach(&registry, "team/a", &digest, &[signed(&key, &registry.image("team/a"), &digest)]);
    let requirement = key.requirement(Some(json!({"type": "matchRepository"})));
    let env = with_policy(&demand(&registry, &requirement));
    env.run(["pull", &image]).success();
    let fulcio =
        json!({"type": "sigstoreSigned", "fulcio": {"caPath": "/x", "oidcIssuer": "i", "subjectEmail": "e"}});
    let env = with_policy(&demand(&registry, &fulcio));
    env.run(["pull", &image]).code(1).stderr_has("fulcio");
}

/// An index that was kept beside one image of it names others, which nobody has let in: they are when they are fetched.
#[test]
fn what_is_fetched_to_be_pushed_is_let_in_first() {
    need!("docker-registry");
    let registry = Registry::start();
    let members: Vec<Value> = ["amd64", "arm64"]
        .iter()
        .map(|architecture| {
            let config = json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
            let config = config.to_string();
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": put_blob(&registry, "x", config.as_bytes()),
                    "size": config.len()
                },
                "layers": []
            })
            .to_string();
            let url = format!("http://{}/v2/x/manifests/{architecture}", registry.host());
            put(&url, OCI_MANIFEST, manifest.as_bytes());
            json!({
                "mediaType": OCI_MANIFEST,
                "digest": digest_of(manifest.as_bytes()),
                "size": manifest.len(),
                "platform": {"os": "linux", "architecture": architecture}
            })
        })
        .collect();
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": members}).to_string();
    put(&format!("http://{}/v2/x/manifests/v1", registry.host()), kind, index.as_bytes());

    let env = with_policy(&json!({"default": [{"type": "insecureAcceptAnything"}]}));
    let image = registry.image("x:v1");
    env.run(["pull", "--platform", "linux/amd64", &image]).success();
    env.run(["manifest", "create", "--all", "l1", &image]).success();
    // Only the registry that the image is fetched from is refused.
    let refuse = json!({
        "default": [{"type": "insecureAcceptAnything"}],
        "transports": {"docker": {registry.host(): [{"type": "reject"}]}}
    });
    std::fs::write(env.home().join(".config/containers/policy.json"), refuse.to_string()).unwrap();
    let said = env.run(["manifest", "push", "--all", "l1", "oci:./out:x"]);
    assert_ne!(said.code, 0, "{said}");
    said.stderr_has("policy.json").stderr_has("reject");
    let accept = json!({"default": [{"type": "insecureAcceptAnything"}]}).to_string();
    std::fs::write(env.home().join(".config/containers/policy.json"), accept).unwrap();
    env.run(["manifest", "push", "--all", "l1", "oci:./out:x"]).success();
}

fn skopeo_agrees(tools: &Env, registry: &Registry, policy: &Path, image: &str) {
    let directory = tools.work().join("registries.d");
    std::fs::create_dir_all(&directory).unwrap();
    let text = format!("docker:\n  {}:\n    use-sigstore-attachments: true\n", registry.host());
    std::fs::write(directory.join("a.yaml"), text).unwrap();
    let output = Command::new("skopeo")
        .arg(format!("--policy={}", policy.display()))
        .arg(format!("--registries.d={}", directory.display()))
        .args(["copy", "--src-tls-verify=false", &format!("docker://{image}")])
        .arg(format!("dir:{}", tools.work().join("copied").display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // Some distributions build it without sigstore.
    assert!(output.status.success() || said.contains("sigstore disabled"), "{said}");
}

/// A signature of an index covers the images in it, as it names them by digest. Other kinds of keys work too.
#[test]
fn a_signed_index_lets_its_images_in() {
    need!("docker-registry", "skopeo", "openssl");
    let registry = Registry::start();
    registry.put(&busybox_image(), "team/a:single");
    let raw: Value = registry.inspect("team/a:single", &["--raw"]);
    let digest = registry.inspect("team/a:single", &[])["Digest"].as_str().unwrap().to_owned();
    let url = |tag: &str| format!("http://{}/v2/team/a/manifests/{tag}", registry.host());
    let mut response = ureq::get(url(&digest)).header("accept", OCI_MANIFEST).call().unwrap();
    let size = response.body_mut().read_to_vec().unwrap().len();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"mediaType": raw["mediaType"].as_str().unwrap_or(OCI_MANIFEST), "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }}}]
    });
    let index = index.to_string();
    put(&url("1"), "application/vnd.oci.image.index.v1+json", index.as_bytes());
    let tools = Env::new();
    for (name, kind) in [
        ("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"][..]),
        ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    ] {
        let key = Key::make(&tools, name, kind);
        let payload = payload(&registry.image("team/a:1"), &digest_of(index.as_bytes()));
        let signature = key.sign(&tools, &payload);
        let env = with_policy(&demand(&registry, &key.requirement(None)));
        env.run(["pull", &registry.image("team/a:1")]).code(1);
        attach(&registry, "team/a", &digest_of(index.as_bytes()), &[(payload, signature)]);
        env.run(["pull", &registry.image("team/a:1")]).success();
        env.run(["pull", &registry.image("team/a:single")]).code(1).stderr_has("has none");
    }
}

/// `signedBy` is verified by gpgv, with signatures that skopeo made.
#[test]
fn an_openpgp_signature_beside_the_registry_lets_in() {
    need!("docker-registry", "skopeo", "gpg", "gpgv");
    let registry = Registry::start();
    let tools = Env::new().with("GNUPGHOME", "/nonexistent");
    let gnupg = tempfile::Builder::new().prefix("g").tempdir_in("/tmp").unwrap(); // a short path for its sockets
    let gpg = |args: &[&str]| must(tools.program("gpg").env("GNUPGHOME", gnupg.path()).args(args));
    for user in ["signer@example", "other@example"] {
        gpg(&[
            "--batch",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
            "--quick-gen-key",
            user,
            "ed25519",
            "sign",
        ]);
    }
    let lookaside = tools.work().join("lookaside");
    let yaml = format!("docker:\n  {}:\n    lookaside: file://{}\n", registry.host(), lookaside.display());
    let directory = tools.work().join("registries.d");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("a.yaml"), &yaml).unwrap();
    let image = registry.image("team/a:1");
    let sign = |image: &str| {
        must(
            tools
                .program("skopeo")
                .env("GNUPGHOME", gnupg.path())
                .arg("--insecure-policy")
                .arg(format!("--registries.d={}", directory.display()))
                .args(["copy", "-q", "--dest-tls-verify=false", "--sign-by", "signer@example"])
                .args([format!("oci:{}", busybox_image()), format!("docker://{image}")]),
        )
    };
    sign(&image);
    let unsigned = registry.put(&busybox_image(), "plain/a:1");
    let key = |user: &str, options: &[&str]| {
        let bytes = gpg(&[options, &["--export", user]].concat());
        tools.write(&format!("{user}.gpg"), bytes)
    };
    for (user, options, good) in [
        ("signer@example", &["--armor"][..], true),
        ("signer@example", &[], true),
        ("other@example", &[], false),
    ] {
        let requirement = json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": key(user, options)});
        let env = with_policy(&demand(&registry, &requirement));
        let own = env.home().join(".config/containers/registries.d");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("a.yaml"), &yaml).unwrap();
        let said = env.run(["pull", &image]);
        if good {
            said.success();
            env.run(["pull", &unsigned]).code(1).stderr_has("has none");
            let bare = env.with("PATH", "/nonexistent");
            bare.run(["pull", &image]).code(1).stderr_has("install gpgv");
        } else {
            said.code(1).stderr_has("not by these keys");
        }
    }
    let _ = tools.program("gpgconf").env("GNUPGHOME", gnupg.path()).args(["--kill", "all"]).output();
}
