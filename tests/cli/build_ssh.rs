//! Agents in builds: `--ssh` and `RUN --mount=type=ssh`.

use std::path::Path;
use std::process::Command;

use crate::support::{Env, need, with_busybox};

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

/// `ssh-add` of this machine with what it loads, as files of a context.
fn ssh_add(env: &Env) {
    let program = crate::support::program("ssh-add").unwrap();
    let listed = Command::new("ldd").arg(&program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for path in libraries.chain([program.as_path()]) {
        let content = std::fs::read(path).unwrap();
        let to = env.write(&format!("root{}", path.display()), content);
        std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_step_talks_to_the_agent_of_the_user() {
    need!("docker-registry", "skopeo", "busybox", "ssh-agent", "ssh-add", "ssh-keygen", "ldd");
    let (env, image) = with_busybox();
    make_key(&env.work().join("key"));
    ssh_add(&env);
    let socket = env.work().join("agent");
    let mut agent = env
        .program("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    crate::support::eventually("the agent", std::time::Duration::from_secs(5), || {
        socket.exists().then_some(())
    });
    let env = env.with("SSH_AUTH_SOCK", &socket);
    crate::support::must(env.program("ssh-add").args(["-q", "key"]));
    env.write(
        "Dockerfile",
        format!(
            "FROM {image}\nCOPY root /\nUSER 1000\n\
             RUN --mount=type=ssh,uid=1000 ssh-add -l > /tmp/keys; ssh-add -D 2>> /tmp/keys; ssh-add -l | wc -l >> /tmp/keys\n"
        ),
    );
    let built = env.run(["build", "--ssh", "default", "-o", "out", "."]);
    let said = std::fs::read_to_string(env.work().join("out/tmp/keys")).unwrap_or_default();
    agent.kill().unwrap();
    agent.wait().unwrap();
    built.success();
    assert!(said.contains("the-key-s-name (ED25519)"), "{said}");
    // It may use the keys and not take them away.
    assert!(said.trim_end().ends_with('1'), "{said}");
}
