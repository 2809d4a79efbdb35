//! `--userns`: who the user is in a container, and that files have their owners all the same.

use std::os::unix::fs::MetadataExt;

use crate::support::{Env, need, shared_registry};

const RUN: [&str; 4] = ["run", "--rm", "--network", "none"];

fn with_image() -> (Env, String) {
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    env.run(["pull", "-q", &image]).success();
    (env, image)
}

fn own() -> (u32, u32) {
    (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
}

#[test]
fn keep_id_makes_the_user_who_they_are_and_files_keep_their_owners() {
    need!(user);
    need!("docker-registry", "skopeo", "busybox", "newuidmap");
    let (env, image) = with_image();
    let (uid, gid) = own();
    std::fs::create_dir(env.work().join("shared")).unwrap();
    let volume = format!("{}:/mnt", env.work().join("shared").display());
    let script = "id -u; id -g; stat -c %u:%g /bin/busybox /data/one /home/user / /dev/shm /mnt; touch /mnt/made; id -un; echo $HOME";
    let name = std::process::Command::new("id").arg("-un").output().unwrap();
    let name = String::from_utf8(name.stdout).unwrap();
    let expected =
        format!("{uid}\n{gid}\n0:0\n1000:1000\n1000:1000\n0:0\n0:0\n{uid}:{gid}\n{}\n/", name.trim());
    let run = |flags: &[&str], script: &str| {
        env.run(RUN.iter().chain(&["--userns", "keep-id", "-v", &volume]).chain(flags).chain(&[
            image.as_str(),
            "sh",
            "-c",
            script,
        ]))
    };
    run(&[], script).success().prints(&expected);
    let meta = std::fs::metadata(env.work().join("shared/made")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (uid, gid));
    // Not root, without any power; root where asked for, who is somebody else.
    run(&[], "touch /new; grep CapEff /proc/self/status").stdout_has("0000000000000000").stderr_has("denied");
    // Root has power over the user's files, as it maps them, but what it makes is another's.
    run(&["-u", "0"], "id -u; touch /new && touch /mnt/by-root").success().prints("0");
    assert_ne!(std::fs::metadata(env.work().join("shared/by-root")).unwrap().uid(), uid);
    run(&["-u", "user"], "id -u; stat -c %u ~").success().prints("1000\n1000");
    run(&["--passwd=false"], "id -un").code(1);
    // The same image, side by side with the usual map.
    env.run(RUN.iter().chain(&[image.as_str(), "stat", "-c", "%u:%g", "/bin/busybox", "/data/one"]))
        .success()
        .prints("0:0\n1000:1000");
    let chosen = ["--userns", "keep-id:uid=999,gid=998", &image, "id"];
    env.run(RUN.iter().chain(&chosen)).success().stdout_has("uid=999(").stdout_has("gid=998(");
    env.run(["ps", "-aq"]).success().prints("");
}

#[test]
fn a_kept_container_is_started_entered_copied_and_committed_as_others() {
    need!(user);
    need!("docker-registry", "skopeo", "busybox", "newuidmap");
    let (env, image) = with_image();
    let (uid, gid) = own();
    let script = "while :; do sleep 1; done";
    let create =
        ["create", "--name", "c", "--network", "none", "--userns=keep-id", &image, "sh", "-c", script];
    env.run(create).success();
    env.run(["start", "c"]).success();
    let exec = |user: &str, script: &str| env.run(["exec", "-u", user, "c", "sh", "-c", script]);
    env.run(["exec", "c", "id", "-u"]).success().prints(&uid.to_string());
    exec(
        "0",
        "mkdir /made && echo x > /made/root && echo y > /made/bob && chown 7:8 /made/bob && chmod 755 /made",
    )
    .success();
    exec("0", &format!("echo z > /made/kept; chown {uid}:{gid} /made/kept")).success();
    env.write("file", "one");
    env.run(["cp", "file", "c:/made/copied"]).success();
    env.run(["inspect", "-f", "{{.HostConfig.UsernsMode}}", "c"])
        .success()
        .prints(&format!("keep-id:uid={uid},gid={gid}"));
    env.run(["diff", "c"]).success().stdout_has("A /made/bob");
    let owners = format!("7:8\n0:0\n{uid}:{gid}\n0:0");
    let stat = ["stat", "-c", "%u:%g", "/made/bob", "/made/copied", "/made/kept", "/made/root"];
    for running in [true, false] {
        if !running {
            env.run(["stop", "-t", "0", "c"]).success();
            env.run(["cp", "file", "c:/made/copied"]).success();
        }
        env.run(["commit", "-q", "c", "kept"]).success();
        env.run(RUN.iter().chain(&["kept"]).chain(&stat)).success().prints(&owners);
        let again = ["--userns", "keep-id", "-u", "0", "kept"];
        env.run(RUN.iter().chain(&again).chain(&stat)).success().prints(&owners);
        env.run(["inspect", "-f", "{{.Config.User}}", "kept"]).success().prints("");
        let tar = env.command(["export", "c"]).output().unwrap().stdout;
        let mut archive = tar::Archive::new(tar.as_slice());
        let found = archive.entries().unwrap().map(Result::unwrap).find_map(|entry| {
            let header = entry.header();
            entry
                .path()
                .unwrap()
                .ends_with("made/bob")
                .then(|| (header.uid().unwrap(), header.gid().unwrap()))
        });
        assert_eq!(found, Some((7, 8)));
    }
    env.run(["restart", "-t", "0", "c"]).success();
    env.run(["exec", "c", "id", "-u"]).success().prints(&uid.to_string());
    env.run(["rm", "-f", "c"]).success();
    env.run(["system", "prune", "-af"]).success();
    env.check_store();
}

#[test]
fn what_cannot_be_had_is_refused_by_name() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_image();
    let run = |mode: &str| env.run(RUN.iter().chain(&["--userns", mode, image.as_str(), "id", "-u"]));
    run("host").success().prints("0");
    run("odd").code(125).stderr_has("keep-id");
    run("keep-id:uid=x").code(125);
    run("keep-id:uid=4294967296").code(125);
    run("auto").code(125).stderr_has("--userns auto");
    if own().0 == 0 {
        run("keep-id").code(125).stderr_has("root");
    }
}
