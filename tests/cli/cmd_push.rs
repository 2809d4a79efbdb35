//! `tag`, `login`, `push`, and what comes back

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{
    Env, Fault, Proxy, Registry, Seen, busybox_image, is_root, must, need, shared_registry,
};

#[test]
fn what_is_pushed_comes_back_the_same() {
    need!("docker-registry", "skopeo", "busybox", "htpasswd");
    let locked = Registry::start_with_password("me", "secret");
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    let target = locked.image("team/app:1");
    env.run(["pull", "-q", &image]).success();
    env.run(["tag", &image, &target]).success();
    env.run(["push", &target]).code(1).stderr_has("strate login");
    env.run_with_input(["login", "-u", "me", "--password-stdin", &locked.host()], "wrong\n").code(1);
    env.run_with_input(["login", "-u", "me", "--password-stdin", &locked.host()], "secret\n")
        .success()
        .stdout_has("Login Succeeded");
    let pushed = env.run(["push", &target]).success();
    let digest = digest_in(&pushed.stdout).unwrap_or_else(|| panic!("no digest in {pushed}"));
    let original = shared_registry().inspect("busybox:latest", &[])["Digest"].as_str().unwrap().to_owned();
    assert_eq!(digest, original, "a pushed image keeps its bytes");
    env.run(["rmi", &image, &target]).success();
    env.run(["image", "prune", "-af"]).success();
    env.run(["images", "-aq"]).success().prints("");
    env.run(["pull", &target]).success().stdout_has(&digest);
    env.run(["logout", &locked.host()]).success();
    env.run(["pull", &locked.image("team/app:2")]).code(1);
}

#[test]
fn a_built_image_has_the_same_files_after_a_round_trip() {
    need!("docker-registry", "skopeo", "mmdebstrap");
    let Some(base) = crate::support::debian() else {
        return crate::support::skip("no Debian image can be made: is there a mirror?");
    };
    let registry = Registry::start();
    let env = Env::new();
    env.write("file", "content\n");
    env.write(
        "Dockerfile",
        format!(
            "FROM {base}\nCOPY --chown=12:34 --chmod=0640 file /file\n\
             RUN ln /file /hard && ln -s file /soft && mkfifo /pipe && chmod u+s /hard && chown 5:6 /pipe\n\
             RUN cp /bin/true /capable && (setcap cap_net_raw+ep /capable || true)\n"
        ),
    );
    let target = registry.image("made:1");
    env.run(["build", "-q", "-t", &target, "."]).success();
    let before = crate::support::Tree::of_image(&env, &target);
    let digest = digest_in(&env.run(["push", &target]).success().stdout).unwrap();
    env.run(["rmi", "-f", &target, &base]).success();
    env.run(["image", "prune", "-af"]).success();
    let other = Env::new();
    other.run(["pull", &target]).success().stdout_has(&digest);
    let after = crate::support::Tree::of_image(&other, &target);
    let differences = before.differences(&after);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let hard = &after.0["hard"];
    assert!(hard.kind == 'h' || after.0["file"].kind == 'h', "{hard:?}");
    if is_root() {
        assert_eq!((after.0["pipe"].uid, after.0["pipe"].gid, after.0["pipe"].kind), (5, 6, 'p'));
    }
}

#[test]
fn a_push_sends_nothing_that_is_there() {
    need!("docker-registry", "skopeo", "busybox");
    let registry = Registry::start();
    let image = registry.put(&busybox_image(), "a:1");
    let env = Env::new();
    env.run(["pull", "-q", &image]).success();
    let again = env.run(["push", &image]).success();
    assert!(!(again.stdout.clone() + &again.stderr).contains("Pushed"), "{again}");
    // The same layers under another name go nowhere either.
    let other = registry.image("a:2");
    env.run(["tag", &image, &other]).success();
    let other = env.run(["push", &other]).success();
    assert!(!(other.stdout.clone() + &other.stderr).contains("Pushed"), "{other}");
}

/// Whether bytes of a layer were sent; a config is smaller.
fn sends_layer(seen: &Seen) -> bool {
    ["PUT", "PATCH"].contains(&seen.method.as_str()) && seen.target.contains("/blobs/") && seen.sent > 10_000
}

#[test]
fn a_pulled_image_goes_to_another_repository_without_its_layers_even_when_its_name_is_gone() {
    need!("docker-registry", "skopeo", "busybox");
    let registry = Registry::start();
    registry.put(&busybox_image(), "from/here:1");
    let proxy = Proxy::start(&registry.host(), |_| Fault::Pass);
    let (old, new) = (proxy.image("from/here:1"), proxy.image("to/there:1"));
    let env = Env::new();
    env.run(["pull", "-q", &old]).success();
    env.run(["tag", &old, &new]).success();
    env.run(["rmi", &old]).success();
    env.run(["push", &new]).success().stderr_has("Mounted from from/here");
    assert_eq!(proxy.count(sends_layer), 0, "{:?}", proxy.log());
    assert_eq!(registry.inspect("to/there:1", &[])["Digest"], registry.inspect("from/here:1", &[])["Digest"]);
    // What was pushed is remembered too.
    let third = proxy.image("third:1");
    env.run(["push", &new, &third]).success().stderr_has("Mounted from to/there");
}

#[test]
fn an_upload_that_is_cut_and_a_registry_that_is_busy_end_well() {
    need!("docker-registry", "skopeo", "busybox");
    let registry = Registry::start();
    let cuts = AtomicUsize::new(0);
    let proxy = Proxy::start(&registry.host(), move |seen| {
        match (seen.method.as_str(), cuts.load(Ordering::SeqCst)) {
            ("PATCH", 0) => {
                cuts.fetch_add(1, Ordering::SeqCst);
                Fault::CutUpload(300_000)
            }
            ("PATCH", 1) => {
                cuts.fetch_add(1, Ordering::SeqCst);
                Fault::reply(503, &[("retry-after", "1")], "")
            }
            _ => Fault::Pass,
        }
    });
    let env = Env::new();
    env.write("file", noise(3_000_000));
    env.write("Dockerfile", "FROM scratch\nCOPY file /\n");
    let target = proxy.image("cut:1");
    env.run(["build", "-q", "-t", &target, "."]).success();
    let pushed = env.run(["push", &target]).success().stderr_has("Retrying");
    let digest = digest_in(&pushed.stdout).unwrap();
    assert_eq!(registry.inspect("cut:1", &[])["Digest"], digest.as_str());
}

#[test]
fn all_tags_and_several_destinations_write_their_digests() {
    need!("docker-registry", "skopeo", "busybox");
    let registry = Registry::start();
    let env = Env::new();
    for tag in ["1", "2"] {
        env.write("file", tag);
        env.write("Dockerfile", "FROM scratch\nCOPY file /\n");
        env.run(["build", "-q", "-t", &registry.image(&format!("many:{tag}")), "."]).success();
    }
    env.run(["push", "-a", &registry.image("many:1")]).code(1).stderr_has("strate push");
    env.run(["push", "-a", &registry.image("none")]).code(1).stderr_has("no image of the repository");
    let file = env.work().join("digests");
    let file = file.to_str().unwrap();
    let all = env.run(["push", "-a", "--digestfile", file, &registry.image("many")]).success();
    assert_eq!(all.stdout.lines().count(), 2, "{all}");
    let lines = std::fs::read_to_string(file).unwrap();
    for (line, tag) in lines.lines().zip(["1", "2"]) {
        let digest = registry.inspect(&format!("many:{tag}"), &[])["Digest"].as_str().unwrap().to_owned();
        assert_eq!(line, format!("{digest} {}", registry.image(&format!("many:{tag}"))));
    }
    let (one, dir) = (registry.image("other:x"), env.work().join("out"));
    let place = format!("oci:{}:y", dir.display());
    env.run(["push", "--digestfile", file, &registry.image("many:1"), &one, &place]).success();
    let lines = std::fs::read_to_string(file).unwrap();
    let digest = registry.inspect("other:x", &[])["Digest"].as_str().unwrap().to_owned();
    assert_eq!(lines, format!("{digest} {one}\n{digest} {place}\n"));
    let raw = must(Command::new("skopeo").args(["inspect", "--raw", &place]));
    assert_eq!(sha256(&raw), digest);
}

#[test]
fn other_forms_are_made_on_request_and_refused_by_name() {
    need!("docker-registry", "skopeo", "busybox");
    let registry = Registry::start();
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    env.run(["pull", "-q", &image]).success();
    let own = shared_registry().inspect("busybox:latest", &["--raw"]);
    let push = |extra: &[&str], name: &str| {
        let target = registry.image(name);
        let mut args = vec!["push", "-q"];
        args.extend(extra);
        args.extend([image.as_str(), target.as_str()]);
        env.run(args)
    };
    push(&["--format", "v2s2"], "a:docker").success();
    let docker = registry.inspect("a:docker", &["--raw"]);
    assert_eq!(docker["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(docker["config"]["digest"], own["config"]["digest"]);
    assert_eq!(docker["layers"][0]["digest"], own["layers"][0]["digest"]);
    push(&["--compression", "zstd", "--compression-level", "5"], "a:zstd").success();
    push(&["--compression-format", "zstd", "--compression-level=5"], "a:again").success();
    let zstd = registry.inspect("a:zstd", &["--raw"]);
    assert_eq!(zstd["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    assert_eq!(registry.inspect("a:again", &["--raw"]), zstd, "the same image converts to the same digest");
    push(&["--compression-format", "gzip"], "a:same").success();
    assert_eq!(registry.inspect("a:same", &["--raw"]), own, "what is gzip already stays as it is");
    push(&["--format", "v2s2", "--compression-format", "zstd"], "a:x").code(1).stderr_has("--format oci");
    push(&["--format", "v2s1"], "a:x").code(1).stderr_has("v2s1");
    push(&["--compression-format", "zstd:chunked"], "a:x").code(1).stderr_has("zstd:chunked");
    push(&["--platform", "linux/s390x"], "a:x").code(1).stderr_has("linux/s390x");
    push(&["--sign-by", "me"], "a:x").code(1).stderr_has("--sign-by");
    // What was converted comes back and runs.
    let other = Env::new();
    let target = registry.image("a:zstd");
    other.run(["pull", "-q", &target]).success();
    other.run(["run", "--rm", "--network", "none", &target, "cat", "/data/one"]).success().prints("one");
}

#[test]
fn an_index_goes_whole_with_images_that_were_never_here() {
    need!("docker-registry", "skopeo", "busybox");
    let registry = Registry::start();
    let env = Env::new();
    let mut members = Vec::new();
    for arch in ["amd64", "arm64"] {
        env.write("file", arch);
        env.write("Dockerfile", "FROM scratch\nCOPY file /\n");
        let name = registry.image(&format!("parts:{arch}"));
        let platform = format!("linux/{arch}");
        env.run(["build", "-q", "--platform", &platform, "-t", &name, "."]).success();
        env.run(["push", "-q", &name]).success();
        members.push(name);
    }
    let other = Env::new();
    let list = registry.image("whole:1");
    other.run(["manifest", "create", &list, &members[0], &members[1]]).success();
    let pushed = other.run(["push", &list]).success();
    let digest = digest_in(&pushed.stdout).unwrap();
    let raw = registry.inspect_raw("whole:1");
    assert_eq!(sha256(&raw), digest);
    for arch in ["amd64", "arm64"] {
        let options = ["--tls-verify=false", "--override-arch", arch];
        let name = format!("docker://{list}");
        must(Command::new("skopeo").arg("inspect").args(options).arg(name));
    }
    // One platform alone.
    let alone = registry.image("alone:1");
    other.run(["push", "--platform", "linux/arm64", &list, &alone]).success();
    let index: serde_json::Value = serde_json::from_slice(&raw).unwrap();
    assert_eq!(sha256(&registry.inspect_raw("alone:1")), index["manifests"][1]["digest"].as_str().unwrap());
    other.run(["push", "--platform", "linux/s390x", &list, &alone]).code(1).stderr_has("linux/arm64");
}

#[test]
fn progress_is_lines_or_objects() {
    need!("docker-registry", "skopeo", "busybox");
    let registry = Registry::start();
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    env.run(["pull", "-q", &image]).success();
    let json = env.run(["push", "--progress", "json", &image, &registry.image("a:1")]).success();
    let mut last = serde_json::Value::Null;
    for line in json.stderr.lines() {
        last = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(last["time"].is_string() && last["verb"] == "push" && last["status"].is_string(), "{line}");
    }
    assert_eq!(last["status"], "done", "{json}");
    assert!(last["total"].as_u64().is_some_and(|total| total > 100_000), "{json}");
    let plain = env.run(["push", "--progress=plain", &image, &registry.image("a:1")]).success();
    assert!(plain.stderr.contains(": Layer already exists"), "{plain}");
    assert!(!plain.stderr.contains(['\r', '\x1b']), "{plain}");
    let quiet = env.run(["push", "-q", &image, &registry.image("a:1")]).success();
    assert_eq!((quiet.text(), quiet.stderr.as_str()), (registry.image("a:1").as_str(), ""));
    env.run(["push", "--progress", "tty", &image, &registry.image("a:1")]).code(1).stderr_has("terminal");
}

/// Bytes that do not compress, always the same.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The digest of a `digest: sha256:…` line.
fn digest_in(text: &str) -> Option<String> {
    let at = text.find("digest: ")?;
    Some(text[at + 8..].split_whitespace().next()?.to_owned())
}
