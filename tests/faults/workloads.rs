//! The commands that are swept, each on a store of its own.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::support::{Env, Output, Registry, fake, must, scratch, shared_registry};
use super::sweep::{Root, Workload};

/// Three images in a registry, small and of two layers each: `one` and `two` share a layer, `tool` can run programs.
struct Images {
    registry: &'static Registry,
    /// What `docker save` writes of each.
    archives: BTreeMap<&'static str, Vec<u8>>,
}

static IMAGES: LazyLock<Images> = LazyLock::new(Images::make);

impl Images {
    fn make() -> Self {
        let dir = tempfile::Builder::new().prefix("strate-faults-").tempdir_in(place()).unwrap();
        let registry = shared_registry();
        let mut archives = BTreeMap::new();
        let base = fake::tar(&[("motd", b"hello\n"), ("a", &fake::noise(1, 9000))]);
        let busybox = std::fs::read(super::support::program("busybox").unwrap()).unwrap();
        let program = fake::tar(&[("bin/busybox", &busybox)]);
        for (name, layers) in [
            ("one", [&base, &fake::tar(&[("b", b"one")])]),
            ("two", [&base, &fake::tar(&[("b", b"two"), ("c", &fake::noise(2, 30_000))])]),
            ("tool", [&program, &fake::tar(&[("etc/tool", b"tool")])]),
        ] {
            let archive = dir.path().join(format!("{name}.tar"));
            write_archive(&archive, name, &layers);
            let mut skopeo = Command::new("skopeo");
            skopeo.args(["--insecure-policy", "copy", "--quiet"]).args(registry.skopeo_options("dest-"));
            skopeo.arg(format!("docker-archive:{}", archive.display()));
            must(skopeo.arg(format!("docker://{}", registry.image(&format!("{name}:1")))));
            archives.insert(name, std::fs::read(&archive).unwrap());
        }
        Self { registry, archives }
    }

    fn name(&self, name: &str) -> String {
        self.registry.image(&format!("{name}:1"))
    }

    /// Write an image's archive into the working directory.
    fn archive(&self, name: &str, env: &Env) -> PathBuf {
        env.write(&format!("{name}.tar"), &self.archives[name])
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
    let manifest =
        json!([{"Config": "config.json", "RepoTags": [format!("{name}:loaded")], "Layers": files}]);
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
        round: Cell::new(0),
        env,
        root: Root(root),
        readers: vec![words("images -a"), words("ps -a")],
        result: |_| String::new(),
        outside: None,
        prune: &["image prune -f"],
        once: false,
        by_parts: false,
        makes_room: false,
        keeps: &[],
        dated: false,
    };
    for image in images {
        let full = IMAGES.name(image);
        workload.run(["pull", "-q", &full]).success();
        workload.readers.push(vec!["inspect".into(), full]);
    }
    workload
}

/// What is said about an image.
fn told(w: &Workload, format: &str, name: &str) -> String {
    w.run(["inspect", "-f", format, name]).text().to_owned()
}

const ID: &str = "{{.Id}} {{.RootFS.Layers}}";

pub fn tag() -> Workload {
    let line = format!("tag {} other/name:new", IMAGES.name("one"));
    Workload { result: |w| told(w, ID, "other/name:new"), ..on("tag", &["one"], &line) }
}

pub fn pull() -> Workload {
    let line = format!("pull {}", IMAGES.name("two"));
    Workload {
        result: |w| told(w, ID, &IMAGES.name("two")),
        keeps: &["partial/"],
        ..on("pull", &["one"], &line)
    }
}

pub fn first_pull() -> Workload {
    let line = format!("pull {}", IMAGES.name("two"));
    Workload {
        result: |w| told(w, ID, &IMAGES.name("two")),
        keeps: &["partial/"],
        ..on("first pull", &[], &line)
    }
}

pub fn load() -> Workload {
    let mut workload = on("load", &["one"], "");
    let archive = IMAGES.archive("two", &workload.env);
    workload.args = words(&format!("load -i {}", archive.display()));
    Workload { result: |w| told(w, ID, "two:loaded"), keeps: &["partial/"], ..workload }
}

fn saving(name: &'static str) -> Workload {
    let mut workload = on(name, &["one"], "");
    let file = workload.env.work().join("out.tar");
    workload.args = words(&format!("save -o {} {}", file.display(), IMAGES.name("one")));
    workload.outside = Some(file);
    workload
}

pub fn save() -> Workload {
    saving("save")
}

pub fn save_over() -> Workload {
    let workload = saving("save over a file");
    workload.env.write("out.tar", "what was here before");
    workload
}

pub fn commit() -> Workload {
    let workload = on("commit", &["tool"], "commit -q box new:1");
    let touch = ["create", "--name", "box", "--network", "none"];
    let program = ["/bin/busybox", "touch", "/made"];
    workload.run(touch.into_iter().chain([IMAGES.name("tool").as_str()]).chain(program)).success();
    workload.run(["start", "-a", "box"]).success();
    Workload { result: |w| told(w, "{{.RootFS.Layers}}", "new:1"), dated: true, ..workload }
}

/// Steps that were done are kept for the next build.
const BUILD: &[&str] = &["cache/", "blobs/", "snapshots/"];

/// The tail of a build: files, a program, metadata.
pub fn build() -> Workload {
    let mut workload = on("build", &["tool"], "");
    let file = format!(
        "FROM {}\nCOPY a /a\nRUN [\"/bin/busybox\", \"touch\", \"-d\", \"@1700000000\", \"/made\", \"/\"]\nLABEL x=y\n",
        IMAGES.name("tool")
    );
    workload.env.write("context/Dockerfile", file);
    workload.env.write("context/a", "a");
    let context = workload.env.work().join("context");
    workload.args = words("build -q --network none --output type=image,name=built:1,rewrite-timestamp=true");
    workload.args.push(context.display().to_string());
    Workload { result: |w| told(w, ID, "built:1"), keeps: BUILD, dated: true, ..workload }
}

/// A build that needs no namespace.
pub fn build_files() -> Workload {
    let mut workload = on("build of files", &["one"], "");
    let file = format!("FROM {}\nCOPY a /a\nENV b=c\n", IMAGES.name("one"));
    workload.env.write("context/Dockerfile", file);
    workload.env.write("context/a", "a");
    let context = workload.env.work().join("context");
    workload.args = words("build -q --output type=image,name=built:1,rewrite-timestamp=true");
    workload.args.push(context.display().to_string());
    Workload { result: |w| told(w, ID, "built:1"), keeps: BUILD, ..workload }
}

pub fn rmi() -> Workload {
    let line = format!("rmi {}", IMAGES.name("two"));
    let result = |w: &Workload| w.run(["images", "-q"]).text().to_owned();
    let mut workload = Workload { result, once: true, makes_room: true, ..on("rmi", &["one", "two"], &line) };
    workload.readers.pop();
    workload
}

/// Without a name: `two` had the name that `one` has now.
pub fn image_prune() -> Workload {
    let result = |w: &Workload| w.run(["images", "-aq"]).text().to_owned();
    let workload =
        Workload { result, makes_room: true, ..on("image prune", &["one", "two"], "image prune -f") };
    workload.run(["tag", &IMAGES.name("one"), &IMAGES.name("two")]).success();
    workload
}

/// A container, an image without a name and the steps of a build whose image is gone: one after the other goes.
pub fn system_prune() -> Workload {
    let result = |w: &Workload| format!("{}{}", w.run(["images", "-aq"]).stdout, w.run(["ps", "-aq"]).stdout);
    let built = build_files();
    Output::of(&mut built.command()).success();
    built.run(["rmi", "built:1"]).success();
    let two = IMAGES.name("two");
    built.run(["pull", "-q", &two]).success();
    built.run(["tag", &IMAGES.name("one"), &two]).success();
    built.run(["create", "--name", "box", &two, "true"]).success();
    Workload {
        name: "system prune",
        args: words("system prune -f"),
        prune: &["system prune -f", "image prune -f"],
        result,
        by_parts: true,
        makes_room: true,
        keeps: &[],
        ..built
    }
}

pub fn push() -> Workload {
    // The sweeps run at the same time on one registry.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let to = IMAGES.registry.image(&format!("pushed-{number}-@:1"));
    let workload = on("push", &["one"], &format!("push pushed:1 {to}"));
    workload.run(["tag", &IMAGES.name("one"), "pushed:1"]).success();
    let result = |w: &Workload| {
        let name = w.args[2].replace('@', &w.round.get().to_string());
        w.run(["digest", &name]).stdout
    };
    Workload { result, ..workload }
}

pub fn create() -> Workload {
    let line = format!("create --name box {} true", IMAGES.name("one"));
    let result = |w: &Workload| w.run(["ps", "-a", "--format", "{{.Names}} {{.Image}}"]).stdout;
    Workload {
        result,
        once: true,
        prune: &["container prune -f", "image prune -f"],
        ..on("create", &["one"], &line)
    }
}

pub fn rm() -> Workload {
    let result = |w: &Workload| w.run(["ps", "-aq"]).stdout;
    let workload = Workload {
        result,
        once: true,
        prune: &["container prune -f", "image prune -f"],
        ..on("rm", &["one"], "rm box")
    };
    workload.run(["create", "--name", "box", &IMAGES.name("one"), "true"]).success();
    workload
}

pub fn volume_create() -> Workload {
    let result = |w: &Workload| w.run(["volume", "ls", "-q"]).stdout;
    Workload { result, ..on("volume create", &["one"], "volume create data") }
}

pub fn volume_rm() -> Workload {
    let result = |w: &Workload| w.run(["volume", "ls", "-q"]).stdout;
    let workload = Workload { result, once: true, ..on("volume rm", &["one"], "volume rm data") };
    workload.run(["volume", "create", "data"]).success();
    workload
}
