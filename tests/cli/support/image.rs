//! Images to test with, made from what the machine has and kept between runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use serde_json::json;

use super::{must, program};

/// Where made images are kept: `STRATE_TEST_CACHE`, else below the build directory.
fn cache() -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("images");
    let dir = std::env::var_os("STRATE_TEST_CACHE").map_or_else(default, PathBuf::from);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Tests of one process make an image once. Other processes: the last rename wins, and all are the same.
static MAKING: Mutex<()> = Mutex::new(());

/// A layout that holds `NAME` as skopeo's `oci:` names it: made by `make` (which gets a tar to fill) when not there.
fn cached(name: &str, make: impl FnOnce(&Path) -> bool) -> Option<String> {
    let _one = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let layout = cache().join(name);
    if !layout.join("index.json").is_file() {
        let dir = tempfile::Builder::new().prefix(".making-").tempdir_in(cache()).unwrap();
        let archive = dir.path().join("archive.tar");
        if !make(&archive) {
            return None;
        }
        let fresh = dir.path().join("layout");
        must(
            Command::new("skopeo")
                .args(["copy", "--quiet"])
                .arg(format!("docker-archive:{}", archive.display()))
                .arg(format!("oci:{}:latest", fresh.display())),
        );
        match std::fs::rename(&fresh, &layout) {
            Err(_) if layout.join("index.json").is_file() => {}
            result => result.unwrap(),
        }
    }
    Some(format!("{}:latest", layout.display()))
}

/// A small image: the machine's static busybox with its applets as links, a user and a few odd files.
pub fn busybox_image() -> String {
    cached("busybox-1", |archive| {
        let mut layer = tar::Builder::new(Vec::new());
        let busybox = std::fs::read(program("busybox").expect("busybox is installed")).unwrap();
        for dir in ["bin/", "etc/", "tmp/", "root/", "home/", "home/user/", "data/"] {
            let mode = if dir == "tmp/" { 0o1777 } else { 0o755 };
            let owner = if dir == "home/user/" { 1000 } else { 0 };
            add(&mut layer, dir, tar::EntryType::Directory, mode, owner, b"", "");
        }
        add(&mut layer, "bin/busybox", tar::EntryType::Regular, 0o755, 0, &busybox, "");
        let list = must(Command::new(program("busybox").unwrap()).arg("--list"));
        for applet in String::from_utf8(list).unwrap().lines().filter(|name| *name != "busybox") {
            add(&mut layer, &format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, 0, b"", "busybox");
        }
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
        add(&mut layer, "etc/passwd", tar::EntryType::Regular, 0o644, 0, passwd, "");
        let group = b"root:x:0:\nusers:x:100:user\nuser:x:1000:\n";
        add(&mut layer, "etc/group", tar::EntryType::Regular, 0o644, 0, group, "");
        add(&mut layer, "data/one", tar::EntryType::Regular, 0o640, 1000, b"one\n", "");
        add(&mut layer, "data/same", tar::EntryType::Link, 0o640, 1000, b"", "data/one");
        docker_archive(archive, &layer.into_inner().unwrap(), &json!({"Cmd": ["sh"], "Env": [PATH_ENV]}));
        true
    })
    .unwrap()
}

const PATH_ENV: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A Debian base image with apt that fetches from where the machine's own fetches; nothing where it cannot be made
/// (no mmdebstrap, no mirror).
pub fn debian_image() -> Option<String> {
    program("mmdebstrap")?;
    cached("debian-1", |archive| {
        let layer = archive.with_file_name("layer.tar");
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=apt"]);
        for path in ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*"] {
            command.arg(format!("--dpkgopt=path-exclude={path}"));
        }
        for option in apt_options() {
            command.arg(format!("--aptopt={option}"));
        }
        command.arg(codename()).arg(&layer).args(apt_sources());
        if !command.status().is_ok_and(|status| status.success()) {
            return false;
        }
        docker_archive(
            archive,
            &std::fs::read(&layer).unwrap(),
            &json!({"Cmd": ["bash"], "Env": [PATH_ENV]}),
        );
        true
    })
}

/// The machine's Debian release, else a stable one.
fn codename() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        release
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(|value| value.trim_matches('"').to_owned())
    };
    value("ID=")
        .filter(|id| id == "debian")
        .and_then(|_| value("VERSION_CODENAME="))
        .unwrap_or("bookworm".into())
}

/// The machine's own Debian sources, when it is a Debian.
fn apt_sources() -> Option<&'static str> {
    let is_debian = std::fs::read_to_string("/etc/os-release").is_ok_and(|text| text.contains("\nID=debian"));
    ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"]
        .into_iter()
        .find(|path| is_debian && std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0))
}

/// The machine's settings for reaching its mirror: proxies, and how strictly dates are checked.
fn apt_options() -> Vec<String> {
    let dump = Command::new("apt-config").args(["dump", "--format", "%f \"%v\";%n", "Acquire"]).output();
    let dump = dump.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let wanted = ["::Proxy ", "::Check-Valid-Until ", "::Check-Date "];
    dump.lines()
        .filter(|line| wanted.iter().any(|part| line.contains(part)) && !line.contains(" \"\""))
        .map(str::to_owned)
        .collect()
}

fn add(
    layer: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    owner: u64,
    content: &[u8],
    link: &str,
) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(1_600_000_000);
    header.set_size(content.len() as u64);
    if link.is_empty() {
        layer.append_data(&mut header, path, content).unwrap();
    } else {
        layer.append_link(&mut header, path, link).unwrap();
    }
}

/// Write an image of one layer as `docker load` reads it.
pub fn docker_archive(path: &Path, layer: &[u8], config: &serde_json::Value) {
    use sha2::Digest;
    let mut diff_id = String::from("sha256:");
    for byte in sha2::Sha256::digest(layer) {
        diff_id.push_str(&format!("{byte:02x}"));
    }
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "2024-01-02T03:04:05Z", "created_by": "made for tests"}],
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": ["test:latest"], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(std::io::BufWriter::new(std::fs::File::create(path).unwrap()));
    for (name, content) in [
        ("config.json", config.to_string().into_bytes()),
        ("manifest.json", manifest.to_string().into_bytes()),
    ] {
        append(&mut archive, name, &content);
    }
    append(&mut archive, "layer.tar", layer);
    archive.finish().unwrap();
}

fn append(archive: &mut tar::Builder<impl std::io::Write>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content).unwrap();
}
