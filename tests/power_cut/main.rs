//! What a power cut can leave of small workloads, and that it does no harm: `model.py` records the real system calls of
//! a command, makes the states that a weak file system may show after a power cut, and looks at each; `disk.py` takes
//! the same from a real file system on a loop device, as root.
//!
//! `STRATE_POWER_SECONDS` bounds each workload (4 s); `make power` looks at everything.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "tests read the environment of their runner")]

#[path = "../cli/support/mod.rs"]
#[allow(unused_imports, reason = "the tests of the verbs need more of it")]
mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::{Env, need, shared_registry, strate};

/// A command whose work is cut off, on a store that is there before.
struct Workload {
    env: Env,
    /// Commands before, which end well; the store is as they leave it.
    before: Vec<Vec<String>>,
    command: Vec<String>,
    probes: Vec<Vec<String>>,
    repeat: &'static str,
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// What shows whether a command has done its work.
const IMAGES: &str = "images --no-trunc --format {{.Repository}}:{{.Tag}}={{.ID}}";
const CONTAINERS: &str = "ps -a --no-trunc --format {{.Names}}={{.Image}}";
const VOLUMES: &str = "volume ls -q";

impl Workload {
    fn new(before: &[&str], command: &str, probes: &[&str], repeat: &'static str) -> Self {
        let env = Env::new();
        env.write("one/Dockerfile", "FROM scratch\nCOPY f /f\nENV A=b\nCMD [\"/f\"]\n");
        env.write("one/f", "hello\n");
        env.write("two/Dockerfile", "FROM base:1\nCOPY g /g\n");
        env.write("two/g", "more\n");
        let list = |lines: &[&str]| lines.iter().map(|line| words(line)).collect();
        Self { env, before: list(before), command: words(command), probes: list(probes), repeat }
    }

    fn spec(&self) -> Value {
        let checker = self.env.write("scripts/check_store.py", include_str!("../check_store.py"));
        let store = self.env.home().join("before");
        for line in &self.before {
            let mut command = self.env.command(line);
            support::must(command.env("SOURCE_DATE_EPOCH", "0").env("STRATE_ROOT", &store));
        }
        let scratch = self.env.home().join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        // The rung that needs no helpers: those cannot be traced by an ordinary user.
        let mode = if support::is_root() { "root" } else { "single" };
        json!({
            "strate": strate(), "cwd": self.env.work(), "store": store, "scratch": scratch, "checker": checker,
            "command": self.command, "probes": self.probes, "repeat": self.repeat, "seconds": seconds(),
            "reads": [["images", "-a"], ["ps", "-a"], ["system", "check"]],
            "env": {
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": self.env.home(),
                "LANG": "C.UTF-8", "SOURCE_DATE_EPOCH": "0", "STRATE_USERNS_MODE": mode,
            },
        })
    }

    /// Try the states; each must be fine.
    fn hold(&self) {
        let spec = self.env.write("spec.json", self.spec().to_string());
        let found = python(&self.env, "model.py", include_str!("model.py"), &[spec.display().to_string()]);
        assert!(found["tested"].as_u64().unwrap() > 0, "nothing was tested: {found:#}");
        assert_eq!(found["failed"], 0, "of {} states: {:#}", found["tested"], found["failures"]);
        assert_ne!(found["old"], found["new"], "the probes see no difference: {found:#}");
    }
}

fn seconds() -> f64 {
    std::env::var("STRATE_POWER_SECONDS").map_or(4.0, |text| text.parse().unwrap())
}

/// Run a script that prints one document.
fn python(env: &Env, name: &str, script: &str, arguments: &[String]) -> Value {
    let script = env.write(&format!("scripts/{name}"), script);
    let output = support::must(Command::new("python3").arg(script).args(arguments));
    let found: Value = serde_json::from_slice(&output).unwrap();
    let numbers = ["operations", "tested", "all", "failed"].map(|key| format!("{key} {}", found[key]));
    println!("{name}: {}", numbers.join(", "));
    found
}

const BASE: &str = "build -q -t base:1 one";

macro_rules! workloads {
    ($($name:ident: [$($before:expr),*], $command:expr, [$($probe:expr),*], $repeat:expr;)*) => {
        $(#[test]
        fn $name() {
            need!("strace", "python3");
            Workload::new(&[$($before),*], $command, &[$($probe),*], $repeat).hold();
        })*
    };
}

workloads! {
    first_build: [], BASE, [IMAGES], "same";
    build: [BASE], "build -q -t two:1 two", [IMAGES], "same";
    tag: [BASE], "tag base:1 other:1", [IMAGES], "same";
    rmi: [BASE, "build -q -t two:1 two"], "rmi -f two:1", [IMAGES], "same";
    load: ["--root ../other build -q -t base:1 one", "--root ../other build -q -t two:1 two",
        "--root ../other save -q -o a.tar two:1", BASE], "load -q -i a.tar", [IMAGES], "same";
    commit: [BASE, "create --name c --network none base:1 /f"], "commit c two:1", [IMAGES], "works";
    create: [BASE], "create --name c --network none base:1 /f", [CONTAINERS], "";
    rm: [BASE, "create --name c --network none base:1 /f"], "rm c", [CONTAINERS], "";
    rename: [BASE, "create --name c --network none base:1 /f"], "rename c d", [CONTAINERS], "";
    prune: [BASE, "build -q -t two:1 two", "tag base:1 two:1"], "image prune -af", [IMAGES], "same";
    volume_create: [BASE], "volume create data", [VOLUMES], "same";
    volume_rm: [BASE, "volume create data"], "volume rm data", [VOLUMES], "";
}

#[test]
fn pull() {
    need!("strace", "python3", "docker-registry", "skopeo");
    let registry = shared_registry();
    let name = registry.host() + "/small:1";
    let setup = Workload::new(&[BASE], "", &[], "");
    setup.env.run(words(BASE)).success();
    setup.env.run(["push", "-q", "base:1", &name]).success();
    Workload::new(&[], &format!("pull -q {name}"), &[IMAGES], "same").hold();
}

/// Disks that really lost their power, as far as that can be had without one.
#[test]
fn a_real_disk() {
    need!(root);
    need!("mkfs.ext4", "python3", "unshare");
    let setup = Workload::new(&[], "", &[], "");
    let mut spec = setup.spec();
    spec["rounds"] = json!([
        [words(BASE), "base:1"],
        [words("build -q -t two:1 two"), "two:1"],
        [words("tag two:1 three:1"), "three:1"],
    ]);
    let spec = setup.env.write("spec.json", spec.to_string());
    let found = python(&setup.env, "disk.py", include_str!("disk.py"), &[spec.display().to_string()]);
    if let Some(why) = found["skipped"].as_str() {
        return support::skip(&format!("no disk can be made here: {why}"));
    }
    assert!(found["tested"].as_u64().unwrap() > 0, "{found:#}");
    assert_eq!(found["failed"], 0, "{found:#}");
}
