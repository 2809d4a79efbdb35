//! `sync`

use crate::cmd_copy::two_platforms;
use crate::support::fake::OCI_INDEX;
use crate::support::{Env, FakeLayer, Fault, Proxy, Registry, need};
use serde_json::json;

#[test]
fn a_repository_is_copied_once_and_then_only_asked_about() {
    need!("docker-registry");
    let (env, registry, source) = (Env::new(), Registry::start(), two_platforms().serve());
    let door = Proxy::start(&registry.host(), |_| Fault::Pass);
    let (from, to) = (source.image("team/x"), format!("{}/copies", door.host()));
    let sync = |more: &[&str]| {
        let mut args = vec!["sync", "--src", "docker", "--dest", "docker", "--all"];
        args.extend(more);
        args.extend([from.as_str(), to.as_str()]);
        env.run(args).success()
    };
    let dry = sync(&["--dry-run"]).stderr_has("3 images would be copied");
    assert!(dry.stdout.lines().all(|line| line.starts_with("would copy ")), "{dry}");
    assert_eq!(door.count(|seen| seen.method != "HEAD" && seen.method != "GET"), 0);
    sync(&[]).stderr_has("3 images copied, 0 unchanged").stdout_has(&format!("{to}/x:both sha256:"));
    let before = door.seen().len();
    let again = sync(&["-q"]);
    assert!(again.stdout.lines().all(|line| line.starts_with("unchanged ")), "{again}");
    let asked: Vec<String> = door.log().split_off(before);
    assert_eq!(asked.len(), 3, "one question an image: {asked:?}");
    assert!(asked.iter().all(|line| line.starts_with("HEAD ")), "{asked:?}");
    sync(&["--append-suffix", "-old"]).stdout_has(&format!("{to}/x:own-old sha256:"));
    env.run(["sync", "--src", "docker", "--dest", "dir", "--scoped", &format!("{from}:own"), "usb"])
        .success();
    assert!(env.work().join("usb").join(format!("{from}:own")).join("manifest.json").is_file());
}

#[test]
fn a_list_of_artifacts_is_copied_whole() {
    let mut fake = two_platforms();
    let artifact = fake.image("signature", &[FakeLayer::gzip(&[("s", b"s\n")])]);
    let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [artifact, artifact]});
    fake.manifest("list", OCI_INDEX, &list);
    let (env, source) = (Env::new(), fake.serve());
    env.run(["sync", "--src", "docker", "--dest", "dir", &source.image("x"), "usb"])
        .success()
        .stderr_has("5 images copied");
    let copied = std::fs::read(env.work().join("usb/x:list/manifest.json")).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&copied).unwrap(), list);
}

#[test]
fn directories_go_out_and_come_back() {
    need!("docker-registry", "skopeo");
    let (env, registry, source) = (Env::new(), Registry::start(), two_platforms().serve());
    let from = source.image("team/x");
    env.run(["sync", "--src", "docker", "--dest", "dir", "--all", &from, "usb", "--digestfile", "list"])
        .success();
    assert!(env.work().join("usb/x:both/manifest.json").is_file());
    let list = std::fs::read_to_string(env.work().join("list")).unwrap();
    assert_eq!(list.lines().count(), 3, "{list}");
    env.run(["sync", "--src", "docker", "--dest", "dir", "--all", &from, "usb"])
        .success()
        .stderr_has("0 images copied, 3 unchanged");
    let to = format!("{}/back", registry.host());
    env.run(["sync", "--src", "dir", "--dest", "docker", "--all", "usb", &to]).success();
    let digest = env.run(["digest", &format!("docker://{from}:both")]).success().text().to_owned();
    env.run(["digest", &format!("docker://{to}/x:both")]).success().prints(&digest);
    assert!(registry.inspect("back/x:own", &["--no-tags"])["Architecture"].is_string());
    // One of them alone, by its own name.
    let to = format!("{}/one", registry.host());
    env.run(["sync", "--src", "dir", "--dest", "docker", "--all", "usb/x:own", &to]).success();
    env.run(["list-tags", &format!("docker://{to}/x")]).success().stdout_has("\"own\"");
    env.run(["sync", "--src", "dir", "--dest", "docker", "list", &to]).code(1);
    std::fs::create_dir(env.work().join("empty")).unwrap();
    env.run(["sync", "--src", "dir", "--dest", "docker", "empty", &to]).code(1).stderr_has("no images");
}

#[test]
fn a_list_says_what_is_wanted() {
    let (env, source) = (Env::new(), two_platforms().serve());
    let host = source.host();
    env.write(
        "list.yaml",
        format!(
            "{host}:\n  tls-verify: false\n  images:\n    a/x: [own, missing]\n  images-by-tag-regex:\n    b/y: ^bo\n"
        ),
    );
    // The first failure ends it, unless it is to go on.
    let stopped = env.run(["sync", "--src", "yaml", "--dest", "oci", "list.yaml", "all"]).code(1);
    assert_eq!(stopped.stdout.lines().count(), 1, "{stopped}");
    let gone_on =
        env.run(["sync", "--src", "yaml", "--dest", "oci", "--keep-going", "list.yaml", "all"]).code(1);
    assert!(gone_on.stderr.contains("1 image copied, 1 unchanged, 1 failed"), "{gone_on}");
    let tags = env.run(["list-tags", "oci:all"]).success().json();
    assert_eq!(tags["Tags"], serde_json::json!(["x:own", "y:both"]));
    env.write("bad.yaml", "a: &a [*a]\n");
    env.run(["sync", "--src", "yaml", "--dest", "dir", "bad.yaml", "x"]).code(1).stderr_has("bad.yaml");
}
