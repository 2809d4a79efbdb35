//! An additional store whose owner means harm: its list of names ends nobody's command, fills nobody's memory, and tells
//! a terminal nothing.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Env, Output, is_root, must};

fn run(env: &Env, site: &Path, args: &[&str]) -> Output {
    // No more memory than a terabyte of zeros would need.
    let script = "ulimit -v 2000000; exec \"$0\" \"$@\"";
    let mut command = env.program("sh");
    command.args(["-c", script]).arg(crate::support::strate()).arg("--imagestore").arg(site).args(args);
    let began = Instant::now();
    let output = Output::of(&mut command);
    assert!(began.elapsed() < Duration::from_secs(20), "it hangs: {output}");
    assert!(output.code < 126 && !output.stderr.contains("panicked"), "it breaks: {output}");
    assert!(!output.stdout.contains('\u{1b}') && !output.stderr.contains('\u{1b}'), "{output}");
    output
}

#[test]
fn a_hostile_list_of_names_harms_nobody() {
    let env = Env::new();
    env.write("ctx/file", "content\n");
    env.write("ctx/Dockerfile", "FROM scratch\nCOPY file /file\n");
    env.run(["build", "-q", "-t", "mine:1", "ctx"]).success();
    let site = env.work().join("site");
    let other = ["--root", site.to_str().unwrap()];
    env.run([&other[..], &["build", "-q", "-t", "theirs:1", "ctx"]].concat()).success();
    let list = site.join("index.json");
    let good = fs::read_to_string(&list).unwrap();
    if is_root() {
        must(std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(&site));
    }
    let deep = |text: &str| text.repeat(300_000);
    let named = |name: &str| good.replace("docker.io/library/theirs:1", name);
    let texts = [
        deep("["),
        deep("{\"manifests\":["),
        format!("{{\"schemaVersion\":2,\"manifests\":[{}", deep("{\"a\":")),
        named("x\\u001b]0;evil\\u0007:1"),
        named("../../../etc/passwd"),
        named("a\\nmine:1"),
        named(&"a/".repeat(100_000)),
        good.replace("sha256:", "sha256:../../"),
        good.replace("\"size\":", "\"size\":-"),
        good.replace("\"size\":", "\"size\":99999999999999999999"),
        "\0".repeat(1000),
    ];
    let look = |what: &str| {
        let listed = run(&env, &site, &["images", "--format", "{{.Repository}}"]);
        assert!(listed.stdout.contains("mine"), "{what}: what is our own is not shown: {listed}");
        run(&env, &site, &["inspect", "mine:1"]).success();
        run(&env, &site, &["inspect", "theirs:1"]);
        run(&env, &site, &["history", "theirs:1"]);
        run(&env, &site, &["tag", "theirs:1", "taken:1"]);
        run(&env, &site, &["system", "df"]).success();
    };
    for text in &texts {
        fs::write(&list, text).unwrap();
        look(&text.chars().take(40).collect::<String>());
    }
    let place = |script: &str| {
        fs::remove_file(&list).unwrap();
        must(std::process::Command::new("sh").args(["-c", script]).current_dir(&site));
        look(script);
    };
    place("mkfifo index.json");
    place("ln -s /dev/zero index.json");
    place("ln -s /proc/self/mem index.json");
    place("truncate -s 3G index.json");
    place("printf '[' > index.json; truncate -s 60M index.json");
    place("ln -s index.json index.json");
    fs::remove_file(&list).unwrap();
    fs::create_dir(&list).unwrap();
    look("a directory");
    assert_eq!(
        env.run(["images", "--format", "{{.Repository}}"]).success().text().matches("mine").count(),
        1
    );
}
