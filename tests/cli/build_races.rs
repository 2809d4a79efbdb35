//! D3 and D12: a context that changes under a build, and what a build leaves where others can see it.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::{need, with_busybox};

#[test]
fn d3_a_context_that_is_swapped_for_a_link_shows_nothing_from_outside() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    env.write("outside/file", "secret of the host");
    env.write("ctx/sub/file", "ours");
    env.write(
        "ctx/Dockerfile",
        format!(
            "FROM {image}\nCOPY sub/ /copied\nADD sub /added\n\
             RUN --mount=type=bind,source=sub,target=/bound cp -r /bound /seen\n"
        ),
    );
    let (sub, link) = (env.work().join("ctx/sub"), env.work().join("link"));
    symlink(env.work().join("outside"), &link).unwrap();
    let over = AtomicBool::new(false);
    let mut good = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                renameat_with(CWD, &sub, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let began = Instant::now();
        let mut builds = 0;
        while began.elapsed() < Duration::from_secs(2) || builds < 3 {
            let out = format!("out-{builds}");
            let built = env.run(["build", "--no-cache", "-q", "-o", &out, "ctx"]);
            assert!((0..=1).contains(&built.code) && !built.stderr.contains("panic"), "{built}");
            good += i32::from(built.code == 0);
            builds += 1;
        }
        over.store(true, Ordering::Relaxed);
    });
    let found =
        std::process::Command::new("grep").args(["-rl", "secret of the host"]).arg(env.work()).output();
    let found = String::from_utf8(found.unwrap().stdout).unwrap();
    let outside: Vec<&str> = found.lines().filter(|path| !path.ends_with("work/outside/file")).collect();
    assert_eq!(outside, [""; 0], "{good} builds went well");
    assert_eq!(std::fs::read_dir(env.work().join("outside")).unwrap().count(), 1);
}

/// Files and directories below, with their modes; those that go away meanwhile are left out.
fn walk(dir: &Path, found: &mut Vec<(std::path::PathBuf, u32)>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.path().symlink_metadata() else { continue };
        found.push((entry.path(), meta.mode()));
        if meta.is_dir() {
            walk(&entry.path(), found);
        }
    }
}

#[test]
fn d12_what_a_build_writes_on_the_way_is_seen_by_nobody_else() {
    need!("docker-registry", "skopeo", "busybox", "ssh-agent", "ssh-keygen");
    let (env, image) = with_busybox();
    let shared = env.work().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o1777)).unwrap();
    let env = env.with("TMPDIR", &shared);
    env.write("secret", "hunter2-hunter2");
    let key = env.work().join("key");
    crate::support::must(env.program("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    env.write(
        "Dockerfile",
        format!(
            "FROM {image}\nCOPY secret /copied\n\
             RUN --mount=type=secret,id=s --mount=type=ssh <<EOF\ncat /run/secrets/s > /dev/null\nsleep 1\nEOF\n"
        ),
    );
    // A build without a mask of its own would leave files that everybody may write.
    let line = "umask 000; exec \"$0\" \"$@\"";
    let mut command = env.program("sh");
    command.args(["-c", line]).arg(crate::support::strate());
    command.args([
        "build",
        "--secret",
        "id=s,src=secret",
        "--ssh",
        "default=key",
        "-o",
        "type=tar,dest=shared/out.tar",
        ".",
    ]);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut open, mut plain, mut most) = (BTreeSet::new(), BTreeSet::new(), 0);
    while child.try_wait().unwrap().is_none() {
        let mut found = Vec::new();
        walk(&shared, &mut found);
        // The result itself is for others to read, under its name and under the one that it has on the way to it.
        let is_result = |path: &Path, mode: u32| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            (name == "out.tar" || name.starts_with(".strate-")) && mode & 0o022 == 0
        };
        open.extend(found.into_iter().filter(|(path, mode)| mode & 0o077 != 0 && !is_result(path, *mode)));
        let mut staged = Vec::new();
        walk(&env.store().join("tmp"), &mut staged);
        most = most.max(staged.len());
        let holds = |path: &Path| {
            std::fs::read(path)
                .is_ok_and(|bytes| bytes.windows(15).any(|window| window == b"hunter2-hunter2"))
        };
        let copied = |path: &Path| path.ends_with("copied");
        plain.extend(staged.into_iter().filter(|(path, _)| path.is_file() && !copied(path) && holds(path)));
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(most > 0, "nothing was staged while we looked");
    assert_eq!(open, BTreeSet::new(), "others can look into these");
    assert_eq!(plain, BTreeSet::new(), "the secret reached the disk");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&env.store()), mode(&env.store().join("tmp")) & 0o022), (0o700, 0));
    // Nothing is left, and names are not used twice.
    assert_eq!(std::fs::read_dir(&shared).unwrap().count(), 1);
}

#[test]
fn d3_d4_d7_steps_reach_neither_files_of_the_host_nor_leave_secrets() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    // Whatever the environment of the builder holds (D9), steps do not see it.
    let env = env.with("AWS_SECRET_ACCESS_KEY", "hunter2-in-the-environment");
    env.write("secret", "hunter2-in-a-file");
    let canary = env.work().join("canary");
    std::fs::create_dir_all(canary.join("b")).unwrap();
    let escape = env.work().join("escape");
    env.write(
        "Dockerfile",
        format!(
            "FROM {image}\nARG SEEN\n\
             RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=WORD [ \"$WORD\" = \"$(cat /run/secrets/s)\" ]\n\
             RUN ! env | grep hunter.-in\n\
             RUN --mount=type=cache,id=../../../../../../../../../../..{escape},target=/c touch /c/f\n\
             RUN --mount=type=cache,target=/a/b mv /a /c 2>/dev/null; ln -s {canary} /a 2>/dev/null; true\n\
             RUN --mount=type=tmpfs,target=/t/b rmdir /t 2>/dev/null; ln -s {canary} /t/x; true\n",
            escape = escape.display(),
            canary = canary.display(),
        ),
    );
    env.run(["build", "-t", "x", "--secret", "id=s,src=secret", "."]).success();
    assert!(canary.join("b").is_dir() && std::fs::read_dir(&canary).unwrap().count() == 1);
    assert!(!escape.exists());
    let saved = env.work().join("x.tar");
    env.run(["save", "--format", "oci-archive", "-o", "x.tar", "x"]).success();
    let unpacked = env.work().join("unpacked");
    env.run(["build", "-q", "-o", "unpacked", "."]).success();
    for place in [&env.store(), &saved, &unpacked] {
        let found = env.program("grep").args(["-rl", "hunter2-in"]).arg(place).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{}", place.display());
    }
}
