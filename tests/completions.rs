//! The completion scripts: those that are checked in are those that the binary prints, and they work in their shells.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "tests read the environment of their runner")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const STRATE: &str = env!("CARGO_BIN_EXE_strate");

fn strate(args: &[&str]) -> String {
    let home = std::env::temp_dir().join("strate-no-such-home");
    let output = Command::new(STRATE).args(args).env("HOME", &home).stdin(Stdio::null()).output().unwrap();
    assert!(!home.exists(), "completion made a store");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_scripts_that_are_checked_in_are_current() {
    for (shell, file) in [("bash", "strate.bash"), ("zsh", "_strate"), ("fish", "strate.fish")] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/completions").join(file);
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(strate(&["completion", shell]) == kept, "{}: run `make completions`", path.display());
    }
}

#[test]
fn answers_are_quick_and_quiet() {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let output =
            Command::new(STRATE).args(["__complete", "bash", "2", "strate", "rmi", ""]).output().unwrap();
        best = best.min(start.elapsed());
        assert!(output.stderr.is_empty() && output.status.success());
    }
    assert!(best < Duration::from_millis(200), "{best:?} for one answer"); // 30 ms is the aim, on a quiet machine
}

/// What bash would offer for a line, its words split as bash splits them.
fn bash(line: &str) -> Option<Vec<String>> {
    let script = format!(
        r#"PATH={dir}:$PATH
source {contrib}/strate.bash
COMP_LINE=$1 COMP_POINT=${{#1}} COMP_TYPE=9
read -r -a plain <<<"${{1//:/ : }}"
COMP_WORDS=("${{plain[@]//=/ = }}")
[[ $1 == *' ' ]] && COMP_WORDS+=("")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_strate
printf '%s\n' "${{COMPREPLY[@]}}""#,
        dir = Path::new(STRATE).parent().unwrap().display(),
        contrib = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/completions"),
    );
    let output = Command::new("bash").args(["-c", &script, "bash", line]).output().ok()?;
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn bash_completes_verbs_flags_and_values() {
    if bash("strate ").is_none() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: bash completion: bash is not installed");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "skipped in CI");
        return;
    }
    assert_eq!(bash("strate comple").unwrap(), ["completion"]);
    assert!(bash("strate version --f").unwrap().contains(&"--format".to_owned()));
    assert_eq!(bash("strate completion fi").unwrap(), ["fish"]);
}
