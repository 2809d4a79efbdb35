//! Logins, and the registries that want one.

use std::time::Duration;

use crate::support::{CertificateFault, Env, Registry, Tls, busybox_image, eventually, must, need};

/// The private authority is told of by certs.d, or by `--cert-dir`; the client's certificate lies beside it.
#[test]
fn a_private_authority_and_a_client_certificate_come_from_certs_d() {
    need!("docker-registry", "skopeo", "openssl", "htpasswd");
    let registry = Registry::start_tls(Tls {
        login: Some(("me", "hunter2")),
        demands_certificate: true,
        ..Tls::default()
    });
    let image = registry.put(&busybox_image(), "a:1");
    let env = Env::new();
    let digest = registry.inspect("a:1", &[])["Digest"].as_str().unwrap().to_owned();

    let refused = env.run(["pull", "--creds", "me:hunter2", &image]).code(1);
    refused.stderr_has("certs.d").stderr_lacks("hunter2");
    let dir = registry.cert_dir().display().to_string();
    env.run(["pull", "--creds", "me:hunter2", "--cert-dir", &dir, &image]).success().stdout_has(&digest);
    registry.trust(&env);
    env.run(["pull", "--creds", "me:hunter2", &image]).success();
    env.run(["login", "-u", "me", "-p", "wrong", &registry.host()]).code(1).stderr_has("does not accept");
    env.run_with_input(["login", "-u", "me", "--password-stdin", &registry.host()], "hunter2\n").success();
    env.run(["pull", &image]).success();
}

/// R8: what is wrong with a certificate is said, and nothing is sent to the server.
#[test]
fn r8_bad_certificates_are_refused_and_named() {
    need!("docker-registry", "openssl");
    for (fault, word) in [
        (CertificateFault::Expired, "expired"),
        (CertificateFault::WrongHost, "not valid for"),
        (CertificateFault::SelfSigned, "authority"),
    ] {
        let registry = Registry::start_tls(Tls { fault, ..Tls::default() });
        let env = Env::new();
        registry.trust(&env);
        let image = registry.image("a:1");
        let said = env.run(["pull", &image]).code(1);
        assert!(said.stderr.to_lowercase().contains(word), "{fault:?}: {said}");
        said.stderr_has("CN=").stderr_has("--tls-verify=false");
        env.run(["pull", "--tls-verify=false", &image]).code(1).stderr_has("not known");
    }
}

/// R8: a server of old TLS is told from one that speaks none, and nothing is sent to it in the clear.
#[test]
fn r8_old_versions_of_tls_are_refused_by_name() {
    need!("docker-registry", "openssl");
    let registry = Registry::start_tls(Tls::default());
    let certs = registry.cert_dir().with_file_name("certs");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = std::process::Command::new("openssl")
        .current_dir(certs)
        .args(["s_server", "-quiet", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-cert", "server.cert"])
        .args(["-key", "server.key", "-accept", &format!("127.0.0.1:{port}")])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the start of the server", Duration::from_secs(20), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let said = Env::new().run(["pull", "--retry", "0", &format!("127.0.0.1:{port}/a")]);
    let _ = server.kill();
    let _ = server.wait();
    said.code(1).stderr_has("no longer safe");
}

fn config_json(env: &Env) -> std::path::PathBuf {
    env.home().join(".docker/config.json")
}

fn write_config(env: &Env, value: &serde_json::Value) {
    std::fs::create_dir_all(env.home().join(".docker")).unwrap();
    std::fs::write(config_json(env), value.to_string()).unwrap();
}

/// Log in, be who one is, log out: the file is for oneself alone, and keeps what else is in it.
#[test]
fn a_login_is_kept_used_and_forgotten() {
    use std::os::unix::fs::PermissionsExt;
    need!("docker-registry", "skopeo", "htpasswd");
    let registry = Registry::start_with_password("me", "hunter2");
    let image = registry.put(&busybox_image(), "a:1");
    let host = registry.host();
    let env = Env::new();
    write_config(&env, &serde_json::json!({"psFormat": "x", "auths": {"other.example": {"auth": "YTpi"}}}));

    // S7 and users.md 24: a refusal says what was looked at.
    let said = env.run(["pull", &image]).code(1);
    said.stderr_has("without a login")
        .stderr_has(".docker/config.json` (no entry)")
        .stderr_has("strate login");
    env.run(["login", "--get-login", &host]).code(1).stderr_has("not logged in");
    env.run_with_input(["login", "-u", "me", "--password-stdin", &host], "hunter2\n")
        .success()
        .prints("Login Succeeded");
    let text = std::fs::read_to_string(config_json(&env)).unwrap();
    assert!(
        text.contains("psFormat") && text.contains("other.example") && !text.contains("hunter2"),
        "{text}"
    );
    assert_eq!(std::fs::metadata(config_json(&env)).unwrap().permissions().mode() & 0o777, 0o600);
    env.run(["login", "--get-login", &host]).success().prints("me");
    env.run(["login", &host]).success().stderr_has("existing credentials").stderr_has("me");
    env.run(["pull", &image]).success();
    env.run(["logout", &host]).success();
    env.run(["pull", &image]).code(1);
    let wrong = env.run(["login", "-u", "me", "-p", "wrong", &host]).code(1);
    wrong.stderr_has("does not accept").stderr_has("--password-stdin");
    // Another file, for this once.
    let other = env.work().join("auth.json").display().to_string();
    env.run_with_input(
        ["login", "--compat-auth-file", &other, "-u", "me", "--password-stdin", &host],
        "hunter2",
    )
    .success();
    env.run(["pull", &image]).code(1);
    env.run(["pull", "--authfile", &other, &image]).success();
    // skopeo reads what we wrote, and we what it wrote.
    let skopeo = |words: &[&str]| must(env.program("skopeo").args(words));
    skopeo(&["inspect", "--tls-verify=false", "--authfile", &other, &format!("docker://{image}")]);
    let theirs = env.work().join("theirs.json").display().to_string();
    let words = ["login", "--tls-verify=false", "-u", "me", "-p", "hunter2", "--authfile", &theirs, &host];
    skopeo(&words);
    env.run(["pull", "--authfile", &theirs, &image]).success();
}

/// The login of the most specific path is used.
#[test]
fn a_login_may_be_for_a_path_of_a_registry() {
    need!("docker-registry", "skopeo", "htpasswd");
    let registry = Registry::start_with_password("me", "hunter2");
    let image = registry.put(&busybox_image(), "team/a:1");
    let env = Env::new();
    let team = format!("{}/team", registry.host());
    env.run(["login", "-u", "me", "-p", "hunter2", &team]).success();
    env.run(["login", "--get-login", &registry.host()]).code(1);
    env.run(["pull", &image]).success();
    env.run(["pull", &registry.image("other/a:1")]).code(1).stderr_has("without a login");
    env.run(["logout", &team]).success();
    env.run(["pull", &image]).code(1);
}

/// S8: a helper that is named for a registry answers alone; what it says when it fails is shown, and nobody else's
/// login is sent in its place.
#[test]
fn s8_a_broken_helper_is_named_and_nothing_else_is_sent() {
    use std::os::unix::fs::PermissionsExt;
    need!("docker-registry", "skopeo", "htpasswd");
    let registry = Registry::start_with_password("me", "hunter2");
    let image = registry.put(&busybox_image(), "a:1");
    let bin = Env::new();
    let path = format!("{}:/usr/bin:/bin", bin.work().display());
    let helper = |name: &str, script: &str| {
        let path = bin.write(&format!("docker-credential-{name}"), format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    helper("good", "cat >/dev/null; echo '{\"Username\":\"me\",\"Secret\":\"hunter2\"}'");
    helper("locked", "printf 'the \\033[31mkeychain is locked'; exit 1");
    let env = Env::new().with("PATH", &path);
    let auth = serde_json::json!({"auth": "bWU6aHVudGVyMg=="}); // me:hunter2
    let with = |helper: &str| serde_json::json!({"auths": {registry.host(): auth}, "credHelpers": {registry.host(): helper}});
    write_config(&env, &with("good"));
    env.run(["pull", &image]).success();
    for (name, word) in
        [("locked", "keychain is locked"), ("gone", "not installed"), ("../evil", "not allowed")]
    {
        write_config(&env, &with(name));
        let said = env.run(["pull", &image]).code(1);
        assert!(!said.stderr.contains('\u{1b}'), "{said}");
        said.stderr_has(word).stderr_has("config.json").stderr_lacks("hunter2");
    }
    // One for every registry may belong to another machine: it is noted, and named when a login is needed.
    write_config(&env, &serde_json::json!({"credsStore": "gone"}));
    env.run(["pull", &image]).code(1).stderr_has("docker-credential-gone").stderr_has("(it failed)");
    let conf = env.write("registries.conf", "credential-helpers = [\"containers-auth.json\", \"good\"]\n");
    let conf = conf.display().to_string();
    env.run(["pull", "--registries-conf", &conf, &image]).success();
}
