//! Flags of `build`: those of docker, buildx, podman and buildah are each done, taken with a word or refused by name.

use crate::support::{Env, need, shared_registry};

/// What a flag comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// In silence, since it is done or was so anyway.
    Taken,
    /// With one warning that names it.
    Warned,
    /// Named by the error.
    Refused,
}
use Fate::{Refused, Taken, Warned};

/// Every flag of the four, with a value where it takes one.
const FLAGS: &[(&str, Fate)] = &[
    ("-t x", Taken),
    ("--tag x", Taken),
    ("-f Dockerfile", Taken),
    ("--file Dockerfile", Taken),
    ("--target one", Taken),
    ("--build-arg A=b", Taken),
    ("--build-arg-file args", Taken),
    ("--build-context other=.", Taken),
    ("--secret id=s,src=args", Taken),
    ("--ssh k=sock", Refused),
    ("--cache-from x", Warned),
    ("--cache-to x", Warned),
    ("--cache-ttl 1h", Refused),
    ("--no-cache", Taken),
    ("--no-cache-filter one", Taken),
    ("--pull=never", Taken),
    ("--platform linux/arm64", Taken),
    ("--platform linux/amd64,linux/arm64", Taken),
    ("--all-platforms", Refused),
    ("--os linux", Taken),
    ("--arch arm64", Taken),
    ("--arch arm --variant v6", Taken),
    ("--os-version 1", Refused),
    ("--os-feature x", Refused),
    ("-o out", Taken),
    ("--output type=cacheonly", Taken),
    ("--load", Taken),
    ("--push", Refused),
    ("--iidfile id", Taken),
    ("--iidfile-raw id", Taken),
    ("--metadata-file meta", Taken),
    ("--label a=b", Taken),
    ("--annotation a=b", Taken),
    ("--unsetlabel a", Taken),
    ("--unsetenv a", Taken),
    ("--unsetannotation a", Refused),
    ("--inherit-labels", Taken),
    ("--inherit-labels=false", Refused),
    ("--inherit-annotations=false", Refused),
    ("--identity-label=false", Taken),
    ("--identity-label", Warned),
    ("--layer-label a=b", Refused),
    ("--created-annotation", Warned),
    ("--omit-history", Refused),
    ("--squash", Refused),
    ("--squash=false", Taken),
    ("--squash-all", Refused),
    ("--layers", Taken),
    ("--layers=false", Taken),
    ("--save-stages", Refused),
    ("--stage-labels", Refused),
    ("--skip-unused-stages", Taken),
    ("--skip-unused-stages=false", Refused),
    ("--format docker", Taken),
    ("--network none", Taken),
    ("--net host", Taken),
    ("--network pasta", Refused),
    ("--add-host h:10.0.0.1", Taken),
    ("--add-host h=10.0.0.1", Taken),
    ("--add-host h:host-gateway", Taken),
    ("--dns 10.0.0.1", Taken),
    ("--dns-option x", Taken),
    ("--dns-search x", Taken),
    ("--no-hosts", Refused),
    ("--no-hostname", Refused),
    ("--http-proxy", Taken),
    ("--http-proxy=false", Taken),
    ("--isolation chroot", Taken),
    ("--userns host", Warned),
    ("--userns-uid-map 0:1:2", Warned),
    ("--userns-gid-map 0:1:2", Warned),
    ("--userns-uid-map-user x", Warned),
    ("--userns-gid-map-group x", Warned),
    ("--pid host", Warned),
    ("--ipc host", Warned),
    ("--uts host", Warned),
    ("--cgroupns host", Warned),
    ("--cgroup-parent x", Warned),
    ("-v /a:/b", Refused),
    ("--volume /a:/b:ro", Refused),
    ("--mount type=tmpfs,target=/x", Refused),
    ("--device /dev/null", Refused),
    ("--group-add x", Refused),
    ("--cap-add all", Refused),
    ("--cap-drop all", Refused),
    ("--security-opt label=disable", Taken),
    ("--security-opt seccomp=unconfined", Refused),
    ("--ulimit nofile=1024", Taken),
    ("--shm-size 64m", Taken),
    ("-m 1g", Warned),
    ("--memory 1g", Warned),
    ("--memory-swap 1g", Warned),
    ("--cpu-shares 1", Warned),
    ("--cpu-period 1", Warned),
    ("--cpu-quota 1", Warned),
    ("--cpuset-cpus 0", Warned),
    ("--cpuset-mems 0", Warned),
    ("--resource memory=1g", Warned),
    ("--timestamp 1", Taken),
    ("--source-date-epoch 1", Taken),
    ("--rewrite-timestamp", Taken),
    ("--progress plain", Taken),
    ("-q", Taken),
    ("--quiet", Taken),
    ("--logfile x", Refused),
    ("--logsplit", Refused),
    ("--check", Taken),
    ("--call targets", Taken),
    ("--print outline", Taken),
    ("--sbom=false", Taken),
    ("--sbom true", Warned),
    ("--provenance=false", Taken),
    ("--provenance mode=max", Warned),
    ("--attest type=sbom", Refused),
    ("--sbom-output x", Refused),
    ("--sbom-image-output x", Refused),
    ("--sbom-purl-output x", Refused),
    ("--sbom-image-purl-output x", Refused),
    ("--sbom-scanner-image x", Refused),
    ("--sbom-scanner-command x", Refused),
    ("--sbom-merge-strategy x", Refused),
    ("--jobs 4", Taken),
    ("--manifest list", Taken),
    ("--from scratch", Taken),
    ("--ignorefile args", Taken),
    ("--source-policy-file x", Refused),
    ("--policy x", Refused),
    ("--retry 1", Taken),
    ("--retry-delay 1s", Taken),
    ("--creds a:b", Taken),
    ("--authfile none.json", Taken),
    ("--cert-dir .", Taken),
    ("--tls-verify=false", Taken),
    ("--decryption-key x", Refused),
    ("--compression-format zstd", Taken),
    ("--compression-format gzip --compression-level 1", Taken),
    ("--disable-compression", Taken),
    ("-D", Taken),
    ("--rm", Taken),
    ("--rm=false", Taken),
    ("--force-rm", Taken),
    ("--compress", Taken),
    ("--disable-content-trust", Taken),
    ("--cpp-flag x", Refused),
    ("--hooks-dir x", Refused),
    ("--runtime crun", Warned),
    ("--runtime-flag x", Warned),
    ("--cw x", Refused),
    ("--sign-by x", Refused),
    ("--stdin", Refused),
    ("--env a=b", Taken),
    ("--compat-volumes", Refused),
    ("--allow network.host", Taken),
    ("--builder x", Taken),
    ("--debug", Taken),
];

#[test]
fn every_flag_of_the_other_builders_has_a_fate() {
    let env = Env::new();
    env.write("Dockerfile", "FROM scratch AS one\nLABEL a=b\n");
    env.write("args", "A=b\n# no\n\n");
    for (flag, fate) in FLAGS {
        let words: Vec<&str> = flag.split(' ').collect();
        let output = env.run([&["build"][..], &words, &["."]].concat());
        let name = words[0].split('=').next().unwrap();
        let says = |marker: &str| {
            let lines = output.stderr.lines().filter(|line| line.to_lowercase().contains(marker));
            lines.filter(|line| line.contains(name.trim_start_matches('-'))).count()
        };
        let found = match (output.code, says("no effect")) {
            (0, 0) => Taken,
            (0, 1) => Warned,
            (1 | 2, _) if says("") > 0 && !output.stderr.contains("unexpected argument") => Refused,
            _ => panic!("{flag}: {output}"),
        };
        // One that is refused for its value, or for lack of a name, names that.
        assert_eq!(found, *fate, "{flag}: {output}");
    }
    // Flags that nobody has are still mistakes.
    env.run(["build", "--no-such-flag", "."]).code(2).stderr_has("unexpected argument");
}

#[test]
fn the_last_word_is_that_of_the_command_line() {
    let env = Env::new();
    env.write("Dockerfile", "FROM scratch\nENV GONE=1 KEPT=1\nLABEL gone=1 kept=1\nCOPY Dockerfile /f\n");
    let args = [
        "--env",
        "NEW=n",
        "--env",
        "KEPT=2",
        "--unsetenv",
        "GONE",
        "--unsetlabel",
        "gone",
        "--label",
        "new=n",
    ];
    let args =
        [&["build", "-t", "x", "--iidfile-raw", "id", "--timestamp", "1000"][..], &args, &["."]].concat();
    env.run(args).success();
    let inspect = |what: &str| env.run(["inspect", "-f", what, "x"]).success().text().to_owned();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(inspect("{{json .Config.Env}}"), format!("[\"{path}\",\"KEPT=2\",\"NEW=n\"]"));
    assert_eq!(inspect("{{json .Config.Labels}}"), "{\"kept\":\"1\",\"new\":\"n\"}");
    assert!(inspect("{{.Created}}").starts_with("1970-01-01"), "{}", inspect("{{.Created}}"));
    let id = std::fs::read_to_string(env.work().join("id")).unwrap();
    assert_eq!(format!("sha256:{id}"), inspect("{{.Id}}"));
    // Every file has that time, so the same files at another time make the same image.
    let file = std::fs::File::options().write(true).open(env.work().join("Dockerfile")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(5)).unwrap();
    env.run(["build", "--no-cache", "-t", "y", "--timestamp", "1000", "."]).success();
    let layers =
        |name: &str| env.run(["inspect", "-f", "{{json .RootFS.Layers}}", name]).success().text().to_owned();
    assert_eq!(layers("x"), layers("y"));
    env.run(["build", "-t", "z", "--source-date-epoch", "1000", "."]).success();
    assert_ne!(layers("x"), layers("z"));
}

#[test]
fn the_first_base_can_be_another_and_its_platform_is_checked() {
    use crate::support::{Fake, FakeLayer};
    let env = Env::new();
    let mut fake = Fake::default();
    fake.image_with("other", &[FakeLayer::gzip(&[("other", b"o")])], |_, config| {
        config["architecture"] = "riscv64".into();
    });
    fake.image("own", &[FakeLayer::gzip(&[("own", b"o")])]);
    let registry = fake.serve();
    let (own, other) = (registry.image("x:own"), registry.image("x:other"));
    env.write("Dockerfile", format!("FROM {own} AS a\nFROM scratch\nCOPY --from=a / /\n"));
    let plain = env.run(["build", "-o", "out", "."]).success();
    assert!(env.work().join("out/own").exists() && !plain.stderr.contains("InvalidBaseImagePlatform"));
    let with_other = env.run(["build", "--progress", "plain", "--from", &other, "-o", "out2", "."]).success();
    assert!(env.work().join("out2/other").exists());
    with_other.stderr_has("InvalidBaseImagePlatform: the base is for linux/riscv64").stderr_has("(line 1)");
    // The rule can be left out, and can be an error.
    let skip = [
        "build",
        "--from",
        &other,
        "--build-arg",
        "BUILDKIT_DOCKERFILE_CHECK=skip=InvalidBaseImagePlatform",
        ".",
    ];
    assert!(!env.run(skip).success().stderr.contains("InvalidBaseImagePlatform"));
}

#[test]
fn what_is_built_goes_into_a_local_index() {
    let env = Env::new();
    env.write("Dockerfile", "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\n");
    let build = |platform: &str, more: &[&str]| {
        env.run([&["build", "--manifest", "list", "--platform", platform][..], more, &["."]].concat())
    };
    let platforms = || {
        let shown = env.run(["manifest", "inspect", "list"]).success();
        let document: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
        let all = document["manifests"].as_array().unwrap().iter();
        all.map(|one| one["platform"]["architecture"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    build("linux/amd64", &[]).success();
    assert_eq!(platforms(), ["amd64"]);
    build("linux/arm64", &["-t", "arm"]).success();
    assert_eq!(platforms(), ["amd64", "arm64"]);
    build("linux/ppc64le,linux/s390x", &[]).success();
    assert_eq!(platforms(), ["amd64", "arm64", "ppc64le", "s390x"]);
    // The same again changes nothing.
    build("linux/arm64", &[]).success();
    assert_eq!(platforms().len(), 4);
    // What only the index names is no entry of its own, and stays.
    let listed = env.run(["images", "-a", "--format", "{{.Repository}}"]).success();
    assert!(!listed.stdout.contains("<none>"), "{listed}");
    env.run(["build", "--manifest", "arm", "."]).code(1).stderr_has("is an image, not an index");
    env.run(["build", "--manifest", "x@sha256:00", "."]).code(1);
    env.run(["build", "--manifest", "list", "-o", "out", "."]).code(1).stderr_has("--load");
}

#[test]
fn name_servers_and_proxies_reach_steps() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    env.run(["pull", "-q", &image]).success();
    env.write("Dockerfile", format!("FROM {image}\nRUN cat /etc/resolv.conf > /dns && env > /env\n"));
    env.write(
        "../home/.docker/config.json",
        "{\"proxies\": {\"default\": {\"ftpProxy\": \"http://ftp:1\"}}}",
    );
    let env = env.with("https_proxy", "http://of-the-environment:1");
    let args = [
        "build",
        "--dns",
        "10.9.8.7",
        "--dns-search",
        "example",
        "--http-proxy",
        "-t",
        "x",
        "-o",
        "out",
        ".",
    ];
    env.run(args).success();
    let read = |name: &str| std::fs::read_to_string(env.work().join("out").join(name)).unwrap();
    assert!(read("dns").contains("nameserver 10.9.8.7\nsearch example"), "{}", read("dns"));
    assert_eq!(read("dns").matches("nameserver").count(), 1);
    assert!(read("env").contains("https_proxy=http://of-the-environment:1"), "{}", read("env"));
    assert!(read("env").contains("FTP_PROXY=http://ftp:1"), "{}", read("env"));
    // Proxies are no part of the key, and are not handed on unasked.
    env.run(["build", "--no-cache", "-o", "out", "."]).success();
    assert!(!read("env").contains("of-the-environment"));
}
