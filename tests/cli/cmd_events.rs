//! `events`, `top`, health checks

use std::time::Duration;

use crate::support::{Env, eventually, need, with_busybox};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn what_happened_is_told_in_order_and_filtered() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    env.run([
        "run",
        "--name",
        "web",
        "--label",
        "tier=front",
        "--network",
        "none",
        &image,
        "sh",
        "-c",
        "exit 3",
    ])
    .code(3);
    env.run(["rename", "web", "db"]).success();
    env.run(["tag", &image, "other:1"]).success();
    env.run(["rm", "db"]).success();
    let actions = |filters: &[&str]| {
        let words = ["events", "--stream=false", "--format", "{{.Type}}:{{.Action}}"];
        env.run(words.iter().chain(filters)).success().text().replace('\n', " ")
    };
    assert_eq!(
        actions(&[]),
        "image:pull container:create container:start container:die container:rename image:tag container:destroy"
    );
    assert_eq!(actions(&["-f", "container=db"]), "container:rename container:destroy");
    assert_eq!(
        actions(&["-f", "event=die", "-f", "event=start", "-f", "label=tier=front"]),
        "container:start container:die"
    );
    assert_eq!(actions(&["-f", "type=image", "--until", "1h"]), "");
    let line = env.run(["events", "--stream=false", "-f", "event=die"]).success();
    assert!(
        line.text().contains(" container die ")
            && line.text().contains("exitCode=3")
            && line.text().contains("name=web")
    );
    let value = env.run(["events", "--stream=false", "-f", "event=die", "--format", "json"]).success().json();
    assert_eq!(value["Actor"]["Attributes"]["exitCode"], "3");
    assert_eq!((&value["status"], &value["scope"]), (&"die".into(), &"local".into()));
    env.run(["events", "-f", "odd=1"]).code(1).stderr_has("invalid filter");
    env.run(["events", "--since", "yesterday"]).code(1).stderr_has("--since");
}

#[test]
fn events_go_on_until_the_time_is_over() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let until =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap() + Duration::from_secs(3);
    let watcher = env.spawn(["events", "--until", &until.as_secs().to_string(), "--format", "{{.Action}}"]);
    env.run(["create", "--name", "late", "--network", "none", &image, "true"]).success();
    let seen = watcher.finish().success();
    assert!(seen.text().ends_with("create"), "{seen}");
}

#[test]
fn top_shows_the_processes_of_one_container() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let script = "sleep 101 & sleep 102; true";
    env.run(["run", "-d", "--name", "web", "--network", "none", &image, "sh", "-c", script]).success();
    env.run(["run", "-d", "--name", "other", "--network", "none", &image, "sleep", "103"]).success();
    eventually("three processes", PATIENCE, || {
        (env.run(["top", "web"]).success().text().lines().count() == 4).then_some(())
    });
    let usual = env.run(["top", "web"]).success();
    assert!(usual.text().starts_with("UID "), "{usual}");
    for part in ["PPID", "STIME", "sleep 101", "sleep 102"] {
        assert!(usual.text().contains(part), "{part}: {usual}");
    }
    assert!(!usual.text().contains("103"));
    let own = env.run(["top", "web", "pid", "user,comm", "args"]).success();
    let first: Vec<&str> = own.text().lines().nth(1).unwrap().split_whitespace().take(3).collect();
    assert_eq!(first, ["1", "0", "sh"], "{own}");
    if crate::support::program("ps").is_some() {
        let host = env.run(["top", "web", "-o", "pid,comm"]).success();
        assert_eq!(host.text().lines().count(), 4, "{host}");
        env.run(["top", "web", "-o", "comm"]).code(1).stderr_has("PID");
    }
    env.run(["rm", "-f", "web", "other"]).success();
    env.run(["top", "web"]).code(1);
}

fn health(env: &Env, name: &str) -> String {
    env.run(["inspect", "-f", "{{.State.Health.Status}}", name]).success().text().to_owned()
}

#[test]
fn a_health_check_says_how_a_container_is() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let flags =
        ["--health-cmd", "echo looked; test -e /well", "--health-interval", "100ms", "--health-retries", "2"];
    let words = ["run", "-d", "--name", "web", "--network", "none"];
    let rest = [image.as_str(), "sh", "-c", "while :; do sleep 1; done"];
    env.run(words.iter().chain(&flags).chain(&rest)).success();
    assert!(["starting", "unhealthy"].contains(&health(&env, "web").as_str()));
    eventually("two failures", PATIENCE, || (health(&env, "web") == "unhealthy").then_some(()));
    env.run(["healthcheck", "run", "web"]).code(1).prints("unhealthy").stderr_has("looked");
    let waiter = env.spawn(["wait", "--condition", "healthy", "web"]);
    env.run(["exec", "web", "touch", "/well"]).success();
    waiter.finish().success();
    env.run(["ps", "--format", "{{.Status}}", "--filter", "health=healthy"])
        .success()
        .stdout_has("(healthy)");
    env.run(["ps", "-q", "--filter", "health=unhealthy"]).success().prints("");
    env.run(["healthcheck", "run", "web"]).success().prints("");
    let log = env.run(["inspect", "-f", "{{json .State.Health}}", "web"]).success().json();
    assert_eq!((&log["FailingStreak"], &log["Log"][0]["Output"]), (&0.into(), &"looked\n".into()), "{log}");
    assert!(log["Log"].as_array().unwrap().len() <= 5);
    env.run(["events", "--stream=false", "--format", "{{.Action}}", "-f", "event=health_status"])
        .success()
        .stdout_has("health_status: healthy");
    env.run(["stop", "-t", "0", "web"]).success();
    assert_eq!(health(&env, "web"), "unhealthy");
    env.run(["healthcheck", "run", "web"]).code(125).stderr_has("not running");
}

#[test]
fn a_check_that_hangs_is_ended_and_one_can_be_switched_off() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let run = |name: &str, flags: &[&str]| {
        let words = ["run", "-d", "--name", name, "--network", "none"];
        let rest = [image.as_str(), "sh", "-c", "while :; do sleep 1; done"];
        env.run(words.iter().chain(flags).chain(&rest))
    };
    let flags =
        ["--health-cmd", "[\"sleep\", \"50\"]", "--health-interval", "50ms", "--health-timeout", "100ms"];
    run("slow", &[&flags[..], &["--health-retries", "1"]].concat()).success();
    eventually("a failure", PATIENCE, || (health(&env, "slow") == "unhealthy").then_some(()));
    let log = env.run(["inspect", "-f", "{{json .State.Health.Log}}", "slow"]).success().json();
    assert_eq!(
        (&log[0]["ExitCode"], log[0]["Output"].as_str()),
        (&(-1).into(), Some("Health check exceeded timeout (0.1s)"))
    );
    run("off", &["--no-healthcheck"]).success();
    env.run(["inspect", "-f", "{{if .State.Health}}checked{{else}}free{{end}}", "off"])
        .success()
        .prints("free");
    env.run(["healthcheck", "run", "off"]).code(125).stderr_has("no health check");
    for bad in [
        &["--no-healthcheck", "--health-cmd", "x"][..],
        &["--health-interval", "5"],
        &["--health-timeout", "1us"],
        &["--health-retries", "-1"],
    ] {
        run("bad", bad).code(125);
    }
    env.run(["rm", "-f", "slow", "off"]).success();
}
