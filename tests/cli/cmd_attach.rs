//! `attach`, detach keys, `--attach`, and the monitor behind them

use std::time::Duration;

use crate::support::{Env, eventually, need, with_busybox};

const PATIENCE: Duration = Duration::from_secs(20);

fn detached(env: &Env, name: &str, image: &str, flags: &[&str], script: &str) {
    let words = ["run", "-d", "--name", name, "--network", "none"];
    env.run(words.iter().chain(flags).chain(&[image, "sh", "-c", script])).success();
}

#[test]
fn the_keys_leave_a_terminal_and_attach_comes_back() {
    need!("docker-registry", "skopeo", "busybox", "setsid");
    let (env, image) = with_busybox();
    let mut pty = env.pty(["run", "-it", "--name", "web", "--network", "none", &image, "sh"]);
    pty.expect("# ").send("X=kept; echo se''t\n").expect("set\r\n").send("\x10\x11");
    pty.expect("left container web running");
    assert_eq!(pty.wait(), 0, "{}", pty.text());
    env.run(["ps", "--format", "{{.Names}}"]).success().prints("web");
    let mut pty = env.pty(["attach", "--detach-keys", "ctrl-a,d", "web"]);
    // Its prompt shows that the terminal is ours to set: before that, Ctrl-C would end the client.
    pty.send("\n").expect("# ");
    // Ctrl-P is a key like others now: the shell looks for its last line.
    pty.send("\x10\x11\x03").send("echo \"v=$X\"; stty size\n").expect("v=kept").expect("40 120");
    pty.resize(33, 99).send("sleep 0.3; stty size\n").expect("33 99").send("\x01d");
    assert_eq!(pty.wait(), 0, "{}", pty.text());
    let mut pty = env.pty(["attach", "web"]);
    pty.send("exit 9\n");
    assert_eq!(pty.wait(), 9, "{}", pty.text());
    env.run(["attach", "web"]).code(1).stderr_has("stopped");
    env.run(["inspect", "-f", "{{.State.ExitCode}}", "web"]).success().prints("9");
}

#[test]
fn the_terminal_is_as_before_however_a_session_ends() {
    need!("docker-registry", "skopeo", "busybox", "setsid");
    let (env, image) = with_busybox();
    let strate = crate::support::strate().display().to_string();
    let script = format!(
        "stty -a > before; {strate} run -it --rm --name a --network none {image} sh; stty -a > after-exit; \
         {strate} run -it --name b --network none {image} sh; stty -a > after-keys; \
         {strate} attach b; stty -a > after-kill; echo all''done"
    );
    let mut command = env.program("setsid");
    command.args(["--ctty", "sh", "-c", &script]);
    let mut pty = crate::support::Pty::start(command);
    pty.expect("# ").send("exit\n");
    pty.expect("# ").send("\x10\x11").expect("left");
    // Its prompt does not come again, but a second line shows that we are attached.
    pty.send("\n").expect("# ");
    env.run(["kill", "b"]).success();
    pty.expect("alldone");
    let read = |name: &str| std::fs::read_to_string(env.work().join(name)).unwrap();
    for name in ["after-exit", "after-keys", "after-kill"] {
        assert_eq!(read(name), read("before"), "{name}");
    }
}

/// Writes so many pieces of 64 KiB once `/go` is there, then waits for `/end`.
fn writer(pieces: u32) -> String {
    format!(
        "while [ ! -e /go ]; do sleep 0.05; done; i=0; while [ $i -lt {pieces} ]; do head -c 65536 /dev/zero; \
         i=$((i+1)); done; echo last >&2; touch /written; while [ ! -e /end ]; do sleep 0.05; done; exit 5"
    )
}

fn written(env: &Env) {
    env.run(["exec", "web", "touch", "/go"]).success();
    let is_written = || (env.run(["exec", "web", "test", "-e", "/written"]).code == 0).then_some(());
    eventually("the output", PATIENCE, is_written);
    env.run(["exec", "web", "touch", "/end"]).success();
}

#[test]
fn several_clients_see_the_output() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    detached(&env, "web", &image, &["--log-driver", "none"], &writer(40));
    let client = || {
        let client = env.spawn(["attach", "--no-stdin", "web"]);
        std::thread::spawn(move || client.finish())
    };
    let readers = [client(), client()];
    std::thread::sleep(Duration::from_millis(500));
    written(&env);
    for reader in readers {
        let output = reader.join().unwrap();
        let (out, err) = (output.stdout.len(), output.stderr.as_str());
        assert_eq!((output.code, out, err), (5, 40 * 65536, "last\n"));
    }
}

#[test]
fn a_client_that_sleeps_holds_nobody_up() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    detached(&env, "web", &image, &["--log-driver", "none"], &writer(100));
    // Nobody reads what it is told.
    let mut sleeper = env.command(["attach", "web"]);
    let sleeper = sleeper.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let sleeper = sleeper.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    written(&env);
    env.run(["wait", "web"]).success().prints("5");
    let output = sleeper.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("more slowly") && output.status.code() == Some(1), "{words}");
}

#[test]
fn input_and_signals_reach_a_detached_program() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    detached(&env, "cat", &image, &["-i"], "cat");
    let attached = |text: &[u8]| {
        use std::io::{Read, Write};
        let mut client = env.command(["attach", "cat"]);
        let client = client.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut client = client.spawn().unwrap();
        client.stdin.take().unwrap().write_all(text).unwrap();
        let mut line = vec![0; text.len()];
        client.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(line, text);
        client
    };
    // The first client's end of input is not the program's: it was started in the background.
    let mut first = attached(b"one\n");
    let mut client = attached(b"two\n");
    env.run(["kill", "cat"]).success();
    assert_eq!(client.wait().unwrap().code(), Some(137));
    assert_eq!(first.wait().unwrap().code(), Some(137));
    let script = "trap 'echo got it; exit 6' USR1; echo up; while :; do sleep 0.05; done";
    detached(&env, "web", &image, &[], script);
    eventually("the trap", PATIENCE, || (env.run(["logs", "web"]).stdout == "up\n").then_some(()));
    let client = env.spawn(["attach", "web"]);
    std::thread::sleep(Duration::from_millis(500));
    client.signal("USR1");
    client.finish().code(6).prints("got it");
}

#[test]
fn only_the_named_streams_are_attached() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let run = |flags: &[&str]| {
        let command = [image.as_str(), "sh", "-c", "cat; echo out; echo err >&2"];
        env.run_with_input(["run", "--rm", "--network", "none"].iter().chain(flags).chain(&command), "in\n")
    };
    let output = run(&["-a", "stdout"]).success();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", ""));
    let output = run(&["-i", "-a", "STDIN", "-a", "stderr"]).success();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", "err\n"));
    run(&["-a", "odd"]).code(125).stderr_has("stdin, stdout and stderr");
    run(&["-d", "-a", "stdout"]).code(125).stderr_has("--attach");
    run(&["--detach-keys", "ctrl-1"]).code(125).stderr_has("--detach-keys");
}

#[test]
fn an_exec_on_a_terminal_is_left_or_ends_with_its_client() {
    need!("docker-registry", "skopeo", "busybox", "setsid");
    let (env, image) = with_busybox();
    detached(&env, "web", &image, &[], "while :; do sleep 1; done");
    let processes = || env.run(["exec", "web", "sh", "-c", "ps -o args | grep -c '[s]leep 77'"]).stdout;
    let mut pty = env.pty(["exec", "-it", "web", "sh", "-c", "stty size; exec sleep 77"]);
    pty.expect("40 120").send("\x10\x11").expect("left the program running");
    assert_eq!(pty.wait(), 0);
    assert_eq!(processes(), "1\n");
    env.run(["rm", "-f", "web"]).success();
    detached(&env, "web", &image, &[], "while :; do sleep 1; done");
    let mut pty = env.pty(["exec", "-it", "web", "sh", "-c", "stty size; exec sleep 77"]);
    pty.expect("40 120");
    drop(pty); // killed
    eventually("the end of the program", PATIENCE, || (processes() == "0\n").then_some(()));
    env.run(["rm", "-f", "web"]).success();
}

#[test]
fn a_killed_monitor_takes_its_container_along_and_leaves_nothing() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    detached(&env, "web", &image, &[], "sleep 100");
    let attached = env.spawn(["attach", "web"]);
    let dir = std::fs::read_dir(env.store().join("containers")).unwrap().flatten();
    let dir = dir.map(|entry| entry.path()).find(|path| path.join("state.json").exists()).unwrap();
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("state.json")).unwrap()).unwrap();
    let (monitor, program) = (&state["watcher"][0], &state["pid"]);
    assert!(dir.join("attach").exists());
    std::thread::sleep(Duration::from_millis(200));
    crate::support::must(std::process::Command::new("kill").args(["-9", &monitor.to_string()]));
    let gone = |pid: &serde_json::Value| !std::path::Path::new(&format!("/proc/{pid}")).exists();
    eventually("the end of both", PATIENCE, || (gone(monitor) && gone(program)).then_some(()));
    assert_ne!(attached.finish().code, 0);
    env.run(["ps", "-a", "--format", "{{.State}}"]).success().prints("exited");
    env.run(["attach", "web"]).code(1).stderr_has("stopped");
    env.run(["start", "web"]).success();
    env.run(["stop", "-t", "0", "web"]).success();
    assert!(!dir.join("attach").exists());
    env.run(["rm", "web"]).success();
}

#[test]
fn a_hundred_execs_at_once() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    detached(&env, "web", &image, &[], "while :; do sleep 1; done");
    let execs: Vec<_> = (0..100)
        .map(|number| (number, env.spawn(["exec", "web", "sh", "-c", &format!("exit {number}")])))
        .collect();
    for (number, exec) in execs {
        exec.finish().code(number);
    }
    env.run(["rm", "-f", "web"]).success();
}
