//! What commands start inherits none of their descriptors: a lock would be held for as long as that runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Env, need, program, shared_registry};

/// Lists the descriptors of a shell: the number, and in the next line what it leads to. Without a pipe of its own.
const LIST: &str = "for n in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
     if [ -L /proc/$$/fd/$n ]; then echo $n; readlink /proc/$$/fd/$n; fi; done";

#[test]
fn those_who_write_id_maps_inherit_no_lock() {
    need!(user);
    need!("docker-registry", "skopeo", "busybox", "newuidmap", "newgidmap");
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    let log = env.work().join("seen");
    for name in ["newuidmap", "newgidmap"] {
        let real = program(name).unwrap();
        let script = format!(
            "#!/bin/sh\n{{ echo {name}; {LIST}; }} >>{}\nexec {} \"$@\"\n",
            log.display(),
            real.display()
        );
        let wrapper = env.write(&format!("bin/{name}"), script);
        fs::set_permissions(wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", env.work().join("bin").display());
    let env = env.with("PATH", path);
    // The last one finds the container before it becomes root of a namespace.
    for args in [
        &["pull", "-q", &image] as &[&str],
        &["run", "-d", "--network", "none", "--name", "c", &image, "sleep", "100"],
        &["commit", "c", "made"],
        &["exec", "c", "true"],
        &["system", "check"],
        &["rm", "-f", "c"],
    ] {
        fs::write(&log, "").unwrap();
        env.run(args).success();
        let seen = fs::read_to_string(&log).unwrap();
        let store = env.store().display().to_string();
        assert!(!seen.contains(&store), "{args:?} hands on what it has open:\n{seen}");
        if args[0] != "exec" {
            assert!(seen.contains("newuidmap\n") && seen.contains("newgidmap\n"), "{args:?}: {seen}");
        }
    }
}

#[test]
fn containers_and_steps_inherit_nothing_but_their_streams() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    let only_streams = |what: &str, listed: &str| {
        let numbers: Vec<&str> = listed.lines().step_by(2).collect();
        assert_eq!(numbers, ["0", "1", "2"], "{what}: {listed}");
    };
    let run = ["run", "--rm", "--network", "none", "-v", "vol:/v", &image, "sh", "-c", LIST];
    only_streams("run", env.run(run).success().text());
    env.run(["run", "-d", "--network", "none", "--name", "c", &image, "sleep", "100"]).success();
    only_streams("exec", env.run(["exec", "c", "sh", "-c", LIST]).success().text());
    let first = &LIST.replace("$$", "1");
    only_streams("run -d", env.run(["exec", "c", "sh", "-c", first]).success().text());
    env.write("Dockerfile", format!("FROM {image}\nRUN exec >/seen; {LIST}\n"));
    env.run(["build", "-q", "--network", "none", "-t", "made", "."]).success();
    let step = env.run(["run", "--rm", "--network", "none", "made", "cat", "/seen"]).success();
    only_streams("RUN", step.text());

    // Whoever stays behind for the container holds its directory and its log, and no lock of the store.
    let store = env.store();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        for fd in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(fd.path()) else { continue };
            let own = target.strip_prefix(&store);
            assert!(own.is_err() || own.is_ok_and(|path| path.starts_with("containers")), "{target:?}");
        }
    }
    env.run(["rm", "-f", "c"]).success();
}
