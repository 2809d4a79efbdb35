//! `--memory` and the other limits, `stats`, `update`

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Env, eventually, is_root, need, not_for, shared_registry, skip, with_busybox};

const PATIENCE: Duration = Duration::from_secs(20);

/// The cgroups of a container, found by its id.
fn cgroups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rest = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = rest.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(id) {
                found.push(entry.path());
            }
            rest.push(entry.path());
        }
    }
    found
}

/// The first of these files in the container's cgroups, and what stands in it.
fn value(id: &str, files: &[&str]) -> Option<String> {
    let dirs = cgroups(id);
    let paths = dirs.iter().flat_map(|dir| files.iter().map(move |file| dir.join(file)));
    paths.into_iter().find_map(|path| fs::read_to_string(path).ok()).map(|text| text.trim().to_owned())
}

/// Whether memory and processes can be limited here, by trying; an ordinary user gets the words that say why not.
fn can_limit(env: &Env, image: &str) -> bool {
    let tried =
        env.run(["run", "--rm", "--network", "none", "-m", "64m", "--pids-limit", "64", image, "true"]);
    if tried.stderr.is_empty() {
        return true;
    }
    tried.success().stderr_has("--memory, --pids-limit have no effect: ").stderr_has("may not be used here");
    assert!(!is_root() || !Path::new("/sys/fs/cgroup/memory").exists(), "root can limit with version 1");
    let strict = ["run", "--rm", "--network", "none", "-m", "64m", "--strict-limits", image, "true"];
    env.run(strict).code(125).stderr_has("cannot limit the container: --memory has no effect");
    env.run(["run", "-d", "--name", "no", "--network", "none", "-m", "64m", image, "sleep", "60"]).success();
    env.run(["inspect", "-f", "{{.HostConfig.Memory}}", "no"]).success().prints("0");
    env.run(["rm", "-f", "no"]).success();
    not_for(if is_root() { "this machine, whose cgroups nobody may use" } else { "an ordinary user" });
    false
}

#[test]
fn limits_are_in_force_and_gone_with_the_container() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    if !can_limit(&env, &image) {
        return;
    }
    let run = [
        "run",
        "-d",
        "--name",
        "lim",
        "--network",
        "none",
        "-m",
        "64m",
        "--pids-limit",
        "20",
        "--cpus",
        "0.5",
    ];
    let id = env.run(run.iter().chain(&["--strict-limits", &image, "sleep", "1000"])).success();
    let id = id.text();
    let read = |files: &[&str]| value(id, files).unwrap_or_else(|| panic!("{files:?} in {:?}", cgroups(id)));
    assert_eq!(read(&["memory.limit_in_bytes", "memory.max"]), "67108864");
    assert_eq!(read(&["pids.max"]), "20");
    assert!(["50000", "50000 100000"].contains(&read(&["cpu.cfs_quota_us", "cpu.max"]).as_str()));
    let shown = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}";
    env.run(["inspect", "-f", shown, "lim"]).success().prints("67108864 134217728 500000000 20");
    // A further program is in it too: it gets no more processes than are left.
    env.run(["exec", "lim", "sh", "-c", "for i in $(seq 30); do sleep 1 & done"]).stderr_has("can't fork");
    env.run(["stop", "-t", "0", "lim"]).success();
    assert_eq!(cgroups(id), Vec::<PathBuf>::new());
    assert!(fs::read_dir(env.store().join("containers/cgroups")).unwrap().next().is_none());
}

#[test]
fn who_takes_too_much_memory_is_killed_and_that_is_told() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    if !can_limit(&env, &image) {
        return;
    }
    let eat = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x$x$x; done";
    let run = ["run", "--name", "eats", "--network", "none", "-m", "8m", &image, "sh", "-c", eat];
    env.run(run).code(137);
    let shown = "{{.State.OOMKilled}} {{.State.ExitCode}}";
    env.run(["inspect", "-f", shown, "eats"]).success().prints("true 137");
    env.run(["run", "--name", "fine", "--network", "none", "-m", "64m", &image, "sh", "-c", "exit 137"])
        .code(137);
    env.run(["inspect", "-f", shown, "fine"]).success().prints("false 137");
}

#[test]
fn a_killed_watcher_leaves_no_cgroup_for_long() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    if !can_limit(&env, &image) {
        return;
    }
    let run = ["run", "--name", "left", "--network", "none", "-m", "64m", &image, "sleep", "1000"];
    let running = env.spawn(run);
    let id = eventually("its start", PATIENCE, || {
        let found = env.run(["ps", "-q", "--no-trunc", "--filter", "name=left"]);
        Some(found.text().to_owned()).filter(|id| !id.is_empty())
    });
    assert!(!cgroups(&id).is_empty());
    running.signal("KILL");
    eventually("its end", PATIENCE, || env.run(["ps", "-q"]).text().is_empty().then_some(()));
    env.run(["create", "--name", "other", &image, "true"]).success();
    assert_eq!(cgroups(&id), Vec::<PathBuf>::new(), "the next command sweeps");
}

#[test]
fn values_are_judged_as_docker_judges_them() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    for (flags, words) in [
        (&["-m", "1m"][..], "minimum memory limit allowed is 6MB"),
        (&["-m", "lots"], "expected a number and b, k, m or g"),
        (&["--memory-swap", "1g"], "you should always set the memory limit"),
        (&["-m", "1g", "--memory-swap", "512m"], "should be larger than memory limit"),
        (&["--memory-swappiness", "200"], "0-100"),
        (&["--cpus", "100000"], "range of CPUs is from 0.01 to"),
        (&["--cpus", "1", "--cpu-quota", "5000"], "--cpu-quota"),
        (&["--cpu-period", "5"], "CPU cfs period"),
        (&["--cpuset-cpus", "8000"], "are not available"),
        (&["--blkio-weight", "5"], "range of blkio weight"),
        (&["--pids-limit", "-7"], "-1"),
        (&["--device-read-bps", "/dev/null:1mb"], "no block device"),
        (&["--oom-score-adj", "2000"], "-1000 to 1000"),
        (&["--cgroup-parent", "/a/../../b"], "without `..`"),
    ] {
        let words_after = [image.as_str(), "true"];
        let args = ["create"].iter().chain(flags).chain(&words_after);
        env.run(args.copied()).code(125).stderr_has(words);
    }
    env.run(["ps", "-aq"]).success().prints("");
}

#[test]
fn the_score_for_want_of_memory_needs_no_cgroup() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let run = ["run", "--rm", "--network", "none", "--oom-score-adj", "777", &image];
    env.run(run.iter().chain(&["cat", "/proc/self/oom_score_adj"])).success().prints("777");
    if !is_root() {
        let low = ["run", "--rm", "--network", "none", "--oom-score-adj", "-999", &image, "true"];
        env.run(low).success().stderr_has("--oom-score-adj has no effect: only root may lower it");
    }
}

#[test]
fn a_cgroup_parent_is_made_and_goes_again() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    if !can_limit(&env, &image) {
        return;
    }
    let parent = format!("strate-test-{}/inner", std::process::id());
    let run = ["run", "-d", "--name", "below", "--network", "none", "--cgroup-parent", &parent, "-m", "64m"];
    let id = env.run(run.iter().chain(&[image.as_str(), "sleep", "1000"])).success();
    let found = cgroups(id.text());
    assert!(found.iter().all(|path| path.display().to_string().contains(&parent)) && !found.is_empty());
    env.run(["inspect", "-f", "{{.HostConfig.CgroupParent}}", "below"]).success().prints(&parent);
    env.run(["rm", "-f", "below"]).success();
    assert_eq!(cgroups(parent.split('/').next().unwrap()), Vec::<PathBuf>::new());
}

#[test]
fn limits_and_policies_change_while_it_runs() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    env.run(["update", "-m", "64m", "nobody"]).code(1).stderr_has("nobody");
    env.run(["create", "--name", "later", "--network", "none", &image, "true"]).success();
    env.run(["update", "later"]).code(1).stderr_has("changes nothing");
    env.run(["update", "-m", "1m", "later"]).code(1).stderr_has("minimum memory limit");
    env.run(["update", "-m", "64m", "--restart", "on-failure:3", "later"]).success().prints("later");
    let shown = "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}";
    env.run(["inspect", "-f", shown, "later"]).success().prints("67108864 on-failure 3");
    let script = "until test -e /go; do sleep 0.1; done; rm /go; exit 1";
    let run = ["run", "-d", "--name", "runs", "--network", "none", &image, "sh", "-c", script];
    let id = env.run(run).success().text().to_owned();
    env.run(["update", "--restart", "always", "runs"]).success().prints("runs");
    env.run(["exec", "runs", "touch", "/go"]).success();
    let again = || {
        let count = env.run(["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "runs"]);
        (count.text() == "1 running").then_some(())
    };
    eventually("the restart", PATIENCE, again);
    if !can_limit(&env, &image) {
        env.run(["update", "-m", "32m", "runs"]).code(1).stderr_has("may not be used here");
        env.run(["inspect", "-f", "{{.HostConfig.Memory}}", "runs"]).success().prints("0");
        env.run(["rm", "-f", "runs"]).success();
        return;
    }
    for bytes in ["67108864", "33554432", "134217728"] {
        env.run(["update", "-m", bytes, "--pids-limit", "30", "runs"]).success();
        assert_eq!(value(&id, &["memory.limit_in_bytes", "memory.max"]).as_deref(), Some(bytes));
        env.run(["inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}", "runs"])
            .success()
            .prints(&format!("{bytes} 30"));
    }
    env.run(["rm", "-f", "runs"]).success();
    // In the foreground it has none until it needs one.
    let running = env.spawn(["run", "--rm", "--name", "front", "--network", "none", &image, "sleep", "1000"]);
    eventually("its start", PATIENCE, || (env.run(["ps", "-q"]).text() != "").then_some(()));
    let id = env.run(["ps", "-q", "--no-trunc"]).text().to_owned();
    assert!(cgroups(&id).is_empty());
    env.run(["update", "--pids-limit", "12", "front"]).success();
    assert_eq!(value(&id, &["pids.max"]).as_deref(), Some("12"));
    assert_eq!(value(&id, &["pids.current"]).as_deref(), Some("1"));
    env.run(["rm", "-f", "front"]).success();
    running.finish();
    assert_eq!(cgroups(&id), Vec::<PathBuf>::new());
}

#[test]
fn stats_tell_what_is_used() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    env.run(["stats", "--no-stream"]).success().prints(
        "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O   BLOCK I/O   PIDS",
    );
    let limited = can_limit(&env, &image);
    let busy = "sleep 1000 & while :; do :; done";
    let run = ["run", "-d", "--name", "busy", "--network", "none", "-m", "64m", "--cpus", "0.5", &image];
    env.run(run.iter().chain(&["sh", "-c", busy])).success();
    env.run(["create", "--name", "still", &image, "true"]).success();
    let output = env.run(["stats", "--no-stream", "--format", "json", "busy"]).success();
    let row = output.json();
    assert_eq!(
        (row["Name"].as_str(), row["Container"].as_str(), row["PIDs"].as_str()),
        (Some("busy"), Some("busy"), Some("2"))
    );
    let percent: f64 = row["CPUPerc"].as_str().unwrap().trim_end_matches('%').parse().unwrap();
    assert!(percent > 5.0 && percent < 250.0, "{row}");
    let memory = row["MemUsage"].as_str().unwrap();
    if limited {
        assert!(memory.ends_with(" / 64MiB") && output.stderr.is_empty() && percent < 70.0, "{row}");
    } else {
        output.stderr_has("sums over its processes");
    }
    assert!(!memory.starts_with("0B"), "{memory}");
    let names = env.run(["stats", "--no-stream", "-a", "--format", "{{.Name}} {{.PIDs}}"]).success();
    assert_eq!(
        names.text(),
        "still 0
busy 2"
    );
    env.run(["stats", "--no-stream", "nobody"]).code(1).stderr_has("nobody");
    // A reader that goes away ends the stream.
    let script = format!("{} stats --format '{{{{.Name}}}}' | head -n 1", crate::support::strate().display());
    assert_eq!(crate::support::Output::of(env.program("sh").args(["-c", &script])).text(), "busy");
    env.run(["rm", "-f", "busy"]).success();
}

#[test]
fn a_pause_freezes_the_cgroup_it_is_in() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    if !can_limit(&env, &image) {
        return;
    }
    let run = ["run", "-d", "--name", "iced", "--network", "none", "-m", "64m", &image, "sleep", "1000"];
    let id = env.run(run).success().text().to_owned();
    let before = cgroups(&id);
    env.run(["pause", "iced"]).success();
    assert_eq!(cgroups(&id), before, "no second one is made");
    assert_eq!(value(&id, &["memory.limit_in_bytes", "memory.max"]).as_deref(), Some("67108864"));
    env.run(["unpause", "iced"]).success();
    let inside = value(&id, &["cgroup.procs"]).unwrap();
    assert!(!inside.is_empty(), "its process stays there");
    env.run(["pause", "iced"]).success();
    env.run(["rm", "-f", "iced"]).success();
    assert_eq!(cgroups(&id), Vec::<PathBuf>::new());
}

/// A directory that root gave to a user in the trees of version 1, and the user's process in them.
struct Delegated(Vec<PathBuf>);

impl Delegated {
    fn new(uid: u32) -> Option<Self> {
        let name = format!("delegated-{}", std::process::id());
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mut dirs = Vec::new();
        for controller in ["memory", "pids", "freezer"] {
            let path = own.lines().find_map(|line| line.split_once(&format!(":{controller}:")))?.1;
            let dir =
                Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/')).join(&name);
            fs::create_dir(&dir).ok()?;
            for path in [dir.clone(), dir.join("cgroup.procs"), dir.join("tasks")] {
                std::os::unix::fs::chown(path, Some(uid), None).ok()?;
            }
            dirs.push(dir);
        }
        Some(Self(dirs))
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for dir in &self.0 {
            for _ in 0..200 {
                if fs::remove_dir(dir).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

#[test]
fn a_user_limits_in_what_root_gave_away() {
    need!("docker-registry", "skopeo", "busybox", "setpriv");
    if !is_root() {
        return not_for("an ordinary user");
    }
    if !Path::new("/sys/fs/cgroup/memory").exists() {
        return skip("this needs root and cgroups of version 1");
    }
    let uid = 65533;
    let Some(delegated) = Delegated::new(uid) else { return skip("no cgroup may be made here") };
    let env = Env::new();
    // The user must reach its home and the binary.
    let top = tempfile::Builder::new().prefix("strate-user").tempdir_in("/tmp").unwrap();
    let (home, binary) = (top.path().join("home"), top.path().join("strate"));
    fs::create_dir(&home).unwrap();
    fs::copy(crate::support::strate(), &binary).unwrap();
    for path in [top.path(), &home] {
        std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
    }
    let image = shared_registry().image("busybox:latest");
    let doors: String =
        delegated.0.iter().map(|dir| format!("echo $$ > {}/cgroup.procs; ", dir.display())).collect();
    let script = format!(
        "{doors} exec setpriv --reuid {uid} --regid {uid} --clear-groups env HOME={} {} --root {} run --rm --network none \
         -m 64m --pids-limit 9 --strict-limits {image} sh -c 'cat /proc/self/cgroup; for i in $(seq 20); do sleep 1 & done'",
        home.display(),
        binary.display(),
        home.join("store").display(),
    );
    let output = crate::support::Output::of(env.program("sh").args(["-c", &script]));
    if output.stderr.contains("no user namespace") {
        return skip("an ordinary user gets no user namespace here");
    }
    output.stdout_has("memory:/\n").stderr_has("can't fork");
    assert_eq!(fs::metadata(&delegated.0[0]).unwrap().uid(), uid);
    let left: Vec<_> = delegated.0.iter().flat_map(|dir| fs::read_dir(dir).unwrap().flatten()).collect();
    assert!(!left.iter().any(|entry| entry.path().is_dir()), "{left:?}");
}
