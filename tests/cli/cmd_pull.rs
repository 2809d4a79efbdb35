//! `pull`

use crate::support::{Env, Registry, busybox_image, debian, is_root, need, shared_registry, skip};

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
