//! Real registries on loopback.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use super::{Env, busybox_image, debian_image, eventually, must, program, scratch};

/// A registry server, stopped when dropped.
#[derive(Debug)]
pub struct Registry {
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
    login: Option<(String, String)>,
    tls: Option<Tls>,
}

/// How a registry speaks TLS ([`Registry::start_tls`]). The default is a good certificate of a private authority.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// The user and password it wants.
    pub login: Option<(&'static str, &'static str)>,
    /// It demands a certificate of the client, by the same authority.
    pub demands_certificate: bool,
    /// What is wrong with its certificate.
    pub fault: CertificateFault,
}

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CertificateFault {
    /// Nothing.
    #[default]
    None,
    /// It ended yesterday.
    Expired,
    /// It is for another host.
    WrongHost,
    /// It is signed by nobody but itself. Its `ca.crt` is still that of the private authority.
    SelfSigned,
}

impl Registry {
    /// Start one that lets everybody in.
    pub fn start() -> Self {
        Self::start_with(None, None)
    }

    /// Start one that wants this user and password.
    pub fn start_with_password(user: &str, password: &str) -> Self {
        Self::start_with(Some((user, password)), None)
    }

    /// Start one that speaks https with a certificate of a private authority, which nobody trusts until told to: see
    /// [`Registry::trust`] and [`Registry::cert_dir`]. It is reached as `127.0.0.1` and as `localhost`.
    pub fn start_tls(tls: Tls) -> Self {
        Self::start_with(tls.login, Some(tls))
    }

    fn start_with(login: Option<(&str, &str)>, tls: Option<Tls>) -> Self {
        let dir = tempfile::Builder::new().prefix("strate-registry-").tempdir_in(scratch()).unwrap().keep();
        let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        if let Some(tls) = &tls {
            make_certificates(&dir.join("certs"), tls.fault);
        }
        let mut registry = Self { dir, port: 0, child: None, login, tls };
        // The port may be taken between our look and the server's: then it ends at once, and another is tried.
        for _ in 0..5 {
            registry.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            registry.configure();
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

    fn configure(&self) {
        let (root, port, dir) = (self.dir.join("data"), self.port, self.dir.display());
        let mut config = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    \
             enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n",
            root.display()
        );
        if let Some(tls) = &self.tls {
            let certificate = format!("{dir}/certs/server.cert");
            config.push_str(&format!(
                "  tls:\n    certificate: {certificate}\n    key: {dir}/certs/server.key\n"
            ));
            if tls.demands_certificate {
                config.push_str(&format!("    clientcas:\n      - {dir}/certs/ca.crt\n"));
            }
        }
        if let Some((user, password)) = &self.login {
            let hash = must(Command::new("htpasswd").args(["-Bbn", "-C", "4", user, password]));
            std::fs::write(self.dir.join("htpasswd"), hash.trim_ascii()).unwrap();
            config.push_str(&format!("auth:\n  htpasswd:\n    realm: test\n    path: {dir}/htpasswd\n"));
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

    /// A directory for `--cert-dir`: the authority (`ca.crt`), and a client's certificate (`client.cert`, `client.key`)
    /// where the server demands one.
    pub fn cert_dir(&self) -> PathBuf {
        self.dir.join("client")
    }

    /// Make the user of an environment trust this registry: fill `~/.config/containers/certs.d`.
    pub fn trust(&self, env: &Env) {
        let directory = env.home().join(".config/containers/certs.d").join(self.host());
        std::fs::create_dir_all(&directory).unwrap();
        for entry in std::fs::read_dir(self.cert_dir()).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, directory.join(path.file_name().unwrap())).unwrap();
        }
    }

    /// The same, where there is something to trust.
    pub fn trust_if_tls(&self, env: &Env) {
        if self.tls.is_some() {
            self.trust(env);
        }
    }

    /// Whether it wants a login.
    pub fn wants_login(&self) -> bool {
        self.login.is_some()
    }

    /// skopeo's options to reach this registry, each with a prefix (`""`, `"dest-"`, `"src-"`).
    pub fn skopeo_options(&self, prefix: &str) -> Vec<String> {
        let mut options = match &self.tls {
            Some(_) => vec![format!("--{prefix}cert-dir={}", self.cert_dir().display())],
            None => vec![format!("--{prefix}tls-verify=false")],
        };
        if let Some((user, password)) = &self.login {
            options.push(format!("--{prefix}creds={user}:{password}"));
        }
        options
    }

    /// A reference to a repository of this registry.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Put an image of a local layout in (`dir:tag` as skopeo's `oci:` names it).
    pub fn put(&self, layout: &str, name: &str) -> String {
        let image = self.image(name);
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet"]).args(self.skopeo_options("dest-"));
        must(command.args([format!("oci:{layout}"), format!("docker://{image}")]));
        image
    }

    /// What skopeo says about an image here.
    pub fn inspect(&self, name: &str, extra: &[&str]) -> serde_json::Value {
        let mut command = Command::new("skopeo");
        command
            .args(["--insecure-policy", "inspect"])
            .args(self.skopeo_options(""))
            .args(extra)
            .arg(format!("docker://{}", self.image(name)));
        serde_json::from_slice(&must(&mut command)).unwrap()
    }

    /// A manifest or index here, byte for byte.
    pub fn inspect_raw(&self, name: &str) -> Vec<u8> {
        let mut command = Command::new("skopeo");
        command.args(["inspect", "--raw"]).args(self.skopeo_options(""));
        must(command.arg(format!("docker://{}", self.image(name))))
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

/// Make an authority, a server certificate by it (or with a fault), and a client's certificate. Files of the server lie
/// in `dir`, those of a client in `client` beside it.
fn make_certificates(dir: &Path, fault: CertificateFault) {
    let client = dir.with_file_name("client");
    for dir in [dir, &client] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let openssl = |words: &str| must(Command::new("openssl").current_dir(dir).args(words.split(' ')));
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256";
    let name = match fault {
        CertificateFault::WrongHost => "DNS:registry.example",
        _ => "IP:127.0.0.1,DNS:localhost",
    };
    openssl(&format!("req -x509 {key} -days 30 -subj /CN=strate-test-authority -keyout ca.key -out ca.crt"));
    let addition = format!("-addext subjectAltName={name}");
    if fault == CertificateFault::SelfSigned {
        openssl(&format!(
            "req -x509 {key} -days 30 -subj /CN=self {addition} -keyout server.key -out server.cert"
        ));
    } else {
        openssl(&format!("req -new {key} -subj /CN=server {addition} -keyout server.key -out server.csr"));
        std::fs::write(
            dir.join("server.ext"),
            format!("subjectAltName={name}\nextendedKeyUsage=serverAuth\n"),
        )
        .unwrap();
        let days = if fault == CertificateFault::Expired { -1 } else { 30 };
        let sign = "x509 -req -sha256 -CA ca.crt -CAkey ca.key -CAcreateserial";
        openssl(&format!("{sign} -days {days} -in server.csr -extfile server.ext -out server.cert"));
    }
    openssl(&format!("req -new {key} -subj /CN=client -keyout client.key -out client.csr"));
    std::fs::write(dir.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    openssl(
        "x509 -req -sha256 -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -in client.csr -extfile client.ext -out client.cert",
    );
    for file in ["ca.crt", "client.cert", "client.key"] {
        std::fs::copy(dir.join(file), client.join(file)).unwrap();
    }
}
