//! The commands that are swept, each on a store of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::json;

use super::support::{Env, Registry, fake, must, scratch};
use super::sweep::{Root, Workload};

/// Three images in a registry, small and of two layers each: `one` and `two` share a layer, `tool` can run programs.
struct Images {
    registry: Registry,
    dir: PathBuf,
}

static IMAGES: LazyLock<Images> = LazyLock::new(Images::make);

impl Images {
    fn make() -> Self {
        let dir = tempfile::Builder::new().prefix("strate-faults-").tempdir_in(place()).unwrap().keep();
        let registry = Registry::start();
        let base = fake::tar(&[("etc/motd", b"hello\n"), ("data/a", &fake::noise(1, 9000))]);
        let busybox = std::fs::read(super::support::program("busybox").unwrap()).unwrap();
        let program = fake::tar(&[("bin/busybox", &busybox)]);
        for (name, layers) in [
            ("one", [&base, &fake::tar(&[("data/b", b"one")])]),
            ("two", [&base, &fake::tar(&[("data/b", b"two"), ("data/c", &fake::noise(2, 30_000))])]),
            ("tool", [&program, &fake::tar(&[("etc/tool", b"tool")])]),
        ] {
            let archive = dir.join(format!("{name}.tar"));
            write_archive(&archive, name, &layers);
            let mut skopeo = Command::new("skopeo");
            skopeo.args(["--insecure-policy", "copy", "--quiet"]).args(registry.skopeo_options("dest-"));
            skopeo.arg(format!("docker-archive:{}", archive.display()));
            must(skopeo.arg(format!("docker://{}", registry.image(&format!("{name}:1")))));
        }
        Self { registry, dir }
    }

    fn name(&self, name: &str) -> String {
        self.registry.image(&format!("{name}:1"))
    }

    fn archive(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.tar"))
    }
}

/// In memory when there is enough of it: what is tried is the order of calls, not the disk.
fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    if room > 2 << 30 { memory.to_owned() } else { scratch() }
}

/// What `docker save` writes of an image.
fn write_archive(path: &Path, name: &str, layers: &[&Vec<u8>]) {
    let diff_ids: Vec<String> = layers.iter().map(|layer| fake::digest(layer)).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Cmd": ["/bin/busybox", "true"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let files: Vec<String> = (0..layers.len()).map(|i| format!("layer-{i}.tar")).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": [format!("{name}:loaded")], "Layers": files}]);
    let (config, manifest) = (config.to_string(), manifest.to_string());
    let mut all: Vec<(&str, &[u8])> =
        vec![("config.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())];
    all.extend(files.iter().map(String::as_str).zip(layers.iter().map(|layer| layer.as_slice())));
    std::fs::write(path, fake::tar(&all)).unwrap();
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// A workload on a store that holds these images.
fn on(name: &'static str, images: &[&str], line: &str) -> Workload {
    let env = Env::new();
    let root = tempfile::Builder::new().prefix("strate-faults-").tempdir_in(place()).unwrap().keep();
    let env = env.with("STRATE_ROOT", root.join("store")).with("SOURCE_DATE_EPOCH", "1700000000");
    let mut workload = Workload {
        name,
        args: words(line),
        env,
        root: Root(root),
        readers: vec![words("images -a"), words("ps -a")],
        result: |_| String::new(),
        outside: None,
        prune: vec!["image", "prune", "-f"],
        once: false,
        keeps: false,
    };
    for image in images {
        let full = IMAGES.name(image);
        workload.run(["pull", "-q", &full]).success();
        workload.readers.push(vec!["inspect".into(), full]);
    }
    workload
}

pub fn tag() -> Workload {
    let line = format!("tag {} other/name:new", IMAGES.name("one"));
    let result = |w: &Workload| w.run(["inspect", "-f", "{{.Id}}", "other/name:new"]).text().to_owned();
    Workload { result, ..on("tag", &["one"], &line) }
}

pub fn pull() -> Workload {
    let line = format!("pull {}", IMAGES.name("two"));
    let result = |w: &Workload| w.run(["inspect", "-f", "{{.Id}} {{.RootFS.Layers}}", &IMAGES.name("two")]).text().to_owned();
    Workload { result, keeps: true, ..on("pull", &["one"], &line) }
}

pub fn first_pull() -> Workload {
    let line = format!("pull {}", IMAGES.name("two"));
    let result = |w: &Workload| w.run(["inspect", "-f", "{{.Id}} {{.RootFS.Layers}}", &IMAGES.name("two")]).text().to_owned();
    Workload { result, keeps: true, ..on("first pull", &[], &line) }
}
