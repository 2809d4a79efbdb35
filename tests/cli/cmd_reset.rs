//! `system reset`

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::Env;

fn store_with_image() -> Env {
    let env = Env::new();
    env.write("ctx/Dockerfile", "FROM scratch\nCOPY file /\n");
    env.write("ctx/file", "x");
    env.run(["build", "-q", "-t", "small:1", "ctx"]).success();
    env
}

#[test]
fn a_reset_asks_and_says_what_is_lost() {
    let env = store_with_image();
    env.run(["create", "--name", "c", "--network", "none", "small:1", "/x"]).success();
    let asked = env.run_with_input(["system", "reset"], "n\n").success();
    assert!(asked.stderr.contains("images") && asked.stderr.contains(": 1"), "{asked}");
    assert!(asked.stderr.contains(env.store().to_str().unwrap()), "{asked}");
    env.run(["images", "-q", "small:1"]).success();
    env.run_with_input(["system", "reset"], "y\n").success();
    assert!(!env.store().exists());
    env.run(["system", "reset", "-f"]).success().stderr_has("no store");
    env.run(["images", "-q"]).success().prints("");
}

#[test]
fn a_reset_removes_a_store_and_nothing_else() {
    let env = store_with_image();
    let store = env.store();
    let precious = env.work().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("canary"), "x").unwrap();
    // Somebody's own file at the top: it is named, and nothing goes.
    fs::write(store.join("thesis.tex"), "x").unwrap();
    env.run(["system", "reset", "-f"]).code(1).stderr_has("`thesis.tex`");
    env.run(["images", "-q", "small:1"]).success();
    fs::remove_file(store.join("thesis.tex")).unwrap();
    // Directories that are no stores, whatever they are called.
    for dir in [env.home(), env.work(), "/".into(), precious.clone()] {
        env.run(["--root", dir.to_str().unwrap(), "system", "reset", "-f"]).code(1).stderr_has("not reset");
    }
    // Links are removed, and not followed.
    fs::rename(store.join("volumes"), env.work().join("volumes")).unwrap();
    symlink(&precious, store.join("volumes")).unwrap();
    symlink(&precious, store.join("snapshots/sha256-00")).unwrap();
    env.run(["system", "reset", "-f"]).success();
    assert!(!store.exists() && precious.join("canary").exists());
}

#[test]
fn a_reset_that_was_cut_short_is_taken_up() {
    let env = store_with_image();
    for name in ["index.json", "oci-layout"] {
        fs::remove_file(env.store().join(name)).unwrap();
    }
    fs::remove_dir_all(env.store().join("blobs")).unwrap();
    env.run(["system", "reset", "-f"]).success();
    assert!(!env.store().exists());
}

#[test]
fn a_container_that_is_in_use_keeps_the_store_whatever_its_record_says() {
    let env = store_with_image();
    let id = env
        .run(["create", "--name", "c", "--network", "none", "small:1", "/x"])
        .success()
        .stdout
        .trim()
        .to_owned();
    let dir = env.store().join("containers").join(&id);
    // As a program that runs holds it.
    let program = fs::File::open(&dir).unwrap();
    rustix::fs::flock(&program, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    for record in ["{", ""] {
        fs::write(dir.join("config.json"), record).unwrap();
        env.run_with_input(["system", "reset"], "y\n").code(1).stderr_has("`c` runs");
        assert!(dir.exists() && env.store().join("blobs").exists());
    }
    drop(program);
    env.run_with_input(["system", "reset"], "y\n").success().stderr_has("containers");
    assert!(!env.store().exists());
}
