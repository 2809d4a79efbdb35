//! `alias docker=strate`: what people and scripts type most, run by a shell that knows strate as `docker`. The
//! transcript says what each must print and how it must end; it is data, so that anybody can hold it against docker.

use std::os::unix::fs::symlink;

use regex::Regex;

use crate::support::{Output, need, shared_registry, strate};

/// One command of the transcript.
struct Step {
    line: usize,
    command: String,
    /// Standard output, a pattern a line; `None` stands for any number of lines.
    stdout: Vec<Option<Regex>>,
    /// What standard error must hold.
    stderr: Vec<Regex>,
    code: i32,
}

const TRANSCRIPT: &str = include_str!("docker_alias.txt");

/// `$ COMMAND`, then its output: text as it is, `~ PATTERN` for a line that changes, `...` for any lines, `! PATTERN`
/// for standard error, `[CODE]` for an exit code other than 0.
fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, text) in TRANSCRIPT.lines().enumerate() {
        if let Some(command) = text.strip_prefix("$ ") {
            let (line, command) = (number + 1, command.to_owned());
            steps.push(Step { line, command, stdout: Vec::new(), stderr: Vec::new(), code: 0 });
            continue;
        }
        let Some(step) = steps.last_mut().filter(|_| !text.starts_with("# ") && !text.is_empty()) else {
            continue;
        };
        let whole = |pattern: &str| Regex::new(&format!("^(?:{pattern})$")).unwrap();
        let code = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')?.parse().ok());
        match text {
            _ if code.is_some() => step.code = code.unwrap(),
            "..." => step.stdout.push(None),
            _ => match (text.strip_prefix("~ "), text.strip_prefix("! ")) {
                (Some(pattern), _) => step.stdout.push(Some(whole(pattern))),
                (_, Some(pattern)) => step.stderr.push(Regex::new(pattern).unwrap()),
                _ => step.stdout.push(Some(whole(&regex::escape(text)))),
            },
        }
    }
    steps
}

fn is_like(lines: &[&str], patterns: &[Option<Regex>]) -> bool {
    match patterns {
        [] => lines.is_empty(),
        [None, rest @ ..] => (0..=lines.len()).any(|skipped| is_like(&lines[skipped..], rest)),
        [Some(pattern), rest @ ..] => {
            lines.first().is_some_and(|line| pattern.is_match(line)) && is_like(&lines[1..], rest)
        }
    }
}

impl Step {
    fn why_not(&self, output: &Output) -> Option<&'static str> {
        let lines: Vec<&str> = output.stdout.lines().map(str::trim_end).collect();
        if output.code != self.code {
            Some("another exit code")
        } else if !is_like(&lines, &self.stdout) {
            Some("another output")
        } else if !self.stderr.iter().all(|pattern| pattern.is_match(&output.stderr)) {
            Some("another standard error")
        } else {
            None
        }
    }
}

#[test]
fn what_people_type_most_works_unchanged() {
    need!("docker-registry", "skopeo", "busybox");
    // One of the lines publishes a port.
    let Some((env, _)) = crate::network::with_network("pasta") else { return };
    env.run(["rmi", "-a", "-f"]).success();
    let bin = env.home().join("bin");
    std::fs::create_dir(&bin).unwrap();
    symlink(strate(), bin.join("docker")).unwrap();
    let image = shared_registry().image("busybox:latest");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display());
    let env = env.with("PATH", path).with("I", &image);
    let steps = steps();
    assert!(steps.len() >= 50, "{} commands", steps.len());
    let mut wrong = Vec::new();
    for step in &steps {
        let output = Output::of(env.program("sh").args(["-c", &step.command]));
        if let Some(why) = step.why_not(&output) {
            wrong.push(format!("line {}: {why}: `{}`\n{output}", step.line, step.command));
        }
    }
    env.run(["rm", "-fv", "web", "worker", "again"]);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), steps.len(), wrong.join("\n"));
}
