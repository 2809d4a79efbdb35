//! Clocks that were wrong or were set: times in the future, and before 1970.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Env, Fake, FakeLayer, must, need, shared_registry};

fn touch(time: &str, path: &Path) {
    must(Command::new("touch").args(["--no-dereference", "-d", time]).arg(path));
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect()
}

/// Images of all times, as reproducible builds and wrong clocks make them.
fn images() -> (Env, Vec<String>) {
    let mut registry = Fake::default();
    let layer = [FakeLayer::gzip(&[("f", b"content\n")])];
    let times =
        ["0001-01-01T00:00:00Z", "1901-12-13T20:45:51Z", "1970-01-01T00:00:00Z", "2106-02-07T06:28:16Z"];
    let times = times.iter().chain(&["9999-12-31T23:59:59.999999999Z", "not a time"]);
    for (n, time) in times.enumerate() {
        registry.image_with(&n.to_string(), &layer, |_, config| config["created"] = (*time).into());
    }
    let proxy = registry.serve();
    let env = Env::new();
    let names: Vec<String> = (0..6).map(|n| proxy.image(&format!("app:{n}"))).collect();
    (env, names)
}

#[test]
fn ages_of_images_are_told_whatever_their_time() {
    let (env, names) = images();
    for name in &names {
        env.run(["pull", "-q", name]).success();
    }
    let shown = env.run(["images", "--format", "{{.Tag}} {{.CreatedSince}}"]).success();
    assert_eq!(shown.stdout.lines().count(), names.len(), "{shown}");
    assert!(shown.stdout.lines().all(|line| !line.contains('-')), "{shown}");
    env.run(["images"]).success();
    env.run(["images", "--format", "json"]).success();
    env.run(["history", &names[3]]).success();
    env.run(["system", "df", "-v"]).success();
    env.run(["images", "--filter", &format!("before={}", names[3]), "-q"]).success();

    // What is to come is not old, however long `until` reaches back; what makes no sense is not either.
    let until = |filter: &str| {
        let out = env.run(["image", "prune", "-a", "--dry-run", "--filter", filter]).success();
        out.stdout
            .lines()
            .filter(|line| line.starts_with("untagged: "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let old = until("until=24h");
    assert!(old.iter().all(|line| !names[3..5].iter().any(|name| line.contains(name.as_str()))), "{old:?}");
    assert_eq!(old.iter().filter(|line| names[..3].iter().any(|n| line.contains(n.as_str()))).count(), 3);
    let ancient = until("until=1900-01-01");
    assert!(ancient.iter().all(|line| line.contains(&names[0])), "{ancient:?}");
    for wild in ["until=99999999999999999999h", "until=9223372036854775807s", "until=-1h", "until="] {
        let out = env.run(["image", "prune", "-a", "-f", "--filter", wild]);
        assert!(out.code == 0 || out.code == 1 || out.code == 2 || out.code == 125, "{out}");
        assert!(!out.stderr.contains("panic"), "{out}");
    }
    env.run(["inspect", &names[3]]).success();
    env.run(["inspect", &names[4]]).success();
}

#[test]
fn what_a_wrong_clock_made_is_kept_and_what_is_new_is_not_removed_for_it() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let base = shared_registry().image("busybox:latest");
    let build = |name: &str| {
        env.write(
            &format!("{name}/Dockerfile"),
            format!("FROM {base}\nRUN dd if=/dev/urandom of=/{name} bs=1M count=4\n"),
        );
        let out = env.run(["build", "--progress", "plain", "--network", "none", "-t", name, name]).success();
        let cached = out.cached_steps();
        env.run(["rmi", name]).success();
        cached
    };
    build("future");
    let records = env.store().join("cache/records");
    // The clock was a lifetime ahead; then somebody set it.
    for path in files(&records) {
        touch("2090-01-01", &path);
    }
    build("present");
    env.run(["builder", "prune", "-f", "--filter", "until=1h"]).success();
    env.run(["image", "prune", "-f"]).success();
    assert_eq!(build("present"), 1, "the new is kept");
    // Room for one of them: that which was used last by a clock that is right.
    env.run(["builder", "prune", "-f", "--keep-storage", "6MB"]).success();
    assert_eq!(build("present"), 1, "the new goes last");
    assert_eq!(build("future"), 0);

    // What is used gets a time that is right.
    for path in files(&records) {
        touch("2090-01-01", &path);
    }
    assert_eq!(build("future"), 1);
    let now = std::time::SystemTime::now();
    let right = files(&records).iter().any(|path| path.metadata().unwrap().modified().unwrap() <= now);
    assert!(right, "its use was noted");

    // Before 1970, and on the day when a clock without a battery begins: old, and no reason to stumble.
    for time in ["1960-01-01", "1970-01-01T00:00:00Z"] {
        for path in files(&records) {
            touch(time, &path);
        }
        for dir in ["tmp", "snapshots", "partial", "cache/layers", "locks"] {
            files(&env.store().join(dir)).iter().for_each(|path| touch(time, path));
        }
        env.run(["builder", "du"]).success();
        env.run(["system", "df"]).success();
        env.run(["system", "check"]).success();
        env.run(["builder", "prune", "-f", "--keep-storage", "1GB"]).success();
        build("present");
    }
    // A container of tomorrow is not old.
    env.run(["create", "--name", "c", "--network", "none", &base, "true"]).success();
    let id = env.run(["inspect", "-f", "{{.Id}}", "c"]).success();
    let record = env.store().join("containers").join(id.text()).join("config.json");
    let text = fs::read_to_string(&record).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["created"] = "2090-01-01T00:00:00.000000000Z".into();
    fs::write(&record, value.to_string()).unwrap();
    env.run(["ps", "-a"]).success().stdout_has("Created");
    env.run(["container", "prune", "-f", "--filter", "until=1h"]).success();
    env.run(["inspect", "c"]).success();
    env.run(["system", "check"]).success();
}
