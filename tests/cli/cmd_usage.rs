//! Wrong usage, help and the rules that hold for every verb.

use std::process::Stdio;

use crate::support::Env;

#[test]
fn wrong_usage_is_code_2_with_a_suggestion() {
    let env = Env::new();
    env.run(["biuld", "."]).code(2).stderr_has("build");
    env.run(["images", "--no-such-flag"]).code(2).stderr_has("--no-such-flag");
    env.run::<&str>([]).code(2).stderr_has("Usage: strate");
}

#[test]
fn wrong_usage_of_run_is_code_125() {
    let env = Env::new();
    for verb in [vec!["run"], vec!["create"], vec!["exec"], vec!["container", "run"]] {
        env.run(verb.iter().chain(&["--no-such-flag"])).code(125);
    }
}

#[test]
fn help_is_short_and_long() {
    let env = Env::new();
    let short = env.run(["build", "-h"]).success();
    let long = env.run(["build", "--help"]).success();
    assert!(long.stdout.len() >= short.stdout.len());
}

#[test]
fn docker_host_is_ignored_with_one_warning() {
    let env = Env::new().with("DOCKER_HOST", "tcp://127.0.0.1:1");
    let output = env.run(["version"]).success().stderr_has("DOCKER_HOST");
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    Env::new().run(["version"]).success().stderr_lacks("warning");
}

#[test]
fn a_reader_that_goes_away_is_a_quiet_end() {
    let env = Env::new();
    let mut child = env.command(["version"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn no_home_says_what_to_do() {
    let env = Env::new().with("HOME", "");
    env.run(["info"]).code(1).stderr_has("HOME").stderr_has("--root");
}
