//! What strate pushes, others read as it is, and the other way round: skopeo, umoci, podman and buildah, against real
//! registries. Digests are compared, as seen by each.

use std::path::Path;
use std::process::Command;

use crate::support::{Env, Registry, Tls, busybox_image, must, need, program};

/// A small image built from nothing, under a name; the digest that the build gave it.
fn build(env: &Env, name: &str) -> String {
    env.write("file", format!("content of {name}\n"));
    env.write("dir/more", "more\n");
    env.write(
        "Dockerfile",
        "FROM scratch\nCOPY file /file\nCOPY dir /dir\nENV A=b\nHEALTHCHECK CMD /file\nCMD [\"/file\"]\n",
    );
    let metadata = env.work().join("metadata");
    env.run(["build", "-q", "-t", name, "--metadata-file", metadata.to_str().unwrap(), "."]).success();
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
    document["containerimage.digest"].as_str().unwrap().to_owned()
}

/// `docker://NAME`
fn docker(name: &str) -> String {
    format!("docker://{name}")
}

fn skopeo(args: &[&str], registry: &Registry, prefix: &str) -> Command {
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").args(args).args(registry.skopeo_options(prefix));
    command
}

#[test]
fn the_digest_of_a_build_is_that_of_its_push_pull_save_and_load() {
    need!("docker-registry", "skopeo", "htpasswd", "openssl");
    let plain = Registry::start();
    let locked = Registry::start_tls(Tls { login: Some(("me", "secret")), ..Tls::default() });
    for registry in [&plain, &locked] {
        let env = Env::new();
        registry.trust_if_tls(&env);
        let name = registry.image("team/app:1");
        let built = build(&env, &name);
        if registry.wants_login() {
            env.run(["push", &name]).code(1).stderr_has("strate login");
            let login = ["login", "-u", "me", "--password-stdin", &registry.host()];
            env.run_with_input(login, "secret\n").success();
        }
        env.run(["push", &name]).success().stdout_has(&built);
        assert_eq!(registry.inspect("team/app:1", &[])["Digest"], built.as_str());
        // Another machine: pull, save, load, push.
        let other = Env::new();
        registry.trust_if_tls(&other);
        let creds = if registry.wants_login() { vec!["--creds", "me:secret"] } else { Vec::new() };
        let run = |args: &[&str]| other.run(args.iter().chain(&creds).copied().collect::<Vec<_>>());
        run(&["pull", &name]).success().stdout_has(&built);
        let archive = other.work().join("archive.tar");
        let archive = archive.to_str().unwrap();
        other.run(["save", "-o", archive, &name]).success();
        let third = Env::new();
        registry.trust_if_tls(&third);
        third.run(["load", "-i", archive]).success();
        let again = registry.image("team/again:1");
        let args = ["push", name.as_str(), again.as_str()];
        third.run(args.iter().chain(&creds).copied().collect::<Vec<_>>()).success().stdout_has(&built);
        assert_eq!(registry.inspect("team/again:1", &[])["Digest"], built.as_str());
    }
}

#[test]
fn umoci_unpacks_what_strate_pushed() {
    need!("docker-registry", "skopeo", "umoci");
    let registry = Registry::start();
    let env = Env::new();
    let name = registry.image("app:1");
    let built = build(&env, &name);
    env.run(["push", "-q", &name]).success();
    let (layout, bundle) = (env.work().join("layout"), env.work().join("bundle"));
    let place = format!("oci:{}:app", layout.display());
    must(skopeo(&["copy", "-q"], &registry, "src-").args([docker(&name), place]));
    let list: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(list["manifests"][0]["digest"], built.as_str());
    let image = format!("{}:app", layout.display());
    must(Command::new("umoci").args(["unpack", "--rootless", "--image", &image]).arg(&bundle));
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/dir/more")).unwrap(), "more\n");
}

#[test]
fn strate_reads_what_umoci_made() {
    need!("docker-registry", "skopeo", "umoci", "busybox");
    let registry = Registry::start();
    let env = Env::new();
    let source = busybox_image();
    let (from, _) = source.rsplit_once(':').unwrap();
    let layout = env.work().join("layout");
    must(Command::new("cp").args(["-r", from]).arg(&layout));
    let image = format!("{}:latest", layout.display());
    let file = env.write("added", "by umoci\n");
    let mut insert = Command::new("umoci");
    must(insert.args(["insert", "--rootless", "--image", &image]).arg(file).arg("/data/added"));
    let name = registry.put(&image, "umoci:1");
    same_digest_and_content(&registry, "umoci:1", &name, "/data/added", "by umoci");
}

#[test]
fn strate_reads_docker_schema_2_and_zstd_as_skopeo_writes_them() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let source = format!("oci:{}", busybox_image());
    // skopeo compresses only what is not compressed.
    let plain = format!("dir:{}", env.work().join("plain").display());
    let mut decompress = Command::new("skopeo");
    must(decompress.args(["--insecure-policy", "copy", "-q", "--dest-decompress", &source, &plain]));
    for (tag, source, options) in [
        ("docker", &source, &["--format", "v2s2"][..]),
        ("zstd", &plain, &["--dest-compress", "--dest-compress-format", "zstd", "--format", "oci"]),
    ] {
        // One each: skopeo would take a layer that is there in another form.
        let registry = Registry::start();
        let name = registry.image(&format!("made:{tag}"));
        let args: Vec<&str> = ["copy", "-q"].into_iter().chain(options.iter().copied()).collect();
        must(skopeo(&args, &registry, "dest-").args([source.clone(), docker(&name)]));
        let raw: serde_json::Value = registry.inspect(&format!("made:{tag}"), &["--raw"]);
        let kinds = raw.to_string();
        assert!(kinds.contains(tag), "{tag}: {kinds}");
        same_digest_and_content(&registry, &format!("made:{tag}"), &name, "/data/one", "one");
    }
}

/// Pull a name, look at a file of it, push it elsewhere: the digest stays what it was.
#[track_caller]
fn same_digest_and_content(registry: &Registry, short: &str, name: &str, path: &str, content: &str) {
    let env = Env::new();
    let digest = registry.inspect(short, &[])["Digest"].as_str().unwrap().to_owned();
    env.run(["pull", name]).success().stdout_has(&digest);
    env.run(["run", "--rm", "--network", "none", name, "cat", path]).success().prints(content);
    let copy = registry.image("copies/of:it");
    env.run(["push", name, &copy]).success().stdout_has(&digest);
    assert_eq!(registry.inspect("copies/of:it", &[])["Digest"], digest.as_str());
}

/// podman or buildah with a store of its own.
fn tool(name: &str, env: &Env) -> Command {
    let mut command = env.program(program(name).unwrap());
    let dir = |name: &str| env.home().join(name);
    command.arg("--root").arg(dir("tool-root")).arg("--runroot").arg(dir("tool-run"));
    command.args(["--storage-driver", "vfs"]);
    command
}

fn policy(env: &Env) {
    let path = env.home().join(".config/containers/policy.json");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
}

#[test]
fn podman_pulls_what_strate_pushed_in_every_form() {
    need!(user);
    need!("docker-registry", "skopeo", "podman");
    let registry = Registry::start();
    let env = Env::new();
    policy(&env);
    let name = registry.image("app:1");
    build(&env, &name);
    for (tag, options) in
        [("own", &[][..]), ("docker", &["--format", "v2s2"]), ("zstd", &["--compression-format", "zstd"])]
    {
        let target = registry.image(&format!("app:{tag}"));
        let args: Vec<&str> = ["push", "-q"].into_iter().chain(options.iter().copied()).collect();
        env.run(args.into_iter().chain([name.as_str(), target.as_str()])).success();
        must(tool("podman", &env).args(["pull", "-q", "--tls-verify=false", &target]));
        let format = "{{.Digest}}";
        let digest = must(tool("podman", &env).args(["image", "inspect", "--format", format, &target]));
        let digest = String::from_utf8(digest).unwrap();
        assert_eq!(registry.inspect(&format!("app:{tag}"), &[])["Digest"], digest.trim());
        // They are one image to podman, which would go on to tell the first one's digest.
        must(tool("podman", &env).args(["rmi", "-f", &target]));
    }
    remove(&env);
}

#[test]
fn strate_pulls_what_buildah_built() {
    need!(user);
    need!("docker-registry", "skopeo", "buildah", "busybox");
    let registry = Registry::start();
    let env = Env::new();
    policy(&env);
    let base = registry.put(&busybox_image(), "base:1");
    let name = registry.image("buildah:1");
    let run = |args: &[&str]| String::from_utf8(must(tool("buildah", &env).args(args))).unwrap();
    let container = run(&["from", "-q", "--tls-verify=false", &base]);
    let file = env.write("file", "by buildah\n");
    run(&["copy", "-q", container.trim(), file.to_str().unwrap(), "/made"]);
    run(&["commit", "-q", container.trim(), &name]);
    run(&["push", "-q", "--tls-verify=false", &name]);
    same_digest_and_content(&registry, "buildah:1", &name, "/made", "by buildah");
    remove(&env);
}

/// The stores of podman and buildah hold files of subordinate ids.
fn remove(env: &Env) {
    let rm = |path: &Path| {
        let _ = tool("podman", env).args(["unshare", "rm", "-rf"]).arg(path).output();
    };
    rm(&env.home().join("tool-root"));
}
