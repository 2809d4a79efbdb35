//! Many processes on one store: each blob fetched once, no command fails because of another, and a holder of a lock
//! that does nothing is told about and given up.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::fake::noise;
use crate::support::{
    Env, Fake, FakeLayer, Fault, Registry, busybox_image, eventually, need, shared_registry,
};

/// How often each blob was asked for.
fn gets(seen: &[crate::support::Seen]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for seen in seen.iter().filter(|seen| seen.is_blob()) {
        *counts.entry(seen.target.rsplit('/').next().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

fn layer(seed: u64) -> FakeLayer {
    let content = noise(seed, 100_000);
    FakeLayer::gzip(&[(&format!("file{seed}"), &content), ("etc/same", b"same")])
}

#[test]
fn thirty_two_pulls_of_one_image_fetch_each_blob_once() {
    need!("gzip");
    let mut fake = Fake::default();
    fake.image("latest", &[layer(1), layer(2), layer(3)]);
    let proxy = fake.serve();
    let (env, name) = (Env::new(), proxy.image("app:latest"));
    let running: Vec<_> = (0..32).map(|_| env.spawn(["pull", "-q", &name])).collect();
    for pull in running {
        pull.finish().success().prints(&name);
    }
    let counts = gets(&proxy.seen());
    // Three layers, each once; the config is small and fetched by who comes before it is there.
    let large: Vec<_> = counts.iter().filter(|(_, count)| **count == 1).collect();
    assert!(counts.len() == 4 && large.len() >= 3, "{counts:?}");
    assert_eq!(env.run(["images", "-q"]).success().stdout.lines().count(), 1);
    env.run(["system", "check"]).success();
}

#[test]
fn images_that_share_layers_share_their_downloads() {
    need!("gzip");
    let mut fake = Fake::default();
    for n in 0..32 {
        fake.image(&format!("v{n}"), &[layer(1), layer(2), layer(100 + n)]);
    }
    let proxy = fake.serve();
    let env = Env::new();
    let names: Vec<String> = (0..32).map(|n| proxy.image(&format!("app:v{n}"))).collect();
    let running: Vec<_> = names.iter().map(|name| env.spawn(["pull", "-q", name])).collect();
    for pull in running {
        pull.finish().success();
    }
    let counts = gets(&proxy.seen());
    // Two shared layers, one own and a config for each image.
    assert!(counts.len() == 2 + 64 && counts.values().all(|count| *count == 1), "{counts:?}");
    let listed = env.run(["images", "--format", "{{.Repository}}:{{.Tag}}"]).success().stdout;
    assert!(names.iter().all(|name| listed.lines().any(|line| line == name)), "{listed}");
    env.run(["system", "check"]).success();
}

#[test]
fn of_builds_and_pulls_of_one_name_the_last_wins_whole() {
    need!("docker-registry", "skopeo", "busybox");
    let base = shared_registry().image("busybox:latest");
    let (env, registry) = (Env::new(), Registry::start());
    let name = registry.put(&busybox_image(), "name:1");
    env.run(["pull", "-q", &base]).success();
    let file = |n: u32| env.write(&format!("b{n}/Dockerfile"), format!("FROM {base}\nLABEL n={n}\n"));
    let mut running = Vec::new();
    for n in 0..6 {
        let dir = file(n).parent().unwrap().display().to_string();
        running.push(env.spawn(["build", "-q", "-t", &name, &dir]));
        running.push(env.spawn(["pull", "-q", &name]));
    }
    let ids: Vec<String> = running.into_iter().map(|one| one.finish().success().text().to_owned()).collect();
    let found = env.run(["image", "inspect", "-f", "{{.Id}}", &name]).success();
    let base_id = env.run(["image", "inspect", "-f", "{{.Id}}", &base]).success();
    assert!(ids.contains(&found.stdout.trim().to_owned()) || found.stdout == base_id.stdout, "{found}");
    env.run(["system", "check"]).success();
}

#[test]
fn who_reads_while_the_names_are_rewritten_sees_no_gap() {
    let proxy = Fake::small().serve();
    let (env, name) = (Env::new(), proxy.image("app:latest"));
    env.run(["pull", "-q", &name]).success();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 0..2 {
            let (env, name, stop) = (&env, &name, &stop);
            scope.spawn(move || {
                for tag in 0.. {
                    env.run(["tag", name, &format!("example.com/tag{n}:{}", tag % 3)]).success();
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            let listed = env.run(["images", "--format", "{{.Repository}}:{{.Tag}}"]).success();
            assert!(listed.stderr.is_empty() && listed.stdout.lines().any(|line| line == name), "{listed}");
            // The file itself is whole at any moment.
            for _ in 0..200 {
                let text = fs::read(env.store().join("index.json")).unwrap();
                serde_json::from_slice::<serde_json::Value>(&text).unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Somebody who holds a lock of the store and does nothing.
struct Sleeper(Child);

impl Sleeper {
    fn on(env: &Env, lock: &str) -> Self {
        let path = env.store().join("locks").join(lock);
        let child = env
            .program("flock")
            .args(["--exclusive", "--no-fork"])
            .arg(&path)
            .args(["sleep", "60"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the lock", Duration::from_secs(10), || {
            let taken = Command::new("flock").args(["--nonblock"]).arg(&path).arg("true").status().unwrap();
            (!taken.success()).then_some(())
        });
        Self(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_holder_that_does_nothing_is_named_and_given_up() {
    need!("flock");
    let proxy = Fake::small().serve();
    let (env, name) = (Env::new(), proxy.image("app:latest"));
    env.run(["pull", "-q", &name]).success();
    let sleeper = Sleeper::on(&env, "names");
    let pid = sleeper.0.id();
    env.run(["--lock-timeout", "2", "tag", &name, "other:1"])
        .code(1)
        .stderr_has(&format!("waiting for the list of images, held by process {pid} (sleep"))
        .stderr_has("the list of images is busy: gave up after 2 s in which nothing happened")
        .stderr_has("--lock-timeout");
    let mut command = env.command(["tag", &name, "other:1"]);
    crate::support::Output::of(command.env("STRATE_LOCK_TIMEOUT", "0")).code(1).stderr_has("is busy");
    // Readers take no lock.
    env.run(["images", "-q"]).success().stderr_lacks("waiting");
    env.run(["inspect", &name]).success();
    env.run(["ps", "-a"]).success();
    let waiting = env.spawn(["--lock-timeout", "none", "tag", &name, "other:1"]);
    std::thread::sleep(Duration::from_millis(300));
    drop(sleeper);
    waiting.finish().success();
    env.run(["--lock-timeout", "soon", "images"]).code(2).stderr_has("a number of seconds, or `none`");
}

#[test]
fn a_lock_file_that_somebody_deletes_is_made_anew() {
    need!("flock");
    let proxy = Fake::small().serve();
    let (env, name) = (Env::new(), proxy.image("app:latest"));
    env.run(["pull", "-q", &name]).success();
    let _sleeper = Sleeper::on(&env, "names");
    let waiting = env.spawn(["tag", &name, "other:1"]);
    std::thread::sleep(Duration::from_millis(300));
    fs::remove_dir_all(env.store().join("locks")).unwrap();
    // Who waited on the old file goes over to the new one; who comes now is not kept waiting.
    env.run(["tag", &name, "other:2"]).success();
    waiting.finish().success();
    assert_eq!(env.run(["images", "-q"]).success().stdout.lines().count(), 3);
    env.run(["system", "check"]).success();
}

/// What a process holds open of the store.
fn open_in_store(pid: &str, env: &Env) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let names = links.map(|link| link.display().to_string());
    let store = env.store().display().to_string();
    names
        .filter(|name| ["/locks/", "/tmp/"].iter().any(|dir| name.starts_with(&(store.clone() + dir))))
        .collect()
}

#[test]
fn what_goes_on_after_a_command_holds_no_lock_of_it() {
    need!("docker-registry", "skopeo", "busybox", "flock");
    let image = shared_registry().image("busybox:latest");
    let env = Env::new();
    let ran =
        env.run(["run", "-d", "-q", "--network=host", "--name", "box", &image, "sleep", "60"]).success();
    let pid = env.run(["inspect", "-f", "{{.State.Pid}}", "box"]).success();
    let status = fs::read_to_string(format!("/proc/{}/status", pid.text())).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    for process in [pid.text(), &parent] {
        assert_eq!(open_in_store(process, &env), [""; 0], "process {process} of {ran}");
    }
    // The store is all ours.
    let alone =
        Command::new("flock").args(["--nonblock"]).arg(env.store().join("locks/store")).arg("true").status();
    assert!(alone.unwrap().success());
    assert_eq!(fs::read_dir(env.store().join("tmp")).unwrap().count(), 0);
    env.run(["rm", "-f", "box"]).success();
}

#[test]
fn helpers_inherit_no_lock() {
    need!("docker-registry", "skopeo", "busybox", "htpasswd");
    let registry = Registry::start_with_password("u", "s");
    let (env, name) = (Env::new(), registry.put(&busybox_image(), "app:1"));
    let listing = env.work().join("descriptors");
    let script = format!(
        "#!/bin/sh\nls -l /proc/$$/fd >> {}\necho '{{\"Username\":\"u\",\"Secret\":\"s\"}}'\n",
        listing.display()
    );
    let helper = env.write("bin/docker-credential-look", script);
    fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    env.write("docker/config.json", r#"{"credsStore":"look"}"#);
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", helper.parent().unwrap().display());
    let env = env.with("PATH", path);
    let config = env.work().join("docker").display().to_string();
    env.run(["--config", &config, "pull", "-q", &name]).success();
    let seen = fs::read_to_string(listing).unwrap();
    assert!(seen.contains("0 -> "), "the helper was asked: {seen}");
    assert!(!seen.contains(&env.store().display().to_string()), "{seen}");
}

#[test]
fn a_push_keeps_what_a_peer_removes() {
    need!("docker-registry", "skopeo", "busybox");
    let base = shared_registry().image("busybox:latest");
    let registry = Registry::start();
    let (asked, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (ask, wait) = (asked.clone(), go_on.clone());
    let proxy = crate::support::Proxy::start(&registry.host(), move |seen| {
        if seen.method == "POST" {
            ask.store(true, Ordering::Relaxed);
            eventually("the word to go on", Duration::from_secs(20), || {
                wait.load(Ordering::Relaxed).then_some(())
            });
        }
        Fault::Pass
    });
    let (env, name) = (Env::new(), proxy.image("app:1"));
    env.run(["pull", "-q", &base]).success();
    env.run(["tag", &base, &name]).success();
    let push = env.spawn(["push", "-q", &name]);
    eventually("the push", Duration::from_secs(20), || asked.load(Ordering::Relaxed).then_some(()));
    env.run(["rmi", &base, &name]).success();
    env.run(["image", "prune", "-a", "-f"]).success();
    assert_eq!(env.run(["images", "-aq"]).success().stdout, "");
    go_on.store(true, Ordering::Relaxed);
    push.finish().success();
    assert!(registry.inspect("app:1", &[]).is_object());
    env.run(["image", "prune", "-a", "-f"]).success();
    assert_eq!(fs::read_dir(env.store().join("blobs/sha256")).unwrap().count(), 0, "nothing is left of it");
}

#[test]
fn all_clear_up_after_the_dead_at_once() {
    let proxy = Fake::small().serve();
    let (env, name) = (Env::new(), proxy.image("app:latest"));
    env.run(["pull", "-q", &name]).success();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for (n, boot) in [&boot[..8], "00000000"].into_iter().enumerate() {
        for m in 0..20 {
            let dead = env.store().join(format!("tmp/{boot}-{}-{n}", 4_000_000 + m));
            fs::create_dir_all(dead.join("layer-0/fs/a/b")).unwrap();
            fs::write(dead.join("lease"), format!("sha256:{}\n", "0".repeat(64))).unwrap();
            fs::write(dead.join("layer-0/fs/a/b/c"), "left over").unwrap();
        }
    }
    let tags: Vec<String> = (0..8).map(|n| format!("again:{n}")).collect();
    let running: Vec<_> = tags.iter().map(|tag| env.spawn(["tag", &name, tag])).collect();
    for tag in running {
        tag.finish().success();
    }
    eventually("an empty tmp", Duration::from_secs(10), || {
        env.run(["tag", &name, "again:0"]).success();
        (fs::read_dir(env.store().join("tmp")).unwrap().count() == 0).then_some(())
    });
    assert_eq!(env.run(["images", "-q"]).success().stdout.lines().count(), 9);
}

#[test]
fn builds_take_turns_with_a_locked_cache() {
    need!("docker-registry", "skopeo", "busybox");
    let base = shared_registry().image("busybox:latest");
    let env = Env::new();
    env.run(["pull", "-q", &base]).success();
    // Each finds what the one before it wrote, all of it: nobody works on a copy, or beside another.
    let file = format!(
        "FROM {base}\nARG N\nRUN --mount=type=cache,target=/c,sharing=locked \
         n=$(cat /c/n 2>/dev/null || echo 0); sleep 0.1; echo $((n + 1)) > /c/n; echo $N\n"
    );
    env.write("Dockerfile", file);
    let running: Vec<_> =
        (0..4).map(|n| env.spawn(["build", "-q", "--build-arg", &format!("N={n}"), "."])).collect();
    for build in running {
        build.finish().success();
    }
    env.write("Look", format!("FROM {base}\nRUN --mount=type=cache,target=/c,sharing=locked cp /c/n /n\n"));
    env.run(["build", "-q", "-t", "look", "-f", "Look", "."]).success();
    env.run(["run", "--rm", "--network=host", "look", "cat", "/n"]).success().prints("4");
}
