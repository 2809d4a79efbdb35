//! Against docker's own registry (Debian's `docker-registry`), and against another client.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::*;

fn skipped(missing: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {missing} is missing");
}

/// A registry on a free port of loopback, stopped on drop.
struct Registry {
    child: Child,
    host: String,
    dir: tempfile::TempDir,
}

impl Registry {
    /// `None`, with a word about it, where the program is missing.
    fn start(login: Option<(&str, &str)>) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let auth = match login {
            Some((user, password)) => {
                let file = dir.path().join("htpasswd");
                let Ok(made) = Command::new("htpasswd").args(["-Bbn", user, password]).output() else {
                    skipped("htpasswd (apache2-utils)");
                    return None;
                };
                std::fs::write(&file, made.stdout).unwrap();
                format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
            }
            None => String::new(),
        };
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{auth}",
            dir.path().join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            skipped("docker-registry");
            return None;
        };
        let registry = Self { child, host: format!("127.0.0.1:{port}"), dir };
        let start = Instant::now();
        while std::net::TcpStream::connect(&registry.host).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    fn blobs(&self) -> usize {
        fn count(path: &Path) -> usize {
            let list = std::fs::read_dir(path).into_iter().flatten().flatten();
            list.map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum()
        }
        count(&self.dir.path().join("data/docker/registry/v2/blobs"))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_is_pushed_comes_back_byte_for_byte_and_is_not_sent_twice() {
    let Some(registry) = Registry::start(None) else { return };
    let image = TestImage::new(20, &[10, 3_000_000, 70_000, 0]);
    let name = format!("{}/a/b:1", registry.host);
    let events = Events::default();
    let pushed = push(&settings(), &name, &image, &events).unwrap();
    assert_eq!(pushed.target.digest().to_string(), image.manifest.digest.to_string());
    assert_eq!(pushed.moved.len(), 4);
    assert_eq!(registry.blobs(), 6);

    let bucket = Bucket::default();
    pull(&settings(), &name, &bucket, &events).unwrap();
    assert!(bucket.holds(&image));
    let pinned = format!("{}/a/b@{}", registry.host, image.manifest.digest);
    pull(&settings(), &pinned, &Bucket::default(), &events).unwrap();

    let again = push(&settings(), &name, &image, &events).unwrap();
    assert_eq!((again.moved.len(), again.reused.len()), (0, 4));

    let mounts: HashMap<Digest, String> =
        image.layers.iter().map(|l| (Digest::sha256(l), "a/b".to_owned())).collect();
    let other = format!("{}/c:1", registry.host);
    push_with(&settings(), &other, &image, &events, mounts).unwrap();
    assert_eq!(events.count(|e| matches!(e, Event::Mounted { from, .. } if from == "a/b")), 4);
    let bucket = Bucket::default();
    pull(&settings(), &other, &bucket, &events).unwrap();
    assert!(bucket.holds(&image));
}

#[test]
fn a_password_is_checked_kept_used_and_forgotten() {
    let Some(registry) = Registry::start(Some(("bob", "hunter2"))) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.home = Some(dir.path().to_owned());
    let name = format!("{}/a", registry.host);
    let image = TestImage::new(21, &[1000]);

    let error = registry_error(push(&settings, &name, &image, &Events::default()).unwrap_err());
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    let wrong = log_in(&settings, &registry.host, &Login::password("bob", "wrong")).unwrap_err();
    assert!(matches!(wrong, Error::WrongPassword { .. }), "{wrong}");
    assert!(!dir.path().join(".docker/config.json").exists());

    let kept = log_in(&settings, &registry.host, &Login::password("bob", "hunter2")).unwrap();
    assert!(kept.plain && kept.kept_in.ends_with(".docker/config.json"));
    assert_eq!(logged_in(&settings, &registry.host).unwrap().login.user(), Some("bob"));
    push(&settings, &name, &image, &Events::default()).unwrap();
    let bucket = Bucket::default();
    pull(&settings, &name, &bucket, &Events::default()).unwrap();
    assert!(bucket.holds(&image));

    assert_eq!(log_out(&settings, &registry.host).unwrap().removed_from.len(), 1);
    assert!(log_out(&settings, &registry.host).unwrap().removed_from.is_empty());
    assert!(matches!(logged_in(&settings, &registry.host), Err(Error::NotLoggedIn { .. })));
}

#[test]
fn another_client_reads_what_was_pushed() {
    let Some(registry) = Registry::start(None) else { return };
    let image = TestImage::new(22, &[1000, 2000]);
    let name = format!("{}/a/b:1", registry.host);
    push(&settings(), &name, &image, &Events::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = oci_client::client::ClientConfig {
            protocol: oci_client::client::ClientProtocol::Http,
            ..Default::default()
        };
        let client = oci_client::Client::new(config);
        let reference: oci_client::Reference = name.parse().unwrap();
        let anonymous = oci_client::secrets::RegistryAuth::Anonymous;
        let accepted = [media_type::OCI_MANIFEST];
        let (bytes, digest) = client.pull_manifest_raw(&reference, &anonymous, &accepted).await.unwrap();
        assert_eq!(&bytes[..], &image.manifest.bytes[..]);
        assert_eq!(digest, image.manifest.digest.as_str());
    });
}
