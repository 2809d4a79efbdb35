//! `tag`, `login`, `push`, and what comes back

use crate::support::{Env, Registry, busybox_image, is_root, need, shared_registry};

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

/// The digest of a `digest: sha256:…` line.
fn digest_in(text: &str) -> Option<String> {
    let at = text.find("digest: ")?;
    Some(text[at + 8..].split_whitespace().next()?.to_owned())
}
