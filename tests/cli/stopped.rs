//! Others do not wait for ever for a process that holds a lock and was stopped (SIGSTOP).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::{Env, Fake, FakeLayer, eventually, fake, need, shared_registry};

/// Give up on a holder that does nothing for so long.
const LIMITED: [&str; 2] = ["--lock-timeout", "2"];

fn limited<'a>(args: &[&'a str]) -> Vec<&'a str> {
    LIMITED.iter().chain(args).copied().collect()
}

#[test]
fn a_stopped_first_start_holds_its_volume_and_no_other() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let base = shared_registry().image("busybox:latest");
    for n in 0..1000 {
        env.write(&format!("context/data/{n}"), "content\n");
    }
    env.write("context/Dockerfile", format!("FROM {base}\nCOPY data /data\n"));
    env.run(["build", "-q", "-t", "img", "context"]).success();
    env.run(["volume", "create", "vol"]).success();
    let fill = env.store().join("volumes/vol/fill.new");
    let run = ["run", "--rm", "--network", "none", "-v", "vol:/data", "img", "cat", "/data/17"];
    let first = env.spawn(run);
    let start = Instant::now();
    while !fill.exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "nothing is copied");
    }
    first.signal("STOP");
    assert!(fill.exists(), "stopped while it copies");

    let begun = Instant::now();
    env.run(limited(&run))
        .code(125)
        .stderr_has("waiting for volume vol, held by process")
        .stderr_has("which is stopped")
        .stderr_has("volume vol is busy: gave up after 2 s in which nothing happened")
        .stderr_has("--lock-timeout");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // Everything else goes on.
    env.run(limited(&["run", "--rm", "--network", "none", "-v", "other:/data", "img", "cat", "/data/18"]))
        .success()
        .prints("content");
    env.run(limited(&["image", "prune", "-f"])).success();
    first.signal("CONT");
    first.finish().success().prints("content");
    env.run(run).success().prints("content");
    assert!(!fill.exists());
}

#[test]
fn a_stopped_pull_holds_its_downloads_and_no_others() {
    let mut registry = Fake::default();
    let noise = fake::noise(7, 1 << 20);
    registry.image("large", &[FakeLayer::gzip(&[("noise", &noise)])]);
    registry.image("small", &[FakeLayer::gzip(&[("other", b"other\n")])]);
    let proxy = registry.serve_with(|seen| match seen.is_blob() {
        true => fake_slow(),
        false => crate::support::Fault::Pass,
    });
    let (env, large, small) = (Env::new(), proxy.image("app:large"), proxy.image("app:small"));
    let first = env.spawn(["pull", "-q", &large]);
    let partial = || -> Option<PathBuf> {
        let mut entries = std::fs::read_dir(env.store().join("partial")).ok()?.flatten();
        entries.find(|entry| entry.metadata().is_ok_and(|meta| meta.len() > 10_000)).map(|entry| entry.path())
    };
    eventually("a download", Duration::from_secs(30), partial);
    first.signal("STOP");

    env.run(limited(&["pull", "-q", &large]))
        .code(1)
        .stderr_has("waiting for the download of")
        .stderr_has("which is stopped")
        .stderr_has("is busy: gave up after 2 s in which nothing happened");
    env.run(limited(&["pull", "-q", &small])).success();
    env.run(limited(&["tag", &small, "other:1"])).success();
    env.run(limited(&["rmi", "other:1"])).success();
    env.run(limited(&["system", "prune", "-f"])).success();
    first.signal("CONT");
    first.finish().success();
    env.run(["system", "check"]).success();
}

fn fake_slow() -> crate::support::Fault {
    crate::support::Fault::Slow(16 << 10, Duration::from_millis(20))
}

#[test]
fn a_stopped_builder_is_in_nobodys_way() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let base = shared_registry().image("busybox:latest");
    env.write("a/Dockerfile", format!("FROM {base}\nRUN touch /begun && sleep 1 && echo done >/done\n"));
    env.write("b/Dockerfile", format!("FROM {base}\nRUN echo other >/other\n"));
    env.run(["pull", "-q", &base]).success();
    let first = env.spawn(["build", "-q", "--network", "none", "-t", "a", "a"]);
    eventually("the step", Duration::from_secs(30), || begun(&env).then_some(()));
    first.signal("STOP");
    env.run(limited(&["build", "-q", "--network", "none", "-t", "b", "b"])).success();
    env.run(limited(&["images"])).success().stdout_has("b");
    env.run(limited(&["rmi", &base])).success();
    env.run(limited(&["image", "prune", "-af"])).success();
    env.run(limited(&["system", "reset", "-f"])).code(1).stderr_has("busy");
    first.signal("CONT");
    first.finish().success();
    env.run(["run", "--rm", "--network", "none", "a", "cat", "/done"]).success().prints("done");
    env.run(["system", "check"]).success();
}

/// Whether a step has made its file, in whatever directory it works.
fn begun(env: &Env) -> bool {
    let mut dirs = vec![(env.store().join("tmp"), 0)];
    while let Some((dir, depth)) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name() == "begun" {
                return true;
            }
            if depth < 5 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push((entry.path(), depth + 1));
            }
        }
    }
    false
}
