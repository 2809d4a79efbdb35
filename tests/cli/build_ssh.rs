//! Agents in builds: `--ssh` and `RUN --mount=type=ssh`.

use std::path::Path;
use std::process::Command;

use crate::support::{Env, need, shared_registry};

fn with_busybox() -> (Env, String) {
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    env.run(["pull", "-q", &image]).success();
    (env, image)
}

fn make_key(path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "the-key-s-name", "-f"])
        .arg(path)
        .status();
    assert!(made.unwrap().success());
}

#[test]
fn a_step_asks_an_agent_that_holds_the_key_and_nothing_of_it_stays() {
    need!("docker-registry", "skopeo", "busybox", "ssh-agent", "ssh-keygen");
    let (env, image) = with_busybox();
    make_key(&env.work().join("key"));
    let run = std::fs::create_dir(env.work().join("run")).map(|()| env.work().join("run")).unwrap();
    let env = env.with("XDG_RUNTIME_DIR", &run);
    env.write(
        "Dockerfile",
        format!(
            "FROM {image}\n\
             RUN --mount=type=ssh,id=k,required,mode=640,uid=3,gid=4 \
             [ -S \"$SSH_AUTH_SOCK\" ] && stat -c '%n %a %u %g' \"$SSH_AUTH_SOCK\" > /said\n\
             RUN --mount=type=ssh,id=none --mount=type=ssh,id=k,target=/s/a \
             [ -S /s/a ] && echo \"$SSH_AUTH_SOCK\" >> /said\n\
             RUN [ ! -e /s ] && [ ! -e /run/buildkit ] && [ -z \"$SSH_AUTH_SOCK\" ]\n"
        ),
    );
    env.run(["build", "--ssh", "k=key", "-t", "x", "-o", "type=local,dest=out", "."]).success();
    let said = std::fs::read_to_string(env.work().join("out/said")).unwrap();
    assert_eq!(said, "/run/buildkit/ssh_agent.0 640 3 4\n/run/buildkit/ssh_agent.0\n");
    assert_eq!(std::fs::read_dir(&run).unwrap().count(), 0, "the agent's directory is gone");
    // Whose agent it is, and whether there is one, is no part of the key.
    let again = env.run(["build", "--progress", "plain", "."]).success();
    assert_eq!(again.cached_steps(), 3, "{again}");
}

#[test]
fn agents_that_are_not_there_are_named() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    env.write("Dockerfile", format!("FROM {image}\nRUN --mount=type=ssh,id=x,required true\n"));
    env.run(["build", "."]).code(1).stderr_has("no SSH key \"x\" forwarded from the client");
    env.run(["build", "--ssh", "x", "."]).code(1).stderr_has("invalid empty ssh agent socket");
    env.run(["build", "--ssh", "x=no-such-key", "."]).code(1).stderr_has("no-such-key");
    env.run(["build", "--ssh", "x=", "."]).code(1).stderr_has("a path is empty");
    let bin = env.write("bin/none", "").parent().unwrap().to_owned();
    for helper in ["newuidmap", "newgidmap"] {
        std::os::unix::fs::symlink(Path::new("/usr/bin").join(helper), bin.join(helper)).unwrap();
    }
    let nowhere = env.with("PATH", bin);
    nowhere.write("key", "x");
    nowhere.run(["build", "--ssh", "x=key", "."]).code(1).stderr_has("openssh-client");
}
