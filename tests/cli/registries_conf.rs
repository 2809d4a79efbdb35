//! registries.conf, mirrors and short names, for every verb alike.

use crate::support::{Env, Registry, busybox_image, need, shared_registry};

/// An environment with this registries.conf.
fn configured(text: &str) -> Env {
    let env = Env::new();
    let directory = env.home().join(".config/containers");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("registries.conf"), text).unwrap();
    env
}

/// One mirror setting serves pull, the base of a build, and run; the image keeps the name that was asked for.
#[test]
fn a_mirror_serves_every_verb() {
    need!("docker-registry", "skopeo");
    let registry = Registry::start();
    registry.put(&busybox_image(), "library/strate-tool:1");
    let name = "docker.io/library/strate-tool:1";
    let url = format!("http://{}", registry.host());

    let env = Env::new();
    env.run(["pull", "-q", "--registry-mirror", &url, "strate-tool:1"]).success().prints(name);
    let env = Env::new().with("STRATE_REGISTRY_MIRROR", format!("unused.example=x.example,docker.io={url}"));
    env.write("Dockerfile", "FROM strate-tool:1\nLABEL a=b\n");
    env.run(["build", "-t", "built", "."]).success().stderr_has(name);
    let conf = format!(
        "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"{}\"\n",
        registry.host()
    );
    let env = configured(&conf);
    env.run(["create", "strate-tool:1", "true"]).success().stderr_lacks("going on with");
    let env = configured(&conf.replace("docker.io", "far.example/team"));
    env.run(["pull", "-q", "far.example/team/library/strate-tool:1"]).success();
}

/// A mirror that is down, or does not have the image, costs a note; the origin serves.
#[test]
fn a_mirror_that_fails_gives_way_to_the_origin() {
    need!("docker-registry", "skopeo");
    let origin = shared_registry();
    let mut down = Registry::start();
    let empty = Registry::start();
    let env = Env::new();
    let list = format!("{0}=http://{1},{0}=http://{2}", origin.host(), down.host(), empty.host());
    down.stop();
    let image = origin.image("busybox");
    let said = env.run(["pull", "--registry-mirror", &list, &image]).success();
    said.stderr_has(&down.host()).stderr_has(&format!("going on with {}", origin.host()));
}

/// A name means docker.io or an alias, is never asked about, and what it means is printed.
#[test]
fn an_alias_is_followed_and_named() {
    need!("docker-registry", "skopeo");
    let registry = shared_registry();
    let conf = format!(
        "unqualified-search-registries = [\"{0}\"]\nshort-name-mode = \"enforcing\"\n[aliases]\nstrate-box = \"{0}/busybox\"\n",
        registry.host()
    );
    let env = configured(&conf);
    let full = registry.image("busybox:latest");
    let said = env.run(["pull", "strate-box"]).success().stdout_has(&full);
    said.stderr_has("Resolved \"strate-box\" as an alias").stderr_has("registries.conf");
    env.write("Dockerfile", "FROM strate-box\n");
    env.run(["build", "-q", "."]).success();
    env.run(["create", "strate-box", "true"]).success();
    // A search registry is not tried; the user is told how to mean it.
    let said = env.run(["pull", "--policy", "never", "strate-none"]).code(1);
    said.stderr_has("docker.io/library/strate-none").stderr_has(&format!("{}/strate-none", registry.host()));
}

/// What the configuration forbids, and what is wrong with it, is said with the file's name.
#[test]
fn blocked_registries_and_broken_files_are_named() {
    let env = configured("[[registry]]\nprefix = \"bad.example/team\"\nblocked = true\n");
    for verb in [vec!["pull", "bad.example/team/a"], vec!["create", "bad.example/team/a"]] {
        env.run(&verb).stderr_has("blocked").stderr_has("registries.conf");
    }
    let env = configured("[registries.search]\nregistries = ['a.example']\n");
    env.run(["pull", "a.example/x"])
        .code(1)
        .stderr_has("version 1")
        .stderr_has(".config/containers/registries.conf");
    let env = Env::new();
    env.run(["pull", "--registries-conf", "missing.conf", "a.example/x"]).code(1).stderr_has("missing.conf");
    env.run(["pull", "--registry-mirror", "ftp://u:hunter2@h", "a"])
        .code(1)
        .stderr_has("--registry-mirror")
        .stderr_lacks("hunter2");
}

/// R11: an error names the proxy that the connection takes, without the password for it.
#[test]
fn r11_a_proxy_is_named_without_its_password() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let proxy = format!("127.0.0.1:{closed}");
    let env = Env::new().with("https_proxy", format!("http://me:hunter2@{proxy}"));
    let said = env.run(["--debug", "pull", "--retry", "0", "far.example/a"]).code(1);
    said.stderr_has(&proxy).stderr_has("https_proxy").stderr_lacks("hunter2").stderr_lacks("me:");
    // This machine is not reached through one.
    need!("docker-registry", "skopeo");
    env.run(["pull", &shared_registry().image("busybox")]).success();
}
