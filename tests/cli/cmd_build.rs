//! `build` with the small image: cache, stages, errors. `walk_debian.rs` builds as people do.

use crate::support::{need, with_busybox};

#[test]
fn a_second_build_is_cached_and_a_change_runs_only_what_follows() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let dockerfile =
        format!("FROM {image}\nRUN echo one > /one\nCOPY file /file\nRUN cat /one /file > /both\n");
    env.write("Dockerfile", dockerfile);
    env.write("file", "two\n");
    let build = || env.run(["build", "--progress", "plain", "-t", "app", "."]).success();
    let first = build();
    assert_eq!(first.cached_steps(), 0, "{first}");
    let id = env.run(["images", "-q", "--no-trunc", "app"]).text().to_owned();
    let second = build();
    assert_eq!(second.cached_steps(), 3, "{second}");
    assert_eq!(env.run(["images", "-q", "--no-trunc", "app"]).text(), id, "the same build, the same image");
    env.write("file", "three\n");
    let third = build();
    assert_eq!(third.cached_steps(), 1, "{third}");
    env.run(["run", "--rm", "--network", "none", "app", "cat", "/both"]).success().prints("one\nthree");
    // A new time alone is no change.
    std::fs::File::options()
        .write(true)
        .open(env.work().join("file"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000))
        .unwrap();
    let fourth = build();
    assert_eq!(fourth.cached_steps(), 3, "{fourth}");
}

#[test]
fn stages_that_the_target_does_not_need_are_not_built() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    env.write(
        "Dockerfile",
        format!(
            "FROM {image} AS broken\nRUN false\nFROM {image} AS made\nRUN echo hello > /out\n\
             FROM scratch\nCOPY --from=made /bin/busybox /bin/cat\nCOPY --from=made /out /out\nCMD [\"/bin/cat\", \"/out\"]\n"
        ),
    );
    env.run(["build", "-t", "small", "."]).success();
    env.run(["run", "--rm", "--network", "none", "small"]).success().prints("hello");
    env.run(["build", "--target", "broken", "."]).code(1).stderr_has("exit code: 1");
}

#[test]
fn a_quiet_build_prints_the_id_alone() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    env.write("Dockerfile", format!("FROM {image}\nLABEL a=b\n"));
    let output = env.run(["build", "-q", "."]).success();
    assert!(output.text().starts_with("sha256:") && output.text().len() == 71, "{output}");
    env.run(["inspect", "-f", "{{.Config.Labels.a}}", output.text()]).success().prints("b");
}

#[test]
fn broken_lines_are_shown_with_a_suggestion() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    env.write("Dockerfile", format!("FROM {image}\nRUNN true\n"));
    env.run(["build", "."]).code(1).stderr_has("RUNN true").stderr_has("did you mean RUN?");
    env.write("Dockerfile", format!("FROM {image}\nCOPY no-such-file /x\n"));
    env.run(["build", "."]).code(1).stderr_has("no-such-file").stderr_has("COPY no-such-file /x");
    env.write("Dockerfile", format!("FROM {image}\nRUN echo some words; exit 9\n"));
    env.run(["build", "."])
        .code(1)
        .stderr_has("some words")
        .stderr_has("exit code: 9")
        .stderr_has("RUN echo");
    env.run(["build", "no-such-dir"]).code(1).stderr_has("no-such-dir");
    env.run(["images", "-aq"]).success(); // the store is as it was
}
