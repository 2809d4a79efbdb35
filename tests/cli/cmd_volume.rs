//! `volume`, and volumes in containers

use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Env, eventually, need, shared_registry};

/// An environment with an image that has content where its volume is.
fn with_image() -> Env {
    let env = Env::new();
    let base = shared_registry().image("busybox:latest");
    env.write("context/data/f", "hello\n");
    env.write("context/data/sub/g", "deeper\n");
    env.write("context/Dockerfile", format!("FROM {base}\nCOPY --chmod=640 data /data\nVOLUME /data\n"));
    env.run(["build", "-q", "-t", "img", "context"]).success();
    env
}

const RUN: [&str; 4] = ["run", "--rm", "--network", "none"];

fn run(env: &Env, args: &[&str]) -> crate::support::Output {
    env.run(RUN.iter().chain(args))
}

fn volumes(env: &Env) -> Vec<String> {
    env.run(["volume", "ls", "-q"]).success().text().lines().map(str::to_owned).collect()
}

fn record_of(env: &Env, container: &str) -> PathBuf {
    let id = env.run(["inspect", "-f", "{{.Id}}", container]).success();
    env.store().join("containers").join(id.text()).join("config.json")
}

#[test]
fn volumes_are_made_listed_and_removed() {
    let env = Env::new();
    env.run(["volume", "ls"]).success().prints("DRIVER    VOLUME NAME");
    env.run(["volume", "create", "data"]).success().prints("data");
    env.run(["volume", "create", "data"]).success().prints("data");
    env.run(["volume", "create", "--label", "k=v", "labelled"]).success();
    env.run(["volume", "create", "--label", "k=other", "labelled"]).success().stderr_has("its labels stay");
    let anonymous = env.run(["volume", "create"]).success();
    assert_eq!(anonymous.text().len(), 64, "{anonymous}");
    env.run(["volume", "ls", "-n", "-f", "name=^data$"]).success().prints("local     data");
    env.run(["volume", "ls", "-q", "-f", "label=k=v"]).success().prints("labelled");
    env.run(["volume", "ls", "-q", "-f", "dangling=false"]).success().prints("");
    env.run(["volume", "ls", "-f", "odd=1"]).code(1).stderr_has("dangling, driver, label, name");
    let row = env.run(["volume", "ls", "-f", "name=labelled", "--format", "json"]).success().json();
    assert_eq!(
        (&row["Name"], &row["Labels"], &row["Links"]),
        (&"labelled".into(), &"k=v".into(), &"0".into())
    );
    let shown = env.run(["volume", "inspect", "labelled"]).success().json();
    assert_eq!((&shown[0]["Driver"], &shown[0]["Scope"]), (&"local".into(), &"local".into()));
    assert!(PathBuf::from(shown[0]["Mountpoint"].as_str().unwrap()).is_dir(), "{shown}");
    env.run(["inspect", "--type", "volume", "-f", "{{.Labels.k}}", "labelled"]).success().prints("v");
    env.run(["volume", "inspect", "none"]).code(1).prints("[]").stderr_has("no such volume: none");
    env.run(["volume", "exists", "data"]).success();
    env.run(["volume", "exists", "none"]).code(1).stderr_lacks("error");
    env.run(["volume", "rm", "none", "data"]).code(1).prints("data").stderr_has("none");
    env.run(["volume", "rm", "-f", "none"]).success();
    env.run(["volume", "prune", "--dry-run", "-a"]).success().stdout_has("labelled");
    env.run_with_input(["volume", "prune"], "n\n").success().stderr_has("anonymous local volumes");
    assert_eq!(volumes(&env).len(), 2);
    env.run(["volume", "prune", "-f"])
        .success()
        .stdout_has(anonymous.text())
        .stdout_has("Total reclaimed space: ");
    assert_eq!(volumes(&env), ["labelled"]);
    env.run(["volume", "prune", "-f", "-a", "--filter", "label!=k"]).success();
    env.run(["volume", "prune", "-f", "-a", "--filter", "label=k"]).success();
    assert!(volumes(&env).is_empty());
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    let env = Env::new();
    for (args, why) in [
        (&["-o", "type=nfs", "-o", "device=:/x", "nfs"][..], "type=nfs"),
        (&["-o", "size=1g", "big"], "quotas"),
        (&["-o", "odd=1", "odd"], "odd"),
        (&["-d", "nfs-plugin", "plugged"], "nfs-plugin"),
        (&["x"], "invalid volume name"),
        (&["../../etc"], "invalid volume name"),
        (&["a/b"], "invalid volume name"),
    ] {
        env.run(["volume", "create"].iter().chain(args)).code(1).stderr_has(why);
    }
    assert!(volumes(&env).is_empty());
    env.run(["volume", "create", "--uid", "7", "mine"]).success();
    env.run(["volume", "create", "-o", "type=tmpfs", "mine"]).code(1).stderr_has("other options");
    env.run(["volume", "create", "--ignore", "-o", "type=tmpfs", "mine"]).success();
    env.run(["volume", "inspect", "-f", "{{.Options.o}}", "mine"]).success().prints("uid=7");
}

#[test]
fn a_new_volume_gets_what_the_image_has_and_keeps_it() {
    need!("docker-registry", "skopeo", "busybox");
    let env = with_image();
    run(&env, &["-v", "vol:/data", "img", "sh", "-c", "cat /data/f /data/sub/g; stat -c %a /data/f"])
        .success()
        .prints("hello\ndeeper\n640");
    run(
        &env,
        &["-v", "vol:/data", "img", "sh", "-c", "echo mine > /data/f; rm -r /data/sub /data/one /data/same"],
    )
    .success();
    run(&env, &["-v", "vol:/data", "img", "sh", "-c", "cat /data/f; ls /data"]).success().prints("mine\nf");
    run(&env, &["-v", "empty:/data:nocopy", "img", "ls", "-A", "/data"]).success().prints("");
    run(&env, &["--mount", "type=volume,src=other,dst=/data,volume-nocopy", "img", "ls", "/data"])
        .success()
        .prints("");
    run(&env, &["--image-volume", "tmpfs", "img", "sh", "-c", "stat -f -c %T /data; ls /data"])
        .success()
        .prints("tmpfs");
    run(&env, &["-v", "vol:/data:ro", "img", "touch", "/data/x"]).code(1).stderr_has("Read-only");
    assert_eq!(volumes(&env), ["empty", "other", "vol"], "anonymous ones went with --rm");
}

#[test]
fn many_first_starts_fill_once() {
    need!("docker-registry", "skopeo", "busybox");
    let env = with_image();
    let all: Vec<_> = (0..4)
        .map(|_| {
            env.spawn(RUN.iter().chain(&["-v", "vol:/data", "img", "sh", "-c", "cat /data/f /data/sub/g"]))
        })
        .collect();
    for one in all {
        one.finish().success().prints("hello\ndeeper");
    }
    assert_eq!(volumes(&env), ["vol"]);
}

#[test]
fn anonymous_volumes_go_when_they_are_told_to() {
    need!("docker-registry", "skopeo", "busybox");
    let env = with_image();
    for name in ["kept", "gone"] {
        env.run(["run", "--network", "none", "--name", name, "-v", "named:/n", "img", "touch", "/data/mine"])
            .success();
    }
    assert_eq!(volumes(&env).len(), 3);
    let mounts = env.run(["inspect", "-f", "{{json .Mounts}}", "kept"]).success().json();
    assert_eq!((&mounts[0]["Type"], &mounts[0]["Driver"]), (&"volume".into(), &"local".into()));
    let own =
        mounts.as_array().unwrap().iter().find(|m| m["Destination"] == "/data").unwrap()["Name"].clone();
    let own = own.as_str().unwrap().to_owned();
    env.run(["ps", "-aq", "--filter", &format!("volume={own}"), "--format", "{{.Names}}"])
        .success()
        .prints("kept");
    env.run(["volume", "rm", &own]).code(2).stderr_has("kept");
    env.run(["volume", "rm", "-f", "named"]).code(2).stderr_has("gone").stderr_has("kept");
    // Another container's volumes stay that container's.
    run(&env, &["--volumes-from", "kept:ro", "img", "sh", "-c", "ls /data; touch /n/x"])
        .code(1)
        .stdout_has("mine");
    env.run(["rm", "-v", "gone"]).success();
    assert_eq!(volumes(&env).len(), 2);
    env.run(["rm", "kept"]).success();
    assert_eq!(volumes(&env).len(), 2, "kept without -v");
    env.run(["volume", "prune", "-f"]).success().stdout_has(&own);
    assert_eq!(volumes(&env), ["named"]);
}

#[test]
fn parts_of_volumes_lie_within_them() {
    need!("docker-registry", "skopeo", "busybox");
    let env = with_image();
    run(&env, &["-v", "vol:/data", "img", "ln", "-s", "/", "/data/escape"]).success();
    let mount = |path: &str| format!("type=volume,src=vol,dst=/part,volume-subpath={path},readonly");
    run(&env, &["--mount", &mount("sub"), "img", "ls", "/part"]).success().prints("g");
    run(&env, &["--mount", &mount("escape"), "img", "ls", "/part"]).success().stdout_has("escape\nf\n");
    run(&env, &["--mount", &mount("../.."), "img", "true"]).code(125).stderr_has("stays in the volume");
    run(&env, &["--mount", &mount("none"), "img", "true"]).code(125).stderr_has("/_data/none");
}

#[test]
fn options_decide_what_stands_behind_a_volume() {
    need!("docker-registry", "skopeo", "busybox");
    let env = with_image();
    let host = env.work().join("host");
    let device = format!("device={}", host.display());
    env.run(["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bound"]).success();
    run(&env, &["-v", "bound:/data", "img", "true"]).code(125).stderr_has("mkdir -p");
    std::fs::create_dir(&host).unwrap();
    run(&env, &["-v", "bound:/data", "img", "touch", "/data/x"]).success();
    assert!(host.join("x").exists() && host.join("f").exists());
    run(
        &env,
        &[
            "--mount",
            "type=volume,src=memory,dst=/m,volume-opt=type=tmpfs,\"volume-opt=o=size=1m,mode=700\"",
            "img",
            "sh",
            "-c",
            "stat -f -c %T /m; stat -c %a /m",
        ],
    )
    .success()
    .prints("tmpfs\n700");
    env.run(["volume", "export", "memory"]).code(1).stderr_has("is memory");
}

#[test]
fn volumes_of_a_container_that_cannot_be_made_go_away() {
    need!("docker-registry", "skopeo", "busybox");
    let env = with_image();
    env.run(["volume", "create", "kept"]).success();
    let other = "type=volume,src=kept,dst=/d,volume-opt=type=tmpfs,volume-opt=device=tmpfs";
    let started = std::time::Instant::now();
    run(&env, &["-v", "/own", "--mount", other, "img", "true"]).code(125).stderr_has("kept");
    assert!(started.elapsed() < Duration::from_secs(15), "it waited for itself");
    env.run(["volume", "ls", "-q"]).success().prints("kept");
}

#[test]
fn files_go_out_and_come_in_as_a_tar() {
    need!("docker-registry", "skopeo", "busybox");
    let env = with_image();
    run(&env, &["-v", "from:/data", "img", "true"]).success();
    env.run(["volume", "export", "-o", "out.tar", "from"]).success().prints("");
    env.run(["volume", "create", "into"]).success();
    env.run(["volume", "import", "into", "out.tar"]).success();
    run(&env, &["-v", "into:/data:nocopy", "img", "cat", "/data/f", "/data/sub/g"])
        .success()
        .prints("hello\ndeeper");
    env.run(["volume", "import", "none", "out.tar"]).code(1).stderr_has("no such volume");
    env.run(["volume", "import", "into"]).code(1).stderr_has("empty");
    env.run_with_input(["volume", "import", "into", "-"], &"no tar at all".repeat(100))
        .code(1)
        .stderr_has("tar");
    env.run(["volume", "export", "none"]).code(1).stderr_has("strate volume ls");
}

#[test]
fn who_was_killed_before_removing_itself_is_swept() {
    need!("docker-registry", "skopeo", "busybox");
    let env = with_image();
    let mut killed = env.spawn(RUN.iter().chain(&["--name", "killed", "img", "sleep", "100"]));
    eventually("the start", Duration::from_secs(20), || {
        (env.run(["ps", "-q", "--filter", "name=killed"]).success().text().len() == 12).then_some(())
    });
    run(&env, &["img", "true"]).success();
    env.run(["ps", "--format", "{{.Names}}"]).success().prints("killed");
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    eventually("the end of its program", Duration::from_secs(20), || {
        run(&env, &["img", "true"]).success();
        env.run(["ps", "-aq"]).success().text().is_empty().then_some(())
    });
    assert!(volumes(&env).is_empty(), "its own volume went too");
}

#[test]
fn one_damaged_record_harms_nobody_else() {
    need!("docker-registry", "skopeo", "busybox");
    let env = with_image();
    for name in ["good", "bad"] {
        env.run(["create", "--network", "none", "--name", name, "-v", "named:/n", "img", "true"]).success();
    }
    let own = volumes(&env).len();
    std::fs::write(record_of(&env, "bad"), "{\"id\":").unwrap();
    let listed =
        env.run(["ps", "-a", "--format", "{{.Names}}"]).success().prints("good").stderr_has("strate rm -f");
    assert_eq!(listed.stderr.matches("damaged").count(), 1, "{listed}");
    env.run(["start", "-a", "good"]).success();
    env.run(["start", "bad"]).code(1).stderr_has("damaged").stderr_has("strate rm -f");
    env.run(["rm", "bad"]).code(1).stderr_has("strate rm -f");
    env.run(["rm", "good"]).success();
    // Nobody knows which volumes it uses.
    env.run(["volume", "prune", "-f"]).success().stderr_has("no volume is removed");
    assert_eq!(volumes(&env).len(), own);
    env.run(["container", "prune", "-f"]).success();
    env.run(["rm", "-f", "bad"]).success().prints("bad");
    env.run(["ps", "-a"]).success().stderr_lacks("damaged");
    env.run(["volume", "prune", "-fa"]).success();
    assert!(volumes(&env).is_empty());
    // A state that cannot be read is no reason to hide the container.
    env.run(["create", "--network", "none", "--name", "odd", "img", "true"]).success();
    std::fs::write(record_of(&env, "odd").with_file_name("state.json"), "{").unwrap();
    env.run(["ps", "-a", "--format", "{{.State}}"]).success().prints("exited");
    env.run(["start", "-a", "odd"]).success();
    env.run(["container", "prune", "--dry-run"])
        .success()
        .stdout_has("Would delete")
        .stdout_has("reclaimable");
    env.run(["container", "prune", "-f", "--filter", "until=1h"]).success();
    env.run(["ps", "-a", "--format", "{{.Names}}"]).success().prints("odd");
    env.run(["container", "prune", "-f"]).success().stdout_has("Deleted Containers:");
    env.run(["ps", "-aq"]).success().prints("");
}

#[test]
fn a_container_that_has_lost_its_record_keeps_what_it_may_use() {
    need!("docker-registry", "skopeo", "busybox");
    for emptied in [true, false] {
        let env = with_image();
        let detached = ["run", "-d", "--network", "none", "--name", "web", "-v", "named:/n", "img"];
        env.run(detached.iter().chain(&["sh", "-c", "echo mine >/data/mine; exec sleep 100"])).success();
        let record = record_of(&env, "web");
        let own = volumes(&env).into_iter().find(|name| name.len() == 64).unwrap();
        let data = env.store().join("volumes").join(&own).join("_data/mine");
        eventually("what the program writes", Duration::from_secs(10), || data.exists().then_some(()));
        let snapshots = || std::fs::read_dir(env.store().join("snapshots")).unwrap().count();
        let before = snapshots();
        if emptied {
            std::fs::write(&record, "").unwrap();
        } else {
            std::fs::remove_file(&record).unwrap();
        }
        env.run(["system", "check", "--quick"]).code(1).stdout_has("container");
        let mut prunes: Vec<&[&str]> = vec![&["volume", "prune", "-f"], &["volume", "prune", "-fa"]];
        prunes.push(&["system", "prune", "-fa", "--volumes"]);
        for prune in prunes {
            env.run(prune).success().stderr_has("damaged").stderr_has("strate rm -f");
        }
        env.run(["image", "prune", "-af"]).success();
        env.run(["rmi", "-af"]);
        assert!(data.exists() && volumes(&env).len() == 2, "{emptied}: a volume is gone");
        assert_eq!(snapshots(), before, "{emptied}: what the program runs from is gone");
        env.run(["start", "web"]).code(1).stderr_has("strate rm -f");
        env.run(["rm", "-f", "web"]).success();
        env.run(["ps", "-aq"]).success().prints("");
        env.run(["system", "prune", "-fa", "--volumes"]).success().stderr_lacks("damaged");
        env.run(["volume", "prune", "-fa"]).success();
        assert!(volumes(&env).is_empty() && snapshots() < before);
    }
}
