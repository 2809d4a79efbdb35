//! Real registries on loopback.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use super::{busybox_image, debian_image, eventually, must, program, scratch};

/// A registry server, stopped when dropped.
#[derive(Debug)]
pub struct Registry {
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Registry {
    /// Start one that lets everybody in.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Start one that wants this user and password.
    pub fn start_with_password(user: &str, password: &str) -> Self {
        let hash = must(Command::new("htpasswd").args(["-Bbn", user, password]));
        let hash = String::from_utf8(hash).unwrap();
        Self::start_with(hash.trim())
    }

    fn start_with(htpasswd: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("strate-registry-").tempdir_in(scratch()).unwrap().keep();
        let mut registry = Self { dir, port: 0, child: None };
        // The port may be taken between our look and the server's: then it ends at once, and another is tried.
        for _ in 0..5 {
            registry.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            registry.configure(htpasswd);
            let mut child = registry.serve();
            let port = registry.port;
            let up = eventually("the start of the registry", Duration::from_secs(30), || {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Some(true);
                }
                child.try_wait().unwrap().map(|_| false)
            });
            if up {
                registry.child = Some(child);
                return registry;
            }
        }
        panic!("docker-registry does not start: see {}", registry.dir.join("log").display());
    }

    fn configure(&self, htpasswd: &str) {
        let (root, port) = (self.dir.join("data"), self.port);
        let mut config = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    \
             enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n",
            root.display()
        );
        if !htpasswd.is_empty() {
            let path = self.dir.join("htpasswd");
            std::fs::write(&path, htpasswd).unwrap();
            config.push_str(&format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path.display()));
        }
        std::fs::write(self.dir.join("config.yml"), config).unwrap();
    }

    fn serve(&self) -> Child {
        let log = std::fs::File::create(self.dir.join("log")).unwrap();
        Command::new(program("docker-registry").unwrap())
            .arg("serve")
            .arg(self.dir.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A reference to a repository of this registry.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Put an image of a local layout in (`dir:tag` as skopeo's `oci:` names it).
    pub fn put(&self, layout: &str, name: &str) -> String {
        let image = self.image(name);
        must(Command::new("skopeo").args([
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            &format!("oci:{layout}"),
            &format!("docker://{image}"),
        ]));
        image
    }

    /// What skopeo says about an image here.
    pub fn inspect(&self, name: &str, extra: &[&str]) -> serde_json::Value {
        let mut command = Command::new("skopeo");
        command
            .args(["inspect", "--tls-verify=false"])
            .args(extra)
            .arg(format!("docker://{}", self.image(name)));
        serde_json::from_slice(&must(&mut command)).unwrap()
    }

    /// The file of a blob (`sha256:…`) on the server, for damage on purpose.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.dir.join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// What the server wrote about requests.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Stop the server and keep its port closed.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// One registry for tests that only read: `busybox:latest`, and `debian:12` where it can be made. It ends with the
/// test process.
pub fn shared_registry() -> &'static Registry {
    static SHARED: LazyLock<Registry> = LazyLock::new(|| {
        let registry = Registry::start();
        leave_no_orphan(registry.child.as_ref().unwrap().id(), &registry.dir);
        registry.put(&busybox_image(), "busybox:latest");
        registry
    });
    &SHARED
}

/// The shared registry with `debian:12` in it; nothing where that image cannot be made.
pub fn debian() -> Option<String> {
    static DEBIAN: LazyLock<Option<String>> =
        LazyLock::new(|| debian_image().map(|layout| shared_registry().put(&layout, "debian:12")));
    DEBIAN.clone()
}

/// A static is never dropped: a small process waits for the end of this one and then stops the server.
fn leave_no_orphan(server: u32, dir: &Path) {
    let (sender, receiver) = mpsc::channel();
    let script = "read -r _; kill \"$1\"; rm -rf -- \"$2\"";
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        let child = Command::new("sh")
            .args(["-c", script, "sh", &server.to_string()])
            .arg(dir)
            .stdin(Stdio::piped()) // closed by the kernel when this process ends, however it ends
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let _ = sender.send(child.is_ok());
        loop {
            std::thread::park();
            let _ = &child;
        }
    });
    assert!(receiver.recv().unwrap(), "cannot watch over the registry");
}
