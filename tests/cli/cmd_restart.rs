//! `restart`, restart policies, `pause` and `unpause`

use std::time::Duration;

use crate::support::{Env, eventually, is_root, need, with_busybox};

const PATIENCE: Duration = Duration::from_secs(20);

fn state(env: &Env, name: &str) -> String {
    env.run(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", name])
        .success()
        .text()
        .into()
}

#[test]
fn a_policy_starts_a_program_again_until_it_has_had_enough() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let run = |flags: &[&str], command: &[&str]| {
        env.run(["run", "--network", "none"].iter().chain(flags).chain(&[image.as_str()]).chain(command))
    };
    // In the foreground too, and with the code of the last run.
    let script = "echo x >> /count; wc -l < /count; exit $(wc -l < /count)";
    let output = run(&["--name", "a", "--restart", "on-failure:2"], &["sh", "-c", script]).code(3);
    assert_eq!(output.stdout, "1\n2\n3\n");
    assert_eq!(state(&env, "a"), "exited 3 2");
    env.run([
        "inspect",
        "-f",
        "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}",
        "a",
    ])
    .success()
    .prints("on-failure:2");
    run(&["--name", "b", "--restart", "on-failure"], &["true"]).success();
    assert_eq!(state(&env, "b"), "exited 0 0");
    for bad in ["never", "on-failure:x", "on-failure:-1", "always:3"] {
        run(&["--rm", "--restart", bad], &["true"]).code(125).stderr_has("--restart");
    }
    run(&["--rm", "--restart", "always"], &["true"]).code(125).stderr_has("--rm");
}

#[test]
fn the_code_of_a_run_before_a_restart_is_not_waited_for() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let dir = env.work().join("shared");
    std::fs::create_dir(&dir).unwrap();
    let volume = format!("{}:/shared", dir.display());
    let script = "trap 'exit 143' TERM; until test -e /shared/go; do sleep 0.05; done; exit 1";
    let words = ["run", "-d", "--rm", "--name", "a", "--network", "none", "-v", &volume, &image];
    env.run(words.iter().chain(&["sh", "-c", script])).success();
    env.run(["restart", "a"]).success();
    let waiter = env.spawn(["wait", "a"]);
    std::thread::sleep(Duration::from_millis(300));
    std::fs::write(dir.join("go"), "").unwrap();
    waiter.finish().success().prints("1");
}

#[test]
fn who_stops_a_container_ends_its_restarts() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let start = |name: &str, script: &str| {
        let flags = ["run", "-d", "--restart", "unless-stopped", "--network", "none", "--name", name];
        env.run(flags.iter().chain(&[image.as_str(), "sh", "-c", script])).success();
    };
    start("fails", "exit 4");
    eventually("a pause", PATIENCE, || state(&env, "fails").starts_with("restarting 4").then_some(()));
    env.run(["ps", "--format", "{{.Status}}"]).success().stdout_has("Restarting (4)");
    env.run(["attach", "fails"]).code(1).stderr_has("restarting");
    env.run(["rm", "fails"]).code(1).stderr_has("running");
    env.run(["stop", "fails"]).success();
    assert!(state(&env, "fails").starts_with("exited 4"), "{}", state(&env, "fails"));
    env.run(["start", "fails"]).success();
    eventually("a pause", PATIENCE, || state(&env, "fails").starts_with("restarting").then_some(()));
    env.run(["rm", "-f", "fails"]).success();
    start("goes-on", "while :; do sleep 0.1; done");
    env.run(["kill", "goes-on"]).success();
    assert_eq!(state(&env, "goes-on"), "exited 137 0");
    env.run(["start", "goes-on"]).success();
    // Not a command of ours: the program is started again.
    let pid = env.run(["inspect", "-f", "{{.State.Pid}}", "goes-on"]).success().text().to_owned();
    if is_root() {
        crate::support::must(std::process::Command::new("kill").args(["-9", &pid]));
        eventually("a restart", PATIENCE, || {
            (state(&env, "goes-on") == "running 137 1" || state(&env, "goes-on") == "running 0 1")
                .then_some(())
        });
    }
    env.run(["rm", "-f", "goes-on"]).success();
    env.run(["ps", "-aq"]).success().prints("");
}

#[test]
fn restart_keeps_the_container_even_one_that_removes_itself() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let script = "echo run; trap 'exit 0' USR1; trap 'echo term' TERM; while :; do sleep 0.1; done";
    for flags in [&["--name", "kept"][..], &["--name", "once", "--rm"]] {
        let name = flags[1];
        let words = ["run", "-d", "--network", "none", "--stop-signal", "USR1"];
        env.run(words.iter().chain(flags).chain(&[image.as_str(), "sh", "-c", script])).success();
        eventually("the first run", PATIENCE, || (env.run(["logs", name]).stdout == "run\n").then_some(()));
        env.run(["restart", name]).success().prints(name);
        eventually("the second", PATIENCE, || (env.run(["logs", name]).stdout == "run\nrun\n").then_some(()));
        // It does not end by this one, so it is killed.
        env.run(["restart", "-t", "0", "-s", "TERM", name]).success().prints(name);
        eventually("the third", PATIENCE, || {
            env.run(["logs", name]).stdout.ends_with("run\nrun\n").then_some(())
        });
        env.run(["stop", name]).success();
    }
    env.run(["ps", "-a", "--format", "{{.Names}}"]).success().prints("kept");
    env.run(["restart", "kept"]).success().prints("kept");
    assert_eq!(state(&env, "kept"), "running 0 0");
    env.run(["rm", "-f", "kept"]).success();
    env.run(["restart", "kept"]).code(1).stderr_has("kept");
}

#[test]
fn a_paused_container_stands_still() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let script = "while :; do echo x; sleep 0.05; done";
    let id =
        env.run(["run", "-d", "--name", "web", "--network", "none", &image, "sh", "-c", script]).success();
    let id = id.text().to_owned();
    let paused = env.run(["pause", "web"]);
    if !is_root() && paused.code != 0 {
        // Without a freezer that this user may use.
        paused.code(1).stderr_has("freezer");
        env.run(["ps", "--format", "{{.State}}"]).success().prints("running");
        env.run(["unpause", "web"]).code(1).stderr_has("not paused");
        env.run(["rm", "-f", "web"]).success();
        return;
    }
    paused.success().prints("web");
    let lines = || env.run(["logs", "web"]).success().stdout.len();
    let before = lines();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(lines(), before);
    env.run(["ps", "--format", "{{.State}} {{.Status}}"])
        .success()
        .stdout_has("paused Up")
        .stdout_has("(Paused)");
    env.run(["inspect", "-f", "{{.State.Paused}} {{.State.Running}}", "web"]).success().prints("true true");
    env.run(["pause", "web"]).code(1).stderr_has("paused");
    env.run(["exec", "web", "true"]).code(125).stderr_has("paused");
    env.run(["attach", "web"]).code(1).stderr_has("unpause");
    env.run(["start", "web"]).code(1).stderr_has("paused");
    env.run(["unpause", "web"]).success().prints("web");
    eventually("more output", PATIENCE, || (lines() > before).then_some(()));
    // What stops it lets it go first.
    for end in [&["stop", "-t", "0"][..], &["kill"], &["rm", "-f"]] {
        env.run(["start", "web"]).success();
        env.run(["pause", "web"]).success();
        env.run(end.iter().chain(&["web"])).success();
    }
    env.run(["ps", "-aq"]).success().prints("");
    let mut find = std::process::Command::new("find");
    find.args(["/sys/fs/cgroup", "-name"]).arg(format!("strate-{id}"));
    assert_eq!(String::from_utf8_lossy(&crate::support::must(&mut find)), "");
}
