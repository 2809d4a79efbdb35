//! `run`, `create`, `start`, `exec`, `logs`, `ps`, `wait`, `stop`, `rm`

use std::time::Duration;

use crate::support::{eventually, need, with_busybox};

#[test]
fn exit_codes_are_dockers() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    for (command, code) in [
        (vec!["true"], 0),
        (vec!["false"], 1),
        (vec!["sh", "-c", "exit 42"], 42),
        (vec!["/etc/passwd"], 126),
        (vec!["/etc"], 126),
        (vec!["no-such-program"], 127),
    ] {
        env.run(["run", "--rm", "--network", "none", &image].iter().chain(&command)).code(code);
    }
    // The first process of a pid namespace takes no signal from inside: with --init the program is the second.
    for (signal, code) in [("9", 137), ("15", 143)] {
        let script = format!("kill -{signal} $$; sleep 5");
        env.run(["run", "--rm", "--init", "--network", "none", &image, "sh", "-c", &script]).code(code);
    }
    env.run(["run", "--rm", "--no-such-flag", &image, "true"]).code(125);
    env.run(["run", "--rm", "--pull", "never", "no-such-image", "true"])
        .code(125)
        .stderr_has("no-such-image");
    env.run(["ps", "-aq"]).success().prints("");
}

#[test]
fn flags_change_what_the_program_sees() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let run = |args: &[&str]| env.run(["run", "--rm", "--network", "none"].iter().chain(args));
    run(&["-e", "A=b c", "-e", "HOME", &image, "sh", "-c", "echo \"$A\""]).success().prints("b c");
    run(&["-w", "/data", &image, "pwd"]).success().prints("/data");
    run(&["-w", "/made/here", &image, "pwd"]).success().prints("/made/here");
    run(&["-u", "user", &image, "id"]).success().stdout_has("uid=1000(user) gid=1000(user)");
    run(&["-u", "12:34", &image, "id", "-u"]).success().prints("12");
    run(&["--hostname", "here", &image, "hostname"]).success().prints("here");
    run(&["--entrypoint", "echo", &image, "a", "b"]).success().prints("a b");
    run(&["--read-only", &image, "touch", "/x"]).code(1).stderr_has("Read-only");
    run(&["--tmpfs", "/t", &image, "sh", "-c", "touch /t/x && stat -f -c %T /t"]).success().prints("tmpfs");
    run(&["--cap-drop", "ALL", &image, "sh", "-c", "grep CapEff /proc/self/status"])
        .success()
        .stdout_has("0000000000000000");
    run(&["--umask", "0077", &image, "sh", "-c", "umask"]).success().prints("0077");
    run(&["--umask", "999", &image, "true"]).code(125).stderr_has("octal");
    run(&["--env-host", "--unsetenv-all", &image, "sh", "-c", "echo $LANG $HOSTNAME | cut -d' ' -f1"])
        .success()
        .prints("C.UTF-8");
    run(&["--security-opt", "mask=/data:/etc/passwd", &image, "sh", "-c", "ls /data; cat /etc/passwd"])
        .success()
        .prints("");
    let touch = "touch -c /proc/sys/kernel/printk 2>/dev/null; grep -c ' /proc/sys ' /proc/self/mountinfo";
    run(&["--security-opt", "unmask=/proc/sys", &image, "sh", "-c", touch]).code(1).prints("0");
    run(&[&image, "sh", "-c", touch]).success().prints("1");
    run(&[&image, "ls", "/proc/self/fd"]).success().prints("0\n1\n2\n3"); // 3 is ls reading the directory
}

#[test]
fn a_volume_is_the_hosts_directory() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    env.write("shared/in", "from the host\n");
    let mount = format!("{}:/mnt", env.work().join("shared").display());
    let script = "cat /mnt/in && echo 'from the container' > /mnt/out";
    env.run(["run", "--rm", "--network", "none", "-v", &mount, &image, "sh", "-c", script])
        .success()
        .prints("from the host");
    assert_eq!(std::fs::read_to_string(env.work().join("shared/out")).unwrap(), "from the container\n");
    // The host's root is the host's, though the container's lies over it meanwhile.
    let marker = env.write("shared/marker", "here").display().to_string();
    for flag in ["-v=/:/host", "--mount=type=bind,src=/,dst=/host,bind-recursive=disabled"] {
        let inside = format!("/host{marker}");
        // An ordinary user may not look below the mounts of others.
        if crate::support::is_root() || flag.starts_with("-v") {
            env.run(["run", "--rm", "--network", "none", flag, &image, "cat", &inside])
                .success()
                .prints("here");
        }
    }
    let read_only = format!("{mount}:ro");
    env.run(["run", "--rm", "--network", "none", "-v", &read_only, &image, "touch", "/mnt/x"]).code(1);
}

#[test]
fn standard_input_arrives_with_i() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let input = "a line\n".repeat(50_000);
    let output =
        env.run_with_input(["run", "--rm", "-i", "--network", "none", &image, "cat"], &input).success();
    assert_eq!(output.stdout.len(), input.len());
}

#[test]
fn a_terminal_is_a_real_one() {
    need!("docker-registry", "skopeo", "busybox", "setsid");
    let (env, image) = with_busybox();
    let mut pty = env.pty(["run", "-it", "--rm", "--network", "none", &image, "sh"]);
    pty.expect("# ").send("stty size\n").expect("40 120").expect("# ");
    pty.resize(30, 100).send("sleep 0.3; stty size\n").expect("30 100").expect("# ");
    pty.send("echo go''ing; sleep 100\n").expect("going\r\n");
    std::thread::sleep(Duration::from_millis(300)); // the shell has left its line editor, which reads Ctrl-C itself
    pty.send("\x03").expect("# ");
    pty.send("test -t 0 && test -t 1 && test -t 2 && echo all-tty\n").expect("all-tty\r\n").expect("# ");
    pty.send("exit 7\n");
    assert_eq!(pty.wait(), 7, "{}", pty.text());
}

#[test]
fn a_detached_container_lives_on() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let script = "echo started; trap 'echo stopping; exit 3' TERM; while :; do sleep 0.1; done";
    let id =
        env.run(["run", "-d", "--name", "web", "--network", "none", &image, "sh", "-c", script]).success();
    assert_eq!(id.text().len(), 64, "{id}");
    eventually("the first line", Duration::from_secs(20), || {
        (env.run(["logs", "web"]).success().stdout == "started\n").then_some(())
    });
    env.run(["ps", "--format", "{{.Names}} {{.State}}"]).success().prints("web running");
    env.run(["inspect", "-f", "{{.State.Running}}", "web"]).success().prints("true");
    env.run(["exec", "web", "sh", "-c", "echo inside; exit 5"]).code(5).prints("inside");
    env.run(["exec", "web", "no-such-program"]).code(127);
    env.run(["rm", "web"]).code(1).stderr_has("web");
    env.run(["stop", "web"]).success().prints("web");
    env.run(["wait", "web"]).success().prints("3");
    env.run(["logs", "web"]).success().prints("started\nstopping");
    env.run(["ps", "-a", "--filter", "status=exited", "--format", "{{.Names}}"]).success().prints("web");
    env.run(["exec", "web", "true"]).code(125);
    env.run(["rm", "web"]).success().prints("web");
    env.run(["ps", "-aq"]).success().prints("");
}

#[test]
fn a_container_keeps_its_changes_between_starts() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let script = "echo x >> /count; wc -l < /count";
    env.run(["create", "--name", "counter", "--network", "none", &image, "sh", "-c", script]).success();
    env.run(["start", "-a", "counter"]).success().prints("1");
    env.run(["start", "-ai", "counter"]).success().prints("2");
    env.run(["rm", "-f", "counter"]).success();
    env.run(["rm", "counter"]).code(1);
    env.run(["rm", "-f", "counter"]).success();
}

#[test]
fn start_attached_to_a_running_container_shows_it() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let script = "echo early; while [ ! -e /go ]; do sleep 0.1; done; echo late; exit 7";
    env.run(["run", "-d", "--name", "web", "--network", "none", &image, "sh", "-c", script]).success();
    eventually("the first line", Duration::from_secs(20), || {
        (env.run(["logs", "web"]).success().stdout == "early\n").then_some(())
    });
    let attached = env.spawn(["start", "-a", "web"]);
    std::thread::sleep(Duration::from_secs(1));
    env.run(["exec", "web", "touch", "/go"]).success();
    attached.finish().code(7).prints("late").stderr_has("runs already");
    env.run(["start", "web"]).success().prints("web");
}

#[test]
fn a_missing_directory_is_made_for_v_and_refused_for_mount() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let host = env.work().join("made/here");
    let mount = format!("type=bind,src={},dst=/mnt", host.display());
    env.run(["run", "--rm", "--network", "none", "--mount", &mount, &image, "true"])
        .code(125)
        .stderr_has("mkdir -p");
    let volume = format!("{}:/mnt", host.display());
    env.run(["run", "--rm", "--network", "none", "-v", &volume, &image, "touch", "/mnt/x"]).success();
    assert!(host.join("x").exists());
}

#[test]
fn templates_and_listings_word_things_as_docker_does() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    env.run(["create", "--name", "c", "--network", "none", &image, "sh", "-c", "echo a"]).success();
    env.run(["inspect", "-f", "{{.Config.Entrypoint}} {{.HostConfig.Binds}}", "c"]).success().prints("[] []");
    env.run(["inspect", "-f", "{{json .Config.Entrypoint}}", "c"]).success().prints("null");
    env.run(["ps", "-a", "--no-trunc", "--format", "{{.Command}}"]).success().prints("\"sh -c 'echo a'\"");
    env.run(["kill", "c"]).code(1).stderr_has("strate start c");
}
