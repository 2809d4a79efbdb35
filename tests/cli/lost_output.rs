//! A standard output that takes nothing and a terminal that goes away: what is lost is told, and nothing else is.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::{Env, Fake, FakeLayer, Fault, Output, eventually, fake, need, shared_registry};

/// Everything that prints data.
const PRINT: &[&str] = &[
    "images",
    "images -q",
    "images --format json",
    "images --format {{.ID}}",
    "ps -a",
    "ps -aq",
    "ps -a --format json",
    "inspect base:1",
    "inspect -f {{.Id}} base:1",
    "image inspect base:1",
    "container inspect box",
    "history base:1",
    "volume ls",
    "volume inspect data",
    "system df",
    "system df -v",
    "system check",
    "system prune -f --dry-run",
    "image prune -f",
    "container prune -f --dry-run",
    "volume prune -f --dry-run",
    "builder prune -f",
    "builder du",
    "info",
    "version",
    "--version",
    "--help",
    "help build",
    "completion bash",
    "save base:1",
    "save --format oci-archive base:1",
    "export box",
    "volume export data",
    "build -q one",
    "build -o - one",
    "build -o type=oci,dest=- one",
    "create base:1",
    "commit box new:1",
    "wait box",
];

fn prepared() -> Env {
    let env = Env::new();
    env.write("one/Dockerfile", "FROM scratch\nCOPY f /f\nCMD [\"/f\"]\n");
    env.write("one/f", "hello\n");
    env.run(["build", "-q", "-t", "base:1", "one"]).success();
    env.run(["create", "--name", "box", "--network", "none", "base:1"]).success();
    env.run(["volume", "create", "data"]).success();
    env
}

fn expect_told(line: &str, output: &Output, why: &str) {
    assert_ne!(output.code, 0, "{line}: {output}");
    let errors = output.stderr.lines().filter(|line| line.starts_with("error:")).count();
    assert_eq!(errors, 1, "{line}: {output}");
    assert!(output.stderr.contains(why), "{line} does not say {why:?}: {output}");
    assert!(output.stderr.contains("standard output"), "{line}: {output}");
    // Room in the store helps nobody here.
    assert!(!output.stderr.contains("hint:"), "{line}: {output}");
}

/// What stdout is, and why it takes nothing. The standard library takes the second and the third for a good one.
const TAKES_NOTHING: [(&str, &str); 3] = [
    ("exec \"$@\" >/dev/full", "No space left on device"),
    ("exec \"$@\" >&-", "Bad file descriptor"),
    ("exec \"$@\" 1</dev/null", "Bad file descriptor"),
];

#[test]
fn a_standard_output_that_takes_nothing_is_told() {
    let env = prepared();
    for (number, line) in PRINT.iter().enumerate() {
        for (how, why) in [TAKES_NOTHING[0], TAKES_NOTHING[1 + number % 2]] {
            let mut shell = env.program("sh");
            shell.args(["-c", how, "sh"]).arg(crate::support::strate()).args(line.split(' '));
            expect_told(line, &Output::of(&mut shell), why);
        }
    }
}

/// Run a command on a terminal until it says something, take the terminal away, and wait for its end.
fn hang_up(env: &Env, args: &[&str], until: &str) {
    let mut terminal: File =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap().into();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let slave =
        || Stdio::from(rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap());
    // Under nohup nothing would end with its terminal.
    let mut command: Command = env.program("env");
    command
        .args(["--default-signal=HUP", "setsid", "--ctty", "--wait"])
        .arg(crate::support::strate())
        .args(args);
    let mut child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
    drop(command);
    let (mut screen, start) = (String::new(), Instant::now());
    while !screen.contains(until) {
        assert!(start.elapsed() < Duration::from_secs(60), "no {until:?} in {screen:?}");
        let mut buffer = [0; 4096];
        let count = terminal.read(&mut buffer).unwrap_or_else(|error| panic!("{error} after {screen:?}"));
        screen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    drop(terminal);
    let status = eventually("the end of the command", Duration::from_secs(20), || child.try_wait().unwrap());
    assert!(!status.success(), "{status:?}");
    let home = env.home().display().to_string();
    eventually("the end of its children", Duration::from_secs(20), || (!anybody_has(&home)).then_some(()));
}

/// Whether a process has this in its environment.
fn anybody_has(home: &str) -> bool {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.map(|entry| std::fs::read(entry.path().join("environ")).unwrap_or_default())
        .any(|environ| String::from_utf8_lossy(&environ).contains(home))
}

#[test]
fn a_pull_ends_with_its_terminal_and_goes_on_from_there() {
    let mut image = Fake::default();
    image.image("latest", &[FakeLayer::gzip(&[("noise", &fake::noise(1, 3 << 20))])]);
    let registry = image.serve_with(|seen| {
        if seen.is_blob() { Fault::Slow(16 << 10, Duration::from_millis(50)) } else { Fault::Pass }
    });
    let env = Env::new();
    hang_up(&env, &["pull", &registry.image("big")], "Downloading");
    env.run(["system", "check"]).success();
    assert_eq!(env.run(["images", "-aq"]).success().text(), "");
    env.check_store().sound();
}

#[test]
fn a_build_ends_with_its_terminal() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let base = shared_registry().image("busybox:latest");
    env.write("Dockerfile", format!("FROM {base}\nRUN echo begun-$((40+2)) && sleep 600\n"));
    hang_up(&env, &["build", "--network", "none", "-t", "x:1", "."], "begun-42");
    env.run(["system", "check"]).success();
    let list = env.run(["images", "--format", "{{.Repository}}"]).success();
    assert!(!list.stdout.contains("x:1"), "{list}");
}
