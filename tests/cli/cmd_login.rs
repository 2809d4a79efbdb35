//! Logins, and the registries that want one.

use crate::support::{CertificateFault, Env, Registry, Tls, busybox_image, need};

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
        env.run(["pull", "--tls-verify=false", &image]).code(1).stderr_has("not known");
    }
}
