//! Builds beside what others do with the store at the same time.

use crate::support::{Env, need, shared_registry};

#[test]
fn a_base_that_is_removed_while_it_is_built_upon_is_there_or_not() {
    let env = Env::new();
    // Nobody listens there: a base that is gone cannot come back.
    let base = "localhost:1/base:1";
    env.write("base/file", "content of the base\n");
    env.write("base/Dockerfile", "FROM scratch\nCOPY file /file\n");
    env.write("ctx/own", "own\n");
    env.write("ctx/Dockerfile", format!("FROM {base}\nCOPY own /own\n"));
    let archive = env.work().join("base.tar");
    env.run(["build", "-q", "-t", base, "base"]).success();
    env.run(["save", "-q", "-o", archive.to_str().unwrap(), base]).success();
    let (mut built, mut refused) = (0, 0);
    for round in 0..12 {
        env.run(["load", "-q", "-i", archive.to_str().unwrap()]).success();
        env.run(["builder", "prune", "-af"]).success();
        let build = || env.spawn(["build", "-q", "--retry", "0", "-t", "result", "ctx"]);
        let remove = || env.spawn(["rmi", base]);
        let pause = std::time::Duration::from_millis(round / 2 * 8);
        let (build, remove) = if round % 2 == 0 {
            let build = build();
            std::thread::sleep(pause);
            (build, remove())
        } else {
            let remove = remove();
            std::thread::sleep(pause / 4);
            (build(), remove)
        };
        let (build, remove) = (build.finish(), remove.finish());
        assert_eq!(remove.code, 0, "{remove}");
        match build.code {
            0 => {
                built += 1;
                let out = env.work().join("result.tar");
                env.run(["save", "-q", "-o", out.to_str().unwrap(), "result"]).success();
                env.run(["rmi", "result"]).success();
            }
            1 => {
                refused += 1;
                assert!(
                    build.stderr.contains("localhost:1") && !build.stderr.contains("panicked"),
                    "{build}"
                );
            }
            _ => panic!("a third outcome: {build}"),
        }
        env.run(["system", "check"]).success();
    }
    assert_eq!(built + refused, 12);
    assert!(built > 0, "no build was ever first");
}

#[test]
fn caches_of_steps_are_shared_locked_or_private_under_builds_at_once() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    env.run(["pull", "-q", &image]).success();
    let at_once = |sharing: &str, script: &str| {
        let running: Vec<_> = (0..3)
            .map(|build| {
                let dir = format!("{sharing}{build}");
                let mount = format!("--mount=type=cache,target=/c,id={sharing},sharing={sharing}");
                env.write(
                    &format!("{dir}/Dockerfile"),
                    format!("FROM {image}\nRUN {mount} N={build}; {script}\n"),
                );
                env.spawn(["build", "-q", "-t", &format!("{dir}:1"), &dir])
            })
            .collect();
        running.into_iter().for_each(|one| drop(one.finish().success()));
        let show = |build: usize| {
            let run = ["run", "--rm", "--network", "none", &format!("{sharing}{build}:1"), "cat", "/seen"];
            env.run(run).success().text().to_owned()
        };
        (0..3).map(show).collect::<Vec<_>>()
    };
    // A count that is read, waited upon and written: nobody else's comes between.
    let count = "n=$(cat /c/n 2>/dev/null || echo 0); sleep 0.3; echo $((n+1)) >/c/n; cp /c/n /seen";
    let mut seen = at_once("locked", count);
    seen.sort();
    assert_eq!(seen, ["1", "2", "3"]);
    // Whoever comes while one is taken gets one of their own; one that is free again may be taken.
    let apart = "touch /c/$N; sleep 1; ls /c | wc -l >/seen";
    let seen = at_once("private", apart);
    assert!(
        seen.iter().any(|n| n.trim() == "1") && seen.iter().all(|n| ["1", "2", "3"].contains(&n.trim())),
        "{seen:?}"
    );
    // Each waits until it sees the others.
    let meet = "touch /c/$N; i=0; while [ $(ls /c | wc -l) -lt 3 ] && [ $i -lt 200 ]; do sleep 0.1; i=$((i+1)); done; ls /c | wc -l >/seen";
    assert_eq!(at_once("shared", meet), ["3", "3", "3"]);
}
